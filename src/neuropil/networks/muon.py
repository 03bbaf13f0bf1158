"""Muon: momentum whose steps are made orthogonal, for filters; AdamW for biases.

A filter bank (out, in·z·y·x) is moved by U Vᵀ of its momentum G = U S Vᵀ instead of by G, so that directions in which
the gradient is small are learnt as fast as the others. Max-filtering networks need it: their feature maps are all
positive, so a few directions hold nearly all of the gradient. U Vᵀ comes from five Newton-Schulz iterations (Jordan
et al., "Muon: an optimizer for hidden layers in neural networks", 2024), scaled to the size of AdamW's steps by
0.2·sqrt(max(out, in·z·y·x)) (Liu et al., "Muon is scalable for LLM training", 2025, section 2.2), so that rates and
weight decay mean the same for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


def orthogonal(matrix: Tensor) -> Tensor:
    """Return approximately U Vᵀ of a matrix U S Vᵀ: singular values come to lie between about 0.7 and 1.2."""
    a, b, c = COEFFICIENTS
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / (wide.norm() + 1e-12)
    for _ in range(STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = x.T if matrix.shape[0] > matrix.shape[1] else x
    return result


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two and more axes, AdamW for the others.

    Parameters
    ----------
    parameters : of the network
    lr, momentum, weight_decay : for both; momentum is also AdamW's β1
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Do one step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                change = _filters if parameter.ndim > 1 else _bias
                state = self.state[parameter]
                direction = change(parameter.grad, state, group["momentum"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=group["lr"])


def _filters(gradient: Tensor, state: dict[str, Any], momentum: float) -> Tensor:
    average = state.setdefault("average", torch.zeros_like(gradient))
    average.mul_(momentum).add_(gradient)
    flat = (gradient + momentum * average).flatten(1)  # Nesterov
    return (0.2 * math.sqrt(max(flat.shape)) * orthogonal(flat)).view_as(gradient)


def _bias(gradient: Tensor, state: dict[str, Any], momentum: float) -> Tensor:
    average = state.setdefault("average", torch.zeros_like(gradient))
    square = state.setdefault("square", torch.zeros_like(gradient))
    count = state.setdefault("count", torch.zeros(()))
    count += 1
    average.lerp_(gradient, 1 - momentum)
    square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    n = float(count)
    step: Tensor = average / (1 - momentum**n) / ((square / (1 - 0.999**n)).sqrt() + 1e-8)
    return step
