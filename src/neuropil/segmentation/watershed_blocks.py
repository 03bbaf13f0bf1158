"""Watershed of a volume in blocks: the basins of the whole, whatever the blocks.

A voxel's steepest links depend on its neighbours alone, and so do the ways out of a plateau; two voxels around a block
tell them exactly. What reaches further are plateaus that cross a face: their voxels, few where affinities are not all
the same, stay pieces of their own, with what flows into them, until their plateau lies in one box of blocks and is
divided there as in the whole volume. Key insight: from then on pieces are only ever joined, within a block, across its
faces, and where a plateau was divided; so voxels are looked at once, and all that follows is lists.

1. `block_fragments` of every block; 2. `divide_shared` for boxes of blocks, larger and larger, until nothing is left;
3. `inner_pairs` of every block and `face_pairs` of every face, which `join_pairs` joins.

Source: that of `neuropil.segmentation.watershed`; order of work after the chunked watershed of the MICrONS
segmentation, with plateaus divided as in the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import watershed as _whole
from neuropil._kernels import watershed_blocks as _kernel
from neuropil._kernels.linkage import spanning_forest as _spanning_forest
from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.segmentation.pairs import group_pairs
from neuropil.segmentation.watershed import ORDERS, check_affinities, label_links, slabs_of, stored_thresholds

HALO = 2
"""Voxels around a block whose affinities decide what its voxels do."""
OPEN = np.uint8(0x80)
"""Instead of links: the voxel lies on a plateau that is not divided yet."""
_LINKS = np.uint8(0x3F)
Plane = tuple[NDArray[np.uint64], NDArray[np.uint8]]


class Plateaus(NamedTuple):
    """Voxels of plateaus.

    Attributes
    ----------
    places
        int64 (n,), ascending, in the whole volume.
    bits
        uint8 (n,): bit k is the link along -z, -y, -x, +z, +y, +x; corners of plateaus are marked by another.
    """

    places: NDArray[np.int64]
    bits: NDArray[np.uint8]

    @classmethod
    def united(cls, parts: Sequence[Plateaus]) -> Plateaus:
        """Return the voxels of all parts."""
        places = np.concatenate([np.empty(0, np.int64), *(part.places for part in parts)])
        bits = np.concatenate([np.empty(0, np.uint8), *(part.bits for part in parts)])
        order = np.argsort(places)
        return cls(places[order], bits[order])


@dataclass(frozen=True)
class BlockFragments:
    """The basins of a block, as if links ended at its faces, and voxels of open plateaus were basins of their own.

    Attributes
    ----------
    labels
        uint32 (z, y, x): 1 ... n in raster order of first voxels, 0 background.
    ids
        uint64 (n + 1,), ascending: what labels are called in the volume, 1 + the place of their first voxel, 0 for
        background. So the smallest id of pieces that are one is the same for any blocks, and such ids are in the order
        in which `watershed` numbers fragments.
    bits
        uint8 (z, y, x): the links, or `OPEN`.
    open
        Plateaus that go on in other blocks.
    """

    labels: NDArray[np.uint32]
    ids: NDArray[np.uint64]
    bits: NDArray[np.uint8]
    open: Plateaus


def block_fragments(
    affinities: ArrayLike, region: Box, block: Box, shape: Sequence[int], *, low: float, high: float
) -> BlockFragments:
    """Find the steepest links of a block's voxels, divide the plateaus that lie within it, and label its basins.

    Parameters
    ----------
    affinities
        (3, z, y, x) of `region`, as for `neuropil.segmentation.watershed.watershed`.
    region
        The block and `HALO` voxels around it, as far as the volume goes.
    block
        Part of the volume.
    shape
        Extent of the volume.
    low, high
        As for `watershed`; the same for all blocks.

    Returns
    -------
    BlockFragments

    Raises
    ------
    InputError
        If the affinities are malformed, or the region is not what it should be.
    """
    whole = Box.of_shape(shape)
    if region != block.grow((HALO,) * 3).clip(whole):
        raise InputError(f"region must be {block.grow((HALO,) * 3).clip(whole)} for block {block}; got {region}")
    if not 0 <= low < high:
        raise InputError(f"low and high must satisfy 0 <= low < high; got low {low}, high {high}")
    links = check_affinities(affinities)
    if links.shape[1:] != region.shape:
        raise InputError(f"affinities must have shape {(3, *region.shape)}; got {links.shape}")
    bits, left = _divided(links, region, block, whole, stored_thresholds(low, high, links.dtype))
    labels = np.empty(block.shape, np.uint32)
    flat = labels.reshape(-1)
    label_links(bits, slabs_of(block.shape, 1), flat, 1)
    return BlockFragments(labels, names_of(_kernel.first_places(flat), block, shape), bits, left)


def names_of(first: NDArray[np.int64], block: Box, shape: Sequence[int]) -> NDArray[np.uint64]:
    """Return what a block's labels 0 ... n are called in a volume: 0, and 1 + the places of their first voxels.

    >>> names_of(np.array([0, 3]), Box((0, 0, 2), (1, 2, 4)), (1, 2, 10)).tolist()
    [0, 3, 14]
    """
    return np.append(np.uint64(0), _places(first, block.shape, block.start, shape).astype(np.uint64) + np.uint64(1))


def _divided(
    links: NDArray[np.float32] | NDArray[np.uint8],
    region: Box,
    block: Box,
    whole: Box,
    stored: tuple[np.generic, np.generic],
) -> tuple[NDArray[np.uint8], Plateaus]:
    """Return the block's links, and the plateaus that are left open."""
    around = np.empty(region.shape, np.uint8)
    _whole.directions(links, *stored, 0, region.shape[0], True, around)
    inner = block.grow((1,) * 3).clip(whole)
    here = inner.shift([-n for n in region.start]).slices
    bits = np.ascontiguousarray(around[here])
    order = np.array(ORDERS["index"], np.int64)
    queue = np.empty(bits.size, np.int64)
    count = _whole.corners(bits, order, False, 0, bits.shape[0], queue)
    core = block.shift([-n for n in inner.start])
    marks, corner = np.zeros(bits.shape, np.bool_), np.array(inner.start) - np.array(region.start)
    greatest = links.dtype.type(min(float(stored[1]), 255 if links.dtype == np.uint8 else 1))
    _kernel.mark_shared(bits, (links, corner, greatest), np.array(core.start), np.array(core.stop), marks)
    held = np.flatnonzero(marks)
    left = Plateaus(_places(held, bits.shape, inner.start, whole.stop), bits.reshape(-1)[held])
    own = np.zeros(bits.shape, np.bool_)
    own[core.slices] = ~marks[core.slices]
    corners = queue[:count]
    corners = corners[own.reshape(-1)[corners]]
    queue[: corners.size] = corners
    _whole.divide(bits.reshape(-1), _steps(bits.shape), order, queue, corners.size)
    bits &= _LINKS
    bits.reshape(-1)[held] = OPEN
    return np.ascontiguousarray(bits[core.slices]), left


