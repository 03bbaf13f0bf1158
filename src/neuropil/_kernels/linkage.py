"""Union-find over edges in order of falling affinity: size-dependent merging, and the maximum spanning forest.

A root is the smallest id of its cluster, so relabelling by first id needs one sweep. Node 0 is
background: never merged.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from neuropil._kernels.uncounted import uncounted


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


@uncounted
def count_labels(labels, sizes):
    """Add the voxels of each label to its size; equal ones in a row are counted first, for no store waits for them."""
    last, run = np.int64(0), 0
    for i in range(labels.size):
        label = np.int64(labels[i])
        if label != last:
            sizes[last] += run
            last, run = label, 0
        run += 1
    sizes[last] += run


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
def link_part(edges, trees, groups, clusters, kept):
    """Merge as `link` does what a part can tell, and mark the edges that are kept for later.

    edges are u, v and limits; trees are parents of what any edges connect so far; groups, of clusters that are one by
    now for certain, are parents, voxels as far as they are known, and which are frozen; clusters are parents and sizes.
    """
    u, v, limits = edges
    parents, known, frozen = groups
    merged, sizes = clusters
    for i in range(kept.size):
        a = find(trees, u[i])
        b = find(trees, v[i])
        if a == b:  # earlier edges decide
            continue
        join(trees, a, b)
        a = find(parents, u[i])
        b = find(parents, v[i])
        if a == b or min(known[a], known[b]) >= limits[i]:
            continue
        free_a = not frozen[a] and known[a] < limits[i]
        free_b = not frozen[b] and known[b] < limits[i]
        if not free_a and not free_b:  # the small one may be larger than is known
            kept[i] = True
            continue
        x = find(merged, u[i])
        y = find(merged, v[i])
        if frozen[a] or frozen[b]:
            host, guest, size = (x, y, known[a]) if frozen[a] else (y, x, known[b])
            if size < limits[i]:  # how it grows decides more
                kept[i] = True
            else:
                merged[guest] = host
        else:
            total = sizes[x] + sizes[y]
            sizes[join(merged, x, y)] = total
        total = known[a] + known[b]
        held = frozen[a] or frozen[b]
        root = join(parents, a, b)
        known[root] = total
        frozen[root] = held


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


@njit(cache=True, nogil=True)
def spanning_part(u, v, frozen, parents, merged, state):
    """Take edges in order, as `spanning_forest` does, and write what a part can tell of each.

    state becomes 1 for an edge of the whole's forest, 2 for one between two trees with frozen nodes, which may be one,
    0 for others. merged joins what edges of state 1 join: trees with one frozen node at most.
    """
    for i in range(u.size):
        a = find(parents, u[i])
        b = find(parents, v[i])
        state[i] = 0
        if a == b:
            continue
        state[i] = 2 if frozen[a] and frozen[b] else 1
        if state[i] == 1:
            join(merged, find(merged, u[i]), find(merged, v[i]))
        held = frozen[a] or frozen[b]
        frozen[join(parents, a, b)] = held
