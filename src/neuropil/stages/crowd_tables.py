"""Tables of votes: names in, numbers out, and back again.

Votes have columns user, task, segment, vote and perhaps timestamp; segments have segment, task and perhaps size, label
and seed. A segment is named by its task and its own name together, since cubes number their segments alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.crowd.votes import UNKNOWN, Votes
from neuropil.errors import InputError
from neuropil.volume.tables import Table, read_table


@dataclass(frozen=True)
class NamedVotes:
    """Votes, and what users, tasks and segments are called.

    Attributes
    ----------
    votes
        Without those of super-users and those on seeds.
    users
        Name of each user, (u,).
    tasks, segments
        Names of each segment and of its task, (s,).
    seeds
        bool (s,), segments that belong to the cell by construction.
    """

    votes: Votes
    users: NDArray[Any]
    tasks: NDArray[Any]
    segments: NDArray[Any]
    seeds: NDArray[np.bool_]


def read_votes(votes_file: Path, segments_file: Path | None, super_users: Sequence[str] = ()) -> NamedVotes:
    """Read votes and segments.

    Parameters
    ----------
    votes_file
        Table of votes; of several by one user on one segment the last counts, by timestamp, else by place.
    segments_file
        Table of segments; without it all have the size 1 and no truth.
    super_users
        Users whose votes are left out: they override others and so teach nothing about them.

    Raises
    ------
    InputError
        If a column is missing or holds something else, or a vote's segment is not in the table of segments.
    """
    table = _with(read_table(votes_file), ("user", "task", "segment", "vote"), votes_file)
    users, user = np.unique(table["user"].astype(str), return_inverse=True)
    unknown = sorted(set(super_users) - set(users.tolist()))
    if unknown:
        raise InputError(f"super_users must be among the users of {votes_file}; not there is {unknown[0]}")
    names = _names(table)
    about = _segments(segments_file) if segments_file is not None else None
    keys = np.unique(names) if about is None else np.unique(_names(about))
    place = np.searchsorted(keys, names).clip(0, max(keys.size - 1, 0))
    if names.size and not np.all(found := keys[place] == names):
        task, segment = names[np.argmin(found)].split("\0")
        raise InputError(f"every vote's segment must be in {segments_file}; segment {segment} of task {task} is not")
    pairs = np.array([key.split("\0") for key in keys.tolist()], str).reshape(-1, 2)
    task_names, task = np.unique(pairs[:, 0], return_inverse=True)
    size, truth, seeds = _facts(about, keys, segments_file)
    last = _last(user, place, table)
    try:
        votes = Votes.of(
            user[last], place[last], table["vote"][last], tasks=task, sizes=size, truth=truth, user_count=users.size
        )
    except InputError as error:
        raise InputError(f"{votes_file}: {error}") from None
    votes = votes.without(np.isin(users, list(super_users)), seeds)
    return NamedVotes(votes, users, task_names[task], pairs[:, 1], seeds)


def _with(table: Table, columns: tuple[str, ...], file: Path) -> Table:
    missing = [name for name in columns if name not in table]
    if missing:
        raise InputError(f"{file} must have the columns {', '.join(columns)}; {missing[0]} is missing")
    for name in ("vote", "label", "seed"):
        if name in table and table[name].dtype.kind not in "iu":
            raise InputError(f"column {name} of {file} must hold whole numbers; got {table[name].dtype}")
    if "size" in table and table["size"].dtype.kind not in "iuf":
        raise InputError(f"column size of {file} must hold numbers; got {table['size'].dtype}")
    return table


def _segments(file: Path) -> Table:
    table = _with(read_table(file), ("segment", "task"), file)
    names, counts = np.unique(_names(table), return_counts=True)
    if (counts > 1).any():
        task, segment = names[np.argmax(counts)].split("\0")
        raise InputError(
            f"{file} must list a segment once; segment {segment} of task {task} comes {counts.max()} times"
        )
    return table


def _names(table: Table) -> NDArray[Any]:
    """Return one text per row that names a segment over all tasks."""
    tasks, segments = table["task"].astype(str).tolist(), table["segment"].astype(str).tolist()
    return np.array([f"{task}\0{segment}" for task, segment in zip(tasks, segments)], str)


def _facts(
    about: Table | None, keys: NDArray[Any], file: Path | None
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return size, truth and whether it is a seed of each segment, in the order of keys."""
    count = keys.size
    if about is None:
        return np.ones(count), np.full(count, UNKNOWN), np.zeros(count, bool)
    order = np.argsort(_names(about))
    columns = {
        name: about[name][order] if name in about else np.full(count, default)
        for name, default in (("size", 1), ("label", UNKNOWN), ("seed", 0))
    }
    if not np.isin(columns["label"], (UNKNOWN, 0, 1)).all():
        raise InputError(f"column label of {file} must be 1, 0 or -1 (not known)")
    return columns["size"].astype(np.float64), columns["label"].astype(np.int64), columns["seed"] != 0


def _last(user: NDArray[np.int64], segment: NDArray[np.int64], table: Table) -> NDArray[np.int64]:
    """Return the rows that count: the last of each user on each segment."""
    time = table.get("timestamp", np.zeros(user.size))
    order = np.lexsort((np.arange(user.size), time, segment, user))
    same = (np.diff(user[order]) == 0) & (np.diff(segment[order]) == 0)
    return order[np.concatenate([~same, [True]])] if order.size else order
