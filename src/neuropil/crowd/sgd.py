r"""Votes weighted by what they were worth: models of EyeWire, trained by stochastic gradient descent on known truth.

The output is o = sigmoid(x), the decision o >= 0.5. With s = 1 for selected and 0 for shown and not selected, and m
votes on the segment:

    logistic      x = sum_u (w_u s_u - theta_u)
    prior         x = sum_u (w_u s_u - theta_u) + c,            theta >= 0
    nonnegative   x = k sum_u w_u (s_u - theta_u),              w, theta in [0, 1]
    weighted      x = k (sum_u w_u s_u / m - t(m)) + c,         w in [0, 1], t the EyeWire threshold

What a vote says depends on who gives it, and for somebody careless "not selected" says less than "selected"; w and
theta hold both. Key insight: descent alone needs far more truth than there ever is, and what counting gives in one
pass, the log-odds of everybody's sensitivity and specificity drawn to the crowd's, is already right where people err
independently. So training starts there, and users are drawn back there, the more the less truth they have met and the
less the crowd has moved away from it. Among equals counting gives equal weights, and the vote is the majority's.
A user without votes on known truth is taken to be like the crowd.

Source: the voting models of K. Lee's EyeWire project and `torms3/eyewire.accuracy`, where the loss is
(y - o)^2 / 2 and a step is w += rate o (1 - o) (y - o) s. The log loss leaves out o (1 - o). There k = 1, c = 0 in
"weighted", training starts near 0, and unknown users weigh nothing. With k = 1, log loss drives every useful weight to
its limit, and no user counts more than another; so k is such that the best user's weight is 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from neuropil._kernels import crowd as _kernel
from neuropil.crowd.dawid_skene import abilities_from
from neuropil.crowd.population import crowd_normal
from neuropil.crowd.thresholds import share_threshold
from neuropil.crowd.votes import Votes
from neuropil.errors import InputError

Form = Literal["logistic", "nonnegative", "weighted", "prior"]
Loss = Literal["squared", "log"]
_LIMITS = {
    "logistic": (-np.inf, np.inf, -np.inf, np.inf),
    "nonnegative": (0.0, 1.0, 0.0, 1.0),
    "weighted": (0.0, 1.0, 0.0, 0.0),
    "prior": (-np.inf, np.inf, 0.0, np.inf),
}
_LOOKS = 10  # epochs after which it is looked how the crowd has moved
_BIASED = ("weighted", "prior")


@dataclass(frozen=True)
class VoteModel:
    """A trained model.

    Attributes
    ----------
    form
        Which model.
    weights, thresholds
        w and theta, float64 (u,).
    bias
        c; 0 but for "prior" and "weighted".
    known
        bool (u,), users with votes on known truth; others have what the crowd has.
    sharpness
        k; 1 but for "nonnegative" and "weighted".
    """

    form: Form
    weights: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    bias: float
    known: NDArray[np.bool_]
    sharpness: float = 1.0

    def probability(self, votes: Votes) -> NDArray[np.float64]:
        """Return o of each segment, float64 (s,); nan where nobody voted.

        >>> votes = Votes.of([0, 1], [0, 0], [1, 0], tasks=[0])
        >>> known = np.array([True, True])
        >>> model = VoteModel("logistic", np.array([2.0, 1.0]), np.array([0.5, 0.5]), 0.0, known)
        >>> model.probability(votes).round(3).tolist()
        [0.731]
        """
        output = _output(votes, self, _line(votes, self))
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
        Passes over the segments, each in random order; 0 for what counting gives.
    l2
        Half the squared distances of parameters from where they are drawn to are added to the loss this many times,
        >= 0; if omitted, one over the variance of those distances in the crowd, which is found along with them.
    start
        Model to go on from, so that cells can be learnt one after the other; users it knows are drawn to what they
        are in it.
    rng
        For the order; a fixed one if omitted.

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
    >>> model = train_votes(votes)
    >>> bool(model.weights[0] > model.weights[1]), model.probability(votes).round()[:2].tolist()
    (True, [1.0, 0.0])
    """
    _check(votes, form, loss, rate, l2, start)
    random = np.random.default_rng(0) if rng is None else rng
    seen = votes.keep(votes.labelled[votes.segments])
    first = _counted(seen, form) if start is None else _carry_on(start, _counted(seen, form))
    # parameters are trained in the unit of x, so that steps and variances mean the same in all forms
    unit = float(_line(seen, first).scale[seen.counts > 0].mean())
    line, first = _line(seen, first, unit), _in_unit(first, unit)
    limits, model = tuple(limit * unit for limit in _LIMITS[form]), _in_unit(first, 1.0)
    order, data = np.flatnonzero(seen.counts), (seen.starts, seen.users, seen.values.astype(np.float64))
    rules, truth = (form != "weighted", form in _BIASED, loss == "log"), votes.truth.astype(np.float64)
    for k in range(epochs):
        if k % _LOOKS == 0:
            pull = _pull(seen, model, first, line, l2)
        bias = np.array([model.bias])
        random.shuffle(order)
        parameters = (model.weights, model.thresholds, bias)  # changed in place
        _kernel.epoch(order, data, truth, line, parameters, limits, (*rules, rate), pull)
        model = replace(model, bias=float(bias[0]))
        rate *= 0.99
    _, _, w, theta = _pull(seen, model, first, line, l2)
    weights = np.where(model.known, model.weights, w.clip(limits[0], limits[1]))
    thresholds = np.where(model.known, model.thresholds, theta.clip(limits[2], limits[3]))
    return _in_unit(replace(model, weights=weights, thresholds=thresholds), 1 / unit)


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


