"""Mutex watershed: attractive and repulsive links decide in order of their strength, with no threshold at all.

Neighbours attract, voxels some way apart repel. In order of falling weight an attractive link joins two clusters unless
that is forbidden, and a repulsive one forbids two clusters to join. Key insight: one strong link that says "different"
outweighs all weaker ones that say "same", so a leak through a weak spot of a boundary is stopped by what is known from
farther away, and objects need no seeds.

Source: Wolf, Bailoni, Pape, Rahaman, Kreshuk, Koethe and Hamprecht, "The mutex watershed and its objective: efficient,
parameter-free graph partitioning", IEEE TPAMI 2020, arXiv 1904.12654.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import mutex as _kernel
from neuropil.errors import InputError
from neuropil.segmentation.watershed import check_affinities

_SHIFT = 12  # weights are counted by their leading 20 bits


def mutex_watershed(
    affinities: ArrayLike,
    offsets: Sequence[Sequence[int]],
    *,
    attractive: int = 3,
    strides: Sequence[int] = (1, 1, 1),
    rng: np.random.Generator | None = None,
) -> NDArray[np.uint64]:
    r"""Segment affinities of any offsets by the mutex watershed.

    Link :math:`(v, v + \mathrm{offset}_c)` has weight a, its affinity, if it attracts, and :math:`1 - a` if it repels.
    Links are taken in order of falling weight; equal ones by channel, then voxel. Those of weight 0 say nothing.

    Parameters
    ----------
    affinities
        (c, z, y, x), 1 = same object: floats in [0, 1], computed as float32, or uint8, where s means s / 255. Links
        that leave the volume are not used.
    offsets
        c steps (z, y, x), voxels, none of them (0, 0, 0).
    attractive
        The first channels, as many as this, attract, the others repel; >= 1.
    strides
        Of repulsive links only those are used whose voxel v lies on the grid of these steps (z, y, x), each >= 1. Many
        are redundant, and fewer are faster.
    rng
        If given, repulsive links are drawn instead, each with probability 1 / (product of the strides).

    Returns
    -------
    ndarray of uint64
        (z, y, x), 1 ... n in raster order of first voxels. There is no background; mask it or remove small segments.

    Raises
    ------
    InputError
        If affinities, offsets or options break the rules above, or there are 2**32 links or more.

    Notes
    -----
    About O(links log links). Takes 28 bytes per voxel and what the pairs that may not join need. Equal to the programs
    mwatershed and bioimage-cpp on weights without ties.

    Examples
    --------
    Four voxels in a row, all attracted; the repulsion between the outer two decides where the weakest link is cut:

    >>> links = np.zeros((2, 1, 1, 4), np.float32)
    >>> links[0, 0, 0, 1:] = 0.75, 0.5, 0.75
    >>> links[1, 0, 0, 3:] = 0.25
    >>> mutex_watershed(links, [(0, 0, -1), (0, 0, -3)], attractive=1).tolist()
    [[[1, 1, 2, 2]]]
    """
    steps = _check_offsets(affinities, offsets, attractive, strides)
    links = check_affinities(affinities, channels=len(steps))
    check_links(links.size)
    labels = np.zeros(links.shape[1:], np.uint64)
    if labels.size == 0:
        return labels
    every = np.ones(3, np.int64)
    grid = np.array(strides, np.int64) if rng is None else every
    no_mask = np.empty(0, np.bool_)
    top = links.dtype.type(255 if links.dtype == np.uint8 else 1)
    channels: list[tuple[Any, ...]] = []
    for c, (channel, step) in enumerate(zip(links, steps)):
        mask = no_mask
        if rng is not None and c >= attractive:
            mask = rng.random(labels.size, np.float32) * math.prod(strides) < 1
        channels.append((channel, c >= attractive, top, step, grid if c >= attractive else every, mask))
    forest = _decided(channels, attractive, labels.shape)
    _kernel.number(forest, labels.reshape(-1))
    return labels


def _decided(channels: list[tuple[Any, ...]], attractive: int, shape: tuple[int, ...]) -> NDArray[np.uint32]:
    """Return the flat forest of the clusters when all links have decided."""
    size = math.prod(shape)
    forest = np.arange(size, dtype=np.uint32)
    jumps = np.array([step @ np.array([shape[1] * shape[2], shape[2], 1]) for _, _, _, step, _, _ in channels])
    best = np.full(size, ~np.uint64(0))
    for c, channel in enumerate(channels):
        _kernel.strongest(channel, np.uint32(1), c * size, best)
    _kernel.contract(best, attractive, jumps, forest)
    del best
    heads, lengths = np.zeros(size, np.int32), np.zeros(size, np.int32)
    blocks, counts, table = np.empty((1024, 8), np.int32), np.array([0, -1, 0]), np.zeros(1024, np.uint64)
    for low, high, most in batches(channels):
        _kernel.flatten(forest)
        entries, n = np.empty(most, np.uint64), 0
        for c, channel in enumerate(channels):
            n = _kernel.gather(channel, np.uint32(low), np.uint32(high), forest, table, c * size, entries, n)
        entries = entries[:n]
        entries.sort()
        blocks, table = _kernel.decide(entries, size, attractive, jumps, forest, heads, lengths, blocks, counts, table)
    _kernel.flatten(forest)
    return forest


def check_links(number: int) -> None:
    """Refuse more links than 32 bits can number.

    >>> check_links(2**32 - 1)
    >>> check_links(2**32)
    Traceback (most recent call last):
    neuropil.errors.InputError: affinities must have less than 2**32 links, work in blocks; got 4294967296
    """
    if number >= 1 << 32:
        raise InputError(f"affinities must have less than 2**32 links, work in blocks; got {number}")


def batches(channels: list[tuple[Any, ...]]) -> list[tuple[int, int, int]]:
    """Return ranges of weights, falling, with the number of links in each: about one per voxel, if ties allow."""
    counts = np.zeros(1 << (32 - _SHIFT), np.int64)
    for links, repels, top, *_ in channels:
        _kernel.histogram(links, repels, top, _SHIFT, counts)
    at_once = max(channels[0][0].size, 1 << 16)
    falling = np.cumsum(counts[::-1])
    found, begin = [], 0
    while begin < counts.size and (taken := int(falling[begin - 1]) if begin else 0) < falling[-1]:
        end = max(int(np.searchsorted(falling, taken + at_once, side="right")), begin + 1)
        low, high = (counts.size - end) << _SHIFT, (counts.size - begin) << _SHIFT
        found.append((max(low, 1), min(high, (1 << 32) - 1), int(falling[min(end, counts.size) - 1]) - taken))
        begin = end
    return found


def _check_offsets(
    affinities: ArrayLike, offsets: Sequence[Sequence[int]], attractive: int, strides: Sequence[int]
) -> NDArray[np.int64]:
    steps = np.asarray(offsets)
    if steps.ndim != 2 or steps.shape[1] != 3 or steps.dtype.kind not in "iu" or not np.all(np.any(steps != 0, 1)):
        raise InputError(f"offsets must be steps (z, y, x) of integers, not all 0; got {offsets}")
    if not 1 <= attractive <= len(steps):
        raise InputError(f"attractive must lie in 1 ... {len(steps)}, the number of offsets; got {attractive}")
    if len(strides) != 3 or min(strides) < 1:
        raise InputError(f"strides must be three steps (z, y, x) of at least 1; got {strides}")
    return steps.astype(np.int64)
