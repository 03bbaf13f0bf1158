"""What a crowd is like, so that users of whom little is known can be taken to be like it.

Parameters of users (abilities, weights) are drawn from a normal distribution. Each is known with some precision, the
curvature of the likelihood; key insight: what is not known of users is part of how they scatter, so the width of the
crowd is found by adding it, over and over (expectation maximisation). A crowd of equals ends up with almost no width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_VARIANCES = (0.01, 4.0)  # least and greatest
_ROUNDS = 10


def crowd_normal(values: NDArray[np.float64], precision: NDArray[np.float64]) -> tuple[float, float]:
    """Return mean and variance of the distribution that users' parameters come from.

    Parameters
    ----------
    values
        (u,), best guess for each user.
    precision
        (u,), 1 / variance of each guess, before the crowd is taken into account; 0 leaves the user out.

    Returns
    -------
    mean, variance
        The variance lies in 0.01 ... 4; (0, 1) where nothing is known of anybody.

    Examples
    --------
    >>> mean, variance = crowd_normal(np.array([1.0, 3.0, 9.0]), np.array([1e6, 1e6, 0.0]))
    >>> round(mean, 3), round(variance, 3)
    (2.0, 1.0)
    """
    known = precision > 0
    if not known.any():
        return 0.0, 1.0
    x, certain = values[known], precision[known]
    mean, variance = float(np.average(x, weights=certain)), 1.0
    for _ in range(_ROUNDS):
        width = (x - mean) ** 2 + 1 / (certain + 1 / variance)
        variance = float(np.clip(width.mean(), *_VARIANCES))
    return mean, variance
