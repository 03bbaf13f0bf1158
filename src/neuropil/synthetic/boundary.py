"""Boundary maps as a fair network would give them, made from truth: soft, with gaps, false lines and noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from neuropil.errors import InputError
from neuropil.synthetic.noise import smooth_noise


def boundary_map_from_truth(
    ids: ArrayLike,
    *,
    rng: np.random.Generator,
    blur: float = 1.2,
    gaps: float = 0.02,
    false_boundaries: float = 0.01,
    noise: float = 0.06,
) -> NDArray[np.float32]:
    """Make an imperfect boundary map, (z, y, x) float32 in [0, 1], from the truth `ids`.

    Boundary is where an id is 0 or where a 4-neighbour in the section has another id. The map is smoothed in each
    section, weakened in small patches (gaps, which merge neurites), given faint lines inside cells (false boundaries,
    which split them) and Gaussian noise. With all four numbers 0 it is exactly 0 or 1.

    Parameters
    ----------
    ids : (z, y, x) integers
        Truth, 0 = boundary or background.
    rng : numpy.random.Generator
        Source of randomness.
    blur : float
        Standard deviation, voxels, of the smoothing in the section.
    gaps, false_boundaries : float in [0, 0.5]
        Share of the area where boundaries are weak, and where cells show lines of their own.
    noise : float
        Standard deviation of the noise added everywhere.

    Raises
    ------
    InputError
        If `ids` is not a 3-D array of integers, or a number lies outside its range.

    Examples
    --------
    >>> ids = np.ones((1, 4, 6), np.uint64)
    >>> ids[:, :, 3] = 0
    >>> clean = boundary_map_from_truth(
    ...     ids, rng=np.random.default_rng(0), blur=0, gaps=0, false_boundaries=0, noise=0
    ... )
    >>> clean[0, 0].tolist()
    [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    """
    ids = np.asarray(ids)
    if ids.ndim != 3 or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(f"ids must be a (z, y, x) array of integers; got {ids.dtype} of shape {ids.shape}")
    for name, value in (("gaps", gaps), ("false_boundaries", false_boundaries)):
        if not 0 <= value <= 0.5:
            raise InputError(f"{name} must be a share from 0 to 0.5; got {value}")
    if blur < 0 or noise < 0:
        raise InputError(f"blur and noise must not be negative; got {blur} and {noise}")
    boundary = _boundary(ids).astype(np.float32)
    if boundary.size == 0:
        return boundary
    if false_boundaries:
        boundary += _patches(ids.shape, false_boundaries, 12, rng) * _lines(ids.shape, rng)
    if gaps:
        boundary *= 1 - 0.92 * _patches(ids.shape, gaps, 4, rng)
    if blur:
        # Smoothing thins a line; the gain gives a boundary of three voxels its height back.
        boundary = ndimage.gaussian_filter(boundary, (0, blur, blur)) * np.float32(1 + 0.25 * min(blur, 2))
    if noise:
        boundary += noise * smooth_noise(ids.shape, (0, 0.7, 0.7), rng)
    return np.asarray(np.clip(boundary, 0, 1), np.float32)


def _boundary(ids: NDArray[np.integer]) -> NDArray[np.bool_]:
    boundary: NDArray[np.bool_] = np.asarray(ids == 0)
    for axis in (1, 2):
        first = boundary[:, :-1] if axis == 1 else boundary[:, :, :-1]
        first |= (np.diff(ids.astype(np.uint64), axis=axis) != 0) & ~(
            (boundary[:, 1:] | boundary[:, :-1]) if axis == 1 else (boundary[:, :, 1:] | boundary[:, :, :-1])
        )
    return boundary


def _patches(shape: tuple[int, ...], share: float, sigma: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Soft patches, 0…1, that cover about `share` of each section and do not continue into the next."""
    field = smooth_noise(shape, (0, sigma, sigma), rng)
    level = float(np.quantile(field, 1 - share))
    return np.asarray(1 / (1 + np.exp(-8 * (field - level))), np.float32)


def _lines(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Curved lines: zero crossings of smooth noise."""
    return np.asarray(0.8 * np.exp(-((smooth_noise(shape, (0, 7, 7), rng) / 0.18) ** 2)), np.float32)
