"""A network whose weights are the moving average of another's in training.

Averaging over the last updates takes out the noise of single steps, so that the network is better, and its validation
steadier, than any of those it is the average of (Polyak & Juditsky, SIAM J. Control Optim. 1992; with exponential decay
and early ramp as in Tarvainen & Valpola, NIPS 2017). Running statistics of norms are averages already, and copied.
"""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class Average(Generic[AnyModule]):
    r"""Keeps :math:`\bar w \leftarrow d \bar w + (1 - d) w` of a network's weights.

    Parameters
    ----------
    network : whose weights the average begins with; it is not changed
    decay : d in [0, 1); after t updates at most (1 + t) / (10 + t), so that the first weights are soon forgotten

    Examples
    --------
    >>> layer = nn.Linear(1, 1)
    >>> average = Average(layer, 0.5)
    >>> _ = nn.init.constant_(layer.bias, 1), nn.init.constant_(average.network.bias, 0)
    >>> average.add(layer, 100)
    >>> average.network.bias.item()
    0.5
    """

    def __init__(self, network: AnyModule, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def add(self, network: nn.Module, update: int) -> None:
        """Take in the weights after `update` updates."""
        decay = min(self.decay, (1 + update) / (10 + update))
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), 1 - decay)
        for mine, new in zip(self.network.buffers(), network.buffers()):
            mine.copy_(new)
