"""Union-find over edges in order of falling affinity: size-dependent merging, and the maximum spanning forest.

A root is the smallest id of its cluster, so relabelling by first id needs one sweep. Node 0 is
background: never merged.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def find(parents, a):
    """Return the root of a, halving the path on the way."""
    while parents[a] != a:
        parents[a] = parents[parents[a]]
        a = parents[a]
    return a


@njit(cache=True, nogil=True, inline="always")
def join(parents, a, b):
    """Make one cluster of two roots; return its root, the smaller."""
    low, high = (a, b) if a < b else (b, a)
    parents[high] = low
    return low


@njit(cache=True, nogil=True)
def link(u, v, limits, start, stop, parents, sizes):
    """Merge along edges start ... stop - 1 wherever the smaller cluster is below the edge's limit."""
    for i in range(start, stop):
        a = find(parents, np.int64(u[i]))
        b = find(parents, np.int64(v[i]))
        if a != b and min(sizes[a], sizes[b]) < limits[i]:
            total = sizes[a] + sizes[b]
            sizes[join(parents, a, b)] = total


@njit(cache=True, nogil=True)
def link_part(u, v, limits, parents, sizes, frozen, kept):
    """Merge as `link` does; an edge with a frozen end is kept, for later, and freezes the other end.

    Unless both are too large by now: they only grow, and later edges allow no larger ones.
    """
    for i in range(kept.size):
        a = find(parents, np.int64(u[i]))
        b = find(parents, np.int64(v[i]))
        if a == b or min(sizes[a], sizes[b]) >= limits[i]:
            continue
        if frozen[a] or frozen[b]:
            frozen[a] = frozen[b] = kept[i] = True
        else:
            total = sizes[a] + sizes[b]
            sizes[join(parents, a, b)] = total


@njit(cache=True, nogil=True)
def spanning_forest(u, v, parents, kept):
    """Mark the edges that join two trees, taken in the order given (Kruskal)."""
    for i in range(u.size):
        a = find(parents, np.int64(u[i]))
        b = find(parents, np.int64(v[i]))
        kept[i] = a != b
        if a != b:
            join(parents, a, b)


@njit(cache=True, nogil=True)
def number(parents, lookup):
    """Write consecutive ids of the clusters, in ascending order of their smallest nodes; node 0 gets 0."""
    n = np.uint64(0)
    for i in range(1, parents.size):
        root = find(parents, i)
        if root == i:
            n += np.uint64(1)
            lookup[i] = n
        else:
            lookup[i] = lookup[root]
