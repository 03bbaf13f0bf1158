"""Rules that count votes: a segment is selected where the share of votes for it reaches a threshold.

The threshold may depend on the number of votes m: with few votes more agreement is asked for. Nothing is learnt, and
all users weigh the same.

Source: the rules of EyeWire, as published with `torms3/eyewire.accuracy`.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.crowd.votes import Votes
from neuropil.errors import InputError

Rule = Literal["majority", "constant", "eyewire", "starburst"]
"""How the threshold depends on the number of votes."""
CONSTANT = 0.2
"""EyeWire's ordinary threshold."""


def share_threshold(votes: ArrayLike, rule: Rule = "majority") -> NDArray[np.float64]:
    r"""Return the share of votes that selects a segment.

    .. math:: t_{eyewire} = \min(0.99,\ e^{-0.16 m} + 0.2), \quad t_{starburst} = \min(0.99,\ e^{-0.32 m} + 0.22)

    Parameters
    ----------
    votes
        m, votes on a segment.
    rule
        "majority": 0.5; "constant": 0.2; "eyewire"; "starburst", EyeWire's for starburst amacrine cells.

    Returns
    -------
    ndarray of float64
        The shape of `votes`.

    Raises
    ------
    InputError
        If the rule is unknown.

    Examples
    --------
    >>> share_threshold([1, 5, 10], "eyewire").round(3).tolist()
    [0.99, 0.649, 0.402]
    """
    m = np.asarray(votes, np.float64)
    if rule == "eyewire":
        return np.minimum(0.99, np.exp(-0.16 * m) + 0.2)
    if rule == "starburst":
        return np.minimum(0.99, np.exp(-0.32 * m) + 0.22)
    if rule not in get_args(Rule):
        raise InputError(f"rule must be one of {', '.join(get_args(Rule))}; got {rule!r}")
    return np.full(m.shape, 0.5 if rule == "majority" else CONSTANT)


def share_of_votes(votes: Votes) -> NDArray[np.float64]:
    """Return the share of votes for each segment, float64 (s,); nan where nobody voted.

    >>> share_of_votes(Votes.of([0, 1], [0, 0], [1, 0], tasks=[0, 0])).tolist()
    [0.5, nan]
    """
    counts = votes.counts
    total = votes.sum_over_segments(votes.values.astype(np.float64))
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


def threshold_probability(votes: Votes, rule: Rule = "majority") -> NDArray[np.float64]:
    """Return the share of votes, stretched so that the threshold is at 0.5; by "majority" it is the share itself.

    Parameters
    ----------
    votes
        Votes; truth is not used.
    rule
        As for `share_threshold`.

    Returns
    -------
    ndarray of float64
        (s,), in [0, 1]; >= 0.5 where the rule selects, nan where nobody voted. An order, not a calibrated probability.

    Examples
    --------
    >>> votes = Votes.of([0, 1, 2, 3, 4], [0] * 5, [1, 0, 0, 0, 0], tasks=[0])
    >>> float(threshold_probability(votes)[0]), float(threshold_probability(votes, "constant")[0])
    (0.2, 0.5)
    """
    share, limit = share_of_votes(votes), share_threshold(votes.counts, rule)
    return np.where(share >= limit, 0.5 + (share - limit) / (2 * (1 - limit)), share / (2 * limit))
