"""A volume seen at another pixel size: the same sections, y and x on another grid over the same extent.

A voxel of the new grid is the mean over a window around its centre, as wide as itself but at least one old voxel. So
shrinking averages over areas, and enlarging interpolates linearly; labels take the old voxel under the new one's
centre. The window follows from the voxel's place alone:
what is read never depends on the box it is read in. Outside the volume its outermost voxels go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from neuropil.geometry import Box, grid
from neuropil.volume.base import VolumeBase
from neuropil.volume.metadata import Metadata
from neuropil.volume.volume import Volume

_ROWS = 256  # of the new grid, resampled at a time


class ResampledVolume(VolumeBase):
    """A volume (z, y, x), read at about another pixel size.

    Parameters
    ----------
    volume : open; whoever opened it closes it
    voxel_size : nm per voxel of `volume`
    wanted : nm per voxel along z (which stays), y and x; rounded so that whole voxels fill the extent
    dtype : of what is read; means are rounded where it is an integer type
    nearest : for labels: one old voxel each instead of means
    """

    def __init__(
        self,
        volume: Volume,
        voxel_size: Sequence[float],
        wanted: Sequence[float],
        *,
        dtype: DTypeLike = np.float32,
        nearest: bool = False,
    ) -> None:
        old = volume.spatial_shape
        y, x = (max(1, round(old[axis] * voxel_size[axis] / wanted[axis])) for axis in (1, 2))
        size = (voxel_size[0], voxel_size[1] * old[1] / y, voxel_size[2] * old[2] / x)
        known = Metadata(voxel_size=size, offset=volume.metadata.offset, kind=volume.metadata.kind)
        super().__init__(volume.uri, (old[0], y, x), dtype, known, volume.chunk_shape, False)
        self.source, self.nearest = volume, nearest

    def _read(self, box: Box) -> NDArray[Any]:
        old, new = self.source.spatial_shape, self.shape
        if self.nearest:
            return pick(self.source.read, old, new, box).astype(self.dtype, copy=False)
        made = resample(self.source.read, old, new, box)
        return (np.rint(made) if self.dtype.kind in "ui" else made).astype(self.dtype, copy=False)


def pick(read: Callable[[Box], NDArray[Any]], shape: Sequence[int], new_shape: Sequence[int], box: Box) -> NDArray[Any]:
    """Return one box of an array on another grid over the same extent: the old voxels under the new ones' centres.

    Parameters are those of `resample`.

    >>> old = np.array([[[7, 7, 9, 9, 9]]])
    >>> pick(lambda box: old[box.slices], (1, 1, 5), (1, 1, 2), Box((0, 0, 0), (1, 1, 2))).tolist()
    [[[7, 9]]]
    """
    rows, columns = (
        np.floor((np.arange(box.start[a], box.stop[a]) + 0.5) * shape[a] / new_shape[a]).astype(np.intp) for a in (1, 2)
    )
    top, left = int(rows[0]), int(columns[0])
    old = read(Box((box.start[0], top, left), (box.stop[0], int(rows[-1]) + 1, int(columns[-1]) + 1)))
    return old[:, rows - top][:, :, columns - left]


def resample(
    read: Callable[[Box], NDArray[Any]], shape: Sequence[int], new_shape: Sequence[int], box: Box
) -> NDArray[np.float32]:
    """Return one box of an array on another grid over the same extent.

    Parameters
    ----------
    read : gives a box (z, y, x) of the old array
    shape, new_shape : of the old and new array, with the same number of sections
    box : of the new grid

    Returns
    -------
    (z, y, x) float32

    >>> old = np.array([[[0, 2, 4, 6]]], np.uint8)
    >>> resample(lambda box: old[box.slices], (1, 1, 4), (1, 1, 2), Box((0, 0, 0), (1, 1, 2))).tolist()
    [[[1.0, 5.0]]]
    >>> resample(lambda box: old[box.slices], (1, 1, 4), (1, 1, 8), Box((0, 0, 2), (1, 1, 6))).tolist()
    [[[1.5, 2.5, 3.5, 4.5]]]
    """
    if tuple(shape) == tuple(new_shape):
        return read(box).astype(np.float32)
    made = np.empty(box.shape, np.float32)
    for part in grid(box, (1, _ROWS, max(1, box.shape[2]))):
        windows = [_windows(shape[a], new_shape[a], part.start[a], part.stop[a]) for a in (1, 2)]
        (top, bottom), (left, right) = ((int(index.min()), int(index.max()) + 1) for index, _ in windows)
        (rows, tall), (columns, wide) = windows
        old = read(Box((part.start[0], top, left), (part.stop[0], bottom, right)))[0]
        lines = sum(old[index - top].astype(np.float32) * weight[:, None] for index, weight in zip(rows, tall))
        new = sum(lines[:, index - left] * weight for index, weight in zip(columns, wide))
        made[part.shift([-n for n in box.start]).slices] = new
    return made


def _windows(old: int, new: int, start: int, stop: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the old voxels under the windows of new voxels start to stop, and their shares; both (k, stop - start)."""
    ratio = old / new
    width = max(1.0, ratio)
    left = (np.arange(start, stop) + 0.5) * ratio - width / 2
    index = np.floor(left).astype(np.intp) + np.arange(ceil(width) + 1)[:, None]
    share = np.minimum(left + width, index + 1) - np.maximum(left, index)
    return index.clip(0, old - 1), (share.clip(0) / width).astype(np.float32)
