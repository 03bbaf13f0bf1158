"""Objects found and missed: one-to-one matching of proposal and truth objects by the voxels they share.

Rand and information count voxels, so that one large object outweighs a thousand small ones. Where objects are counted
(clefts, mitochondria, nuclei, whole neurons) each proposal may stand for one truth object and each truth object be
found once; what is left over is false or missed. Key insight: all that is needed is the contingency table, and objects
that compete for each other fall into small groups that share voxels, so the best assignment (Kuhn 1955) is found group
by group and never on a matrix of all objects against all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from neuropil.errors import InputError
from neuropil.labels import Contingency
from neuropil.metrics.overlap import check_choice, ratio

Voxels = Literal["all", "truth"]
IOU_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@dataclass(frozen=True)
class DetectionScores:
    """How many objects were found, made up and missed.

    Attributes
    ----------
    true_positives, false_positives, false_negatives
        Matched pairs, proposal objects without a partner, truth objects without a partner.
    """

    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def precision(self) -> float:
        """TP / (TP + FP), in [0, 1]; nan if nothing was proposed."""
        return ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """TP / (TP + FN), in [0, 1]; nan if there is nothing to find."""
        return ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f(self) -> float:
        """2 TP / (2 TP + FP + FN), in [0, 1]; nan if there is no object at all."""
        errors = self.false_positives + self.false_negatives
        return ratio(2 * self.true_positives, 2 * self.true_positives + errors)

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN), in [0, 1]; nan if there is no object at all."""
        return ratio(self.true_positives, self.true_positives + self.false_positives + self.false_negatives)


@dataclass(frozen=True)
class InstanceScores:
    """Detection scores at several overlaps that a match must have.

    Attributes
    ----------
    thresholds
        Least intersection over union of a match, ascending.
    detection
        One per threshold.
    """

    thresholds: tuple[float, ...]
    detection: tuple[DetectionScores, ...]

    @property
    def mean_average_precision(self) -> float:
        """Mean of TP / (TP + FP + FN) over the thresholds; nan if there is no object at all."""
        return float(np.mean([one.average_precision for one in self.detection]))


def detection_scores(table: Contingency, *, min_overlap: int = 1, min_size: int = 1) -> DetectionScores:
    """Count objects found by one-to-one overlap: a second proposal on the same truth object is a false one.

    Parameters
    ----------
    table
        Counts of proposal against truth objects, from `neuropil.labels.contingency`; 0 is background in both.
    min_overlap
        Voxels that a pair must share to be matched, >= 1. Of the assignments, the one that shares most voxels is taken.
    min_size
        Smaller objects are left out, of the proposal and of the truth alike.

    Returns
    -------
    DetectionScores

    Raises
    ------
    InputError
        If `min_overlap` or `min_size` is below 1.

    Notes
    -----
    The definition of funlib.evaluate ("overlap") and, with `min_overlap` 1, of Synaptor's one-to-one count.

    Examples
    --------
    >>> from neuropil.labels import contingency
    >>> found = detection_scores(contingency([1, 1, 2, 0, 3], [7, 7, 7, 8, 0]))
    >>> found.true_positives, found.false_positives, found.false_negatives
    (1, 2, 1)
    """
    if min_overlap < 1 or min_size < 1:
        raise InputError(f"min_overlap and min_size must be at least 1; got {min_overlap} and {min_size}")
    pairs = _pairs(table, "all", min_size)
    matched = one_to_one(*pairs.at(pairs.shared >= min_overlap))
    return pairs.detection(matched.size)


