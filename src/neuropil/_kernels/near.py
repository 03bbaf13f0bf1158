"""Merges that need no queue, done in order of place, where memory is near, and sorted in afterwards.

Key insight: what a cluster's first edge, its best, leads to, it may merge with whatever happens elsewhere before their
turn, in two cases. The edge is the best of both ends; then it stays that until they merge. Or no other neighbour of the
cluster has an edge that comes before it; then these and the cluster stay as they are until its turn, and what the other
end does meanwhile leaves their edge as it is. So a large cluster takes in small ones long before their turn, and
without a look at its own edges, which are many. Where neither is the case, what comes before is tried first.

What comes before may have something before it, and so on through the volume, far from what is in the cache. So a chain
that leads to what will be visited much later is given up; what is never visited again is left to the queue.

Of each cluster the first few edges are known, and a bound that no other comes before. A merge leads to a search for
pairs of edges that become one: in the list of the cluster that takes the other in or, where these are shorter, in the
lists of their neighbours.

Source: chains of nearest neighbours for linkages that are reducible, as in Murtagh, "A survey of recent advances in
hierarchical clustering algorithms", The Computer Journal 1983; the second case is ours.
"""

from __future__ import annotations

import numpy as np

from neuropil._kernels.clusters import (
    BEST,
    LENGTH,
    LOW,
    NEVER,
    START,
    add,
    entry_of,
    insert_best,
    last_entry,
    make_room,
    most_room,
    unite,
)
from neuropil._kernels.clusters import end as _end
from neuropil._kernels.prefetch import prefetch
from neuropil._kernels.uncounted import uncounted

NO_TURN = 0xFFFFFFFF  # of a cluster that is known not to merge

# Places of the state, which lives on when a function returns for want of room: merges done, clusters visited, the part
# of the pool that is used, and may be, and the cluster whose neighbours are marked.
MERGES, VISIT, USED, LIMIT, MARKED = range(5)


@uncounted
def _remove(best, a, e):
    """Forget edge e of a."""
    q = BEST * a
    n = 0
    for i in range(BEST - 1):
        entry = best[q + i]
        best[q + n] = entry
        n += (entry & LOW) != np.uint64(e)
    for i in range(n, BEST - 1):
        best[q + i] = best[q + BEST - 1]


@uncounted
def _unite_best(best, b, a):
    """Note what is known of a's edges as b's."""
    bound = best[BEST * a + BEST - 1]
    for i in range(BEST):
        best[BEST * b + i] = min(best[BEST * b + i], bound)
    for i in range(BEST - 1):
        insert_best(best, b, best[BEST * a + i])


@uncounted
def _drop_gone(a, ends, nodes, pool):
    """Drop edges that are gone from the list of a; return the number of others."""
    start = np.int64(nodes[4 * a + START])
    n = start
    for i in range(start, start + np.int64(nodes[4 * a + LENGTH])):
        pool[n] = pool[i]
        n += ends[_end(np.int64(pool[i]))] != 0
    nodes[4 * a + LENGTH] = n - start
    return n - start


@uncounted
def _first(a, graph, nodes, pool, best):
    """Return the first of the entries of a, NEVER for none; drops edges that are gone from the list if it is read."""
    _, queued, ends, _ = graph
    q = BEST * a
    bound = best[q + BEST - 1]
    if best[q] < bound or bound == NEVER:
        return best[q]
    for i in range(BEST):
        best[q + i] = NEVER
    start = np.int64(nodes[4 * a + START])
    for i in range(start, start + _drop_gone(a, ends, nodes, pool)):
        insert_best(best, a, queued[4 * (np.int64(pool[i]) >> 1) + 2])
    return best[q]


@uncounted
def _find_by_marks(b, halves, ends, nodes, pool, state, marks, found):
    """Find the half-edges of b that lead to the same neighbours as others, -1 for none.

    marks says by which half-edge a cluster was a neighbour of the one whose neighbours were marked last; it is kept up
    for that alone, so that of those that merge into the same one after the other only the first needs a look at all.
    """
    if state[MARKED] != b:
        state[MARKED] = b
        start = np.int64(nodes[4 * b + START])
        for i in range(start, start + _drop_gone(b, ends, nodes, pool)):
            marks[np.int64(ends[_end(np.int64(pool[i]) ^ 1)])] = pool[i]
    for i in range(halves.size):
        c = np.int64(ends[_end(np.int64(halves[i]) ^ 1)])
        h = np.int64(marks[c])
        found[i] = h if np.int64(ends[_end(h)]) == b and np.int64(ends[_end(h ^ 1)]) == c else -1


