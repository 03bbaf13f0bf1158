"""Corrections of a segmentation: merges and splits of what fragments belong to, each of which can be undone.

A segmentation is a table, fragment -> segment. Key insight: a person only ever changes that table, never voxels, so
corrections of a volume of any size are a short list, and undoing one is forgetting it. A merge names two fragments;
a split names two and the fragments that go away with the second, so that replaying a list needs nothing but the table
it began with, and gives the same ids on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.errors import InputError
from neuropil.segmentation.pairs import find_ids

Op = Literal["merge", "split", "undo", "redo"]


@dataclass(frozen=True)
class Edit:
    """One entry of a log.

    Attributes
    ----------
    op
        "merge": the segment of fragment `b` becomes part of that of `a`, whose id stays. "split": the fragments `away`,
        `b` among them and `a` not, leave the segment of both and get an id that was never used. "undo" takes back the
        last merge or split that stands, "redo" does again what was undone last.
    a, b
        Ids of fragments, > 0; 0 for undo and redo.
    away
        Ids of fragments, for splits.
    """

    op: Op
    a: int = 0
    b: int = 0
    away: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.op not in get_args(Op):
            raise InputError(f"op must be one of {', '.join(get_args(Op))}; got {self.op!r}")


@dataclass(frozen=True)
class _Step:
    """A merge or split that stands: what moved, out of which segment, into which."""

    edit: Edit
    moved: tuple[int, ...]
    source: int
    target: int


class Edits:
    """The table fragment -> segment under edits, and what has been done and undone.

    Parameters
    ----------
    segments
        Integers >= 0, (n + 1,), segment of each fragment 0 ... n, 0 for 0; omitted where the segments themselves stand
        for fragments: they can then be merged, and not be split.

    Examples
    --------
    >>> edits = Edits([0, 7, 7, 9])
    >>> edits.do(Edit("merge", 1, 3))
    >>> edits.do(Edit("split", 3, 2, away=(2,)))
    >>> edits.apply([0, 1, 2, 3]).tolist()
    [0, 7, 10, 7]
    >>> edits.do(Edit("undo"))
    >>> edits.apply([0, 1, 2, 3]).tolist()
    [0, 7, 7, 7]
    """

    def __init__(self, segments: ArrayLike | None = None) -> None:
        self._table = None if segments is None else np.array(segments, np.uint64)
        if self._table is not None and (self._table.ndim != 1 or not self._table.size or self._table[0] != 0):
            raise InputError(f"segments must be a list that begins with 0, the background; got {self._table.shape}")
        self._first_new = 1 + (0 if self._table is None else int(self._table.max()))
        self._renamed: dict[int, int] = {}  # instead of a table, where segments stand for fragments
        self._done: list[_Step] = []
        self._undone: list[Edit] = []

    @classmethod
    def of(cls, segments: ArrayLike | None, log: Iterable[Edit]) -> Edits:
        """Return the table after a whole log."""
        edits = cls(segments)
        for edit in log:
            edits.do(edit)
        return edits

    @property
    def standing(self) -> tuple[Edit, ...]:
        """Merges and splits that were not undone, the oldest first."""
        return tuple(step.edit for step in self._done)

    @property
    def undone(self) -> tuple[Edit, ...]:
        """Merges and splits that "redo" would do again, the next one last."""
        return tuple(self._undone)

    @property
    def can_split(self) -> bool:
        """Whether there are fragments below the segments."""
        return self._table is not None

    def segment_of(self, fragment: int) -> int:
        """Return the segment of a fragment.

        Raises
        ------
        InputError
            If there is no such fragment.
        """
        if self._table is None:
            return self._renamed.get(fragment, fragment)
        if not 0 <= fragment < self._table.size:
            raise InputError(f"fragments are 0 ... {self._table.size - 1}; got {fragment}")
        return int(self._table[fragment])

    def fragments_of(self, segment: int) -> tuple[int, ...]:
        """Return the fragments of a segment, ascending."""
        if self._table is not None:
            return tuple(np.flatnonzero(self._table == np.uint64(segment)).tolist())
        own = [] if segment in self._renamed else [segment]
        return tuple(sorted(own + [one for one, name in self._renamed.items() if name == segment]))

    def segments_touched(self) -> tuple[int, ...]:
        """Return the segments that standing edits changed and that have fragments now, ascending."""
        ends = {segment for step in self._done for segment in (step.source, step.target)}
        return tuple(sorted(segment for segment in ends if self.fragments_of(segment)))

    def check(self, edit: Edit) -> None:
        """Raise InputError if an entry cannot be done as the table stands."""
        if edit.op == "undo" and not self._done:
            raise InputError("there is nothing to undo")
        if edit.op == "redo" and not self._undone:
            raise InputError("there is nothing to redo")
        if edit.op in ("merge", "split"):
            self._step(edit)

    def do(self, edit: Edit) -> None:
        """Do one entry of a log.

        Raises
        ------
        InputError
            If it cannot be done as the table stands; nothing changes then.
        """
        self.check(edit)
        if edit.op == "undo":
            step = self._done.pop()
            self._move(step.moved, step.source)
            self._undone.append(step.edit)
            return
        step = self._step(self._undone[-1] if edit.op == "redo" else edit)
        self._undone = self._undone[:-1] if edit.op == "redo" else []
        self._move(step.moved, step.target)
        self._done.append(step)

    def apply(self, fragments: ArrayLike) -> NDArray[np.uint64]:
        """Return the segment of each voxel, uint64, from its fragment, integers >= 0 of any shape.

        Raises
        ------
        InputError
            If a fragment is not in the table.
        """
        labels = np.asarray(fragments)
        labels = labels.astype(np.uint64) if labels.dtype.kind in "biu" or labels.size == 0 else labels
        if labels.dtype != np.uint64:  # neither integers nor an empty list
            raise InputError(f"fragments must be integers; got {labels.dtype}")
        if self._table is not None:
            if labels.size and int(labels.max()) >= self._table.size:
                raise InputError(f"fragments are 0 ... {self._table.size - 1}; got {int(labels.max())}")
            return self._table[labels.astype(np.intp)]
        ids = np.array(sorted(self._renamed), np.uint64)
        at = find_ids(ids, labels.reshape(-1)).reshape(labels.shape)
        there = at < ids.size
        names = labels.copy()
        names[there] = np.array([self._renamed[int(one)] for one in ids], np.uint64)[at[there]]
        return names

    def _step(self, edit: Edit) -> _Step:
        """Check a merge or split, and say what it moves."""
        here, there = self.segment_of(edit.a), self.segment_of(edit.b)
        if here == 0 or there == 0:
            raise InputError(f"a {edit.op} needs two fragments that are not background; got {edit.a}, {edit.b}")
        if edit.op == "merge":
            if here == there:
                raise InputError(f"fragments {edit.a} and {edit.b} are one segment already, {here}")
            return _Step(edit, self.fragments_of(there), there, here)
        if not self.can_split:
            raise InputError("segments can only be split where there are fragments below them")
        if here != there:
            raise InputError(f"a split needs two fragments of one segment; {edit.a} is of {here}, {edit.b} of {there}")
        if edit.b not in edit.away or edit.a in edit.away or len(set(edit.away)) < len(edit.away):
            raise InputError(f"away must hold {edit.b} and not {edit.a}, nothing twice; got {list(edit.away)[:9]}")
        if not set(edit.away) <= set(self.fragments_of(here)):
            raise InputError(f"away must hold fragments of segment {here} only; got {list(edit.away)[:9]}")
        new = self._first_new + sum(step.edit.op == "split" for step in self._done)
        return _Step(edit, edit.away, here, new)

    def _move(self, fragments: tuple[int, ...], segment: int) -> None:
        if self._table is None:
            self._renamed.update(dict.fromkeys(fragments, segment))
        else:
            self._table[list(fragments)] = segment
