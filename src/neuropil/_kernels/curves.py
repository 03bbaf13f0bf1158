"""Loops of the one-pass merge-tree curve; called by `metrics.curves`, which explains the algorithm.

"Step" is the position of an edge in merge order; a pair that never joins has step `len(level)`.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _xlogx(x):
    return x * np.log2(x) if x > 0 else 0.0


@njit(cache=True, nogil=True)
def merge_fragments(u, v, level, sizes, n_levels):
    """Join fragments u[k], v[k] in order of k.

    Returns gains (2, n_levels): what each level adds to the sum of squared sizes and of size * log2(size);
    position: place of each fragment in an order where every cluster of every level is contiguous;
    parent, joined: union-find forest without path compression (depth ≤ log2 n) and the step at which a node was hung.
    """
    n = sizes.size
    gains = np.zeros((2, n_levels))
    parent = np.arange(n)
    joined = np.full(n, level.size)
    weight = np.ones(n, np.int64)
    total = sizes.copy()
    following = np.full(n, -1)
    tail = np.arange(n)
    for k in range(level.size):
        a, b = u[k], v[k]
        while parent[a] != a:
            a = parent[a]
        while parent[b] != b:
            b = parent[b]
        if a == b:
            continue
        if weight[a] < weight[b]:
            a, b = b, a
        gains[0, level[k]] += 2.0 * total[a] * total[b]
        gains[1, level[k]] += _xlogx(total[a] + total[b]) - _xlogx(total[a]) - _xlogx(total[b])
        parent[b] = a
        joined[b] = k
        weight[a] += weight[b]
        total[a] += total[b]
        following[tail[a]] = b  # a root heads its own list, so its cluster's list starts at the root
        tail[a] = tail[b]
    position = np.empty(n, np.int64)
    place = 0
    for root in range(n):
        if parent[root] == root:
            node = root
            while node >= 0:
                position[node] = place
                place += 1
                node = following[node]
    return gains, position, parent, joined


@njit(cache=True, nogil=True)
def meeting_steps(rows, columns, parent, joined, never):
    """Return for entries k and k + 1 the step at which their fragments meet; `never` if the columns differ."""
    steps = np.full(max(rows.size - 1, 0), never)
    for k in range(rows.size - 1):
        if columns[k] != columns[k + 1]:
            continue
        a, b = rows[k], rows[k + 1]
        step = -1
        while a != b and step < never:
            if joined[a] <= joined[b]:
                step = joined[a]
                a = parent[a]
            else:
                step = joined[b]
                b = parent[b]
        steps[k] = step
    return steps


@njit(cache=True, nogil=True)
def merge_entries(gaps, gap_levels, counts, n_levels):
    """Join entries k and k + 1 for each k of `gaps` at its level; return gains (2, n_levels) as `merge_fragments`."""
    gains = np.zeros((2, n_levels))
    parent = np.arange(counts.size)
    total = counts.copy()
    for i in range(gaps.size):
        a, b = gaps[i], gaps[i] + 1
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        level = gap_levels[i]
        gains[0, level] += 2.0 * total[a] * total[b]
        gains[1, level] += _xlogx(total[a] + total[b]) - _xlogx(total[a]) - _xlogx(total[b])
        parent[b] = a
        total[a] += total[b]
    return gains
