"""Read the pictures kept by an evaluation (`evaluation/<model>.npz`) into section panels and thumbnails of errors."""

from __future__ import annotations

import dataclasses
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from neuropil.errors import VolumeError
from neuropil.report.data import (
    Decoder,
    ErrorKind,
    Image,
    Labels,
    ModelPicture,
    SectionPanel,
    SegmentationError,
)
from neuropil.report.pictures import crop as crop_panel
from neuropil.report.pictures import mask_of

THUMBNAIL = (128, 384)  # least and greatest side, pixels
ERRORS_PER_KIND = 5
# "segment" holds both "parts": a proposal segment that holds true objects (merge), or the other way round (split).
TRUTH_KEYS: Mapping[ErrorKind, tuple[str, ...]] = {"merge": ("truth_ids", "parts"), "split": ("truth_ids", "segment")}
SEGMENT_KEYS: Mapping[ErrorKind, tuple[str, ...]] = {
    "merge": ("segment_ids", "segment"),
    "split": ("segment_ids", "parts"),
}


@dataclass(frozen=True)
class Pictures:
    """Arrays of one model over the kept sections `z` (k,), each (k, y, x) or absent; affinities are (k, 3, y, x).

    `corner` is y, x.
    """

    z: tuple[int, ...]
    image: Image
    truth: Labels | None
    boundary: Image | None
    affinities: Image | None
    fragments: Labels | None
    segmentations: Mapping[Decoder, Labels]
    voxel_size: tuple[float, float, float] | None
    corner: tuple[int, int]


