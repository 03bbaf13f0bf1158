"""The scores most people want of a segmentation, in one call on two arrays."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from neuropil.labels import contingency
from neuropil.metrics.information import VariationOfInformation, variation_of_information
from neuropil.metrics.overlap import Background
from neuropil.metrics.rand import RandScores, rand_scores


@dataclass(frozen=True)
class SegmentationScores:
    """Rand scores and variation of information of one proposal."""

    rand: RandScores
    information: VariationOfInformation


def score_segmentation(
    proposal: ArrayLike,
    truth: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    rand_background: Background = "singletons",
    information_background: Background = "segment",
) -> SegmentationScores:
    """Score a segmentation against truth, leaving out truth background.

    Parameters
    ----------
    proposal, truth
        Labels, integers >= 0 of the same shape; ids may be any uint64.
    mask
        Boolean of the same shape; only voxels where it is true are compared.
    rand_background, information_background
        What proposal background is taken for; see `neuropil.metrics.overlap.overlap`.

    Returns
    -------
    SegmentationScores

    Raises
    ------
    InputError
        If the arrays do not fit, a rule is unknown, or the truth has no voxel to compare with.

    Examples
    --------
    >>> scores = score_segmentation([5, 5, 5, 6, 6, 6, 7, 0, 5, 6], [1, 1, 1, 1, 2, 2, 2, 2, 0, 0])
    >>> round(scores.rand.error, 6), round(scores.information.total, 6)
    (0.384615, 1.5)
    """
    table = contingency(proposal, truth, mask)
    return SegmentationScores(
        rand_scores(table, background=rand_background),
        variation_of_information(table, background=information_background),
    )
