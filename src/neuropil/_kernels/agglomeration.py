"""Agglomeration by priority queue: the pair of clusters with the greatest score merges, until none is left.

An edge is one row of 32 bytes, a line of cache: sum, number, entry in the queue, and its two ends, four bytes each;
number 2 e or 2 e + 1 names an edge as seen from one end, and each cluster has a list of these numbers. When b merges
into a, the cluster with the longer list, each edge of b either moves to a or, where a has an edge to the same
neighbour, becomes one with it; the edge with the greater number stays. A hash table from pairs of clusters to edges
finds that edge; what it says of clusters that are gone is never asked for again, so nothing is deleted.

Key insight: a score never rises by merging, so a queue may hold scores of the past: an entry that is too early is put
back when its turn comes. An entry is one number, score above and edge below, so equal scores go by edge. The edges
themselves need no heap but one sort; the heap has only what was put back. And two clusters that are each other's best
stay so until they merge, whatever merges elsewhere: most merges are done beforehand, in order of place, where memory is
near, and sorted in afterwards.

Where only a part of a volume is known, clusters that may have edges elsewhere are frozen: they never merge, and freeze
whatever they are next in turn with; what is done to the others is what would be done in the whole volume.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from neuropil._kernels.prefetch import prefetch

_LOW = np.uint64(0xFFFFFFFF)
_S32 = np.uint64(32)
_K = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True)
def _first_place(table, key):
    return 2 * np.int64((((key * _K) >> _S32) * np.uint64(table.size // 2)) >> _S32)


@njit(cache=True, nogil=True)
def _place(table, key):
    """Return where the key is in a table of (key, edge), or the empty place for it."""
    p = _first_place(table, key)
    while table[p] != 0 and table[p] != key:
        p = p + 2 if p + 2 < table.size else 0
    return p


@njit(cache=True, nogil=True)
def _key(a, b):
    return (np.uint64(min(a, b)) << _S32) | np.uint64(max(a, b))


@njit(cache=True, nogil=True, inline="always")
def _end(h):
    """Return where the end h of an edge is in the rows, seen as numbers of 32 bits; 0 there means the edge is gone."""
    return 8 * (h >> 1) + 6 + (h & 1)


@njit(cache=True, nogil=True)
def _fill(table, ends, edges):
    """Make the table that of the edges that are left; return their number."""
    table[:] = 0
    n = 0
    for e in range(edges):
        if ends[_end(2 * e)] != 0:
            key = _key(ends[_end(2 * e)], ends[_end(2 * e + 1)])
            p = _place(table, key)
            table[p] = key
            table[p + 1] = e
            n += 1
    return n


@njit(cache=True, nogil=True)
def entries(sums, histograms, out):
    """Write the first entry of every edge, to its row, too."""
    queued = sums.view(np.uint64)
    for e in range(out.size):
        out[e] = _entry(_score(e, sums, histograms), e)
        queued[e, 2] = out[e]


@njit(cache=True, nogil=True)
def _push(heap, size, entry):
    """Put an entry into a heap in which each entry has four below it; return the heap, perhaps a longer one."""
    if size == heap.size:
        heap = np.concatenate((heap, heap))
    i = size
    while i > 0 and heap[(i - 1) >> 2] > entry:
        heap[i] = heap[(i - 1) >> 2]
        i = (i - 1) >> 2
    heap[i] = entry
    return heap


@njit(cache=True, nogil=True)
def _pop(heap, size):
    """Take the first entry from the heap."""
    entry = heap[size - 1]
    n = size - 1
    i = 0
    while 4 * i + 1 < n:
        child = 4 * i + 1
        for other in range(child + 1, min(child + 4, n)):
            if heap[other] < heap[child]:
                child = other
        if heap[child] >= entry:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = entry


@njit(cache=True, nogil=True)
def _score(e, sums, histograms):
    """Return the mean, or, if q >= 0, the middle of the bin where the q-quantile is."""
    heads, after, bins, counts, q = histograms
    if q < 0:
        return np.float32(sums[e, 0] / sums[e, 1])
    pivot = min(np.int64(np.floor(q * sums[e, 1] + 1e-9)) + 1, np.int64(sums[e, 1]))
    i = heads[e]
    below = counts[i]
    while below < pivot:
        i = after[i]
        below += counts[i]
    return np.float32((bins[i] + 0.5) / 256)


@njit(cache=True, nogil=True)
def _entry(score, e):
    """Return the entry of an edge: greater scores, then smaller edges, come first."""
    return ((_LOW - np.uint64(np.float32(score).view(np.uint32))) << _S32) | np.uint64(e)


@njit(cache=True, nogil=True)
def _combine(e, f, sums, histograms):
    """Add edge f to edge e; histograms are lists in ascending order of bins."""
    heads, after, bins, counts, _ = histograms
    sums[e, 0] += sums[f, 0]
    sums[e, 1] += sums[f, 1]
    if heads.size == 0:
        return
    i, j = heads[e], heads[f]
    if bins[j] < bins[i]:
        i, j = j, i
    heads[e] = i
    while j >= 0:
        if bins[i] == bins[j]:
            counts[i] += counts[j]
            j = after[j]
        elif after[i] >= 0 and bins[after[i]] <= bins[j]:
            i = after[i]
        else:
            rest = after[i]
            after[i] = j
            i = j
            j = rest


@njit(cache=True, nogil=True)
def _lists(ends, edges, start, length, room, pool):
    """Write the list of each cluster into the pool, one behind the other; return where the last one ends."""
    length[:] = 0
    for h in range(2 * edges):
        length[ends[_end(h)]] += 1
    n = 0
    for a in range(start.size):
        start[a] = n
        n += length[a]
        room[a] = length[a]
        length[a] = 0
    for h in range(2 * edges):
        a = ends[_end(h)]
        pool[start[a] + length[a]] = h
        length[a] += 1
    return n


@njit(cache=True, nogil=True)
def _make_room(a, more, start, length, room, pool, used):
    """Move the list of a behind all others if it has no room for more; return the pool, perhaps a longer one."""
    n = length[a] + more
    if n <= room[a]:
        return pool, used
    if used + 2 * n > pool.size:
        longer = np.empty(2 * (used + 2 * n), np.int32)
        longer[:used] = pool[:used]
        pool = longer
    pool[used : used + length[a]] = pool[start[a] : start[a] + length[a]]
    start[a] = used
    room[a] = 2 * n
    return pool, used + 2 * n


@njit(cache=True, nogil=True)
def _neighbours(a, halves, ends, table, keys, places):
    """List the half-edges that are left, with what they will be called as edges of a and where to look for that.

    Returns how many they are. Done for all at once since one look-up does not wait for another.
    """
    for i in range(halves.size):
        prefetch(ends, _end(np.int64(halves[i])))
    n = 0
    for i in range(halves.size):
        h = np.int64(halves[i])
        if ends[_end(h)] != 0:
            halves[n] = h
            keys[n] = _key(ends[_end(h ^ 1)], a)
            prefetch(table, _first_place(table, keys[n]))
            n += 1
    for i in range(n):
        places[i] = _place(table, keys[i])
        prefetch(ends, _end(2 * np.int64(table[places[i] + 1])))
    return n


@njit(cache=True, nogil=True)
def _best(a, queued, ends, start, length, pool):
    """Return the edge of a that comes first, -1 for none; drops edges that are gone from the list."""
    n, best, first = start[a], np.int64(-1), ~np.uint64(0)
    for i in range(start[a], start[a] + length[a]):
        h = np.int64(pool[i])
        if ends[_end(h)] != 0:
            pool[n] = h
            n += 1
            if queued[h >> 1, 2] < first:
                best, first = h >> 1, queued[h >> 1, 2]
    length[a] = n - start[a]
    return best


@njit(cache=True, nogil=True)
def _absorb(a, b, rows, histograms, start, length, pool, marks):
    """Move the edges of b to the list of a, which has room; parallel ones become one. The edge between them is gone."""
    queued, ends = rows.view(np.uint64), rows.reshape(-1).view(np.uint32)
    for i in range(start[a], start[a] + length[a]):
        h = np.int64(pool[i])
        if ends[_end(h)] != 0:
            marks[ends[_end(h ^ 1)]] = h
    n = length[a]
    for i in range(start[b], start[b] + length[b]):
        h = np.int64(pool[i])
        if ends[_end(h)] == 0:
            continue
        d, f = h >> 1, marks[ends[_end(h ^ 1)]] >> 1
        if f >= 0:
            kept, gone = max(d, f), min(d, f)
            _combine(kept, gone, rows, histograms)
            queued[kept, 2] = _entry(_score(kept, rows, histograms), kept)
            marks[ends[_end(h ^ 1)]] = -1
            queued[gone, 3] = 0
            if kept != d:
                continue
        ends[_end(h)] = a
        pool[start[a] + length[a]] = h
        length[a] += 1
    for i in range(start[a], start[a] + n):
        h = np.int64(pool[i])
        if ends[_end(h)] != 0:
            marks[ends[_end(h ^ 1)]] = -1
    length[b] = 0


@njit(cache=True, nogil=True)
def merge_mutual(rows, histograms, least, few, nodes, pool, out):
    """Merge pairs of clusters of few edges each that are each other's best; see `agglomerate`. Returns how many."""
    queued, ends = rows.view(np.uint64), rows.reshape(-1).view(np.uint32)
    start, (length, room, _), frozen = nodes
    u, v, merged = out
    pooled = _lists(ends, rows.shape[0], start, length, room, pool)
    marks = np.full(start.size, -1, np.int64)
    last = _entry(least, _LOW)
    merges = 0
    for node in range(1, start.size):
        a = np.int64(node)
        while 0 < length[a] <= few and not frozen[a]:
            e = _best(a, queued, ends, start, length, pool)
            if e < 0 or queued[e, 2] > last:
                break
            one, two = np.int64(ends[_end(2 * e)]), np.int64(ends[_end(2 * e + 1)])
            b = two if one == a else one
            if length[b] > few or frozen[b]:
                break
            if _best(b, queued, ends, start, length, pool) != e:
                a = b
                continue
            u[merges], v[merges], merged[merges] = min(a, b), max(a, b), queued[e, 2]
            merges += 1
            queued[e, 3] = 0
            if b < a:
                a, b = b, a
            pool, pooled = _make_room(a, length[b], start, length, room, pool, pooled)
            _absorb(a, b, rows, histograms, start, length, pool, marks)
    return merges


