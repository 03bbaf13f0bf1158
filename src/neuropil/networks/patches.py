"""Affinities of a whole volume from overlapping patches of a U-Net, blended so that no patch can be seen.

A patch's middle is more to be trusted than its faces, so patches overlap by half and each link is the mean of those
that hold it, weighted by a bump. A link that leaves a patch has weight 0 there: the bump spans the voxels whose link
stays inside. The patches lie on one grid that starts at the volume's first voxel and are always added in one order, so
whatever the volume is cut into while it is computed, the result is the same to the bit. Bumps and grid are products
over the axes, and so is the sum of weights: three short arrays a channel.

Source: the bump is that of Jonathan Zung's blending in the pipeline of Lee et al., arXiv:1706.00120.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.geometry import grid as grid_of
from neuropil.machine import Precision, keep_memory, release
from neuropil.networks.inference import read_mirrored
from neuropil.networks.planning import dtype_of
from neuropil.networks.rsunet import RSUNet
from neuropil.networks.unet_architecture import Size, UNetArchitecture
from neuropil.networks.views import ViewCount, average_over_views
from neuropil.progress import Progress
from neuropil.segmentation.affinities import inside_of

FAINTEST = 1e-5
"""Least weight along an axis, so that a voxel that only a patch's face holds has a value too."""
Stored = Literal["uint8", "float32"]
Affinities = NDArray[np.uint8] | NDArray[np.float32]


def bump(extent: int) -> NDArray[np.float64]:
    r"""Return the weights of a patch along one axis: 1 in the middle, little at the ends.

    .. math:: w_i = \exp\left(8 - (u_i (1 - u_i))^{-3/2}\right), \quad u_i = \frac{i + 1}{n + 1}

    and at least 1e-5.

    Parameters
    ----------
    extent : n, voxels

    >>> bump(3).round(4).tolist()
    [0.0133, 1.0, 0.0133]
    """
    u = np.arange(1, extent + 1) / (extent + 1)
    return np.maximum(np.exp(8 - (u * (1 - u)) ** -1.5), FAINTEST)


@dataclass(frozen=True)
class PatchGrid:
    """Where the patches of a volume lie.

    Along each axis they start at multiples of the stride from voxel 0 on; the last one is moved back to end with the
    volume. Along an axis where the volume is shorter than a patch there is one, of the volume's extent.

    Parameters
    ----------
    shape : voxels z, y, x of the volume
    patch : voxels z, y, x that the network sees at once
    overlap : share of a patch that the next one holds too

    Raises
    ------
    InputError : extents that are not positive, or an overlap outside [0, 1)

    Examples
    --------
    >>> PatchGrid((20, 100, 50), (18, 40, 64)).starts
    ((0, 2), (0, 20, 40, 60), (0,))
    """

    shape: Size
    patch: Size
    overlap: float = 0.5

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise InputError(f"shape must be three positive extents z, y, x; got {self.shape}")
        if len(self.patch) != 3 or min(self.patch) < 1:
            raise InputError(f"patch must be three positive extents z, y, x; got {self.patch}")
        if not 0 <= self.overlap < 1:
            raise InputError(f"overlap must be a share in [0, 1); got {self.overlap}")

    @property
    def extent(self) -> Size:
        """Voxels z, y, x of a patch that lie in the volume."""
        return tuple(map(min, self.shape, self.patch))  # type: ignore[return-value]

    @cached_property
    def starts(self) -> tuple[tuple[int, ...], ...]:
        """First voxels of the patches along z, y, x."""
        found = []
        for extent, patch in zip(self.shape, self.extent):
            stride = max(1, round(patch * (1 - self.overlap)))
            found.append((*range(0, extent - patch, stride), extent - patch))
        return tuple(found)

    @property
    def count(self) -> int:
        """Number of patches."""
        z, y, x = map(len, self.starts)
        return z * y * x

    def touching(self, axis: int, start: int, stop: int) -> list[int]:
        """First voxels of the patches along one axis that hold some of [start, stop)."""
        return [s for s in self.starts[axis] if s < stop and s + self.extent[axis] > start]

    def touching_box(self, box: Box) -> list[list[int]]:
        """First voxels along z, y, x of the patches that hold some of a box."""
        return [self.touching(axis, *span) for axis, span in enumerate(zip(box.start, box.stop))]

    def region(self, box: Box) -> Box:
        """Return the part of the volume that these patches hold together."""
        spans = self.touching_box(box)
        stop = (starts[-1] + extent for starts, extent in zip(spans, self.extent))
        return Box(tuple(starts[0] for starts in spans), tuple(stop))

    def blocks(self, column: Sequence[int]) -> list[Box]:
        """Cut the volume into columns of (y, x) voxels, and each into blocks that begin where patches do along z."""
        _, *plane = self.shape
        ends = [*self.starts[0][1:], self.shape[0]]
        return [
            Box((a, *part.start), (b, *part.stop))
            for part in grid_of(Box.of_shape(plane), column)
            for a, b in zip(self.starts[0], ends)
        ]

    def passes(self, blocks: Sequence[Box]) -> int:
        """Count the patches that the network sees for blocks in this order; see `PatchPredictor`."""
        count, before = 0, None
        for block in blocks:
            z, y, x = self.touching_box(block)
            new = len(z) if before is None or not follows(block, before) else sum(s >= before.stop[0] for s in z)
            count, before = count + new * len(y) * len(x), block
        return count

    def weights(self, offset: Size) -> list[NDArray[np.float64]]:
        """Weights of a channel's links along z, y, x in one patch: 0 where they leave it."""
        result = []
        for extent, step, inside in zip(self.extent, offset, inside_of(self.extent, offset)):
            weight = np.zeros(extent)
            weight[inside] = bump(max(0, extent - abs(step)))
            result.append(weight)
        return result

    def totals(self, offset: Size) -> list[NDArray[np.float64]]:
        """Sum of the weights over all patches along z, y, x of the volume; 0 where links leave the volume.

        Raises
        ------
        InputError : no patch holds some of the links
        """
        result, inside = [], inside_of(self.shape, offset)
        for axis, weight in enumerate(self.weights(offset)):
            step, total = offset[axis], np.zeros(self.shape[axis])
            for start in self.starts[axis]:
                total[start : start + len(weight)] += weight
            if not total[inside[axis]].all():
                raise InputError(
                    f"patches of {self.patch} that overlap by {self.overlap:g} do not hold all links of offset"
                    f" {offset}: along {'zyx'[axis]} they must overlap by at least {abs(step)} voxels"
                )
            result.append(total)
        return result


