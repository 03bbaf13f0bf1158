r"""Scores of a consensus on segments: weighted by volume, and how far its probabilities can be trusted.

With TP, FP and FN the voxels of segments that were rightly selected, wrongly selected and missed,

    error  CE = (FP + FN) / (TP + FN + FP)      precision = TP / (TP + FP)      recall = TP / (TP + FN)

CE is the classification error of EyeWire, one minus the overlap (Jaccard) of consensus and truth. Probabilities are
scored per segment: log loss, Brier score and a calibration curve, which compares what was promised with what came true.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.crowd.votes import Votes
from neuropil.errors import InputError

_LEAST = 1e-6  # of a probability, so that no log loss is infinite


@dataclass(frozen=True)
class VoxelScores:
    """Scores in voxels, pooled over all segments; nan where nothing could be counted.

    Attributes
    ----------
    error
        CE, in [0, 1].
    precision, recall, f
        In [0, 1]; f is the harmonic mean.
    per_task
        Mean of CE over the tasks that have something to count.
    """

    error: float
    precision: float
    recall: float
    f: float
    per_task: float


@dataclass(frozen=True)
class Calibration:
    """Segments in bins of their probability, float64 (bins,) each; nan in bins without segments.

    Attributes
    ----------
    promised
        Mean probability.
    observed
        Share that belongs to the cell.
    counts
        Segments, int64.
    """

    promised: NDArray[np.float64]
    observed: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Mean over segments of how far promise and observation of their bin are apart, in [0, 1]."""
        filled = self.counts > 0
        gaps = np.abs(self.promised - self.observed)[filled]
        return float(np.average(gaps, weights=self.counts[filled])) if filled.any() else float("nan")


@dataclass(frozen=True)
class CrowdScores:
    """Everything about a consensus.

    Attributes
    ----------
    voxels
        Scores weighted by volume.
    accuracy
        Share of segments that were decided rightly.
    rmse, log_loss, brier
        Of the probabilities of segments with votes; log loss in nats.
    calibration
        In ten bins.
    """

    voxels: VoxelScores
    accuracy: float
    rmse: float
    log_loss: float
    brier: float
    calibration: Calibration


def score_consensus(votes: Votes, probability: ArrayLike, *, threshold: ArrayLike = 0.5) -> CrowdScores:
    """Score probabilities against truth, on the segments whose truth is known.

    Parameters
    ----------
    votes
        For truth, sizes and tasks.
    probability
        (s,), in [0, 1]; nan (nobody voted) counts as not selected and is left out of the scores of probabilities.
    threshold
        Segments at or above it are selected; one number, or one per segment.

    Returns
    -------
    CrowdScores

    Raises
    ------
    InputError
        If no truth is known, or the probabilities do not fit.

    Examples
    --------
    >>> votes = Votes.of([], [], [], tasks=[0, 0, 1], sizes=[60, 30, 10], truth=[1, 0, 1])
    >>> scores = score_consensus(votes, [0.9, 0.6, 0.2])
    >>> scores.voxels.error, scores.voxels.recall, round(scores.voxels.precision, 3), round(scores.brier, 3)
    (0.4, 0.857142..., 0.667, 0.337)
    """
    values = np.asarray(probability, np.float64)
    if values.shape != votes.tasks.shape:
        raise InputError(f"probability must have one entry per segment, {votes.tasks.shape}; got {values.shape}")
    known = votes.labelled
    if not known.any():
        raise InputError("votes must have truth for some segments to score on; none has")
    selected = np.nan_to_num(values, nan=-1) >= np.broadcast_to(np.asarray(threshold, np.float64), values.shape)
    told = known & ~np.isnan(values)
    p, y = np.clip(values[told], _LEAST, 1 - _LEAST), votes.truth[told]
    brier = float(np.mean((values[told] - y) ** 2)) if told.any() else float("nan")
    return CrowdScores(
        voxel_scores(votes, selected),
        accuracy=float(np.mean(selected[known] == votes.truth[known])),
        rmse=float(np.sqrt(brier)),
        log_loss=float(-np.mean(np.log(np.where(y == 1, p, 1 - p)))) if told.any() else float("nan"),
        brier=brier,
        calibration=calibration(values[told], y),
    )


