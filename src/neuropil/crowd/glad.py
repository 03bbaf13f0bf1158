r"""Ability times ease: hard segments say little about users, and users differ most on hard segments.

    P(selects | belongs to the cell) = sigmoid(a_u e_i),    P(selects | does not) = sigmoid(-b_u e_i)

with abilities a_u, b_u of user u and ease e_i > 0 of segment i: at e near 0 everybody guesses. Truth and abilities are
found by expectation maximisation from the share of votes, known truth put in where there is some; each round takes
one step of Newton's method for a and b, which are drawn to a normal distribution that is fitted to the crowd.
Key insight: a handful of votes cannot tell how easy a segment was, and a best guess of it makes the model too sure.
So ease is not guessed but integrated over, log e being normal, at a few points of a quadrature.

Source: GLAD, Whitehill et al., "Whose vote should count more", NIPS 2009, with one ability for each of the two answers
as in EyeWire's model of ability and difficulty. Of the two difficulties there only one ever counts, so there is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, logsumexp

from neuropil.crowd.dawid_skene import tells
from neuropil.crowd.population import crowd_normal
from neuropil.crowd.thresholds import share_of_votes
from neuropil.crowd.votes import Votes
from neuropil.errors import InputError

_POINTS = 7  # of the quadrature
_FIRST = 1.5  # ability to begin with: right in 82 % of segments of ordinary ease
_STEP = 1.0  # longest step of a round
_EDGE = 1e-6  # of the prior


@dataclass(frozen=True)
class Glad:
    """A fitted model.

    Attributes
    ----------
    probability
        float64 (s,), that a segment belongs to the cell, given its votes (not its truth); nan where nobody voted.
    inside, outside
        a and b, float64 (u,), abilities on segments of the cell and on others; 0 is guessing.
    ease
        float64 (s,), > 0, the mean of what the votes leave possible; 1 is ordinary.
    prior
        Share of segments that belong to the cell.
    """

    probability: NDArray[np.float64]
    inside: NDArray[np.float64]
    outside: NDArray[np.float64]
    ease: NDArray[np.float64]
    prior: float


def glad(votes: Votes, *, ease_spread: float = 0.5, rounds: int = 50, tolerance: float = 1e-4) -> Glad:
    """Fit abilities to votes, alone or with some truth, on segments that are not equally easy.

    Parameters
    ----------
    votes
        Votes; known truth teaches, and the result never repeats it.
    ease_spread
        Standard deviation of log e, >= 0; 0 makes all segments alike.
    rounds, tolerance
        Most rounds; it ends before once no probability changes by more than `tolerance`.

    Returns
    -------
    Glad

    Raises
    ------
    InputError
        If there are no votes, or a number is out of range.

    Examples
    --------
    >>> values = np.array([[1, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]] * 10)
    >>> segments, users = np.indices(values.shape).reshape(2, -1)
    >>> model = glad(Votes.of(users, segments, values.ravel(), tasks=[0] * 40))
    >>> model.probability[:2].round().tolist(), bool(model.ease[2] > model.ease[0])
    ([1.0, 0.0], True)
    """
    if votes.users.size == 0 or rounds < 1 or not ease_spread >= 0:
        raise InputError(
            f"there must be votes, at least one round and no negative spread; got {votes.users.size}, {rounds}, "
            f"{ease_spread}"
        )
    points, shares = np.polynomial.hermite_e.hermegauss(_POINTS)
    ease, log_shares = np.exp(ease_spread * points), np.log(shares / shares.sum())
    voted, known, telling = votes.counts > 0, votes.labelled, tells(votes)
    belief = np.where(known, votes.truth, np.nan_to_num(share_of_votes(votes), nan=0.5)).astype(np.float64)
    joint = np.stack([1 - belief, belief])[..., None] * np.exp(log_shares)
    a, b = np.full((2, votes.user_count), _FIRST)
    found, prior = belief, float(belief[voted].mean())
    for _ in range(rounds):
        if telling.any():
            prior = float(joint[1][telling].sum() + 1) / (int(telling.sum()) + 2)
        prior = min(max(prior, _EDGE), 1 - _EDGE)
        learnt = joint * telling[:, None]
        a = _improve(votes, learnt[1], ease, a, votes.values)
        b = _improve(votes, learnt[0], ease, b, ~votes.values)
        before = found
        joint = _posterior(votes, (a, b), ease, log_shares + np.array([[logit(1 - prior)], [logit(prior)]]) / 2)
        found = joint[1].sum(axis=1)
        joint[0][known & (votes.truth == 1)] = 0
        joint[1][known & (votes.truth == 0)] = 0
        joint /= np.maximum(joint.sum(axis=(0, 2))[:, None], 1e-300)
        if np.abs(found - before)[voted].max() <= tolerance:
            break
    return Glad(np.where(voted, found, np.nan), a, b, joint.sum(axis=0) @ ease, prior)


def _posterior(
    votes: Votes,
    abilities: tuple[NDArray[np.float64], NDArray[np.float64]],
    ease: NDArray[np.float64],
    log_prior: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return P(y, e | votes), float64 (2, s, points), for the log of P(y, e) up to a constant, (2, points)."""
    sign = np.where(votes.values, 1.0, -1.0)
    joint = np.empty((2, votes.tasks.size, ease.size))
    for g, e in enumerate(ease):
        for y, (ability, right) in enumerate(((abilities[1], -sign), (abilities[0], sign))):
            joint[y, :, g] = votes.sum_over_segments(-np.logaddexp(0, -right * ability[votes.users] * e))
    joint += log_prior[:, None, :]
    return np.asarray(np.exp(joint - logsumexp(joint, axis=(0, 2), keepdims=True)))


def _improve(
    votes: Votes,
    belief: NDArray[np.float64],
    ease: NDArray[np.float64],
    ability: NDArray[np.float64],
    right: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return abilities after one Newton step, on segments and ease that belief (s, points) weighs."""
    slope, bend = np.zeros((2, ability.size))
    for g, e in enumerate(ease):
        q, p = belief[votes.segments, g], np.asarray(expit(ability[votes.users] * e))
        slope += votes.sum_over_users(q * e * (right - p))
        bend += votes.sum_over_users(q * e**2 * p * (1 - p))
    if not bend.any():
        return ability
    centre, variance = crowd_normal(ability, bend)
    step = (slope - (ability - centre) / variance) / (bend + 1 / variance)
    return np.asarray(ability + np.clip(step, -_STEP, _STEP))
