"""Contacts link by link, and agglomeration that looks at every pair before each merge."""

from __future__ import annotations

import numpy as np
from reference_watershed import grid_links

STEPS = 255 * 2**16


def contacts(fragments, affinities):
    """Return {(u, v): affinities of all links between fragments u < v}."""
    flat, found = fragments.ravel().tolist(), {}
    for v, w, a in grid_links(affinities):
        pair = tuple(sorted((flat[v], flat[w])))
        if pair[0] != pair[1] and pair[0] != 0:
            found.setdefault(pair, []).append(a)
    return found


def bins_of(links):
    """Return the bin of each link."""
    return [min(int(np.float32(a) * 256), 255) for a in links]


def agglomerate(found, score):
    """Merge best first; return [(smallest node, smallest node, score)] and whether any choice was between equals.

    found is {(u, v): what score takes, a list}; lists of parallel edges are joined.
    """
    ranks = {pair: i for i, pair in enumerate(sorted(found))}
    edges = {frozenset(pair): (ranks[pair], list(links)) for pair, links in found.items()}
    merges, tied = [], False
    while edges:
        order = sorted((-score(links), rank) for rank, links in edges.values())
        tied |= len(order) > 1 and order[0][0] == order[1][0]
        pair = next(p for p, (rank, links) in edges.items() if (-score(links), rank) == order[0])
        a, b = sorted(pair)
        merges.append((a, b, -order[0][0]))
        joined = {}
        for p, (rank, links) in edges.items():
            if p != pair:
                q = frozenset(a if x == b else x for x in p)
                old_rank, old = joined.get(q, (rank, []))
                joined[q] = (max(rank, old_rank), old + links)
        edges = joined
    return merges, tied


def mean(links):
    """The mean of links in whole steps, whose sum is exact."""
    total = sum(int(np.rint(np.float32(a) * np.float32(STEPS))) for a in links)
    return float(np.float32(total / len(links)) / np.float32(STEPS))


def quantile(q):
    """Return the score of a list of bins: the middle of the bin where the q-quantile is."""
    return lambda bins: (sorted(bins)[min(int(np.floor(q * len(bins) + 1e-9)), len(bins) - 1)] + 0.5) / 256
