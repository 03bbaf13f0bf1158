"""Seeded watershed: links in order of falling affinity join clusters, unless both have a seed.

Clusters are trees of voxels. Key insight: a voxel without a seed joins along its strongest link whatever else is
decided (`neuropil._kernels.mutex.strongest`), so only links between the basins that this leaves need to be sorted.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from neuropil._kernels.mutex import _LOW, _root


@njit(cache=True, nogil=True)
def _join(v, w, labels, forest):
    """Join the trees of two voxels; a root has the seed of its tree, if there is one."""
    a, b = _root(forest, v), _root(forest, w)
    if a == b or (labels[a] != 0 and labels[b] != 0):
        return
    if labels[a] == 0:
        a, b = b, a
    forest[b] = a


@njit(cache=True, nogil=True)
def contract(best, steps, labels, forest):
    """Join each voxel without a seed along its strongest link, an entry of best, all bits set for none."""
    size = forest.size
    for u in range(size):
        link = np.int64(best[u] & _LOW)
        if labels[u] != 0 or best[u] == ~np.uint64(0):
            continue
        channel = link // size
        v = link - channel * size
        _join(v, v + steps[channel], labels, forest)


@njit(cache=True, nogil=True)
def decide(entries, steps, labels, forest):
    """Join the ends of sorted entries (affinity, channel * size + voxel) where not both have a seed."""
    size = forest.size
    for entry in entries:
        link = np.int64(entry & _LOW)
        channel = link // size
        v = link - channel * size
        _join(v, v + steps[channel], labels, forest)
