"""Clusters of fragments and the edges between them, which become one where clusters merge.

An edge is a row of 32 bytes, half a line of cache: sum, number, entry in the queue, and its two ends, four bytes each.
Number 2 e or 2 e + 1 names an edge as seen from one end, a half-edge, and each cluster has a list of those in a pool,
where some may be gone. A cluster is a row of 16 bytes: start of its list, length, room, name.

An entry is one number, score above and edge below, so that equal scores go by edge; the smallest comes first. Of two
edges that become one, that with the greater number stays.

A cluster has the name of one of its fragments, from which `replay` finds the smallest when all merges are known.

Key insight: a score never rises by merging, so what two edges become comes no earlier than the first of them. The
first edge of a cluster stays that until it is gone or comes later itself, whatever happens to the others.
"""

from __future__ import annotations

import numpy as np

from neuropil._kernels.linkage import find
from neuropil._kernels.linkage import join as join_roots
from neuropil._kernels.prefetch import prefetch
from neuropil._kernels.uncounted import uncounted

LOW = np.uint64(0xFFFFFFFF)
S32 = np.uint64(32)
NEVER = ~np.uint64(0)
START, LENGTH, ROOM, NAME = range(4)
BEST = 4  # numbers per cluster: its first entries, rising, and the bound; what is not known repeats that


@uncounted
def end(h):
    """Return where the end h of an edge is in the rows, seen as numbers of 32 bits; 0 there means the edge is gone."""
    return 8 * (h >> 1) + 6 + (h & 1)


@uncounted
def _score(e, graph):
    """Return the mean, or, if q >= 0, the middle of the bin where the q-quantile is."""
    rows, _, _, (heads, after, bins, counts, q) = graph
    total, number = rows[4 * e], rows[4 * e + 1]
    if q < 0:
        return np.float32(total / number)
    pivot = min(np.int64(np.floor(q * number + 1e-9)) + 1, np.int64(number))
    i = heads[e]
    below = counts[i]
    while below < pivot:
        i = after[i]
        below += counts[i]
    return np.float32((bins[i] + 0.5) / 256)


@uncounted
def entry_of(e, graph):
    """Return the entry of an edge: greater scores, then smaller edges, come first."""
    return ((LOW - np.uint64(np.float32(_score(e, graph)).view(np.uint32))) << S32) | np.uint64(e)


@uncounted
def last_entry(least):
    """Return the last entry of those with a score of at least `least`; it is before NEVER."""
    return ((LOW - np.uint64(np.float32(least).view(np.uint32))) << S32) | (LOW - np.uint64(1))


@uncounted
def add(e, f, graph):
    """Add edge f to edge e; histograms are lists in ascending order of bins."""
    rows, _, _, (heads, after, bins, counts, _) = graph
    rows[4 * e] += rows[4 * f]
    rows[4 * e + 1] += rows[4 * f + 1]
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


@uncounted
def write_keys(places, axis, cuts, spans, shift, keys, sizes):
    """Write, for each cluster from 1 on, the number of its block among `spans` blocks of 2**shift voxels a side.

    Blocks of the parts that are cut after places `cuts` of an axis come one after the other; sizes counts theirs.
    """
    for a in range(1, places.shape[0]):
        part = 0
        for cut in cuts:
            part += places[a, axis] > cut
        sizes[part] += 1
        key = part
        for k in range(3):
            key = key * spans[k] + (np.int64(places[a, k]) >> shift)
        keys[a - 1] = key


@uncounted
def write_rows(u, v, total, count, one, first, last, rows, ends):
    """Write edges first ... last - 1 as rows, seen as float64 and as uint32, but for their entries.

    Sums are whole numbers, `one` of a total of 1.
    """
    for e in range(first, last):
        rows[4 * e], rows[4 * e + 1] = np.rint(np.float64(total[e]) * one), count[e]
        ends[end(2 * e)], ends[end(2 * e + 1)] = u[e], v[e]


@uncounted
def write_entries(graph, first, last, sides, nodes, few, border):
    """Write the entries of edges first ... last - 1; mark clusters with edges to another side, if sides are given.

    Those of more than `few` edges have no side.
    """
    _, queued, ends, _ = graph
    for e in range(first, last):
        queued[4 * e + 2] = entry_of(e, graph)
        if sides.size == 0:
            continue
        a, b = np.int64(ends[end(2 * e)]), np.int64(ends[end(2 * e + 1)])
        if sides[a] != sides[b] and nodes[4 * a + LENGTH] <= few and nodes[4 * b + LENGTH] <= few:
            border[a] = border[b] = True


@uncounted
def count_edges(ends, first, last):
    """Return how many of the edges first ... last - 1 are left."""
    n = 0
    for e in range(first, last):
        n += ends[end(2 * e)] != 0
    return n


@uncounted
def pack(graph, first, last, start, which, order):
    """Put those of the edges first ... last - 1 that are left behind each other, from `first` on.

    Their numbers will be `start` and so on; which gets those they had, order their new entries.
    """
    _, queued, ends, _ = graph
    n = first
    for e in range(first, last):
        if ends[end(2 * e)] != 0:
            for i in range(4):
                queued[4 * n + i] = queued[4 * e + i]
            queued[4 * n + 2] = order[start] = (queued[4 * e + 2] >> S32 << S32) | np.uint64(start)
            which[start] = e
            start += 1
            n += 1


@uncounted
def count_halves(ends, first, last, counts):
    """Count the edges first ... last - 1 of each cluster."""
    for h in range(2 * first, 2 * last):
        counts[np.int64(ends[end(h)])] += np.uint32(1)


