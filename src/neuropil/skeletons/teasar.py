"""Skeletons from labels: TEASAR, tree-structure extraction from labelled volumes.

From a root at the end of the object, or in its soma, take the farthest voxel, find a way to it that keeps to the
middle, count what lies near this way as covered, and begin again with the farthest voxel left. Sato et al. 2000,
doi:10.1109/PCCGA.2000.883951; all distances are in nm, so voxels may be anisotropic. Two choices are ours:

- A way costs (r0 / r)**exponent per nm where the surface is r away. The published cost is relative to the greatest r of
  the object, so that a soma, or a merge with one, flattens it in every thin branch; this one asks nothing of places
  far away, and follows the middle so closely that ways share a branch to its end.
- A way covers what is near *along the object*, scale * r + constant, so that a spine that bends back is not lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import distance as _distance
from neuropil._kernels import teasar as _kernel
from neuropil.errors import InputError
from neuropil.labels import relabel
from neuropil.progress import Progress
from neuropil.skeletons.skeleton import SOMA, Skeleton

_MOVES = np.array([move for move in itertools.product((-1, 0, 1), repeat=3) if any(move)])


def skeletonize(
    labels: ArrayLike,
    voxel_size: Sequence[float],
    *,
    scale: float = 1.5,
    constant_nm: float = 300.0,
    exponent: float = 4.0,
    dust: int = 100,
    soma_radius_nm: float = np.inf,
    offset_nm: Sequence[float] = (0.0, 0.0, 0.0),
) -> dict[int, Skeleton]:
    """Find the centre lines of all labels.

    Parameters
    ----------
    labels
        Integers >= 0, (z, y, x); ids may be any uint64, 0 is background. Pieces of a label that do not touch, not even
        at corners, give trees of their own in one skeleton.
    voxel_size
        (z, y, x), nm.
    scale, constant_nm
        A path covers what is within scale * (distance to the surface) + constant_nm of it; greater is fewer branches.
    exponent
        How strongly paths keep to the middle.
    dust
        Pieces of fewer voxels are left out.
    soma_radius_nm
        A piece with a place this far from its surface has its root there, of kind soma.
    offset_nm
        (z, y, x), the place of the first voxel's centre.

    Returns
    -------
    dict of int to Skeleton
        In ascending order of ids, without labels that are dust. Vertices are centres of voxels; each comes after the
        one that joins it to the root. Same labels, same skeletons.

    Raises
    ------
    InputError
        If labels are no integers (z, y, x), a voxel size is not positive, or a parameter is negative.

    Notes
    -----
    Distance to the surface is that to the nearest voxel of another id. Faces of the volume are no surface. Memory is
    about 20 bytes per voxel of the volume beside the labels, and 110 per voxel of the largest object.

    Examples
    --------
    >>> labels = np.zeros((5, 5, 40), np.uint64)
    >>> labels[2, 2, :] = 2**50
    >>> skeleton = skeletonize(labels, (40, 10, 10), constant_nm=50, dust=0)[2**50]
    >>> skeleton.length_nm, skeleton.is_tree, float(skeleton.radii_nm.max())
    (390.0, True, 10.0)
    """
    array, size = _checked(labels, voxel_size)
    if not all(value >= 0 for value in (scale, constant_nm, exponent, dust, soma_radius_nm)):
        raise InputError(
            "scale, constant_nm, exponent, dust and soma_radius_nm must not be negative;"
            f" got {scale}, {constant_nm}, {exponent}, {dust}, {soma_radius_nm}"
        )
    relabelled = relabel(array)
    codes, ids = relabelled.labels.astype(np.uint32), relabelled.ids
    del relabelled
    radii = _radii(codes, size)
    starts, order, rank = _sorted(codes, ids.size)
    lengths = np.sqrt(((_MOVES * size) ** 2).sum(axis=1))
    steps = _MOVES @ np.array([codes.shape[1] * codes.shape[2], codes.shape[2], 1])
    found: dict[int, Skeleton] = {}
    progress = Progress("skeletonize", int(order.size))
    for code in range(1, ids.size):
        voxels = order[starts[code] : starts[code + 1]]
        if voxels.size >= max(dust, 1):
            bits = np.empty(voxels.size, np.uint32)
            _kernel.find_neighbours(codes, voxels, _MOVES, bits)
            graph = _kernel.Graph(voxels, bits, rank, steps, lengths)
            r = radii.reshape(-1)[voxels].astype(np.float64)
            costs, reaches = (lengths.min() / r) ** exponent, scale * r + constant_nm
            vertices, parents = _kernel.trace(graph, r, costs, reaches, dust, float(soma_radius_nm))
            if vertices.size:
                places = np.array(np.unravel_index(voxels[vertices], codes.shape)).T
                found[int(ids[code])] = _tree(
                    places * size + np.asarray(offset_nm), r[vertices], parents, soma_radius_nm
                )
        progress.advance(int(voxels.size))
    return found


def _checked(labels: ArrayLike, voxel_size: Sequence[float]) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    array, size = np.asarray(labels), np.asarray(voxel_size, np.float64)
    if array.ndim != 3 or array.size == 0:
        raise InputError(f"labels must have axes z, y, x and voxels; got shape {array.shape}")
    if size.shape != (3,) or not (np.isfinite(size).all() and size.min() > 0):
        raise InputError(f"voxel_size must be three positive lengths z, y, x in nm; got {tuple(voxel_size)}")
    return array, size


def _tree(
    vertices_nm: NDArray[np.float64], radii_nm: NDArray[np.float64], parents: NDArray[np.int64], soma_radius_nm: float
) -> Skeleton:
    """Return the skeleton whose vertices have these parents."""
    joined = np.flatnonzero(parents >= 0)
    kinds = np.where((parents < 0) & (radii_nm >= soma_radius_nm), SOMA, 0).astype(np.uint8)
    return Skeleton(vertices_nm, np.stack([parents[joined], joined], axis=1), radii_nm, kinds)


def _radii(codes: NDArray[np.uint32], size: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return each voxel's distance to the nearest one of another code, at most the diagonal of the volume."""
    squared = np.empty(codes.shape, np.float32)
    _distance.along_x(codes, squared, size[2])
    _distance.along_y(codes, squared, size[1])
    _distance.along_z(codes, squared, size[0])
    diagonal = np.linalg.norm(np.array(codes.shape) * size)
    radii: NDArray[np.float32] = np.sqrt(squared, out=squared).clip(max=np.float32(diagonal), out=squared)
    return radii


def _sorted(codes: NDArray[np.uint32], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint32]]:
    """Return where each code's voxels begin, the places of all voxels sorted by code, and each voxel's position."""
    flat = codes.reshape(-1)
    sizes = np.bincount(flat, minlength=count)
    sizes[0] = 0
    starts = np.concatenate([[0], np.cumsum(sizes)])
    order, rank = np.empty(starts[-1], np.int64), np.zeros(flat.size, np.uint32)
    _kernel.sort_voxels(flat, starts, order, rank)
    return starts, order, rank
