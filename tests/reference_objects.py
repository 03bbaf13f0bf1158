"""Slow, obvious twins of the scores of objects, clefts and partners: all objects against all, voxel by voxel.

`cremi_clefts`, `cremi_partners` and `funlib_detection` follow the published definitions of those programs (distances of
all voxels, one square matrix of costs, one matrix of overlaps with background in row and column 0).
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy.optimize import linear_sum_assignment


def best_sum(rows, columns, weights):
    """Greatest sum of weights of pairs that share no row and no column, by trying all sets of pairs."""
    pairs = list(zip(rows, columns, weights))
    best = 0
    for size in range(1, len(pairs) + 1):
        for chosen in itertools.combinations(pairs, size):
            if len({i for i, _, _ in chosen}) == len({j for _, j, _ in chosen}) == size:
                best = max(best, sum(w for _, _, w in chosen))
    return best


def instances(proposal, truth, threshold, only_truth):
    """TP, FP, FN at a threshold of intersection over union; the most matches there are, by one matrix."""
    if only_truth:
        proposal = np.where(truth > 0, proposal, 0)
    a, b = ([one for one in np.unique(x) if one > 0] for x in (proposal, truth))
    fits = np.zeros((len(a), len(b)))
    for (k, i), (m, j) in itertools.product(enumerate(a), enumerate(b)):
        both = np.count_nonzero((proposal == i) & (truth == j))
        either = np.count_nonzero((proposal == i) | (truth == j))
        fits[k, m] = both / either >= threshold
    matched = int(fits[linear_sum_assignment(fits, maximize=True)].sum())
    return matched, len(a) - matched, len(b) - matched


def funlib_detection(truth, test, least):
    """TP, FP, FN of dense component ids, matched by the greatest total overlap of at least so many voxels."""
    overlaps = np.zeros((int(test.max()) + 1, int(truth.max()) + 1), np.int64)
    for i, j in zip(test.ravel().tolist(), truth.ravel().tolist()):
        if i > 0 and j > 0:
            overlaps[i, j] += 1
    matches = zip(*linear_sum_assignment(overlaps, maximize=True))
    matched = sum(1 for i, j in matches if i > 0 and j > 0 and overlaps[i, j] >= least)
    return matched, int(test.max()) - matched, int(truth.max()) - matched


def cremi_clefts(proposal, truth, voxel_size, tolerance):
    """False voxels, missed voxels, mean distance to truth, mean distance to proposal."""
    places = [np.argwhere(x) * np.asarray(voxel_size) for x in (proposal, truth)]
    result = []
    for of, to in (places, places[::-1]):
        nearest = [min((float(np.linalg.norm(one - other)) for other in to), default=math.inf) for one in of]
        result.append((sum(d > tolerance for d in nearest), float(np.mean(nearest)) if nearest else math.nan))
    return result[0][0], result[1][0], result[0][1], result[1][1]


def cremi_partners(proposal, truth, proposal_segments, truth_segments, tolerance):
    """Matches and the sum of their costs, from a square matrix where what cannot match costs twice the tolerance."""
    size = max(len(proposal), len(truth))
    costs = np.full((size, size), 2.0 * tolerance)
    for i, j in itertools.product(range(len(proposal)), range(len(truth))):
        before, behind = (math.dist(proposal[i][k], truth[j][k]) for k in (0, 1))
        if tuple(proposal_segments[i]) == tuple(truth_segments[j]) and before <= tolerance and behind <= tolerance:
            costs[i, j] = (before + behind) / 2
    chosen = [costs[i, j] for i, j in zip(*linear_sum_assignment(costs)) if costs[i, j] <= tolerance]
    return len(chosen), sum(chosen)
