"""Slow, obvious twin of the run length: the definition edge by edge, in dictionaries."""

from __future__ import annotations

import math
from collections import Counter


def run_length(positions, edges, skeletons, segments, threshold=0, no_merge=()):
    """ERL, ERL of perfect segments, lengths of edges by kind, merging segments, merges, splits."""
    nodes = Counter(zip(skeletons, segments))
    covered = {g: {s for (s, h), k in nodes.items() if h == g and k >= threshold} for g in set(segments) - {0}}
    merging = {g for g, owners in covered.items() if len(owners) > 1 or g in no_merge}
    lengths, runs, kinds = Counter(), Counter(), Counter()
    for u, v in edges:
        length = math.dist(positions[u], positions[v])
        lengths[skeletons[u]] += length
        if 0 in (segments[u], segments[v]):
            kind = "omitted"
        elif segments[u] != segments[v]:
            kind = "split"
        elif segments[u] in merging:
            kind = "merged"
        else:
            kind = "correct"
            runs[skeletons[u], segments[u]] += length
        kinds[kind] += length
    total = sum(lengths.values())
    erl = sum(run**2 for run in runs.values()) / total if total else math.nan
    true = sum(length**2 for length in lengths.values()) / total if total else math.nan
    pieces = [len({g for (t, g) in nodes if t == s} - {0}) for s in set(skeletons)]
    merges = sum(max(len(owners) - 1, 0) for owners in covered.values())
    return erl, true, kinds, merging, merges, sum(max(one - 1, 0) for one in pieces)


def funlib(positions, edges, skeletons, segments):
    """ERL as funlib.evaluate defines it: a skeleton's edge is merged if its segment merges and the skeleton is merged.

    Written from the definition in funkelab/funlib.evaluate (run_length.py): there background, too, can be the segment
    that several skeletons share, but an edge on background is omitted before that is asked.
    """
    pairs = set(zip(skeletons, segments))
    owners = Counter(g for _, g in pairs)
    merged_skeletons = {s for s, g in pairs if owners[g] > 1}
    lengths, correct = Counter(), {}
    for u, v in edges:
        s, length = skeletons[u], math.dist(positions[u], positions[v])
        lengths[s] += length
        correct.setdefault(s, Counter())
        if segments[u] == 0 or segments[v] == 0 or segments[u] != segments[v]:
            continue
        if not (s in merged_skeletons and owners[segments[u]] > 1):
            correct[s][segments[u]] += length
    total = sum(lengths.values())
    return sum(
        lengths[s] / total * sum(run * (run / lengths[s]) for run in runs.values() if lengths[s])
        for s, runs in correct.items()
    )