@uncounted
def _find_by_neighbours(b, halves, ends, nodes, pool, found):
    """Find the half-edges of b that lead to the same neighbours as others, -1 for none, in the lists of these."""
    for i in range(halves.size):
        c = np.int64(ends[_end(np.int64(halves[i]) ^ 1)])
        start = np.int64(nodes[4 * c + START])
        stop = start + np.int64(nodes[4 * c + LENGTH])
        while start < stop and np.int64(ends[_end(np.int64(pool[start]) ^ 1)]) != b:
            start += 1
        found[i] = np.int64(pool[start]) ^ 1 if start < stop else -1


@uncounted
def _join(b, halves, found, listed, marked, graph, lists, marks):
    """Make half-edges those of b; where `found` has one of b, not -1, both edges become one; keep marks up."""
    _, queued, ends, _ = graph
    nodes, pool, best, _ = lists
    at = np.int64(nodes[4 * b + START]) + np.int64(nodes[4 * b + LENGTH])
    for i in range(halves.size):
        h, f = np.int64(halves[i]), found[i] >> 1
        d = h >> 1
        c = np.int64(ends[_end(h ^ 1)])
        if b == marked:
            marks[c] = h if f < d else found[i]
        elif c == marked:
            marks[b] = h ^ 1 if f < d else found[i] ^ 1
        if f < 0:
            ends[_end(h)] = b
        else:
            kept, gone = max(d, f), min(d, f)
            add(kept, gone, graph)
            entry = entry_of(kept, graph)
            queued[4 * kept + 2] = entry
            if kept == d:
                ends[_end(h)] = b
            queued[4 * gone + 3] = 0
            _remove(best, c, gone)
            _remove(best, c, kept)
            insert_best(best, c, entry)
            if listed:
                _remove(best, b, gone)
                _remove(best, b, kept)
                insert_best(best, b, entry)
            if kept == f:
                continue
        if listed:
            pool[at] = h
            at += 1
    if listed:
        nodes[4 * b + LENGTH] = at - np.int64(nodes[4 * b + START])


@uncounted
def _lists_are_shorter(b, halves, few, ends, nodes):
    """Tell whether the lists of what half-edges lead to, all kept up, are shorter in sum than that of b."""
    n = np.int64(nodes[4 * b + LENGTH])
    for i in range(halves.size):
        length = np.int64(nodes[4 * np.int64(ends[_end(np.int64(halves[i]) ^ 1)]) + LENGTH])
        n -= length
        if length > few or n < 0:
            return False
    return True


@uncounted
def _merge(a, b, entry, early, few, graph, lists, state, scratch, out):
    """Merge a into b, whose list is kept up while it is among the short ones and has room in the pool."""
    ends = graph[2]
    nodes, pool, best, _ = lists
    found, _, marks = scratch
    e = np.int64(entry & LOW)
    unite(b, a, entry, nodes, graph, out, state[MERGES])
    state[MERGES] += 1
    n = _drop_gone(a, ends, nodes, pool)
    listed = nodes[4 * b + LENGTH] <= few
    if listed:
        if np.int64(nodes[4 * b + LENGTH]) + n > few:
            _drop_gone(b, ends, nodes, pool)
        state[USED] = make_room(b, n, nodes, pool, state[USED])
        _remove(best, a, e)
        _remove(best, b, e)
        _unite_best(best, b, a)
    start = np.int64(nodes[4 * a + START])
    halves = pool[start : start + n]
    if (early and not listed) or _lists_are_shorter(b, halves, few, ends, nodes):
        _find_by_neighbours(b, halves, ends, nodes, pool, found)
    else:
        _find_by_marks(b, halves, ends, nodes, pool, state, marks, found)
    _join(b, halves, found, listed, state[MARKED], graph, lists, marks)
    nodes[4 * a + LENGTH] = 0


