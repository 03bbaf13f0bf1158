"""Watershed on the grid graph: one byte of directions per voxel, and one array that is queue, then forest, then labels.

Direction k of a voxel is bit k: 0 -z, 1 -y, 2 -x, 3 +z, 4 +y, 5 +x; direction (k + 3) % 6 leads back. The queue of the
plateau division, the forest of the basins and the labels never live at the same time, so all use the output array: the
whole transform costs 9 bytes per voxel beside its input, or 5 where labels take four. Everything but the division of
plateaus works on slabs of sections, which threads may share: a slab is labelled as if nothing lay beyond it, and
`borders` says which of its labels go on in the next.

Key insight: most voxels have one link, which settles them at once; whole rows are tested for others by arithmetic on
words of eight bytes, several words in one instruction. Rows are copied into a frame of zeros for that, so that faces of
the volume need no thought. What cannot be foretold is chosen by arithmetic, not by branches.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from neuropil._kernels.linkage import find, join
from neuropil._kernels.uncounted import uncounted

_SEEN = np.uint8(0x40)
_LINKS = np.uint8(0x3F)
_ONE = np.uint8(1)

# The same in each byte of a word.
_EACH = np.uint64(0x0101010101010101)
_ALL = np.uint64(0x3F3F3F3F3F3F3F3F)
_HIGH = np.uint64(0x8080808080808080)
_MOST = np.uint64(0x7F7F7F7F7F7F7F7F)
_B0, _B1, _B2, _B3, _B4, _B5 = (np.uint64(k * 0x0101010101010101) for k in (1, 2, 4, 8, 16, 32))
_S1, _S2, _S3, _S4, _S7, _S8, _S56 = (np.uint64(k) for k in (1, 2, 3, 4, 7, 8, 56))
STRIP = 1 << 15  # voxels of a strip in a section
# Rows of a frame.
_HERE, _Z0, _Z1, _Y0, _Y1 = range(5)


@uncounted
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


@uncounted
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
def directions(affinities, low, high, first, last, checked, out):
    """Write, for the voxels of sections first ... last - 1, the bits of all links of the greatest affinity above low.

    From high on all affinities are equal. Returns whether all values lie in [0, 1], which is not looked at if checked.
    """
    _, depth, height, width = affinities.shape
    none = np.full(width, low, affinities.dtype)  # no link: never above low
    row = np.full(width + 1, low, affinities.dtype)
    good = True
    for z in range(first, last):
        for y in range(height):
            if not checked:
                for k in range(3):
                    good &= not outside_unit(affinities[k, z, y])
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
    return good


@uncounted
def _copy(bits, z, y, row):
    """Copy a row, 0 where it lies outside the volume; by a loop, since assigning slices takes longer."""
    depth, height, width = bits.shape
    if 0 <= z < depth and 0 <= y < height:
        source = bits[z, y]
        for x in range(width):
            row[8 + x] = source[x]
    else:
        row[:] = 0


@uncounted
def _fill_frame(bits, z, y, frame):
    """Copy a row and its neighbours into a frame."""
    rows = frame.view(np.uint8)
    for k, dz, dy in ((_HERE, 0, 0), (_Z0, -1, 0), (_Z1, 1, 0), (_Y0, 0, -1), (_Y1, 0, 1)):
        _copy(bits, z + dz, y + dy, rows[k])


@uncounted
def _several(links):
    """Return 255 in each byte that has several links, else 0."""
    more = links & ((links | _HIGH) - _EACH)
    marks = ((more + _MOST) & _HIGH) >> _S7
    return (marks << _S8) - marks


@uncounted
def _ways_out(here, z0, z1, y0, y1, ways):
    """Write the one-way links of those voxels of a row that have several links; return whether there are any."""
    found = np.uint64(0)
    for i in range(1, here.size - 1):
        links = here[i] & _ALL
        left = (here[i] << _S8) | (here[i - 1] >> _S56)
        right = (here[i] >> _S8) | (here[i + 1] << _S56)
        coming = (
            ((z0[i] >> _S3) & _B0)
            | ((y0[i] >> _S3) & _B1)
            | ((left >> _S3) & _B2)
            | ((z1[i] & _B0) << _S3)
            | ((y1[i] & _B1) << _S3)
            | ((right & _B2) << _S3)
        )
        out = links & ~coming & _several(links)
        ways[i] = out
        found |= out
    return found != 0


@njit(cache=True, nogil=True)
def corners(bits, order, latest, first, last, queue):
    """Queue plateau voxels with a way out, in raster order, from the place of the slab's first voxel on.

    Returns the end of the queue. One way out is kept per voxel: without `latest` the first in `order`. With it, voxels
    off plateaus keep the last one, and those on plateaus keep all, to be chosen from when they leave the queue.
    """
    _, height, width = bits.shape
    frame = np.zeros((5, width // 8 + 3), np.uint64)  # room for a row and its neighbours, amid zeros
    words = np.zeros(frame.shape[1], np.uint64)
    ways = words.view(np.uint8)[8:]
    count = first * height * width
    for z in range(first, last):
        for y in range(height):
            _fill_frame(bits, z, y, frame)
            if not _ways_out(frame[_HERE], frame[_Z0], frame[_Z1], frame[_Y0], frame[_Y1], words):
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


@uncounted
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


@uncounted
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


@uncounted
def _top(forest, entry):
    """Return the place of the root that an entry -(place + 1) leads to; a place with a label ends the way, too."""
    r = -entry - 1
    while forest[r] < 0 and forest[r] != -r - 1:
        up = -forest[r] - 1
        if forest[up] < 0:
            forest[r] = forest[up]
        r = up
    return r


@uncounted
def _merge(forest, v, w):
    a = _top(forest, forest[v])
    b = _top(forest, forest[w])
    if a < b:
        forest[b] = -a - 1
    elif b < a:
        forest[a] = -b - 1


@uncounted
def _next_steps(here, z0, y0, z1, y1, inside, steps):
    """Write, for each voxel of a row, the one direction in which its entry is found, 0 if it is a root.

    Voxels of plateaus look to those after them; 64 and 128 say that the links +y and +z join two parts, too, since the
    next voxel and the next row do not imply them. Only links of `inside` are followed.
    """
    mask = np.uint64(inside) * _EACH
    for i in range(1, here.size - 1):
        links = here[i] & mask
        left = (here[i] << _S8) | (here[i - 1] >> _S56)
        right = (here[i] >> _S8) | (here[i + 1] << _S56)
        x_1, y_1, z_1 = links & _B5, links & _B4, links & _B3
        no_y = y_1 & ~(x_1 >> _S1)
        no_z = z_1 & ~((x_1 >> _S2) | (y_1 >> _S1))
        via_x = right & (y1[i] >> _S1) & _B4
        join_y = (x_1 >> _S1) & y_1 & ~via_x
        via_x = right & (z1[i] >> _S2) & _B3
        via_y = y1[i] & (z1[i] >> _S1) & _B3
        join_z = z_1 & ~no_z & ~((via_x & (x_1 >> _S2)) | (via_y & (no_y >> _S1)))
        plateau = x_1 | no_y | no_z | (join_y << _S2) | (join_z << _S4)
        coming = ((z0[i] >> _S3) & _B0) | ((y0[i] >> _S3) & _B1) | ((left >> _S3) & _B2)
        several = _several(links)
        steps[i] = (plateau & several) | (links & ~coming & ~several)


@njit(cache=True, nogil=True)
def _grow_forest(bits, first, last, forest):
    """Write an entry -(place + 1) for each voxel of a slab with links, 0 for others, those after it first.

    That is done in strips of rows through all sections, so that two sections of a strip stay in cache.
    Places are counted from the slab's first voxel. An entry leads to a voxel of the same basin, a root's to itself.
    Links out of the slab, or of the array, are not followed; a voxel that has no others is a root, and so is one with a
    bit that is no link.
    """
    _, height, width = bits.shape
    ahead = np.zeros(256, np.int64)
    for links in range(1, 256):
        for k, step in enumerate((-height * width, -width, -1, height * width, width, 1)):
            if links >> k & 1:
                ahead[links] = step
    frame = np.zeros((5, width // 8 + 3), np.uint64)  # room for a row and its neighbours, amid zeros
    row = frame.view(np.uint8)[_HERE, 8 : 8 + width]
    words = np.zeros(frame.shape[1], np.uint64)
    steps = words.view(np.uint8)[8:]
    rows = max(8, STRIP // width)
    strips = (height + rows - 1) // rows
    for k in range(strips * (last - first) - 1, -1, -1):
        strip, z = k // (last - first), first + k % (last - first)
        mask = _LINKS & ~np.uint8(z == first) & ~np.uint8(np.uint8(z == last - 1) << np.uint8(3))
        for y in range(min(height, (strip + 1) * rows) - 1, strip * rows - 1, -1):
            _fill_frame(bits, z, y, frame)
            row[0] &= ~np.uint8(4)
            row[width - 1] &= ~np.uint8(32)
            inside = mask & ~np.uint8(np.uint8(y == 0) << _ONE) & ~np.uint8(np.uint8(y == height - 1) << np.uint8(4))
            _next_steps(frame[_HERE], frame[_Z0], frame[_Y0], frame[_Z1], frame[_Y1], inside, words)
            here, start = bits[z, y], ((z - first) * height + y) * width
            for x in range(width - 1, -1, -1):
                v = start + x
                step = steps[x]
                w = v + ahead[step & _LINKS]  # v itself where there is no step
                after = np.int64(forest[w])
                entry = after if w > v else -w - 1
                forest[v] = entry if here[x] else 0
                if step >= 64:
                    if step & np.uint8(64):
                        _merge(forest, v, v + width)
                    if step & np.uint8(128):
                        _merge(forest, v, v + height * width)


@njit(cache=True, nogil=True)
def basins(bits, first, last, labels):
    """Write the basin of each voxel of sections first ... last - 1, numbered by first voxels, 0 without links.

    Returns their number. The slab has less than 2**31 voxels, so that the entries of the forest, which become labels,
    take four bytes.
    """
    _grow_forest(bits, first, last, labels)
    n = 0
    for v in range(labels.size):
        entry = np.int64(labels[v])
        if entry >= 0:  # background, or a root that has its label
            continue
        label = np.int64(labels[-entry - 1])
        if label <= 0:
            label = _label_tree(labels, v, n + 1)
            n = max(n, label)
        labels[v] = label
    return n


@uncounted
def _label_tree(forest, v, new):
    """Return the label of a voxel's tree, a new one if it has none, and write it on the way to the root."""
    r = v
    while forest[r] < 0 and forest[r] != -r - 1:
        r = -np.int64(forest[r]) - 1
    label = np.int64(forest[r]) if forest[r] > 0 else new
    r = v
    while forest[r] < 0:
        up = -np.int64(forest[r]) - 1
        forest[r] = label
        r = up
    return label


@njit(cache=True, nogil=True)
def borders(bits, place, above, below, parents, before, here):
    """Join labels that links lead across the border in front of a slab's first voxel, `place`.

    above and below are the labels of the sections on either side; before and here are added to them.
    """
    for i in range(below.size):
        if bits[place + i] & np.uint8(1) or bits[place + i - below.size] & np.uint8(8):
            a = find(parents, above[i] + before)
            b = find(parents, below[i] + here)
            if a != b:
                join(parents, a, b)


@uncounted
def widen(labels, out):
    """Copy labels from the first one on, so that they may lie in the second half of what is written."""
    for v in range(out.size):
        out[v] = labels[v]


@uncounted
def renumber(labels, lookup, out):
    """Write what the lookup says of labels, in the order of `widen`."""
    for v in range(out.size):
        out[v] = lookup[np.uint32(labels[v])]
