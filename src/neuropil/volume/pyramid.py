"""Coarser copies of a volume beside it, as viewers want them: levels of OME-Zarr, scales of precomputed.

A level halves the axes whose voxels are shorter than twice the shortest, so that voxels become as long as they are
wide. Its voxels are means of those they cover, or for labels the most frequent (of two as frequent, the smaller id).
A level is made of the one before, in blocks of whole chunks, and has its chunks and codecs. OME's metadata name levels
when all are whole; precomputed's `info` names a scale as soon as it is begun.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import tensorstore as ts

from neuropil.errors import InputError
from neuropil.geometry import Box, grid
from neuropil.volume import ome
from neuropil.volume.base import storage_errors
from neuropil.volume.tensorstore_ import CONTEXT, DRIVERS, Node, get_json, kvstore_of, probe, put_json, root_of
from neuropil.volume.uri import Location
from neuropil.volume.volume import open_location

FORMATS = ("zarr", "zarr2", "zarr3", "precomputed")
SMALL = 512
"""Voxels along y and x from which on a level needs no coarser one."""
_CELLS = 1 << 25  # voxels of the level before that a block is made of, about


@dataclass(frozen=True)
class Pyramid:
    """The levels of one volume; data only.

    Attributes
    ----------
    location : of the volume
    method : of making one voxel of several
    factors : z, y, x by which each level is coarser than the one before
    """

    location: Location
    method: Literal["mean", "mode"]
    factors: tuple[tuple[int, ...], ...]


def plan_pyramid(location: Location, levels: int | None = None) -> Pyramid:
    """Say which levels a volume gets.

    Parameters
    ----------
    location : of a volume that exists
    levels : how many; by default until a section is at most 512 voxels high and wide

    Raises
    ------
    InputError : a format without levels, an array that is no OME group
    """
    check_levels(location)
    with open_location(location) as volume:
        size, shape = list(volume.metadata.voxel_size or (1.0, 1.0, 1.0)), list(volume.spatial_shape)
        labels = volume.metadata.kind in ("labels", "mask")
    node = _node(location)
    if node.kind != "precomputed" and not ome.levels(node.attributes):
        raise InputError(f"{location.uri} has no OME metadata, which name the levels; copy it with neuropil convert")
    factors: list[tuple[int, ...]] = []
    while len(factors) < levels if levels is not None else max(shape[1:]) > SMALL:
        factor = tuple(2 if s < 2 * min(size) and n > 1 else 1 for s, n in zip(size, shape))
        if max(factor) == 1:
            break
        factors.append(factor)
        size, shape = [s * f for s, f in zip(size, factor)], [-(-n // f) for n, f in zip(shape, factor)]
    return Pyramid(location, "mode" if labels else "mean", tuple(factors))


def check_levels(location: Location) -> None:
    """Refuse a place that has no room for levels.

    Raises
    ------
    InputError : HDF5, TIFF, n5, or an array of a name in a container
    """
    if location.format not in FORMATS or location.dataset:
        raise InputError(f"levels are for x.zarr and precomputed://; {location.uri} has no place for them")


def make_level(pyramid: Pyramid, number: int) -> None:
    """Make the array of a level, from 1 on, empty; what is there is replaced.

    Raises
    ------
    VolumeError : it cannot be written
    """
    location, node = pyramid.location, _node(pyramid.location)
    with storage_errors(location.uri, "create"):
        coarse = _coarser(pyramid, number)
        if node.kind != "precomputed":
            spec = _opened(location, node, number - 1).spec().to_json()
            spec["metadata"]["shape"] = list(coarse.shape)
            spec = {"driver": spec["driver"], "metadata": spec["metadata"]}
            place = kvstore_of(location, _path(node, number))
            ts.open({**spec, "kvstore": place}, create=True, delete_existing=True, context=CONTEXT).result()
            return
        scales = get_json(root_of(location), "info")["scales"]  # type: ignore[index]  # it is there
        if len(scales) > number:
            scales = scales[:number]
            put_json(root_of(location), "info", {**node.attributes, "scales": scales})
        kept = ("chunk_sizes", "encoding", "compressed_segmentation_block_size", "jpeg_quality")
        scale = {name: copy.deepcopy(scales[0][name]) for name in kept if name in scales[0]}
        before = scales[number - 1]["resolution"]
        scale["chunk_size"] = scale.pop("chunk_sizes")[0]
        scale["resolution"] = [r * f for r, f in zip(before, pyramid.factors[number - 1][::-1])]
        scale["size"], scale["voxel_offset"] = list(coarse.shape[:3]), list(coarse.domain.inclusive_min[:3])
        spec = {"driver": DRIVERS["precomputed"], "kvstore": kvstore_of(location), "scale_metadata": scale}
        ts.open(spec, create=True, open=True, context=CONTEXT).result()


def level_blocks(pyramid: Pyramid, number: int) -> list[Box]:
    """Return the blocks of a level that was made: whole chunks, z, y, x."""
    node = _node(pyramid.location)
    store = _opened(pyramid.location, node, number)
    places = [_axes(node).index(axis) for axis in "zyx"]
    shape, chunk = ([extents[i] for i in places] for extents in (store.shape, store.chunk_layout.write_chunk.shape))
    block, cells = list(map(min, chunk, shape)), 8
    for axis in (2, 1, 0):
        size = cells * block[0] * block[1] * block[2]
        block[axis] = min(shape[axis], block[axis] * max(1, _CELLS // size))
    return list(grid(Box.of_shape(shape), block))


def write_level(pyramid: Pyramid, number: int, box: Box) -> None:
    """Compute a block of a level, and write it."""
    location, node = pyramid.location, _node(pyramid.location)
    with storage_errors(location.uri, "write"):
        store = _opened(location, node, number)
        inside: list[Any] = [slice(None)] * store.rank
        for axis, span in zip("zyx", box.slices):
            inside[_axes(node).index(axis)] = span
        part = tuple(inside)
        values = _coarser(pyramid, number)[ts.d[:].translate_to[0]][part].read().result()
        store[ts.d[:].translate_to[0]][part].write(values).result()


def name_levels(pyramid: Pyramid) -> None:
    """Name the levels in the metadata of the volume, instead of those named there before."""
    location, node = pyramid.location, _node(pyramid.location)
    if node.kind == "precomputed":
        return
    attributes = copy.deepcopy(dict(node.attributes))
    image = attributes.get("ome", attributes)["multiscales"][0]
    first, axes, times = image["datasets"][0], _axes(node), dict.fromkeys(_axes(node), 1)
    image["datasets"] = [first]
    for number, factor in enumerate(pyramid.factors, 1):
        times |= {axis: times[axis] * f for axis, f in zip("zyx", factor)}
        level = {"path": _path(node, number), "coordinateTransformations": _steps(first, [times[a] for a in axes])}
        image["datasets"].append(level)
    image["type"] = pyramid.method
    root = root_of(location)
    if node.kind == "zarr3":
        put_json(root, "zarr.json", {**(get_json(root, "zarr.json") or {}), "attributes": attributes})
    else:
        put_json(root, ".zattrs", attributes)


def _steps(first: dict[str, Any], times: list[int]) -> list[dict[str, Any]]:
    """Return the transformations of a level; a voxel's place is its middle, so the first one moves by half."""
    scale, shift = [1.0] * len(times), [0.0] * len(times)
    for step in first.get("coordinateTransformations", ()):
        scale = step.get("scale", scale)
        shift = step.get("translation", shift)
    return [
        {"type": "scale", "scale": [s * t for s, t in zip(scale, times)]},
        {"type": "translation", "translation": [a + s * (t - 1) / 2 for a, s, t in zip(shift, scale, times)]},
    ]


