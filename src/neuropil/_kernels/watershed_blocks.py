"""Plateaus that a block shares with its neighbours: found by flooding from its faces, divided as lists of voxels.

Bits are those of `neuropil._kernels.watershed`. A plateau of the greatest affinity has no way out, so it is never
divided, however far it reaches; all others are as small as chance makes them.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_SEEN = np.uint8(0x40)


@njit(cache=True, nogil=True)
def _neighbour(z, y, x, k):
    step = -1 if k < 3 else 1
    return (z + step, y, x) if k % 3 == 0 else (z, y + step, x) if k % 3 == 1 else (z, y, x + step)


@njit(cache=True, nogil=True)
def _mutual(bits, z, y, x, k):
    """Tell whether link k of a voxel comes back; False where it leaves the array or is not there."""
    if not bits[z, y, x] & np.uint8(1 << k):
        return False
    a, b, c = _neighbour(z, y, x, k)
    if min(a, b, c) < 0 or a >= bits.shape[0] or b >= bits.shape[1] or c >= bits.shape[2]:
        return False
    return bits[a, b, c] & np.uint8(1 << ((k + 3) % 6)) != 0


@njit(cache=True, nogil=True)
def _inside(start, stop, place):
    a, b, c = place
    return start[0] <= a < stop[0] and start[1] <= b < stop[1] and start[2] <= c < stop[2]


@njit(cache=True, nogil=True)
def _crosses(bits, start, stop, z, y, x):
    """Tell whether a mutual link of a voxel leads out of the box."""
    crosses = False
    for k in range(6):
        crosses |= _mutual(bits, z, y, x, k) and not _inside(start, stop, _neighbour(z, y, x, k))
    return crosses


@njit(cache=True, nogil=True)
def _flood(bits, start, stop, place, stack, marks):
    """Mark the part of a voxel's plateau that lies in a box; return the stack, perhaps a longer one."""
    height, width = bits.shape[1], bits.shape[2]
    marks[place] = True
    stack[0] = (place[0] * height + place[1]) * width + place[2]
    n = 1
    while n > 0:
        n -= 1
        x, rest = stack[n] % width, stack[n] // width
        y, z = rest % height, rest // height
        if n + 6 > stack.size:
            stack = np.concatenate((stack, stack))
        for k in range(6):
            there = _neighbour(z, y, x, k)
            if _mutual(bits, z, y, x, k) and _inside(start, stop, there) and not marks[there]:
                marks[there] = True
                stack[n] = (there[0] * height + there[1]) * width + there[2]
                n += 1
    return stack


@njit(cache=True, nogil=True)
def _at_top(affinities, z, y, x, greatest):
    """Tell whether a voxel has a link of at least an affinity."""
    _, depth, height, width = affinities.shape
    top = affinities[0, z, y, x] >= greatest and z > 0
    top |= affinities[1, z, y, x] >= greatest and y > 0
    top |= affinities[2, z, y, x] >= greatest and x > 0
    top |= z + 1 < depth and affinities[0, z + 1, y, x] >= greatest
    top |= y + 1 < height and affinities[1, z, y + 1, x] >= greatest
    return top | (x + 1 < width and affinities[2, z, y, x + 1] >= greatest)


@njit(cache=True, nogil=True)
def mark_shared(bits, known, start, stop, marks):
    """Mark the voxels of a box on plateaus that go on outside it, but for those of the greatest affinity.

    known is the affinities, where in them bits begin, and the greatest affinity there can be. marks, bool, False
    before, has the shape of bits.
    """
    affinities, corner, greatest = known
    stack = np.empty(1024, np.int64)
    for z in range(start[0], stop[0]):
        for y in range(start[1], stop[1]):
            edge = z == start[0] or z == stop[0] - 1 or y == start[1] or y == stop[1] - 1
            for x in range(start[2], stop[2]):
                if not edge and start[2] < x < stop[2] - 1:
                    continue
                if marks[z, y, x] or not _crosses(bits, start, stop, z, y, x):
                    continue
                if not _at_top(affinities, z + corner[0], y + corner[1], x + corner[2], greatest):
                    stack = _flood(bits, start, stop, (z, y, x), stack, marks)


@njit(cache=True, nogil=True, inline="always")
def _listed(places, there):
    """Return where a place is listed, -1 if it is not."""
    at = np.searchsorted(places, there)
    return at if at < places.size and places[at] == there else -1


@njit(cache=True, nogil=True)
def _leads_out(place, bits, shape, start, stop):
    x, rest = place % shape[2], place // shape[2]
    y, z = rest % shape[1], rest // shape[1]
    out = False
    for k in range(6):
        out |= bits & np.uint8(1 << k) != 0 and not _inside(start, stop, _neighbour(z, y, x, k))
    return out


@njit(cache=True, nogil=True)
def mark_open(places, bits, shape, steps, box, marks):
    """Mark the listed voxels of plateaus with a link out of the box (start, stop); marks, bool, is False before."""
    stack = np.empty(places.size, np.int64)
    for i in range(places.size):
        if marks[i] or not _leads_out(places[i], bits[i], shape, box[0], box[1]):
            continue
        marks[i] = True
        stack[0] = i
        n = 1
        while n > 0:
            n -= 1
            u = stack[n]
            for k in range(6):
                if not bits[u] & np.uint8(1 << k):
                    continue
                v = _listed(places, places[u] + steps[k])
                if v >= 0 and not marks[v] and bits[v] & np.uint8(1 << ((k + 3) % 6)):
                    marks[v] = True
                    stack[n] = v
                    n += 1


@njit(cache=True, nogil=True)
def divide_list(places, bits, steps, order):
    """Divide plateaus as `neuropil._kernels.watershed.divide` does; places, ascending, are those of their voxels."""
    queue = np.empty(places.size, np.int64)
    count = 0
    for i in range(places.size):
        if bits[i] & _SEEN:
            queue[count] = i
            count += 1
    head = 0
    while head < count:
        u = queue[head]
        head += 1
        for i in range(6):
            k = order[i]
            bit = np.uint8(1 << k)
            if not bits[u] & bit:
                continue
            v = _listed(places, places[u] + steps[k])
            back = np.uint8(1 << ((k + 3) % 6))
            if v < 0 or not bits[v] & back:
                continue
            bits[u] &= ~bit
            if bits[v] & _SEEN:
                bits[v] &= ~back
            else:
                bits[v] |= _SEEN
                queue[count] = v
                count += 1


@njit(cache=True, nogil=True)
def first_places(labels):
    """Return where each of the labels 1 ... n, which begin in this order, occurs first."""
    n = np.uint64(0)
    for v in range(labels.size):
        n = max(n, labels[v])
    places = np.empty(np.int64(n), np.int64)
    n = np.uint64(0)
    for v in range(labels.size):
        if labels[v] > n:
            places[np.int64(n)] = v
            n = labels[v]
    return places
