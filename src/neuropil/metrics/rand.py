"""Rand scores: of the voxel pairs joined by one segmentation, the share that the other joins too.

With n_ij voxels of proposal segment i in truth segment j, s_i = sum_j n_ij and t_j = sum_i n_ij,

    V_merge = sum n_ij^2 / sum s_i^2      falls with wrong mergers (precision)
    V_split = sum n_ij^2 / sum t_j^2      falls with wrong splits (recall)
    F       = 2 sum n_ij^2 / (sum s_i^2 + sum t_j^2),    adapted Rand error = 1 - F

(Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142, after Rand 1971). Programs that print an "adapted Rand
error" disagree because of proposal background, of pairs of a voxel with itself, and of one slip in an old script;
`adapted_rand_error` reproduces each by name, so that like is compared with like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from neuropil.labels import Contingency
from neuropil.metrics.overlap import Background, TruthBackground, check_choice, overlap, ratio

Variant = Literal["neuropil", "em_data", "isbi2012", "snemi3d", "cremi", "segascorus", "funlib", "waterz", "skimage"]


@dataclass(frozen=True)
class RandScores:
    """Rand scores of a proposal, each in [0, 1], 1 is perfect; nan where no pair was compared.

    Attributes
    ----------
    merge
        V_merge, the precision: of the pairs that the proposal joins, the share joined in the truth.
    split
        V_split, the recall: of the pairs that the truth joins, the share joined in the proposal.
    f
        Harmonic mean of the two.
    """

    merge: float
    split: float
    f: float

    @property
    def error(self) -> float:
        """Adapted Rand error, 1 - F."""
        return 1.0 - self.f


@dataclass(frozen=True)
class _Rule:
    background: Background
    self_pairs: bool = True
    singletons_over_total: bool = False


_RULES: dict[str, _Rule] = {
    "neuropil": _Rule("singletons"),
    "em_data": _Rule("singletons"),
    "isbi2012": _Rule("excluded"),
    "snemi3d": _Rule("singletons", singletons_over_total=True),
    "cremi": _Rule("singletons", singletons_over_total=True),
    "segascorus": _Rule("singletons"),
    "funlib": _Rule("segment"),
    "waterz": _Rule("segment"),
    "skimage": _Rule("segment", self_pairs=False),
}


def rand_scores(
    table: Contingency, *, background: Background = "singletons", truth_background: TruthBackground = "excluded"
) -> RandScores:
    r"""Compute V_merge, V_split and F of a proposal.

    .. math:: V_{merge} = \frac{\sum_{ij} n_{ij}^2}{\sum_i s_i^2}, \quad
              V_{split} = \frac{\sum_{ij} n_{ij}^2}{\sum_j t_j^2}, \quad
              F = \frac{2 \sum_{ij} n_{ij}^2}{\sum_i s_i^2 + \sum_j t_j^2}

    As singletons, the c background voxels of the proposal add c to the first two sums and stay in t_j.

    Parameters
    ----------
    table
        Counts of proposal against truth, from `neuropil.labels.contingency`.
    background, truth_background
        What background is taken for; see `neuropil.metrics.overlap.overlap`.

    Returns
    -------
    RandScores

    Raises
    ------
    InputError
        If a rule is unknown, or the truth has no voxel to compare with.

    Examples
    --------
    >>> from neuropil.labels import contingency
    >>> truth = [1, 1, 1, 1, 2, 2, 2, 2, 0, 0]
    >>> proposal = [5, 5, 5, 6, 6, 6, 7, 0, 5, 6]
    >>> scores = rand_scores(contingency(proposal, truth))
    >>> scores.merge, scores.split, round(scores.f, 6)
    (0.8, 0.5, 0.615385)
    """
    return _score(table, _Rule(background), truth_background)


def adapted_rand_error(table: Contingency, *, variant: Variant = "neuropil") -> RandScores:
    """Compute the adapted Rand error as a named program defines it; the error is `.error` of the result.

    Parameters
    ----------
    table
        Counts of proposal against truth, from `neuropil.labels.contingency`.
    variant
        Truth background is left out in all of them; they differ in what proposal background is.

        - "neuropil", "em_data", "segascorus": each voxel a segment of its own.
        - "isbi2012": left out; the proposal should come from `neuropil.metrics.borders.thin_borders`.
        - "snemi3d", "cremi": each voxel a segment of its own, but its term is divided by the number of all voxels,
          truth background included, while the other terms are not. The slip of the original script; leaderboards
          carry it.
        - "funlib", "waterz": one ordinary segment.
        - "skimage": one ordinary segment, and pairs of a voxel with itself are not counted: n (n - 1) in place of n^2.
          What scikit-image returns as "precision" is `.split` here, its "recall" is `.merge`.

    Returns
    -------
    RandScores

    Raises
    ------
    InputError
        If the variant is unknown, or the truth has no voxel to compare with.

    Notes
    -----
    "snemi3d" and "cremi" divide by ``table.total``: use a table without a mask to match the scripts to the last digit.

    Examples
    --------
    >>> from neuropil.labels import contingency
    >>> table = contingency([5, 5, 5, 6, 6, 6, 7, 0, 5, 6], [1, 1, 1, 1, 2, 2, 2, 2, 0, 0])
    >>> for variant in ("neuropil", "cremi", "skimage"):
    ...     round(adapted_rand_error(table, variant=variant).error, 6)
    0.384615
    0.409002
    0.555556
    """
    check_choice("variant", variant, get_args(Variant))
    return _score(table, _RULES[variant], "excluded")


def _score(table: Contingency, rule: _Rule, truth_background: TruthBackground) -> RandScores:
    kept = overlap(table, background=rule.background, truth_background=truth_background)
    singletons = float(kept.singletons.sum())
    if rule.singletons_over_total:
        singletons /= table.total
    n, s, t = kept.counts, kept.proposal_sizes, kept.truth_sizes
    both, proposal, truth = float(n @ n) + singletons, float(s @ s) + singletons, float(t @ t)
    if not rule.self_pairs:
        both, proposal, truth = both - float(n.sum()), proposal - float(s.sum()), truth - float(t.sum())
    return RandScores(merge=ratio(both, proposal), split=ratio(both, truth), f=ratio(2 * both, proposal + truth))
