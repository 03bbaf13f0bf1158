"""Tiers of players: whose vote counts in full, by what their earlier answers were worth in voxels.

A player with at least the asked precision and recall against the final consensus is enfranchised, weight 1; one who had
that weight and has fallen below is disenfranchised, weight 0.1. Others keep what they have. Tracers and experts, whose
answers made the consensus, are left alone.

Source: EyeWire's promotion and demotion, `torms3/eyewire.accuracy`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuropil.crowd.votes import Votes
from neuropil.errors import InputError

FULL, REDUCED = 1.0, 0.1
"""Weights of enfranchised and of disenfranchised players."""


@dataclass(frozen=True)
class TierRule:
    """What is asked of a player: voxel precision and recall, and more than `tasks` tasks played."""

    precision: float = 0.7
    recall: float = 0.7
    tasks: int = 0


STARBURST = TierRule(0.8, 0.8, 20)
"""EyeWire's rule for starburst amacrine cells."""


@dataclass(frozen=True)
class Record:
    """What users did over a period.

    Attributes
    ----------
    precision, recall
        float64 (u,), in voxels: of what a user selected, the share in the cell; of what there was of the cell in the
        segments shown to the user, the share selected. nan where there was nothing.
    tasks
        int64 (u,), tasks played.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    tasks: NDArray[np.int64]


def user_records(votes: Votes, consensus: NDArray[np.bool_]) -> Record:
    """Score every user against a consensus.

    Parameters
    ----------
    votes
        Votes of the period.
    consensus
        bool (s,), the final decision.

    Examples
    --------
    >>> votes = Votes.of([0, 0, 0], [0, 1, 2], [1, 1, 0], tasks=[0, 0, 1], sizes=[30, 10, 20])
    >>> record = user_records(votes, np.array([True, False, True]))
    >>> record.precision.tolist(), record.recall.tolist(), record.tasks.tolist()
    ([0.75], [0.6], [2])
    """
    if consensus.shape != votes.tasks.shape or consensus.dtype != np.bool_:
        raise InputError(
            f"consensus must be boolean, one per segment {votes.tasks.shape}; got {consensus.dtype} {consensus.shape}"
        )
    size, inside = votes.sizes[votes.segments], consensus[votes.segments]
    both, selected, wanted = (
        votes.sum_over_users(size * part) for part in (votes.values & inside, votes.values, inside)
    )
    played = np.unique(np.stack([votes.users, votes.tasks[votes.segments]]), axis=1)[0]
    with np.errstate(invalid="ignore"):
        return Record(both / selected, both / wanted, np.bincount(played, minlength=votes.user_count))


def update_tiers(
    weights: NDArray[np.float64],
    record: Record,
    rule: TierRule | None = None,
    *,
    exempt: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Return the users' weights after a period.

    Parameters
    ----------
    weights
        float64 (u,), weights before.
    record
        Of the period; users who did not play keep their weight.
    rule
        What is asked; EyeWire's ordinary rule if omitted.
    exempt
        bool (u,), tracers and experts, who keep their weight.

    Returns
    -------
    ndarray of float64
        (u,).

    Raises
    ------
    InputError
        If sizes differ.

    Examples
    --------
    >>> record = Record(np.array([0.9, 0.9, 0.5]), np.array([0.8, 0.6, 0.9]), np.array([5, 5, 5]))
    >>> update_tiers(np.array([0.1, 0.1, 1.0]), record).tolist()
    [1.0, 0.1, 0.1]
    """
    asked = TierRule() if rule is None else rule
    spared = np.zeros(weights.shape, bool) if exempt is None else exempt
    if not weights.shape == record.precision.shape == spared.shape:
        raise InputError(
            f"weights, record and exempt must have one entry per user; got {weights.shape}, "
            f"{record.precision.shape} and {spared.shape}"
        )
    # nothing selected is nothing wrong; nothing there to be found is nothing missed
    precision, recall = np.nan_to_num(record.precision, nan=1), np.nan_to_num(record.recall, nan=1)
    able = (precision >= asked.precision) & (recall >= asked.recall)
    judged = (record.tasks > 0) & ~spared
    promoted = judged & able & (record.tasks > asked.tasks) & (weights < 0.5)
    demoted = judged & ~able & (weights == FULL)
    return np.where(promoted, FULL, np.where(demoted, REDUCED, weights))
