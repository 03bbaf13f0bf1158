"""Scores of synaptic partners: which pairs of neurons were found to talk to each other, and where.

A proposed pair of sites, before and behind the cleft, stands for a true pair if both of its sites are near and lie in
the same two neurons of the *true* segmentation. Pairs are matched one to one so that the distances are small in total,
as CREMI does (https://cremi.org/leaderboard). Key insight: only pairs within reach of each other can be matched, so a
search tree finds them, and the assignment is solved group by group (`neuropil.metrics.objects.one_to_one`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from neuropil.errors import InputError
from neuropil.metrics.objects import DetectionScores, one_to_one


@dataclass(frozen=True)
class PartnerScores:
    """Pairs of partners found and missed.

    Attributes
    ----------
    detection
        Numbers of pairs; precision, recall and F, the CREMI score, are its properties.
    proposal, truth
        int64 (m,): positions of the pairs that were matched.
    distance_nm
        float64 (m,): mean of the distances before and behind the cleft, nm.
    """

    detection: DetectionScores
    proposal: NDArray[np.int64]
    truth: NDArray[np.int64]
    distance_nm: NDArray[np.float64]


def partner_scores(
    proposal: ArrayLike,
    truth: ArrayLike,
    proposal_segments: ArrayLike,
    truth_segments: ArrayLike,
    *,
    tolerance_nm: float = 400.0,
) -> PartnerScores:
    """Match proposed to true synaptic partners one to one, as CREMI.

    Parameters
    ----------
    proposal, truth
        Places of the sites, nm, (n, 2, 3) and (m, 2, 3): per pair the presynaptic site, then the postsynaptic, each
        z, y, x in one frame.
    proposal_segments, truth_segments
        Integers >= 0, (n, 2) and (m, 2): ids of the **true** segmentation at those places, see `segments_at`.
    tolerance_nm
        Both sites of a match must be at most this far apart, nm, >= 0.

    Returns
    -------
    PartnerScores
        Of the assignments it has the least sum of costs, where a match costs the mean of its two distances and a pair
        without match costs twice the tolerance.

    Raises
    ------
    InputError
        If an array has another shape, places are not finite, ids are not integers, or the tolerance is negative.

    Examples
    --------
    >>> truth = np.array([[[0, 0, 0], [0, 0, 50]], [[0, 900, 0], [0, 900, 50]]])
    >>> found = partner_scores(truth[:1] + 10, truth, [[5, 6]], [[5, 6], [5, 7]])
    >>> found.detection.recall, found.distance_nm.round(3).tolist()
    (0.5, [17.321])
    """
    if not tolerance_nm >= 0:
        raise InputError(f"tolerance_nm must be >= 0; got {tolerance_nm}")
    a, a_segments = _pairs(proposal, proposal_segments, "proposal")
    b, b_segments = _pairs(truth, truth_segments, "truth")
    i, j = _within(a, b, tolerance_nm)
    same = (a_segments[i] == b_segments[j]).all(axis=1)
    i, j = i[same], j[same]
    cost = np.linalg.norm(a[i] - b[j], axis=2).mean(axis=1)
    # what a match saves over two pairs without one; above 0 also where the tolerance is 0
    chosen = one_to_one(i, j, np.maximum(2 * tolerance_nm - cost, np.finfo(float).tiny))
    matched = chosen.size
    detection = DetectionScores(matched, a.shape[0] - matched, b.shape[0] - matched)
    return PartnerScores(detection, i[chosen], j[chosen], cost[chosen])


def segments_at(
    segmentation: ArrayLike, places: ArrayLike, voxel_size: Sequence[float], offset: Sequence[float] = (0.0, 0.0, 0.0)
) -> NDArray[np.uint64]:
    """Read the ids of a segmentation at places given in nm.

    Parameters
    ----------
    segmentation
        Labels, integers >= 0, (z, y, x).
    places
        nm, (..., 3), last axis z, y, x. A place belongs to the voxel floor((place - offset) / voxel_size).
    voxel_size, offset
        nm, (z, y, x): extent of a voxel, and place of the corner of the first.

    Returns
    -------
    ndarray of uint64
        Shape of `places` without its last axis.

    Raises
    ------
    InputError
        If shapes do not fit, or a place lies outside of the segmentation.

    Examples
    --------
    >>> segments_at([[[3, 4, 5]]], [[0.0, 2.0, 9.0], [39.0, 0.0, 0.0]], (40, 4, 4)).tolist()
    [5, 3]
    """
    labels, points = np.asarray(segmentation), np.asarray(places, np.float64)
    if labels.ndim != 3 or points.shape[-1:] != (3,):
        raise InputError(f"segmentation must be (z, y, x) and places (..., 3); got {labels.shape} and {points.shape}")
    if len(voxel_size) != 3 or min(voxel_size) <= 0:
        raise InputError(f"voxel_size must be three positive lengths; got {tuple(voxel_size)}")
    voxels = np.floor((points - np.asarray(offset)) / np.asarray(voxel_size))
    outside = ~((voxels >= 0) & (voxels < labels.shape)).all(axis=-1)
    if outside.any():
        raise InputError(
            f"places must lie in the segmentation of shape {labels.shape}; {np.count_nonzero(outside)} do not, "
            f"the first is {points[outside][0].tolist()}"
        )
    found: NDArray[np.uint64] = labels[tuple(np.moveaxis(voxels.astype(np.int64), -1, 0))].astype(np.uint64)
    return found


def _pairs(places: ArrayLike, segments: ArrayLike, name: str) -> tuple[NDArray[np.float64], NDArray[np.integer]]:
    sites, ids = np.asarray(places, np.float64), np.asarray(segments)
    if sites.size == 0:
        return np.empty((0, 2, 3)), np.empty((0, 2), np.int64)
    if sites.ndim != 3 or sites.shape[1:] != (2, 3) or not np.isfinite(sites).all():
        raise InputError(f"{name} must be finite, (pairs, 2, 3), in nm; got shape {sites.shape}")
    if ids.shape != sites.shape[:2] or ids.dtype.kind not in "ui":
        raise InputError(
            f"{name}_segments must be integers of shape {sites.shape[:2]}; got {ids.dtype} of shape {ids.shape}"
        )
    return sites, ids


def _within(
    a: NDArray[np.float64], b: NDArray[np.float64], tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of pairs of which both sites are within the tolerance."""
    if not a.size or not b.size:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    reach = np.nextafter(tolerance, np.inf) * (1 + 1e-12)  # the tree's own rounding; the exact test comes next
    near = cKDTree(a[:, 0]).query_ball_tree(cKDTree(b[:, 0]), reach)
    i = np.repeat(np.arange(a.shape[0]), [len(one) for one in near])
    j = np.array([k for one in near for k in one], np.int64)
    both = (np.linalg.norm(a[i] - b[j], axis=2) <= tolerance).all(axis=1)
    return i[both], j[both]
