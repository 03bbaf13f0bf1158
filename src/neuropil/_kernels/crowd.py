"""Stochastic gradient descent on votes: one segment at a time, in the order given.

`crowd.sgd` explains the models. A model's line is x = scale * sum of terms + offset + bias, a user's term is
w s - theta, or w (s - theta) where bilinear; after each step parameters are clipped to their limits.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


@njit(cache=True, nogil=True)
def epoch(order, votes, truth, line, parameters, limits, rule, pull):
    """Visit segments in order, changing parameters = (w, theta, bias).

    votes = (starts, users, values), line = (scale, offset) of segments, limits = (w low, w high, theta low, theta
    high), rule = (bilinear, learn theta, learn bias, log loss, rate), pull = (decay of each user's w and theta
    per visit towards the centre, centre of w, centre of theta).
    """
    starts, users, values = votes
    scale, offset = line
    w, theta, bias = parameters
    bilinear, learn_theta, learn_bias, log_loss, rate = rule
    w_decay, theta_decay, w_centre, theta_centre = pull
    for i in order:
        total = 0.0
        for k in range(starts[i], starts[i + 1]):
            u = users[k]
            total += w[u] * (values[k] - theta[u]) if bilinear else w[u] * values[k] - theta[u]
        out = _sigmoid(scale[i] * total + offset[i] + bias[0])
        push = truth[i] - out if log_loss else (truth[i] - out) * out * (1.0 - out)
        for k in range(starts[i], starts[i + 1]):
            u = users[k]
            to_w = values[k] - theta[u] if bilinear else values[k]
            to_theta = -w[u] if bilinear else -1.0
            w[u] += rate * (push * scale[i] * to_w - w_decay[u] * (w[u] - w_centre))
            w[u] = min(max(w[u], limits[0]), limits[1])
            if learn_theta:
                theta[u] += rate * (push * scale[i] * to_theta - theta_decay[u] * (theta[u] - theta_centre))
                theta[u] = min(max(theta[u], limits[2]), limits[3])
        if learn_bias:
            bias[0] += rate * push
