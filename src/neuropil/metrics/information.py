"""Variation of information: what remains unknown of one segmentation when the other is given.

    VI_split = H(S|T)   more than one proposal segment per truth segment (over-segmentation)
    VI_merge = H(T|S)   more than one truth segment per proposal segment

The two add up to a metric on segmentations (Meila 2007, doi:10.1016/j.jmva.2006.11.013). In bits it reads as "how many
yes/no questions per voxel"; unlike Rand scores it grows in proportion to a segment's size, not to its square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from neuropil.errors import InputError
from neuropil.labels import Contingency
from neuropil.metrics.overlap import Background, TruthBackground, overlap


@dataclass(frozen=True)
class VariationOfInformation:
    """Conditional entropies of proposal S and truth T, in units of log `base`; 0 is perfect, nan: nothing compared.

    Attributes
    ----------
    split
        H(S|T), over-segmentation.
    merge
        H(T|S), under-segmentation.
    proposal_entropy, truth_entropy
        H(S) and H(T).
    """

    split: float
    merge: float
    proposal_entropy: float
    truth_entropy: float

    @property
    def total(self) -> float:
        """VI = H(S|T) + H(T|S)."""
        return self.split + self.merge

    @property
    def normalized(self) -> float:
        """VI / H(S, T), in [0, 1]; 0 if both are one segment."""
        joint = self.truth_entropy + self.split
        return self.total / joint if joint != 0 else 0.0

    @property
    def f(self) -> float:
        """2 I(S; T) / (H(S) + H(T)), in [0, 1]; 1 is perfect."""
        both = self.proposal_entropy + self.truth_entropy
        return 1.0 - self.total / both if both != 0 else 1.0


def variation_of_information(
    table: Contingency,
    *,
    background: Background = "segment",
    truth_background: TruthBackground = "excluded",
    base: float = 2,
) -> VariationOfInformation:
    r"""Compute the variation of information between proposal and truth.

    .. math:: VI_{split} = \frac{1}{n} \sum_{ij} n_{ij} \log \frac{t_j}{n_{ij}}, \quad
              VI_{merge} = \frac{1}{n} \sum_{ij} n_{ij} \log \frac{s_i}{n_{ij}}

    Parameters
    ----------
    table
        Counts of proposal against truth, from `neuropil.labels.contingency`.
    background, truth_background
        What background is taken for; see `neuropil.metrics.overlap.overlap`. Proposal background is one segment by
        default, as in the CREMI, funlib and waterz scores; as singletons, each boundary voxel of the proposal would
        add log t_j to the split term.
    base
        Base of the logarithm, > 1: 2 for bits (CREMI, funlib, scikit-image), e for nats (segascorus).

    Returns
    -------
    VariationOfInformation

    Raises
    ------
    InputError
        If a rule is unknown, the base is not above 1, or the truth has no voxel to compare with.

    Examples
    --------
    >>> from neuropil.labels import contingency
    >>> table = contingency([5, 5, 5, 6, 6, 6, 7, 0, 5, 6], [1, 1, 1, 1, 2, 2, 2, 2, 0, 0])
    >>> vi = variation_of_information(table)
    >>> round(vi.split, 6), round(vi.merge, 6), round(vi.total, 6)
    (1.155639, 0.344361, 1.5)
    """
    if not base > 1:
        raise InputError(f"base must be a number above 1; got {base}")
    kept = overlap(table, background=background, truth_background=truth_background)
    total = kept.total
    if total == 0:
        return VariationOfInformation(math.nan, math.nan, math.nan, math.nan)
    n, lone = kept.counts, kept.singletons
    t, s = kept.truth_sizes, kept.proposal_sizes
    unit = 1.0 / (total * math.log(base))
    # term by term, so that identical segmentations give exactly 0 and no score is ever negative
    split = n @ np.log(t[kept.columns] / n) + lone @ np.log(np.maximum(t, 1))
    merge = n @ np.log(s[kept.rows] / n)
    truth_entropy = t @ np.log(total / np.maximum(t, 1))
    proposal_entropy = s @ np.log(total / np.maximum(s, 1)) + lone.sum() * math.log(total)
    return VariationOfInformation(*(float(h * unit) for h in (split, merge, proposal_entropy, truth_entropy)))


def cremi_score(rand_error: float, information: VariationOfInformation) -> float:
    """Return the geometric mean of the adapted Rand error and the variation of information, as CREMI ranks by.

    Parameters
    ----------
    rand_error
        Adapted Rand error in [0, 1], variant "cremi".
    information
        In bits, proposal background one segment.

    Returns
    -------
    float
        sqrt(VI * ARE), >= 0; 0 is perfect.

    Examples
    --------
    >>> round(cremi_score(0.04, VariationOfInformation(0.5, 0.5, 3.0, 3.0)), 6)
    0.2
    """
    return math.sqrt(information.total * rand_error)
