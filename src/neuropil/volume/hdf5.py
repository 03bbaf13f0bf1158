"""Volumes in HDF5 files, read and written with h5py.

Voxel size and offset are kept as CREMI keeps them: attributes `resolution` and `offset` of the dataset, nm, z y x.
Also understood are `voxel_size_nm_zyx` (dataset or file), funlib's `voxel_size` and ilastik's `element_size_um`.
Values are given as stored: CREMI's "unlabelled" id 2**64-1 is not touched here.

One process may hold several volumes of one file, some for reading and some for writing. HDF5 forbids that of separate
handles, so volumes of one file share a handle, which is reopened for writing when the first writer comes. HDF5 may
crash the interpreter when the disk fills under it, so the room is looked for before each write, and every write is
flushed: a killed process leaves a readable file.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import h5py
import numpy as np

from neuropil.errors import InputError, StorageFull, VolumeError, VolumeNotFound
from neuropil.geometry import Box
from neuropil.volume.base import Entry, VolumeBase, choose_array, fitted_chunks, refuse_axes, storage_errors
from neuropil.volume.metadata import Metadata, believe, from_json, lengths, to_json
from neuropil.volume.uri import Location

DEFAULT_CHUNK = (8, 128, 128)
_SIZE_ATTRIBUTES = (("voxel_size_nm_zyx", 1.0), ("resolution", 1.0), ("voxel_size", 1.0), ("element_size_um", 1e3))
_SPARE_BYTES = 1 << 18


class _SharedFile:
    """One open HDF5 file of this process, counted, so that readers and writers of one file use one handle."""

    lock = threading.RLock()
    _by_path: ClassVar[dict[str, _SharedFile]] = {}

    def __init__(self, path: str) -> None:
        self.path, self.users, self.writable = path, 0, False
        self.file: Any = None

    @classmethod
    def take(cls, location: Location, *, writable: bool, create: bool = False) -> _SharedFile:
        key = os.path.realpath(location.path)
        with cls.lock:
            shared = cls._by_path.get(key) or cls(key)
            if create and not os.path.exists(key):
                shared._reopen(location, "w")
            elif shared.file is None or (writable and not shared.writable):
                shared._reopen(location, "r+" if writable else "r")
            shared.users += 1
            cls._by_path[key] = shared
            return shared

    def give_back(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self._by_path.pop(self.path, None)
                file, self.file = self.file, None
                if file:
                    file.close()

    def _reopen(self, location: Location, mode: str) -> None:
        if mode != "w":
            _require_hdf5(location)
        before, self.file = self.file, None
        if before:
            before.close()
        try:
            self.file = h5py.File(self.path, mode, locking="best-effort", rdcc_nbytes=64 << 20)
        except PermissionError as error:
            raise VolumeError(f"no permission to open {location.path} for {_doing(mode)}") from error
        except OSError as error:
            if before:
                self.file = h5py.File(self.path, "r", locking="best-effort")
            if "unable to lock file" in str(error):
                raise VolumeError(f"{location.path} is open in another program; close it there first") from error
            raise VolumeError(f"{location.path} is truncated or damaged: {str(error).splitlines()[0][:200]}") from error
        self.writable = mode != "r"


def _doing(mode: str) -> str:
    return "reading" if mode == "r" else "writing"


def _require_hdf5(location: Location) -> None:
    if not os.path.exists(location.path):
        raise VolumeNotFound(f"{location.path} does not exist")
    if os.path.isdir(location.path) or not h5py.is_hdf5(location.path):
        raise VolumeError(f"{location.path} is not an HDF5 file")


class Hdf5Volume(VolumeBase):
    """A dataset of an HDF5 file."""

    def __init__(self, location: Location, shared: _SharedFile, name: str, metadata: Metadata, writable: bool) -> None:
        self._shared, self._name = shared, name
        data = self._data
        chunks = data.chunks or data.shape
        super().__init__(location.uri, data.shape, data.dtype, metadata, chunks[-3:], writable)

    @property
    def _data(self) -> Any:
        # Looked up each time: the shared file may have been reopened for a writer.
        return self._shared.file[self._name]

    def _read(self, box: Box) -> np.ndarray:
        # The lock keeps another thread from reopening the shared file meanwhile; HDF5 itself serves one call at a time.
        with _SharedFile.lock:
            array: np.ndarray = self._data[(..., *box.slices)]
        return array

    def _read_channels(self, box: Box, channels: slice) -> np.ndarray:
        with _SharedFile.lock:
            array: np.ndarray = self._data[(channels, *box.slices)]
        return array

    def _write(self, box: Box, array: np.ndarray) -> None:
        need = self._touched(box) * array.dtype.itemsize + _SPARE_BYTES
        free = shutil.disk_usage(os.path.dirname(self._shared.path)).free
        if free < need:
            raise StorageFull(
                f"the disk is full: writing to {self.uri} may need {need >> 10} KiB and {free >> 10} KiB are free; "
                "what was written so far is kept"
            )
        with _SharedFile.lock:
            self._data[(..., *box.slices)] = array
            self._shared.file.flush()

    def _touched(self, box: Box) -> int:
        """Return the number of voxels in the chunks that `box` touches."""
        extents = [(-(-b // n) - a // n) * n if b > a else 0 for a, b, n in zip(box.start, box.stop, self.chunk_shape)]
        return math.prod(extents) * math.prod(self.shape[:-3])

    def _finish(self) -> None:
        self._shared.give_back()


def open_volume(location: Location, *, writable: bool = False) -> Hdf5Volume:
    """Open the dataset at `location`, or the only one with 3 or 4 axes if none is named."""
    shared = _SharedFile.take(location, writable=writable)
    try:
        with storage_errors(location.uri, "open"):
            name = location.dataset
            if not name or not isinstance(_get(shared.file, name), h5py.Dataset):
                name = choose_array(location.path, name, _entries(shared.file), "dataset")
            data = shared.file[name]
            refuse_axes(location.uri, data.shape)
            if data.dtype.kind not in "uifb":
                raise InputError(f"{location.uri} must hold numbers; its type is {data.dtype}")
            return Hdf5Volume(location, shared, name, _metadata(data), writable)
    except BaseException:
        shared.give_back()
        raise


def create_volume(
    location: Location,
    *,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    metadata: Metadata,
    chunk_shape: Sequence[int] | None,
) -> Hdf5Volume:
    """Make a chunked, gzip-compressed dataset; other datasets of the file stay."""
    check_replaceable(location)
    chunks = fitted_chunks(chunk_shape, DEFAULT_CHUNK, shape)
    with storage_errors(location.uri, "create"):
        shared = _SharedFile.take(location, writable=True, create=True)
        try:
            if location.dataset in shared.file:
                del shared.file[location.dataset]
            data = shared.file.create_dataset(
                location.dataset, shape=shape, dtype=dtype, chunks=(1,) * (len(shape) - 3) + chunks,
                compression="gzip", compression_opts=1, shuffle=dtype.itemsize > 1, fillvalue=dtype.type(0),
            )  # fmt: skip
            if metadata.voxel_size is not None:
                data.attrs["resolution"] = np.array(metadata.voxel_size)
            data.attrs["offset"] = np.array(metadata.offset)
            data.attrs["neuropil"] = json.dumps(to_json(metadata))
            shared.file.flush()
            return Hdf5Volume(location, shared, location.dataset, _metadata(data), True)
        except BaseException:
            shared.give_back()
            raise


def exists(location: Location) -> bool:
    """Tell whether the dataset (or, if none is named, the file) is there."""
    if not location.dataset or not os.path.isfile(location.path):
        return os.path.exists(location.path)
    shared = _SharedFile.take(location, writable=False)
    try:
        return _get(shared.file, location.dataset) is not None
    finally:
        shared.give_back()


def list_arrays(location: Location) -> list[Entry]:
    """Return the numeric datasets with 3 or 4 axes."""
    shared = _SharedFile.take(location, writable=False)
    try:
        with storage_errors(location.uri, "list"):
            return _entries(shared.file)
    finally:
        shared.give_back()


def move_dataset(location: Location, old: str, new: str | None) -> None:
    """Rename a dataset, replacing what has the new name; with None the dataset is removed."""
    shared = _SharedFile.take(location, writable=True)
    try:
        with storage_errors(location.uri, "rename"):
            file = shared.file
            if new is None:
                if old in file:
                    del file[old]
                return
            if new in file:
                del file[new]
            file.move(old, new)
    finally:
        shared.give_back()


def check_replaceable(location: Location) -> None:
    """Raise InputError where the name of the output is that of a group, or missing."""
    if not location.dataset:
        raise InputError(f"an HDF5 output needs the name of a dataset; give {location.uri}:NAME")
    if os.path.exists(location.path):
        shared = _SharedFile.take(location, writable=False)
        try:
            if isinstance(_get(shared.file, location.dataset), h5py.Group):
                raise InputError(
                    f"{location.dataset} is a group of {location.path}, not a dataset; choose another name"
                )
        finally:
            shared.give_back()


def _get(file: Any, name: str) -> Any:
    try:
        return file.get(name)
    except (KeyError, ValueError, RuntimeError):
        return None


def _entries(file: Any) -> list[Entry]:
    entries: list[Entry] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape and len(item.shape) in (3, 4) and item.dtype.kind in "uifb":
            entries.append(Entry(name, tuple(item.shape), str(item.dtype)))

    file.visititems(visit)
    return sorted(entries, key=lambda entry: entry.name)


def _metadata(data: Any) -> Metadata:
    attrs = data.attrs
    beliefs: dict[str, tuple[Any, str]] = {}
    for holder, where in ((attrs, "dataset"), (data.file.attrs, "file")):
        for name, to_nm in _SIZE_ATTRIBUTES:
            if where == "dataset" or name == "voxel_size_nm_zyx":
                _believe_lengths(beliefs, "voxel_size", holder, name, to_nm, where)
    _believe_lengths(beliefs, "offset", attrs, "offset", 1.0, "dataset")
    for holder, where in ((attrs, "dataset"), (data.file.attrs, "file")):
        named = _axes(holder.get("axes"))
        if len(named) == len(data.shape) and "axes" not in beliefs:
            beliefs["axes"] = (named, f"{where} attribute 'axes'")
    own = from_json(attrs.get("neuropil"), "dataset attribute 'neuropil'")
    return believe(len(data.shape), own, beliefs)


def _believe_lengths(
    beliefs: dict[str, tuple[Any, str]], field: str, attrs: Mapping[str, Any], name: str, to_nm: float, where: str
) -> None:
    """Take a belief from an attribute of three numbers (of four, the last three); anything else there is left alone."""
    if field in beliefs or name not in attrs:
        return
    values = np.asarray(attrs[name]).ravel()
    if values.dtype.kind in "uif" and values.size in (3, 4):
        try:
            value = lengths([round(float(v) * to_nm, 9) for v in values[-3:]], name, positive=field == "voxel_size")
        except InputError:
            return
        beliefs[field] = (value, f"{where} attribute '{name}' (z, y, x)")


def _axes(value: Any) -> tuple[str, ...]:
    """Return axis names from an attribute such as "zyx" or ["z", "y", "x"]; empty for anything else."""
    if isinstance(value, bytes | str):
        value = list(value.decode(errors="replace") if isinstance(value, bytes) else value)
    return tuple(str(axis) for axis in value) if isinstance(value, list | tuple | np.ndarray) else ()
