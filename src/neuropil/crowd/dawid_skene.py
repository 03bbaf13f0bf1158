r"""Dawid and Skene's model: truth and everybody's ability found together, with or without known truth.

A user selects a segment of the cell with probability sensitivity_u, and one outside it with 1 - specificity_u. If
abilities were known, the votes would add up as log-odds,

    log P(y=1)/P(y=0) = log prior/(1 - prior) + sum_u [ s log sens/(1 - spec) + (1 - s) log (1 - sens)/spec ],

and if truth were known, abilities could be counted. Expectation maximisation goes back and forth from the share of
votes; known truth is put in where there is some, so the same function learns with few labels, many, or none.
Key insight: users with few votes take their ability from the crowd. The Beta distribution that all abilities are drawn
from is fitted too, by moments; a crowd of equals is then found out to be one and its votes weigh the same. Abilities
show in agreement only: a segment with one vote and no truth says nothing about them (it would, round by round, only
make the model believe itself), so it is judged and not learnt from.

Source: Dawid and Skene 1979, doi:10.2307/2346806; moments of rates as in Kleinman 1973, doi:10.2307/2284137.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from neuropil.crowd.thresholds import share_of_votes
from neuropil.crowd.votes import Votes
from neuropil.errors import InputError

Smoothing = Literal["crowd", "fixed"]
_FIXED = (2.0, 1.0)  # Beta(2, 1): sensitivity and specificity are more likely high than low
_UNSEEN = (9.0, 1.0)  # what a crowd is taken for before it has shown anything: right nine times of ten
_ALIKE, _UNLIKE = 1e-3, 0.5  # correlation of two votes of one user, beyond the crowd's: between equals and loners
_EDGE = 1e-6  # of probabilities


@dataclass(frozen=True)
class Abilities:
    """What users are like: P(selects | belongs to the cell) and P(leaves out | does not), float64 (u,) each."""

    sensitivity: NDArray[np.float64]
    specificity: NDArray[np.float64]

    @property
    def weights(self) -> NDArray[np.float64]:
        """By how much "selected" and "not selected" differ in log-odds; 0 for a spammer, negative for an adversary."""
        return np.asarray(logit(self.sensitivity) + logit(self.specificity))

    def log_odds(self, votes: Votes, prior: float) -> NDArray[np.float64]:
        """Return log P(y=1)/P(y=0) of each segment, float64 (s,), from its votes and the share of y=1 before them.

        >>> abilities = Abilities(np.array([0.8]), np.array([0.9]))
        >>> votes = Votes.of([0, 0], [0, 1], [1, 0], tasks=[0, 0])
        >>> np.exp(abilities.log_odds(votes, 0.5)).round(3).tolist()
        [8.0, 0.222]
        """
        sens, spec = self.sensitivity[votes.users], self.specificity[votes.users]
        said = np.where(votes.values, np.log(sens / (1 - spec)), np.log((1 - sens) / spec))
        return np.asarray(logit(prior) + votes.sum_over_segments(said))


@dataclass(frozen=True)
class DawidSkene:
    """A fitted model.

    Attributes
    ----------
    probability
        float64 (s,), that a segment belongs to the cell, given its votes (not its truth); nan where nobody voted.
    abilities
        Of all users; those without votes have the crowd's.
    prior
        Share of segments that belong to the cell.
    rounds
        Rounds until nothing changed any more, or the most allowed.
    """

    probability: NDArray[np.float64]
    abilities: Abilities
    prior: float
    rounds: int


def dawid_skene(
    votes: Votes, *, smoothing: Smoothing = "crowd", rounds: int = 200, tolerance: float = 1e-5
) -> DawidSkene:
    """Fit Dawid and Skene's model, to votes alone or with some truth.

    Parameters
    ----------
    votes
        Votes; known truth teaches, and the result never repeats it.
    smoothing
        What abilities are drawn from: "crowd" fits it to the crowd, "fixed" is Beta(2, 1), as if everybody had been
        seen to be right twice and wrong once.
    rounds, tolerance
        Most rounds; it ends before once no probability changes by more than `tolerance`.

    Returns
    -------
    DawidSkene

    Raises
    ------
    InputError
        If there are no votes, the smoothing is unknown, or rounds are below 1.

    Examples
    --------
    Two who agree outweigh one who does not, and without any truth:

    >>> values = np.array([[1, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]] * 10)
    >>> segments, users = np.indices(values.shape).reshape(2, -1)
    >>> model = dawid_skene(Votes.of(users, segments, values.ravel(), tasks=[0] * 40))
    >>> model.probability[:2].round(2).tolist(), (model.abilities.sensitivity > 0.8).tolist()
    ([1.0, 0.0], [True, True, False])
    """
    if smoothing not in get_args(Smoothing):
        raise InputError(f"smoothing must be one of {', '.join(get_args(Smoothing))}; got {smoothing!r}")
    if votes.users.size == 0 or rounds < 1:
        raise InputError(f"there must be votes and at least one round; got {votes.users.size} and {rounds}")
    voted, known, telling = votes.counts > 0, votes.labelled, tells(votes)
    belief = np.where(known, votes.truth, share_of_votes(votes)).astype(np.float64)
    prior = float(belief[voted].mean())
    model = None
    for k in range(rounds):
        abilities = abilities_from(votes, np.where(telling, belief, np.nan), smoothing=smoothing)
        if telling.any():
            prior = float(belief[telling].sum() + 1) / (int(telling.sum()) + 2)
        prior = min(max(prior, _EDGE), 1 - _EDGE)
        found = np.asarray(expit(abilities.log_odds(votes, prior)))
        before, belief = belief, np.where(known, votes.truth, found)
        model = DawidSkene(np.where(voted, found, np.nan), abilities, prior, k + 1)
        if np.abs(belief - before)[voted].max() <= tolerance:
            break
    assert model is not None
    return model


def tells(votes: Votes) -> NDArray[np.bool_]:
    """Return which segments say something about users: those with two votes, or one and known truth, bool (s,).

    >>> tells(Votes.of([0, 1, 0, 0], [0, 0, 1, 2], [1] * 4, tasks=[0] * 3, truth=[-1, 1, -1])).tolist()
    [True, True, False]
    """
    return np.asarray((votes.counts > 1) | (votes.labelled & (votes.counts > 0)))


def abilities_from(votes: Votes, belief: NDArray[np.float64], *, smoothing: Smoothing = "crowd") -> Abilities:
    """Count how often users are right, if a segment belongs to the cell with probability `belief`.

    Parameters
    ----------
    votes
        Votes; truth is not used.
    belief
        (s,), in [0, 1]; segments where it is nan are not counted.
    smoothing
        As for `dawid_skene`.

    Returns
    -------
    Abilities
        Users without votes have the crowd's.

    Examples
    --------
    >>> votes = Votes.of([0, 0, 0], [0, 1, 2], [1, 1, 0], tasks=[0, 0, 0])
    >>> abilities_from(votes, np.array([1.0, 1.0, 0.0]), smoothing="fixed")
    Abilities(sensitivity=array([0.8]), specificity=array([0.75]))
    """
    mine = belief[votes.segments]
    inside, outside = np.nan_to_num(mine), np.nan_to_num(1 - mine)
    hits, of_hits = votes.sum_over_users(inside * votes.values), votes.sum_over_users(inside)
    rejections, of_rejections = votes.sum_over_users(outside * ~votes.values), votes.sum_over_users(outside)
    return Abilities(_rates(hits, of_hits, smoothing), _rates(rejections, of_rejections, smoothing))


def _rates(right: NDArray[np.float64], of: NDArray[np.float64], smoothing: Smoothing) -> NDArray[np.float64]:
    a, b = _FIXED if smoothing == "fixed" else _crowd_beta(right, of)
    return np.clip((right + a) / (of + a + b), _EDGE, 1 - _EDGE)


def _crowd_beta(right: NDArray[np.float64], of: NDArray[np.float64]) -> tuple[float, float]:
    """Fit the Beta distribution of users' rates by its moments.

    With rates p_u out of n_u, N = sum n_u, m = sum n_u p_u / N and r the correlation of two votes of one user,
    the expected sum of n_u (p_u - m)^2 is m (1 - m) [(1 - r) (U - 1) + r (N - sum n_u^2 / N)], and r = 1 / (a + b + 1).
    """
    total = float(of.sum())
    mean = (float(right.sum()) + _UNSEEN[0]) / (total + sum(_UNSEEN))
    n = np.maximum(of, 1e-12)
    users = float(np.minimum(of, 1.0).sum())  # a user with less than one vote's worth counts for less
    spread = float((n * (right / n - mean) ** 2).sum()) / (mean * (1 - mean))
    room = total - float((of**2).sum()) / max(total, 1e-12) - (users - 1)
    alike = _UNLIKE if room <= 0 else float(np.clip((spread - (users - 1)) / room, _ALIKE, _UNLIKE))
    strength = 1 / alike - 1
    return mean * strength, (1 - mean) * strength
