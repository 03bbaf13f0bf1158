"""Mutex watershed: links in order of falling weight join clusters or forbid that they ever be joined.

Clusters are trees of voxels. A hash table of pairs of roots says which may not be joined, and each root has a chain of
blocks that names its partners. When two clusters join, the partners of the one with fewer are entered for the other's
root; pairs with a root that is gone are never asked for again, so nothing is deleted until the table is full.

Key insight: most links need not be sorted. A voxel whose strongest link attracts joins along it whatever else is
decided. Then links are gathered in batches of falling weight, in raster order, and those whose ends are in one cluster
by then, or in two that may not be joined, are left out. What remains waits for memory, so look-ups are made for many at
a time, first without a branch: then one need not wait for another.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from neuropil._kernels.prefetch import prefetch

_S32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_K = np.uint64(0x9E3779B97F4A7C15)
_AT_ONCE = 512
_IN_BLOCK = 7  # partners in a block of eight numbers; the last is the next block


@njit(cache=True, nogil=True, inline="always")
def _root(forest, v):
    while forest[v] != v:
        forest[v] = forest[forest[v]]
        v = np.int64(forest[v])
    return v


@njit(cache=True, nogil=True, inline="always")
def _key(a, b):
    """Return the name of a pair of roots, not 0."""
    return (np.uint64(min(a, b) + 1) << _S32) | np.uint64(max(a, b) + 1)


@njit(cache=True, nogil=True, inline="always")
def _first_place(table, key):
    return np.int64((((key * _K) >> _S32) * np.uint64(table.size)) >> _S32)


@njit(cache=True, nogil=True, inline="always")
def _place(table, key):
    """Return where the key is in the table, or the empty place for it."""
    p = _first_place(table, key)
    while table[p] != 0 and table[p] != key:
        p = p + 1 if p + 1 < table.size else 0
    return p


@njit(cache=True, nogil=True)
def _roots(forest, voxels):
    """Replace voxels by their roots; the first steps of all are taken together."""
    for _ in range(3):
        for i in range(voxels.size):
            voxels[i] = forest[voxels[i]]
    for i in range(voxels.size):
        voxels[i] = _root(forest, voxels[i])


@njit(cache=True, nogil=True)
def _places(table, keys, places):
    """Write where keys are in the table, or the empty places for them."""
    for i in range(keys.size):
        prefetch(table, _first_place(table, keys[i]))
    for i in range(keys.size):
        places[i] = _place(table, keys[i])


@njit(cache=True, nogil=True)
def flatten(forest):
    """Let every voxel point to its root."""
    for v in range(forest.size):
        forest[v] = _root(forest, np.int64(v))


@njit(cache=True, nogil=True)
def _weights(links, repels, top, row):
    """Write the weights of a row, unsigned numbers that sort like them: bytes, or the bits of float32 >= 0."""
    for x in range(links.size):
        weight = (top - links[x]) if repels else links[x]
        row[x] = np.uint32(np.float32(weight).view(np.uint32))


@njit(cache=True, nogil=True)
def histogram(links, repels, top, shift, counts):
    """Count the weights of one channel by their leading bits."""
    depth, height, width = links.shape
    row = np.empty(width, np.uint32)
    for z in range(depth):
        for y in range(height):
            _weights(links[z, y], repels, top, row)
            for x in range(width):
                counts[np.int64(row[x] >> shift)] += 1


@njit(cache=True, nogil=True)
def _entry(weight, link):
    """Return the entry of a link: greater weights, then smaller links (channel * size + voxel), come first."""
    return ((_LOW - np.uint64(weight)) << _S32) | np.uint64(link)


@njit(cache=True, nogil=True)
def _in_range(row, first, last, low, high, hits):
    """List the places of the weights low ... high - 1 in a part of a row; return their number."""
    n = 0
    span = np.uint32(high - low)
    for x in range(first, last):
        hits[n] = x
        n += 1 if np.uint32(row[x] - low) < span else 0
    return n


@njit(cache=True, nogil=True)
def strongest(channel, least, base, best):
    """Lower the entries `best` of voxels to those of links of one channel with weights >= least; else as `gather`."""
    links, repels, top, offset, strides, kept = channel
    depth, height, width = links.shape
    dz, dy, dx = offset[0], offset[1], offset[2]
    step = (dz * height + dy) * width + dx
    row = np.empty(width, np.uint32)
    for z in range(max(0, -dz), min(depth, depth - dz)):
        if z % strides[0]:
            continue
        for y in range(max(0, -dy), min(height, height - dy)):
            if y % strides[1]:
                continue
            _weights(links[z, y], repels, top, row)
            start = (z * height + y) * width
            for x in range(max(0, -dx), min(width, width - dx)):
                v = start + x
                if row[x] >= least and x % strides[2] == 0 and (kept.size == 0 or kept[v]):
                    entry = _entry(row[x], base + v)
                    best[v] = min(best[v], entry)
                    best[v + step] = min(best[v + step], entry)


@njit(cache=True, nogil=True)
def contract(best, attractive, steps, forest):
    """Join each voxel along its strongest link if that attracts; best holds entries, all bits set for none."""
    size = forest.size
    for u in range(size):
        link = np.int64(best[u] & _LOW)
        channel = link // size
        if channel < attractive:
            v = link - channel * size
            a, b = _root(forest, v), _root(forest, v + steps[channel])
            forest[max(a, b)] = min(a, b)


@njit(cache=True, nogil=True)
def gather(channel, low, high, forest, table, base, out, n):
    """Write entries of the links of one channel with weights low ... high - 1, low > 0, from place n on.

    A channel is (links, whether they repel, their greatest value, offset, strides, kept). Links that leave the volume,
    lie inside a tree of a flat forest or between two that may not be joined are left out, and with strides > 1, or a
    mask `kept` per voxel, those that these leave out. Returns the number of entries.
    """
    links, repels, top, offset, strides, kept = channel
    depth, height, width = links.shape
    dz, dy, dx = offset[0], offset[1], offset[2]
    step = (dz * height + dy) * width + dx
    row, hits = np.empty(width, np.uint32), np.empty(width, np.int64)
    keys, places = np.empty(_AT_ONCE + width, np.uint64), np.empty(_AT_ONCE + width, np.int64)
    waiting = 0
    for z in range(max(0, -dz), min(depth, depth - dz)):
        if z % strides[0]:
            continue
        for y in range(max(0, -dy), min(height, height - dy)):
            if y % strides[1]:
                continue
            _weights(links[z, y], repels, top, row)
            start = (z * height + y) * width
            for i in range(_in_range(row, max(0, -dx), min(width, width - dx), low, high, hits)):
                v = start + hits[i]
                a, b = np.int64(forest[v]), np.int64(forest[v + step])
                if a != b and hits[i] % strides[2] == 0 and (kept.size == 0 or kept[v]):
                    keys[waiting] = _key(a, b)
                    out[n + waiting] = _entry(row[hits[i]], base + v)
                    waiting += 1
            if waiting >= _AT_ONCE:
                n = _drop_forbidden(table, keys[:waiting], places, out, n)
                waiting = 0
    return _drop_forbidden(table, keys[:waiting], places, out, n)


@njit(cache=True, nogil=True)
def _drop_forbidden(table, keys, places, out, n):
    """Keep, of the entries from place n on, those whose pairs are not in the table; return where they end."""
    _places(table, keys, places)
    first = n
    for i in range(keys.size):
        out[n] = out[first + i]
        n += 1 if table[places[i]] == 0 else 0
    return n


@njit(cache=True, nogil=True)
def _note(a, b, heads, lengths, blocks, counts):
    """Write that b is a partner of a, into the last block of a or a new one, perhaps one that was given up."""
    place = lengths[a] % _IN_BLOCK
    if place == 0:
        block = counts[1]
        if block >= 0:
            counts[1] = blocks[block, _IN_BLOCK]
        else:
            block = counts[0]
            counts[0] += 1
        blocks[block, _IN_BLOCK] = heads[a]
        heads[a] = block
    blocks[heads[a], place] = b
    lengths[a] += 1


@njit(cache=True, nogil=True)
def _partners(a, b, forest, heads, lengths, blocks, counts, roots):
    """List the roots of b's partners, which it loses with its blocks; return how many they are."""
    n, block = 0, np.int64(heads[b])
    while n < lengths[b]:
        for i in range((lengths[b] - n - 1) % _IN_BLOCK + 1):
            roots[n] = blocks[block, i]
            n += 1
        following = np.int64(blocks[block, _IN_BLOCK])
        blocks[block, _IN_BLOCK] = counts[1]
        counts[1] = block
        block = following
    lengths[b] = 0
    _roots(forest, roots[:n])
    return n


