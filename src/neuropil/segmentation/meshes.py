"""Surfaces of labels, block by block, so that the pieces of a label fit together without a seam.

Marching cubes (Lorensen and Cline 1987; Lewiner et al. 2003, by scikit-image) looks at cells of eight voxels, each by
itself. Blocks therefore share no cells but the plane of voxels between them: the triangles of all blocks are those of
the whole volume, and their corners, halfway between two voxels, are the same whole numbers of half voxels on either
side. The volume is surrounded by background, so surfaces are closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage.measure import marching_cubes

from neuropil.geometry import Box
from neuropil.labels import relabel


@dataclass(frozen=True)
class Mesh:
    """A surface of triangles.

    Attributes
    ----------
    corners
        int32 (n, 3), z, y, x in half voxels: voxel k has its middle at 2 k.
    triangles
        uint32 (m, 3), positions in `corners`; seen from outside in x, y, z they turn left.
    """

    corners: NDArray[np.int32]
    triangles: NDArray[np.uint32]

    @classmethod
    def united(cls, pieces: list[Mesh]) -> Mesh:
        """Put pieces together; corners at the same place become one.

        >>> one = Mesh(np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], np.int32), np.array([[0, 1, 2]], np.uint32))
        >>> Mesh.united([one, one]).corners.shape
        (3, 3)
        """
        corners = np.concatenate([piece.corners for piece in pieces])
        shifts = np.cumsum([0, *(len(piece.corners) for piece in pieces[:-1])])
        triangles = np.concatenate([piece.triangles + np.uint32(k) for piece, k in zip(pieces, shifts)])
        known, places = np.unique(corners, axis=0, return_inverse=True)
        return cls(known, places.reshape(-1).astype(np.uint32)[triangles])

    def vertices_nm(self, voxel_size: ArrayLike, offset: ArrayLike) -> NDArray[np.float32]:
        """Return corners as x, y, z in nm, float32 (n, 3); the middle of voxel 0 lies half a voxel from the offset."""
        size, start = np.asarray(voxel_size, np.float64), np.asarray(offset, np.float64)
        return np.asarray((start + (self.corners / 2 + 0.5) * size)[:, ::-1], np.float32)


def region_of(block: Box, whole: Box) -> Box:
    """Return the voxels that the surface in a block needs: one more behind it, and one before it at the volume's face.

    >>> region_of(Box((0, 0, 4), (4, 4, 8)), Box.of_shape((4, 4, 8)))
    Box(start=(-1, -1, 4), stop=(5, 5, 9))
    """
    before = [int(a == b) for a, b in zip(block.start, whole.start)]
    return block.grow(before, (1, 1, 1))


def block_meshes(
    labels: ArrayLike, region: Box, wanted: NDArray[np.uint64] | None = None
) -> Iterator[tuple[int, Mesh]]:
    """Yield the id and surface of each label in a region.

    Parameters
    ----------
    labels
        Integers >= 0, (z, y, x) of the region of `region_of`, 0 where it lies outside the volume.
    region
        Where it lies.
    wanted
        uint64, ascending: only these ids.

    Examples
    --------
    >>> labels = np.zeros((3, 3, 3), int)
    >>> labels[1, 1, 1] = 7
    >>> [(one, len(mesh.triangles)) for one, mesh in block_meshes(labels, Box((-1, -1, -1), (2, 2, 2)))]
    [(7, 8)]
    """
    dense = relabel(labels)
    array = dense.labels.astype(np.int32)
    for k, box in enumerate(ndimage.find_objects(array)):
        one = dense.ids[k + 1]
        if wanted is not None and not _holds(wanted, one):
            continue
        around = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
        mask = array[around] == k + 1
        if min(mask.shape) < 2 or mask.all():
            continue
        corners, triangles, _, _ = marching_cubes(mask.astype(np.float32), 0.5)  # type: ignore[no-untyped-call]
        shift = np.array([2 * (s.start + a) for s, a in zip(around, region.start)])
        halves = np.rint(2 * corners).astype(np.int32) + shift.astype(np.int32)
        yield int(one), Mesh(halves, triangles.astype(np.uint32))


def _holds(ids: NDArray[np.uint64], one: np.uint64) -> bool:
    at = int(np.searchsorted(ids, one))
    return at < ids.size and bool(ids[at] == one)
