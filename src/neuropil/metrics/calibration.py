"""Probabilities that mean what they say: fitted to a crop with truth, and shown on another one.

Platt (1999) fits a logistic function to a score; here the score is itself a weighted sum of features, so both are one
logistic regression, with the weights held near ones known before, since a crop has few errors to learn from. How well
probabilities mean what they say is seen by putting those of about the same size together: of suggestions called right
with 70 %, 70 % should be (a reliability diagram; the Brier score is the mean of (p - y)^2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.errors import InputError


def fit_logistic(
    features: ArrayLike, right: ArrayLike, prior: Sequence[float], *, strength: float = 1.0
) -> tuple[float, ...]:
    r"""Fit the weights of a logistic function, the constant last.

    .. math:: \min_w \sum_i \log(1 + e^{-y_i w \cdot x_i}) + \frac{\lambda}{2} |w - w_0|^2, \quad y_i = \pm 1

    Parameters
    ----------
    features
        (n, k).
    right
        bool (n,).
    prior
        (k + 1,), w_0.
    strength
        λ, > 0: how many observations the prior is worth, about.

    Returns
    -------
    tuple of float
        (k + 1,).

    Raises
    ------
    InputError
        If shapes do not match, or the strength is not positive.

    Examples
    --------
    >>> weights = fit_logistic([[0.0], [1.0], [2.0], [3.0]], [False, False, True, True], (0.0, 0.0), strength=0.1)
    >>> weights[0] > 1
    True
    """
    x, y, start = np.asarray(features, np.float64), np.asarray(right, bool), np.asarray(prior, np.float64)
    if x.ndim != 2 or y.shape != x.shape[:1] or start.shape != (x.shape[1] + 1,) or not strength > 0:
        raise InputError(
            f"features (n, k), right (n,) and prior (k + 1,) must match, strength > 0;"
            f" got {x.shape}, {y.shape}, {start.shape}, {strength}"
        )
    x = np.column_stack([x, np.ones(len(x))])
    w = start.copy()
    for _ in range(100):  # Newton's method; the penalty makes the problem strictly convex
        p = _logistic(x @ w)
        slope = x.T @ (p - y) + strength * (w - start)
        curvature = (x * (p * (1 - p))[:, None]).T @ x + strength * np.eye(w.size)
        step = np.linalg.solve(curvature, slope)
        size = 1.0
        while size > 1e-6 and _loss(x, y, w - size * step, start, strength) > _loss(x, y, w, start, strength):
            size /= 2
        w -= size * step
        if np.abs(step).max(initial=0) < 1e-8:
            break
    return tuple(float(one) for one in w)


@dataclass(frozen=True)
class Reliability:
    """Probabilities against what happened.

    Attributes
    ----------
    predicted, observed
        float64 (bins,), mean probability and share that was right, of bins that hold any.
    counts
        int64 (bins,).
    brier
        Mean of (p - y)^2; `brier_constant` is that of always saying the share that is right.
    error
        Expected calibration error: mean absolute difference of predicted and observed over suggestions.
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    counts: NDArray[np.int64]
    brier: float
    brier_constant: float
    error: float


def reliability(probability: ArrayLike, right: ArrayLike, *, bins: int = 10) -> Reliability:
    """Compare probabilities with what happened, in bins of equal width.

    Raises
    ------
    InputError
        If the shapes differ, or there is nothing.

    Examples
    --------
    >>> found = reliability([0.1, 0.1, 0.9, 0.9], [False, False, True, False])
    >>> found.observed.tolist(), found.counts.tolist()
    ([0.0, 0.5], [2, 2])
    """
    p, y = np.asarray(probability, np.float64), np.asarray(right, bool).astype(np.float64)
    if p.shape != y.shape or p.ndim != 1 or p.size == 0:
        raise InputError(f"probability and right must be lists of one length, not empty; got {p.shape}, {y.shape}")
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    counts = np.bincount(place, minlength=bins)
    there = counts > 0
    predicted, observed = (np.bincount(place, one, bins)[there] / counts[there] for one in (p, y))
    error = float((np.abs(predicted - observed) * counts[there]).sum() / p.size)
    brier = float(((p - y) ** 2).mean())
    return Reliability(predicted, observed, counts[there], brier, float(y.mean() * (1 - y.mean())), error)


def average_precision(score: ArrayLike, right: ArrayLike) -> float:
    """Return the mean of precision over the places of all that are right, in order of falling score; nan if none is.

    >>> average_precision([0.9, 0.8, 0.1], [True, False, True])
    0.8333333333333333
    """
    y = np.asarray(right, bool)[np.argsort(-np.asarray(score, np.float64), kind="stable")]
    if not y.any():
        return math.nan
    return float((np.cumsum(y) / np.arange(1, y.size + 1))[y].mean())


def _logistic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -500, 500))))


def _loss(
    x: NDArray[np.float64], y: NDArray[np.bool_], w: NDArray[np.float64], start: NDArray[np.float64], strength: float
) -> float:
    return float(np.logaddexp(0, np.where(y, -1, 1) * (x @ w)).sum() + strength / 2 * ((w - start) ** 2).sum())
