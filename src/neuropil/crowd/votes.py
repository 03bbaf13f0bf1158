"""Votes: who said of which segment that it belongs to the cell.

A task shows a player one cube; the player's answer is a set of segments. So a vote is (user, segment, selected or not),
and a segment that was on show and not selected is a vote against it. Users, segments and tasks are dense numbers here;
names belong to tables. Votes are kept in order of segments, so that all votes on one segment are a slice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.errors import InputError

UNKNOWN = -1
"""Truth of a segment that nobody reliable has looked at."""


@dataclass(frozen=True)
class Votes:
    """Votes on segments, in order of segments, then users; made by `Votes.of`, which checks them.

    Attributes
    ----------
    users, segments
        int64 (n,), number of the user and of the segment of each vote.
    values
        bool (n,), whether the segment was selected.
    tasks
        int64 (s,), the task that each segment belongs to.
    sizes
        float64 (s,), voxels of each segment.
    truth
        int8 (s,), 1 belongs to the cell, 0 does not, -1 not known.
    user_count
        Number of users, with or without votes.
    """

    users: NDArray[np.int64]
    segments: NDArray[np.int64]
    values: NDArray[np.bool_]
    tasks: NDArray[np.int64]
    sizes: NDArray[np.float64]
    truth: NDArray[np.int8]
    user_count: int

    @classmethod
    def of(
        cls,
        users: ArrayLike,
        segments: ArrayLike,
        values: ArrayLike,
        *,
        tasks: ArrayLike,
        sizes: ArrayLike | None = None,
        truth: ArrayLike | None = None,
        user_count: int | None = None,
    ) -> Votes:
        """Check votes and bring them into order.

        Parameters
        ----------
        users, segments
            Integers >= 0, (n,).
        values
            (n,), 1 selected, 0 shown and not selected; a segment that a user did not see has no vote.
        tasks
            Integers >= 0, (s,), one per segment.
        sizes
            (s,), voxels, > 0; 1 each if omitted.
        truth
            (s,), 1, 0 or -1 (not known); not known if omitted.
        user_count
            Number of users; one more than the largest number among `users` if omitted.

        Raises
        ------
        InputError
            If shapes do not fit, a value is not one of those, or a user voted twice on one segment.

        Examples
        --------
        >>> votes = Votes.of([0, 1, 0], [1, 0, 0], [1, 0, 1], tasks=[0, 0])
        >>> votes.segments.tolist(), votes.users.tolist(), votes.values.tolist()
        ([0, 0, 1], [0, 1, 0], [True, False, True])
        """
        task = _numbers(tasks, "tasks")
        size = np.ones(task.size) if sizes is None else np.asarray(sizes, np.float64)
        true = np.full(task.size, UNKNOWN) if truth is None else np.asarray(truth)
        for name, per_segment in (("sizes", size), ("truth", true)):
            if per_segment.shape != task.shape:
                raise InputError(f"{name} must have one entry per segment, {task.shape}; got {per_segment.shape}")
        if not np.all((size > 0) & np.isfinite(size)):
            raise InputError("sizes must be positive and finite numbers of voxels")
        if not np.isin(true, (UNKNOWN, 0, 1)).all():
            raise InputError(f"truth must be 1, 0 or -1 (not known); got {np.unique(true)[:5].tolist()}")
        user, segment, value = _numbers(users, "users"), _numbers(segments, "segments"), np.asarray(values)
        if not user.shape == segment.shape == value.shape:
            raise InputError(
                f"users, segments and values must have one shape; got {user.shape}, {segment.shape}, {value.shape}"
            )
        if not np.isin(value, (0, 1)).all():
            raise InputError(f"values must be 0 or 1; got {np.unique(value)[:5].tolist()}")
        if segment.size and int(segment.max()) >= task.size:
            raise InputError(f"segments must be below the number of tasks' entries, {task.size}; got {segment.max()}")
        count = int(user.max(initial=-1)) + 1 if user_count is None else user_count
        if user.size and int(user.max()) >= count:
            raise InputError(f"users must be below user_count, {count}; got {user.max()}")
        order = np.lexsort((user, segment))
        user, segment = user[order], segment[order]
        twice = np.flatnonzero((np.diff(user) == 0) & (np.diff(segment) == 0))
        if twice.size:
            raise InputError(
                f"a user must vote once on a segment; user {user[twice[0]]} voted twice on {segment[twice[0]]}"
            )
        return cls(user, segment, value[order].astype(bool), task, size, true.astype(np.int8), count)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Votes on each segment, int64 (s,)."""
        return np.bincount(self.segments, minlength=self.tasks.size)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Positions of segments, int64 (s + 1,): the votes on segment i are those from starts[i] to starts[i + 1]."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Segments whose truth is known, bool (s,)."""
        return np.asarray(self.truth != UNKNOWN)

    def keep(self, votes: NDArray[np.bool_]) -> Votes:
        """Return some of the votes, a mask (n,), on the same segments by the same users.

        >>> votes = Votes.of([0, 1], [0, 0], [1, 0], tasks=[0])
        >>> votes.keep(votes.users == 1).values.tolist()
        [False]
        """
        return replace(self, users=self.users[votes], segments=self.segments[votes], values=self.values[votes])

    def hide(self, segments: NDArray[np.bool_]) -> Votes:
        """Return the same votes, the truth of some segments, a mask (s,), not known."""
        return replace(self, truth=np.where(segments, np.int8(UNKNOWN), self.truth))

    def without(self, users: NDArray[np.bool_], segments: NDArray[np.bool_]) -> Votes:
        """Leave out the votes of some users, a mask (u,), and both votes and truth of some segments, a mask (s,).

        Meant for players whose vote overrides all others, and for seed segments, which belong to the cell by
        construction: neither teaches anything about ordinary votes, and seeds would flatter every score.

        >>> votes = Votes.of([0, 1, 1], [0, 0, 1], [1, 1, 1], tasks=[0, 0], truth=[1, 1])
        >>> left = votes.without(np.array([True, False]), np.array([False, True]))
        >>> left.users.tolist(), left.segments.tolist(), left.truth.tolist()
        ([1], [0], [1, -1])
        """
        return self.hide(segments).keep(~users[self.users] & ~segments[self.segments])

    def sum_over_segments(self, of_votes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add up numbers of votes (n,) per segment (s,)."""
        return np.bincount(self.segments, of_votes, self.tasks.size).astype(np.float64, copy=False)

    def sum_over_users(self, of_votes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add up numbers of votes (n,) per user (u,)."""
        return np.bincount(self.users, of_votes, self.user_count).astype(np.float64, copy=False)


def _numbers(values: ArrayLike, name: str) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"{name} must be integers with one axis; got {array.dtype} of shape {array.shape}")
    if array.size and int(array.min()) < 0:
        raise InputError(f"{name} must not be negative; got {int(array.min())}")
    return array.astype(np.int64)
