"""The folder that `neuropil suspects` writes: a page, a table, JSON, and pictures of each suspect."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from neuropil.files import write_json, write_text
from neuropil.metrics.calibration import Reliability
from neuropil.metrics.suggestions import Review
from neuropil.report.pictures import png
from neuropil.report.suspects import Picture, Suspect, SuspectsPage, Worth, render_suspects, sides_picture, upright
from neuropil.segmentation.suspects import Search, contact_voxel
from neuropil.stages.suspects_input import Given
from neuropil.volume.tables import write_table

if TYPE_CHECKING:
    from neuropil.stages.suspects import Config

SIDE = 160
"""Voxels of a picture along y and x."""


@dataclass(frozen=True)
class Found:
    """Candidates, the probability of each, which ones are listed in what order, and what the truth says of them."""

    search: Search
    probability: NDArray[np.float64]
    chosen: NDArray[np.intp]
    scored: tuple[Review, Reliability] | None


def write_folder(config: Config, given: Given, found: Found, data: dict[str, Any]) -> list[dict[str, Any]]:
    """Write everything; the folder is whole or not there. Return the suspects as JSON has them."""
    suspects = _suspects(config, given, found)
    listed = [_entry(k, one, given) for k, one in enumerate(suspects)]
    part = config.output.with_name(f".{config.output.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        (part / "pictures").mkdir(parents=True)
        for k, one in enumerate(suspects):
            for name, picture in one.pictures.items():
                (part / "pictures" / f"{k + 1:04}-{name.split(',')[0].replace(' ', '-')}.png").write_bytes(
                    png(picture.image)
                )
        write_json(part / "suspects.json", data | {"suspects": listed})
        write_table(part / "suspects.csv", _table(listed))
        write_text(part / "suspects.html", render_suspects(_page(config, given, found, suspects)))
        if "calibration" in data:
            write_json(part / "calibration.json", data["calibration"])
        if config.output.exists():
            shutil.rmtree(config.output)
        os.replace(part, config.output)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return listed


def _suspects(config: Config, given: Given, found: Found) -> list[Suspect]:
    known, parts = found.search.suspects, given.parts
    boxes = ndimage.find_objects(parts.fragments.astype(np.int32))
    size = given.voxel_size or (1.0, 1.0, 1.0)
    made = []
    for rank, k in enumerate(found.chosen.tolist()):
        u, v = int(known.u[k]), int(known.v[k])
        around = [edge for s in boxes[u - 1] for edge in (s.start, s.stop)]
        here = contact_voxel(parts.fragments, u, v, known.middle[k], size, around)
        place = tuple(int(a + b) for a, b in zip(here, given.box.start))
        ids = dict.fromkeys(int(parts.segment_ids[one]) for one in known.segments[k])
        made.append(
            Suspect(
                "cut" if known.cut[k] else "join",
                float(found.probability[k]),
                float(known.gain[k]),
                place,  # type: ignore[arg-type]  # three of them
                _nm(given, place),
                tuple(ids),
                (int(known.sizes[k, 0]), int(known.sizes[k, 1])),
                _command(config, place),
                _pictures(given, _sides(given, found.search, k), here),
                None if found.scored is None else bool(found.scored[0].right[rank]),
            )
        )
    return made


def _sides(given: Given, search: Search, k: int) -> NDArray[np.uint64]:
    """Return what each fragment is in a picture: 1 and 2 the two sides, others by their segments."""
    known, segment_of = search.suspects, given.parts.segment_of
    lookup = np.where(segment_of > 0, segment_of + 2, 0)
    first, second = known.segments[k]
    lookup[segment_of == second] = 2
    lookup[(segment_of == first) & (search.side(k) if known.cut[k] else True)] = 1
    return lookup.astype(np.uint64)


def _pictures(given: Given, sides: NDArray[np.uint64], here: tuple[int, int, int]) -> dict[str, Picture]:
    """Return a section, the same with both sides, and a cut along z."""
    z, y, x = here
    rows, columns = (_window(c, n) for c, n in zip((y, x), given.parts.fragments.shape[1:]))
    size = given.voxel_size or (1.0, 1.0, 1.0)
    thick = max(1, round(size[0] / size[2]))

    def flat(volume: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(volume[z, rows, columns])

    def steep(volume: NDArray[Any]) -> NDArray[Any]:
        return upright(volume[:, y, columns], thick)

    in_section = (y - rows.start + 0.5, x - columns.start + 0.5)
    along_z = ((z + 0.5) * thick, in_section[1])
    pictures = {} if given.image is None else {"image": Picture(flat(given.image), in_section)}
    for name, view, spot in (("sides", flat, in_section), ("sides along z, y is fixed", steep, along_z)):
        labels = sides[view(given.parts.fragments)]
        grey = np.full(labels.shape, 110, np.uint8) if given.image is None else view(given.image)
        pictures[name] = Picture(sides_picture(grey, labels), spot)
    return pictures


def _window(centre: int, extent: int) -> slice:
    """Return where a picture of `SIDE` voxels around a place lies, moved inside the volume."""
    start = max(0, min(centre - SIDE // 2, extent - SIDE))
    return slice(start, start + SIDE)


def _nm(given: Given, place: Sequence[int]) -> tuple[float, float, float] | None:
    """Return the middle of a voxel, nm."""
    if given.voxel_size is None:
        return None
    z, y, x = (o + (p + 0.5) * s for o, p, s in zip(given.offset, place, given.voxel_size))
    return (z, y, x)


def _command(config: Config, place: Sequence[int]) -> str:
    words = ["neuropil", "view", "--segmentation", config.segmentation]
    words += ["--image", config.image] if config.image else []
    return shlex.join([*words, "--position", ",".join(map(str, place))])


def _entry(k: int, one: Suspect, given: Given) -> dict[str, Any]:
    """Return a suspect as JSON has it, with a fragment of a state of Neuroglancer."""
    size = given.voxel_size or (1.0, 1.0, 1.0)
    state = {
        "dimensions": {axis: [length * 1e-9, "m"] for axis, length in zip("xyz", size[::-1])},
        "position": [p + o / s + 0.5 for p, o, s in zip(one.place[::-1], given.offset[::-1], size[::-1])],
        "layers": [{"type": "segmentation", "name": "segmentation", "segments": [str(one) for one in one.segments]}],
    }
    return {
        "rank": k + 1,
        "kind": one.kind,
        "place": one.place,
        "place_nm": one.place_nm,
        "probability": one.probability,
        "gain": one.gain,
        "segments": one.segments,
        "sizes": one.sizes,
        "right": one.right,
        "view": one.command,
        "neuroglancer": state,
    }


def _table(listed: Sequence[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """Return the columns of the CSV."""
    columns: dict[str, list[Any]] = {name: [one[name] for one in listed] for name in ("rank", "kind")}
    for axis, name in enumerate("zyx"):
        columns[name] = [one["place"][axis] for one in listed]
    for axis, name in enumerate(("z_nm", "y_nm", "x_nm")):
        columns[name] = [one["place_nm"][axis] if one["place_nm"] else float("nan") for one in listed]
    columns |= {name: [one[name] for one in listed] for name in ("probability", "gain")}
    columns["segment"] = [one["segments"][0] for one in listed]
    columns["other_segment"] = [one["segments"][-1] for one in listed]
    columns |= {f"voxels_{side + 1}": [one["sizes"][side] for one in listed] for side in (0, 1)}
    if listed and listed[0]["right"] is not None:
        columns["right"] = [int(one["right"]) for one in listed]
    return {name: np.array(values, np.uint64 if "segment" in name else None) for name, values in columns.items()}


def _page(config: Config, given: Given, found: Found, suspects: Sequence[Suspect]) -> SuspectsPage:
    known = found.search.suspects
    about = {
        "segmentation": config.segmentation,
        "segments": given.parts.segment_ids.size - 1,
        "fragments": given.parts.segment_of.size - 1,
        "candidates": f"{int((~known.cut).sum())} joins, {int(known.cut.sum())} cuts",
        "in a viewer": f"neuropil view --segmentation {config.segmentation} --points {config.output / 'suspects.csv'}",
    }
    worth = None
    if found.scored is not None:
        review, told = found.scored
        at = {k: review.precision(k) for k in config.precision_at if k <= review.right.size}
        worth = Worth(
            at, review.vi.tolist(), review.rand_error.tolist(), told.predicted.tolist(), told.observed.tolist(),
            told.counts.tolist(), told.error,
        )  # fmt: skip
    return SuspectsPage(Path(config.segmentation).name, suspects, about, given.voxel_size, worth)