@njit(cache=True, nogil=True)
def _join(a, b, forest, heads, lengths, blocks, counts, table, roots, keys, places):
    """Join b, the root with fewer partners, to a."""
    forest[b] = a
    n = _partners(a, b, forest, heads, lengths, blocks, counts, roots)
    for i in range(n):
        keys[i] = _key(a, roots[i])
    _places(table, keys[:n], places)
    for i in range(n):
        p = places[i]
        if table[p] != 0 and table[p] != keys[i]:  # taken meanwhile
            p = _place(table, keys[i])
        if table[p] == 0:
            table[p] = keys[i]
            counts[2] += 1
            _note(a, roots[i], heads, lengths, blocks, counts)


@njit(cache=True, nogil=True)
def _room(table, more, forest, counts):
    """Return a table at most half full with so many more pairs; pairs with a root that is gone are dropped."""
    if 2 * (counts[2] + more) <= table.size:
        return table
    left = 0
    for p in range(table.size):
        if table[p] != 0:
            a, b = np.int64(table[p] >> _S32) - 1, np.int64(table[p] & _LOW) - 1
            if forest[a] == a and forest[b] == b:
                left += 1
            else:
                table[p] = 0
    size = table.size
    while size < 3 * (left + more):
        size *= 2
    wider = np.zeros(size, np.uint64)
    for p in range(table.size):  # in about the order of places, so the memory is passed once
        if table[p] != 0:
            wider[_place(wider, table[p])] = table[p]
    counts[2] = left
    return wider


