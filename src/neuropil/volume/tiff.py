"""TIFF stacks, read lazily and written without holding the volume, with tifffile.

Reading: an uncompressed stack is mapped, any other is decoded page by page as it is asked for. Writing: the file is
laid out at once at its full size (BigTIFF, not compressed, so that every reader can map it) under a hidden name;
boxes are then written in any order straight to their place, and closing renames it. A crash leaves only the hidden
`.NAME.partial`.

Stacks of up to 32 bits carry OME metadata, which ImageJ/Fiji (Bio-Formats), napari and QuPath read; OME has no 64-bit
integers, so uint64 labels carry the same facts as JSON in the page description.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from neuropil.errors import InputError, StorageFull, VolumeError, VolumeNotFound
from neuropil.geometry import Box
from neuropil.volume.base import SectionCache, VolumeBase, fitted_chunks, refuse_axes, storage_errors
from neuropil.volume.metadata import Metadata, believe
from neuropil.volume.tiff_text import beliefs, check_chain, description, own_record
from neuropil.volume.uri import Location

# tifffile logs what it could not make sense of; what matters here is raised as an error instead.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
logging.getLogger("tifffile").propagate = False


class TiffReader(VolumeBase):
    """A finished TIFF stack, read only."""

    def __init__(self, location: Location, tif: Any) -> None:
        self._tif, self._path = tif, location.path
        series, record = tif.series[0], own_record(tif)
        self._series = series
        self._order, shape, guess = _arrange(location, series, record)
        self._stored = tuple(record["shape"]) if record.get("shape") else tuple(series.shape)
        self._start = self._data_start()
        if self._start is None and len(series.pages) != math.prod(self._stored[:-2]):
            raise VolumeError(f"{location.path} stores several sections in one page, which neuropil does not read")
        found = believe(len(shape), *beliefs(tif), {"axes": (("c", "z", "y", "x")[-len(shape) :], guess)})
        self._cache = SectionCache()
        super().__init__(location.uri, shape, series.dtype, found, (1, *shape[-2:]), writable=False)
        if self._start is not None:
            tif.close()

    def _data_start(self) -> int | None:
        """Return where the voxels of an uncompressed stack start; None where pages must be decoded one by one."""
        series = self._series
        if series.dataoffset is None or not series.keyframe.is_memmappable:
            return None
        end, size = series.dataoffset + series.nbytes, os.path.getsize(self._path)
        if end > size:
            raise VolumeError(f"{self._path} is truncated: it has {size} bytes and its sections end at {end}")
        return int(series.dataoffset)

    def _read(self, box: Box) -> np.ndarray:
        if self._start is not None:
            # Mapped anew each time, so that what was read before does not count as this process's memory.
            dtype = np.dtype(self._tif.byteorder + self._series.dtype.char)
            mapped: Any = np.memmap(self._path, dtype, "r", self._start, self._stored)
            return np.array(mapped.transpose(self._order)[(..., *box.slices)])
        outer = [range(n) for n in self.shape[:-3]] + [range(box.start[0], box.stop[0])]
        out = np.empty((*self.shape[:-3], *box.shape), self.dtype)
        for index in itertools.product(*outer):
            out[(*index[:-1], index[-1] - box.start[0])] = self._page(index)[box.slices[1:]]
        return out

    def _page(self, index: tuple[int, ...]) -> np.ndarray:
        """Return the section at (z,) or (c, z)."""
        stored = [0] * len(index)
        for axis, place in zip(self._order, index):
            stored[axis] = place
        number = int(np.ravel_multi_index(stored, self._stored[:-2])) if stored else 0
        return self._cache.get(number, lambda: self._decode(number))

    def _decode(self, number: int) -> np.ndarray:
        page = self._series.pages[number]
        size = os.path.getsize(self._path)
        ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts)]
        if max(ends, default=0) > size:
            raise VolumeError(f"{self.uri} is truncated: it has {size} bytes and page {number} ends at {max(ends)}")
        array: np.ndarray = page.asarray()
        return array.reshape(self._stored[-2:])

    def _finish(self) -> None:
        self._tif.close()


class TiffWriter(VolumeBase):
    """A TIFF stack being made; boxes may come in any order."""

    def __init__(
        self, location: Location, partial: Path, shape: tuple[int, ...], dtype: Any, metadata: Metadata
    ) -> None:
        self._final, self._partial = Path(location.path), partial
        with tifffile.TiffFile(partial) as tif:
            self._start = int(tif.series[0].dataoffset or 0)
        self._stream = partial.open("r+b", buffering=0)
        super().__init__(location.uri, shape, dtype, metadata, (1, *shape[-2:]), writable=True)

    def _read(self, box: Box) -> np.ndarray:
        mapped: Any = np.memmap(self._partial, self.dtype, "r", self._start, self.shape)
        return np.array(mapped[(..., *box.slices)])

    def _write(self, box: Box, array: np.ndarray) -> None:
        # The run of voxels that lie together on disk: whole sections, whole rows, or parts of rows.
        whole_rows = box.shape[2] == self.shape[-1]
        whole_sections = whole_rows and box.shape[1] == self.shape[-2]
        axes = 1 if whole_sections else 2 if whole_rows else 3
        spans = [range(n) for n in self.shape[:-3]] + [range(a, b) for a, b in zip(box.start[: axes - 1], box.stop)]
        runs = array.reshape(math.prod(len(span) for span in spans), -1)
        for run, index in zip(runs, itertools.product(*spans)):
            place = (*index, *box.start[axes - 1 :])
            at = self._start + int(np.ravel_multi_index(place, self.shape)) * self.dtype.itemsize
            self._put(at, run.data.cast("B"))

    def _put(self, at: int, data: memoryview) -> None:
        self._stream.seek(at)
        while data:
            data = data[self._stream.write(data) :]

    def _finish(self) -> None:
        os.fsync(self._stream.fileno())
        self._stream.close()
        os.replace(self._partial, self._final)

    def _abandon(self) -> None:
        self._stream.close()
        self._partial.unlink(missing_ok=True)


def open_volume(location: Location, *, writable: bool = False) -> TiffReader:
    """Open a stack for reading."""
    if not os.path.exists(location.path):
        raise VolumeNotFound(f"{location.path} does not exist")
    if writable:
        raise InputError(f"{location.path} is a finished TIFF stack and cannot be changed; write to a new file")
    check_chain(location.path)
    with storage_errors(location.uri, "open"):
        tif = tifffile.TiffFile(location.path)
        try:
            return TiffReader(location, tif)
        except BaseException:
            tif.close()
            raise


def create_volume(
    location: Location,
    *,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    metadata: Metadata,
    chunk_shape: Sequence[int] | None,
) -> TiffWriter:
    """Lay out a stack of zeros under a hidden name; `chunk_shape` has no meaning here."""
    fitted_chunks(chunk_shape, (1, 1, 1), shape)
    ome, text = description(metadata, shape, dtype)
    final = Path(location.path)
    partial = final.with_name(f".{final.name}.partial")
    need, free = math.prod(shape) * dtype.itemsize, shutil.disk_usage(final.absolute().parent).free
    if need > free:
        raise StorageFull(f"the disk is full: {location.uri} needs {need >> 10} KiB and {free >> 10} KiB are free")
    size = metadata.voxel_size
    resolution: dict[str, Any] = (
        {} if size is None else {"resolution": (1e7 / size[2], 1e7 / size[1]), "resolutionunit": "CENTIMETER"}
    )
    with storage_errors(location.uri, "create"):
        tifffile.memmap(
            partial,
            shape=shape,
            dtype=dtype,
            bigtiff=True,
            photometric="minisblack",
            ome=ome,
            metadata=text,
            **resolution,
        )
        return TiffWriter(location, partial, shape, dtype, metadata)


def exists(location: Location) -> bool:
    """Tell whether the file is there."""
    return os.path.exists(location.path)


def _arrange(location: Location, series: Any, record: Any) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    """Return how stored axes become (c,) z, y, x: their order, the shape so ordered, and why that order is believed."""
    if record.get("shape"):
        return tuple(range(len(record["shape"]))), tuple(record["shape"]), "TIFF description 'neuropil'"
    axes, shape = series.axes, tuple(series.shape)
    if "S" in axes:
        raise InputError(f"{location.path} is a colour image (RGB); convert it to grey first")
    if len(shape) != 3 and len(shape) != 4:
        refuse_axes(location.path, shape)
    outer = [axis for axis in axes if axis not in "YX"]
    if not axes.endswith("YX") or ("C" in outer and "Z" not in outer and len(outer) == 1):
        raise InputError(f"{location.path} must have the axes ZYX or CZYX; the file says {axes} for shape {shape}")
    if set(outer) <= {"Z", "C"}:
        order = tuple(axes.index(axis) for axis in "CZYX" if axis in axes)
        why = f"TIFF metadata: axes {axes}"
    elif set(outer) & {"Z", "C"} and len(outer) == 2 and "Z" in outer:
        raise InputError(f"{location.path} must have the axes ZYX or CZYX; the file says {axes} for shape {shape}")
    else:
        order = tuple(range(len(shape)))
        first = "pages" if set(outer) <= {"I", "Q"} else f"the axis '{''.join(outer)}'"
        taken = ", ".join(("c", "z")[-len(outer) :])
        why = f"guess: {first} of the TIFF taken as {taken}; the file does not name a z axis"
    return order, tuple(shape[axis] for axis in order), why
