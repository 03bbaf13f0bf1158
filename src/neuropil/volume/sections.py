"""A folder of sections: one PNG or TIFF file per z, in the natural order of their names (z2 before z10).

PNG holds uint8 and uint16; other dtypes are written as one TIFF per section. What images cannot say (voxel size,
offset, kind) lies in `neuropil.json` beside them. A new folder is made under the hidden name `.NAME.partial` and
renamed when it is closed. Whole sections are encoded as they come; parts of sections are collected in one raw file
per section and encoded on closing, so any order of writing works and one section at most is in memory.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import tifffile

from neuropil.errors import InputError, VolumeError, VolumeNotFound
from neuropil.geometry import Box
from neuropil.volume.base import SectionCache, VolumeBase, fitted_chunks, storage_errors
from neuropil.volume.metadata import Metadata, believe, from_json, to_json
from neuropil.volume.uri import Location

SIDECAR = "neuropil.json"
SUFFIXES = (".png", ".tif", ".tiff")
_PNG_HEAD = struct.Struct(">8s4x4sIIBB")


class SectionFolder(VolumeBase):
    """A folder of sections, read or written."""

    def __init__(
        self, location: Location, folder: Path, files: list[Path], shape: tuple[int, ...], dtype: Any,
        metadata: Metadata, writable: bool,
    ) -> None:  # fmt: skip
        self._folder, self._files, self._final = folder, files, Path(location.path)
        self._cache = SectionCache()
        super().__init__(location.uri, shape, dtype, metadata, (1, *shape[-2:]), writable)

    def _read(self, box: Box) -> np.ndarray:
        out = np.empty(box.shape, self.dtype)
        for z in range(box.start[0], box.stop[0]):
            out[z - box.start[0]] = self._section(z)[box.slices[1:]]
        return out

    def _write(self, box: Box, array: np.ndarray) -> None:
        whole = box.shape[1:] == self.shape[1:]
        for section, z in zip(array, range(box.start[0], box.stop[0])):
            self._cache.forget(z)
            if whole:
                self._encode(z, section)
                self._raw(z).unlink(missing_ok=True)
            else:
                self._patch(z, box, section)

    def _patch(self, z: int, box: Box, part: np.ndarray) -> None:
        raw = self._raw(z)
        if not raw.exists():
            self._section(z).tofile(raw)
            self._cache.forget(z)
        width = self.shape[2]
        with raw.open("r+b", buffering=0) as stream:
            for row, y in zip(part, range(box.start[1], box.stop[1])):
                stream.seek((y * width + box.start[2]) * self.dtype.itemsize)
                stream.write(np.ascontiguousarray(row).data.cast("B"))

    def _section(self, z: int) -> np.ndarray:
        raw = self._raw(z)
        if self.writable and raw.exists():
            return np.fromfile(raw, self.dtype).reshape(self.shape[1:])
        if self.writable and not self._files[z].exists():
            return np.zeros(self.shape[1:], self.dtype)
        return self._cache.get(z, lambda: _decode(self._files[z], self.shape[1:]))

    def _encode(self, z: int, section: np.ndarray) -> None:
        target = self._files[z]
        partial = target.with_name(f".{target.name}.partial")
        if target.suffix == ".png":
            iio.imwrite(partial, section, extension=".png", compress_level=1)
        else:
            tifffile.imwrite(partial, section, photometric="minisblack", compression="zlib")
        os.replace(partial, target)

    def _raw(self, z: int) -> Path:
        return self._folder / f".{self._files[z].name}.raw"

    def _finish(self) -> None:
        if not self.writable:
            return
        for z in range(self.shape[0]):
            if self._raw(z).exists() or not self._files[z].exists():
                self._encode(z, self._section(z))
                self._raw(z).unlink(missing_ok=True)
        if self._folder != self._final:
            if self._final.exists():
                _remove_sections(self._final)
                for file in list(self._folder.iterdir()):
                    os.replace(file, self._final / file.name)
                self._folder.rmdir()
            else:
                os.replace(self._folder, self._final)

    def _abandon(self) -> None:
        if self.writable and self._folder != self._final:
            shutil.rmtree(self._folder, ignore_errors=True)


def open_volume(location: Location, *, writable: bool = False) -> SectionFolder:
    """Open a folder; all sections must be grey and of one shape and dtype."""
    folder = Path(location.path)
    if not folder.is_dir():
        raise VolumeNotFound(
            f"{location.path} does not exist" if not folder.exists() else f"{location.path} is not a folder"
        )
    files = _list_sections(folder)
    if not files:
        raise VolumeNotFound(f"{location.path} holds no PNG or TIFF sections and is no zarr, n5 or precomputed volume")
    first = _header(files[0])
    for file in files[1:]:
        header = _header(file)
        if header != first:
            raise InputError(
                f"all sections of {location.path} must have one shape and dtype; {files[0].name} is "
                f"{first[1]} {first[0]} and {file.name} is {header[1]} {header[0]}"
            )
    sidecar = folder / SIDECAR
    own = from_json(sidecar.read_bytes() if sidecar.exists() else None, f"'{SIDECAR}'")
    own.setdefault("axes", (("z", "y", "x"), "each file of the folder is a section, in the natural order of the names"))
    shape = (len(files), *first[0])
    return SectionFolder(location, folder, files, shape, first[1], believe(3, own), writable)


def create_volume(
    location: Location,
    *,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    metadata: Metadata,
    chunk_shape: Sequence[int] | None,
) -> SectionFolder:
    """Make a folder of sections under a hidden name; `chunk_shape` has no meaning here."""
    fitted_chunks(chunk_shape, (1, 1, 1), shape)
    if len(shape) != 3:
        raise InputError(f"a folder of sections holds one channel (z, y, x); got shape {shape}, use HDF5, zarr or TIFF")
    if dtype.kind not in "uif":
        raise InputError(f"a folder of sections cannot hold {dtype}; use uint8")
    final = Path(location.path)
    if final.exists() and not final.is_dir():
        raise InputError(
            f"{location.path} is a file where a folder of sections should go; remove it or choose another name"
        )
    partial = final.with_name(f".{final.name}.partial")
    with storage_errors(location.uri, "create"):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        (partial / SIDECAR).write_text(json.dumps(to_json(metadata, with_place=True), indent=1) + "\n")
    suffix = ".png" if dtype.name in ("uint8", "uint16") else ".tif"
    digits = max(4, len(str(shape[0] - 1)))
    files = [partial / f"section_{z:0{digits}d}{suffix}" for z in range(shape[0])]
    return SectionFolder(location, partial, files, shape, dtype, metadata, writable=True)


def exists(location: Location) -> bool:
    """Tell whether there is a file, or a folder that is not empty."""
    path = Path(location.path)
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def _list_sections(folder: Path) -> list[Path]:
    files = [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
    if len({file.suffix.lower() == ".png" for file in files}) > 1:
        raise InputError(
            f"{folder} holds both PNG and TIFF files; keep the sections of one volume in a folder of their own"
        )
    return sorted(files, key=lambda file: _natural(file.name))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key in which digits count as numbers: z2 comes before z10."""
    return [(int(part), "") if part.isdigit() else (-1, part.lower()) for part in re.split(r"(\d+)", name)]


