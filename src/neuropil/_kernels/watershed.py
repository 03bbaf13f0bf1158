"""Watershed on the grid graph: one byte of directions per voxel, and one array that is queue, then forest, then labels.

Direction k of a voxel is bit k: 0 -z, 1 -y, 2 -x, 3 +z, 4 +y, 5 +x; direction (k + 3) % 6 leads back. The queue of the
plateau division and the forest of the basins never live at the same time, so both use the output array: the whole
transform costs 9 bytes per voxel beside its input. Everything but the division of plateaus works on slabs of sections,
which threads may share: a slab is labelled as if nothing lay beyond it, and `borders` says which of its labels go on in
the next.

Key insight: most voxels have one link, which settles them at once; whole rows are tested for others by arithmetic on
bytes, eight and more voxels in one instruction.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from neuropil._kernels.linkage import find, join

_SEEN = np.uint8(0x40)
_LINKS = np.uint8(0x3F)
_ONE = np.uint8(1)


@njit(cache=True, nogil=True)
def outside_unit(values):
    """Return whether any value lies outside [0, 1] or is NaN."""
    for start in range(0, values.size, 4096):
        part = values[start : start + 4096]
        good = np.int32(0)
        for i in range(part.size):
            good += np.int32((part[i] >= 0) & (part[i] <= 1))
        if good != part.size:
            return True
    return False


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
def directions(affinities, low, high, first, last, out):
    """Write, for the voxels of sections first ... last - 1, the bits of all links of the greatest affinity above low.

    From high on all affinities are equal.
    """
    _, depth, height, width = affinities.shape
    none = np.full(width, low, affinities.dtype)  # no link: never above low
    row = np.full(width + 1, low, affinities.dtype)
    for z in range(first, last):
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
def _ways_out(z0, z1, y0, y1, x, ways):
    """Write the one-way links of those voxels of a row that have several links; return whether there are any.

    x holds the row itself, with one more voxel at either end.
    """
    found = np.uint8(0)
    for i in range(ways.size):
        links = x[i + 1] & _LINKS
        coming = (
            ((z0[i] >> np.uint8(3)) & _ONE)
            | ((y0[i] >> np.uint8(3)) & np.uint8(2))
            | ((x[i] >> np.uint8(3)) & np.uint8(4))
            | ((z1[i] & _ONE) << np.uint8(3))
            | ((y1[i] & np.uint8(2)) << np.uint8(3))
            | ((x[i + 2] & np.uint8(4)) << np.uint8(3))
        )
        several = np.uint8(0) if links & np.uint8(links - _ONE) == 0 else np.uint8(255)
        ways[i] = links & ~coming & several
        found |= ways[i]
    return found != 0


@njit(cache=True, nogil=True)
def corners(bits, order, latest, first, last, queue):
    """Queue plateau voxels with a way out, in raster order, from the place of the slab's first voxel on.

    Returns the end of the queue. One way out is kept per voxel: without `latest` the first in `order`. With it, voxels
    off plateaus keep the last one, and those on plateaus keep all, to be chosen from when they leave the queue.
    """
    depth, height, width = bits.shape
    none = np.zeros(width, np.uint8)
    row = np.zeros(width + 2, np.uint8)
    ways = np.empty(width, np.uint8)
    count = first * height * width
    for z in range(first, last):
        for y in range(height):
            row[1 : width + 1] = bits[z, y]
            z0 = bits[z - 1, y] if z > 0 else none
            z1 = bits[z + 1, y] if z + 1 < depth else none
            y0 = bits[z, y - 1] if y > 0 else none
            y1 = bits[z, y + 1] if y + 1 < height else none
            if not _ways_out(z0, z1, y0, y1, row, ways):
                continue
            for x in range(width):
                if ways[x] == 0:
                    continue
                chosen = np.uint8(0)
                for i in range(6):
                    bit = np.uint8(1 << order[i])
                    if ways[x] & bit and (latest or chosen == 0):
                        chosen = bit
                links = bits[z, y, x] & _LINKS
                mutual = links & ~ways[x]
                if mutual:
                    queue[count] = (z * height + y) * width + x
                    count += 1
                    bits[z, y, x] = (links if latest else mutual | chosen) | _SEEN
                else:
                    bits[z, y, x] = chosen
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
def _top(forest, entry):
    """Return the place of the root that an entry -(place + 1) leads to; a place with a label ends the way, too."""
    r = -entry - 1
    while forest[r] < 0 and forest[r] != -r - 1:
        up = -forest[r] - 1
        if forest[up] < 0:
            forest[r] = forest[up]
        r = up
    return r


@njit(cache=True, nogil=True)
def _merge(forest, v, w):
    a = _top(forest, forest[v])
    b = _top(forest, forest[w])
    if a < b:
        forest[b] = -a - 1
    elif b < a:
        forest[a] = -b - 1


@njit(cache=True, nogil=True)
def _next_steps(z0, z1, y0, y1, x, mask, steps):
    """Write, for each voxel of a row, the one direction in which its entry is found, 0 if it is a root.

    Voxels of plateaus look to those after them; 64 and 128 say that the links +y and +z join two parts, too, since the
    next voxel and the next row do not imply them. x holds the row itself, with one more voxel at either end.
    """
    for i in range(steps.size):
        links = x[i + 1] & mask
        right, lower, behind = x[i + 2], y1[i], z1[i]
        x1 = links & np.uint8(32)
        y_1 = links & np.uint8(16)
        z_1 = links & np.uint8(8)
        no_y = y_1 & ~np.uint8(x1 >> _ONE)
        no_z = z_1 & ~np.uint8((x1 >> np.uint8(2)) | (y_1 >> _ONE))
        via_x = right & np.uint8(lower >> _ONE) & np.uint8(16)
        join_y = np.uint8(x1 >> _ONE) & y_1 & ~via_x
        via_x = right & np.uint8(behind >> np.uint8(2)) & np.uint8(8)
        via_y = lower & np.uint8(behind >> _ONE) & np.uint8(8)
        join_z = z_1 & ~no_z & ~np.uint8((via_x & np.uint8(x1 >> np.uint8(2))) | (via_y & np.uint8(no_y >> _ONE)))
        plateau = x1 | no_y | no_z | np.uint8(join_y << np.uint8(2)) | np.uint8(join_z << np.uint8(4))
        coming = (
            ((z0[i] >> np.uint8(3)) & _ONE)
            | ((y0[i] >> np.uint8(3)) & np.uint8(2))
            | ((x[i] >> np.uint8(3)) & np.uint8(4))
        )
        steps[i] = (links & ~coming) if links & np.uint8(links - _ONE) == 0 else plateau


@njit(cache=True, nogil=True)
def _grow_forest(bits, first, last, forest):
    """Write an entry -(place + 1) for each voxel with links, 0 for others, from the last voxel to the first.

    An entry leads to a voxel of the same basin, a root's to itself. Links out of the slab, or of the array, are not
    followed; a voxel that has no others is a root, and so is one with a bit that is no link.
    """
    depth, height, width = bits.shape
    ahead = np.zeros(256, np.int64)
    for links in range(1, 256):
        for k, step in enumerate((-height * width, -width, -1, height * width, width, 1)):
            if links >> k & 1:
                ahead[links] = step
    none = np.zeros(width, np.uint8)
    row, steps = np.zeros(width + 2, np.uint8), np.empty(width, np.uint8)
    for z in range(last - 1, first - 1, -1):
        mask = _LINKS & ~np.uint8(z == first) & ~np.uint8(np.uint8(z == last - 1) << np.uint8(3))
        for y in range(height - 1, -1, -1):
            row[1 : width + 1] = bits[z, y]
            row[1] &= ~np.uint8(4)
            row[width] &= ~np.uint8(32)
            z0 = bits[z - 1, y] if z > 0 else none
            z1 = bits[z + 1, y] if z + 1 < depth else none
            y0 = bits[z, y - 1] if y > 0 else none
            y1 = bits[z, y + 1] if y + 1 < height else none
            inside = mask & ~np.uint8(np.uint8(y == 0) << _ONE) & ~np.uint8(np.uint8(y == height - 1) << np.uint8(4))
            _next_steps(z0, z1, y0, y1, row, inside, steps)
            for x in range(width - 1, -1, -1):
                v = (z * height + y) * width + x
                step = steps[x]
                if step == 0:
                    forest[v] = -v - 1 if bits[z, y, x] else 0
                    continue
                w = v + ahead[step & _LINKS]
                forest[v] = forest[w] if w > v else -w - 1
                if step & np.uint8(64):
                    _merge(forest, v, v + width)
                if step & np.uint8(128):
                    _merge(forest, v, v + height * width)


@njit(cache=True, nogil=True)
def basins(bits, first, last, forest):
    """Write the basin of each voxel of sections first ... last - 1, numbered by first voxels, 0 without links.

    Returns their number.
    """
    _grow_forest(bits, first, last, forest)
    section = bits.shape[1] * bits.shape[2]
    n = 0
    for v in range(first * section, last * section):
        if forest[v] >= 0:
            continue
        label = forest[-forest[v] - 1]
        if label > 0:
            forest[v] = label
            continue
        r = -forest[v] - 1
        while forest[r] < 0 and forest[r] != -r - 1:
            r = -forest[r] - 1
        if forest[r] < 0:
            n += 1
            forest[r] = n
        label = forest[r]
        r = v
        while forest[r] < 0:
            up = -forest[r] - 1
            forest[r] = label
            r = up
    return n


@njit(cache=True, nogil=True)
def borders(bits, labels, parents, place, height, before, here):
    """Join labels that links lead across the border in front of a slab's first voxel, `place`.

    height is the number of voxels of a section; before and here are added to the labels on either side.
    """
    for v in range(place, place + height):
        if bits[v] & np.uint8(1) or bits[v - height] & np.uint8(8):
            a = find(parents, labels[v - height] + before)
            b = find(parents, labels[v] + here)
            if a != b:
                join(parents, a, b)


@njit(cache=True, nogil=True)
def renumber(labels, first, last, here, lookup):
    """Replace the labels of a slab, of which `here` other labels come first, by those of the lookup; 0 stays."""
    for v in range(first, last):
        if labels[v] != 0:
            labels[v] = lookup[labels[v] + here]
