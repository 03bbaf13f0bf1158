"""What several stages share: the part of a volume to work on, files beside an output, versions for the record."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from neuropil import __version__, machine, progress
from neuropil.blockwise import is_unfinished
from neuropil.config import StageConfig, dump
from neuropil.errors import InputError, OutputExists
from neuropil.files import Place, write_json
from neuropil.geometry import Box
from neuropil.volume import Volume, exists
from neuropil.volume.base import VolumeBase
from neuropil.volume.copying import CopyReport, copy_volume
from neuropil.volume.metadata import Kind, Metadata
from neuropil.volume.uri import parse_uri

log = logging.getLogger("neuropil")
OUTPUTS = ("output", "fragments output", "prediction")
"""Names of what a command that works in blocks hands over."""
CREMI_UNLABELLED = np.uint64(2**64 - 1)
"""Id of voxels without truth in CREMI's files; never learnt, never scored."""


def image_box(volume: Volume, sections: tuple[int, int] | None) -> Box:
    """Return the part of an image volume to work on.

    Raises
    ------
    InputError : not a three-dimensional image, or sections beyond its end
    """
    if len(volume.shape) != 3:
        raise InputError(
            f"{volume.uri} must be an image with axes z, y, x; it has {len(volume.shape)} axes {volume.shape}"
        )
    if volume.metadata.kind in ("labels", "affinities"):
        raise InputError(f"{volume.uri} must be an image; its metadata call it {volume.metadata.kind}")
    return section_box(volume, sections)


def section_box(volume: Volume, sections: tuple[int, int] | None) -> Box:
    """Return the box of a volume's sections, all by default."""
    depth, *plane = volume.spatial_shape
    start, stop = sections or (0, depth)
    if stop > depth:
        raise InputError(f"sections must lie within 0:{depth} of {volume.uri}; got {start}:{stop}")
    return Box((start, 0, 0), (stop, *plane))


