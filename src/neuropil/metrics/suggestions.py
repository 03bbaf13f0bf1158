"""What suggestions to correct a segmentation are worth, given the truth: are they right, and what do they gain?

A segmentation is a forest over its fragments: one tree a segment. To join adds an edge, to cut takes one away; either
touches one or two segments, so the scores are brought up to date from their few entries, not from the voxels. A person
who looks at suggestions one after the other is imitated: a join is accepted if the object that each side mostly is, is
the same, a cut if the two are different ones, in the segmentation as it then is.

    VI = (sum t log t + sum s log s - 2 sum n log n) / N,    ARE = 1 - 2 sum n^2 / (sum s^2 + sum t^2)

with n voxels of a segment (s) in an object (t); as in `metrics.information` and `metrics.rand`, background of the
truth is left out, background of the proposal is one segment for VI and single voxels for ARE.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.errors import InputError
from neuropil.labels import contingency


@dataclass(frozen=True)
class Suggestion:
    """Cut the edge u, v of a segment's tree, or join two segments by it; u and v are fragments."""

    cut: bool
    u: int
    v: int


@dataclass(frozen=True)
class Review:
    """What came of looking at suggestions in their order.

    Attributes
    ----------
    right
        bool (k,), whether each was accepted.
    vi, rand_error
        float64 (k + 1,), scores before the first and after each.
    """

    right: NDArray[np.bool_]
    vi: NDArray[np.float64]
    rand_error: NDArray[np.float64]

    def precision(self, k: int) -> float:
        """Share of the first k that were right; of all, where there are fewer."""
        return float(self.right[:k].mean()) if self.right.size else math.nan


