"""Agglomeration: the pair of clusters with the greatest score merges, until none is left.

Most merges need no queue and are done beforehand (`neuropil._kernels.near`). The rest goes by one. Key insight: since
scores never rise, it may hold scores of the past: an entry that is too early is put back when its turn comes. The edges
themselves need no heap but one sort. What is put back waits unsorted until its range of scores is next and is sorted in
then, so what nearly all entries will ask for is known, and announced to memory, long before. Only what is put back
within the range has a heap.

When b merges into a, the cluster with the longer list, each edge of b either moves to a or, where a has an edge to the
same neighbour, becomes one with it. A hash table from pairs of clusters to edges finds that edge; what it says of
clusters that are gone is never asked for again, so nothing is deleted.

Where only a part of a volume is known, clusters that may have edges elsewhere are frozen: they never merge, and freeze
whatever they are next in turn with; what is done to the others is what would be done in the whole volume.
"""

from __future__ import annotations

import numpy as np

from neuropil._kernels.clusters import (
    LENGTH,
    LOW,
    S32,
    START,
    entry_of,
    join,
    last_entry,
    make_room,
    most_room,
    unite,
)
from neuropil._kernels.clusters import end as _end
from neuropil._kernels.near import LIMIT, MERGES, USED
from neuropil._kernels.prefetch import prefetch
from neuropil._kernels.uncounted import uncounted

_K = np.uint64(0x9E3779B97F4A7C15)
# Places of the state, beside those of `near`. SHORT is what there is too little of.
PAIRS, HEAD, WAITING, LATER, SHORT, NEED = range(5, 11)
POOL, TABLE, QUEUE, SCRATCH = range(1, 5)


@uncounted
def _key(a, b):
    """Return a number for a pair of clusters, in any order, that tells it from most others by its upper half."""
    key = ((np.uint64(min(a, b)) << S32) | np.uint64(max(a, b))) * _K
    return key ^ (key >> S32)


@uncounted
def _first_place(table, key):
    return np.int64((((key * _K) >> S32) * np.uint64(table.size)) >> S32)


@uncounted
def _place(table, key, a, b, ends):
    """Return where the edge between a and b is in a table of (half a key, edge + 1), or the empty place for it."""
    p = _first_place(table, key)
    while table[p] != 0:
        if (table[p] ^ key) >> S32 == 0:
            h = 2 * (np.int64(table[p] & LOW) - 1)
            x, y = np.int64(ends[_end(h)]), np.int64(ends[_end(h + 1)])
            if (x == a and y == b) or (x == b and y == a):
                break
        p = p + 1 if p + 1 < table.size else 0
    return p


@uncounted
def _item(key, e):
    return ((key >> S32) << S32) | np.uint64(e + 1)


@uncounted
def fill(table, ends):
    """Make the table that of the edges that are left; return their number."""
    table[:] = 0
    n = 0
    edges = ends.size // 8
    for e in range(edges):
        ahead = 2 * min(e + 16, edges - 1)
        prefetch(table, _first_place(table, _key(ends[_end(ahead)], ends[_end(ahead + 1)])))
        if ends[_end(2 * e)] != 0:
            key = _key(ends[_end(2 * e)], ends[_end(2 * e + 1)])
            p = _first_place(table, key)
            while table[p] != 0:
                p = p + 1 if p + 1 < table.size else 0
            table[p] = _item(key, e)
            n += 1
    return n


@uncounted
def _pop(heap, size):
    """Take the first entry from a heap in which each entry has four below it."""
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


@uncounted
def _put_back(entry, bound, heap, later, state):
    """Add an entry to the heap or, if it does not come before the bound, to those for later."""
    if entry >= bound:
        later[state[LATER]] = entry
        state[LATER] += 1
        return
    i = state[WAITING]
    state[WAITING] += 1
    while i > 0 and heap[(i - 1) >> 2] > entry:
        heap[i] = heap[(i - 1) >> 2]
        i = (i - 1) >> 2
    heap[i] = entry


@uncounted
def _roles(e, ends, nodes):
    """Return the ends of an edge, that with the longer list, to which the other's will be added, first."""
    a, b = np.int64(ends[_end(2 * e)]), np.int64(ends[_end(2 * e + 1)])
    return (a, b) if nodes[4 * a + LENGTH] >= nodes[4 * b + LENGTH] else (b, a)


@uncounted
def _coming(order, i, ends):
    """Return the edge of entry i, -1 if it is gone or there is no such entry."""
    e = np.int64(order[i] & LOW) if i < order.size else np.int64(-1)
    return e if e >= 0 and ends[_end(2 * e)] != 0 else np.int64(-1)