class PatchPredictor:
    """Affinities of one block of a volume after the other; a context, in which freed memory is kept.

    What the patches of a block say about the next one along z is kept, so that in blocks of one column, called in order
    of z, every patch is computed once. In another order the result is the same.

    Parameters
    ----------
    network : on the device to use
    grid : where the patches lie; see `blocks`
    channels : numbers of the channels to return, all by default
    views : 1, 8 or 16; see `average_over_views`
    precision : of the activations
    stored : dtype of the result; uint8 stores affinity times 255

    Raises
    ------
    InputError : a patch that the network does not take, offsets that reach further than the patches overlap, channels
        that are not there
    """

    def __init__(
        self,
        network: RSUNet,
        grid: PatchGrid,
        *,
        channels: Sequence[int] | None = None,
        views: ViewCount = 1,
        precision: Precision = "float32",
        stored: Stored = "float32",
    ) -> None:
        self.grid, self.views, self.stored = grid, views, stored
        self.offsets = network.architecture.offsets
        self.channels = list(range(len(self.offsets)) if channels is None else channels)
        if not self.channels or not set(self.channels) <= set(range(len(self.offsets))):
            raise InputError(f"channels must be among 0 to {len(self.offsets) - 1}; got {self.channels}")
        self.device, self._dtype = next(network.parameters()).device, dtype_of(network, precision)
        self._network = network.folded().to(self._dtype)
        self._input = network_shape(network.architecture, grid, views)
        wanted = [self.offsets[channel] for channel in self.channels]
        products = [np.einsum("i,j,k->ijk", *grid.weights(offset)) for offset in wanted]
        self._weights = torch.from_numpy(np.stack(products).astype(np.float32)).to(self.device)
        self._totals = [grid.totals(offset) for offset in wanted]
        self._sums, self._before, self._done = torch.zeros(0), Box((0, 0, 0), (0, 0, 0)), -1
        self.progress: Progress | None = None
        self.passed = 0

    def __enter__(self) -> PatchPredictor:
        return self

    def __exit__(self, *_: object) -> None:
        keep_memory(False)
        release()

    def __call__(self, block: Box, image: NDArray[np.float32]) -> Affinities:
        """Return the affinities (c, z, y, x) of a block.

        Parameters
        ----------
        block : any box of the volume; see `PatchGrid.blocks`
        image : (z, y, x) float32, standardised: what `PatchGrid.region` says of the block
        """
        spans, region = self.grid.touching_box(block), self.grid.region(block)
        with torch.inference_mode():
            self._begin(block, region)
            for start in product(*spans):
                if start[0] > self._done:
                    patch = Box(start, tuple(a + n for a, n in zip(start, self.grid.extent)))
                    self._add(patch, image[patch.shift([-n for n in region.start]).slices], block)
            self._done = spans[0][-1]
            return self._finish(block)

    def _begin(self, block: Box, region: Box) -> None:
        """Make room for the sums from the block's first section on; keep them if it follows the block before."""
        goes_on = follows(block, self._before)
        shape = (len(self.channels), region.stop[0] - block.start[0], *block.shape[1:])
        if goes_on and shape[1] <= self._sums.shape[1]:
            return
        before, self._sums = self._sums, torch.zeros(0)
        if not goes_on:
            self._done, before = -1, torch.zeros(0)
        self._sums = torch.zeros(shape, device=self.device)
        if goes_on:
            self._sums[:, : before.shape[1]] = before

    def _add(self, patch: Box, image: NDArray[np.float32], block: Box) -> None:
        """Predict one patch and add it to the sums, as far as it lies in the column."""
        keep_memory(self.passed > 0)
        made = average_over_views(self._affinities, self._padded(image), self.offsets, self.views)
        self.passed += 1
        if self.progress is not None:
            self.progress.advance()
        room = Box(block.start, (block.start[0] + self._sums.shape[1], *block.stop[1:]))
        part = patch.clip(room)
        here, there = part.shift([-n for n in patch.start]).slices, part.shift([-n for n in room.start]).slices
        for index, channel in enumerate(self.channels):
            self._sums[index][there].addcmul_(made[channel][here], self._weights[index][here])

    def _padded(self, image: NDArray[np.float32]) -> Tensor:
        """Mirror a patch of a small volume to what the network takes."""
        if image.shape != self._input:
            whole = image
            image = read_mirrored(lambda box: whole[box.slices], image.shape, Box.of_shape(self._input))
        return torch.from_numpy(np.ascontiguousarray(image)).to(self.device, self._dtype)

    def _affinities(self, patch: Tensor) -> Tensor:
        return torch.sigmoid(self._network(patch[None, None]).float())[0]

    def _finish(self, block: Box) -> Affinities:
        """Divide by the weights and move the sums on to what follows the block."""
        depth = block.shape[0]
        result = np.empty((len(self.channels), *block.shape), self.stored)
        for index, totals in enumerate(self._totals):
            axes = [torch.from_numpy(total[span].astype(np.float32)) for total, span in zip(totals, block.slices)]
            z, y, x = (axis.to(self.device) for axis in axes)
            factor = torch.einsum("i,j,k->ijk", z, y, x)
            values = torch.where(factor > 0, self._sums[index, :depth] / factor, 0.0).clamp_(0, 1)
            values = values.mul_(255).round_().to(torch.uint8) if self.stored == "uint8" else values
            result[index] = values.cpu().numpy()
        for sums in self._sums:
            sums[: len(sums) - depth] = sums[depth:].clone()
            sums[len(sums) - depth :] = 0
        self._before = block
        return result