class Scoreboard:
    """A segmentation by fragments, and its scores, kept while edges are added and taken away.

    Parameters
    ----------
    fragments
        Integers 0 ... n, (z, y, x), 0 background.
    truth
        Labels of the same shape; voxels of truth 0 are left out.
    segment_of
        (n + 1,) fragment -> segment.
    edges
        (m, 2), pairs of fragments that are trees within segments; what of a segment they leave apart stays in it.

    Raises
    ------
    InputError
        If shapes differ or an edge joins two segments.

    Examples
    --------
    >>> board = Scoreboard([[[1, 2, 3]]], [[[7, 7, 8]]], [0, 1, 1, 1], [(1, 2), (2, 3)])
    >>> board.review([Suggestion(True, 2, 3)]).right.tolist(), board.vi
    ([True], 0.0)
    """

    def __init__(self, fragments: ArrayLike, truth: ArrayLike, segment_of: ArrayLike, edges: ArrayLike) -> None:
        segments, pairs = np.asarray(segment_of), np.asarray(edges, np.int64).reshape(-1, 2)
        if np.any(segments[pairs[:, 0]] != segments[pairs[:, 1]]):
            raise InputError("edges must lie within segments")
        table = contingency(fragments, truth)
        rows, columns = table.proposal_ids[table.rows].astype(np.int64), table.truth_ids[table.columns]
        inside = columns != 0
        self._parts: list[dict[int, int]] = [{} for _ in range(segments.size)]
        for row, column, count in zip(rows[inside].tolist(), columns[inside].tolist(), table.counts[inside].tolist()):
            self._parts[row][column] = count
        self._near: list[set[int]] = [set() for _ in range(segments.size)]
        for a, b in [*pairs.tolist(), *_bridges(segments, pairs)]:
            self._link(a, b)
        self._total = int(table.counts[inside].sum())
        if self._total == 0:
            raise InputError("truth must have a voxel to compare with")
        sizes = np.bincount(table.columns[inside], table.counts[inside])
        self._truth_logs, self._truth_squares = _logs(sizes.tolist()), float(sizes @ sizes)
        self._background = self._parts[0]
        self._logs = self._squares = self._segment_logs = self._segment_squares = 0.0
        for segment in self._segments():
            self._count(segment, 1)

    @property
    def vi(self) -> float:
        """Variation of information, bits."""
        lone = list(self._background.values())
        segments = self._segment_logs + _logs([sum(lone)])
        return (self._truth_logs + segments - 2 * (self._logs + _logs(lone))) / self._total

    @property
    def rand_error(self) -> float:
        """Adapted Rand error."""
        lone = float(sum(self._background.values()))
        return 1 - 2 * (self._squares + lone) / (self._segment_squares + lone + self._truth_squares)

    def right(self, one: Suggestion) -> bool:
        """Tell whether a suggestion is right in the segmentation as it is now."""
        if one.cut and one.v not in self._near[one.u]:
            return False
        if one.cut:
            self._unlink(one.u, one.v)
        a, b = self._segment(one.u), self._segment(one.v)
        if one.cut:
            self._link(one.u, one.v)
        elif one.v in a:
            return False
        objects = [_majority(self._table(side)) for side in (a, b)]
        return None not in objects and (objects[0] != objects[1]) == one.cut

    def accept(self, one: Suggestion) -> None:
        """Do what is suggested; a cut of what is not joined, or a join of what is one segment, changes nothing."""
        before = [self._segment(one.u)]
        if (one.cut and one.v not in self._near[one.u]) or (not one.cut and one.v in before[0]):
            return
        if not one.cut:
            before.append(self._segment(one.v))
        for segment in before:
            self._count(segment, -1)
        (self._unlink if one.cut else self._link)(one.u, one.v)
        after = [self._segment(one.u)]
        if one.cut:
            after.append(self._segment(one.v))
        for segment in after:
            self._count(segment, 1)

    def review(self, suggestions: Iterable[Suggestion]) -> Review:
        """Look at suggestions in their order, and accept those that are right."""
        right, vi, error = [], [self.vi], [self.rand_error]
        for one in suggestions:
            right.append(self.right(one))
            if right[-1]:
                self.accept(one)
            vi.append(self.vi)
            error.append(self.rand_error)
        return Review(np.array(right, bool), np.array(vi), np.array(error))

    def segments(self) -> NDArray[np.int64]:
        """Return the segmentation as it is now, int64 (n + 1,): fragment -> its smallest fragment."""
        lookup = np.zeros(len(self._parts), np.int64)
        for segment in self._segments():
            lookup[list(segment)] = min(segment)
        return lookup

    def _segments(self) -> list[set[int]]:
        seen: set[int] = {0}
        found = []
        for fragment in range(1, len(self._parts)):
            if fragment not in seen:
                found.append(self._segment(fragment))
                seen |= found[-1]
        return found

    def _segment(self, fragment: int) -> set[int]:
        """Return the fragments of a segment."""
        seen, waiting = {fragment}, [fragment]
        while waiting:
            new = self._near[waiting.pop()] - seen
            seen |= new
            waiting += new
        return seen

    def _table(self, segment: set[int]) -> dict[int, int]:
        table: dict[int, int] = {}
        for fragment in segment:
            for one, count in self._parts[fragment].items():
                table[one] = table.get(one, 0) + count
        return table

    def _count(self, segment: set[int], sign: int) -> None:
        counts = list(self._table(segment).values())
        size = sum(counts)
        self._logs += sign * _logs(counts)
        self._squares += sign * float(sum(n * n for n in counts))
        self._segment_logs += sign * _logs([size])
        self._segment_squares += sign * float(size * size)

    def _link(self, a: int, b: int) -> None:
        self._near[a].add(b)
        self._near[b].add(a)

    def _unlink(self, a: int, b: int) -> None:
        self._near[a].discard(b)
        self._near[b].discard(a)


def _bridges(segments: NDArray[np.integer], pairs: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return pairs that join the pieces of segments which the edges leave apart."""
    parents = list(range(segments.size))

    def find(a: int) -> int:
        while parents[a] != a:
            parents[a] = parents[parents[a]]
            a = parents[a]
        return a

    for a, b in pairs.tolist():
        parents[find(a)] = find(b)
    heads: dict[int, int] = {}
    bridges = []
    for fragment in range(1, segments.size):
        head = heads.setdefault(int(segments[fragment]), fragment)
        if find(head) != find(fragment):
            bridges.append((head, fragment))
            parents[find(fragment)] = find(head)
    return bridges


def _majority(table: dict[int, int]) -> int | None:
    """Return the object that most voxels belong to; None where there is no truth."""
    return max(table, key=lambda one: (table[one], -one)) if table else None


def _logs(counts: Sequence[float]) -> float:
    """Return sum n log2 n."""
    return sum(n * math.log2(n) for n in counts if n > 0)
