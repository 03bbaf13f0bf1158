"""How large each label is, where it lies, and one voxel inside it; found block by block, and put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from neuropil.labels import relabel


@dataclass(frozen=True)
class Survey:
    """Of the labels of a volume, in ascending order of their ids; background is not among them.

    Attributes
    ----------
    ids
        uint64 (n,).
    voxels
        int64 (n,).
    low, high
        int64 (n, 3), z, y, x: the smallest box [low, high).
    place
        int64 (n, 3), a voxel of the label, in the block that holds most of it.
    most
        int64 (n,), voxels in that block.
    """

    ids: NDArray[np.uint64]
    voxels: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    place: NDArray[np.int64]
    most: NDArray[np.int64]

    @classmethod
    def of(cls, labels: ArrayLike, start: Sequence[int] = (0, 0, 0)) -> Survey:
        """Survey a block whose first voxel is `start`.

        >>> found = Survey.of([[[0, 7, 7, 7, 2]]], (5, 0, 0))
        >>> found.ids.tolist(), found.voxels.tolist(), found.place.tolist()
        ([2, 7], [1, 3], [[5, 0, 4], [5, 0, 2]])
        """
        dense = relabel(labels)
        flat = dense.labels.reshape(-1).astype(np.int32)
        counts = np.bincount(flat, minlength=dense.ids.size)
        order = np.argsort(flat, kind="stable")  # the voxels of each label, in raster order
        middles = order[np.cumsum(counts) - counts + counts // 2 - (counts == 0)]
        place = np.stack(np.unravel_index(middles, dense.labels.shape), axis=1)
        boxes = ndimage.find_objects(dense.labels.astype(np.int32))
        low = np.array([[s.start for s in box] for box in boxes], np.int64).reshape(-1, 3)
        high = np.array([[s.stop for s in box] for box in boxes], np.int64).reshape(-1, 3)
        shift = np.asarray(start, np.int64)
        sizes = counts[1:].astype(np.int64)
        return cls(dense.ids[1:], sizes, low + shift, high + shift, place[1:] + shift, sizes)

    @classmethod
    def united(cls, parts: Sequence[Survey]) -> Survey:
        """Put the surveys of blocks together.

        >>> both = Survey.united([Survey.of([[[7, 7]]]), Survey.of([[[7, 2]]], (1, 0, 0))])
        >>> both.voxels.tolist(), both.low.tolist(), both.high.tolist()
        ([1, 3], [[1, 0, 1], [0, 0, 0]], [[2, 1, 2], [2, 1, 2]])
        """
        names = cls.__dataclass_fields__
        all_ = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        order = np.lexsort((-all_["most"], all_["ids"]))
        all_ = {name: values[order] for name, values in all_.items()}
        first = np.flatnonzero(np.diff(all_["ids"], prepend=np.uint64(0)) != 0)
        if first.size == 0:
            return cls(**all_)
        return cls(
            all_["ids"][first],
            np.add.reduceat(all_["voxels"], first),
            np.minimum.reduceat(all_["low"], first),
            np.maximum.reduceat(all_["high"], first),
            all_["place"][first],
            all_["most"][first],
        )
