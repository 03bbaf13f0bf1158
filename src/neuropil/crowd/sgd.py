r"""Votes weighted by what they were worth: models of EyeWire, trained by stochastic gradient descent on known truth.

The output is o = sigmoid(x), the decision o >= 0.5. With s = 1 for selected and 0 for shown and not selected:

    logistic      x = sum_u (w_u s_u - theta_u)
    nonnegative   x = sum_u w_u (s_u - theta_u),            w, theta in [0, 1]
    weighted      x = sum_u w_u s_u / m - t(m),             w in [0, 1], t the EyeWire threshold for m votes
    prior         x = sum_u (w_u s_u - theta_u) + c,        theta >= 0

Key insight: what a vote says depends on who gives it, and for somebody careless "not selected" says less than
"selected"; w and theta hold both. Parameters are drawn to the crowd's mean, the more the fewer votes a user has and the
more alike the crowd is, so users with few votes do no harm. Users without votes on known truth are not part of the
model: w = theta = 0.

Source: the voting models of K. Lee's EyeWire project and `torms3/eyewire.accuracy`, where the loss is
(y - o)^2 / 2 and a step is w += rate o (1 - o) (y - o) s. The log loss leaves out o (1 - o).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from neuropil._kernels import crowd as _kernel
from neuropil.crowd.population import crowd_normal
from neuropil.crowd.thresholds import share_threshold
from neuropil.crowd.votes import Votes
from neuropil.errors import InputError

Form = Literal["logistic", "nonnegative", "weighted", "prior"]
Loss = Literal["squared", "log"]
_START = 0.01  # parameters begin at random in 0 ... this
_LIMITS = {
    "logistic": (-np.inf, np.inf, -np.inf, np.inf),
    "nonnegative": (0.0, 1.0, 0.0, 1.0),
    "weighted": (0.0, 1.0, 0.0, 0.0),
    "prior": (-np.inf, np.inf, 0.0, np.inf),
}


@dataclass(frozen=True)
class VoteModel:
    """A trained model.

    Attributes
    ----------
    form
        Which model.
    weights, thresholds
        w and theta, float64 (u,); 0 for users that training did not see.
    bias
        c; 0 unless the form is "prior".
    known
        bool (u,), users with votes on known truth.
    """

    form: Form
    weights: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    bias: float
    known: NDArray[np.bool_]

    def probability(self, votes: Votes) -> NDArray[np.float64]:
        """Return o of each segment, float64 (s,); nan where no user that the model knows voted.

        >>> votes = Votes.of([0, 1], [0, 0], [1, 0], tasks=[0])
        >>> known = np.array([True, True])
        >>> model = VoteModel("logistic", np.array([2.0, 1.0]), np.array([0.5, 0.5]), 0.0, known)
        >>> model.probability(votes).round(3).tolist()
        [0.731]
        """
        votes = votes.keep(self.known[votes.users])
        w, theta, s = self.weights[votes.users], self.thresholds[votes.users], votes.values
        terms = w * (s - theta) if self.form == "nonnegative" else w * s - theta
        scale, offset = _line(votes, self.form)
        output = np.asarray(expit(scale * votes.sum_over_segments(terms) + offset + self.bias))
        return np.where(votes.counts > 0, output, np.nan)


def train_votes(
    votes: Votes,
    form: Form = "logistic",
    *,
    loss: Loss = "log",
    rate: float = 0.2,
    epochs: int = 100,
    l2: float | None = None,
    start: VoteModel | None = None,
    rng: np.random.Generator | None = None,
) -> VoteModel:
    """Train a model on the segments whose truth is known.

    Parameters
    ----------
    votes
        Votes; those on segments without truth are not used.
    form
        Which model; see this file's text.
    loss
        "squared", or "log", which learns faster from what it gets most wrong.
    rate
        Length of steps, > 0; it falls by 1 % with each epoch.
    epochs
        Passes over the segments, each in random order.
    l2
        Half the squared distances of parameters from the crowd's mean are added to the loss this many times, >= 0; if
        omitted, one over the variance of the crowd, which is found along with the parameters.
    start
        Model to go on from, so that cells can be learnt one after the other.
    rng
        For order and start; a fixed one if omitted.

    Returns
    -------
    VoteModel

    Raises
    ------
    InputError
        If no voted segment has truth, a choice is unknown, a number is out of range, or `start` does not fit.

    Examples
    --------
    >>> votes = Votes.of([0, 1] * 20, np.repeat(np.arange(20), 2), [1, 0, 0, 0] * 10, tasks=[0] * 20,
    ...     truth=[1, 0] * 10)
    >>> model = train_votes(votes, rate=0.5, l2=0)
    >>> bool(model.weights[0] > 10 * abs(model.weights[1])), bool(model.probability(votes)[0] > 0.9)
    (True, True)
    """
    _check(votes, form, loss, rate, l2, start)
    random = np.random.default_rng(0) if rng is None else rng
    seen = votes.labelled[votes.segments]
    visits = votes.keep(seen).sum_over_users(np.ones(int(seen.sum())))
    taught = np.flatnonzero(votes.labelled & (votes.counts > 0))
    model = _first(votes, form, visits > 0, random) if start is None else _carry_on(start, visits > 0, random)
    bias = np.array([model.bias])
    rules = (form == "nonnegative", form != "weighted", form == "prior", loss == "log")
    data = (votes.starts, votes.users, votes.values.astype(np.float64))
    truth = votes.truth.astype(np.float64)
    parameters, line = (model.weights, model.thresholds, bias), _line(votes, form)
    for _ in range(epochs):
        pull = _pull(votes.keep(seen), replace(model, bias=float(bias[0])), visits, l2)
        order = random.permutation(taught)
        _kernel.epoch(order, data, truth, line, parameters, _LIMITS[form], (*rules, rate), pull)
        rate *= 0.99
    return replace(model, bias=float(bias[0]))


def _check(votes: Votes, form: Form, loss: Loss, rate: float, l2: float | None, start: VoteModel | None) -> None:
    for name, value, choices in (("form", form, get_args(Form)), ("loss", loss, get_args(Loss))):
        if value not in choices:
            raise InputError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
    if not rate > 0 or not (l2 is None or l2 >= 0):
        raise InputError(f"rate must be above 0 and l2 not below 0; got {rate} and {l2}")
    if not votes.labelled[votes.segments].any():
        raise InputError("votes must have truth for some voted segments to learn from; none has; use dawid_skene")
    if start is not None and (start.form != form or start.weights.size != votes.user_count):
        raise InputError(
            f"start must be a {form} model of {votes.user_count} users; got {start.form} of {start.weights.size}"
        )


def _first(votes: Votes, form: Form, known: NDArray[np.bool_], rng: np.random.Generator) -> VoteModel:
    weights, thresholds = rng.uniform(0, _START, (2, votes.user_count)) * known
    return VoteModel(form, weights, thresholds * (form != "weighted"), 0.0, known)


def _carry_on(start: VoteModel, known: NDArray[np.bool_], rng: np.random.Generator) -> VoteModel:
    """Return a copy of a model, with first parameters for users that are new to it."""
    new = known & ~start.known
    weights, thresholds = rng.uniform(0, _START, (2, known.size)) * new
    thresholds *= start.form != "weighted"
    return VoteModel(
        start.form, start.weights + weights, start.thresholds + thresholds, start.bias, known | start.known
    )


def _pull(
    votes: Votes, model: VoteModel, visits: NDArray[np.float64], l2: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], float, float]:
    """Return decay per visit of w and theta, (u,) each, and the crowd's mean of both, for the kernel."""
    output, (scale, _) = np.nan_to_num(model.probability(votes)), _line(votes, model.form)
    bend = (output * (1 - output) * scale**2)[votes.segments]
    w, theta, s = model.weights[votes.users], model.thresholds[votes.users], votes.values.astype(np.float64)
    slopes = (s - theta, w) if model.form == "nonnegative" else (s, np.ones(s.size))
    decays, centres = [], []
    for slope, parameter in zip(slopes, (model.weights, model.thresholds)):
        centre, variance = crowd_normal(parameter, votes.sum_over_users(bend * slope**2))
        decays.append((1 / variance if l2 is None else l2) / np.maximum(visits, 1))
        centres.append(centre)
    return decays[0], decays[1], centres[0], centres[1]


def _line(votes: Votes, form: Form) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what the sum of terms is multiplied by, and what is added, for each segment."""
    counts = votes.counts
    if form == "weighted":
        return 1.0 / np.maximum(counts, 1), -share_threshold(counts, "eyewire")
    return np.ones(counts.size), np.zeros(counts.size)
