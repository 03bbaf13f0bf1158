"""Labels of any kind to a boundary mask: what networks learn and what pixel error is measured against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def boundary_from_labels(
    labels: NDArray[Any], *, interior_above: int = 0, touching_ids: bool = False
) -> NDArray[np.bool_]:
    """Tell which voxels are boundary.

    Parameters
    ----------
    labels : (z, y, x) integers: instance ids, or values of a semantic drawing
    interior_above : a voxel is boundary where its label is not above this value; 0 for ids with 0 as membrane
    touching_ids : also mark a voxel whose neighbour towards higher or lower y or x, in the same section, has another
    id; for ids that touch

    Returns
    -------
    (z, y, x) bool, True at boundaries

    Examples
    --------
    >>> boundary_from_labels(np.array([[[1, 1, 0, 2]]])).astype(int).tolist()
    [[[0, 0, 1, 0]]]
    >>> boundary_from_labels(np.array([[[1, 1, 2, 2]]]), touching_ids=True).astype(int).tolist()
    [[[0, 1, 1, 0]]]
    """
    boundary: NDArray[np.bool_] = labels <= interior_above
    if touching_ids:
        for axis in (1, 2):
            differs = np.diff(labels, axis=axis) != 0
            low = [slice(None)] * 3
            high = [slice(None)] * 3
            low[axis], high[axis] = slice(None, -1), slice(1, None)
            boundary[tuple(low)] |= differs
            boundary[tuple(high)] |= differs
    return boundary


def boundary_from_intensity(image: NDArray[Any]) -> NDArray[np.float32]:
    """Take darkness for boundary: the baseline that every trained network must beat.

    Each section is scaled between its 1st and 99th percentile, and dark becomes 1, since membranes are stained dark.

    Parameters
    ----------
    image : (z, y, x), any real dtype

    Returns
    -------
    (z, y, x) float32 in [0, 1]

    Examples
    --------
    >>> boundary_from_intensity(np.arange(101.0).reshape(1, 1, 101))[0, 0, [1, 50, 99]].tolist()
    [1.0, 0.5, 0.0]
    """
    low, high = np.percentile(image, (1, 99), axis=(1, 2), keepdims=True)
    scaled = (high - image.astype(np.float64)) / np.maximum(high - low, 1e-12)
    result: NDArray[np.float32] = scaled.clip(0, 1).astype(np.float32)
    return result
