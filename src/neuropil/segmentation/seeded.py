"""Seeded watershed: every voxel goes to the seed that it reaches by the strongest path.

A path is as strong as its weakest link. The paths are those of the maximum spanning forest of the affinity graph with
one seed per tree, which Kruskal's method finds: links in order of falling affinity join two clusters unless both have
a seed. Key insight: the result depends only on the order of affinities, so no threshold is needed where seeds are good.

Source: Cousty, Bertrand, Najman and Couprie, "Watershed cuts: minimum spanning forests and the drop of water
principle", IEEE TPAMI 2009.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import mutex as _links
from neuropil._kernels import seeded as _kernel
from neuropil.errors import InputError
from neuropil.segmentation.affinities import NEAREST
from neuropil.segmentation.mutex import batches, check_links
from neuropil.segmentation.watershed import check_affinities, stored_thresholds


def seeded_watershed(
    affinities: ArrayLike, seeds: ArrayLike, *, low: float = 0.0, per_section: bool = False
) -> NDArray[np.uint64]:
    r"""Give every voxel the label of the seed that it reaches by the strongest path.

    Links are taken in order of falling affinity, equal ones by channel, then voxel; each joins the clusters at its ends
    unless both have a seed. So the path of a voxel v to its seed has the greatest strength
    :math:`\max_{\mathrm{paths}} \min_{\mathrm{links}} a` of all paths from v to seeds.

    Parameters
    ----------
    affinities
        (3, z, y, x), as for `neuropil.segmentation.watershed.watershed`.
    seeds
        Integers >= 0, (z, y, x); any uint64 ids, 0 is no seed. Voxels of a seed need not be connected.
    low
        Links with affinity <= `low` are dropped, in [0, 1].
    per_section
        Whether every section is divided by itself, by its own seeds.

    Returns
    -------
    ndarray of uint64
        (z, y, x), ids of seeds; 0 where no seed can be reached.

    Raises
    ------
    InputError
        If shapes or dtypes do not match, values are outside [0, 1] or NaN, or there are 2**32 links or more.

    Notes
    -----
    About O(voxels log voxels). Takes 28 bytes per voxel.

    Examples
    --------
    Six voxels in a row with seeds at the ends part at the weakest link:

    >>> chain = np.zeros((3, 1, 1, 6), np.float32)
    >>> chain[2, 0, 0, 1:] = 0.9, 0.5, 0.4, 0.6, 0.8
    >>> seeded_watershed(chain, [[[7, 0, 0, 0, 0, 3]]]).tolist()
    [[[7, 7, 7, 3, 3, 3]]]
    """
    links = check_affinities(affinities)
    check_links(links.size)
    marks = np.asarray(seeds)
    if marks.shape != links.shape[1:] or marks.dtype.kind not in "ui" or marks.min(initial=0) < 0:
        raise InputError(
            f"seeds must be integers >= 0 of shape {links.shape[1:]}; got {marks.dtype} of shape {marks.shape}"
        )
    if not 0 <= low <= 1:
        raise InputError(f"low must lie in [0, 1]; got {low}")
    labels = np.ascontiguousarray(marks, np.uint64)
    if labels.size == 0:
        return labels.copy()
    top = stored_thresholds(low, 1.0, links.dtype)[0]
    least = np.float32(top).view(np.uint32) + np.uint32(1)
    used = range(1, 3) if per_section else range(3)
    every, no_mask = np.ones(3, np.int64), np.empty(0, np.bool_)
    channels = [(links[c], False, top, np.array(NEAREST[c]), every, no_mask) for c in used]
    forest = _decided(channels, least, labels)
    return labels.reshape(-1)[forest].reshape(labels.shape)


def _decided(channels: list[tuple[Any, ...]], least: np.uint32, labels: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Return the flat forest of the clusters when all links have decided; the root has the seed of its tree."""
    size, seeds = labels.size, labels.reshape(-1).view()
    seeds.flags.writeable = False
    forest = np.arange(size, dtype=np.uint32)
    jumps = np.array([step @ np.array([labels[0].size, labels.shape[2], 1]) for _, _, _, step, _, _ in channels])
    best = np.full(size, ~np.uint64(0))
    for c, channel in enumerate(channels):
        _links.strongest(channel, least, c * size, best)
    _kernel.contract(best, jumps, seeds, forest)
    del best
    none_forbidden = np.zeros(64, np.uint64)
    for low, high, most in batches(channels):
        if high <= least:
            break
        _links.flatten(forest)
        entries, n = np.empty(most, np.uint64), 0
        for c, channel in enumerate(channels):
            first = max(np.uint32(low), least)
            n = _links.gather(channel, first, np.uint32(high), forest, none_forbidden, c * size, entries, n)
        entries = entries[:n]
        entries.sort()
        _kernel.decide(entries, jumps, seeds, forest)
    _links.flatten(forest)
    return forest