def instance_scores(
    table: Contingency, thresholds: Sequence[float] = IOU_THRESHOLDS, *, voxels: Voxels = "all"
) -> InstanceScores:
    r"""Compute average precision of instances at several thresholds of intersection over union.

    .. math:: IoU_{ij} = \frac{n_{ij}}{s_i + t_j - n_{ij}}, \quad AP(\theta) = \frac{TP}{TP + FP + FN}

    where TP is the largest number of pairs with :math:`IoU \ge \theta` that share no object.

    Parameters
    ----------
    table
        Counts of proposal against truth, from `neuropil.labels.contingency`; 0 is background in both.
    thresholds
        In (0, 1], ascending. Those of COCO if omitted: 0.5, 0.55 ... 0.95.
    voxels
        "all": s_i counts every voxel of a proposal object. "truth": only voxels that are not background in the truth
        count, as for Rand scores and information; an object without any is no object then.

    Returns
    -------
    InstanceScores

    Raises
    ------
    InputError
        If a threshold is not in (0, 1], they do not ascend, or `voxels` is unknown.

    Notes
    -----
    AP without confidences, as in the Data Science Bowl 2018 and Cellpose (StarDist calls it accuracy); the AP of COCO
    ranks detections by confidence, which a segmentation does not have.

    Examples
    --------
    >>> from neuropil.labels import contingency
    >>> scores = instance_scores(contingency([1, 1, 1, 2, 2], [7, 7, 8, 9, 9]), [0.5, 0.75])
    >>> [one.average_precision for one in scores.detection], round(scores.mean_average_precision, 4)
    ([0.6666666666666666, 0.25], 0.4583)
    """
    if not thresholds or not all(0 < one <= 1 for one in thresholds) or list(thresholds) != sorted(thresholds):
        raise InputError(f"thresholds must ascend in (0, 1], at least one; got {list(thresholds)}")
    check_choice("voxels", voxels, get_args(Voxels))
    pairs = _pairs(table, voxels, 1)
    found = []
    for threshold in thresholds:
        rows, columns, _ = pairs.at(pairs.iou >= threshold)
        found.append(pairs.detection(one_to_one(rows, columns, np.ones(rows.size)).size))
    return InstanceScores(tuple(float(one) for one in thresholds), tuple(found))


def one_to_one(rows: ArrayLike, columns: ArrayLike, weights: ArrayLike) -> NDArray[np.int64]:
    """Choose pairs that share no row and no column, with the greatest sum of weights.

    Parameters
    ----------
    rows, columns
        Integers >= 0, (n,): what a pair would match; no pair twice.
    weights
        (n,), > 0.

    Returns
    -------
    ndarray of int64
        Positions of the chosen pairs, ascending.

    Examples
    --------
    >>> one_to_one([0, 0, 1], [0, 1, 0], [3.0, 2.0, 2.0]).tolist()
    [1, 2]
    """
    i, j, gain = np.asarray(rows, np.int64), np.asarray(columns, np.int64), np.asarray(weights, np.float64)
    if i.size == 0:
        return np.empty(0, np.int64)
    left, right = int(i.max()) + 1, int(j.max()) + 1
    graph = coo_array((np.ones(i.size, np.int8), (i, j + left)), shape=(left + right,) * 2)
    group = connected_components(graph, directed=False)[1][i]
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sizes = np.diff(starts, append=i.size)
    chosen = [order[starts[sizes == 1]]]
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1]):
        chosen.append(_assign(order[start : start + size], i, j, gain))
    return np.sort(np.concatenate(chosen))


def _assign(
    members: NDArray[np.int64], i: NDArray[np.int64], j: NDArray[np.int64], gain: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the best pairs of one group."""
    _, a = np.unique(i[members], return_inverse=True)
    _, b = np.unique(j[members], return_inverse=True)
    matrix, pair = np.zeros((a.max() + 1, b.max() + 1)), np.full((a.max() + 1, b.max() + 1), -1)
    matrix[a, b], pair[a, b] = gain[members], members
    chosen = pair[linear_sum_assignment(matrix, maximize=True)]
    return chosen[chosen >= 0]


@dataclass(frozen=True)
class _Pairs:
    """Overlapping objects (positions, shared voxels, intersection over union) and the numbers of all objects."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    shared: NDArray[np.int64]
    iou: NDArray[np.float64]
    proposals: int
    truths: int

    def at(self, kept: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return rows, columns and shared voxels of some."""
        return self.rows[kept], self.columns[kept], self.shared[kept]

    def detection(self, matched: int) -> DetectionScores:
        """Return the scores where so many are matched."""
        return DetectionScores(matched, self.proposals - matched, self.truths - matched)


def _pairs(table: Contingency, voxels: Voxels, min_size: int) -> _Pairs:
    counted = table.counts
    if voxels == "truth":
        counted = np.where(table.truth_ids[table.columns] != 0, counted, 0)
    sizes = np.zeros(table.proposal_ids.size, np.int64)
    np.add.at(sizes, table.rows, counted)
    proposal = (table.proposal_ids != 0) & (sizes >= min_size)
    truth = (table.truth_ids != 0) & (table.truth_sizes >= min_size)
    kept = proposal[table.rows] & truth[table.columns]
    rows, columns, shared = table.rows[kept], table.columns[kept], table.counts[kept]
    union = sizes[rows] + table.truth_sizes[columns] - shared
    return _Pairs(rows, columns, shared, shared / union, int(proposal.sum()), int(truth.sum()))
