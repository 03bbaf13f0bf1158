"""Hash tables of ids and of pairs of ids, open addressing with linear probing, filled in one pass over runs.

Key insight: labels come in runs, so a voxel usually costs one comparison with its predecessor and only the start of a
run costs a probe. A table is a power of two long, at most half full, and an empty place is marked by its value, so
every uint64 is a legal id. Tables grow inside the loop; callers get the (perhaps new) arrays back. A table of pairs is
one array of (a, b, value > 0, unused) per place, so that a probe touches one line of cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_K1 = np.uint64(0x9E3779B97F4A7C15)
_K2 = np.uint64(0xD6E8FEB86659FD93)
_S32 = np.uint64(32)


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


@njit(cache=True, nogil=True)
def find_pair(table, a, b):
    """Return the offset in a table of pairs where (a, b) is, or the empty place (its third number is 0) for it."""
    mask = np.int64(table.size // 4 - 1)
    h = a * _K1
    h = ((h ^ (h >> _S32)) + b) * _K2
    p = np.int64(h ^ (h >> _S32)) & mask
    while table[4 * p + 2] != 0 and (table[4 * p] != a or table[4 * p + 1] != b):
        p = (p + 1) & mask
    return 4 * p


@njit(cache=True, nogil=True)
def grow_pairs(table):
    """Return the same table of pairs in four times the room."""
    wider = np.zeros(table.size * 4, np.uint64)
    for i in range(0, table.size, 4):
        if table[i + 2] != 0:
            p = find_pair(wider, table[i], table[i + 1])
            wider[p : p + 3] = table[i : i + 3]
    return wider


@njit(cache=True, nogil=True)
def count_pairs(a, b, table, used):
    """Add one to the count of (a[i], b[i]) for every i; return the table and the number of pairs in it."""
    i = 0
    n = a.size
    while i < n:
        first = a[i]
        second = b[i]
        start = i
        i += 1
        while i < n and a[i] == first and b[i] == second:
            i += 1
        p = find_pair(table, first, second)
        new = table[p + 2] == 0
        table[p] = first
        table[p + 1] = second
        table[p + 2] += np.uint64(i - start)
        if new:
            used += 1
            if 8 * used > table.size:
                table = grow_pairs(table)
    return table, used
