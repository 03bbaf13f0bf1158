"""Curves of V_merge against V_split over a parameter of the segmentation, and the best point on them.

A merge tree gives a segmentation per level; all levels are scored in one pass. Key insight: the order of merges is
known beforehand, so each truth segment can be followed by itself. Lay the fragments out so that every cluster of every
level is a contiguous range (concatenate the two ranges at each merge). Within one truth segment only neighbours in that
layout matter: the step at which two neighbours meet is read off the union-find forest in O(log n), and joining parts of
a and b voxels adds 2 a b to sum n_ij^2. Sorting makes it O(E log E) for E entries of the fragments' table, whatever the
number of levels; cutting and scoring again takes O(levels x E).
Scores: Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import curves as _kernel
from neuropil.errors import InputError
from neuropil.labels import Contingency, contingency
from neuropil.metrics.overlap import Background, Overlap, check_choice, overlap
from neuropil.metrics.rand import rand_scores
from neuropil.metrics.sections import mean_over_sections, pool, section_tables

Sections = Literal["whole", "pooled", "mean"]


@dataclass(frozen=True)
class Curve:
    """Rand scores over a threshold; float64 arrays of one length, in the order in which the points were made.

    Attributes
    ----------
    threshold
        The parameter of the segmentation.
    merge, split, f
        V_merge (precision), V_split (recall) and their harmonic mean, in [0, 1]; nan where nothing was compared.
    """

    threshold: NDArray[np.float64]
    merge: NDArray[np.float64]
    split: NDArray[np.float64]
    f: NDArray[np.float64]


@dataclass(frozen=True)
class CurvePoint:
    """One point of a `Curve` and its place there."""

    threshold: float
    merge: float
    split: float
    f: float
    index: int


@dataclass(frozen=True)
class InformationCurve:
    """Variation of information over a threshold; float64 arrays of one length.

    Attributes
    ----------
    threshold
        The parameter of the segmentation.
    split, merge, total
        H(S|T), H(T|S) and their sum, bits.
    """

    threshold: NDArray[np.float64]
    split: NDArray[np.float64]
    merge: NDArray[np.float64]
    total: NDArray[np.float64]


def components_curve(
    labelings: Iterable[tuple[float, ArrayLike]],
    truth: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    background: Background = "singletons",
    sections: Sections = "whole",
) -> Curve:
    """Score one segmentation per threshold, for example the connected components of a boundary map.

    Parameters
    ----------
    labelings
        Pairs of threshold and labels, any integers >= 0 of the shape of `truth`; consumed one at a time.
    truth
        Labels, integers >= 0; 0 is left out of the scores.
    mask
        Boolean of the same shape; only voxels where it is true are compared.
    background
        What proposal background is taken for; see `neuropil.metrics.overlap.overlap`.
    sections
        "whole": ids are compared through the volume. "pooled": ids are unique to a section (axis 0), sums are taken
        over all sections before the ratio. "mean": as ISBI 2012, the mean over sections of each score, F included.

    Returns
    -------
    Curve
        In the order of `labelings`.

    Raises
    ------
    InputError
        If shapes do not fit, a choice is unknown, or the truth has no voxel to compare with.

    Examples
    --------
    >>> truth = [1, 1, 1, 2, 2, 2]
    >>> curve = components_curve([(0.2, [1, 1, 1, 1, 1, 1]), (0.5, [1, 1, 0, 2, 2, 2])], truth)
    >>> curve.f.round(3).tolist()
    [0.667, 0.875]
    """
    check_choice("sections", sections, get_args(Sections))
    points = []
    for threshold, labels in labelings:
        if sections == "mean":
            tables = section_tables(labels, truth, mask)
            scores = [mean_over_sections(tables, _score_of(name, background)) for name in ("merge", "split", "f")]
        else:
            whole = sections == "whole"
            table = contingency(labels, truth, mask) if whole else pool(section_tables(labels, truth, mask))
            rand = rand_scores(table, background=background)
            scores = [rand.merge, rand.split, rand.f]
        points.append((float(threshold), *scores))
    return Curve(*np.array(points, np.float64).reshape(-1, 4).T)


def merge_tree_curve(
    table: Contingency,
    tree_u: ArrayLike,
    tree_v: ArrayLike,
    tree_affinity: ArrayLike,
    *,
    background: Background = "singletons",
) -> Curve:
    """Compute Rand scores at every level of a merge tree in one pass.

    Parameters
    ----------
    table
        Counts of fragments against truth, from `neuropil.labels.contingency`, added up over blocks if need be. To pool
        a score over sections, count against `neuropil.metrics.sections.unique_per_section` of the truth.
    tree_u, tree_v
        Fragment ids joined by each edge, integers > 0, (n,). A tree is enough; edges that close a cycle change nothing.
        Ids that are not in the table still join their neighbours.
    tree_affinity
        Score of each edge, (n,); larger merges earlier. At threshold T all edges of score >= T are merged.
    background
        What fragment background, which never merges, is taken for; see `neuropil.metrics.overlap.overlap`.

    Returns
    -------
    Curve
        Thresholds descend. The first lies just above the largest score, where nothing is merged; then each distinct
        score.

    Raises
    ------
    InputError
        If the tree's arrays do not fit, an id is 0, a score is NaN, or the truth has no voxel to compare with.

    Notes
    -----
    For a history of agglomeration whose scores rise now and then, pass ``np.minimum.accumulate(scores)``.

    Examples
    --------
    >>> table = contingency([1, 1, 2, 2, 3, 3], [7, 7, 7, 7, 8, 8])
    >>> curve = merge_tree_curve(table, [1, 2], [2, 3], [0.9, 0.4])
    >>> curve.threshold.round(2).tolist(), curve.merge.round(3).tolist(), curve.split.tolist()
    ([0.9, 0.9, 0.4], [1.0, 1.0, 0.556], [0.6, 1.0, 1.0])
    """
    kept = overlap(table, background=background)
    swept = _sweep(table, kept, tree_u, tree_v, tree_affinity)
    n, s, t, lone = kept.counts, kept.proposal_sizes, kept.truth_sizes, kept.singletons.sum()
    both = lone + n @ n + swept.entry_gains[0]
    proposal = lone + s @ s + swept.segment_gains[0]
    true = np.full(both.size, t @ t)
    with np.errstate(invalid="ignore"):
        return Curve(swept.threshold, merge=both / proposal, split=both / true, f=2 * both / (proposal + true))


def merge_tree_information(
    table: Contingency,
    tree_u: ArrayLike,
    tree_v: ArrayLike,
    tree_affinity: ArrayLike,
    *,
    background: Background = "segment",
) -> InformationCurve:
    """Compute the variation of information, in bits, at every level of a merge tree in one pass.

    Parameters, order of the points and errors are those of `merge_tree_curve`; the default for background is that of
    `variation_of_information`.

    Returns
    -------
    InformationCurve

    Examples
    --------
    >>> table = contingency([1, 1, 2, 2, 3, 3], [7, 7, 7, 7, 8, 8])
    >>> merge_tree_information(table, [1, 2], [2, 3], [0.9, 0.4]).total.round(3).tolist()
    [0.667, 0.0, 0.918]
    """
    kept = overlap(table, background=background)
    swept = _sweep(table, kept, tree_u, tree_v, tree_affinity)
    entries = _xlogx(kept.counts) + swept.entry_gains[1]
    with np.errstate(invalid="ignore"):
        split = np.maximum(_xlogx(kept.truth_sizes) - entries, 0) / kept.total
        merge = np.maximum(_xlogx(kept.proposal_sizes) + swept.segment_gains[1] - entries, 0) / kept.total
    return InformationCurve(swept.threshold, split, merge, split + merge)


def best(curve: Curve) -> CurvePoint:
    """Return the point of highest F; of equals the first, which on a merge tree is the one of fewest merges.

    Raises
    ------
    InputError
        If no point of the curve has a score.

    Examples
    --------
    >>> f = np.array([0.5, 0.8, 0.8])
    >>> best(Curve(np.array([0.9, 0.5, 0.1]), f, f, f)).threshold
    0.5
    """
    if not np.isfinite(curve.f).any():
        raise InputError(f"curve must have a point with a score; got {curve.f.size} points without")
    k = int(np.nanargmax(curve.f))
    return CurvePoint(float(curve.threshold[k]), float(curve.merge[k]), float(curve.split[k]), float(curve.f[k]), k)


def flat_range(threshold: ArrayLike, good: ArrayLike, index: int) -> tuple[float, float]:
    """Return the thresholds around a point of a merge tree's curve for which every segmentation is good.

    The point k stands for all thresholds above ``threshold[k + 1]`` up to ``threshold[k]``, the first point for all
    above the next, the last for all down to 0. A wide range means that the optimum will hold on other data.

    Parameters
    ----------
    threshold
        Descending, (n,), as from `merge_tree_curve`.
    good
        Boolean (n,), for example ``curve.f >= 0.95 * curve.f.max()``.
    index
        Place of the optimum; it must be good.

    Returns
    -------
    tuple of float
        Low (not included) and high; high is 1 where nothing needs to be merged.

    Raises
    ------
    InputError
        If lengths differ or the point is not good.

    Examples
    --------
    >>> flat_range([0.9, 0.8, 0.6, 0.3], [False, True, True, False], 1)
    (0.3, 0.8)
    """
    levels, kept = np.asarray(threshold, np.float64), np.asarray(good, np.bool_)
    if levels.ndim != 1 or levels.shape != kept.shape or not 0 <= index < levels.size or not kept[index]:
        raise InputError(f"index must be a good point of the curve; got {index} of {levels.shape}, {kept.shape}")
    bad = np.flatnonzero(~kept)
    first = int(bad[bad < index].max(initial=-1)) + 1
    after = int(bad[bad > index].min(initial=levels.size))
    return (
        float(levels[after]) if after < levels.size else 0.0,
        float(levels[first]) if first > 0 else max(1.0, float(levels[first])),
    )


@dataclass(frozen=True)
class _Sweep:
    """What each level has added so far to the sums of x^2 (row 0) and x log2 x (row 1); the first level is no merge."""

    threshold: NDArray[np.float64]
    segment_gains: NDArray[np.float64]
    entry_gains: NDArray[np.float64]


def _sweep(table: Contingency, kept: Overlap, tree_u: ArrayLike, tree_v: ArrayLike, tree_affinity: ArrayLike) -> _Sweep:
    """Follow the sums over s_i (proposal segments) and n_ij (entries) through the levels of the tree."""
    u, v, score = _checked_tree(tree_u, tree_v, tree_affinity)
    order = np.argsort(-score, kind="stable")
    u, v, score = u[order], v[order], score[order]
    distinct = np.ones(score.size, bool)
    distinct[1:] = score[1:] != score[:-1]
    level = np.cumsum(distinct) - 1
    n_levels = int(distinct.sum())
    top = np.nextafter(score[:1], np.inf) if score.size else np.ones(1)

    ids = np.unique(np.concatenate([table.proposal_ids, u, v]))
    place = np.searchsorted(ids, table.proposal_ids)
    sizes = np.zeros(ids.size)
    sizes[place] = kept.proposal_sizes
    ends = np.searchsorted(ids, u), np.searchsorted(ids, v)
    segment_gains, position, parent, joined = _kernel.merge_fragments(*ends, level, sizes, n_levels)

    fragments = place[kept.rows]
    by_truth = np.lexsort((position[fragments], kept.columns))
    fragments, columns, counts = fragments[by_truth], kept.columns[by_truth], kept.counts[by_truth]
    steps = _kernel.meeting_steps(fragments, columns, parent, joined, level.size)
    gaps = np.flatnonzero(steps < level.size)
    gaps = gaps[np.argsort(steps[gaps], kind="stable")]
    entry_gains = _kernel.merge_entries(gaps, level[steps[gaps]], counts, n_levels)
    return _Sweep(np.concatenate([top, score[distinct]]), _cumulated(segment_gains), _cumulated(entry_gains))


def _checked_tree(
    tree_u: ArrayLike, tree_v: ArrayLike, tree_affinity: ArrayLike
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.float64]]:
    score = np.asarray(tree_affinity, np.float64)
    if score.ndim != 1 or np.isnan(score).any():
        raise InputError(f"tree_affinity must have one axis and no NaN; got shape {score.shape}")
    ends = []
    for name, given in (("tree_u", tree_u), ("tree_v", tree_v)):
        array = np.asarray(given, np.uint64) if np.size(given) == 0 else np.asarray(given)
        if array.dtype.kind not in "ui" or array.shape != score.shape or (array.size and array.min() <= 0):
            raise InputError(
                f"{name} must be ids > 0, one per entry of tree_affinity ({score.size}); "
                f"got {array.dtype} of shape {array.shape}" + (f", least {array.min()}" if array.size else "")
            )
        ends.append(array.astype(np.uint64))
    return ends[0], ends[1], score


def _cumulated(gains: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([np.zeros((2, 1)), gains.cumsum(axis=1)], axis=1)


def _xlogx(x: NDArray[np.float64]) -> float:
    return float(x @ np.log2(np.maximum(x, 1)))


def _score_of(name: str, background: Background) -> Callable[[Contingency], float]:
    return lambda table: float(getattr(rand_scores(table, background=background), name))
