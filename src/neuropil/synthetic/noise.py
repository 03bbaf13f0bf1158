"""Smooth random fields of unit variance, made on a grid no finer than they need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def smooth_noise(shape: Sequence[int], sigma: Sequence[float], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return Gaussian noise smoothed by a Gaussian of `sigma` voxels per axis; mean 0, standard deviation 1 by design.

    Wide smoothing is done on a grid `sigma / 2` times coarser and interpolated, so that the cost does not grow with
    `sigma`.

    >>> smooth_noise((4, 100, 90), (1, 20, 20), np.random.default_rng(0)).shape
    (4, 100, 90)
    """
    step = [max(1.0, s / 2) for s in sigma]
    # Three more cells per side: no edge effect, and a random phase of the coarse grid.
    coarse = [int(np.ceil((n - 1) / p)) + 8 for n, p in zip(shape, step)]
    fine_sigma = [s / p for s, p in zip(sigma, step)]
    field = ndimage.gaussian_filter(rng.standard_normal(coarse, np.float32), fine_sigma, mode="wrap")
    gain = np.prod([_norm(s) for s in fine_sigma])
    field *= np.float32(1.0 / gain)
    for axis, (n, p) in enumerate(zip(shape, step)):
        field = _resample(field, axis, n, p, float(rng.uniform(0, 1)))
    return np.asarray(field, np.float32)


def _norm(sigma: float) -> float:
    """Factor by which a sampled Gaussian of `sigma` reduces the deviation of white noise along one axis."""
    if sigma <= 0:
        return 1.0
    reach = int(4 * sigma + 0.5)
    weight = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weight /= weight.sum()
    return float(np.sqrt((weight**2).sum()))


def _resample(field: NDArray[np.float32], axis: int, n: int, step: float, phase: float) -> NDArray[np.float32]:
    """Linear interpolation along one axis at positions 3 + phase + i / step."""
    if step == 1.0:
        return np.take(field, np.arange(3, 3 + n), axis=axis)
    at = 3.0 + phase + np.arange(n) / step
    low = at.astype(int)
    weight = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(field.ndim)])
    mixed = np.take(field, low, axis=axis) * (1 - weight) + np.take(field, low + 1, axis=axis) * weight
    return np.asarray(mixed, np.float32)
