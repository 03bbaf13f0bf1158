"""The work folder of `neuropil run`: which box is whose, where a step keeps what it knows of it, and names of ids.

Every file is written under its final name only when it is whole, and depends on its inputs alone; so a block may be
done twice, or by another machine, and nothing changes. What is renamed is never voxels, only lists: a step writes, for
each box of each level, a table of what it calls some ids from there on, and `called` follows these tables upwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.files import Place, writing
from neuropil.geometry import Box, grid
from neuropil.reads import note
from neuropil.segmentation.linkage import ConstantSize
from neuropil.segmentation.pairs import find_ids
from neuropil.stages.run_source import LinkSource
from neuropil.volume.uri import Location

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Job:
    """What all blocks of a run have in common; data only, so that it travels to any worker.

    Attributes
    ----------
    source : of the links
    work : folder of all that is made on the way, on a disk or in a bucket
    output : where the segmentation is that blocks are written to
    shape, block : voxels z, y, x of the volume and of a block
    method : one of `neuropil.stages.run_order.METHODS`
    threshold, low, high, size, size_threshold, dust : as `neuropil segment` has them
    mask : URI or None; voxels where it is not 0 in more than `bridge` sections on end have no links
    mask_origin : voxel z, y, x of it where the volume begins
    """

    source: LinkSource
    work: Place
    output: Location
    shape: tuple[int, int, int]
    block: tuple[int, int, int]
    method: str
    threshold: float
    low: float
    high: float
    size: float
    size_threshold: float
    dust: float
    mask: str | None
    mask_origin: tuple[int, ...]
    bridge: int

    @property
    def whole(self) -> Box:
        """The whole volume."""
        return Box.of_shape(self.shape)

    @property
    def size_rule(self) -> ConstantSize:
        """Up to which size fragments are merged."""
        return ConstantSize(self.size, self.size_threshold)

    @property
    def top(self) -> int:
        """The level whose only box is the volume."""
        level = 0
        while any(n << level < extent for n, extent in zip(self.block, self.shape)):
            level += 1
        return level

    def boxes(self, level: int) -> list[Box]:
        """Return the boxes of 2**level blocks along every axis that cover the volume; level 0 is the blocks.

        A box at the volume's end that is one of the level below is not among them: there is nothing to unite.
        """
        every = grid(self.whole, tuple(n << level for n in self.block))
        return [box for box in every if level == 0 or box != self.above(box, level - 1)]

    def parts(self, box: Box, level: int) -> list[Box]:
        """Return the boxes one level below that a box of a level is made of."""
        return list(grid(box, tuple(n << (level - 1) for n in self.block)))

    def above(self, box: Box, level: int) -> Box:
        """Return the box of a level that a box is part of."""
        start = tuple(a // (n << level) * (n << level) for a, n in zip(box.start, self.block))
        return Box(start, tuple(min(a + (n << level), end) for a, n, end in zip(start, self.block, self.shape)))

    def around(self, block: Box, below: int | None = None) -> list[Box]:
        """Return the boxes that hold a block, from itself to the whole, or to those `below` a level, each once."""
        levels = range(self.top + 1 if below is None else below)
        return list(dict.fromkeys(self.above(block, level) for level in levels))

    def in_front(self, box: Box, axis: int) -> Box:
        """Return the block before a block along an axis."""
        return self.above(box.shift([-self.block[axis] if k == axis else 0 for k in range(3)]), 0)

    def file(self, step: str, box: Box) -> Place:
        """Where a step keeps what it knows of a box."""
        return self.work / step / f"{'_'.join(map(str, (*box.start, *box.shape)))}.npz"

    def array(self, name: str, box: Box) -> Place:
        """Where an array of a box is kept."""
        return self.file(name, box).with_suffix(".npy")

    def table(self, name: str) -> Place:
        """Where a table of the whole volume is."""
        return self.work / f"{name}.npy"


def called(job: Job, step: str, box: Box, ids: NDArray[np.uint64], *, below: int | None = None) -> NDArray[np.uint64]:
    """Return what ids of a block are called after a step, or as far as the levels `below` one of its levels know."""
    for one in job.around(box, below):
        ids = rename(ids, job.array(f"{step}_names", one))
    return ids


def rename(ids: NDArray[np.uint64], table: Place) -> NDArray[np.uint64]:
    """Replace ids by what a table, (2, n) with ascending ids, says; others stay."""
    known = map_array(table)
    if known.shape[1] == 0:
        return ids
    at = find_ids(known[0], ids)
    there = at < known.shape[1]
    names = ids.copy()
    names[there] = known[1][at[there]]
    return names


def save(place: Place, arrays: Arrays) -> None:
    """Write arrays into one file that is whole or not there."""
    with writing(place) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # names of arrays, no option


def load(place: Place, names: Iterable[str] | None = None) -> Arrays:
    """Read some arrays of a file, or all."""
    with np.load(_opened(place)) as file:
        return {name: file[name] for name in (file.files if names is None else names)}


def save_array(place: Place, array: NDArray[Any]) -> None:
    """Write one array into a file, from which parts can be read, that is whole or not there."""
    with writing(place) as file:
        np.save(file, array)


def load_array(place: Place) -> NDArray[Any]:
    """Read an array."""
    array: NDArray[Any] = np.load(_opened(place))
    return array


def map_array(place: Place) -> NDArray[Any]:
    """Return an array of which only what is looked at is read; in a bucket that is all."""
    array: NDArray[Any] = np.load(_opened(place), mmap_mode="r" if isinstance(place, Path) else None)
    return array


def _opened(place: Place) -> Path | BytesIO:
    """Note that a file is read: by a block of the box in its name, or as a table of the whole."""
    at = [int(n) for n in re.findall(r"\d+", place.name)]
    if len(at) == 6:
        note(place.parent.name, at[:3], [a + n for a, n in zip(at[:3], at[3:])])
    return place if isinstance(place, Path) else BytesIO(place.read_bytes())


def save_table(place: Place, old: NDArray[np.uint64], new: NDArray[np.uint64]) -> None:
    """Write a table for `rename`, of what changes."""
    changed = np.flatnonzero(old != new)
    order = changed[np.argsort(old[changed])]
    table = np.empty((2, order.size), np.uint64)
    table[0] = old[order]
    table[1] = new[order]
    save_array(place, table)


def save_shelves(place: Place, values: NDArray[Any], shelves: NDArray[np.intp], number: int) -> None:
    """Write whole numbers so that those of each of `number` shelves can be read by themselves, in the order given."""
    order = np.argsort(shelves, kind="stable")
    ends = np.cumsum(np.bincount(shelves, minlength=number))
    save_array(place, np.concatenate([ends, values[order]]).astype(np.int64))


def load_shelf(place: Place, shelf: int, number: int) -> NDArray[np.int64]:
    """Read what `save_shelves` wrote for one shelf."""
    known = map_array(place)
    start = known[shelf - 1] if shelf else 0
    return np.array(known[number + start : number + known[shelf]])


def chunk_of(block: Sequence[int], most: int = 64) -> tuple[int, int, int]:
    """Return chunks that blocks are made of, as large as can be up to `most` voxels along an axis.

    >>> chunk_of((64, 512, 500))
    (64, 64, 50)
    """
    z, y, x = (max(k for k in range(1, min(n, most) + 1) if n % k == 0) for n in block)
    return (z, y, x)
