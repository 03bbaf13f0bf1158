"""Copy a volume into another place and format, block by block, so that memory stays bounded.

Blocks are aligned to the chunks of the output, so no chunk is written twice, and hold about 128 MiB. The output
appears under its name only when it is complete: it is built under a hidden name beside it and renamed, except in
buckets, which cannot rename. A change of dtype must keep every value; where the dtypes alone do not promise that, the
source is read once beforehand to make sure, so nothing is half-written when a value does not fit.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from neuropil.errors import InputError, OutputExists, VolumeError
from neuropil.geometry import Box, grid
from neuropil.progress import track
from neuropil.volume.metadata import Metadata
from neuropil.volume.uri import Location, parse_uri
from neuropil.volume.volume import Volume, backend_of, refuse_data_uri

_BLOCK_BYTES = 128 << 20
_EXACT_INTEGERS = {2: 2**11, 4: 2**24, 8: 2**53}


@dataclass(frozen=True)
class CopyReport:
    """What was copied: shape and dtype of the output, whether it was read back and compared, and its blocks.

    Attributes
    ----------
    block : voxels z, y, x of the blocks that were written, in raster order
    digests : BLAKE2b of each, as from `digest`
    """

    shape: tuple[int, ...]
    dtype: str
    verified: bool
    block: tuple[int, ...]
    digests: tuple[str, ...]


def copy_volume(
    source: Volume,
    uri: str | os.PathLike[str],
    *,
    metadata: Metadata,
    dtype: str | None = None,
    sections: tuple[int, int] | None = None,
    overwrite: bool = False,
    verify: bool = False,
) -> CopyReport:
    """Write `source` (or a range of its sections) to `uri`.

    Parameters
    ----------
    source : an open volume; only read
    uri : the output, see `create_volume`
    metadata : what the output shall say of itself
    dtype : stored type of the output, that of the source if omitted; every value must survive exactly
    sections : half-open range of z, all if omitted
    overwrite : replace an output that is there, once the new one is complete
    verify : read the output back and compare checksums of all blocks

    Raises
    ------
    InputError : values that the dtype cannot hold, sections outside the volume, output and source the same
    OutputExists, StorageFull, VolumeError
    """
    target = parse_uri(uri)
    check_target(target)
    part = _sections_box(source, sections)
    wanted = np.dtype(dtype or source.dtype)
    backend = backend_of(target)
    if _same(source, target):
        raise InputError(f"output {uri} is the input itself; give another name")
    if not overwrite and backend.exists(target):
        raise OutputExists(f"{uri} exists already; give --overwrite to replace it")
    _check_exact(source, part, wanted)
    if not target.remote:
        Path(target.path).absolute().parent.mkdir(parents=True, exist_ok=True)
    staged = staged_place(target)
    shape = (*source.shape[:-3], *part.shape)
    try:
        volume: Volume = backend.create_volume(staged, shape=shape, dtype=wanted, metadata=metadata, chunk_shape=None)
        with volume:
            block_shape = block_that_fits(volume)
            digests = list(_copy_blocks(source, part, volume, block_shape))
        if verify:
            _verify(backend, staged, block_shape, digests)
        publish(staged, target)
    except BaseException:
        _discard(staged, target)
        raise
    return CopyReport(shape, wanted.name, verify, block_shape, tuple(digests))


def check_target(target: Location) -> None:
    """Refuse a place that cannot be written to, or where writing would remove something else than one volume.

    Raises
    ------
    InputError
    """
    refuse_data_uri(target)
    if target.path.startswith(("http://", "https://")):
        raise InputError(f"output {target.uri} is on a web server, which can only be read; give a bucket or a path")
    backend = backend_of(target)
    if hasattr(backend, "check_replaceable"):
        backend.check_replaceable(target)


def _copy_blocks(source: Volume, part: Box, volume: Volume, block_shape: tuple[int, ...]) -> Iterator[str]:
    blocks = list(grid(Box.of_shape(part.shape), block_shape))
    for block in track(blocks, "convert", len(blocks)):
        array = source.read(block.shift(part.start)).astype(volume.dtype, copy=False)
        volume.write(block, array)
        yield digest(array)


def digest(array: np.ndarray) -> str:
    """Return the BLAKE2b of the values of a block, whatever the format that keeps them.

    >>> digest(np.zeros(3, np.uint8)) == digest(np.zeros((1, 3), np.uint8))
    True
    """
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()


def _verify(backend: Any, staged: Location, block_shape: tuple[int, ...], digests: list[str]) -> None:
    with backend.open_volume(staged) as volume:
        blocks = list(grid(Box.of_shape(volume.spatial_shape), block_shape))
        for block, written in zip(track(blocks, "verify", len(blocks)), digests, strict=True):
            if digest(volume.read(block)) != written:
                raise VolumeError(
                    f"{staged.uri} does not read back as written in the block from {block.start} to {block.stop}"
                )


def block_that_fits(volume: Volume) -> tuple[int, ...]:
    """Return a multiple of the chunk, as many along x, then y, then z as fit; a huge section is cut along y."""
    room = max(1, _BLOCK_BYTES // (volume.dtype.itemsize * int(np.prod(volume.shape[:-3]))))
    block = [min(n, extent) for n, extent in zip(volume.chunk_shape, volume.spatial_shape)]
    for axis in (2, 1, 0):
        others = int(np.prod(block)) // block[axis]
        times = max(1, room // (others * block[axis]))
        block[axis] = min(block[axis] * times, volume.spatial_shape[axis])
    while int(np.prod(block)) > 2 * room and block[1] > 1:
        block[1] = -(-block[1] // 2)
    return tuple(block)


def _sections_box(source: Volume, sections: tuple[int, int] | None) -> Box:
    z, y, x = source.spatial_shape
    start, stop = sections or (0, z)
    if not 0 <= start < stop <= z:
        raise InputError(f"sections must lie in 0:{z} of {source.uri}; got {start}:{stop}")
    return Box((start, 0, 0), (stop, y, x))


def _check_exact(source: Volume, part: Box, wanted: np.dtype[Any]) -> None:
    """Raise InputError unless every value of `source` is the same in the dtype `wanted`."""
    if _always_exact(source.dtype, wanted):
        return
    blocks = list(grid(part, block_that_fits(source)))
    for block in track(blocks, "check that every value fits", len(blocks)):
        if not is_exact(source.read(block), wanted):
            raise InputError(
                f"dtype {wanted} cannot hold the values of {source.uri} ({source.dtype}) exactly; "
                f"the first that do not fit are in the block from {block.start} to {block.stop}"
            )


def _always_exact(have: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    if have.kind in "ui" and wanted.kind == "f":
        return bool(2 ** (8 * have.itemsize) <= _EXACT_INTEGERS[wanted.itemsize])
    return bool(np.can_cast(have, wanted, "safe"))


def is_exact(array: np.ndarray, dtype: np.dtype[Any]) -> bool:
    """Tell whether every value of `array` is the same after a conversion to `dtype`.

    >>> is_exact(np.array([2**53 + 1], np.uint64), np.dtype(np.float64)), is_exact(np.array([3.0]), np.dtype(np.uint8))
    (False, True)
    """
    if array.size == 0 or _always_exact(array.dtype, dtype):
        return True
    low, high = array.min(), array.max()
    if dtype.kind == "b":
        return bool(np.isin(array, (0, 1)).all())
    if dtype.kind == "f":
        if array.dtype.kind in "ui":
            limit = _EXACT_INTEGERS[dtype.itemsize]
            return -limit <= int(low) and int(high) <= limit
        with np.errstate(over="ignore"):
            return bool(np.array_equal(array.astype(dtype).astype(array.dtype), array, equal_nan=True))
    limits = np.iinfo(dtype)
    if array.dtype.kind == "f" and (not np.isfinite(array).all() or (array != np.rint(array)).any()):
        return False
    return limits.min <= int(low) and int(high) <= limits.max


def _same(source: Volume, target: Location) -> bool:
    """Tell whether the output would replace what is being read."""
    try:
        have = parse_uri(source.uri)
    except (InputError, OSError):
        return False
    if target.remote or have.remote:
        return (have.path, have.dataset) == (target.path, target.dataset)
    same_path = os.path.realpath(have.path) == os.path.realpath(target.path)
    return same_path and (have.dataset == target.dataset or (not target.dataset and target.format != "hdf5"))


def staged_place(target: Location) -> Location:
    """Return where the output is built: the same format and URI, under a hidden name where it can be renamed."""
    if target.remote or target.format in ("tiff", "sections"):
        return target
    path = Path(target.path)
    if target.dataset and path.exists():
        head, slash, name = target.dataset.rpartition("/")
        return replace(target, dataset=f"{head}{slash}.{name}.partial")
    return replace(target, path=str(path.with_name(f".{path.name}.partial")))


def publish(staged: Location, target: Location) -> None:
    """Give what was built at `staged` the name of `target`, in place of what is there."""
    if staged == target:
        return
    if target.format == "hdf5" and staged.path == target.path:
        importlib.import_module("neuropil.volume.hdf5").move_dataset(target, staged.dataset, target.dataset)
        return
    built, final = _place(staged, target)
    if final.is_dir():
        old = final.with_name(f".{final.name}.old")
        os.replace(final, old)
        os.replace(built, final)
        shutil.rmtree(old)
    else:
        os.replace(built, final)


def _discard(staged: Location, target: Location) -> None:
    if staged == target:
        return
    if target.format == "hdf5" and staged.path == target.path:
        importlib.import_module("neuropil.volume.hdf5").move_dataset(target, staged.dataset, None)
        return
    built, _ = _place(staged, target)
    if built.is_dir():
        shutil.rmtree(built, ignore_errors=True)
    else:
        built.unlink(missing_ok=True)


def _place(staged: Location, target: Location) -> tuple[Path, Path]:
    """Return the paths to rename: the whole file or folder, or the folder of one array in a container."""
    if staged.path == target.path:
        return Path(staged.path, staged.dataset), Path(target.path, target.dataset)
    return Path(staged.path), Path(target.path)