@uncounted
def _announce(order, head, ends, nodes, pool):
    """Announce what the entries to come will ask for.

    In 48 that is the edge, in 36 its clusters, in 24 a list, in 16 its edges.
    """
    if head + 48 < order.size:
        prefetch(ends, _end(2 * np.int64(order[head + 48] & LOW)))
    e = _coming(order, head + 36, ends)
    if e >= 0:
        prefetch(nodes, 4 * np.int64(ends[_end(2 * e)]))
        prefetch(nodes, 4 * np.int64(ends[_end(2 * e + 1)]))
    e = _coming(order, head + 24, ends)
    if e >= 0:
        _, b = _roles(e, ends, nodes)
        prefetch(pool, np.int64(nodes[4 * b + START]))
    e = _coming(order, head + 16, ends)
    if e >= 0:
        _, b = _roles(e, ends, nodes)
        start = np.int64(nodes[4 * b + START])
        for i in range(start, start + min(16, np.int64(nodes[4 * b + LENGTH]))):
            prefetch(ends, _end(np.int64(pool[i])))


@uncounted
def _look_up(a, halves, graph, table, state, scratch):
    """Find the edges of a that lead to the same neighbours as half-edges; drops those that are gone.

    Returns how many are left. The table will tell of the edge that stays. Done step by step for all at once, since one
    look-up does not wait for another: first keys, then what the table has for most of them, then the edges.
    """
    ends = graph[2]
    keys, found, _ = scratch
    for h in halves:
        prefetch(ends, _end(np.int64(h)))
    n = 0
    for i in range(halves.size):
        h = np.int64(halves[i])
        halves[n] = h
        keys[n] = _key(np.int64(ends[_end(h ^ 1)]), a)
        prefetch(table, _first_place(table, keys[n]))
        n += ends[_end(h)] != 0
    for i in range(n):
        item = table[_first_place(table, keys[i])]
        if (item ^ keys[i]) >> S32 == 0:
            prefetch(ends, _end(2 * (np.int64(item & LOW) - 1)))
    for i in range(n):
        h = np.int64(halves[i])
        p = _place(table, keys[i], a, np.int64(ends[_end(h ^ 1)]), ends)
        found[i] = np.int64(table[p] & LOW) - 1
        state[PAIRS] += table[p] == 0
        table[p] = _item(keys[i], max(found[i], h >> 1))
    return n


@uncounted
def _short_of(room, more, queue, state, scratch):
    """Return what a merge has too little of, 0 if nothing: room in the pool, and for so many edges elsewhere."""
    table, heap, later = queue
    if state[USED] + room > state[LIMIT]:
        return POOL
    if 3 * (state[PAIRS] + more) > 2 * table.size:
        return TABLE
    if state[WAITING] + more >= heap.size or state[LATER] + more >= later.size:
        return QUEUE
    return SCRATCH if more > scratch[0].size else 0


@uncounted
def merge_queued(order, bound, least, frozen, graph, lists, queue, state, scratch, out):
    """Merge all pairs whose entries come before the bound and have a score of at least `least`, best first.

    order has the sorted entries of the range, of which state[HEAD] are done; queue is the table, the heap and what
    waits for later; frozen may be empty if none is. The rest is as for `merge_near`. Changes all arrays. Returns
    whether there was enough room: state[SHORT] says for what there was not, and state[NEED] how much more it takes.
    """
    _, queued, ends, _ = graph
    nodes, pool = lists
    table, heap, later = queue
    _, found, raised = scratch
    last = last_entry(least)
    while state[HEAD] < order.size or state[WAITING] > 0:
        if state[WAITING] > 0 and (state[HEAD] == order.size or heap[0] < order[state[HEAD]]):
            entry = heap[0]
            _pop(heap, state[WAITING])
            state[WAITING] -= 1
        else:
            entry = order[state[HEAD]]
            _announce(order, state[HEAD], ends, nodes, pool)
            state[HEAD] += 1
        e = np.int64(entry & LOW)
        if ends[_end(2 * e)] == 0 or queued[4 * e + 2] != entry or entry > last:
            continue
        a, b = _roles(e, ends, nodes)
        room, more = most_room(a, b, nodes), np.int64(nodes[4 * b + LENGTH])
        state[SHORT], state[NEED] = _short_of(room, more, queue, state, scratch), room
        if state[SHORT] != 0:
            _put_back(entry, bound, heap, later, state)
            return False
        queued[4 * e + 2] = entry_of(e, graph)
        if queued[4 * e + 2] != entry:  # too early
            _put_back(queued[4 * e + 2], bound, heap, later, state)
        elif frozen.size > 0 and (frozen[a] or frozen[b]):  # neither end will merge, so the edge stays as it is
            frozen[a] = frozen[b] = True
        else:
            unite(a, b, entry, nodes, graph, out, state[MERGES])
            state[MERGES] += 1
            state[USED] = make_room(a, more, nodes, pool, state[USED])
            start = np.int64(nodes[4 * b + START])
            halves = pool[start : start + more]
            n = _look_up(a, halves, graph, table, state, scratch)
            for i in range(join(a, halves[:n], found, raised, graph, nodes, pool)):
                _put_back(raised[i], bound, heap, later, state)
            nodes[4 * b + LENGTH] = 0
    return True
