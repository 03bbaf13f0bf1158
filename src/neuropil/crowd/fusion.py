"""One consensus from many votes, by any of the methods.

Which method: `dawid_skene` needs no truth, learns from what truth there is, knows users by the crowd until they have
votes of their own, and came nearest to the best possible decision in the simulations of `benchmarks/crowd`, so it is
the default with and without labels. `logistic` and its kin learn from labels alone, and find out where
people do not err independently; `glad` is a little better where segments are far from equally easy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from neuropil.crowd.dawid_skene import Abilities, abilities_from, dawid_skene
from neuropil.crowd.glad import glad
from neuropil.crowd.scores import best_threshold
from neuropil.crowd.sgd import Form, train_votes
from neuropil.crowd.thresholds import Rule, threshold_probability
from neuropil.crowd.votes import Votes
from neuropil.errors import InputError

Method = Literal[
    "dawid_skene",
    "glad",
    "logistic",
    "nonnegative",
    "weighted",
    "prior",
    "majority",
    "constant",
    "eyewire",
    "starburst",
]
SUPERVISED = get_args(Form)
"""Methods that need truth for some segments."""


@dataclass(frozen=True)
class Fusion:
    """A consensus.

    Attributes
    ----------
    method
        How it was made.
    probability
        float64 (s,), that a segment belongs to the cell; nan where nobody voted whom the method knows.
    weights
        float64 (u,), what a user's vote counts for, in the unit of the method: log-odds, w, or 1.
    abilities
        Sensitivity and specificity of users as seen by the consensus, drawn towards the crowd's.
    threshold
        Probability from which on a segment is selected.
    """

    method: Method
    probability: NDArray[np.float64]
    weights: NDArray[np.float64]
    abilities: Abilities
    threshold: float = 0.5

    @property
    def selected(self) -> NDArray[np.bool_]:
        """Segments whose probability reaches the threshold, bool (s,)."""
        return np.asarray(np.nan_to_num(self.probability, nan=-1) >= self.threshold)


def fuse_votes(
    votes: Votes, method: Method = "dawid_skene", *, tune: bool = False, rng: np.random.Generator | None = None
) -> Fusion:
    """Make one consensus of many votes.

    Parameters
    ----------
    votes
        Votes, with truth where some is known.
    method
        "dawid_skene", "glad": with or without truth. "logistic", "nonnegative", "weighted", "prior": trained on truth,
        by log loss and drawn to what counting gives (`crowd.sgd.train_votes` has all choices). "majority", "constant",
        "eyewire", "starburst": share of votes against a threshold.
    tune
        Whether the threshold is the best on known truth, not 0.5.
    rng
        For the order of training; a fixed one if omitted.

    Returns
    -------
    Fusion

    Raises
    ------
    InputError
        If the method is unknown, there are no votes, or it needs truth and there is none.

    Examples
    --------
    >>> votes = Votes.of([0, 1, 2], [0, 0, 0], [1, 1, 0], tasks=[0])
    >>> fuse_votes(votes, "majority").probability.round(3).tolist(), fuse_votes(votes, "majority").selected.tolist()
    ([0.667], [True])
    """
    if votes.users.size == 0:
        raise InputError("there must be votes to fuse; got none")
    if method == "dawid_skene":
        model = dawid_skene(votes)
        threshold = best_threshold(votes, model.probability) if tune else 0.5
        return Fusion(method, model.probability, model.abilities.weights, model.abilities, threshold)
    if method == "glad":
        fitted = glad(votes)
        return _fusion(votes, method, fitted.probability, fitted.inside + fitted.outside, tune)
    if method in SUPERVISED:
        trained = train_votes(votes, cast(Form, method), rng=rng)
        return _fusion(votes, method, trained.probability(votes), trained.weights, tune)
    if method not in get_args(Rule):
        raise InputError(f"method must be one of {', '.join(get_args(Method))}; got {method!r}")
    return _fusion(votes, method, threshold_probability(votes, cast(Rule, method)), np.ones(votes.user_count), tune)


def _fusion(
    votes: Votes, method: Method, probability: NDArray[np.float64], weights: NDArray[np.float64], tune: bool
) -> Fusion:
    belief = np.where(votes.labelled, votes.truth, probability)
    threshold = best_threshold(votes, probability) if tune else 0.5
    return Fusion(method, probability, weights, abilities_from(votes, belief), threshold)