def _remove_sections(folder: Path) -> None:
    """Remove the sections and the metadata of a folder, and nothing else that lies there."""
    for file in _list_sections(folder):
        file.unlink()
    (folder / SIDECAR).unlink(missing_ok=True)


def _header(file: Path) -> tuple[tuple[int, int], np.dtype[Any]]:
    """Return shape (y, x) and dtype of a section without decoding it."""
    if file.suffix.lower() != ".png":
        return _tiff_header(file)
    with file.open("rb") as stream:
        head = stream.read(_PNG_HEAD.size)
    if len(head) < _PNG_HEAD.size or head[:8] != b"\x89PNG\r\n\x1a\n":
        raise VolumeError(f"{file} is not a PNG file or is truncated")
    _, _, width, height, depth, colour = _PNG_HEAD.unpack(head)
    if depth == 16 and colour != 0:
        raise InputError(f"{file} is a 16-bit colour image; sections must be grey")
    return (height, width), np.dtype(np.uint16 if depth == 16 else np.uint8)


def _tiff_header(file: Path) -> tuple[tuple[int, int], np.dtype[Any]]:
    with storage_errors(str(file), "read"), tifffile.TiffFile(file) as tif:
        if len(tif.pages) != 1:
            raise InputError(
                f"{file} has {len(tif.pages)} pages; a folder needs one section per file, or give the file"
            )
        page: Any = tif.pages[0]
        if page.shape[-1] in (3, 4) and page.samplesperpixel > 1:
            return page.shape[:2], page.dtype.newbyteorder("=")
        if len(page.shape) != 2:
            raise InputError(f"{file} must be a 2-D grey image; its shape is {page.shape}")
        return page.shape, page.dtype.newbyteorder("=")


def _decode(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the section (y, x) of a file."""
    with storage_errors(str(file), "read"):
        array = iio.imread(file, extension=".png") if file.suffix.lower() == ".png" else tifffile.imread(file)
    if array.ndim == 3:
        array = _grey(file, array)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.shape != shape:
        raise VolumeError(f"{file} changed while it was read: its shape was {shape} and is {array.shape}")
    return array


def _grey(file: Path, array: np.ndarray) -> np.ndarray:
    """Return one channel of an image whose colour channels are equal; alpha is left out."""
    colours = array[..., : array.shape[-1] - (array.shape[-1] in (2, 4))]
    if (colours != colours[..., :1]).any():
        raise InputError(f"{file} is a colour image whose channels differ; sections must be grey")
    return np.ascontiguousarray(colours[..., 0])
