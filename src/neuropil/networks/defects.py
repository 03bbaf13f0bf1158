"""What goes wrong with serial sections, done to training patches: shifted, lost, out of focus, noisy.

A network that has seen such sections beside the right labels carries neurites across them (Lee et al., "Superhuman
accuracy on the SNEMI3D connectomics challenge", 2017, where each of the first three lowered the error). Labels move
with what moves and are left alone by what only hides the image. Every function takes and returns a standardised image
(z, y, x) float32 and labels of its shape, modifies neither, and is a function of the rng.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from neuropil.errors import InputError
from neuropil.networks.augmentation import Patch

GREYS = 3.0  # a lost section may have any grey within so many s.d.


def misalign(
    image: NDArray[np.float32], labels: NDArray[Any], margin: int, *, rng: np.random.Generator, slip: bool = False
) -> Patch:
    """Shift the sections from a random one on, or let that one slip alone, along y and x.

    Parameters
    ----------
    image, labels : (z, y, x), larger than the wanted patch by `margin` on each side along y and x
    margin : the shift along either axis is drawn evenly from -margin to margin, voxels
    rng : decides the section and the shift
    slip : whether only that section is shifted

    Returns
    -------
    Patch, smaller by 2 · margin along y and x; sections that are not shifted are the middle of what was given

    Raises
    ------
    InputError : shapes differ, or the margin leaves nothing

    Examples
    --------
    >>> rows = np.tile(np.arange(5), (3, 3, 1))
    >>> misalign(rows.astype(np.float32), rows, 1, rng=np.random.default_rng(3), slip=True).labels[:, 0].tolist()
    [[1, 2, 3], [0, 1, 2], [1, 2, 3]]
    """
    _check(image, labels)
    depth, *extents = image.shape
    if margin < 0 or min(extents) <= 2 * margin:
        raise InputError(f"margin must leave something of {extents[0]} x {extents[1]} voxels; got {margin}")
    shift = rng.integers(-margin, margin + 1, 2)
    first = int(rng.integers(1, max(2, depth - 1)))  # not the first section, nor, where there are three, the last
    stop = first + 1 if slip else depth
    still, moved = (
        tuple(slice(margin + by, n - margin + by) for by, n in zip(shifts, extents)) for shifts in ((0, 0), shift)
    )
    made = []
    for array in (image, labels):
        cut = array[:, *still].copy()
        cut[first:stop] = array[first:stop, *moved]
        made.append(cut)
    return Patch(*made)


def missing_sections(
    image: NDArray[np.float32], labels: NDArray[Any], *, rng: np.random.Generator, sections: int = 5
) -> Patch:
    """Blank up to `sections` sections, each wholly or in some of four quadrants; the labels stay.

    Half of the blanks are 0, which is what standardising a blank section gives, the others of any grey.

    Examples
    --------
    >>> image = np.ones((3, 4, 4), np.float32)
    >>> made = missing_sections(image, image.astype(int), rng=np.random.default_rng(0), sections=1)
    >>> [bool((section == 1).all()) for section in made.image]
    [True, True, False]
    """
    _check(image, labels)
    image = image.copy()
    for z in _sections(len(image), sections, rng):
        value = 0.0 if rng.random() < 0.5 else rng.uniform(-GREYS, GREYS)
        for region in _regions(image.shape[1:], rng):
            image[z, *region] = value
    return Patch(image, labels)


def out_of_focus(
    image: NDArray[np.float32],
    labels: NDArray[Any],
    *,
    rng: np.random.Generator,
    sections: int = 5,
    blur: float = 5.0,
) -> Patch:
    """Blur up to `sections` sections, each wholly or in some of four quadrants; the labels stay.

    The blur is Gaussian with an s.d. drawn evenly from 0 to `blur` voxels for each section.

    Examples
    --------
    >>> image = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    >>> made = out_of_focus(image, np.zeros(image.shape, int), rng=np.random.default_rng(1), sections=1)
    >>> [bool((a == b).all()) for a, b in zip(made.image, image)]
    [False, True, True]
    """
    _check(image, labels)
    blurred = image.copy()
    for z in _sections(len(image), sections, rng):
        section = ndimage.gaussian_filter(image[z], rng.uniform(0, blur), truncate=3.0)
        for region in _regions(image.shape[1:], rng):
            blurred[z, *region] = section[region]
    return Patch(blurred, labels)


def section_noise(
    image: NDArray[np.float32], labels: NDArray[Any], *, rng: np.random.Generator, deviation: float = 0.5
) -> Patch:
    """Add Gaussian noise to each section with probability one half; the labels stay.

    Its s.d. is drawn evenly from 0 to `deviation` for each section, in units of a section's own s.d.

    Examples
    --------
    >>> image = np.zeros((4, 5, 5), np.float32)
    >>> made = section_noise(image, image.astype(int), rng=np.random.default_rng(0))
    >>> made.image.any(axis=(1, 2)).tolist()
    [False, True, True, True]
    """
    _check(image, labels)
    if deviation < 0:
        raise InputError(f"deviation must not be negative; got {deviation}")
    image = image.copy()
    for z in np.flatnonzero(rng.random(len(image)) < 0.5):
        image[z] += np.float32(rng.uniform(0, deviation)) * rng.standard_normal(image.shape[1:], np.float32)
    return Patch(image, labels)


def _sections(depth: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw how many sections are spoilt, 1 to `most`, and which."""
    if most < 1:
        raise InputError(f"sections must be at least 1; got {most}")
    return rng.permutation(depth)[: rng.integers(1, most + 1)]


def _regions(shape: tuple[int, ...], rng: np.random.Generator) -> list[tuple[slice, ...]]:
    """Return the whole section, or with probability one half some of the quadrants about a random pivot."""
    if rng.random() < 0.5:
        return [(slice(None), slice(None))]
    y, x = (int(rng.integers(1, max(2, n))) for n in shape)
    quadrants = [(rows, columns) for rows in (slice(y), slice(y, None)) for columns in (slice(x), slice(x, None))]
    chosen = int(rng.integers(1, 16))
    return [quadrant for bit, quadrant in enumerate(quadrants) if chosen >> bit & 1]


def _check(image: NDArray[np.float32], labels: NDArray[Any]) -> None:
    if image.ndim != 3 or image.dtype != np.float32:
        raise InputError(f"image must be float32 with axes (z, y, x); got {image.dtype} of shape {image.shape}")
    if labels.shape != image.shape:
        raise InputError(f"labels must have the image's shape {image.shape}; got {labels.shape}")
