"""What is compared: the contingency table of two segmentations after the rules about background are applied.

Every overlap score is a function of n_ij, the voxels of proposal segment i inside truth segment j. Published scores
differ mainly in two choices that are made before any formula: truth background is left out (every challenge does), and
proposal background is either left out as well, one ordinary segment, or one segment per voxel. The last is the honest
reading of a boundary that the proposal left unassigned: nothing is joined by it, and all of it is split
(Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.labels import Contingency

Background = Literal["excluded", "segment", "singletons"]
TruthBackground = Literal["excluded", "segment"]


@dataclass(frozen=True)
class Overlap:
    """Entries n_ij that count, and their margins.

    Attributes
    ----------
    rows, columns
        int64, position of an entry's proposal and truth segment in the table's ids.
    counts
        float64, voxels n_ij; proposal background is among them only as an ordinary segment.
    proposal_sizes
        float64, s_i per proposal id, voxels; 0 for an id that is left out.
    truth_sizes
        float64, t_j per truth id, voxels, `singletons` included; 0 for an id that is left out.
    singletons
        float64 per truth id: its voxels that are each a proposal segment of their own.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    counts: NDArray[np.float64]
    proposal_sizes: NDArray[np.float64]
    truth_sizes: NDArray[np.float64]
    singletons: NDArray[np.float64]

    @property
    def total(self) -> float:
        """Number of voxels compared."""
        return float(self.truth_sizes.sum())


def overlap(
    table: Contingency, *, background: Background = "singletons", truth_background: TruthBackground = "excluded"
) -> Overlap:
    """Apply the rules about background to a contingency table.

    Parameters
    ----------
    table
        Counts of proposal against truth, background (0) counted as an id on both sides.
    background
        What the voxels are where the proposal is 0: "excluded" leaves them out, "segment" takes them as one segment,
        "singletons" takes each as a segment of its own.
    truth_background
        "excluded" leaves out the voxels where the truth is 0; "segment" scores them as one segment.

    Returns
    -------
    Overlap

    Raises
    ------
    InputError
        If a rule is not one of those named, or the truth has no voxel to compare with.

    Examples
    --------
    >>> from neuropil.labels import contingency
    >>> kept = overlap(contingency([5, 5, 0, 5], [1, 1, 1, 0]))
    >>> kept.counts.tolist(), kept.singletons.tolist(), kept.total
    ([2.0], [0.0, 1.0], 3.0)
    """
    check_choice("background", background, get_args(Background))
    check_choice("truth_background", truth_background, get_args(TruthBackground))
    kept = np.ones(table.counts.size, bool)
    if truth_background == "excluded":
        kept &= table.truth_ids[table.columns] != 0
    if not kept.any():
        raise InputError(f"truth must have a voxel to compare with; all {table.total} compared voxels are background")
    unassigned = kept & (table.proposal_ids[table.rows] == 0)
    singletons = np.zeros(table.truth_ids.size)
    if background == "singletons":
        singletons = _sums(table.columns[unassigned], table.counts[unassigned], table.truth_ids.size)
    if background != "segment":
        kept &= ~unassigned
    rows, columns, counts = table.rows[kept], table.columns[kept], table.counts[kept].astype(np.float64)
    return Overlap(
        rows,
        columns,
        counts,
        proposal_sizes=_sums(rows, counts, table.proposal_ids.size),
        truth_sizes=_sums(columns, counts, table.truth_ids.size) + singletons,
        singletons=singletons,
    )


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def ratio(numerator: float, denominator: float) -> float:
    """Return the quotient, nan where nothing was compared."""
    return float(numerator / denominator) if denominator > 0 else float("nan")


def _sums(
    positions: NDArray[np.int64], counts: NDArray[np.int64] | NDArray[np.float64], size: int
) -> NDArray[np.float64]:
    return np.bincount(positions, weights=counts, minlength=size).astype(np.float64, copy=False)
