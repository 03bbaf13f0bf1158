"""Training patches: which, how varied, how weighted. Patch number i of a run is a pure function of (seed, i).

So nothing of the sampler needs to be saved: a resumed run draws exactly what an uninterrupted one would have drawn.
Stacks are chosen in proportion to the number of places a patch fits (ZNN's rule) or to the shares that they are given,
then a place uniformly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.networks.architecture import Architecture
from neuropil.networks.augmentation import deform, elastic_field, grey, random_flips

INTERIOR, BOUNDARY, UNLABELLED = 0, 1, 255
Rebalance = Literal["patch", "global", "none"]
_COUNTED = 1 << 20  # voxels at a time, since they are made eight bytes each


@dataclass(frozen=True)
class SectionStatistics:
    """Mean and standard deviation of each section, by which an image is standardised."""

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @classmethod
    def of(cls, read_section: Callable[[int], NDArray[Any]], depth: int) -> SectionStatistics:
        """Measure the sections that `read_section(z)` gives as (y, x), one at a time.

        Raises
        ------
        InputError : a section holds NaN or infinity
        """
        measured = np.empty((2, depth), np.float32)
        for z in range(depth):
            section = read_section(z)
            if section.dtype == np.uint8:
                measured[:, z] = _moments(byte_counts(section[None])[0])
                continue
            measured[:, z] = section.mean(dtype=np.float64), section.std(dtype=np.float64)
            if not np.isfinite(measured[:, z]).all():
                raise InputError(f"the image must be finite; section {z} holds NaN or infinity")
        return cls.of_measured(*measured)

    @classmethod
    def of_counts(cls, counts: NDArray[np.int64]) -> SectionStatistics:
        """Return those of sections in which each byte occurs so often, (depth, 256): the same as `of` gives."""
        return cls.of_measured(*np.array([_moments(one) for one in counts], np.float32).T)

    @classmethod
    def of_measured(cls, mean: NDArray[np.float32], deviation: NDArray[np.float32]) -> SectionStatistics:
        """Return those of sections of these means and standard deviations; even ones are divided by 1."""
        return cls(mean, np.where(deviation > 0, deviation, np.float32(1)))

    def apply(self, image: NDArray[Any], sections: slice | NDArray[np.intp]) -> NDArray[np.float32]:
        """Standardise an image (z, y, x) whose sections are numbers `sections` of the stack."""
        mean, deviation = self.mean[sections, None, None], self.deviation[sections, None, None]
        return ((image.astype(np.float32) - mean) / deviation).astype(np.float32)


def byte_counts(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count each byte of each section (z, y, x); counts of parts add up, so they do not depend on how one cuts.

    >>> byte_counts(np.array([[[1, 1, 3]]], np.uint8))[0, :4].tolist()
    [0, 2, 0, 1]
    """
    counts = np.zeros((len(image), 256), np.int64)
    for section, own in zip(image, counts):
        flat = section.reshape(-1)
        for start in range(0, flat.size, _COUNTED):
            own += np.bincount(flat[start : start + _COUNTED], minlength=256)
    return counts