def follows(block: Box, before: Box) -> bool:
    """Whether a block begins along z where the one before ends, in the same column."""
    return (block.start[0], block.start[1:], block.stop[1:]) == (before.stop[0], before.start[1:], before.stop[1:])


def network_shape(architecture: UNetArchitecture, grid: PatchGrid, views: ViewCount = 1) -> Size:
    """Return what the network is given for a patch: the patch, or the volume's extent rounded up where that is less.

    Raises
    ------
    InputError : the patch, or the patch with y and x exchanged where views do that, is not a multiple of the poolings
    """
    multiple = architecture.multiple
    if views > 1:
        side = math.lcm(*multiple[1:])
        multiple = (multiple[0], side, side)
    if any(n % m for n, m in zip(grid.patch, multiple)):
        raise InputError(f"patch must be multiples of {multiple} for '{architecture.name}'; got {grid.patch}")
    z, y, x = (-(-n // m) * m for n, m in zip(grid.extent, multiple))
    return (z, y, x)


def predict_affinities(
    network: RSUNet,
    image: NDArray[np.float32],
    patch: Size,
    *,
    overlap: float = 0.5,
    views: ViewCount = 1,
    precision: Precision = "float32",
) -> NDArray[np.float32]:
    """Predict the affinities of a whole stack in memory.

    Parameters
    ----------
    network : on the device to use
    image : (z, y, x) float32, standardised per section
    patch : voxels z, y, x that the network sees at once
    overlap : share of a patch that the next one holds too
    views : flips and rotations to average: 1, 8 or 16
    precision : of the activations

    Returns
    -------
    (c, z, y, x) float32 in [0, 1]: channel c links v and v + offsets[c]; 0 where that leaves the stack

    Raises
    ------
    InputError : not a stack, or a patch that does not fit the network's poolings or offsets

    Examples
    --------
    >>> net = RSUNet(UNetArchitecture(widths=(4, 8), pooling=((1, 2, 2),), offsets=((-1, 0, 0), (0, 0, -3))))
    >>> predict_affinities(net, np.zeros((3, 20, 21), np.float32), (2, 8, 8)).shape
    (2, 3, 20, 21)
    """
    if image.ndim != 3 or not image.size:
        raise InputError(f"image must have three axes (z, y, x), none empty; got shape {image.shape}")
    z, y, x = image.shape
    grid = PatchGrid((z, y, x), patch, overlap)
    whole = Box.of_shape(image.shape)
    with PatchPredictor(network, grid, views=views, precision=precision) as predictor:
        made = [predictor(block, image[grid.region(block).slices]) for block in grid.blocks(whole.shape[1:])]
    return np.concatenate(made, 1, dtype=np.float32)