def voxel_scores(votes: Votes, selected: NDArray[np.bool_]) -> VoxelScores:
    """Score decisions (s,) weighted by volume, on the segments whose truth is known; see `score_consensus`.

    >>> votes = Votes.of([], [], [], tasks=[0, 0, 1], sizes=[60, 30, 10], truth=[1, 0, 1])
    >>> voxel_scores(votes, np.array([True, True, False])).per_task
    0.666...
    """
    right, false, missed = (votes.sizes * kind for kind in _kinds(votes, selected))
    tp, fp, fn = float(right.sum()), float(false.sum()), float(missed.sum())
    wrong, counted = (np.bincount(votes.tasks, part) for part in (false + missed, right + false + missed))
    tasks = (wrong / np.maximum(counted, 1e-12))[counted > 0]
    return VoxelScores(
        error=_ratio(fp + fn, tp + fp + fn),
        precision=_ratio(tp, tp + fp),
        recall=_ratio(tp, tp + fn),
        f=_ratio(2 * tp, 2 * tp + fp + fn),
        per_task=float(tasks.mean()) if tasks.size else float("nan"),
    )


def calibration(probability: ArrayLike, truth: ArrayLike, *, bins: int = 10) -> Calibration:
    """Compare promised probabilities with what came true, in bins of equal width.

    Parameters
    ----------
    probability
        (n,), in [0, 1].
    truth
        (n,), 0 or 1.
    bins
        Number of bins; a probability on a border belongs to the upper one, 1 to the last.

    Examples
    --------
    >>> curve = calibration([0.1, 0.15, 0.9], [0, 1, 1], bins=2)
    >>> curve.promised.tolist(), curve.observed.tolist(), curve.counts.tolist()
    ([0.125, 0.9], [0.5, 1.0], [2, 1])
    """
    p, y = np.asarray(probability, np.float64), np.asarray(truth, np.float64)
    if p.shape != y.shape or p.ndim != 1 or bins < 1:
        raise InputError(f"probability and truth must be (n,), with one bin at least; got {p.shape}, {y.shape}, {bins}")
    if not np.all((p >= 0) & (p <= 1)):
        raise InputError("probability must lie in [0, 1]")
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, part, bins) for part in (p, y))
    promised, observed = (np.where(counts > 0, part / np.maximum(counts, 1), np.nan) for part in sums)
    return Calibration(promised, observed, counts)


def best_threshold(votes: Votes, probability: NDArray[np.float64]) -> float:
    """Return the probability from which on segments are selected so that CE on the known truth is least.

    The middle between two neighbouring probabilities, of equally good ones the nearest to 0.5; 0.5 if none is known.

    >>> votes = Votes.of([], [], [], tasks=[0, 0, 0], truth=[1, 1, 0])
    >>> best_threshold(votes, np.array([0.8, 0.4, 0.2]))
    0.30000000000000004
    """
    known = votes.labelled & ~np.isnan(probability)
    order = np.argsort(-probability[known], kind="stable")
    p, y, size = probability[known][order], votes.truth[known][order], votes.sizes[known][order]
    right, false = np.cumsum(size * (y == 1)), np.cumsum(size * (y == 0))
    if p.size == 0 or right[-1] == 0:
        return 0.5
    errors = 1 - np.concatenate([[0.0], right / (right[-1] + false)])
    cuts = np.concatenate([[(1 + p[0]) / 2], (p + np.concatenate([p[1:], [0.0]])) / 2])
    possible = np.concatenate([[True], p != np.concatenate([p[1:], [-1.0]])])
    errors[~possible] = np.inf
    # as good as the best up to rounding
    return float(min(cuts[errors <= errors.min() + 1e-12], key=lambda cut: abs(cut - 0.5)))


def _kinds(votes: Votes, selected: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], ...]:
    """Return which segments are rightly selected, wrongly selected, missed."""
    yes, no = votes.truth == 1, votes.truth == 0
    return yes & selected, no & selected, yes & ~selected


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")
