"""Watershed of a volume in blocks: the basins of the whole, whatever the blocks.

A voxel's steepest links depend on its neighbours alone, and so do the ways out of a plateau; two voxels around a block
tell them exactly. What reaches further are plateaus that cross a face: their voxels, few where affinities are not all
the same, are put together and divided as in the whole volume. Then a basin is what links lead to within a block, and
links across the faces say which of them are one.

1. `steepest_links` of every block; 2. `divide_shared`, once; 3. `block_fragments` of every block; 4. `face_pairs` of
every face, all of which `join_pairs` joins.

Source: that of `neuropil.segmentation.watershed`; order of work after the chunked watershed of the MICrONS
segmentation, with plateaus divided as in the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import watershed as _whole
from neuropil._kernels import watershed_blocks as _kernel
from neuropil._kernels.linkage import spanning_forest as _spanning_forest
from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.segmentation.watershed import ORDERS, check_affinities, stored_thresholds

HALO = 2
"""Voxels around a block whose affinities decide what its voxels do."""
_LINKS = np.uint8(0x3F)
Plane = tuple[NDArray[np.uint64], NDArray[np.uint8]]


@dataclass(frozen=True)
class BlockLinks:
    """The steepest links of a block.

    Attributes
    ----------
    bits
        uint8 (z, y, x): bit k is the link along -z, -y, -x, +z, +y, +x.
    places
        int64 (n,), ascending: voxels of plateaus that go on in other blocks, as places in the whole volume.
    shared
        uint8 (n,), their bits, the corners of plateaus marked.
    """

    bits: NDArray[np.uint8]
    places: NDArray[np.int64]
    shared: NDArray[np.uint8]


def steepest_links(
    affinities: ArrayLike, region: Box, block: Box, shape: Sequence[int], *, low: float, high: float
) -> BlockLinks:
    """Find the steepest links of a block's voxels, and divide the plateaus that lie within it.

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
    BlockLinks

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
    stored = stored_thresholds(low, high, links.dtype)
    around = np.empty(region.shape, np.uint8)
    _whole.directions(links, *stored, 0, region.shape[0], True, around)
    inner = block.grow((1,) * 3).clip(whole)
    here = inner.shift([-n for n in region.start]).slices
    bits = np.ascontiguousarray(around[here])
    order = np.array(ORDERS["index"], np.int64)
    queue = np.empty(bits.size, np.int64)
    count = _whole.corners(bits, order, False, 0, bits.shape[0], queue)
    core = block.shift([-n for n in inner.start])
    marks, start, stop = np.zeros(bits.shape, np.bool_), np.array(core.start), np.array(core.stop)
    _kernel.mark_shared(bits, _at_top(links, stored[1])[here], start, stop, marks)
    held = np.flatnonzero(marks)
    places = _places(held, bits.shape, inner.start, shape)
    shared = bits.reshape(-1)[held]
    own = np.zeros(bits.shape, np.bool_)
    own[core.slices] = ~marks[core.slices]
    corners = queue[:count]
    corners = corners[own.reshape(-1)[corners]]
    queue[: corners.size] = corners
    _whole.divide(bits.reshape(-1), _steps(bits.shape), order, queue, corners.size)
    return BlockLinks(np.ascontiguousarray(bits[core.slices]) & _LINKS, places, shared)


def divide_shared(blocks: Sequence[BlockLinks], shape: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Divide the plateaus that several blocks share; return the places of their voxels, ascending, and their bits."""
    places = np.concatenate([block.places for block in blocks])
    bits = np.concatenate([block.shared for block in blocks])
    order = np.argsort(places)
    places, bits = places[order], bits[order]
    _kernel.divide_list(places, bits, _steps(shape), np.array(ORDERS["index"], np.int64))
    return places, bits & _LINKS


@dataclass(frozen=True)
class BlockFragments:
    """The basins of a block, as if links ended at its faces.

    Attributes
    ----------
    labels
        uint64 (z, y, x): 1 ... n in raster order of first voxels, 0 background.
    ids
        uint64 (n + 1,), ascending: what labels are called in the volume, 1 + the place of their first voxel, 0 for
        background. So ids are the same for any blocks, and in the order in which `watershed` numbers fragments.
    bits
        uint8 (z, y, x): the links.
    """

    labels: NDArray[np.uint64]
    ids: NDArray[np.uint64]
    bits: NDArray[np.uint8]


def block_fragments(
    bits: NDArray[np.uint8], block: Box, shape: Sequence[int], shared: tuple[NDArray[np.int64], NDArray[np.uint8]]
) -> BlockFragments:
    """Label the basins of a block.

    Parameters
    ----------
    bits
        Those of `steepest_links`.
    block, shape
        Part of the volume, extent of the volume.
    shared
        What `divide_shared` returned; places in other blocks are passed over.

    Returns
    -------
    BlockFragments
    """
    bits = bits.copy()
    places, values = shared
    at = np.stack(np.unravel_index(places, tuple(shape)), 1) - np.array(block.start)
    inside = ((at >= 0) & (at < np.array(block.shape))).all(1)
    bits[tuple(at[inside].T)] = values[inside]
    labels = np.empty(block.shape, np.uint64)
    flat = labels.reshape(-1)
    _whole.basins(bits, 0, block.shape[0], flat.view(np.int64))
    first = _kernel.first_places(flat)
    ids = np.append(np.uint64(0), _places(first, block.shape, block.start, shape).astype(np.uint64) + np.uint64(1))
    return BlockFragments(labels, ids, bits)


def face_pairs(before: Plane, behind: Plane, axis: int) -> NDArray[np.uint64]:
    """Return the pairs of fragments that links join across a face, uint64 (n, 2), each once.

    Parameters
    ----------
    before, behind
        Fragments, with ids of the volume, and bits of the last plane of the one block and the first of the next.
    axis
        0 z, 1 y, 2 x: where the second block follows the first.
    """
    joined = (before[1] >> np.uint8(axis + 3) | behind[1] >> np.uint8(axis)) & np.uint8(1) != 0
    return np.unique(np.stack([before[0][joined], behind[0][joined]], 1), axis=0)


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


def _at_top(links: NDArray[np.float32] | NDArray[np.uint8], high: np.generic) -> NDArray[np.bool_]:
    """Tell which voxels have a link of the greatest affinity there can be."""
    greatest = min(float(high), 255.0 if links.dtype == np.uint8 else 1.0)
    top = np.zeros(links.shape[1:], np.bool_)
    for axis, channel in enumerate(links):
        ahead, back = [slice(None)] * 3, [slice(None)] * 3
        ahead[axis], back[axis] = slice(1, None), slice(None, -1)
        strong = channel[tuple(ahead)] >= greatest
        top[tuple(ahead)] |= strong
        top[tuple(back)] |= strong
    return top


def _steps(shape: Sequence[int]) -> NDArray[np.int64]:
    _, height, width = shape
    return np.array([-height * width, -width, -1, height * width, width, 1], np.int64)


def _places(
    flat: NDArray[np.intp], shape: Sequence[int], start: Sequence[int], whole: Sequence[int]
) -> NDArray[np.int64]:
    """Return places in the whole volume of places in a part of it."""
    z, y, x = (axis + first for axis, first in zip(np.unravel_index(flat, tuple(shape)), start))
    return (z.astype(np.int64) * whole[1] + y) * whole[2] + x
