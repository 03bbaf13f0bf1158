"""What the training loop is given beside network and patches: a loss, and a way to score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from neuropil.networks.affinity_objective import AffinityObjective
from neuropil.networks.affinity_sampling import AffinitySampler
from neuropil.networks.boundary_objective import BoundaryObjective
from neuropil.networks.network import Form
from neuropil.networks.recipe import Recipe
from neuropil.networks.sampling import Sampler


class Objective(Protocol):
    """What a network learns; network, samples and stacks are those of its kind."""

    def choose_forms(self, network: Any, updates: int) -> tuple[Form, ...]:
        """Return the forms of the network's layers for a training of so many updates."""

    def loss(self, network: Any, sample: Any, forms: Sequence[Form]) -> Tensor:
        """Return the loss of one patch, a scalar on the network's device."""

    def validate(self, network: Any, stacks: Sequence[Any]) -> Any:
        """Return the result on whole stacks, a dataclass with a `score`, of which less is better."""

    def validation(self, data: Mapping[str, Any]) -> Any:
        """Rebuild such a result from its fields."""


def objective_for(sampler: Sampler | AffinitySampler, recipe: Recipe, dtype: torch.dtype) -> Objective:
    """Return what patches of this kind teach: affinities, or interior and boundary."""
    if isinstance(sampler, AffinitySampler):
        return AffinityObjective(sampler.patch, recipe.precision, recipe.rebalance, recipe.inverse_margin)
    return BoundaryObjective(sampler, dtype)