@njit(cache=True, nogil=True)
def _ends(part, size, steps, forest, heads, lengths, blocks, ends):
    """Write the roots of the ends of some entries, and announce what will be asked of them."""
    for i in range(part.size):
        link = np.int64(part[i] & _LOW)
        channel = link // size
        ends[2 * i] = link - channel * size
        ends[2 * i + 1] = ends[2 * i] + steps[channel]
    _roots(forest, ends[: 2 * part.size])
    flat = blocks.reshape(-1)
    for i in range(2 * part.size):
        prefetch(lengths, ends[i])
        prefetch(flat, blocks.shape[1] * np.int64(heads[ends[i]]))


@njit(cache=True, nogil=True)
def decide(entries, size, attractive, steps, forest, heads, lengths, blocks, counts, table):
    """Join or forbid along sorted entries (weight, channel * size + voxel); return blocks and table, perhaps longer.

    counts are of blocks used, the first of the blocks given up, -1 for none, and pairs in the table.
    """
    ends, keys, places = np.empty(2 * _AT_ONCE, np.int64), np.empty(_AT_ONCE, np.uint64), np.empty(_AT_ONCE, np.int64)
    roots, their_keys, their_places = np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.int64)
    for start in range(0, entries.size, _AT_ONCE):
        part = entries[start : start + _AT_ONCE]
        table = _room(table, _AT_ONCE, forest, counts)
        if counts[0] + 2 * _AT_ONCE > blocks.shape[0]:
            blocks = np.concatenate((blocks, np.empty_like(blocks)))
        _ends(part, size, steps, forest, heads, lengths, blocks, ends)
        for i in range(part.size):
            keys[i] = _key(ends[2 * i], ends[2 * i + 1])
        _places(table, keys[: part.size], places)
        for i in range(part.size):
            a, b = _root(forest, ends[2 * i]), _root(forest, ends[2 * i + 1])
            if a == b:
                continue
            attracts = np.int64(part[i] & _LOW) < attractive * size
            if lengths[a] < lengths[b]:
                a, b = b, a
            if attracts and lengths[b] == 0:
                forest[b] = a
                continue
            key, p = _key(a, b), places[i]
            if table[p] != key and (table[p] != 0 or key != keys[i]):
                p = _place(table, key)
            if table[p] != 0:
                continue
            if not attracts:
                table[p] = key
                counts[2] += 1
                _note(a, b, heads, lengths, blocks, counts)
                _note(b, a, heads, lengths, blocks, counts)
                continue
            more = lengths[b]
            if more > roots.size:
                roots, their_keys = np.empty(2 * more, np.int64), np.empty(2 * more, np.uint64)
                their_places = np.empty(2 * more, np.int64)
            if 2 * (counts[2] + _AT_ONCE + more) > table.size:
                table = _room(table, _AT_ONCE + more, forest, counts)
                _places(table, keys[: part.size], places)
            _join(a, b, forest, heads, lengths, blocks, counts, table, roots, their_keys, their_places)
    return blocks, table


@njit(cache=True, nogil=True)
def number(forest, labels):
    """Write the labels of the trees of a flat forest, 1 ... n in raster order; labels come as zeros."""
    n = 0
    for v in range(labels.size):
        root = forest[v]
        if labels[root] == 0:
            n += 1
            labels[root] = n
        labels[v] = labels[root]
    return n
