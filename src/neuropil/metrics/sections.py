"""Scores of a stack taken section by section, and how sure one can be of them.

Networks that label each section by itself are scored in two dimensions: ids mean nothing across sections. Either the
sums of all sections are added before the ratio ("pooled": Lee et al. 2015), or the scores of the sections are averaged
("mean": ISBI 2012). Voxels are not independent, sections nearly are: intervals come from resampling whole sections
(bootstrap, Efron 1979), and two methods are compared on the same resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.errors import InputError
from neuropil.labels import Contingency, contingency, relabel
from neuropil.metrics.overlap import check_choice

Score = Callable[[Contingency], float]
Average = Literal["pooled", "mean"]


@dataclass(frozen=True)
class Interval:
    """A score with its bootstrap interval.

    Attributes
    ----------
    estimate
        The score of all sections.
    low, high
        Percentile interval at `level`.
    level
        Coverage, for example 0.95.
    """

    estimate: float
    low: float
    high: float
    level: float


def section_tables(proposal: ArrayLike, truth: ArrayLike, mask: ArrayLike | None = None) -> tuple[Contingency, ...]:
    """Count overlaps in each section.

    Parameters
    ----------
    proposal, truth
        Labels, integers >= 0, (z, y, x).
    mask
        Boolean of the same shape; only voxels where it is true are counted.

    Returns
    -------
    tuple of Contingency
        One per section, in order.

    Raises
    ------
    InputError
        If an array does not have three axes or shapes differ.

    Examples
    --------
    >>> [table.total for table in section_tables(np.ones((2, 3, 4), int), np.ones((2, 3, 4), int))]
    [12, 12]
    """
    a, b = np.asarray(proposal), np.asarray(truth)
    keep = None if mask is None else np.asarray(mask)
    for name, array in (("proposal", a), ("truth", b), ("mask", keep)):
        if array is not None and (array.ndim != 3 or array.shape != a.shape):
            raise InputError(f"{name} must have axes z, y, x and the shape of the proposal; got shape {array.shape}")
    return tuple(contingency(a[z], b[z], None if keep is None else keep[z]) for z in range(a.shape[0]))


def pool(tables: Sequence[Contingency]) -> Contingency:
    """Join the tables of sections into one, where no segment continues from one section to the next.

    Parameters
    ----------
    tables
        One table per section; the same id in two of them means two segments.

    Returns
    -------
    Contingency
        With ids 1, 2 ... in order of section and id. Background stays 0 in all sections.

    Examples
    --------
    >>> one = contingency([1, 1, 0], [7, 7, 7])
    >>> both = pool([one, one])
    >>> both.proposal_ids.tolist(), both.truth_ids.tolist(), both.counts.tolist()
    ([0, 1, 2], [1, 2], [1, 1, 2, 2])
    """
    if not tables:
        return Contingency.empty()
    proposal_ids, rows = _pooled_ids([t.proposal_ids for t in tables], [t.rows for t in tables])
    truth_ids, columns = _pooled_ids([t.truth_ids for t in tables], [t.columns for t in tables])
    counts = np.concatenate([t.counts for t in tables])
    order = np.lexsort((columns, rows))
    rows, columns, counts = rows[order], columns[order], counts[order]
    # only background against background occurs more than once, and it comes first
    zeros = 0
    if proposal_ids[:1].tolist() == [0] and truth_ids[:1].tolist() == [0]:
        zeros = int(np.count_nonzero((rows == 0) & (columns == 0)))
    if zeros > 1:
        counts = np.concatenate([[counts[:zeros].sum()], counts[zeros:]])
        rows, columns = rows[zeros - 1 :], columns[zeros - 1 :]
    return Contingency(proposal_ids, truth_ids, rows, columns, counts)


def unique_per_section(labels: ArrayLike) -> NDArray[np.uint64]:
    """Give a segment that runs through several sections another id in each of them.

    Parameters
    ----------
    labels
        Integers >= 0, (z, y, x).

    Returns
    -------
    ndarray of uint64
        Same shape; 1, 2 ... in order of section and id, 0 stays 0.

    Raises
    ------
    InputError
        If `labels` do not have three axes.

    Examples
    --------
    >>> unique_per_section([[[7, 9, 0]], [[9, 9, 7]]]).tolist()
    [[[1, 2, 0]], [[4, 4, 3]]]
    """
    array = np.asarray(labels)
    if array.ndim != 3:
        raise InputError(f"labels must have axes z, y, x; got shape {array.shape}")
    out = np.empty(array.shape, np.uint64)
    used = np.uint64(0)
    for z in range(array.shape[0]):
        section = relabel(array[z])
        out[z] = np.where(section.labels > 0, section.labels + used, np.uint64(0))
        used += np.uint64(section.ids.size - 1)
    return out


def mean_over_sections(tables: Sequence[Contingency], score: Score) -> float:
    """Average a score over sections, as ISBI 2012; sections without truth are left out.

    Parameters
    ----------
    tables
        One per section.
    score
        Gives a number for a table, for example ``lambda table: rand_scores(table).f``.

    Returns
    -------
    float
        nan if a section's score is.

    Raises
    ------
    InputError
        If no section has truth.

    Examples
    --------
    >>> mean_over_sections([contingency([1, 1], [3, 3]), contingency([1, 2], [0, 0])], lambda table: table.total)
    2.0
    """
    return float(np.mean([score(table) for table in _with_truth(tables)]))


def bootstrap_interval(
    tables: Sequence[Contingency],
    score: Score,
    rng: np.random.Generator,
    n: int = 1000,
    *,
    level: float = 0.95,
    average: Average = "pooled",
) -> Interval:
    """Estimate how far a score would move had other sections been drawn: the percentile bootstrap over sections.

    Parameters
    ----------
    tables
        One per section (or block); at least 2 with truth, better 50.
    score
        Gives a number for a table.
    rng
        Source of the resamples.
    n
        Number of resamples.
    level
        Coverage of the interval, in (0, 1).
    average
        "pooled" scores the pooled table of each resample, "mean" averages the scores of its sections.

    Returns
    -------
    Interval

    Raises
    ------
    InputError
        If fewer than two sections have truth, n < 1, or the level is not in (0, 1).

    Examples
    --------
    >>> from neuropil.metrics.rand import rand_scores
    >>> tables = [contingency([1, 1, 2, 2], [1, 1, 1, k]) for k in (1, 1, 1, 2)]
    >>> interval = bootstrap_interval(tables, lambda t: rand_scores(t).f, np.random.default_rng(0), 200)
    >>> interval.low <= interval.estimate <= interval.high
    True
    """
    return _bootstrap([_with_truth(tables)], score, rng, n, level, average)


def bootstrap_difference(
    first: Sequence[Contingency],
    second: Sequence[Contingency],
    score: Score,
    rng: np.random.Generator,
    n: int = 1000,
    *,
    level: float = 0.95,
    average: Average = "pooled",
) -> Interval:
    """Estimate score(first) - score(second) with an interval, both on the same resampled sections.

    Parameters
    ----------
    first, second
        Tables of two proposals for the same sections in the same order.
    score, rng, n, level, average
        As in `bootstrap_interval`.

    Returns
    -------
    Interval
        An interval that holds 0 does not tell the two apart.

    Raises
    ------
    InputError
        As `bootstrap_interval`, or if the two do not have as many sections.

    Examples
    --------
    >>> tables = [contingency([1, 1], [1, 1])] * 3
    >>> bootstrap_difference(tables, tables, lambda t: t.total, np.random.default_rng(0), 10).estimate
    0.0
    """
    both = [_with_truth(first), _with_truth(second)]
    if len(both[0]) != len(both[1]):
        raise InputError(f"second must have the sections of first, {len(both[0])} with truth; got {len(both[1])}")
    return _bootstrap(both, score, rng, n, level, average)


def _bootstrap(
    methods: Sequence[Sequence[Contingency]],
    score: Score,
    rng: np.random.Generator,
    n: int,
    level: float,
    average: Average,
) -> Interval:
    """Return the score of the first method, less that of a second if there is one."""
    check_choice("average", average, get_args(Average))
    sections = len(methods[0])
    if sections < 2 or n < 1 or not 0 < level < 1:
        raise InputError(f"bootstrap needs 2 sections, n >= 1, level in (0, 1); got {sections}, {n}, {level}")
    single = [np.array([score(t) for t in tables]) for tables in methods] if average == "mean" else []

    def estimate(drawn: NDArray[np.int64]) -> float:
        if average == "mean":
            values = [float(scores[drawn].mean()) for scores in single]
        else:
            values = [float(score(pool([tables[k] for k in drawn]))) for tables in methods]
        return values[0] - sum(values[1:])

    resampled = [estimate(rng.integers(sections, size=sections)) for _ in range(n)]
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate(np.arange(sections)), float(low), float(high), level)


def _with_truth(tables: Sequence[Contingency]) -> list[Contingency]:
    kept = [table for table in tables if np.any(table.truth_ids != 0)]
    if not kept:
        raise InputError(f"tables must have a section with truth; got {len(tables)} without")
    return kept


def _pooled_ids(
    ids: Sequence[NDArray[np.uint64]], positions: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return ids 0 (if there is background), 1, 2 ... of all sections and the entries' positions in them."""
    background = int(any(k.size and k[0] == 0 for k in ids))
    pooled, used = [], background
    for section_ids, section_positions in zip(ids, positions):
        zero = int(section_ids.size > 0 and section_ids[0] == 0)
        place = np.arange(section_ids.size) + used - zero
        if zero:
            place[0] = 0
        pooled.append(place[section_positions])
        used += section_ids.size - zero
    return np.arange(1 - background, used + 1 - background, dtype=np.uint64), np.concatenate(pooled).astype(np.int64)
