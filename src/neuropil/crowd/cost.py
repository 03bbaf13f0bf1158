"""What a consensus costs: scores over the number of players per task, and how many a target needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuropil.crowd.folds import cross_validate
from neuropil.crowd.fusion import SUPERVISED, Method, fuse_votes
from neuropil.crowd.scores import voxel_scores
from neuropil.crowd.votes import Votes
from neuropil.errors import InputError


@dataclass(frozen=True)
class CostCurve:
    """Scores over the number of players per task.

    Attributes
    ----------
    players
        int64 (k,), most players per task.
    votes
        float64 (k,), mean votes per segment; less than `players` where tasks have fewer.
    error, f
        float64 (k,), in voxels, as in `neuropil.crowd.scores`.
    """

    players: NDArray[np.int64]
    votes: NDArray[np.float64]
    error: NDArray[np.float64]
    f: NDArray[np.float64]

    def needed(self, f: float) -> float:
        """Return the votes per segment at which F first reaches a target, between points linearly; inf if it does not.

        >>> curve = CostCurve(np.array([1, 2]), np.array([1.0, 2.0]), np.array([0.5, 0.1]), np.array([0.6, 0.9]))
        >>> round(curve.needed(0.75), 3), curve.needed(0.95)
        (1.5, inf)
        """
        reached = np.flatnonzero(self.f >= f)
        if reached.size == 0:
            return math.inf
        k = int(reached[0])
        if k == 0:
            return float(self.votes[0])
        share = (f - self.f[k - 1]) / (self.f[k] - self.f[k - 1])
        return float(self.votes[k - 1] + share * (self.votes[k] - self.votes[k - 1]))


def cost_curve(
    votes: Votes, method: Method = "dawid_skene", *, most: int = 10, folds: int = 5, rng: np.random.Generator
) -> CostCurve:
    """Score a method with 1, 2 ... players per task, drawn at random; the players of m are among those of m + 1.

    Parameters
    ----------
    votes
        Votes with truth.
    method
        Methods that learn from truth are cross-validated by task; others do not see it.
    most
        Most players per task; no more than the busiest task has.
    folds
        For the cross-validation.
    rng
        For the draw.

    Returns
    -------
    CostCurve

    Raises
    ------
    InputError
        If no truth is known, or `most` is below 1.

    Examples
    --------
    >>> votes = Votes.of([0, 1, 2] * 2, [0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0], tasks=[0, 1], truth=[1, 0])
    >>> cost_curve(votes, "majority", rng=np.random.default_rng(0)).f.tolist()
    [1.0, 1.0, 1.0]
    """
    if most < 1 or not votes.labelled.any():
        raise InputError(f"most must be at least 1 and some truth known; got {most} and {votes.labelled.sum()} labels")
    rank = _random_rank(votes, rng)
    players = np.arange(1, min(most, int(rank.max(initial=0)) + 1) + 1)
    unseen = np.ones(votes.tasks.size, bool)
    seed = int(rng.integers(2**32))
    scores, counts = [], []
    for m in players:
        some = votes.keep(rank < m)
        if method in SUPERVISED:
            selected = cross_validate(some, method, folds=folds, rng=np.random.default_rng(seed)).selected
        else:
            selected = fuse_votes(some.hide(unseen), method).selected
        scores.append(voxel_scores(some, selected))
        counts.append(float(some.counts[some.counts > 0].mean()))
    return CostCurve(
        players, np.array(counts), np.array([one.error for one in scores]), np.array([one.f for one in scores])
    )


def _random_rank(votes: Votes, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return for each vote the place of its user among those of its task, in random order, int64 (n,)."""
    pair = votes.tasks[votes.segments] * votes.user_count + votes.users
    pairs, entry = np.unique(pair, return_inverse=True)
    task = pairs // votes.user_count
    order = np.lexsort((rng.random(pairs.size), task))
    first = np.concatenate([[True], np.diff(task[order]) > 0])
    start = np.flatnonzero(first)[np.cumsum(first) - 1]
    place = np.empty(pairs.size, np.int64)
    place[order] = np.arange(pairs.size) - start
    return place[entry]