def versions() -> dict[str, Any]:
    """Return the versions and the machine that a result was made with."""
    return {
        "neuropil": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": version("torch"),
        "machine": platform.machine(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
    }


def record_of(command: str, config: StageConfig, start: float) -> dict[str, Any]:
    """Return what every command notes beside its output, for the report: configuration, versions, time and memory.

    Parameters
    ----------
    command : its name
    config : as it ran
    start : `time.monotonic()` when it began
    """
    return {
        "command": command,
        "config": dump(config),
        "versions": versions(),
        "seconds": round(time.monotonic() - start, 2),
        "peak_mb": round(machine.peak_resident() / 1e6),
    }


def sidecar(uri: str, suffix: str) -> Path:
    """Return the local path of a file or folder that belongs to an output, beside it.

    >>> sidecar("runs/maps.h5:vd2d", "json").name
    'maps.h5.vd2d.json'
    """
    place = parse_uri(uri)
    base = Path(place.path.split("://")[-1].rstrip("/").replace("/", "_")) if place.remote else place.local
    parts = [base.name, *place.dataset.strip("/").split("/"), suffix]
    return base.with_name(".".join(part for part in parts if part))


def work_folder(uri: str) -> Place:
    """Return where unfinished work of an output is kept: beside it, in its bucket where it lies in one.

    >>> str(work_folder("s3://lab/ids.zarr"))
    's3://lab/ids.zarr.unfinished'
    """
    place = parse_uri(uri)
    if not place.remote:
        return sidecar(uri, "unfinished")
    from neuropil.volume.objects import ObjectPath

    parts = [place.path.rstrip("/"), *filter(None, place.dataset.split("/")), "unfinished"]
    return ObjectPath(".".join(parts))


def claim(work: Place, name: str, target: str, report: CopyReport | None = None) -> None:
    """Note in a work folder that what is, or will be, at the target is of this run; with a report, that it is whole."""
    write_json(work / f"{name}.claim.json", {"target": target, "report": None if report is None else asdict(report)})


def claim_of(work: Place, name: str) -> dict[str, Any]:
    """Return what was claimed for one of `OUTPUTS`: target and report; empty if nothing was."""
    place = work / f"{name}.claim.json"
    said: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {}
    return said


def claimed(work: Place) -> set[str]:
    """Return the URIs of outputs that unfinished work made, or was making; they are not in its way."""
    if not is_unfinished(work):  # or half deleted
        return set()
    return {said["target"] for name in OUTPUTS if (said := claim_of(work, name))}


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_boundary(volume: Volume, box: Box) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Read a boundary map as float32 in [0, 1], or as uint8 where s means s / 255, which the array functions take too.

    Raises
    ------
    InputError : the volume calls itself something else, or its values are not probabilities
    """
    known = volume.metadata
    check_boundary_volume(volume)
    if known.kind is None and volume.dtype == np.uint8:
        log.warning("%s does not say what it is; taken for a boundary map, 0 to 255 meaning 0 to 1", volume.uri)
    array = volume.read(box)
    if array.dtype == np.uint8 and (known.scale is None or np.isclose(known.scale, 1 / 255)):
        return array
    values: NDArray[np.float32] = array.astype(np.float32)
    return values if known.scale is None else (values * np.float32(known.scale)).clip(0, 1)


def check_boundary_volume(volume: Volume) -> None:
    """Check what can be checked without reading.

    Raises
    ------
    InputError : it has channels, or calls itself something else
    """
    if len(volume.shape) != 3 or volume.metadata.kind not in (None, "boundary"):
        raise InputError(
            f"{volume.uri} must be a boundary map (z, y, x); it is {volume.metadata.kind or 'unnamed'} {volume.shape}"
        )


@contextmanager
def finite(name: str) -> Iterator[None]:
    """Name the image whose values turn out not to be finite while its sections are measured."""
    try:
        with np.errstate(invalid="ignore"):
            yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def placed(volume: Volume, box: Box) -> dict[str, Any]:
    """Voxel size and offset (nm) that belong to a box of a volume, as `create_volume` takes them."""
    size, offset = volume.metadata.voxel_size, volume.metadata.offset
    if size is not None:
        offset = (
            offset[0] + box.start[0] * size[0],
            offset[1] + box.start[1] * size[1],
            offset[2] + box.start[2] * size[2],
        )
    return {"voxel_size": size, "offset": offset}


class ComputedVolume(VolumeBase):
    """A volume of no file, whose voxels `function(box)` gives when they are read."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, function: Callable[[Box], NDArray[Any]]) -> None:
        super().__init__("", shape, dtype, Metadata(), shape[-3:], False)
        self._function = function

    def _read(self, box: Box) -> NDArray[Any]:
        return self._function(box)


def write_volume(
    uri: str,
    source: NDArray[Any] | ComputedVolume,
    *,
    kind: Kind,
    place: dict[str, Any],
    overwrite: bool,
    scale: float | None = None,
    offsets: Sequence[tuple[int, int, int]] | None = None,
) -> CopyReport:
    """Write an array, or what a function computes, as a whole volume; it appears under its name when it is complete.

    Raises
    ------
    OutputExists, StorageFull : nothing is left half-written
    """
    if isinstance(source, np.ndarray):
        array = source
        channels = (slice(None),) * (array.ndim - 3)
        source = ComputedVolume(array.shape, array.dtype, lambda box: array[(*channels, *box.slices)])
    axes = ("c", "z", "y", "x") if len(source.shape) == 4 else ("z", "y", "x")
    metadata = Metadata(kind=kind, scale=scale, axes=axes, sources={}, **place)
    if offsets is not None:
        metadata = replace(metadata, offsets=tuple(offsets), one_means="same")
    with progress.show(lambda *_: None):  # soon done, and "convert" is not what the user asked for
        return copy_volume(source, uri, metadata=metadata, overwrite=overwrite)


def refuse_outputs(outputs: Iterable[str | None], source: str, *, overwrite: bool, ours: Collection[str] = ()) -> None:
    """Check where outputs shall go, before any work; those of `ours` may be there.

    Raises
    ------
    InputError : an output is the input itself, or two outputs are the same
    OutputExists : an output is there and may not be replaced
    """
    seen = {_identity(source): "the input itself"}
    for uri in outputs:
        if uri is None:
            continue
        here = _identity(uri)
        if here in seen:
            raise InputError(f"output {uri} is {seen[here]}; give another name")
        seen[here] = "the place of another output"
        if not overwrite and uri not in ours and exists(uri):
            raise OutputExists(f"output {uri} exists; give --overwrite to replace it")


def _identity(uri: str) -> tuple[str, str]:
    place = parse_uri(uri)
    return (place.path if place.remote else str(place.local.resolve()), place.dataset)