@njit(cache=True, nogil=True)
def _announce(order, head, ends, start, length, room, pool):
    """Announce what the entries to come will ask for: in 32 the edge, in 16 its clusters, in 8 their lists."""
    edges = order.size
    if head + 32 < edges:
        prefetch(ends, _end(2 * np.int64(order[head + 32] & _LOW)))
    for h in range(2):
        if head + 16 < edges:
            node = np.int64(ends[_end(2 * np.int64(order[head + 16] & _LOW) + h)])
            prefetch(start, node)
            prefetch(length, node)
            prefetch(room, node)
        if head + 8 < edges:
            node = np.int64(ends[_end(2 * np.int64(order[head + 8] & _LOW) + h)])
            prefetch(pool, start[node])


@njit(cache=True, nogil=True)
def agglomerate(rows, order, histograms, least, nodes, pool, table, out):
    """Merge all pairs whose score is at least `least`, best first; write the smallest nodes of both and the entry.

    histograms are (first entry of each edge, next entry, bins, counts, q), empty with q < 0 for means; order has the
    entries of the edges that are left, sorted; nodes (four arrays of a place per cluster and which are frozen), pool
    (one place per end of an edge) and the table (zeros for key and edge, more than twice as many as edges) are room to
    work in. Changes all arrays.
    Returns the number of merges.
    """
    edges = order.size
    queued, ends = rows.view(np.uint64), rows.reshape(-1).view(np.uint32)
    heap, waiting, head = np.empty(1024, np.uint64), 0, 0
    start, (length, room, smallest), frozen = nodes
    for node in range(smallest.size):
        smallest[node] = node
    pooled = _lists(ends, rows.shape[0], start, length, room, pool)
    keys, places = np.empty(0, np.uint64), np.empty(0, np.int64)
    used = _fill(table, ends, rows.shape[0])
    merges = 0
    u, v, merged = out
    while head < edges or waiting > 0:
        if waiting > 0 and (head == edges or heap[0] < order[head]):
            entry = heap[0]
            _pop(heap, waiting)
            waiting -= 1
        else:
            entry = order[head]
            _announce(order, head, ends, start, length, room, pool)
            head += 1
        e = np.int64(entry & _LOW)
        if ends[_end(2 * e)] == 0 or queued[e, 2] != entry:
            continue
        now = _score(e, rows, histograms)
        queued[e, 2] = _entry(now, e)
        if queued[e, 2] != entry:  # too early
            heap = _push(heap, waiting, queued[e, 2])
            waiting += 1
            continue
        if now < least:
            break
        a, b = np.int64(ends[_end(2 * e)]), np.int64(ends[_end(2 * e + 1)])
        if frozen[a] or frozen[b]:  # neither end will merge, so the edge stays as it is
            frozen[a] = frozen[b] = True
            continue
        if length[a] < length[b]:
            a, b = b, a
        u[merges] = min(smallest[a], smallest[b])
        v[merges] = max(smallest[a], smallest[b])
        merged[merges] = entry
        merges += 1
        smallest[a] = min(smallest[a], smallest[b])
        queued[e, 3] = 0
        more = length[b]
        if 3 * (used + more) > table.size:
            used = _fill(table, ends, rows.shape[0])
        if more > keys.size:
            keys, places = np.empty(2 * more, np.uint64), np.empty(2 * more, np.int64)
        pool, pooled = _make_room(a, more, start, length, room, pool, pooled)
        halves = pool[start[b] : start[b] + more]
        for i in range(_neighbours(a, halves, ends, table, keys, places)):
            h = np.int64(halves[i])
            d = h >> 1
            p = places[i]
            if table[p] != 0 and table[p] != keys[i]:  # taken meanwhile
                p = _place(table, keys[i])
            if table[p] != 0:
                f = np.int64(table[p + 1])
                kept, gone = max(d, f), min(d, f)
                _combine(kept, gone, rows, histograms)
                queued[gone, 3] = 0
                new = _entry(_score(kept, rows, histograms), kept)
                if new < queued[kept, 2]:
                    queued[kept, 2] = new
                    heap = _push(heap, waiting, new)
                    waiting += 1
                if kept != d:
                    continue
            else:
                table[p] = keys[i]
                used += 1
            table[p + 1] = d
            ends[_end(h)] = a
            pool[start[a] + length[a]] = h
            length[a] += 1
    return merges