class Divided(NamedTuple):
    """The plateaus of a box: those that lie in it, divided, their bits the links; and those that go on outside it."""

    settled: Plateaus
    left: Plateaus


def divide_shared(parts: Sequence[Plateaus], box: Box, shape: Sequence[int]) -> Divided:
    """Divide the plateaus that several blocks share and that lie in a box.

    Parameters
    ----------
    parts
        What is left open in the parts that the box is made of.
    box
        Part of the volume; if it is all of it, nothing is left open.
    shape
        Extent of the volume.
    """
    places, bits = Plateaus.united(parts)
    steps, marks = _steps(shape), np.zeros(places.size, np.bool_)
    edges = np.array([box.start, box.stop], np.int64)
    _kernel.mark_open(places, bits, np.array(shape, np.int64), steps, edges, marks)
    left = Plateaus(places[marks], bits[marks])
    places, bits = places[~marks], bits[~marks]
    _kernel.divide_list(places, bits, steps, np.array(ORDERS["index"], np.int64))
    return Divided(Plateaus(places, bits & _LINKS), left)


def settle(bits: NDArray[np.uint8], box: Box, shape: Sequence[int], settled: Plateaus) -> NDArray[np.uint8]:
    """Return the links of a box, those of divided plateaus instead of `OPEN`, all of which must be listed."""
    bits = bits.copy()
    flat = bits.reshape(-1)
    held = np.flatnonzero(flat == OPEN)
    flat[held] = settled.bits[np.searchsorted(settled.places, _places(held, box.shape, box.start, shape))]
    return bits


