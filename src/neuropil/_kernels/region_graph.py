"""Contacts between fragments, gathered per smaller id by counting, then summed per pair: linear, no hashing, no sort.

Key insight: dense ids make a counting sort possible. One scan counts the contacts of each fragment with greater ones, a
second writes them, 8 bytes each, into a bucket per fragment; within a bucket a table of last places, indexed by the
other id, finds the pair. Fragments that touch have been numbered near each other, so tables stay in cache. Slabs of
sections have buckets of their own, one behind the other: threads change nothing, not even the order of a sum.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from neuropil._kernels.uncounted import uncounted
from neuropil._kernels.watershed import STRIP

STEPS = 255 << 16
_STEPS = np.float32(STEPS)


@uncounted
def row_maxima(labels, first, last, out):
    """Write the greatest label of each row of sections first ... last - 1."""
    for z in range(first, last):
        for y in range(labels.shape[1]):
            row = labels[z, y]
            most = out[z, y]
            for x in range(row.size):
                most = max(most, row[x])
            out[z, y] = most


@uncounted
def first_places(labels, maxima, first, last, before, places):
    """Write z, y, x of those voxels of a slab whose label is greater than all before, of which `before` is greatest."""
    most = np.int64(before)
    for z in range(first, last):
        for y in range(labels.shape[1]):
            if np.int64(maxima[z, y]) <= most:
                continue
            row = labels[z, y]
            for x in range(row.size):
                if np.int64(row[x]) > most:
                    most = np.int64(row[x])
                    places[most, 0], places[most, 1], places[most, 2] = z, y, x


@uncounted
def _count_row(here, back, shift, counts):
    """Count the contacts of here[x] with back[x - shift] by the smaller id."""
    for x in range(shift, here.size):
        a = here[x]
        b = back[x - shift]
        if a != b:
            counts[np.int64(min(a, b))] += 1


@uncounted
def count_contacts(fragments, first, last, counts):
    """Count the contacts of each fragment with those of greater ids, over links back from a slab of sections."""
    height = fragments.shape[1]
    for z in range(first, last):
        for y in range(height):
            here = fragments[z, y]
            if z > 0:
                _count_row(here, fragments[z - 1, y], 0, counts)
            if y > 0:
                _count_row(here, fragments[z, y - 1], 0, counts)
            _count_row(here, here, 1, counts)
    counts[0] = 0


@uncounted
def _fill_row(here, back, shift, links, one, lowest, size, found, out):
    """Write the contacts of here[x] with back[x - shift], whose link is links[x]; found has room for places of a row.

    They are found by arithmetic first, since no branch can be foretold.
    """
    places, ids, values = out
    n = 0
    for x in range(shift, here.size):
        a = here[x]
        b = back[x - shift]
        found[n] = x
        n += (a != b) & (min(a, b) - lowest < size)  # unsigned: ids below the lowest are far above
    for k in range(n):
        x = found[k]
        a = here[x]
        b = back[x - shift]
        place = np.int64(min(a, b) - lowest)
        i = 2 * places[place]
        places[place] += 1
        values[i] = np.float32(links[x]) / one + np.float32(0)  # -0.0 becomes 0.0
        ids[i + 1] = max(a, b)


@njit(cache=True, nogil=True)
def fill_contacts(fragments, links, one, maxima, first, last, lowest, size, places, ids, values):
    """Write (affinity, greater id) of contacts whose smaller id is lowest + 0 ... size - 1 to the places of the ids.

    one is the link that is 1, maxima are the greatest ids of rows. ids and values are two views of one array of pairs
    of 32 bits. Places move on.
    """
    height = fragments.shape[1]
    found = np.empty(fragments.shape[2], np.int64)
    out = places, ids, values
    rows = max(8, STRIP // max(1, fragments.shape[2]))
    for top in range(0, height, rows):
        for z in range(first, last):
            for y in range(top, min(height, top + rows)):
                if maxima[z, y] < lowest:
                    continue
                here = fragments[z, y]
                if z > 0:
                    _fill_row(here, fragments[z - 1, y], 0, links[0, z, y], one, lowest, size, found, out)
                if y > 0:
                    _fill_row(here, fragments[z, y - 1], 0, links[1, z, y], one, lowest, size, found, out)
                _fill_row(here, here, 1, links[2, z, y], one, lowest, size, found, out)


@njit(cache=True, nogil=True)
def gather(starts, first, last, ids, values, seen, lowest, out):
    """Write the pairs of buckets first ... last - 1, ascending, with sum, number and maximum of their contacts.

    seen is one place per id, all 0; out is u, v, total, count, largest. Totals are of whole steps of 1 / STEPS.
    Returns the number of pairs.
    """
    u, v, total, count, largest = out
    n = 0
    for k in range(first, last):
        base = n
        for i in range(starts[k], starts[k + 1]):
            b = np.int64(ids[2 * i + 1])
            if seen[b] <= base:
                n += 1
                seen[b] = n
                v[n - 1] = b
        if n - base > 32:
            v[base:n].sort()
        else:
            _insert(v, base, n)
        for i in range(base, n):
            seen[np.int64(v[i])] = i + 1
            u[i] = lowest + k
            total[i] = 0
            count[i] = 0
            largest[i] = 0
        for i in range(starts[k], starts[k + 1]):
            e = seen[np.int64(ids[2 * i + 1])] - 1
            value = values[2 * i]
            total[e] += np.rint(value * _STEPS)
            count[e] += 1
            largest[e] = max(largest[e], value)
    return n


@njit(cache=True, nogil=True)
def _sort(values, first, last):
    """Sort part of an array in place; most parts are a few values long."""
    if last - first > 32:
        values[first:last].sort()
    else:
        _insert(values, first, last)


@uncounted
def _insert(values, first, last):
    """Sort part of an array in place by insertion."""
    for i in range(first + 1, last):
        value = values[i]
        j = i
        while j > first and values[j - 1] > value:
            values[j] = values[j - 1]
            j -= 1
        values[j] = value


@njit(cache=True, nogil=True)
def count_bins(packed, starts, first, last, scale):
    """Sort each bucket of (greater id, affinity) pairs in place; return the number of (pair, bin) that occur."""
    n = 0
    values = packed.view(np.float32)
    for k in range(first, last):
        _sort(packed, starts[k], starts[k + 1])
        for i in range(starts[k], starts[k + 1]):
            same = i > starts[k] and packed[i] >> np.uint64(32) == packed[i - 1] >> np.uint64(32)
            if not same or _bin(values[2 * i], scale) != _bin(values[2 * i - 2], scale):
                n += 1
    return n


@uncounted
def _bin(value, scale):
    return min(np.int64(value * scale), 255)


@uncounted
def fill_bins(packed, starts, first, last, scale, sizes, bins, counts):
    """Write the bins of each pair, ascending, their counts, and the number of bins per pair; buckets are sorted."""
    values = packed.view(np.float32)
    pair = -1
    n = -1
    for k in range(first, last):
        for i in range(starts[k], starts[k + 1]):
            level = _bin(values[2 * i], scale)
            if i == starts[k] or packed[i] >> np.uint64(32) != packed[i - 1] >> np.uint64(32):
                pair += 1
                sizes[pair] = 0
            if sizes[pair] == 0 or bins[n] != level:
                n += 1
                bins[n] = level
                counts[n] = 0
                sizes[pair] += 1
            counts[n] += 1