def _moments(counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return mean and standard deviation of bytes; whole numbers until the last step."""
    often = [int(n) for n in counts]
    n, total, squares = (sum(v**power * often[v] for v in range(256)) for power in range(3))
    return total / n, math.sqrt((n * squares - total**2) / n**2)


class Annotated(Protocol):
    """What every annotated stack has: a name, an image (z, y, x) and perhaps a share of the patches."""

    @property
    def name(self) -> str: ...
    @property
    def image(self) -> NDArray[Any]: ...
    @property
    def share(self) -> float | None: ...


AnyStack = TypeVar("AnyStack", bound=Annotated)


@dataclass(frozen=True)
class Stack:
    """One annotated image stack.

    Attributes
    ----------
    name : for messages
    image : (z, y, x) any real dtype, as on disk
    target : (z, y, x) uint8: INTERIOR 0, BOUNDARY 1 or UNLABELLED 255
    map : (z, y, x) float32 in [0, 1], the fixed boundary map for a second input stream; None for networks of one stream
    share : of the patches, relative to the other stacks'; None for the number of places where a patch fits
    """

    name: str
    image: NDArray[Any]
    target: NDArray[np.uint8]
    map: NDArray[np.float32] | None = None
    share: float | None = None
    statistics: SectionStatistics = field(init=False)

    def __post_init__(self) -> None:
        if self.image.shape != self.target.shape:
            raise InputError(
                f"image and labels of stack '{self.name}' must have one shape;"
                f" got {self.image.shape} and {self.target.shape}"
            )
        if self.map is not None and self.map.shape != self.image.shape:
            raise InputError(f"map of stack '{self.name}' must have shape {self.image.shape}; got {self.map.shape}")
        object.__setattr__(self, "statistics", SectionStatistics.of(self.image.__getitem__, self.image.shape[0]))

    def inputs(self, streams: int) -> list[NDArray[np.float32]]:
        """Return the whole standardised image and, for two streams, the map."""
        return self._crop(Box.of_shape(self.image.shape), streams)

    def _crop(self, box: Box, streams: int) -> list[NDArray[np.float32]]:
        crops = [self.statistics.apply(self.image[box.slices], box.slices[0])]
        if streams == 2:
            if self.map is None:
                raise InputError(f"stack '{self.name}' has no boundary map for the recursive input")
            crops.append(self.map[box.slices])
        return crops


@dataclass(frozen=True)
class Sample:
    """One training patch: inputs (z, y, x) float32 per stream; target (uint8) and weight (float32) of its lattice."""

    inputs: list[NDArray[np.float32]]
    target: NDArray[np.uint8]
    weight: NDArray[np.float32]


@dataclass(frozen=True)
class Sampler:
    """Draws patches from stacks.

    Parameters
    ----------
    stacks : the annotated stacks
    architecture : whose field of view is added around the output patch
    patch : output patch z, y, x
    seed : of all draws
    rebalance : "patch", "global" (per stack) or "none"; see `class_weights`
    flips, grey, elastic : see `neuropil.networks.augmentation`
    spacing : only every so-manyth voxel of a patch is learnt from, along y and x. Neighbouring voxels tell nearly the
        same, so a wide, thin patch teaches more than a small dense one of the same cost.

    Raises
    ------
    InputError : a network of other outputs than interior and boundary, a patch that fits into no stack with its field
    of view, or nothing is labelled
    """

    stacks: Sequence[Stack]
    architecture: Architecture
    patch: tuple[int, int, int]
    seed: int
    rebalance: Rebalance = "patch"
    flips: bool = True
    grey: float = 0.0
    elastic: float = 0.0
    spacing: int = 1

    def __post_init__(self) -> None:
        self.architecture.check_boundary()
        check_stacks(self.stacks, self.architecture.name, self._input_shape, self.patch)
        if all((stack.target == UNLABELLED).all() for stack in self.stacks):
            raise InputError("the training stacks hold no labelled voxel")

    @property
    def batch(self) -> int:
        """Each update learns from one patch."""
        return 1

    def __call__(self, index: int) -> Sample:
        """Return patch number `index`."""
        rng = np.random.default_rng((self.seed, index))
        stack = draw_stack(self.stacks, self._input_shape, rng)
        free = [n - need + 1 for n, need in zip(stack.image.shape, self._input_shape)]
        start = tuple(int(rng.integers(n)) for n in free)
        box = Box(start, tuple(a + n for a, n in zip(start, self._input_shape)))
        inputs, target = self._vary(stack._crop(box, self.architecture.streams), stack.target[box.slices], rng)
        before = [(n - 1) // 2 for n in self.architecture.field_of_view]
        steps = (1, self.spacing, self.spacing)
        target = target[tuple(slice(a, a + n, step) for a, n, step in zip(before, self.patch, steps))]
        return Sample(inputs, target, class_weights(target, stack.target, self.rebalance))

    @property
    def labelled(self) -> tuple[int, int, int]:
        """Shape (z, y, x) of what one patch learns from."""
        z, y, x = self.patch
        return (z, -(-y // self.spacing), -(-x // self.spacing))

    @property
    def _input_shape(self) -> tuple[int, int, int]:
        return self.architecture.input_shape(self.patch)

    def _vary(
        self, inputs: list[NDArray[np.float32]], target: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[list[NDArray[np.float32]], NDArray[np.uint8]]:
        if self.elastic:
            places = elastic_field(target.shape[1:], self.elastic, rng=rng)
            inputs = [deform(one, places, order=1).astype(np.float32) for one in inputs]
            target = deform(target, places, order=0).astype(np.uint8)
        if self.grey:
            inputs = [grey(inputs[0], self.grey, rng=rng), *inputs[1:]]
        if self.flips:
            square = self._input_shape[1] == self._input_shape[2]
            *varied, target = random_flips([*inputs, target], rng=rng, transpose=square)  # type: ignore[assignment]
            inputs = varied  # type: ignore[assignment]
        return [one.copy() for one in inputs], target.copy()


def check_stacks(stacks: Sequence[Annotated], name: str, shape: Sequence[int], patch: Sequence[int]) -> None:
    """Refuse stacks from which no patch could be drawn: none, too small ones, or shares in only some of them.

    Parameters
    ----------
    stacks : annotated stacks
    name : of the network
    shape : voxels z, y, x that it needs
    patch : for an output patch, voxels z, y, x
    """
    if not stacks:
        raise InputError("there must be at least one training stack; got none")
    without = [stack.name for stack in stacks if stack.share is None]
    if 0 < len(without) < len(stacks):
        raise InputError(f"either all stacks or none must have a share of the patches; '{without[0]}' has none")
    if not sum(_places(stack, shape) for stack in stacks):
        largest = max((stack.image.shape for stack in stacks), key=lambda extents: int(np.prod(extents)))
        missing = [max(0, need - have) for need, have in zip(shape, largest)]
        raise InputError(
            f"no stack is large enough: '{name}' needs {tuple(shape)} voxels (z, y, x)"
            f" for a patch of {tuple(patch)}; the largest stack {largest} lacks {tuple(missing)}"
        )


def draw_stack(stacks: Sequence[AnyStack], shape: Sequence[int], rng: np.random.Generator) -> AnyStack:
    """Choose a stack by share, or by the number of places for a patch that takes `shape` voxels (z, y, x)."""
    places = [_places(stack, shape) for stack in stacks]
    shares = np.array([float(n if stack.share is None or not n else stack.share) for n, stack in zip(places, stacks)])
    return stacks[rng.choice(len(stacks), p=shares / shares.sum())]


def _places(stack: Annotated, shape: Sequence[int]) -> int:
    return int(np.prod([max(0, n - need + 1) for n, need in zip(stack.image.shape, shape)]))


def class_weights(target: NDArray[np.uint8], stack_target: NDArray[np.uint8], mode: Rebalance) -> NDArray[np.float32]:
    """Weight of each voxel's loss; unlabelled voxels have none.

    With N⁺ boundary and N⁰ interior voxels, N labelled ones (ZNN):
    "patch": w⁺ ∝ 1/N⁺ and w⁰ ∝ 1/N⁰ of this patch, w⁺ + w⁰ = 1;
    "global": w⁺ = N/2N⁺ and w⁰ = N/2N⁰ of the whole stack;
    "none": 1.

    >>> class_weights(np.array([1, 0, 0, 0], np.uint8), np.zeros(0, np.uint8), "patch").tolist()
    [0.75, 0.25, 0.25, 0.25]
    """
    weights = np.zeros(256, np.float32)
    weights[[INTERIOR, BOUNDARY]] = 1
    counted = {"patch": target, "global": stack_target, "none": None}[mode]
    if counted is not None:
        interior, boundary = (float(np.count_nonzero(counted == c)) for c in (INTERIOR, BOUNDARY))
        total = interior + boundary
        if mode == "patch" and total:
            weights[[INTERIOR, BOUNDARY]] = boundary / total, interior / total
        elif interior and boundary:
            weights[[INTERIOR, BOUNDARY]] = total / (2 * interior), total / (2 * boundary)
    return weights[target]
