"""The worst errors of a segmentation and where to look for them.

A merge is one proposal segment that holds parts of two truth segments, a split is one truth segment that lies in two
proposal segments; either is as bad as the number of voxel pairs it joins or separates wrongly, a * b for parts of a and
b voxels: that is what the Rand scores count. The place to look at is found by growing the smaller part inside the
segment that holds both until it reaches the other: the leak of a merge, the cut of a split. Parts that do not meet
within reach are shown at the middle of their shortest distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from neuropil.errors import InputError
from neuropil.labels import contingency

_REACH = 24  # steps of growth; a few times the width of a membrane


@dataclass(frozen=True)
class SegmentError:
    """One wrong merge or split.

    Attributes
    ----------
    segment
        The segment that holds both parts: of the proposal for a merge, of the truth for a split.
    parts
        The ids of the two parts: of the truth for a merge, of the proposal for a split; the larger part first.
    sizes
        Voxels of the two parts inside `segment`.
    pairs
        Voxel pairs wrongly joined or separated, the product of the sizes.
    point
        (z, y, x), voxels: where the two parts meet.
    """

    segment: int
    parts: tuple[int, int]
    sizes: tuple[int, int]
    pairs: int
    point: tuple[int, int, int]


@dataclass(frozen=True)
class Gallery:
    """The worst errors, each list ordered from the most wrong pairs to the least.

    Attributes
    ----------
    merges, splits
        A segment appears once, with its two largest parts.
    """

    merges: tuple[SegmentError, ...]
    splits: tuple[SegmentError, ...]


def worst_errors(
    proposal: ArrayLike,
    truth: ArrayLike,
    voxel_size: Sequence[float],
    mask: ArrayLike | None = None,
    *,
    count: int = 5,
) -> Gallery:
    """Find the worst merges and splits and where they happen.

    Parameters
    ----------
    proposal, truth
        Labels, integers >= 0, (z, y, x). Background (0) of either takes no part. For segments that are unique to a
        section, pass `neuropil.metrics.sections.unique_per_section` of the truth.
    voxel_size
        (z, y, x), nm; only proportions matter.
    mask
        Boolean of the same shape; only voxels where it is true are compared.
    count
        Longest list wanted, >= 1.

    Returns
    -------
    Gallery

    Raises
    ------
    InputError
        If arrays do not have three axes or shapes differ, a voxel size is not positive, or count < 1.

    Examples
    --------
    >>> truth = np.array([[[1, 1, 1, 0, 2, 2]]])
    >>> gallery = worst_errors(np.array([[[9, 9, 9, 9, 9, 9]]]), truth, (40, 4, 4))
    >>> gallery.merges[0].parts, gallery.merges[0].pairs, gallery.merges[0].point
    ((1, 2), 6, (0, 0, 2))
    >>> gallery.splits
    ()
    """
    a, b = np.asarray(proposal), np.asarray(truth)
    if a.ndim != 3:
        raise InputError(f"proposal must have axes z, y, x; got shape {a.shape}")
    if len(voxel_size) != 3 or min(voxel_size) <= 0 or count < 1:
        raise InputError(f"voxel_size must be three positive lengths, count >= 1; got {tuple(voxel_size)}, {count}")
    table = contingency(a, b, mask)
    keep = (table.proposal_ids[table.rows] != 0) & (table.truth_ids[table.columns] != 0)
    pi, ti, n = table.proposal_ids[table.rows][keep], table.truth_ids[table.columns][keep], table.counts[keep]
    inside = None if mask is None else np.asarray(mask)
    scale = np.asarray(voxel_size, np.float64)

    def located(
        worst: list[_Candidate], whole: NDArray[np.integer], parts: NDArray[np.integer]
    ) -> tuple[SegmentError, ...]:
        return tuple(
            SegmentError(c.segment, c.parts, c.sizes, c.sizes[0] * c.sizes[1], _meeting(whole, parts, inside, c, scale))
            for c in worst
        )

    return Gallery(located(_worst(pi, ti, n, count), a, b), located(_worst(ti, pi, n, count), b, a))


@dataclass(frozen=True)
class _Candidate:
    segment: int
    parts: tuple[int, int]
    sizes: tuple[int, int]


def _worst(
    segments: NDArray[np.uint64], parts: NDArray[np.uint64], counts: NDArray[np.int64], count: int
) -> list[_Candidate]:
    """Return the segments whose two largest parts have the largest product; of equals, the smaller id first."""
    order = np.lexsort((parts, -counts, segments))
    segments, parts, counts = segments[order], parts[order], counts[order]
    first = np.flatnonzero(np.diff(segments, prepend=0) != 0)  # ids are sorted and not 0
    first = first[np.append(first[1:], segments.size) - first > 1]
    pairs = counts[first].astype(np.float64) * counts[first + 1]
    return [
        _Candidate(int(segments[k]), (int(parts[k]), int(parts[k + 1])), (int(counts[k]), int(counts[k + 1])))
        for k in first[np.argsort(-pairs, kind="stable")[:count]]
    ]


def _meeting(
    whole: NDArray[np.integer],
    parts: NDArray[np.integer],
    mask: NDArray[np.bool_] | None,
    candidate: _Candidate,
    scale: NDArray[np.float64],
) -> tuple[int, int, int]:
    """Return a voxel where the two parts meet inside the segment, or the one midway between their nearest voxels."""
    segment = whole == whole.dtype.type(candidate.segment)
    counted = segment if mask is None else segment & mask
    large, small = (counted & (parts == parts.dtype.type(part)) for part in candidate.parts)
    box = [
        slice(max(s.start - _REACH, 0), s.stop + _REACH)  # nothing grown reaches farther
        for s in ndimage.find_objects(small.astype(np.uint8))[0]
    ]
    z0, y0, x0 = (s.start for s in box)
    within, target, grown = (array[tuple(box)] for array in (segment, large, small))
    for _ in range(_REACH):
        grown = ndimage.binary_dilation(grown, mask=within)
        touched = grown & target
        if touched.any():
            found = np.argwhere(touched) + (z0, y0, x0)
            point = found[np.argmin((((found - found.mean(axis=0)) * scale) ** 2).sum(axis=1))]
            break
    else:
        point = _midway(large, small, scale)
    z, y, x = (int(p) for p in point)
    return z, y, x


def _midway(one: NDArray[np.bool_], other: NDArray[np.bool_], scale: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the voxel in the middle of the shortest distance between two sets of voxels."""
    a, b = (np.argwhere(part & ~ndimage.binary_erosion(part)) for part in (one, other))
    distance, nearest = (np.asarray(found) for found in cKDTree(a * scale).query(b * scale))
    k = int(np.argmin(distance))
    return np.asarray((a[int(nearest[k])] + b[k]) // 2, np.int64)
