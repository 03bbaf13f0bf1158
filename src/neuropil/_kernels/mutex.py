"""Mutex watershed: links in order of falling weight join clusters or forbid that they ever be joined.

Clusters are trees of voxels. A cluster's partners (those it may not join) are a chain of notes in a growing list, and a
hash table of pairs of roots says whether two are partners. When two clusters join, the notes of the one with fewer are
entered for the other's root; pairs with a root that is gone are never asked for again, so nothing is deleted.

Key insight: soon most links lie inside a cluster and do nothing. Links are therefore gathered and sorted in batches of
falling weight, and a batch leaves out those whose ends are in one cluster already: less to sort, less memory.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_S32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_K = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True, inline="always")
def _root(forest, v):
    while forest[v] != v:
        forest[v] = forest[forest[v]]
        v = forest[v]
    return v


@njit(cache=True, nogil=True)
def _key(a, b):
    """Return the name of a pair of roots, not 0."""
    return (np.uint64(min(a, b) + 1) << _S32) | np.uint64(max(a, b) + 1)


@njit(cache=True, nogil=True)
def _place(table, key):
    """Return where the key is in the table, or the empty place for it."""
    mask = table.size - 1
    p = np.int64((key * _K) >> _S32) & mask
    while table[p] != 0 and table[p] != key:
        p = (p + 1) & mask
    return p


@njit(cache=True, nogil=True)
def _is_left(key, forest):
    a, b = np.int64(key >> _S32) - 1, np.int64(key & _LOW) - 1
    return key != 0 and forest[a] == a and forest[b] == b


@njit(cache=True, nogil=True)
def count_left(table, forest):
    """Return how many pairs of the table are pairs of roots still."""
    n = 0
    for key in table:
        n += _is_left(key, forest)
    return n


@njit(cache=True, nogil=True)
def rehash(table, forest, wider):
    """Enter the pairs of roots into another table."""
    for key in table:
        if _is_left(key, forest):
            wider[_place(wider, key)] = key


@njit(cache=True, nogil=True)
def flatten(forest):
    """Let every voxel point to its root."""
    for v in range(forest.size):
        forest[v] = _root(forest, v)


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
def gather(links, repels, top, offset, strides, kept, low, high, forest, base, out, n):
    """Write entries (falling weight, base + voxel) of the links of one channel with weights low ... high - 1.

    Links that leave the volume, lie inside a tree of a flat forest, or are of weight 0 are left out, and with
    strides > 1, or a mask `kept` per voxel, those that these leave out. Returns the number of entries.
    """
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
                weight = row[x]
                if weight < low or weight >= high or x % strides[2]:
                    continue
                v = start + x
                if forest[v] != forest[v + step] and (kept.size == 0 or kept[v]):
                    out[n] = ((_LOW - np.uint64(weight)) << _S32) | np.uint64(base + v)
                    n += 1
    return n


@njit(cache=True, nogil=True)
def _note(a, b, heads, tails, lengths, notes, used):
    """Write as note `used` that b is a partner of a."""
    notes[2 * used] = b
    if lengths[a] == 0:
        heads[a] = used
    else:
        notes[2 * tails[a] + 1] = used
    tails[a] = used
    lengths[a] += 1


@njit(cache=True, nogil=True)
def _join(a, b, forest, heads, tails, lengths, notes, table):
    """Join b, the root with fewer partners, to a; return how many pairs that adds to the table."""
    forest[b] = a
    added = 0
    i = heads[b]
    for _ in range(lengths[b]):
        following = notes[2 * i + 1]
        key = _key(a, _root(forest, notes[2 * i]))
        p = _place(table, key)
        if table[p] == 0:
            table[p] = key
            added += 1
            notes[2 * tails[a] + 1] = i
            tails[a] = i
            lengths[a] += 1
        i = following
    return added


@njit(cache=True, nogil=True)
def decide(entries, first, size, attractive, steps, forest, heads, tails, lengths, notes, used, table, pairs):
    """Join or forbid along sorted entries (weight, channel * size + voxel), from the first on.

    Stops where notes or table may not suffice for the next 64; returns that place, the notes used, and the pairs in the
    table. Roots and places of 64 are looked up at once, as one need not wait for another.
    """
    ends = np.empty((64, 2), np.int64)
    places = np.empty(64, np.int64)
    for start in range(first, entries.size, 64):
        if 2 * (used + 128) > notes.size or 2 * (pairs + 64) > table.size:
            return start, used, pairs
        part = entries[start : start + 64]
        for i in range(part.size):
            link = np.int64(part[i] & _LOW)
            channel = link // size
            v = link - channel * size
            a, b = _root(forest, v), _root(forest, v + steps[channel])
            ends[i, 0], ends[i, 1] = a, b
            if a != b:
                places[i] = _place(table, _key(a, b))
        for i in range(part.size):
            a, b = _root(forest, ends[i, 0]), _root(forest, ends[i, 1])
            if a == b:
                continue
            attracts = np.int64(part[i] & _LOW) < attractive * size
            if lengths[a] < lengths[b]:
                a, b = b, a
            if attracts and lengths[b] == 0:
                forest[b] = a
                continue
            key = _key(a, b)
            p = places[i]
            if table[p] != key and (table[p] != 0 or key != _key(ends[i, 0], ends[i, 1])):
                p = _place(table, key)
            if table[p] != 0:
                continue
            if not attracts:
                table[p] = key
                pairs += 1
                _note(a, b, heads, tails, lengths, notes, used)
                _note(b, a, heads, tails, lengths, notes, used + 1)
                used += 2
            else:
                if 2 * (pairs + 64 + lengths[b]) > table.size:
                    return start + i, used, pairs
                pairs += _join(a, b, forest, heads, tails, lengths, notes, table)
    return entries.size, used, pairs


@njit(cache=True, nogil=True)
def number(forest, labels):
    """Write the labels of the trees of a flat forest, 1 ... n in raster order; the forest may be overwritten."""
    for v in range(forest.size):
        labels[v] = -forest[v] - 1
    n = 0
    for v in range(labels.size):
        root = -labels[v] - 1
        if root < 0:
            continue  # labelled as a root before
        if labels[root] < 0:
            n += 1
            labels[root] = n
        labels[v] = labels[root]
    return n