@uncounted
def place_lists(counts, nodes):
    """Lay out lists, one behind the other, and in each what comes from the ranges of edges that have been counted.

    Counts become the places where ranges write. Returns where lists end.
    """
    start = np.int64(0)
    counts[:, 0] = 0
    for a in range(counts.shape[1]):
        nodes[4 * a + START] = start
        for k in range(counts.shape[0]):
            n = np.int64(counts[k, a])
            counts[k, a] = start
            start += n
        nodes[4 * a + LENGTH] = nodes[4 * a + ROOM] = start - np.int64(nodes[4 * a + START])
    return start


@uncounted
def write_lists(ends, first, last, places, pool):
    """Write the edges first ... last - 1 into the lists of their clusters; places move on."""
    for h in range(2 * first, 2 * last):
        a = np.int64(ends[end(h)])
        if a != 0:
            pool[np.int64(places[a])] = h
            places[a] += np.uint32(1)


@uncounted
def insert_best(best, a, entry):
    """Note an entry of a; the last of those known becomes the bound."""
    q = BEST * a
    i = BEST - 1
    if entry >= best[q + i]:
        return
    while i > 0 and best[q + i - 1] > entry:
        best[q + i] = best[q + i - 1]
        i -= 1
    best[q + i] = entry


@uncounted
def write_best(graph, first, last, nodes, pool, best):
    """Note the first entries of clusters first ... last - 1 as the best, all NEVER to begin with."""
    _, queued, ends, _ = graph
    for a in range(first, last):
        start = np.int64(nodes[4 * a + START])
        for i in range(start, start + np.int64(nodes[4 * a + LENGTH])):
            prefetch(ends, end(np.int64(pool[min(i + 24, pool.size - 1)])))
            insert_best(best, a, queued[4 * (np.int64(pool[i]) >> 1) + 2])


@uncounted
def make_room(a, more, nodes, pool, used):
    """Move the list of a to the end of what is used of the pool if it has no room for more; return the new end."""
    start, length = np.int64(nodes[4 * a + START]), np.int64(nodes[4 * a + LENGTH])
    n = length + more
    if n <= np.int64(nodes[4 * a + ROOM]):
        return used
    for i in range(length):
        pool[used + i] = pool[start + i]
    nodes[4 * a + START], nodes[4 * a + ROOM] = used, n + n // 2
    return used + n + n // 2


@uncounted
def most_room(a, b, nodes):
    """Return how much of the pool `make_room` may use for a and b."""
    n = np.int64(nodes[4 * a + LENGTH]) + np.int64(nodes[4 * b + LENGTH])
    return n + n // 2


@uncounted
def unite(a, b, entry, nodes, graph, out, k):
    """Note merge k, of a and b, whose edge has that entry, and remove the edge.

    The cluster a keeps its name: if it takes in b early, merges of an earlier turn may follow, and b is not in those.
    """
    u, v, merged = out
    u[k], v[k], merged[k] = nodes[4 * a + NAME], nodes[4 * b + NAME], entry
    graph[1][4 * np.int64(entry & LOW) + 3] = 0  # both ends


@uncounted
def join(a, halves, found, raised, graph, nodes, pool):
    """Add half-edges to the list of a, which has room; where `found` has an edge of a, not -1, both become one.

    Entries become those of the new scores if these come earlier. Returns how many do; they are listed in `raised`.
    """
    _, queued, ends, _ = graph
    start = np.int64(nodes[4 * a + START])
    at = start + np.int64(nodes[4 * a + LENGTH])
    k = 0
    for i in range(halves.size):
        h, f = np.int64(halves[i]), found[i]
        d = h >> 1
        kept = max(d, f)
        if f >= 0:
            gone = min(d, f)
            add(kept, gone, graph)
            before, entry = queued[4 * kept + 2], entry_of(kept, graph)
            raised[k] = entry
            k += entry < before
            queued[4 * kept + 2] = min(entry, before)
            queued[4 * gone + 3] = 0
        ends[end(h)] = a if kept == d else 0
        pool[at] = h  # overwritten by the next one if it does not stay
        at += kept == d
    nodes[4 * a + LENGTH] = at - start
    return k


@uncounted
def reorder(u, v, entry, places, out):
    """Bring merges into the order of the sorted entries out[2]; places has one for each edge."""
    for i in range(entry.size):
        places[np.int64(entry[i] & LOW)] = i
    for n in range(entry.size):
        i = places[np.int64(out[2][n] & LOW)]
        out[0][n], out[1][n] = u[i], v[i]


@uncounted
def replay(one, two, which, parents, out):
    """Put two lists of merges (u, v, entry), each best first, together; name clusters by their smallest fragments.

    Edges of the second have the numbers `which`. parents are 0 ... n, and lead to the names of what is left at the end.
    """
    u, v, entry = out
    i, k = 0, 0
    after = _renumbered(two[2], k, which)
    for n in range(u.size):
        if i < one[2].size and one[2][i] < after:
            a, b, entry[n] = one[0][i], one[1][i], one[2][i]
            i += 1
        else:
            a, b, entry[n] = two[0][k], two[1][k], after
            k += 1
            after = _renumbered(two[2], k, which)
        a, b = find(parents, np.int64(a)), find(parents, np.int64(b))
        u[n], v[n] = join_roots(parents, a, b), max(a, b)


@uncounted
def _renumbered(entries, k, which):
    """Return the k-th entry with its edge's old number; NEVER behind the last."""
    return (entries[k] & ~LOW) | np.uint64(which[np.int64(entries[k] & LOW)]) if k < entries.size else NEVER


@uncounted
def rename(ends, nodes, parents):
    """Replace clusters, (n, 2), by their smallest fragments."""
    for i in range(ends.shape[0]):
        for k in range(2):
            ends[i, k] = find(parents, np.int64(nodes[4 * np.int64(ends[i, k]) + NAME]))
