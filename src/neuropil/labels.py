"""Labels as sets of voxels: dense ids, lookups, and the contingency table of two segmentations.

Ids are any uint64, 0 is background, so nothing here is indexed by an id before the ids are made dense. Both passes go
over runs of equal voxels: one reading of the volume, memory in proportion to the number of ids or of overlapping pairs.
A contingency table holds everything that Rand, information and overlap scores need (Rand 1971; Meila 2007), it adds up
over blocks, and merging proposal segments acts on the table, not on the voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import labels as _kernel
from neuropil.errors import InputError

T = TypeVar("T", bound=np.generic)

_CHUNK = 1 << 15  # voxels cast at once; 256 KiB of uint64 stay in cache
_PLACES = 1 << 13  # for pairs of ids that are being counted; 256 KiB stay in cache, too
_LISTED = 1 << 22  # pairs listed before they are added up for the first time; 96 MiB


@dataclass(frozen=True)
class Relabelled:
    """Labels with consecutive ids, and the ids they had.

    Attributes
    ----------
    labels
        uint64, the shape of the input; 0 is background, 1 ... n are the ids in ascending order.
    ids
        uint64 (n + 1,); ``ids[k]`` is the former id of label k, ``ids[0]`` is 0.
    """

    labels: NDArray[np.uint64]
    ids: NDArray[np.uint64]


@dataclass(frozen=True)
class Contingency:
    """Number of voxels shared by each segment of a proposal and each segment of the truth, as a sparse table.

    Entry k says that ``counts[k]`` voxels have ``proposal_ids[rows[k]]`` and ``truth_ids[columns[k]]``. Entries are
    positive, unique, and sorted by row, then column. Background (0) is an id like any other: who scores decides.

    Attributes
    ----------
    proposal_ids, truth_ids
        uint64, ascending, each with at least one voxel.
    rows, columns
        int64, positions in `proposal_ids` and `truth_ids`.
    counts
        int64, voxels.
    """

    proposal_ids: NDArray[np.uint64]
    truth_ids: NDArray[np.uint64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def empty(cls) -> Contingency:
        """Return the table of no voxels, where adding up begins."""
        ids, positions = np.empty(0, np.uint64), np.empty(0, np.int64)
        return cls(ids, ids, positions, positions, positions)

    @classmethod
    def sum_of(cls, tables: Iterable[Contingency]) -> Contingency:
        """Return the table of the voxels of all tables, as repeated `add` would, in one step."""
        rows = np.concatenate([np.empty((0, 3), np.uint64), *(_rows_of(one) for one in tables)])
        return _table(rows)

    @property
    def total(self) -> int:
        """Number of voxels counted."""
        return int(self.counts.sum())

    @property
    def proposal_sizes(self) -> NDArray[np.int64]:
        """Voxels of each proposal segment, int64, aligned with `proposal_ids`."""
        return _marginal(self.rows, self.counts, self.proposal_ids.size)

    @property
    def truth_sizes(self) -> NDArray[np.int64]:
        """Voxels of each truth segment, int64, aligned with `truth_ids`."""
        return _marginal(self.columns, self.counts, self.truth_ids.size)

    def add(self, other: Contingency) -> Contingency:
        """Return the table of both sets of voxels: adding up the tables of blocks gives that of the volume.

        >>> import numpy as np
        >>> left = contingency(np.array([1, 1]), np.array([7, 8]))
        >>> right = contingency(np.array([1, 2]), np.array([7, 7]))
        >>> both = left.add(right)
        >>> both.counts.tolist(), both.total
        ([2, 1, 1], 4)
        """
        return Contingency.sum_of((self, other))

    def merge_proposal(self, lookup: ArrayLike, *, ids: ArrayLike | None = None) -> Contingency:
        """Return the table after `lookup` is applied to the proposal, without another look at the voxels.

        Parameters and errors are those of `apply_lookup`.

        >>> import numpy as np
        >>> table = contingency(np.array([1, 2, 3]), np.array([5, 5, 6]))
        >>> table.merge_proposal([0, 1, 1, 2]).counts.tolist()
        [2, 1]
        """
        rows = _rows_of(self)
        rows[:, 0] = apply_lookup(self.proposal_ids, lookup, ids=ids)[self.rows]
        return _table(rows)


def relabel(labels: ArrayLike) -> Relabelled:
    """Give consecutive ids to labels, in ascending order of the ids they have; 0 stays 0.

    Parameters
    ----------
    labels
        Integers >= 0 of any shape; ids may be any uint64.

    Returns
    -------
    Relabelled
        `labels` uint64 in 0 ... n and `ids` so that ``ids[result.labels]`` is the input.

    Raises
    ------
    InputError
        If `labels` are not integers, or negative.

    Examples
    --------
    >>> result = relabel([0, 2**50, 7, 7])
    >>> result.labels.tolist(), result.ids.tolist()
    ([0, 2, 1, 1], [0, 7, 1125899906842624])
    """
    array = _as_labels(labels, "labels")
    codes = np.empty(array.shape, np.uint64)
    flat = codes.reshape(-1)
    keys, values, used = np.zeros(64, np.uint64), np.full(64, -1, np.int64), 0
    keys, values, used = _kernel.encode(frozen(np.zeros(1, np.uint64)), np.empty(1, np.uint64), keys, values, used)
    for start, chunk in _chunks(array):
        keys, values, used = _kernel.encode(chunk, flat[start : start + chunk.size], keys, values, used)
    order = np.empty(used, np.uint64)
    filled = values >= 0
    order[values[filled]] = keys[filled]
    ids, ranks = np.unique(order, return_inverse=True)
    if not np.array_equal(ids, order):
        _kernel.take(frozen(flat), flat, frozen(ranks.astype(np.uint64)))
    return Relabelled(codes, ids)


def apply_lookup(
    labels: ArrayLike, lookup: ArrayLike, *, ids: ArrayLike | None = None, out: NDArray[np.uint64] | None = None
) -> NDArray[np.uint64]:
    """Replace every label by what a lookup table says.

    Parameters
    ----------
    labels
        Integers >= 0 of any shape.
    lookup
        Integers >= 0, (n,). Without `ids`, label k becomes ``lookup[k]`` and ``lookup[0]`` must be 0; with `ids`,
        label ``ids[k]`` becomes ``lookup[k]``.
    ids
        Integers >= 0, (n,), unique, in any order; may be any uint64. Background need not be listed and stays 0.
    out
        Contiguous uint64 array of the shape of `labels` to write to, perhaps `labels` itself; a new one if omitted.

    Returns
    -------
    ndarray of uint64
        The shape of `labels`.

    Raises
    ------
    InputError
        If a label is not in the table, background would change, or the table is malformed.

    Examples
    --------
    >>> apply_lookup([0, 1, 2, 2], [0, 5, 6]).tolist()
    [0, 5, 6, 6]
    >>> apply_lookup([0, 2**50, 3], [1, 1], ids=[2**50, 3]).tolist()
    [0, 1, 1]
    """
    array = _as_labels(labels, "labels")
    targets = np.ascontiguousarray(_as_labels(lookup, "lookup"), np.uint64)
    if targets.ndim != 1:
        raise InputError(f"lookup must have one axis; got shape {targets.shape}")
    if out is None:
        out = np.empty(array.shape, np.uint64)
    if out.shape != array.shape or out.dtype != np.uint64 or not out.flags.c_contiguous:
        raise InputError(f"out must be contiguous, uint64, of shape {array.shape}; got {out.dtype} of {out.shape}")
    flat = out.reshape(-1)
    if ids is None:
        if targets.size == 0 or targets[0] != 0:
            raise InputError(f"lookup[0] must be 0, the background; got {targets[:1].tolist()}")
        keys, values = np.empty(0, np.uint64), np.empty(0, np.int64)
    else:
        keys, values, targets = _table_of_ids(np.ascontiguousarray(_as_labels(ids, "ids"), np.uint64), targets)
    targets = frozen(targets)
    for start, chunk in _chunks(array):
        part = flat[start : start + chunk.size]
        if ids is None:
            bad = _kernel.take(chunk, part, targets)
        else:
            bad = _kernel.translate(chunk, part, keys, values, targets)
        if bad >= 0:
            raise InputError(f"every label must be in the lookup of {targets.size} entries; label {chunk[bad]} is not")
    return out


def contingency(proposal: ArrayLike, truth: ArrayLike, mask: ArrayLike | None = None) -> Contingency:
    r"""Count the voxels that each segment of a proposal shares with each segment of the truth.

    .. math:: n_{ij} = |\{v : \mathrm{mask}(v),\ \mathrm{proposal}(v) = i,\ \mathrm{truth}(v) = j\}|

    Parameters
    ----------
    proposal, truth
        Integers >= 0 of the same shape; ids may be any uint64. Background (0) is counted as an id.
    mask
        Boolean of the same shape; only voxels where it is true are counted. All of them if omitted.

    Returns
    -------
    Contingency

    Raises
    ------
    InputError
        If shapes differ, labels are not integers or negative, or the mask is not boolean.

    Examples
    --------
    >>> table = contingency([1, 1, 2, 2], [9, 9, 9, 0])
    >>> table.proposal_ids.tolist(), table.truth_ids.tolist()
    ([1, 2], [0, 9])
    >>> list(zip(table.rows.tolist(), table.columns.tolist(), table.counts.tolist()))
    [(0, 1, 2), (1, 0, 1), (1, 1, 1)]
    """
    a, b = _as_labels(proposal, "proposal"), _as_labels(truth, "truth")
    if a.shape != b.shape:
        raise InputError(f"truth must have the shape of the proposal, {a.shape}; got {b.shape}")
    keep = None if mask is None else np.asarray(mask)
    if keep is not None and (keep.dtype != np.bool_ or keep.shape != a.shape):
        raise InputError(f"mask must be boolean of shape {a.shape}; got {keep.dtype} of shape {keep.shape}")
    flat_mask = None if keep is None else np.ascontiguousarray(keep).reshape(-1)
    counter = _PairCounter(a.size)
    for (start, left), (_, right) in zip(_chunks(a), _chunks(b)):
        if flat_mask is not None:
            inside = flat_mask[start : start + left.size]
            left, right = frozen(left[inside]), frozen(right[inside])
        counter.count(left, right)
    return counter.table()


class _PairCounter:
    """Counts pairs of ids, piece by piece, in memory proportional to the number of different pairs."""

    def __init__(self, voxels: int) -> None:
        self._recent = np.zeros((min(_PLACES, 1 << voxels.bit_length()), 4), np.uint64)
        self._limit, self._used = min(_LISTED, voxels), 0
        self._rows = self._room()

    def count(self, a: NDArray[np.uint64], b: NDArray[np.uint64]) -> None:
        """Count the pairs (a[i], b[i]) of a piece of at most _CHUNK voxels."""
        self._used += _kernel.count_pairs(a, b, self._recent, self._rows[self._used :])
        if self._used > self._limit:
            self._add_up()

    def table(self) -> Contingency:
        """Return the table of all pairs; nothing can be counted after it."""
        recent = self._recent[self._recent[:, 2] > 0, :3]
        end = self._used + recent.shape[0]
        self._rows[self._used : end] = recent
        return _table(self._rows[:end])

    def _add_up(self) -> None:
        """Join equal rows; where that frees less than half of the room, make more, so that none is sorted too often."""
        self._used = _in_order(self._rows[: self._used])
        if 2 * self._used > self._limit:
            self._limit *= 4
            rows, self._rows = self._rows, self._room()
            self._rows[: self._used] = rows[: self._used]

    def _room(self) -> NDArray[np.uint64]:
        """Return room for rows (proposal id, truth id, voxels) up to the limit, a piece and all recent pairs."""
        return np.empty((self._limit + _CHUNK + _PLACES, 3), np.uint64)


def _table(rows: NDArray[np.uint64]) -> Contingency:
    """Return the table of rows (proposal id, truth id, voxels), which may name a pair twice; they are overwritten."""
    if rows.shape[0] == 0:
        return Contingency.empty()
    rows = rows[: _in_order(rows)]
    truth = relabel(rows[:, 1])
    # 0 is among the ids of `relabel` whether it occurs or not
    first = 0 if (truth.labels == 0).any() else 1
    ids = np.empty(rows.shape[0], np.uint64)
    ids = ids[: _kernel.rank(rows, 0, ids)].copy()
    columns = truth.labels.view(np.int64) - first
    return Contingency(ids, truth.ids[first:], rows[:, 0].astype(np.int64), columns, rows[:, 2].astype(np.int64))


def _in_order(rows: NDArray[np.uint64]) -> int:
    """Sort rows (a, b, count) by a, then b, and add up equal pairs; return how many are left, which come first."""
    a_bits, b_bits = (int(_kernel.differing_bits(rows, column)).bit_length() for column in (0, 1))
    count_bits = int(rows[:, 2].max()).bit_length()
    if a_bits + b_bits + count_bits < 64:
        words = np.empty(rows.shape[0], np.uint64)
        _kernel.pack(rows, b_bits, count_bits, words)
        words.sort()
        return int(_kernel.unpack(words, a_bits, b_bits, count_bits, rows))
    sorted_, spare = rows, np.empty_like(rows)
    for column in (1, 0):
        sorted_, spare = _sort(sorted_, spare, column)
    if sorted_ is not rows:
        rows[:] = sorted_
    return int(_kernel.add_up(rows))


def _sort(
    rows: NDArray[np.uint64], spare: NDArray[np.uint64], column: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return (sorted, spare): rows in the order of a column, equal ones as they were."""
    differ = int(_kernel.differing_bits(rows, column))
    for shift in range(0, 64, 8):
        if differ >> shift & 255:
            _kernel.sort_by_byte(rows, column, np.uint64(shift), spare)
            rows, spare = spare, rows
    return rows, spare