def inner_pairs(labels: NDArray[np.integer], settled: Plateaus, block: Box, shape: Sequence[int]) -> NDArray[np.uint64]:
    """Return the pairs of a block's labels that links of divided plateaus join, uint64 (n, 2).

    Parameters
    ----------
    labels
        (z, y, x) of the block.
    settled
        The block's voxels of plateaus.
    block, shape
        Part of the volume, extent of the volume.
    """
    at = np.stack(np.unravel_index(settled.places, tuple(shape)), 1) - np.array(block.start)
    pairs = [np.empty((0, 2), np.uint64)]
    for k in range(6):
        step = np.eye(3, dtype=np.int64)[k % 3] * (-1 if k < 3 else 1)
        linked = settled.bits & np.uint8(1 << k) != 0
        here, there = at[linked], at[linked] + step
        inside = ((there >= 0) & (there < np.array(block.shape))).all(1)
        pairs.append(np.stack([labels[tuple(end[inside].T)] for end in (here, there)], 1).astype(np.uint64))
    return np.concatenate(pairs)


def face_pairs(before: Plane, behind: Plane, axis: int) -> NDArray[np.uint64]:
    """Return the pairs of fragments that links join across a face, uint64 (n, 2), each once.

    Parameters
    ----------
    before, behind
        Fragments, uint64, and bits of the last plane of the one block and the first of the next.
    axis
        0 z, 1 y, 2 x: where the second block follows the first.
    """
    joined = (before[1] >> np.uint8(axis + 3) | behind[1] >> np.uint8(axis)) & np.uint8(1) != 0
    a, b = before[0][joined], behind[0][joined]
    order, starts = group_pairs(a, b)
    return np.stack([a[order][starts], b[order][starts]], 1)


def join_pairs(pairs: Sequence[NDArray[np.uint64]]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the ids that occur in pairs, ascending, and for each the smallest id that pairs connect it with.

    >>> ids, smallest = join_pairs([np.array([[3, 9], [9, 7]], np.uint64), np.array([[2, 5]], np.uint64)])
    >>> ids.tolist(), smallest.tolist()
    ([2, 3, 5, 7, 9], [2, 3, 2, 3, 3])
    """
    both = np.concatenate([np.empty((0, 2), np.uint64), *pairs])
    ids, places = np.unique(both, return_inverse=True)
    u, v = np.ascontiguousarray(places.reshape(-1, 2).T.astype(np.uint64))
    parents = np.arange(ids.size)
    _spanning_forest(u, v, parents, np.zeros(u.size, np.bool_))
    while not np.array_equal(parents, parents[parents]):
        parents = parents[parents]
    return ids, ids[parents]


def _steps(shape: Sequence[int]) -> NDArray[np.int64]:
    _, height, width = shape
    return np.array([-height * width, -width, -1, height * width, width, 1], np.int64)


def _places(
    flat: NDArray[np.intp], shape: Sequence[int], start: Sequence[int], whole: Sequence[int]
) -> NDArray[np.int64]:
    """Return places in the whole volume of places in a part of it."""
    z, y, x = (axis + first for axis, first in zip(np.unravel_index(flat, tuple(shape)), start))
    return (z.astype(np.int64) * whole[1] + y) * whole[2] + x
