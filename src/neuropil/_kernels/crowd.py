"""Stochastic gradient descent on votes: one segment at a time, in the order given.

`crowd.sgd` explains the models. A model's line is x = scale * sum of terms + offset + bias, a user's term is
w s - theta, or w (s - share theta) where theta is a share of w; after each step parameters are clipped to their limits.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


@njit(cache=True, nogil=True)
def _moved(value, step, decay, target, low, high):
    """Take a step, then go towards the target (implicitly, so never past it), and stay within limits."""
    return min(max((value + step + decay * target) / (1.0 + decay), low), high)


@njit(cache=True, nogil=True)
def epoch(order, votes, truth, line, parameters, limits, rule, pull):
    """Visit segments in order, changing parameters = (w, theta, bias).

    votes = (starts, users, values), line = (scale, offset, share), limits = (w low, w high, theta low, theta
    high), rule = (learn theta, learn bias, log loss, rate), pull = (decay of w and of theta per visit, their
    targets), of each user.
    """
    starts, users, values = votes
    scale, offset, share = line
    w, theta, bias = parameters
    learn_theta, learn_bias, log_loss, rate = rule
    w_decay, theta_decay, w_target, theta_target = pull
    for i in order:
        total = 0.0
        for k in range(starts[i], starts[i + 1]):
            u = users[k]
            total += w[u] * (values[k] - share * theta[u]) if share > 0 else w[u] * values[k] - theta[u]
        out = _sigmoid(scale[i] * total + offset[i] + bias[0])
        push = truth[i] - out if log_loss else (truth[i] - out) * out * (1.0 - out)
        for k in range(starts[i], starts[i + 1]):
            u = users[k]
            to_w = values[k] - share * theta[u]
            to_theta = -share * w[u] if share > 0 else -1.0
            step = rate * push * scale[i]
            w[u] = _moved(w[u], step * to_w, rate * w_decay[u], w_target[u], limits[0], limits[1])
            if learn_theta:
                theta[u] = _moved(
                    theta[u], step * to_theta, rate * theta_decay[u], theta_target[u], limits[2], limits[3]
                )
        if learn_bias:
            bias[0] += rate * push
