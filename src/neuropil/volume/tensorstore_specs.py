"""What a new zarr, n5 or precomputed array looks like: chunks, shards, codecs and the metadata of each format.

A chunk is what a reader fetches, a shard is one file with many chunks. Chunks hold about 256 Ki voxels and are flat
where sections are thicker than their pixels; shards hold 64 chunks, so that a terabyte is some ten thousand files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neuropil.errors import InputError
from neuropil.volume import ome
from neuropil.volume.base import fitted_chunks
from neuropil.volume.metadata import Metadata
from neuropil.volume.uri import Location

_HOLDS = {
    "n5": "uint8 uint16 uint32 uint64 int8 int16 int32 int64 float32 float64",
    "precomputed": "uint8 uint16 uint32 uint64 int8 int16 int32 float32",
    "zarr": "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 float32 float64",
}


def array_spec(
    kind: str, location: Location, shape: tuple[int, ...], dtype: np.dtype[Any], metadata: Metadata,
    chunk_shape: Sequence[int] | None,
) -> dict[str, Any]:  # fmt: skip
    """Return the tensorstore spec of a new array, less its kvstore."""
    holds = _HOLDS.get(kind, _HOLDS["zarr"]).split()
    if dtype.name not in holds:
        raise InputError(f"{kind} cannot hold {dtype}; use one of {', '.join(holds)}")
    inner, outer = chunk_shapes(shape, metadata, chunk_shape)
    if kind == "zarr3":
        attributes = ome.array_attributes(metadata) if location.dataset else {}
        return _zarr3(shape, dtype, metadata, inner, outer, attributes)
    # Formats without shards write what they read.
    unit = inner if chunk_shape is None else outer
    if kind == "zarr2":
        return _zarr2(shape, dtype, unit)
    if kind == "n5":
        return _n5(shape, dtype, metadata, unit, at_root=not location.dataset)
    return _precomputed(location, shape, dtype, metadata, unit)


def chunk_shapes(
    shape: Sequence[int], metadata: Metadata, chunk_shape: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return spatial extents (z, y, x) of chunk and shard; the chunk divides the shard.

    >>> chunk_shapes((1000, 9000, 9000), Metadata(voxel_size=(40, 4, 4)), None)
    ((16, 128, 128), (64, 512, 512))
    """
    size = metadata.voxel_size
    target = (64, 64, 64) if size is not None and size[0] < 3 * min(size[1:]) else (16, 128, 128)
    if chunk_shape is None:
        # Few large channels make a chunk heavy, so it gets smaller in y and x.
        shrink = 2 if len(shape) == 4 else 1
        inner = fitted_chunks((target[0], target[1] // shrink, target[2] // shrink), target, shape)
        return inner, tuple(n * min(4, -(-extent // n)) for n, extent in zip(inner, tuple(shape)[-3:]))
    outer = fitted_chunks(chunk_shape, chunk_shape, shape)
    return tuple(_divisor(n, limit) for n, limit in zip(outer, target)), outer


def _divisor(extent: int, limit: int) -> int:
    """Return the largest divisor of `extent` up to `limit`, or `extent` itself where all of those are tiny."""
    best = max(n for n in range(1, min(extent, limit) + 1) if extent % n == 0)
    return best if 4 * best >= min(extent, limit) else extent


def _zarr3(
    shape: tuple[int, ...], dtype: np.dtype[Any], metadata: Metadata, inner: tuple[int, ...], outer: tuple[int, ...],
    attributes: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    channels = shape[:-3]
    blosc = {"cname": "zstd", "clevel": 3, "shuffle": "shuffle" if dtype.itemsize > 1 else "noshuffle"}
    chunk = [
        {"name": "bytes", "configuration": {"endian": "little"} if dtype.itemsize > 1 else {}},
        {"name": "blosc", "configuration": {"typesize": dtype.itemsize, **blosc}},
    ]
    each = [1] * len(channels)  # so that some channels can be read without the others
    sharding = {"chunk_shape": [*each, *inner], "codecs": chunk}
    grid = {"name": "regular", "configuration": {"chunk_shape": [*channels, *outer]}}
    return {
        "driver": "zarr3",
        "metadata": {
            "shape": list(shape), "data_type": dtype.name, "chunk_grid": grid,
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": False if dtype.kind == "b" else 0,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "dimension_names": list(metadata.axes), "attributes": dict(attributes),
        },
    }  # fmt: skip


def _zarr2(shape: tuple[int, ...], dtype: np.dtype[Any], chunk: tuple[int, ...]) -> dict[str, Any]:
    return {
        "driver": "zarr",
        "metadata": {
            "shape": list(shape), "chunks": [*shape[:-3], *chunk], "dtype": dtype.newbyteorder("<").str,
            "dimension_separator": "/", "fill_value": False if dtype.kind == "b" else 0, "order": "C", "filters": None,
            "compressor": {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1 if dtype.itemsize > 1 else 0},
        },
    }  # fmt: skip


def _n5(
    shape: tuple[int, ...], dtype: np.dtype[Any], metadata: Metadata, chunk: tuple[int, ...], *, at_root: bool
) -> dict[str, Any]:
    attributes = ome.n5_attributes(metadata)
    return {
        "driver": "n5",
        "metadata": {
            "dimensions": list(shape[::-1]), "blockSize": [*shape[:-3], *chunk][::-1], "dataType": dtype.name,
            "compression": {"type": "gzip"}, **attributes, **({"n5": "4.0.0"} if at_root else {}),
        },
    }  # fmt: skip


def _precomputed(
    location: Location, shape: tuple[int, ...], dtype: np.dtype[Any], metadata: Metadata, chunk: tuple[int, ...]
) -> dict[str, Any]:
    if metadata.voxel_size is None:
        raise InputError(f"precomputed needs the voxel size; give voxel_size (z, y, x, nm) for {location.uri}")
    origin = [start / size for start, size in zip(metadata.offset, metadata.voxel_size)]
    if any(abs(voxels - round(voxels)) > 1e-6 for voxels in origin):
        raise InputError(
            f"precomputed holds offsets in whole voxels; "
            f"offset {metadata.offset} nm is no multiple of {metadata.voxel_size} nm"
        )
    labels = metadata.kind == "labels"
    packed = labels and dtype.name in ("uint32", "uint64")
    scale: dict[str, Any] = {
        "size": list(shape[-3:][::-1]), "resolution": list(metadata.voxel_size[::-1]), "chunk_size": list(chunk[::-1]),
        "voxel_offset": [round(voxels) for voxels in origin[::-1]],
        "encoding": "compressed_segmentation" if packed else "raw",
    }  # fmt: skip
    if packed:
        scale["compressed_segmentation_block_size"] = [8, 8, 8]
    channels = shape[0] if len(shape) == 4 else 1
    whole = {"type": "segmentation" if labels else "image", "data_type": dtype.name, "num_channels": channels}
    return {"driver": "neuroglancer_precomputed", "multiscale_metadata": whole, "scale_metadata": scale}


def precomputed_beliefs(info: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Return what an `info` says: stored x, y, z, given z, y, x."""
    scale = info["scales"][0]
    size = [float(length) for length in scale["resolution"]][::-1]
    origin = scale.get("voxel_offset", [0, 0, 0])[::-1]
    found: dict[str, tuple[Any, str]] = {
        "voxel_size": (tuple(size), "precomputed 'resolution' (stored x, y, z)"),
        "offset": (tuple(v * s for v, s in zip(origin, size)), "precomputed 'voxel_offset' x 'resolution'"),
    }
    if info.get("type") == "segmentation":
        found["kind"] = ("labels", "precomputed 'type' is segmentation")
    return found