def load_pictures(path: Path, scores: Mapping[str, Any]) -> Pictures:
    """Read `evaluation/<model>.npz`; `scores` is the JSON beside it, for what the file itself does not say.

    Raises
    ------
    VolumeError : not a readable npz, no `image` in it, or arrays of different shapes
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise VolumeError(f"{path} is not a readable npz file: {error}; evaluate that model again") from None
    if "segmentation" in scores and "segmentation" not in arrays and "watershed" in arrays:
        arrays["segmentation"] = arrays.pop("watershed")  # a segmentation made elsewhere is kept under this name
    shape = arrays["image"].shape if "image" in arrays else ()
    if len(shape) != 3 or 0 in shape:
        raise VolumeError(f"{path} must hold an image (k, y, x); got {shape or 'none'}")
    for name in ("truth", "boundary", "affinities", "fragments", *get_args(Decoder)):
        if name in arrays and (*arrays[name].shape[:1], *arrays[name].shape[-2:]) != shape:
            raise VolumeError(f"{path}: {name} must have the image's shape {shape}; got {arrays[name].shape}")
    z = tuple(int(one) for one in np.ravel(arrays.get("z", np.arange(shape[0]))))
    if len(z) != shape[0]:
        raise VolumeError(f"{path}: z must name {shape[0]} sections; got {len(z)}")
    size = np.ravel(np.asarray(arrays.get("voxel_size", scores.get("voxel_size") or ()), dtype=float))
    corner = np.ravel(arrays.get("offset", np.zeros(3, dtype=int)))[-2:]
    return Pictures(
        z=z,
        image=_as_uint8(arrays["image"]),
        truth=arrays["truth"].astype(np.uint64) if "truth" in arrays else None,
        boundary=_as_uint8(arrays["boundary"]) if "boundary" in arrays else None,
        affinities=_as_uint8(arrays["affinities"]) if "affinities" in arrays else None,
        fragments=arrays["fragments"].astype(np.uint64) if "fragments" in arrays else None,
        segmentations={name: arrays[name].astype(np.uint64) for name in get_args(Decoder) if name in arrays},
        voxel_size=(float(size[0]), float(size[1]), float(size[2])) if len(size) == 3 and (size > 0).all() else None,
        corner=(int(corner[0]), int(corner[1])),
    )


def collect_panels(
    pictures: Mapping[str, Pictures], sections: int, crop: int
) -> tuple[tuple[SectionPanel, ...], tuple[str, ...]]:
    """Return `sections` panels with all models on them, cut from the middle, and notes on what does not fit."""
    if not pictures or sections == 0:
        return (), ()
    first = next(iter(pictures.values()))
    fitting = {name: one for name, one in pictures.items() if _same_view(one, first)}
    notes = tuple(
        f"The pictures of {name} show another part of the volume than those of {next(iter(pictures))}; left out."
        for name in pictures
        if name not in fitting
    )
    # Each model keeps its own worst sections too; those that most models kept are the ones to compare on.
    keepers = Counter(z for one in fitting.values() for z in one.z)
    shared = sorted(z for z, kept in keepers.items() if kept == max(keepers.values()))
    count = min(sections, len(shared))
    chosen = [shared[(2 * k + 1) * len(shared) // (2 * count)] for k in range(count)]
    panels = [panel_at(fitting, z) for z in chosen]
    return tuple(crop_panel(panel, None, crop) for panel in panels if panel is not None), notes


def panel_at(pictures: Mapping[str, Pictures], z: int) -> SectionPanel | None:
    """Return section `z` whole with every model that kept it, or None if none did."""
    panel: SectionPanel | None = None
    for name, one in pictures.items():
        if z not in one.z:
            continue
        k = one.z.index(z)
        if panel is None:
            truth = None if one.truth is None else one.truth[k]
            panel = SectionPanel(z, one.image[k], truth, (), one.voxel_size, one.corner)
        picture = ModelPicture(
            model=name,
            boundary=None if one.boundary is None else one.boundary[k],
            affinities=None if one.affinities is None else one.affinities[k],
            fragments=None if one.fragments is None else one.fragments[k],
            segmentations={decoder: labels[k] for decoder, labels in one.segmentations.items()},
        )
        panel = dataclasses.replace(panel, models=(*panel.models, picture))
    return panel


def collect_errors(
    scores: Mapping[str, Mapping[str, Any]], pictures: Mapping[str, Pictures]
) -> tuple[SegmentationError, ...]:
    """Read the worst merges and splits of each model; those in sections with pictures get a thumbnail."""
    found: list[SegmentationError] = []
    for model, content in scores.items():
        for decoder, errors in _error_tables(content):
            for kind, entries in errors.items():
                for entry in entries[:ERRORS_PER_KIND]:
                    error = _error(kind, model, decoder, entry)
                    if error is not None:
                        found.append(_with_thumbnail(error, pictures.get(model)))
    return tuple(found)


def _error_tables(
    content: Mapping[str, Any],
) -> list[tuple[Decoder | None, dict[ErrorKind, list[Mapping[str, Any]]]]]:
    """Find "errors" at the top of an evaluation or inside its decoders."""
    tables: list[tuple[Decoder | None, dict[ErrorKind, list[Mapping[str, Any]]]]] = []
    places: list[tuple[Decoder | None, object]] = [(None, content)]
    places += [(decoder, content.get(decoder)) for decoder in get_args(Decoder)]
    for decoder, place in places:
        errors = place.get("errors") if isinstance(place, Mapping) else None
        if not isinstance(errors, Mapping):
            continue
        stated = "segmentation" if "segmentation" in content else errors.get("decoder")
        table: dict[ErrorKind, list[Mapping[str, Any]]] = {}
        for kind in get_args(ErrorKind):
            entries = errors.get(f"{kind}s")
            table[kind] = [one for one in entries if isinstance(one, Mapping)] if isinstance(entries, list) else []
        named = next((one for one in get_args(Decoder) if one == stated), decoder)
        tables.append((named, table))
    return tables


def _error(kind: ErrorKind, model: str, decoder: Decoder | None, entry: Mapping[str, Any]) -> SegmentationError | None:
    try:
        place = (int(entry["z"]), int(entry["y"]), int(entry["x"]))
    except (KeyError, TypeError, ValueError):
        return None
    truth_keys, segment_keys = TRUTH_KEYS[kind], SEGMENT_KEYS[kind]
    known = ("z", "y", "x", "point", "decoder", *truth_keys, *segment_keys)
    return SegmentationError(
        kind=kind,
        model=model,
        place=place,
        truth_ids=_ids(entry, truth_keys),
        segment_ids=_ids(entry, segment_keys),
        decoder=decoder,
        facts={str(key).replace("_", " "): _text(value) for key, value in entry.items() if key not in known},
    )


def _ids(entry: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[int, ...]:
    for key in keys:
        value = entry.get(key)
        if value is not None:
            values = value if isinstance(value, list | tuple) else (value,)
            return tuple(int(one) for one in values if str(one).isdecimal())
    return ()


def _with_thumbnail(error: SegmentationError, pictures: Pictures | None) -> SegmentationError:
    panel = panel_at({error.model: pictures}, error.place[0]) if pictures is not None else None
    if panel is None:
        return error
    y, x = error.place[1] - panel.corner[0], error.place[2] - panel.corner[1]
    if not (0 <= y < panel.image.shape[0] and 0 <= x < panel.image.shape[1]):
        return error
    return dataclasses.replace(error, panel=crop_panel(panel, (y, x), _thumbnail_side(error, panel, (y, x))))


def _thumbnail_side(error: SegmentationError, panel: SectionPanel, centre: tuple[int, int]) -> int:
    """Return a side that shows the true objects involved as a whole, within limits."""
    least, greatest = THUMBNAIL
    if panel.truth is None or not error.truth_ids:
        return least
    places = np.argwhere(mask_of(panel.truth, error.truth_ids))
    if len(places) == 0:
        return least
    farthest = int(np.abs(places - np.array(centre)).max())
    return min(max(2 * farthest + 16, least), greatest)


def _text(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}".replace(",", " ")
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(one) for one in value)
    return str(value)


def _as_uint8(array: npt.NDArray[Any]) -> Image:
    """Return an image as uint8: probabilities (floats) times 255, wider integers by their own range."""
    if array.dtype == np.uint8:
        return array
    values = np.nan_to_num(array.astype(np.float64))
    if np.issubdtype(array.dtype, np.floating):
        return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
    low, high = values.min(), values.max()
    scaled: Image = np.rint((values - low) / max(high - low, 1.0) * 255).astype(np.uint8)
    return scaled


def _same_view(one: Pictures, other: Pictures) -> bool:
    return one.image.shape[1:] == other.image.shape[1:] and one.corner == other.corner
