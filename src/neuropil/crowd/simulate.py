r"""Votes with known truth: players of known ability on made-up segments, and the best that anybody could do with them.

Sensitivity and specificity are drawn from Beta distributions; some players answer at random, some the opposite. Every
player of a task votes on all its segments, and some play far more than others. With the true abilities the log-odds of
`crowd.dawid_skene` give the best possible decision (Bayes): its error is a ceiling that no fusion can beat on average.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from neuropil.crowd.dawid_skene import Abilities
from neuropil.crowd.votes import Votes
from neuropil.errors import InputError

_EDGE = 1e-9  # of probabilities


@dataclass(frozen=True)
class Crowd:
    """What a simulated crowd is like.

    Attributes
    ----------
    users
        Number of players.
    sensitivity, specificity
        Means over players, in (0, 1).
    spread
        Correlation of two votes of one player beyond the crowd's, in [0, 1): 0 makes all players equal.
    spammers, adversaries
        Shares of players that answer at random (each with a rate of "selected" of their own), or the opposite of
        what they believe.
    activity
        Standard deviation of the log of how often players play; 0 makes all play alike.
    """

    users: int = 200
    sensitivity: float = 0.8
    specificity: float = 0.95
    spread: float = 0.1
    spammers: float = 0.1
    adversaries: float = 0.0
    activity: float = 1.0


@dataclass(frozen=True)
class Simulation:
    """Votes whose truth, abilities and ease are known.

    Attributes
    ----------
    votes
        With the truth of all segments.
    abilities
        Of all players, on segments of ordinary ease.
    prior
        Probability that a segment belongs to the cell.
    ease
        float64 (s,), factor of the log-odds of a right answer; 1 if difficulty is 0.
    """

    votes: Votes
    abilities: Abilities
    prior: float
    ease: NDArray[np.float64]

    def bayes(self) -> NDArray[np.float64]:
        """Return the probability, float64 (s,), that a segment belongs to the cell, given votes and true abilities."""
        votes, sens, spec = self.votes, *_eased(self.abilities, self.votes, self.ease)
        said = np.where(votes.values, np.log(sens / (1 - spec)), np.log((1 - sens) / spec))
        return np.asarray(expit(logit(self.prior) + votes.sum_over_segments(said)))


def simulate_votes(
    crowd: Crowd | None = None,
    *,
    tasks: int = 250,
    segments: int = 20,
    players: int = 5,
    prior: float = 0.3,
    difficulty: float = 0.0,
    rng: np.random.Generator,
) -> Simulation:
    """Let a crowd vote.

    Parameters
    ----------
    crowd
        What the players are like; the one of the benchmark if omitted.
    tasks, segments
        Number of tasks, and of segments in each.
    players
        Players of each task, so votes on each segment.
    prior
        Probability that a segment belongs to the cell, in (0, 1).
    difficulty
        Standard deviation of the log of segments' ease, >= 0.
    rng
        Source of everything random.

    Returns
    -------
    Simulation
        Sizes are lognormal, about 1100 voxels in the middle, a factor of 3.3 either side.

    Raises
    ------
    InputError
        If a number is out of range, or a task wants more players than there are.

    Examples
    --------
    >>> made = simulate_votes(tasks=3, segments=4, players=5, rng=np.random.default_rng(0))
    >>> made.votes.counts.tolist() == [5] * 12, made.bayes().shape
    (True, (12,))
    """
    crowd = Crowd() if crowd is None else crowd
    _check(crowd, tasks, segments, players, prior, difficulty)
    abilities = _draw_abilities(crowd, rng)
    often = crowd.activity * rng.standard_normal(crowd.users)
    # the largest of Gumbel numbers shifted by log rates are players drawn in proportion to the rates, none twice
    chance = often + rng.gumbel(size=(tasks, crowd.users))
    chosen = np.argsort(-chance, axis=1)[:, :players]
    task = np.repeat(np.arange(tasks), segments)
    truth = rng.random(task.size) < prior
    votes = Votes.of(
        chosen[task].reshape(-1),
        np.repeat(np.arange(task.size), players),
        np.zeros(task.size * players, bool),
        tasks=task,
        sizes=np.ceil(rng.lognormal(7.0, 1.2, task.size)),
        truth=truth,
        user_count=crowd.users,
    )
    ease = np.exp(difficulty * rng.standard_normal(task.size))
    sens, spec = _eased(abilities, votes, ease)
    values = rng.random(votes.users.size) < np.where(truth[votes.segments], sens, 1 - spec)
    made = Votes(votes.users, votes.segments, values, votes.tasks, votes.sizes, votes.truth, crowd.users)
    return Simulation(made, abilities, prior, ease)


def _check(crowd: Crowd, tasks: int, segments: int, players: int, prior: float, difficulty: float) -> None:
    if min(tasks, segments, players) < 1 or players > crowd.users:
        raise InputError(
            f"there must be tasks, segments and 1 ... {crowd.users} players; got {tasks}, {segments} and {players}"
        )
    for name, share in (("prior", prior), ("sensitivity", crowd.sensitivity), ("specificity", crowd.specificity)):
        if not 0 < share < 1:
            raise InputError(f"{name} must lie between 0 and 1; got {share}")
    if not (0 <= crowd.spread < 1 and difficulty >= 0 and crowd.activity >= 0):
        raise InputError(
            f"spread must lie in [0, 1), difficulty and activity must not be negative; got {crowd.spread}, "
            f"{difficulty} and {crowd.activity}"
        )
    if not (crowd.spammers >= 0 and crowd.adversaries >= 0 and crowd.spammers + crowd.adversaries <= 1):
        raise InputError(
            f"spammers and adversaries must be shares of the users; got {crowd.spammers} and {crowd.adversaries}"
        )


def _draw_abilities(crowd: Crowd, rng: np.random.Generator) -> Abilities:
    """Draw players: first the spammers, then the adversaries, then the others."""
    rates = [_beta(mean, crowd, rng) for mean in (crowd.sensitivity, crowd.specificity)]
    spammers = round(crowd.spammers * crowd.users)
    opposite = slice(spammers, spammers + round(crowd.adversaries * crowd.users))
    at_random = rng.uniform(0.02, 0.98, spammers)
    sens, spec = rates
    sens[:spammers], spec[:spammers] = at_random, 1 - at_random
    sens[opposite], spec[opposite] = 1 - sens[opposite], 1 - spec[opposite]
    return Abilities(sens, spec)


def _beta(mean: float, crowd: Crowd, rng: np.random.Generator) -> NDArray[np.float64]:
    if crowd.spread == 0:
        return np.full(crowd.users, mean)
    strength = 1 / crowd.spread - 1
    return np.clip(rng.beta(mean * strength, (1 - mean) * strength, crowd.users), 0.001, 0.999)


def _eased(
    abilities: Abilities, votes: Votes, ease: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sensitivity and specificity of each vote (n,), on a segment of its ease."""
    factor = ease[votes.segments]
    sens, spec = (np.asarray(logit(rate))[votes.users] for rate in (abilities.sensitivity, abilities.specificity))
    return np.clip(expit(sens * factor), _EDGE, 1 - _EDGE), np.clip(expit(spec * factor), _EDGE, 1 - _EDGE)