def _counted(votes: Votes, form: Form) -> VoteModel:
    """Return the log-odds of everybody's abilities, counted on votes on known truth, as a model."""
    truth = votes.truth.astype(np.float64)
    abilities = abilities_from(votes, truth)
    silence = np.log(abilities.specificity / (1 - abilities.sensitivity))  # by how much it speaks against
    voted = votes.counts > 0
    odds = float(logit((truth[voted].sum() + 1) / (voted.sum() + 2)))
    many = float(votes.counts[voted].mean())
    known = np.bincount(votes.users, minlength=votes.user_count) > 0
    w = abilities.weights
    if form == "logistic":
        return VoteModel(form, w, silence - odds / many, 0.0, known)
    if form == "prior":
        return VoteModel(form, w, np.maximum(silence, 0), odds, known)
    best = max(float(w.max()), 1.0)
    weights = np.clip(w / best, 0, 1)
    if form == "nonnegative":
        thresholds = np.clip((silence - odds / many) / np.maximum(w, 1e-9), 0, 1)
        return VoteModel(form, weights, thresholds, 0.0, known, best)
    sharpness = best * many
    limit = float(share_threshold(np.array([many]), "eyewire")[0])
    against = float(silence[votes.users].mean()) * many
    return VoteModel(form, weights, np.zeros(w.size), odds - against + sharpness * limit, known, sharpness)


def _carry_on(start: VoteModel, counted: VoteModel) -> VoteModel:
    """Return a model with what was counted for users that are new to it."""
    new, by = counted.known & ~start.known, counted.sharpness / start.sharpness
    return replace(
        start,
        weights=np.where(new, np.clip(counted.weights * by, *_LIMITS[start.form][:2]), start.weights),
        thresholds=np.where(new, counted.thresholds, start.thresholds),
        known=counted.known | start.known,
    )


class _Line(NamedTuple):
    """What the sum of terms of each segment is multiplied by, and what is added; theta is this share of w, or 0."""

    scale: NDArray[np.float64]
    offset: NDArray[np.float64]
    share: float


def _line(votes: Votes, model: VoteModel, unit: float = 1.0) -> _Line:
    """Return the line of a model whose parameters are in a unit."""
    counts, k = votes.counts, model.sharpness / unit
    if model.form == "weighted":
        limit = share_threshold(counts, "eyewire")
        return _Line(k / np.maximum(counts, 1), -model.sharpness * limit, 0.0)
    return _Line(np.full(counts.size, k), np.zeros(counts.size), 1 / unit if model.form == "nonnegative" else 0.0)


def _in_unit(model: VoteModel, unit: float) -> VoteModel:
    """Return a copy with parameters so many times as large."""
    return replace(model, weights=model.weights * unit, thresholds=model.thresholds * unit)


def _output(votes: Votes, model: VoteModel, line: _Line) -> NDArray[np.float64]:
    w, theta, s = model.weights[votes.users], model.thresholds[votes.users], votes.values
    terms = w * (s - line.share * theta) if line.share else w * s - theta
    return np.asarray(expit(line.scale * votes.sum_over_segments(terms) + line.offset + model.bias))


def _pull(
    votes: Votes, model: VoteModel, first: VoteModel, line: _Line, l2: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return decay per visit of w and theta, and what they are drawn to, (u,) each, for the kernel."""
    output, visits = _output(votes, model, line), np.bincount(votes.users, minlength=votes.user_count)
    bend = (output * (1 - output) * line.scale**2)[votes.segments]
    w, theta, s = model.weights[votes.users], model.thresholds[votes.users], votes.values.astype(np.float64)
    slopes = (s - line.share * theta, line.share * w if line.share else np.ones(s.size))
    decays, targets = [], []
    for slope, name in zip(slopes, ("weights", "thresholds")):
        before = getattr(first, name)
        shift, variance = crowd_normal(getattr(model, name) - before, votes.sum_over_users(bend * slope**2))
        decays.append((1 / variance if l2 is None else l2) / np.maximum(visits, 1))
        targets.append(before + shift)
    return decays[0], decays[1], targets[0], targets[1]
