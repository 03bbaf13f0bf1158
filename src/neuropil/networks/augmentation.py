"""Random variation of a training patch: pure functions of arrays and an rng, the same for image, map and target.

Flips along z, y and x and the y-x transpose, each with probability one half, are the paper's (Lee et al., NIPS 2015).
Grey variation (contrast, brightness and gamma per section; after Ciresan-style EM pipelines) and in-plane elastic
deformation are options.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

ELASTIC_SPACING = 32  # voxels between control points of the deformation


def random_flips(
    arrays: Sequence[NDArray[Any]], *, rng: np.random.Generator, transpose: bool = True
) -> list[NDArray[Any]]:
    """Flip all arrays (z, y, x) alike along random axes and, where y and x extents agree, transpose y and x."""
    flipped = [axis for axis, chosen in enumerate(rng.random(3) < 0.5) if chosen]
    swap = transpose and rng.random() < 0.5
    result = []
    for array in arrays:
        array = np.flip(array, tuple(flipped))
        result.append(array.swapaxes(1, 2) if swap else array)
    return result


def grey(image: NDArray[np.float32], strength: float, *, rng: np.random.Generator) -> NDArray[np.float32]:
    """Vary contrast, brightness and gamma of each section of a standardised image.

    Parameters
    ----------
    image : (z, y, x) float32, mean about 0 and s.d. about 1 per section
    strength : 0 leaves the image as it is; 1 varies contrast by up to ±40 %, brightness by ±0.4 s.d., gamma between
    1/1.5 and 1.5
    """
    sections = (image.shape[0], 1, 1)
    contrast = 1 + 0.4 * strength * rng.uniform(-1, 1, sections)
    brightness = 0.4 * strength * rng.uniform(-1, 1, sections)
    gamma = 1.5 ** (strength * rng.uniform(-1, 1, sections))
    unit = np.clip((image + 4) / 8, 0, 1)  # ±4 s.d. onto [0, 1]
    varied = (unit**gamma - 0.5**gamma) * 8 * contrast + brightness
    return varied.astype(np.float32)


def elastic_field(shape: Sequence[int], amplitude: float, *, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return smooth random coordinates (2, y, x) to sample a section at.

    Parameters
    ----------
    shape : y, x
    amplitude : s.d. of the displacement of the control points, voxels
    """
    knots = [max(2, round(n / ELASTIC_SPACING) + 1) for n in shape]
    coarse = rng.normal(0, amplitude, (2, *knots))
    grid = np.meshgrid(*(np.linspace(0, k - 1, n) for k, n in zip(knots, shape)), indexing="ij")
    moved = [ndimage.map_coordinates(one, grid, order=3, mode="nearest") for one in coarse]
    places: NDArray[np.float64] = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")) + np.stack(moved)
    return places


def deform(array: NDArray[Any], field: NDArray[np.float64], *, order: int) -> NDArray[Any]:
    """Sample every section of `array` (z, y, x) at `field` (2, y, x), mirrored outside.

    `order` is 1 for images and 0 for labels.
    """
    sections = [ndimage.map_coordinates(one, field, order=order, mode="mirror") for one in array]  # type: ignore[call-overload]
    return np.stack(sections)
