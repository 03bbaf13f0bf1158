"""Patches of affinities to learn: cut from instance labels, varied, and linked. Patch i is a function of (seed, i).

The order matters. A box as large as the warp needs is cut and warped to the patch, so that no filling is learnt from;
then each object's connected pieces get ids of their own, since two pieces that join outside the patch cannot be known
to be one; then sections are shifted, and hidden; only then are voxels linked, so that links are right whatever moved.

Source: Lee et al., "Superhuman accuracy on the SNEMI3D connectomics challenge", 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.labels import relabel
from neuropil.networks.augmentation import NO_AUGMENTATION, Augmentation, Orientation, Patch, grey, random_orientation
from neuropil.networks.defects import misalign, missing_sections, out_of_focus, section_noise
from neuropil.networks.sampling import SectionStatistics, check_stacks, draw_stack
from neuropil.networks.unet_architecture import UNetArchitecture
from neuropil.networks.warp import random_places, source_extent, warp
from neuropil.segmentation.affinities import link_labels

UNKNOWN = 2**32 - 1  # id of unlabelled voxels while they travel with the others


@dataclass(frozen=True)
class LabelledStack:
    """One image stack with instance labels.

    Attributes
    ----------
    name : for messages
    image : (z, y, x) any real dtype, as on disk
    labels : (z, y, x) integers >= 0, 0 is background; kept as uint32 with other ids
    unlabelled : (z, y, x) bool, True where the label is not known; None: known everywhere
    share : of the patches, relative to the other stacks'; None for the number of places where a patch fits

    Raises
    ------
    InputError : shapes differ, labels are no ids, or the image is not finite
    """

    name: str
    image: NDArray[Any]
    labels: NDArray[Any]
    unlabelled: NDArray[np.bool_] | None = None
    share: float | None = None
    statistics: SectionStatistics = field(init=False)

    def __post_init__(self) -> None:
        for name in ("labels", "unlabelled"):
            array = getattr(self, name)
            if array is not None and array.shape != self.image.shape:
                raise InputError(
                    f"image and {name} of stack '{self.name}' must have one shape;"
                    f" got {self.image.shape} and {array.shape}"
                )
        if self.labels.dtype.kind not in "ui" or (self.labels.size and int(self.labels.min()) < 0):
            raise InputError(f"labels of stack '{self.name}' must be integers >= 0; got {self.labels.dtype}")
        large = self.labels.size and int(self.labels.max()) >= UNKNOWN
        ids = (relabel(self.labels).labels if large else self.labels).astype(np.uint32)
        if self.unlabelled is not None:
            ids[self.unlabelled] = UNKNOWN
        object.__setattr__(self, "labels", ids)
        object.__setattr__(self, "statistics", SectionStatistics.of(self.image.__getitem__, self.image.shape[0]))

    def crop(self, start: Sequence[int], shape: Sequence[int]) -> Patch:
        """Cut a box that may reach outside, where the image is mirrored and nothing is labelled."""
        inner = tuple(slice(max(0, a), min(a + n, extent)) for a, n, extent in zip(start, shape, self.image.shape))
        image, labels = self.statistics.apply(self.image[inner], inner[0]), self.labels[inner]
        beyond = [(one.start - a, a + n - one.stop) for a, n, one in zip(start, shape, inner)]
        if any(map(any, beyond)):
            image, labels = np.pad(image, beyond, "reflect"), np.pad(labels, beyond, constant_values=UNKNOWN)
        return Patch(image, labels)


@dataclass(frozen=True)
class AffinitySample:
    """Training patches.

    Attributes
    ----------
    image : (z, y, x) float32, or (n, z, y, x) for a batch of several patches
    target : (c, z, y, x) uint8, affinities 0 and 1, UNLABELLED 255; or (n, c, z, y, x)
    """

    image: NDArray[np.float32]
    target: NDArray[np.uint8]


@dataclass(frozen=True)
class AffinitySampler:
    """Draws patches from stacks of instance labels.

    Parameters
    ----------
    stacks : with instance labels
    architecture : whose offsets are linked
    patch : z, y, x; output and input
    seed : of all draws
    augmentation : how often and how strongly sections are spoilt and warped
    flips, grey, elastic : see `neuropil.networks.augmentation`
    erosion : voxels within so many steps of another id become background
    isotropic : sections are not special: erosion works along z too, and flips turn patches about all axes
    batch : patches of one update; the batch number i of n patches holds the patches i n ... i n + n - 1

    Raises
    ------
    InputError : a patch that fits into no stack or not the network, or that no link of a channel fits into, or nothing
    is labelled
    """

    stacks: Sequence[LabelledStack]
    architecture: UNetArchitecture
    patch: tuple[int, int, int]
    seed: int
    augmentation: Augmentation = NO_AUGMENTATION
    flips: bool = True
    grey: float = 0.0
    elastic: float = 0.0
    erosion: int = 0
    isotropic: bool = False
    batch: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"batch must be at least 1; got {self.batch}")
        multiple = self.architecture.multiple
        if any(n < 1 or n % m for n, m in zip(self.patch, multiple)):
            raise InputError(f"patch must be multiples of {multiple} for '{self.architecture.name}'; got {self.patch}")
        far = [one for one in self.architecture.offsets if any(abs(d) >= n for d, n in zip(one, self.patch))]
        if far:
            raise InputError(f"patch must be longer than every offset; got {self.patch} and the offset {far[0]}")
        check_stacks(self.stacks, self.architecture.name, self.patch, self.patch)
        if all((stack.labels == UNKNOWN).all() for stack in self.stacks):
            raise InputError("the training stacks hold no labelled voxel")

    def __call__(self, index: int) -> AffinitySample:
        """Return batch number `index`; of one patch it has no axis of its own."""
        if self.batch == 1:
            return self._draw(index)
        drawn = [self._draw(index * self.batch + k) for k in range(self.batch)]
        return AffinitySample(np.stack([one.image for one in drawn]), np.stack([one.target for one in drawn]))

    def _draw(self, index: int) -> AffinitySample:
        """Return patch number `index`."""
        rng = np.random.default_rng((self.seed, index))
        stack = draw_stack(self.stacks, self.patch, rng)
        patch = self._hide(self._cut(stack, rng), rng)
        labels, unlabelled = patch.labels, patch.labels == UNKNOWN
        if self.erosion:
            labels, unlabelled = erode_borders(labels, unlabelled, self.erosion, axes=self._plane)
        turn = self._orientation(rng)
        image, labels, unlabelled = (np.ascontiguousarray(turn.apply(a)) for a in (patch.image, labels, unlabelled))
        return AffinitySample(image, link_labels(labels, self.architecture.offsets, unlabelled))

    @property
    def labelled(self) -> tuple[int, int, int]:
        """Shape of what one update learns from, as if the patches of a batch lay one above the other."""
        z, y, x = self.patch
        return (self.batch * z, y, x)

    @property
    def spacing(self) -> int:
        """Every voxel of a patch is learnt from."""
        return 1

    @property
    def _plane(self) -> tuple[int, ...]:
        return (0, 1, 2) if self.isotropic else (1, 2)

    def _cut(self, stack: LabelledStack, rng: np.random.Generator) -> Patch:
        """Cut, warp, tell pieces apart, shift."""
        ranges = self.augmentation
        margin = ranges.shift if rng.random() < ranges.misalign else 0
        depth, *extents = self.patch
        shape = (extents[0] + 2 * margin, extents[1] + 2 * margin)
        places, source = None, shape
        warped = rng.random() < ranges.warp
        if warped or self.elastic:
            ranges = ranges if warped else replace(ranges, rotation=0, scale=0, shear=0)
            places = random_places(shape, ranges, elastic=self.elastic, rng=rng)
            source = source_extent(places)
        box = (depth, *source)
        start = [int(rng.integers(min(0, n - m), max(0, n - m) + 1)) for n, m in zip(stack.image.shape, box)]
        patch = stack.crop(start, box)
        if places is not None:
            patch = warp(*patch, places, outside=UNKNOWN)
        patch = Patch(patch.image, pieces(patch.labels))
        if margin:
            patch = misalign(*patch, margin, rng=rng, slip=rng.random() < ranges.slip)
        return patch

    def _hide(self, patch: Patch, rng: np.random.Generator) -> Patch:
        """Vary and spoil the image; the labels stay."""
        ranges = self.augmentation
        if self.grey:
            patch = Patch(grey(patch.image, self.grey, rng=rng, together=rng.random() < 0.5), patch.labels)
        if rng.random() < ranges.out_of_focus:
            patch = out_of_focus(*patch, rng=rng, sections=ranges.sections, blur=ranges.blur)
        if rng.random() < ranges.noise:
            patch = section_noise(*patch, rng=rng, deviation=ranges.deviation)
        if rng.random() < ranges.missing:
            patch = missing_sections(*patch, rng=rng, sections=ranges.sections)
        return patch

    def _orientation(self, rng: np.random.Generator) -> Orientation:
        """Draw flips and, among axes of one extent, turns."""
        if not self.flips:
            return Orientation()
        alike = len({self.patch[axis] for axis in self._plane}) == 1
        flat = self.patch[1] == self.patch[2]
        return random_orientation(rng=rng, axes=self._plane if alike else (1, 2) if flat else ())


def pieces(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Give each connected piece (26 neighbours) of each id an id of its own; 0 and `UNKNOWN` stay.

    >>> pieces(np.array([[[7, 0, 7, 7, UNKNOWN, 9]]], np.uint32)).tolist()
    [[[1, 0, 2, 2, 4294967295, 4]]]
    """
    given = np.require(labels, requirements=["C", "W"])
    made = np.asarray(cc3d.connected_components(given, connectivity=26, out_dtype=np.uint32), np.uint32)
    made[labels == UNKNOWN] = UNKNOWN
    return made


