"""What the shape of segments says about errors: areas from section to section, ends, faces of the volume they reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuropil.labels import apply_lookup


@dataclass(frozen=True)
class Shapes:
    """Measures of segments 1 ... m; entry 0 is background.

    Attributes
    ----------
    sizes
        int64 (m + 1,), voxels; 0 for background.
    areas
        int64 (m + 1, z), voxels in each section.
    first, last
        int64 (m + 1,), the first and last section with a voxel.
    faces
        float64 (m + 1, 6), voxels at the faces of the volume: low and high z, low and high y, low and high x.
    """

    sizes: NDArray[np.int64]
    areas: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    faces: NDArray[np.float64]

    @classmethod
    def of(cls, fragments: NDArray[np.uint64], segment_of: NDArray[np.int64]) -> Shapes:
        """Measure the segments that fragments (z, y, x) make.

        >>> Shapes.of(np.array([[[1, 2]], [[1, 0]]], np.uint64), np.array([0, 1, 1])).areas.tolist()
        [[0, 0], [2, 1]]
        """
        m = int(segment_of.max(initial=0))
        lookup = segment_of.astype(np.uint64)
        areas = np.zeros((m + 1, fragments.shape[0]), np.int64)
        for z, section in enumerate(fragments):
            areas[:, z] = np.bincount(apply_lookup(section, lookup).astype(np.int64).reshape(-1), minlength=m + 1)
        areas[0] = 0
        there = areas > 0
        faces = np.zeros((m + 1, 6))
        np.add.at(faces, segment_of, face_bits(fragments, segment_of.size - 1))
        faces[0] = 0
        last = areas.shape[1] - 1 - np.argmax(there[:, ::-1], axis=1)
        return cls(areas.sum(1), areas, np.argmax(there, axis=1), last, faces)

    @property
    def voxels(self) -> int:
        """Voxels of all segments."""
        return int(self.sizes.sum())

    def inner_ends(self, segments: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return 1 for segments that reach no face of the volume, 0.5 for one, 0 for more: a neurite has two ends."""
        return np.asarray(np.maximum(0, 2 - (self.faces[segments] > 0).sum(1)) / 2)

    def overlap(self, a: NDArray[np.int64], b: NDArray[np.int64], along_z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how much of the smaller of two cross sections meets the other across sections, 0 to 1.

        It is the number of links along z over the area of the smaller segment's end, where one ends and the other
        begins; two that run side by side have few such links for their area.
        """
        ends = []
        for one, other in ((a, b), (b, a)):
            below = self.areas[one, self.last[one]] * (self.last[one] <= self.first[other] + 1)
            above = self.areas[one, self.first[one]] * (self.first[one] >= self.last[other] - 1)
            ends.append(np.maximum(below, above))
        least = np.minimum(np.where(ends[0] > 0, ends[0], ends[1]), np.where(ends[1] > 0, ends[1], ends[0]))
        return np.asarray(np.where(least > 0, np.minimum(along_z / np.maximum(least, 1), 1), 0), np.float64)


def jumps(shapes: Shapes, segments: NDArray[np.int64], z: NDArray[np.float64], reach: int = 2) -> NDArray[np.float64]:
    """Return the greatest change of a segment's area (absolute log2) between two sections within `reach` of a place.

    Areas below 50 voxels count as 50, so that what comes and goes in a few voxels is no jump.

    >>> one = Shapes.of(np.ones((4, 20, 20), np.uint64), np.array([0, 1]))
    >>> jumps(one, np.array([1]), np.array([1.0])).tolist()
    [0.0]
    """
    depth = shapes.areas.shape[1]
    if depth < 2:
        return np.zeros(segments.size)
    logs = np.log2(np.maximum(shapes.areas, 50))
    change = np.abs(np.diff(logs, axis=1))
    at = np.rint(z).astype(np.int64)[:, None] + np.arange(-reach, reach)
    return np.asarray(change[segments[:, None], at.clip(0, depth - 2)].max(1))


def face_bits(fragments: NDArray[np.uint64], n: int) -> NDArray[np.int64]:
    """Return the voxels that fragments 0 ... n have at each of the six faces of the volume, int64 (n + 1, 6)."""
    counts = np.zeros((n + 1, 6), np.int64)
    for axis in range(3):
        for k, place in enumerate((0, -1)):
            plane = np.take(fragments, place, axis).astype(np.int64).reshape(-1)
            counts[:, 2 * axis + k] = np.bincount(plane, minlength=n + 1)
    counts[0] = 0
    return counts
