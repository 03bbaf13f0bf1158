"""Paths along the middle of an object: cheapest ways from a root, and what a path covers.

An object is a list of voxels with a bit for each of their 26 neighbours that is of the object too; everything below
walks over such a graph, so that time and memory follow the object and not its box. Key insight: costs of ways only
grow, so the queue can be a radix heap (Ahuja et al. 1990, doi:10.1145/77600.77615). Its bucket b holds the keys whose
highest bit that differs from the last key taken is bit b, and floats >= 0 sort like their bits: nothing is compared or
quantised, however many orders of magnitude costs span.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit


class Graph(NamedTuple):
    """The voxels of one object and their neighbours.

    Attributes
    ----------
    voxels : (n,) int64, flat places in the volume
    bits : (n,) uint32, bit k set where the neighbour `steps[k]` farther is of the object
    rank : (volume,) uint32, for each voxel of the volume its position among those of its object
    steps, lengths : (26,) int64 and float64, to the neighbours: in places and in nm
    """

    voxels: np.ndarray
    bits: np.ndarray
    rank: np.ndarray
    steps: np.ndarray
    lengths: np.ndarray


@njit(cache=True, nogil=True)
def sort_voxels(codes, starts, order, rank):
    """Write the places of each code's voxels side by side, and each voxel's position among them; 0 is left out."""
    filled = np.zeros(starts.size, np.int64)
    for i in range(codes.size):
        code = codes[i]
        if code != 0:
            order[starts[code] + filled[code]] = i
            rank[i] = filled[code]
            filled[code] += 1


@njit(cache=True, nogil=True)
def find_neighbours(codes, voxels, moves, bits):
    """Set for each voxel the bits of its neighbours with the same code; moves are the 26 steps (z, y, x)."""
    depth, height, width = codes.shape
    for k in range(voxels.size):
        z = voxels[k] // (height * width)
        y = voxels[k] // width - z * height
        x = voxels[k] - (z * height + y) * width
        code = codes[z, y, x]
        found = np.uint32(0)
        for m in range(26):
            a, b, c = z + moves[m, 0], y + moves[m, 1], x + moves[m, 2]
            inside = 0 <= a < depth and 0 <= b < height and 0 <= c < width
            if inside and codes[a, b, c] == code:
                found |= np.uint32(1) << np.uint32(m)
        bits[k] = found


@njit(cache=True, nogil=True)
def _flood(graph, seed, far, order):
    """Write the voxels of the piece that seed is in, in the order of a breadth-first walk, and how long it was to each.

    Returns their number. far is nearly the distance from seed: enough to find an end of the piece.
    """
    order[0], far[seed] = seed, 0.0
    done, found = 0, 1
    while done < found:
        u = order[done]
        done += 1
        for m in range(26):
            if (graph.bits[u] >> np.uint32(m)) & np.uint32(1):
                v = np.int64(graph.rank[graph.voxels[u] + graph.steps[m]])
                if far[v] == np.inf:
                    far[v] = far[u] + graph.lengths[m]
                    order[found] = v
                    found += 1
    return found


@njit(cache=True, nogil=True)
def _bucket(key, last):
    """Return the number of bits up to the highest in which two keys differ, 0 for none."""
    x = key ^ last
    found = 0
    shift = 32
    while shift > 0:
        if x >> np.uint64(shift):
            x >>= np.uint64(shift)
            found += shift
        shift >>= 1
    return found + np.int64(x)


@njit(cache=True, nogil=True)
def _put(queue, heads, bucket, v):
    """Put v in front of a bucket; queue has the voxels before and after each in its bucket, -1 none, -2 not queued."""
    queue[0, v], queue[1, v] = -1, heads[bucket]
    if heads[bucket] >= 0:
        queue[0, heads[bucket]] = v
    heads[bucket] = v


@njit(cache=True, nogil=True)
def _take(queue, heads, bucket, v):
    before, after = queue[0, v], queue[1, v]
    if before >= 0:
        queue[1, before] = after
    else:
        heads[bucket] = after
    if after >= 0:
        queue[0, after] = before
    queue[0, v] = -2


@njit(cache=True, nogil=True)
def _spill(queue, heads, keys, last):
    """Move the voxels of the lowest bucket that has any to those below it; return their least key, the new last."""
    b = 0
    while heads[b] < 0:
        b += 1
    if b == 0:
        return last
    v = heads[b]
    last = keys[v]
    while v >= 0:
        last = min(last, keys[v])
        v = queue[1, v]
    v = heads[b]
    heads[b] = -1
    while v >= 0:
        after = queue[1, v]
        _put(queue, heads, _bucket(keys[v], last), v)
        v = after
    return last


@njit(cache=True, nogil=True)
def cheapest(graph, costs, seeds, limit, keys, work):
    """Lower keys, from those that seeds have, to the least sum of length * mean cost along a way, within the limit.

    work is (toward, queue, order): the voxel before each on its way, room for the queue, the voxels in the order in
    which they were reached. Returns how many were.
    """
    toward, queue, order = work
    heads = np.full(65, -1, np.int32)
    bits = keys.view(np.uint64)
    last = np.uint64(0)
    for v in seeds:
        _put(queue, heads, _bucket(bits[v], last), v)
    waiting, reached = seeds.size, 0
    while waiting > 0:
        last = _spill(queue, heads, bits, last)
        u = heads[0]
        _take(queue, heads, 0, u)
        order[reached] = u
        reached += 1
        waiting -= 1
        near = graph.bits[u]
        for m in range(26):
            if not (near >> np.uint32(m)) & np.uint32(1):
                continue
            v = np.int64(graph.rank[graph.voxels[u] + graph.steps[m]])
            key = keys[u] + graph.lengths[m] * (costs[u] + costs[v]) / 2
            if key > limit or key >= keys[v]:
                continue
            old = -1 if queue[0, v] == -2 else _bucket(bits[v], last)
            keys[v], toward[v] = key, u
            new = _bucket(bits[v], last)
            if old < 0:
                waiting += 1
                _put(queue, heads, new, v)
            elif old != new:
                _take(queue, heads, old, v)
                _put(queue, heads, new, v)
    return reached


@njit(cache=True, nogil=True)
def _walk(target, toward, place, skeleton, used):
    """Add the way from target to the skeleton, beginning where it meets it; return the number of vertices."""
    count = 0
    v = target
    while place[v] < 0:
        v = toward[v]
        count += 1
    above = place[v]
    v = target
    for k in range(used + count - 1, used - 1, -1):
        skeleton[0, k], skeleton[1, k], place[v] = v, k - 1, k
        v = toward[v]
    skeleton[1, used] = above
    return used + count


@njit(cache=True, nogil=True)
def trace(graph, radii, costs, reaches, dust, soma_radius):
    """Return the skeleton's voxels and, for each, the position of its parent before it, -1 for a root: (2, vertices).

    reaches is how far a path covers the object around each voxel; pieces smaller than dust are left out.
    """
    n = graph.voxels.size
    even = np.ones(n)
    far, expense = np.full(n, np.inf), np.full(n, np.inf)
    work = np.empty(n, np.int32), np.full((2, n), -2, np.int32), np.empty(n, np.int32)
    order, inward = work[2], (np.empty(n, np.int32), work[1], work[2])
    place, skeleton, used = np.full(n, -1, np.int32), np.empty((2, n), np.int64), 0
    covered = np.full(n, np.inf), reaches.max()
    for seed in range(n):
        if far[seed] < np.inf:
            continue
        count = _flood(graph, seed, far, order)
        if count < dust:
            continue
        members = order[:count].copy()
        root = members[np.argmax(radii[members])]
        if radii[root] < soma_radius:
            root = members[np.argmax(far[members])]
        far[members] = np.inf
        far[root], expense[root] = 0.0, 0.0
        cheapest(graph, even, np.array([root]), np.inf, far, work)
        members[:] = order[:count]
        cheapest(graph, costs, np.array([root]), np.inf, expense, inward)
        skeleton[0, used], skeleton[1, used], place[root] = root, -1, used
        start, used = used, used + 1
        _cover(graph, even, skeleton[0, start:used], reaches, covered, work)
        for k in range(count - 1, -1, -1):
            if covered[0][members[k]] == np.inf:
                start, used = used, _walk(members[k], inward[0], place, skeleton, used)
                _cover(graph, even, skeleton[0, start:used], reaches, covered, work)
    return skeleton[:, :used]


@njit(cache=True, nogil=True)
def _cover(graph, even, path, reaches, covered, work):
    """Lower covered, which is finite where something is covered, to the greatest reach less what is left of it."""
    keys, most = covered
    entry = most - reaches[path]
    seeds = path[entry < keys[path]]
    keys[seeds] = most - reaches[seeds]
    cheapest(graph, even, seeds, most, keys, work)