def erode_borders(
    labels: NDArray[Any], unlabelled: NDArray[np.bool_], steps: int, *, axes: Sequence[int] = (1, 2)
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Make background of voxels within `steps` steps along `axes` of another id, so that touching objects part.

    Where a labelled object meets unlabelled voxels nobody knows whether it ends: there the voxels become unlabelled.

    Examples
    --------
    >>> row = np.array([[[1, 1, 1, 2, 2, 2, 9, 9]]])
    >>> labels, unlabelled = erode_borders(row, row == 9, 1)
    >>> labels.tolist(), unlabelled.astype(int).tolist()
    ([[[1, 1, 0, 0, 2, 2, 9, 9]]], [[[0, 0, 0, 0, 0, 1, 1, 1]]])
    """
    labels, unlabelled = labels.copy(), unlabelled.copy()
    for _ in range(steps):
        border, edge = np.zeros(labels.shape, bool), np.zeros(labels.shape, bool)
        for axis in axes:
            ids, hidden = np.moveaxis(labels, axis, 0), np.moveaxis(unlabelled, axis, 0)
            differs, unsure = ids[1:] != ids[:-1], hidden[1:] != hidden[:-1]
            for side in (slice(1, None), slice(None, -1)):
                np.moveaxis(border, axis, 0)[side] |= differs & ~unsure
                np.moveaxis(edge, axis, 0)[side] |= unsure
        unlabelled |= edge
        labels[border & ~unlabelled] = 0
    return labels, unlabelled
