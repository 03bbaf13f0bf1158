r"""Seams: how much more often a segmentation changes at the faces of blocks than anywhere else.

Whoever made a volume in blocks and stitched them badly has cut objects, or joined others, at planes that nature does
not know. So the share of neighbouring voxels with different labels is compared between the planes at block faces and
all others. Key insight: planes are the samples; how much the share differs from plane to plane by itself tells whether
the difference at faces means anything.

Source: own; the t statistic is Welch's (Biometrika 1947).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.errors import InputError


@dataclass(frozen=True)
class Seam:
    """Changes of label across the planes of one axis.

    Attributes
    ----------
    axis
        0 z, 1 y, 2 x.
    at_faces, elsewhere
        Mean share, in [0, 1], of voxel pairs across a plane that have different labels, background counted as one.
    t
        Welch's t of the difference: beyond about 4, faces can be seen; nan with fewer than two planes of a kind.
    """

    axis: int
    at_faces: float
    elsewhere: float
    t: float


def seams(labels: ArrayLike, block: Sequence[int], start: Sequence[int] = (0, 0, 0)) -> tuple[Seam, ...]:
    """Compare the planes at block faces with all others, along each axis that has both.

    Parameters
    ----------
    labels
        Integers >= 0, (z, y, x).
    block
        Voxels z, y, x of a block.
    start
        Place of the first voxel in the volume whose blocks begin at (0, 0, 0).

    Returns
    -------
    tuple of Seam

    Raises
    ------
    InputError
        If labels do not have three axes, or the block is not three positive extents.

    Examples
    --------
    >>> stitched = np.ones((1, 1, 8), int) * [1, 1, 1, 1, 2, 2, 2, 2]
    >>> [(seam.axis, seam.at_faces, seam.elsewhere) for seam in seams(stitched, (1, 1, 4))]
    [(2, 1.0, 0.0)]
    """
    array = np.asarray(labels)
    if array.ndim != 3 or len(block) != 3 or min(block) < 1:
        raise InputError(f"labels must have axes z, y, x and block three positive extents; got {array.shape}, {block}")
    found = []
    for axis in range(3):
        along = np.moveaxis(array, axis, 0)
        shares = np.array([np.mean(a != b) for a, b in pairwise(along)])
        face = (np.arange(1, along.shape[0]) + start[axis]) % block[axis] == 0
        if face.any() and not face.all():
            found.append(
                Seam(axis, float(shares[face].mean()), float(shares[~face].mean()), _welch(shares[face], shares[~face]))
            )
    return tuple(found)


def _welch(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    if min(a.size, b.size) < 2:
        return math.nan
    spread = a.var(ddof=1) / a.size + b.var(ddof=1) / b.size
    difference = float(a.mean() - b.mean())
    if spread == 0:
        return 0.0 if difference == 0 else math.copysign(math.inf, difference)
    return difference / math.sqrt(spread)
