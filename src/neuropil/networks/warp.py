"""Rotation, scale, shear and elastic deformation of a patch within its sections, in one sampling.

Composing all of them into one list of places means that an image is interpolated once and that the box which has to be
read is known before anything is read: a patch keeps its size, and its corners are tissue rather than filling. All
sections of a patch move alike, so what was aligned stays aligned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil._kernels import warp as _kernel
from neuropil.errors import InputError
from neuropil.networks.augmentation import Augmentation, Patch, elastic_field


def random_places(
    shape: Sequence[int], ranges: Augmentation, *, elastic: float = 0.0, rng: np.random.Generator
) -> NDArray[np.float32]:
    r"""Draw where the pixels of a warped section come from, relative to its middle.

    A pixel at p from the middle is taken from

    .. math:: R(\theta) \begin{pmatrix} s_y & h \\ 0 & s_x \end{pmatrix} p + u(p)

    with the angle, the scales about 1 and the shear h drawn evenly from `ranges`, and u smooth.

    Parameters
    ----------
    shape : y, x of the patch
    ranges : whose `rotation` (degrees), `scale` and `shear` count
    elastic : amplitude of u, voxels; see `elastic_field`
    rng : of all draws

    Returns
    -------
    (2, y, x) float32, y and x in voxels

    Examples
    --------
    >>> still = Augmentation(rotation=0, scale=0, shear=0)
    >>> random_places((1, 3), still, rng=np.random.default_rng(0)).tolist()
    [[[0.0, 0.0, 0.0]], [[-1.0, 0.0, 1.0]]]
    """
    angle = np.deg2rad(rng.uniform(-1, 1) * ranges.rotation)
    scale_y, scale_x = 1 + ranges.scale * rng.uniform(-1, 1, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[scale_y, ranges.shear * rng.uniform(-1, 1)], [0, scale_x]])
    height, width = shape
    y, x = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    places = matrix[:, :1, None] * y[:, None] + matrix[:, 1:, None] * x
    if elastic:
        places += elastic_field((height, width), elastic, rng=rng) - np.mgrid[:height, :width]
    result: NDArray[np.float32] = places.astype(np.float32)
    return result


def source_extent(places: NDArray[np.float32]) -> tuple[int, int]:
    """Extent (y, x), voxels, of a box about the middle that holds all places with the neighbours they need.

    >>> source_extent(np.zeros((2, 1, 1), np.float32))
    (3, 3)
    """
    y, x = (2 * int(np.ceil(np.abs(one).max())) + 3 for one in places)
    return y, x


def warp(image: NDArray[np.float32], labels: NDArray[Any], places: NDArray[np.float32], *, outside: int = 0) -> Patch:
    """Sample every section at `places`: the image linearly between voxels, labels at the nearest one.

    Parameters
    ----------
    image, labels : (z, y, x), float32 and any integers
    places : (2, y', x') float32, relative to the middle of the sections, for example from `random_places`
    outside : label of places beyond the edge, where the image is mirrored

    Returns
    -------
    Patch of shape (z, y', x')

    Raises
    ------
    InputError : shapes or dtypes do not fit

    Examples
    --------
    >>> image = np.arange(4, dtype=np.float32).reshape(1, 1, 4)
    >>> places = np.stack([np.zeros((1, 3)), [[-0.5, 0.25, 2.0]]]).astype(np.float32)
    >>> warp(image, image.astype(int), places, outside=9).image.tolist()
    [[[1.0, 1.75, 2.5]]]
    >>> warp(image, image.astype(int), places, outside=9).labels.tolist()
    [[[1, 2, 9]]]
    """
    if image.ndim != 3 or image.dtype != np.float32 or labels.shape != image.shape:
        raise InputError(
            "image must be float32 with axes (z, y, x) and labels of its shape;"
            f" got {image.dtype} {image.shape} and {labels.shape}"
        )
    if places.ndim != 3 or places.shape[0] != 2 or not np.isfinite(places).all():
        raise InputError(f"places must be finite, of shape (2, y, x); got {places.shape}")
    middle = np.array([(n - 1) / 2 for n in image.shape[1:]], np.float32)[:, None, None]
    shape = (len(image), *places.shape[1:])
    made = Patch(np.empty(shape, np.float32), np.empty(shape, labels.dtype))
    filling = labels.dtype.type(outside)
    _kernel.warp(image, labels, places.astype(np.float32) + middle, filling, made.image, made.labels)
    return made