@uncounted
def _next(a, last, few, held, known, graph, lists):
    """Return the cluster that a may merge with now, or 0; one to be tried before it, or 0; and whether a merges early.

    It does if the other end has edges that come before theirs.
    """
    nodes, pool, best, turns = lists
    ends = graph[2]
    if turns[a] == NO_TURN or not 0 < nodes[4 * a + LENGTH] <= few or (held[a] and not known):
        return 0, 0, False
    entry = _first(a, graph, nodes, pool, best)
    if entry > last:
        return 0, 0, False
    e = np.int64(entry & LOW)
    b = np.int64(ends[_end(2 * e)]) ^ np.int64(ends[_end(2 * e + 1)]) ^ a
    if held[b] and (held[a] or not known):
        return 0, 0, False
    if nodes[4 * b + LENGTH] <= few:
        if _first(b, graph, nodes, pool, best) == entry:
            return b, 0, False
        if turns[b] != NO_TURN:
            return 0, b, False
    if held[a] or not known:
        return 0, 0, False
    start = np.int64(nodes[4 * a + START])
    for i in range(start, start + np.int64(nodes[4 * a + LENGTH])):
        c = np.int64(ends[_end(np.int64(pool[i]) ^ 1)])
        if c == 0 or c == b:
            continue
        if nodes[4 * c + LENGTH] > few:
            return 0, 0, False
        if best[BEST * c] < entry and _first(c, graph, nodes, pool, best) < entry:
            return 0, c if turns[c] != NO_TURN else 0, False
    return b, 0, True


@uncounted
def _announce(visits, k, ends, nodes, pool, best):
    """Announce what the k-th visit and those soon after it will ask for, stage by stage.

    These are clusters, then lists, edges, and their other ends.
    """
    if k + 9 < visits.size:
        prefetch(nodes, 4 * np.int64(visits[k + 9]))
        prefetch(best, BEST * np.int64(visits[k + 9]))
    if k + 6 < visits.size:
        prefetch(pool, np.int64(nodes[4 * np.int64(visits[k + 6]) + START]))
    if k + 3 < visits.size:
        a = np.int64(visits[k + 3])
        start = np.int64(nodes[4 * a + START])
        for i in range(start, start + min(16, np.int64(nodes[4 * a + LENGTH]))):
            prefetch(ends, _end(np.int64(pool[i])))
    if k < visits.size:
        a = np.int64(visits[k])
        start = np.int64(nodes[4 * a + START])
        for i in range(start, start + min(16, np.int64(nodes[4 * a + LENGTH]))):
            c = np.int64(ends[_end(np.int64(pool[i]) ^ 1)])
            prefetch(nodes, 4 * c)
            prefetch(best, BEST * c)


@uncounted
def merge_near(least, few, reach, visits, held, known, graph, lists, state, scratch, out):
    """Merge clusters that may, from visits[state[VISIT]] on, as far as no cluster of more than `few` edges has to.

    What is more than `reach` visits ahead is not tried yet. graph is the rows of edges, seen as float64, uint64 and
    uint32, and the histograms (first entry of each edge, next entry, bins, counts, q), empty with q < 0 for means.
    lists are the clusters, the pool, BEST numbers for each cluster, 0 where nothing is known, and the turn of each
    cluster, its place in `visits`, 0 for those that are not there, which becomes NO_TURN. The lists of clusters of
    more than `few` edges are not kept up. `known` says whether all edges of clusters that are held are known; if
    not, these do not merge, and none merges early. Of a pair that are both held nothing is done. scratch has room
    for `few` edges, and for clusters to be tried. Changes all arrays. Returns whether the pool was long enough.

    Threads may share rows, clusters, pool, numbers and turns if only clusters that are held, or have more than `few`
    edges, lie between what they visit.
    """
    nodes, pool, best, turns = lists
    _, waiting, _ = scratch
    last = last_entry(least)
    while state[VISIT] < visits.size:
        horizon = state[VISIT] + reach
        _announce(visits, horizon, graph[2], nodes, pool, best)
        waiting[0] = visits[state[VISIT]]
        n = 1
        while n > 0:
            a = np.int64(waiting[n - 1])
            b, before, early = _next(a, last, few, held, known, graph, lists)
            if before != 0 and (n == waiting.size or np.int64(turns[before]) > horizon):
                n = 0  # what waits will be visited, or is left to the queue
            elif before != 0:
                waiting[n] = before
                n += 1
            elif b == 0:
                turns[a] = NO_TURN
                n -= 1
            else:
                if nodes[4 * b + LENGTH] <= few and state[USED] + most_room(a, b, nodes) > state[LIMIT]:
                    return False
                entry = best[BEST * a]
                if not early and (held[a] or (nodes[4 * a + LENGTH] > nodes[4 * b + LENGTH] and not held[b])):
                    a, b = b, a
                _merge(a, b, entry, early, few, graph, lists, state, scratch, out)
                waiting[n - 1] = b
                n -= early or np.int64(turns[b]) > horizon
        state[VISIT] += 1
    return True
