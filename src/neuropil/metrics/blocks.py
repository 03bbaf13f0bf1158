"""How sure one can be of the scores of a three-dimensional segmentation: the bootstrap over blocks of the volume.

Voxels are not independent, and in a volume whose segments run through all of it there are no sections to resample
either. So the volume is cut into blocks, and blocks are drawn with replacement (block bootstrap, Kuensch 1989). A
segment keeps its id from block to block: with w_b draws of block b the table is n_ij = sum_b w_b n_ij^b, and where
every block is drawn once it is the table of the volume, so the interval is about the very score that is reported. Key
insight: the entries of all blocks are laid out once, and a resample is one weighted sum over them. Resamples depend on
the generator and the number of blocks only; two methods that are given the same seed are compared block by block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.errors import InputError
from neuropil.geometry import Box, grid
from neuropil.labels import Contingency, contingency
from neuropil.metrics.sections import Interval

Scores = Callable[[Contingency], Mapping[str, float]]


@dataclass(frozen=True)
class Resampled:
    """Scores of a volume, and of its resamples.

    Attributes
    ----------
    names
        One per score.
    estimate
        float64 (scores,): of the whole volume.
    samples
        float64 (resamples, scores).
    """

    names: tuple[str, ...]
    estimate: NDArray[np.float64]
    samples: NDArray[np.float64]

    def intervals(self, level: float = 0.95) -> dict[str, Interval]:
        """Return the percentile interval of each score, moved so that the samples' mean is the estimate.

        A resample holds some blocks twice and others not at all, so fewer different segments than the volume; that
        lowers entropies, VI above all, however little the score depends on the block. The move takes it out. Samples
        that are nan are left out. An end may lie a little beyond the range of the score.

        Raises
        ------
        InputError
            If the level is not in (0, 1).
        """
        if not 0 < level < 1:
            raise InputError(f"level must be in (0, 1); got {level}")
        found = {}
        for k, name in enumerate(self.names):
            known = self.samples[np.isfinite(self.samples[:, k]), k]
            low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]) if known.size else (np.nan, np.nan)
            move = float(self.estimate[k] - known.mean()) if known.size else np.nan
            found[name] = Interval(float(self.estimate[k]), float(low + move), float(high + move), level)
        return found

    def beside(self, other: Resampled) -> Resampled:
        """Return the scores of both, of as many resamples, perhaps of something else than blocks.

        Raises
        ------
        InputError
            If the numbers of resamples differ.
        """
        if self.samples.shape[0] != other.samples.shape[0]:
            raise InputError(
                f"other must have {self.samples.shape[0]} resamples to stand beside them; got {other.samples.shape[0]}"
            )
        estimate = np.concatenate([self.estimate, other.estimate])
        return Resampled(self.names + other.names, estimate, np.concatenate([self.samples, other.samples], 1))

    def minus(self, other: Resampled) -> Resampled:
        """Return the differences to another method on the same blocks, resample by resample.

        Raises
        ------
        InputError
            If the two do not have the same scores and as many resamples.
        """
        if self.names != other.names or self.samples.shape != other.samples.shape:
            raise InputError(
                f"other must have the scores {self.names} of {self.samples.shape[0]} resamples; got {other.names} of "
                f"{other.samples.shape[0]}"
            )
        return Resampled(self.names, self.estimate - other.estimate, self.samples - other.samples)


def block_shape_for(
    shape: Sequence[int], voxel_size: Sequence[float] = (1.0, 1.0, 1.0), *, at_least: int = 50
) -> tuple[int, int, int]:
    """Choose blocks of about equal sides that cut a volume into enough of them.

    Parameters
    ----------
    shape
        (z, y, x) voxels.
    voxel_size
        (z, y, x), nm or any unit.
    at_least
        Blocks wanted, >= 1; fewer only where there are not as many voxels.

    Returns
    -------
    tuple of int
        (z, y, x) voxels.

    Raises
    ------
    InputError
        If the shape or voxel size is not three positive numbers, or `at_least` is below 1.

    Examples
    --------
    >>> block_shape_for((180, 250, 250)), block_shape_for((100, 1024, 1024), (30, 6, 6))
    ((60, 50, 63), (50, 205, 205))
    """
    if len(shape) != 3 or len(voxel_size) != 3 or min(shape) < 1 or min(voxel_size) <= 0 or at_least < 1:
        raise InputError(
            f"shape and voxel_size must be three positive numbers, at_least >= 1; got {tuple(shape)}, "
            f"{tuple(voxel_size)}, {at_least}"
        )
    block = [int(n) for n in shape]
    while math.prod(-(-n // side) for n, side in zip(shape, block)) < min(at_least, math.prod(shape)):
        k = int(np.argmax([side * size if side > 1 else 0.0 for side, size in zip(block, voxel_size)]))
        pieces = -(-shape[k] // block[k])
        while -(-shape[k] // pieces) == block[k]:  # one more piece need not make blocks smaller by a voxel
            pieces += 1
        block[k] = -(-shape[k] // pieces)
    return (block[0], block[1], block[2])


def block_tables(
    proposal: ArrayLike, truth: ArrayLike, block_shape: Sequence[int], mask: ArrayLike | None = None
) -> tuple[Contingency, ...]:
    """Count overlaps in each block of a volume; the tables add up to that of the volume.

    Parameters
    ----------
    proposal, truth
        Labels, integers >= 0, (z, y, x).
    block_shape
        (z, y, x) voxels; blocks at the far faces may be smaller.
    mask
        Boolean of the same shape; only voxels where it is true are counted.

    Returns
    -------
    tuple of Contingency
        One per block, in raster order.

    Raises
    ------
    InputError
        If an array does not have three axes, shapes differ, or the block shape is not three positive numbers.

    Examples
    --------
    >>> [one.total for one in block_tables(np.ones((2, 3, 4), int), np.ones((2, 3, 4), int), (1, 3, 3))]
    [9, 3, 9, 3]
    """
    a, b = np.asarray(proposal), np.asarray(truth)
    keep = None if mask is None else np.asarray(mask)
    for name, array in (("proposal", a), ("truth", b), ("mask", keep)):
        if array is not None and (array.ndim != 3 or array.shape != a.shape):
            raise InputError(f"{name} must have axes z, y, x and the shape of the proposal; got shape {array.shape}")
    places = [box.slices for box in grid(Box.of_shape(a.shape), block_shape)]
    return tuple(contingency(a[at], b[at], None if keep is None else keep[at]) for at in places)


def bootstrap_blocks(
    tables: Sequence[Contingency], scores: Scores, rng: np.random.Generator, n: int = 1000
) -> Resampled:
    """Score a volume and resamples of its blocks.

    Parameters
    ----------
    tables
        One per block, from `block_tables` with the same blocks for every method; at least 2 with truth, better 50.
        Blocks without truth are left out.
    scores
        Gives named numbers for a table; the same names for every table.
    rng
        Source of the resamples; give methods that are to be compared generators of one seed.
    n
        Number of resamples, >= 1.

    Returns
    -------
    Resampled

    Raises
    ------
    InputError
        If fewer than two blocks have truth, or n < 1.

    Examples
    --------
    >>> from neuropil.metrics.rand import rand_scores
    >>> truth = np.repeat([[[1, 2]]], 8, axis=1)
    >>> tables = block_tables(np.where(np.arange(8)[:, None] == 0, 1, truth), truth, (1, 1, 2))
    >>> found = bootstrap_blocks(tables, lambda t: {"f": rand_scores(t).f}, np.random.default_rng(0), 100)
    >>> found.intervals()["f"].low < found.intervals()["f"].estimate < found.intervals()["f"].high
    True
    """
    kept = [table for table in tables if np.any(table.truth_ids != 0)]
    if len(kept) < 2 or n < 1:
        raise InputError(f"bootstrap needs 2 blocks with truth and n >= 1; got {len(kept)} and {n}")
    layout = _Layout.of(kept)
    first = scores(layout.drawn(np.ones(len(kept), np.int64)))
    names = tuple(first)
    draws = rng.multinomial(len(kept), np.full(len(kept), 1 / len(kept)), size=n)
    found = (scores(layout.drawn(times)) for times in draws)
    samples = np.array([[one[name] for name in names] for one in found], np.float64)
    return Resampled(names, np.array([first[name] for name in names], np.float64), samples)


@dataclass(frozen=True)
class _Layout:
    """The table of all blocks, and for each entry of each block its voxels, its block and its place in that table."""

    whole: Contingency
    voxels: NDArray[np.int64]
    block: NDArray[np.int64]
    entry: NDArray[np.int64]

    @classmethod
    def of(cls, tables: Sequence[Contingency]) -> _Layout:
        whole = Contingency.sum_of(tables)
        width = whole.truth_ids.size
        places = whole.rows * width + whole.columns  # ascending, as the entries of a table are
        entries = []
        for table in tables:
            rows = np.searchsorted(whole.proposal_ids, table.proposal_ids)[table.rows]
            columns = np.searchsorted(whole.truth_ids, table.truth_ids)[table.columns]
            entries.append(np.searchsorted(places, rows * width + columns))
        block = np.repeat(np.arange(len(tables)), [table.counts.size for table in tables])
        return cls(whole, np.concatenate([table.counts for table in tables]), block, np.concatenate(entries))

    def drawn(self, times: NDArray[np.int64]) -> Contingency:
        """Return the table where block b counts times[b] fold."""
        weights = (self.voxels * times[self.block]).astype(np.float64)
        counts = np.bincount(self.entry, weights, self.whole.counts.size).astype(np.int64)
        kept = counts > 0
        proposal_ids, rows = _used(self.whole.proposal_ids, self.whole.rows[kept])
        truth_ids, columns = _used(self.whole.truth_ids, self.whole.columns[kept])
        return Contingency(proposal_ids, truth_ids, rows, columns, counts[kept])


def _used(ids: NDArray[np.uint64], positions: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Drop ids that no entry has any more."""
    used = np.zeros(ids.size, bool)
    used[positions] = True
    return ids[used], (np.cumsum(used) - 1)[positions]
