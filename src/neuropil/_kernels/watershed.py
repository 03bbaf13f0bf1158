"""Watershed on the grid graph: one byte of directions per voxel, and one array that is queue, then forest, then labels.

Direction k of a voxel is bit k: 0 -z, 1 -y, 2 -x, 3 +z, 4 +y, 5 +x; direction (k + 3) % 6 leads back. The queue of the
plateau division and the union-find forest of the basins never live at the same time, so both use the output array: the
whole transform costs 9 bytes per voxel beside its input.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_SEEN = np.uint8(0x40)
_LINKS = np.uint8(0x3F)


@njit(cache=True, nogil=True)
def _row_directions(z0, z1, y0, y1, x, low, high, out):
    """Write the bits of all steepest links of a row; x holds the links to the left, and one more at its end."""
    for i in range(out.size):
        a = min(z0[i], high)
        b = min(y0[i], high)
        c = min(x[i], high)
        d = min(z1[i], high)
        e = min(y1[i], high)
        f = min(x[i + 1], high)
        m = max(max(max(a, b), max(c, d)), max(e, f))
        bits = (
            np.uint8(a == m)
            | (np.uint8(b == m) << np.uint8(1))
            | (np.uint8(c == m) << np.uint8(2))
            | (np.uint8(d == m) << np.uint8(3))
            | (np.uint8(e == m) << np.uint8(4))
            | (np.uint8(f == m) << np.uint8(5))
        )
        out[i] = bits if m > low else np.uint8(0)


@njit(cache=True, nogil=True)
def directions(affinities, low, high, out):
    """Write, for each voxel, the bits of all links of the greatest affinity above low; from high on all are equal."""
    _, depth, height, width = affinities.shape
    none = np.full(width, low, affinities.dtype)  # no link: never above low
    row = np.full(width + 1, low, affinities.dtype)
    for z in range(depth):
        for y in range(height):
            row[1:width] = affinities[2, z, y, 1:]
            _row_directions(
                affinities[0, z, y] if z > 0 else none,
                affinities[0, z + 1, y] if z + 1 < depth else none,
                affinities[1, z, y] if y > 0 else none,
                affinities[1, z, y + 1] if y + 1 < height else none,
                row,
                low,
                high,
                out[z, y],
            )


@njit(cache=True, nogil=True)
def corners(bits, steps, order, latest, queue):
    """Queue plateau voxels with a way out in raster order; return their number. One way out is kept per voxel.

    Without `latest` that is the first in `order`. With it, voxels off plateaus keep the last one, and those on
    plateaus keep all, to be chosen from when they are taken from the queue.
    """
    count = 0
    for v in range(bits.size):
        links = bits[v] & _LINKS
        if links == 0:
            continue
        out = np.uint8(0)
        chosen = np.uint8(0)
        for i in range(6):
            k = order[i]
            bit = np.uint8(1 << k)
            if links & bit and not bits[v + steps[k]] & np.uint8(1 << ((k + 3) % 6)):
                out |= bit
                if latest or chosen == 0:
                    chosen = bit
        if out == 0:
            continue
        mutual = links & ~out
        if mutual:
            queue[count] = v
            count += 1
            bits[v] = (links if latest else mutual | chosen) | _SEEN
        else:
            bits[v] = chosen
    return count


@njit(cache=True, nogil=True)
def divide(bits, steps, order, queue, count):
    """Give each voxel of a plateau that has a way out to its nearest corner, breadth first from all corners at once."""
    head = 0
    while head < count:
        u = queue[head]
        head += 1
        for i in range(6):
            k = order[i]
            bit = np.uint8(1 << k)
            if not bits[u] & bit:
                continue
            v = u + steps[k]
            back = np.uint8(1 << ((k + 3) % 6))
            if not bits[v] & back:
                continue
            bits[u] &= ~bit
            if bits[v] & _SEEN:
                bits[v] &= ~back
            else:
                bits[v] |= _SEEN
                queue[count] = v
                count += 1


@njit(cache=True, nogil=True)
def divide_overwriting(bits, steps, order, queue, count):
    """Divide plateaus as `divide`, but a voxel taken from the queue keeps its last one-way direction only."""
    head = 0
    while head < count:
        u = queue[head]
        head += 1
        kept = np.uint8(0)
        for i in range(6):
            k = order[i]
            bit = np.uint8(1 << k)
            if not bits[u] & bit:
                continue
            v = u + steps[k]
            if not bits[v] & np.uint8(1 << ((k + 3) % 6)):
                kept = bit
            elif not bits[v] & _SEEN:
                bits[v] |= _SEEN
                queue[count] = v
                count += 1
        bits[u] = kept


@njit(cache=True, nogil=True, inline="always")
def _root(forest, v):
    while forest[v] != v:
        forest[v] = forest[forest[v]]
        v = forest[v]
    return v


@njit(cache=True, nogil=True)
def basins(bits, steps, forest):
    """Write the basin of each voxel, 1 ... n in raster order of their first voxels, 0 where no link is left; return n.

    A root is the first voxel of its tree, so a second sweep meets every root before its leaves.
    """
    for v in range(bits.size):
        forest[v] = v
    for v in range(bits.size):
        links = bits[v] & _LINKS
        for k in range(6):
            if links & np.uint8(1 << k):
                a = _root(forest, v)
                b = _root(forest, v + steps[k])
                if a < b:
                    forest[b] = a
                else:
                    forest[a] = b
    n = 0
    for v in range(bits.size):
        if bits[v] & _LINKS == 0:
            forest[v] = 0
        elif forest[v] == v:
            n += 1
            forest[v] = n
        else:
            forest[v] = forest[forest[v]]
    return n
