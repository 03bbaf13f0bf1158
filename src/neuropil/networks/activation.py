"""Activations of feature maps, and the backward pass of ReLU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from neuropil._kernels import relu as kernels
from neuropil.networks.architecture import Activation
from neuropil.networks.threads import by_rows

TANH_GAIN, TANH_SLOPE = 1.7159, 0.6666  # LeCun's scaled tanh, as in ZNN
BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}
"""Types that the kernels take, and what holds their bits."""


def activate(maps: Tensor, kind: Activation) -> Tensor:
    """Apply the activation; in place where no gradient is asked for."""
    if kind == "linear":
        return maps
    if kind == "tanh":
        if torch.is_grad_enabled():
            return TANH_GAIN * torch.tanh(TANH_SLOPE * maps)
        return maps.mul_(TANH_SLOPE).tanh_().mul_(TANH_GAIN)
    return functional.relu(maps, inplace=True)


def relu_backward(gradient: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient (n, maps, …) where ReLU made something, and its sum over all but the maps."""
    result = torch.empty_like(gradient)
    flat = [one.movedim(1, -1).flatten(0, -2).view(BITS[one.dtype]).numpy() for one in (gradient, made, result)]
    half = flat[0].itemsize == 2
    sums = by_rows(kernels.relu_backward, len(flat[0]), flat[0].nbytes, *flat[:2], flat[0].dtype.type(0), half, flat[2])
    return result, torch.from_numpy(np.sum(sums, 0)).to(gradient.dtype)
