"""What boundary networks learn: per-voxel softmax cross-entropy, weighted, over the voxels learnt from.

Source: output-patch training of ZNN; Lee et al., NIPS 2015.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from neuropil.metrics.pixel_error import best_pixel_error
from neuropil.networks.inference import predict
from neuropil.networks.network import DenseNetwork, Form
from neuropil.networks.planning import forms_for_training
from neuropil.networks.sampling import BOUNDARY, UNLABELLED, Sample, Sampler, Stack


@dataclass(frozen=True)
class Validation:
    """Result on the validation stacks: best pixel error, its threshold on P(boundary), unweighted loss."""

    pixel_error: float
    threshold: float
    loss: float

    @property
    def score(self) -> float:
        """What the best network has least of."""
        return self.pixel_error


@dataclass(frozen=True)
class BoundaryObjective:
    """Interior and boundary, from a `Sampler`; computed in `dtype`."""

    sampler: Sampler
    dtype: torch.dtype

    def choose_forms(self, network: DenseNetwork, updates: int) -> tuple[Form, ...]:
        """Find the fastest forms of the layers, where the run is long enough to repay it."""
        return forms_for_training(network, self.sampler.patch, self.sampler.spacing, self.dtype, updates)

    def loss(self, network: DenseNetwork, sample: Sample, forms: Sequence[Form]) -> Tensor:
        """Return the loss per voxel of one patch."""
        device = next(network.parameters()).device
        inputs = [torch.from_numpy(one)[None, None].to(device, self.dtype) for one in sample.inputs]
        target = torch.from_numpy(sample.target.astype(np.int64))[None].to(device)
        weight = torch.from_numpy(sample.weight)[None].to(device)
        logits = network(inputs, self.sampler.spacing, forms).float()
        errors = functional.cross_entropy(logits, target, ignore_index=UNLABELLED, reduction="none")
        return (errors * weight).sum() / target.numel()

    def validate(self, network: DenseNetwork, stacks: Sequence[Stack]) -> Validation:
        """Score a network on whole stacks."""
        return validate(network, stacks)

    def validation(self, data: Mapping[str, Any]) -> Validation:
        """Rebuild a result from its fields."""
        return Validation(**data)


def validate(network: DenseNetwork, stacks: Sequence[Stack]) -> Validation:
    """Predict whole stacks and pool their pixels: best pixel error over all thresholds, and mean cross-entropy."""
    maps = [predict(network, stack.inputs(network.architecture.streams)) for stack in stacks]
    boundary = np.concatenate([one.ravel() for one in maps])
    target = np.concatenate([stack.target.ravel() for stack in stacks])
    labelled = target != UNLABELLED
    best = best_pixel_error(boundary, target == BOUNDARY, mask=labelled)
    right = np.where(target == BOUNDARY, boundary, 1 - boundary)[labelled]
    return Validation(float(best.error), best.boundary_threshold, float(-np.log(np.maximum(right, 1e-7)).mean()))