def _node(location: Location) -> Node:
    node = probe(root_of(location), location.format, "")
    if node is None:
        raise InputError(f"{location.uri} is no volume that levels could be added to")
    return node


def _path(node: Node, number: int) -> str:
    return ome.levels(node.attributes)[0].path if number == 0 else str(number)


def _axes(node: Node) -> tuple[str, ...]:
    """Return the names of the axes as they are stored."""
    return ("x", "y", "z", "c") if node.kind == "precomputed" else ome.levels(node.attributes)[0].axes


def _opened(location: Location, node: Node, number: int) -> Any:
    """Open a level as it is stored."""
    spec: dict[str, Any] = {"driver": DRIVERS[node.kind], "kvstore": kvstore_of(location)}
    if node.kind == "precomputed":
        spec["scale_index"] = number
    else:
        spec["kvstore"] = kvstore_of(location, _path(node, number))
    return ts.open(spec, open=True, read=True, write=True, context=CONTEXT).result()


def _coarser(pyramid: Pyramid, number: int) -> Any:
    """Return the level before, seen as coarse as a level is; nothing is computed yet."""
    node = _node(pyramid.location)
    store = _opened(pyramid.location, node, number - 1)
    factor = dict(zip("zyx", pyramid.factors[number - 1]))
    return ts.downsample(store, [factor.get(axis, 1) for axis in _axes(node)], pyramid.method)
