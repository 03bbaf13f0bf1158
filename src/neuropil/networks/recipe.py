"""How a network is trained, as data: optimiser, schedule, weighting, augmentation; and recipes by name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from neuropil.errors import InputError
from neuropil.machine import Precision
from neuropil.networks.augmentation import EM_AUGMENTATION, NO_AUGMENTATION, Augmentation
from neuropil.networks.sampling import Rebalance


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are those of Lee et al., NIPS 2015, for boundary maps.

    Attributes
    ----------
    optimizer : "sgd" (with momentum), "adamw" or "muon", which learns in the fewest updates
    learning_rate, momentum, weight_decay : momentum is SGD's and Muon's μ and AdamW's β1
    schedule : "constant", or "cosine" down to 1 % of the learning rate at the last update
    warmup : updates over which the rate rises linearly from 0
    rebalance : class weighting, "patch", "global" or "none"
    flips : random flips along z, y, x and y-x transpose
    grey, elastic : strength of grey variation (0 to 1), amplitude of elastic deformation (voxels)
    augmentation : how sections are warped and spoilt; for affinities
    erosion : steps from another id within which voxels become background; for affinities
    inverse_margin : affinities to learn are this far from 0 and 1, so that what is certain is not pushed on
    average : decay of the moving average of the weights that is validated and used, for example 0.999; 0 for none
    precision : "auto" is bfloat16 on CUDA, float32 elsewhere
    validate_every : updates between validations
    checkpoint_seconds : seconds between checkpoints

    Raises
    ------
    InputError : an erosion, inverse margin or average out of its range
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  read by pydantic where a config nests this class

    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    rebalance: Rebalance = "patch"
    flips: bool = True
    grey: float = 0.0
    elastic: float = 0.0
    augmentation: Augmentation = NO_AUGMENTATION
    erosion: int = 0
    inverse_margin: float = 0.0
    average: float = 0.0
    precision: Precision = "auto"
    validate_every: int = 1000
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.erosion < 0:
            raise InputError(f"erosion must not be negative; got {self.erosion}")
        for name, top in (("inverse_margin", 0.5), ("average", 1.0)):
            if not 0 <= getattr(self, name) < top:
                raise InputError(f"{name} must be in [0, {top}); got {getattr(self, name)}")

    def rate(self, update: int, updates: int) -> float:
        """Learning rate at `update` of `updates`."""
        rate = self.learning_rate * min(1.0, (update + 1) / (self.warmup + 1))
        if self.schedule == "cosine":
            rate *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * update / updates))
        return rate


RECIPES = {
    "paper": Recipe(),  # Lee et al., NIPS 2015: for dense patches
    # for patches on a lattice (spacing)
    "fast": Recipe("muon", 0.005, schedule="cosine", warmup=10, rebalance="none", grey=0.3),
    "affinities": Recipe(
        "adamw",
        0.001,
        weight_decay=0.01,
        schedule="cosine",
        warmup=100,
        grey=0.5,
        elastic=2.0,
        augmentation=EM_AUGMENTATION,
        average=0.999,
    ),
}
"""The recipes that a run's TOML may name."""
