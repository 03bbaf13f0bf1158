"""One stretch of memory for all that the layers of a pass make, laid out the same way each time, and foreseen.

The C library's allocator keeps what is freed if it is told to, but in pieces: a small object between two large ones
stays there, and what was large enough once is so no more. How much a run takes then depends on chance. Here what a
layer makes is placed alternately at the low and the high end of the smallest gap that it fits into, so that what is
read and what is made swap places. `needed` does the same without memory, so a pass takes what it says.
"""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from math import prod

import numpy as np
import torch
from torch import Tensor

ALIGNED = 64  # bytes, as vectors like it
GROWTH = 1.02  # of a room that is not large enough
Part = tuple[int, int]
"""Start and stop of bytes."""


class Gaps:
    """The free parts of `size` bytes."""

    def __init__(self, size: int) -> None:
        self._free: list[Part] = [(0, size)]
        self._low = True

    def take(self, size: int) -> Part | None:
        """Take so many bytes from one end of the smallest gap, the other end's turn being next; None if none fits."""
        size = _aligned(size)
        fitting = [gap for gap in self._free if gap[1] - gap[0] >= size]
        if not fitting:
            return None
        start, stop = min(fitting, key=lambda gap: gap[1] - gap[0])
        self._free.remove((start, stop))
        part, rest = (
            ((start, start + size), (start + size, stop)) if self._low else ((stop - size, stop), (start, stop - size))
        )
        if rest[0] < rest[1]:
            self._free.append(rest)
        self._low = not self._low
        return part

    def give(self, part: Part) -> None:
        """Give a part back, which joins the gaps beside it."""
        start, stop = part
        for gap in [gap for gap in self._free if gap[1] == start or gap[0] == stop]:
            self._free.remove(gap)
            start, stop = min(start, gap[0]), max(stop, gap[1])
        self._free.append((start, stop))


def needed(events: Sequence[int]) -> int:
    """Return the bytes of a room in which events find their place.

    Parameters
    ----------
    events : bytes that are taken, or -k - 1 where what the k-th took is given back

    >>> needed([128, 256, -1, 64, -2, -3])
    384
    """
    live = most = 0
    sizes: list[int] = []
    for event in events:
        if event >= 0:
            sizes.append(_aligned(event))
            live += sizes[-1]
        else:
            live -= sizes[-event - 1]
        most = max(most, live)
    while not _fits(events, most):
        most = _aligned(int(most * GROWTH) + 1)
    return most


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


def _fits(events: Sequence[int], size: int) -> bool:
    gaps, parts = Gaps(size), list[Part]()
    for event in events:
        if event < 0:
            gaps.give(parts[-event - 1])
        elif (part := gaps.take(event)) is None:
            return False
        else:
            parts.append(part)
    return True


class Room:
    """Memory that is kept from pass to pass; its pages are taken from the system when they are first written to.

    Attributes
    ----------
    missed : how many tensors found no place
    """

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)
        self._gaps = Gaps(0)
        self.missed = 0

    @contextmanager
    def of(self, size: int) -> Iterator[None]:
        """Have what layers make meanwhile, in this thread, placed in the first `size` bytes; none of it may outlive.

        Of 0 bytes there is no room: what layers make is then the library's, as elsewhere.
        """
        if size > self._memory.size:
            self._memory = np.empty(0, np.uint8)  # goes before the larger one comes
            self._memory = np.frombuffer(_pages(size), np.uint8)
        self._gaps = Gaps(size)
        token = _current.set(self if size else None)
        try:
            yield
        finally:
            _current.reset(token)

    def place(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
        """Return a contiguous tensor, or None if there is no room for it; its part is given back with it."""
        gaps, part = self._gaps, self._gaps.take(prod(shape) * dtype.itemsize)
        if part is None:
            self.missed += 1
            return None
        piece = self._memory[part[0] : part[0] + prod(shape) * dtype.itemsize]
        weakref.finalize(piece, gaps.give, part).atexit = False
        return torch.from_numpy(piece).view(dtype).view(*shape)


_current: ContextVar[Room | None] = ContextVar("room", default=None)


def in_room() -> bool:
    """Whether what layers make is placed in a room."""
    return _current.get() is not None


def place(shape: Sequence[int], like: Tensor) -> Tensor | None:
    """Return a tensor (n, c, …) with channels last, of the type of another, in the pass's room; None if it has none."""
    room = _current.get()
    if room is None or like.device.type != "cpu":
        return None
    made = room.place((shape[0], *shape[2:], shape[1]), like.dtype)
    return None if made is None else made.movedim(-1, 1)


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return a tensor (n, c, y, x) or (n, c, z, y, x) with channels last: in the pass's room, if it has one."""
    made = place(shape, like)
    if made is not None:
        return made
    last = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    # no view of another tensor: what a gradient passes through may then be changed in place
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=last)


def _pages(size: int) -> mmap.mmap:
    """Return pages of zeros, large ones where the system has them: each costs a fault when it is first written to."""
    private = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)
    pages = mmap.mmap(-1, max(1, size), **({"flags": private} if private else {}))  # Windows knows no flags
    with suppress(AttributeError, OSError):  # not Linux, or a kernel without
        pages.madvise(mmap.MADV_HUGEPAGE)
    return pages
