"""Ids in a hash table, and pairs of ids counted in a cache and sorted: one pass over runs of equal voxels.

Labels come in runs, so a voxel usually costs one comparison with its predecessor and only the start of a run costs a
probe. The table of ids (open addressing, linear probing) is a power of two long, at most half full, and an empty place
is marked by its value, so every uint64 is a legal id. It grows inside the loop; callers get the (perhaps new) arrays.
Pairs can be far more numerous, and a table that does not fit in cache waits for memory at every probe. So pairs are
counted in few places that always fit; a pair that finds its place taken pushes the other out, to a list. Only the list
is sorted: as numbers, where a pair and its count fit into 64 bits, as they do unless both kinds of ids are huge; else
byte by byte (radix sort, least significant first). Both read and write memory in streams.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_K1 = np.uint64(0x9E3779B97F4A7C15)
_K2 = np.uint64(0xD6E8FEB86659FD93)
_S32 = np.uint64(32)
_BYTE = np.uint64(255)
_LONG = 16  # voxels of a run that are compared at once


@njit(cache=True, nogil=True, inline="always")
def _place(a, mask):
    h = a * _K1
    return np.int64((h ^ (h >> _S32)) & mask)


@njit(cache=True, nogil=True)
def _find(keys, values, a):
    mask = np.uint64(keys.size - 1)
    p = _place(a, mask)
    while values[p] >= 0 and keys[p] != a:
        p = (p + 1) & np.int64(mask)
    return p


@njit(cache=True, nogil=True)
def _grow(keys, values):
    new_keys = np.empty(keys.size * 2, np.uint64)
    new_values = np.full(keys.size * 2, -1, np.int64)
    for i in range(keys.size):
        if values[i] >= 0:
            p = _find(new_keys, new_values, keys[i])
            new_keys[p] = keys[i]
            new_values[p] = values[i]
    return new_keys, new_values


@njit(cache=True, nogil=True)
def encode(labels, codes, keys, values, used):
    """Write the code (rank of first appearance) of each label; return the table and the number of ids in it."""
    i = 0
    n = labels.size
    while i < n:
        a = labels[i]
        p = _find(keys, values, a)
        code = values[p]
        if code < 0:
            code = used
            keys[p] = a
            values[p] = code
            used += 1
            if 2 * used > keys.size:
                keys, values = _grow(keys, values)
        while i < n and labels[i] == a:
            codes[i] = np.uint64(code)
            i += 1
    return keys, values, used


@njit(cache=True, nogil=True)
def translate(labels, out, keys, values, targets):
    """Write targets[index of label]; return the first position whose label is not in the table, or -1."""
    previous = np.uint64(0)
    target = np.uint64(0)
    known = False
    for i in range(labels.size):
        a = labels[i]
        if a != previous or not known:
            p = _find(keys, values, a)
            if values[p] < 0:
                return i
            previous = a
            target = targets[values[p]]
            known = True
        out[i] = target
    return -1


@njit(cache=True, nogil=True)
def take(labels, out, lookup):
    """Write lookup[label]; return the first position whose label lies beyond the lookup, or -1."""
    previous = np.uint64(0)
    target = lookup[0]
    size = np.uint64(lookup.size)
    for i in range(labels.size):
        a = labels[i]
        if a != previous:
            if a >= size:
                return i
            previous = a
            target = lookup[np.int64(a)]
        out[i] = target
    return -1


@njit(cache=True, nogil=True, inline="always")
def _end_of_run(a, b, i):
    """Return a place up to which pairs are those at i - 1, several compared at once; the run may go on from there."""
    first = a[i - 1]
    second = b[i - 1]
    while i + _LONG <= a.size:
        differ = np.uint64(0)
        for k in range(_LONG):
            differ |= (a[i + k] ^ first) | (b[i + k] ^ second)
        if differ != 0:
            break
        i += _LONG
    return i


@njit(cache=True, nogil=True)
def count_pairs(a, b, recent, out):
    """Count runs of equal pairs (a[i], b[i]) in the places of `recent`; write what loses its place to `out`.

    A place is (a, b, count, unused), empty where the count is 0. Returns the number of rows (a, b, count) written.
    """
    mask = np.uint64(recent.shape[0] - 1)
    written = 0
    i = 0
    n = a.size
    while i < n:
        first = a[i]
        second = b[i]
        start = i
        i += 1
        while i < n and a[i] == first and b[i] == second:
            i += 1
            if i - start == _LONG:
                i = _end_of_run(a, b, i)
        h = ((first * _K1) ^ second) * _K2
        p = np.int64((h >> _S32) & mask)
        if recent[p, 0] != first or recent[p, 1] != second or recent[p, 2] == 0:
            if recent[p, 2] > 0:
                out[written, 0] = recent[p, 0]
                out[written, 1] = recent[p, 1]
                out[written, 2] = recent[p, 2]
                written += 1
            recent[p, 0] = first
            recent[p, 1] = second
            recent[p, 2] = 0
        recent[p, 2] += np.uint64(i - start)
    return written


@njit(cache=True, nogil=True)
def differing_bits(rows, column):
    """Return the bits in which the values of a column are not all the same."""
    first = rows[0, column]
    differ = np.uint64(0)
    for i in range(rows.shape[0]):
        differ |= rows[i, column] ^ first
    return differ


@njit(cache=True, nogil=True)
def pack(rows, b_bits, count_bits, words):
    """Write each row (a, b, count) as one word, a above b above the count; what all rows have in common is cut off."""
    one = np.uint64(1)
    above_b = np.uint64(b_bits + count_bits)
    above_count = np.uint64(count_bits)
    b_mask = (one << np.uint64(b_bits)) - one
    for i in range(rows.shape[0]):
        words[i] = (rows[i, 0] << above_b) | ((rows[i, 1] & b_mask) << above_count) | rows[i, 2]


@njit(cache=True, nogil=True)
def unpack(words, a_bits, b_bits, count_bits, rows):
    """Write sorted words as rows, equal pairs as one; return how many there are. Common bits are in the first row."""
    one = np.uint64(1)
    a_mask = (one << np.uint64(a_bits)) - one
    b_mask = (one << np.uint64(b_bits)) - one
    count_mask = (one << np.uint64(count_bits)) - one
    a_common = rows[0, 0] & ~a_mask
    b_common = rows[0, 1] & ~b_mask
    used = 0
    for i in range(words.size):
        count = words[i] & count_mask
        pair = words[i] >> np.uint64(count_bits)
        if i > 0 and pair == words[i - 1] >> np.uint64(count_bits):
            rows[used - 1, 2] += count
        else:
            rows[used, 0] = a_common | (pair >> np.uint64(b_bits))
            rows[used, 1] = b_common | (pair & b_mask)
            rows[used, 2] = count
            used += 1
    return used


@njit(cache=True, nogil=True)
def sort_by_byte(rows, column, shift, out):
    """Write rows (a, b, count) to `out` in the order of one byte of a column; rows that share it keep their order."""
    starts = np.zeros(257, np.int64)
    for i in range(rows.shape[0]):
        starts[np.int64((rows[i, column] >> shift) & _BYTE) + 1] += 1
    for k in range(256):
        starts[k + 1] += starts[k]
    for i in range(rows.shape[0]):
        byte = np.int64((rows[i, column] >> shift) & _BYTE)
        p = starts[byte]
        starts[byte] = p + 1
        out[p, 0] = rows[i, 0]
        out[p, 1] = rows[i, 1]
        out[p, 2] = rows[i, 2]


@njit(cache=True, nogil=True)
def rank(rows, column, ids):
    """Replace the sorted values of a column by their ranks and list them in `ids`; return how many there are."""
    used = 0
    previous = np.uint64(0)
    for i in range(rows.shape[0]):
        value = rows[i, column]
        if used == 0 or value != previous:
            ids[used] = value
            used += 1
            previous = value
        rows[i, column] = np.uint64(used - 1)
    return used


@njit(cache=True, nogil=True)
def add_up(rows):
    """Move sorted rows (a, b, count) together, equal pairs into one; return how many are left."""
    used = 0
    for i in range(rows.shape[0]):
        if used > 0 and rows[used - 1, 0] == rows[i, 0] and rows[used - 1, 1] == rows[i, 1]:
            rows[used - 1, 2] += rows[i, 2]
        else:
            rows[used, 0] = rows[i, 0]
            rows[used, 1] = rows[i, 1]
            rows[used, 2] = rows[i, 2]
            used += 1
    return used
