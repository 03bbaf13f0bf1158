"""Places in a volume: boxes of voxels and the grid of blocks that covers one.

A box is half-open, [start, stop), and lists z, y, x. A block is the box one task writes; its halo is what it reads
around it. Both may reach outside the volume where a caller pads (mirrored borders).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from neuropil.errors import InputError


@dataclass(frozen=True)
class Box:
    """Half-open box of voxels, [start, stop), axes z, y, x.

    >>> Box((0, 0, 0), (2, 3, 4)).shape
    (2, 3, 4)
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.start) != len(self.stop) or any(a > b for a, b in zip(self.start, self.stop)):
            raise InputError(f"box start must not lie beyond stop; got start {self.start}, stop {self.stop}")

    @classmethod
    def of_shape(cls, shape: Sequence[int]) -> Box:
        """Return the box from the origin to `shape`."""
        return cls((0,) * len(shape), tuple(int(n) for n in shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent per axis, voxels."""
        return tuple(b - a for a, b in zip(self.start, self.stop))

    @property
    def size(self) -> int:
        """Number of voxels."""
        size = 1
        for extent in self.shape:
            size *= extent
        return size

    @property
    def slices(self) -> tuple[slice, ...]:
        """Index of an array by this box."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop))

    def grow(self, before: Sequence[int], after: Sequence[int] | None = None) -> Box:
        """Return the box with a halo of `before` (and `after`; the same if omitted) voxels added."""
        after = before if after is None else after
        return Box(tuple(a - n for a, n in zip(self.start, before)), tuple(b + n for b, n in zip(self.stop, after)))

    def shift(self, by: Sequence[int]) -> Box:
        """Return the box moved by `by` voxels."""
        return Box(tuple(a + n for a, n in zip(self.start, by)), tuple(b + n for b, n in zip(self.stop, by)))

    def clip(self, other: Box) -> Box:
        """Return the part of the box inside `other`; empty along an axis where they do not meet."""
        start = tuple(min(max(a, lo), hi) for a, lo, hi in zip(self.start, other.start, other.stop))
        stop = tuple(max(min(b, hi), a) for b, hi, a in zip(self.stop, other.stop, start))
        return Box(start, stop)

    def contains(self, other: Box) -> bool:
        """Tell whether `other` lies wholly inside this box."""
        return all(a <= b for a, b in zip(self.start, other.start)) and all(
            a >= b for a, b in zip(self.stop, other.stop)
        )


def grid(box: Box, block_shape: Sequence[int]) -> Iterator[Box]:
    """Yield the blocks that tile `box`, in raster order; those at the far faces may be smaller.

    >>> [b.start for b in grid(Box.of_shape((1, 4, 5)), (1, 4, 3))]
    [(0, 0, 0), (0, 0, 3)]
    """
    if len(block_shape) != len(box.start) or any(n < 1 for n in block_shape):
        raise InputError(f"block_shape must have one positive extent per axis; got {tuple(block_shape)}")
    starts = [range(a, b, n) for a, b, n in zip(box.start, box.stop, block_shape)]
    for start in itertools.product(*starts):
        yield Box(start, tuple(min(a + n, b) for a, n, b in zip(start, block_shape, box.stop)))
