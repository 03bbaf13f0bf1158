"""Loops over a rooted forest of fragments: parents in breadth-first order, and what crosses each of its edges."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def root(starts, neighbours, parents, depths, order, roots):
    """Fill parents (-1 at roots), depths, breadth-first order and roots of nodes 0 ... n - 1 of adjacency lists."""
    n, filled = parents.size, 0
    depths[:] = -1
    for first in range(n):
        if depths[first] >= 0:
            continue
        parents[first], depths[first], roots[first] = -1, 0, first
        order[filled] = first
        head = filled
        filled += 1
        while head < filled:
            node = order[head]
            head += 1
            for k in range(starts[node], starts[node + 1]):
                other = neighbours[k]
                if depths[other] < 0:
                    parents[other], depths[other], roots[other] = node, depths[node] + 1, first
                    order[filled] = other
                    filled += 1


@njit(cache=True, nogil=True)
def add_crossings(u, v, amounts, parents, depths, sums):
    """Add the amounts (m, k) of pairs of one tree to both ends, and take them twice from where their ways meet.

    Summed over the nodes below an edge of the tree, that leaves what the pairs have that lie on either side of it.
    """
    for i in range(u.size):
        a, b = u[i], v[i]
        for k in range(amounts.shape[1]):
            sums[a, k] += amounts[i, k]
            sums[b, k] += amounts[i, k]
        while a != b:
            if depths[a] >= depths[b]:
                a = parents[a]
            else:
                b = parents[b]
        for k in range(amounts.shape[1]):
            sums[a, k] -= 2 * amounts[i, k]


@njit(cache=True, nogil=True)
def sum_below(order, parents, sums):
    """Add to every node what is below it."""
    for i in range(order.size - 1, -1, -1):
        node = order[i]
        parent = parents[node]
        if parent >= 0:
            for k in range(sums.shape[1]):
                sums[parent, k] += sums[node, k]


@njit(cache=True, nogil=True)
def number(order, parents, counts, starts):
    """Number nodes so that those below a node follow it: it has starts[node], those below the next counts - 1."""
    free, total = np.empty(starts.size, np.int64), 0
    for i in range(order.size):
        node = order[i]
        parent = parents[node]
        if parent < 0:
            starts[node] = total
            total += counts[node]
        else:
            starts[node] = free[parent]
            free[parent] += counts[node]
        free[node] = starts[node] + 1


@njit(cache=True, nogil=True)
def gather_places(labels, axis, keys, sums, counts):
    """Add up where labels (z, y, x) differ from those one voxel further along an axis, and neither is 0.

    For the position of a pair in `keys` (ascending, smaller id << 32 | larger id): places z, y, x of the links into
    `sums` (m, 3), and their number, also those along z alone, into `counts` (m, 2).
    """
    dz, dy, dx = int(axis == 0), int(axis == 1), int(axis == 2)
    for z in range(labels.shape[0] - dz):
        for y in range(labels.shape[1] - dy):
            last, at = np.uint64(0), 0
            for x in range(labels.shape[2] - dx):
                a, b = labels[z, y, x], labels[z + dz, y + dy, x + dx]
                if a == b or a == 0 or b == 0:
                    continue
                low, high = min(a, b), max(a, b)
                key = (low << np.uint64(32)) | high
                if key != last:
                    last, at = key, np.searchsorted(keys, key)
                sums[at, 0] += z
                sums[at, 1] += y
                sums[at, 2] += x
                counts[at, 0] += 1
                counts[at, 1] += dz


@njit(cache=True, nogil=True)
def nearest_link(labels, u, v, box, middle, scale):
    """Return the voxel of label u in a box z0, z1, y0, y1, x0, x1 that is next to v and nearest to a place; or -1s."""
    best, found = np.inf, (-1, -1, -1)
    for z in range(box[0], box[1]):
        for y in range(box[2], box[3]):
            for x in range(box[4], box[5]):
                if labels[z, y, x] != u:
                    continue
                touches = False
                for axis in range(3):
                    for step in (-1, 1):
                        k = z + step * (axis == 0), y + step * (axis == 1), x + step * (axis == 2)
                        inside = (
                            0 <= k[0] < labels.shape[0] and 0 <= k[1] < labels.shape[1] and 0 <= k[2] < labels.shape[2]
                        )
                        touches = touches or (inside and labels[k] == v)
                if touches:
                    away = (
                        ((z - middle[0]) * scale[0]) ** 2
                        + ((y - middle[1]) * scale[1]) ** 2
                        + ((x - middle[2]) * scale[2]) ** 2
                    )
                    if away < best:
                        best, found = away, (z, y, x)
    return found
