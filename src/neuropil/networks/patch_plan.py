"""How large the patches of a U-Net are, and in which columns a volume is computed so that the memory suffices.

The patch decides the result, so memory never chooses it: it is the one that the network was trained on, or the user's.
Memory chooses the columns (y, x) in which the sums of the patches are kept. Patches that lie across two columns are
computed twice, so columns are as wide as fits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np

from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.machine import Precision
from neuropil.networks.patches import PatchGrid, PatchPredictor, network_shape
from neuropil.networks.rsunet import RSUNet
from neuropil.networks.unet_architecture import Size, UNetArchitecture
from neuropil.networks.views import ViewCount

PER_MAP, PER_VOXEL, APART = 7.5, 28.0, 20e6
"""Numbers per voxel and map of the finest scale, and per voxel, that a pass holds at most; bytes beside them."""


@dataclass(frozen=True)
class PatchPlan:
    """How one volume is computed.

    Attributes
    ----------
    column : voxels y, x of which the sums are kept
    passes : patches that the network sees, those across columns counted twice
    memory : bytes that this takes at most
    """

    column: tuple[int, int]
    passes: int
    memory: float


def default_patch(architecture: UNetArchitecture, card: Mapping[str, Any]) -> Size:
    """Return the patch that a model was trained on as its card says, or larger where half of it holds not all links.

    Without such an entry it is 18×160×160 voxels for networks that never pool along z, 96×96×96 for others, rounded up
    to what the network takes.

    >>> default_patch(UNetArchitecture(), {"patch": [16, 96, 32]})
    (16, 96, 64)
    """
    parts = [card, *card.get("parts", [])]
    said = [part.get("patch") or part.get("network", {}).get("patch") for part in parts]
    flat = architecture.multiple[0] == 1
    patch = next((one for one in said if one), (18, 160, 160) if flat else (96, 96, 96))
    reach = [2 * max(abs(offset[axis]) for offset in architecture.offsets) for axis in range(3)]
    z, y, x = (ceil(max(n, r) / m) * m for n, r, m in zip(patch, reach, architecture.multiple))
    return (z, y, x)


def plan_patches(
    architecture: UNetArchitecture,
    grid: PatchGrid,
    max_memory: float,
    *,
    channels: int,
    itemsize: int = 4,
    stored: int = 4,
    views: ViewCount = 1,
) -> PatchPlan:
    """Choose the widest columns that fit.

    Parameters
    ----------
    architecture : of the network
    grid : where the patches lie
    max_memory : bytes that predicting may take
    channels : how many are wanted
    itemsize : bytes of an activation
    stored : bytes of a value of the result
    views : 1, 8 or 16

    Raises
    ------
    InputError : even a column of half a patch needs more
    """
    _, *least = (max(1, extent // 2) for extent in grid.extent)
    y, x = grid.shape[1:]
    while True:
        memory = patch_memory(architecture, grid, (y, x), channels, itemsize, stored, views)
        if memory <= max_memory:
            return PatchPlan((y, x), grid.passes(grid.blocks((y, x))), memory)
        if y <= least[0] and x <= least[1]:
            raise InputError(
                f"max_memory is too small for patches of {grid.patch} of '{architecture.name}': they need"
                f" {memory / 1e6:.0f} MB, {max(0.0, max_memory) / 1e6:.0f} MB are left for them; give smaller patches"
            )
        if y / least[0] >= x / least[1]:
            y = max(least[0], ceil(y / 2))
        else:
            x = max(least[1], ceil(x / 2))


def patch_memory(
    architecture: UNetArchitecture,
    grid: PatchGrid,
    column: Sequence[int],
    channels: int,
    itemsize: int = 4,
    stored: int = 4,
    views: ViewCount = 1,
) -> float:
    """Bytes that predicting takes at most: a pass of the network, the sums, images and results on their way.

    The constants of the pass are measured; a test holds them against a process's peak.
    """
    shape = network_shape(architecture, grid, views)
    network = prod(shape) * itemsize * (PER_MAP * architecture.widths[0] + PER_VOXEL)
    answers = prod(shape) * 4 * len(architecture.offsets) * (4 if views > 1 else 2)
    weights = prod(grid.extent) * 4 * channels
    deep, plane = grid.extent[0], prod(column)
    slab = max(b.shape[0] for b in grid.blocks(grid.shape[1:]))
    sums = 4 * deep * plane * (channels + 1)
    results = slab * plane * (3 * channels * stored + 3 * 4)
    region = prod(min(n, c + 2 * p) for n, c, p in zip(grid.shape[1:], column, grid.extent[1:]))
    images = 3 * 4 * min(grid.shape[0], 2 * deep) * region
    return network + answers + weights + sums + results + images + APART


def seconds_of_patch(
    network: RSUNet, patch: Size, *, views: ViewCount = 1, precision: Precision = "float32", repeats: int = 2
) -> float:
    """Measure how long one patch takes, blending included: the least of some repeats after a first one.

    Parameters
    ----------
    network : on the device to use
    patch : voxels z, y, x
    views, precision : as for `PatchPredictor`
    repeats : how often it is timed

    Raises
    ------
    InputError : the patch does not fit the network
    """
    grid, block = PatchGrid(patch, patch, 0), Box.of_shape(patch)
    image = np.random.default_rng(0).standard_normal(patch, np.float32)
    took = []
    with PatchPredictor(network, grid, views=views, precision=precision) as predictor:
        for _ in range(repeats + 1):
            start = time.perf_counter()
            predictor(block, image)
            took.append(time.perf_counter() - start)
    return min(took[1:])
