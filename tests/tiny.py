"""A network and a stack small enough to train in a test."""

import numpy as np

from neuropil.networks.architecture import Architecture
from neuropil.networks.sampling import Stack

TINY = Architecture("tiny", ("conv1 1x2x2 6", "pool1 1x2x2", "conv2 1x3x3 8", "dropout 0.5", "output 1x1x1 2 linear"))
TINY_RECURSIVE = Architecture(
    "tiny_recursive", ("conv1 1x2x2 6", "pool1 1x2x2", "conv2 2x3x3 8", "output 1x1x1 2 linear"), join="conv1"
)


def tiny_stack(name="tiny", shape=(4, 40, 44), seed=0, maps=False):
    """Bright cells with dark lines between them, and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[1], : shape[2]]
    boundary = np.broadcast_to((y % 13 < 2) | (x % 11 < 2), shape)
    image = np.clip(np.where(boundary, 80, 170) + rng.normal(0, 25, shape), 0, 255).astype(np.uint8)
    recursive = np.where(boundary, 0.8, 0.2).astype(np.float32) if maps else None
    return Stack(name, image, boundary.astype(np.uint8), recursive)
