"""Annotators with known slips: a true segmentation as people of various care would have drawn it.

For tests and benchmarks of `crowd.annotations`, since the truth that several real annotations share is never known. An
annotator joins some objects that touch, cuts some in two, and draws all borders a little elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from neuropil.errors import InputError
from neuropil.labels import relabel


@dataclass(frozen=True)
class Slips:
    """How careless an annotator is.

    Attributes
    ----------
    merges
        Wrong joins of two touching objects, per object.
    splits
        Wrong cuts, per object.
    shift
        Standard deviation of where borders are drawn, voxels along y and x.
    smoothness
        Over how many voxels that changes.
    """

    merges: float = 0.03
    splits: float = 0.05
    shift: float = 1.0
    smoothness: float = 6.0


def imitate_annotator(labels: ArrayLike, slips: Slips | None = None, *, rng: np.random.Generator) -> NDArray[np.uint64]:
    """Draw a segmentation as an annotator might have.

    Parameters
    ----------
    labels
        True labels, integers >= 0, (z, y, x).
    slips
        How careless the annotator is; rather careful if omitted.
    rng
        Where slips happen.

    Returns
    -------
    ndarray of uint64
        (z, y, x); ids are 1 ... n in random order, 0 stays background up to its shifted border.

    Raises
    ------
    InputError
        If labels have not three axes, or a slip is negative.

    Examples
    --------
    >>> truth = np.kron([[[1, 2], [3, 4]]], np.ones((3, 9, 9), int))
    >>> drawn = imitate_annotator(truth, Slips(merges=0.25, splits=0, shift=0), rng=np.random.default_rng(0))
    >>> drawn.shape == truth.shape, np.unique(drawn).tolist()
    (True, [1, 2, 3])
    """
    care = Slips() if slips is None else slips
    made = relabel(labels)
    if made.labels.ndim != 3:
        raise InputError(f"labels must have axes (z, y, x); got shape {made.labels.shape}")
    if min(care.merges, care.splits, care.shift, care.smoothness) < 0:
        raise InputError(f"slips must not be negative; got {care}")
    objects = made.ids.size - 1
    drawn = _shift(made.labels.astype(np.int64), care, rng)
    drawn = _merge(drawn, objects, int(rng.poisson(care.merges * objects)), rng)
    drawn = _split(drawn, int(rng.poisson(care.splits * objects)), rng)
    dense = relabel(drawn)
    names = np.concatenate([[0], 1 + rng.permutation(dense.ids.size - 1)]).astype(np.uint64)
    return np.asarray(names[dense.labels], np.uint64)


def _shift(labels: NDArray[np.int64], slips: Slips, rng: np.random.Generator) -> NDArray[np.int64]:
    if slips.shift == 0 or labels.size == 0:
        return labels
    places = list(np.meshgrid(*(np.arange(side) for side in labels.shape), indexing="ij"))
    for axis in (1, 2):
        field = gaussian_filter(rng.standard_normal(labels.shape), slips.smoothness, mode="reflect")
        field *= slips.shift / max(float(field.std()), 1e-12)
        places[axis] = np.clip(np.rint(places[axis] + field), 0, labels.shape[axis] - 1).astype(np.int64)
    return np.asarray(labels[tuple(places)])


def _merge(labels: NDArray[np.int64], objects: int, times: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Join pairs of touching objects, all pairs equally likely."""
    touching = np.concatenate([_touching(labels, axis) for axis in range(3)], axis=1)
    pairs = np.unique(np.sort(touching, axis=0), axis=1).T
    names = np.arange(objects + 1)
    for a, b in pairs[rng.permutation(len(pairs))[:times]].tolist():
        names[names == names[b]] = names[a]
    return names[labels]


def _touching(labels: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    here, there = (np.moveaxis(labels, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
    border = (here != there) & (here > 0) & (there > 0)
    return np.stack([here[border], there[border]])


def _split(labels: NDArray[np.int64], times: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Cut objects in two by a plane through one of their voxels."""
    ids = np.unique(labels[labels > 0])
    out = labels.copy()
    first = int(labels.max(initial=0)) + 1
    for k, chosen in enumerate(rng.permutation(ids)[:times]):
        voxels = np.stack(np.nonzero(labels == chosen), axis=1)
        side = (voxels - voxels[rng.integers(len(voxels))]) @ rng.standard_normal(3) > 0
        out[tuple(voxels[side].T)] = first + k
    return out