def _rows_of(table: Contingency) -> NDArray[np.uint64]:
    """Return the entries of a table as rows (proposal id, truth id, voxels)."""
    ids = table.proposal_ids[table.rows], table.truth_ids[table.columns]
    return np.column_stack([*ids, table.counts.astype(np.uint64)])


def _marginal(positions: NDArray[np.int64], counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    sums = np.zeros(size, np.int64)
    np.add.at(sums, positions, counts)
    return sums


def _table_of_ids(
    ids: NDArray[np.uint64], targets: NDArray[np.uint64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint64]]:
    """Return the hash table of ids and its targets, background added."""
    if ids.shape != targets.shape:
        raise InputError(f"ids must have the shape of the lookup, {targets.shape}; got {ids.shape}")
    if np.any(targets[ids == 0] != 0):
        raise InputError(f"background must stay 0 in the lookup; got {int(targets[ids == 0][0])}")
    ids, targets = np.append(ids, np.uint64(0)), np.append(targets, np.uint64(0))
    if np.any(ids[:-1] == 0):
        ids, targets = ids[:-1], targets[:-1]
    codes = np.empty(ids.size, np.uint64)
    keys, values, used = _kernel.encode(frozen(ids), codes, np.zeros(64, np.uint64), np.full(64, -1, np.int64), 0)
    if used != ids.size:
        raise InputError(f"ids must be unique; got {ids.size - used} repeated")
    return keys, values, targets


def _as_labels(labels: ArrayLike, name: str) -> NDArray[np.integer | np.bool_]:
    array = np.asarray(labels)
    if array.size == 0 and array.dtype == np.float64:  # an empty list
        array = array.astype(np.uint64)
    if array.dtype.kind not in "bui":
        raise InputError(f"{name} must be integers; got {array.dtype}")
    if array.dtype.kind == "i" and array.size and int(array.min()) < 0:
        raise InputError(f"{name} must not be negative; got {int(array.min())}")
    return array


def frozen(array: NDArray[T]) -> NDArray[T]:
    """Return a read-only view, so that each kernel is compiled once for writeable and read-only inputs, and files."""
    view = array.view(np.ndarray)
    view.flags.writeable = False
    return view


def _chunks(array: NDArray[np.integer | np.bool_]) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """Yield (position, read-only uint64 piece) of the array in raster order, casting a piece at a time."""
    flat = np.ascontiguousarray(array).reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        yield start, frozen(flat[start : start + _CHUNK].astype(np.uint64, copy=False))
