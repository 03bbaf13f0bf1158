"""Scores of synaptic clefts as voxels: how far what was found lies from what is there, and the other way round.

A cleft is a thin sheet, and where it ends is a matter of taste; overlap alone would punish a shift by one voxel as much
as a cleft in the wrong place. CREMI therefore measures distances: of every proposed voxel to the nearest true one, and
of every true voxel to the nearest proposed one (https://cremi.org/leaderboard). Whole clefts are counted by
`neuropil.metrics.objects.detection_scores`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from neuropil.errors import InputError


@dataclass(frozen=True)
class CleftScores:
    """CREMI's scores of cleft voxels; 0 is perfect.

    Attributes
    ----------
    false_positives, false_negatives
        Proposed voxels farther than the tolerance from any true one, and true voxels farther from any proposed one.
    distance_to_truth_nm
        Mean distance of proposed voxels to the nearest true one, nm (ADGT). nan if nothing is proposed, inf if there
        is no truth.
    distance_to_proposal_nm
        Mean distance of true voxels to the nearest proposed one, nm (ADF). nan if there is no truth, inf if nothing is
        proposed.
    """

    false_positives: int
    false_negatives: int
    distance_to_truth_nm: float
    distance_to_proposal_nm: float

    @property
    def score(self) -> float:
        """Mean of the two distances, nm, which CREMI ranks by."""
        return (self.distance_to_truth_nm + self.distance_to_proposal_nm) / 2


def cleft_scores(
    proposal: ArrayLike,
    truth: ArrayLike,
    voxel_size: Sequence[float],
    mask: ArrayLike | None = None,
    *,
    tolerance_nm: float = 200.0,
) -> CleftScores:
    """Score cleft voxels by their distances, as CREMI.

    Parameters
    ----------
    proposal, truth
        Cleft labels, integers >= 0 with 0 for no cleft, or booleans; (z, y, x).
    voxel_size
        nm, (z, y, x); distances are measured between centres of voxels.
    mask
        Boolean of the same shape; where it is false there is no cleft in either.
    tolerance_nm
        A voxel farther away than this is false (or missed), nm, >= 0.

    Returns
    -------
    CleftScores

    Raises
    ------
    InputError
        If an array does not have three axes, shapes differ, values are not integers or booleans, a voxel size is not
        positive or the tolerance is negative.

    Examples
    --------
    >>> truth = np.array([[[1, 1, 0, 0, 0, 0]]])
    >>> scores = cleft_scores([[[0, 1, 0, 0, 0, 1]]], truth, (40, 4, 4), tolerance_nm=10)
    >>> scores.false_positives, scores.distance_to_truth_nm, scores.distance_to_proposal_nm
    (1, 8.0, 2.0)
    """
    if len(voxel_size) != 3 or min(voxel_size) <= 0 or not tolerance_nm >= 0:
        raise InputError(
            f"voxel_size must be three positive lengths and tolerance_nm >= 0; got {tuple(voxel_size)}, {tolerance_nm}"
        )
    found, true = _cleft(proposal, "proposal"), _cleft(truth, "truth")
    keep = np.ones(found.shape, bool) if mask is None else np.asarray(mask)
    if true.shape != found.shape:
        raise InputError(f"truth must have the shape of the proposal, {found.shape}; got {true.shape}")
    if keep.dtype != np.bool_ or keep.shape != found.shape:
        raise InputError(f"mask must be boolean of shape {found.shape}; got {keep.dtype} of shape {keep.shape}")
    found, true = found & keep, true & keep
    outward, back = _distances(found, true, voxel_size), _distances(true, found, voxel_size)
    return CleftScores(
        int(np.count_nonzero(outward > tolerance_nm)),
        int(np.count_nonzero(back > tolerance_nm)),
        _mean(outward),
        _mean(back),
    )


def _distances(of: NDArray[np.bool_], to: NDArray[np.bool_], voxel_size: Sequence[float]) -> NDArray[np.float64]:
    """Return, for every voxel of one set, the distance to the nearest voxel of the other, nm."""
    if not to.any():
        return np.full(int(np.count_nonzero(of)), np.inf)
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(~to, sampling=tuple(voxel_size))
    return distance[of]


def _mean(distances: NDArray[np.float64]) -> float:
    return float(distances.mean()) if distances.size else float("nan")


def _cleft(labels: ArrayLike, name: str) -> NDArray[np.bool_]:
    array = np.asarray(labels)
    if array.ndim != 3 or array.dtype.kind not in "bui":
        raise InputError(f"{name} must hold integers or booleans (z, y, x); got {array.dtype} of shape {array.shape}")
    cleft: NDArray[np.bool_] = array != 0
    return cleft
