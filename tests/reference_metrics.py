"""Slow, obvious twins of the metrics: dictionaries and loops over voxels, definitions written out."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np


def counts(proposal, truth, background, mask=None):
    """n_ij as a Counter over pairs; a singleton of the proposal gets an id of its own, ("lone", position)."""
    n = Counter()
    kept = np.ones(truth.shape, bool) if mask is None else mask
    for k, (p, t, inside) in enumerate(zip(proposal.ravel().tolist(), truth.ravel().tolist(), kept.ravel().tolist())):
        if not inside or t == 0 or (p == 0 and background == "excluded"):
            continue
        n[("lone", k) if p == 0 and background == "singletons" else p, t] += 1
    return n


def margins(n):
    s, t = Counter(), Counter()
    for (i, j), voxels in n.items():
        s[i] += voxels
        t[j] += voxels
    return s, t


def rand(proposal, truth, background="singletons", mask=None):
    """V_merge, V_split, F."""
    n = counts(proposal, truth, background, mask)
    s, t = margins(n)
    both, proposed, true = (sum(v * v for v in x.values()) for x in (n, s, t))
    if not n:
        return math.nan, math.nan, math.nan
    return both / proposed, both / true, 2 * both / (proposed + true)


def information(proposal, truth, background="segment", mask=None):
    """H(S|T), H(T|S) in bits."""
    n = counts(proposal, truth, background, mask)
    s, t = margins(n)
    total = sum(n.values())
    if not n:
        return math.nan, math.nan
    split = sum(v / total * math.log2(t[j] / v) for (i, j), v in n.items())
    return split, sum(v / total * math.log2(s[i] / v) for (i, j), v in n.items())


def cremi_rand_error(proposal, truth):
    """Adapted Rand error as the CREMI and SNEMI3D scripts compute it, from a dense table with row and column 0."""
    table = np.zeros((len(np.unique(truth)) + 1, len(np.unique(proposal)) + 1))
    truths, proposals = ([0, *np.unique(a[a > 0]).tolist()] for a in (truth, proposal))
    for (p, t), voxels in Counter(zip(proposal.ravel().tolist(), truth.ravel().tolist())).items():
        table[truths.index(t), proposals.index(p)] = voxels
    foreground = table[1:]
    lone = foreground[:, 0].sum() / truth.size
    both = (foreground[:, 1:] ** 2).sum() + lone
    precision = both / ((foreground[:, 1:].sum(axis=0) ** 2).sum() + lone)
    recall = both / (foreground.sum(axis=1) ** 2).sum()
    return 1 - 2 * precision * recall / (precision + recall)


def cut(fragments, u, v, score, threshold):
    """Merge fragments along all edges of score >= threshold."""
    root = {int(f): int(f) for f in [*np.unique(fragments), *u, *v]}

    def find(a):
        return a if root[a] == a else find(root[a])

    for a, b, w in zip(u.tolist(), v.tolist(), score.tolist()):
        if w >= threshold:
            root[find(a)] = find(b)
    return np.array([find(f) for f in fragments.ravel().tolist()], np.uint64).reshape(fragments.shape)


def merge_levels(score):
    """Thresholds of a merge tree: one above all scores, then each score, descending."""
    return [np.inf, *sorted(set(score.tolist()), reverse=True)]


def pixel_outcome(boundary_map, truth_boundary, threshold, mask):
    """True boundary, false boundary, missed boundary, pixels."""
    outcome = [0, 0, 0, 0]
    for value, true, inside in zip(boundary_map.ravel(), truth_boundary.ravel(), mask.ravel()):
        if not inside:
            continue
        interior = 1.0 - (int(value) * (1 / 255) if boundary_map.dtype == np.uint8 else float(value))
        called = interior < threshold
        outcome[0] += called and true
        outcome[1] += called and not true
        outcome[2] += not called and true
        outcome[3] += 1
    return tuple(int(x) for x in outcome)


def line_search(errors):
    """Smallest best threshold in percent: 0, 10 ... 100; then 5 to either side; then 1 ... 4 to either side."""
    best = min(range(0, 101, 10), key=lambda p: (errors[p], p))
    tried = set(range(0, 101, 10))
    for steps in ([-5, 5], [-4, -3, -2, -1, 1, 2, 3, 4]):
        tried |= {best + step for step in steps if 0 <= best + step <= 100}
        best = min(tried, key=lambda p: (errors[p], p))
    return best
