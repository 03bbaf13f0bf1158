"""A volume without its margin, of which only every n-th voxel is taken: the same labels, fewer of them.

Labels cannot be averaged, so the voxel that stays is one of the old ones, the first of each group; its place follows
from the metadata. Reading keeps to blocks, so that the full volume is never in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.geometry import Box, grid
from neuropil.volume.base import VolumeBase
from neuropil.volume.metadata import Length, Metadata
from neuropil.volume.volume import Volume

_BLOCK = 1 << 25  # voxels of the old volume that are read at once


class ThinnedVolume(VolumeBase):
    """A part of a volume (z, y, x), on a coarser grid.

    Parameters
    ----------
    volume : open, of three axes; whoever opened it closes it
    margin : voxels z, y, x that are left out at each face
    stride : every so many voxels along z, y, x one is taken
    voxel_size : nm, where the volume does not know its own

    Raises
    ------
    InputError : the margin leaves nothing, or a number is out of its range
    """

    def __init__(
        self,
        volume: Volume,
        *,
        margin: Sequence[int] = (0, 0, 0),
        stride: Sequence[int] = (1, 1, 1),
        voxel_size: Length | None = None,
    ) -> None:
        if len(volume.shape) != 3:
            raise InputError(f"{volume.uri} must have axes z, y, x; its shape is {volume.shape}")
        extent = [n - 2 * m for n, m in zip(volume.spatial_shape, margin)]
        if min(margin) < 0 or min(extent) < 1:
            raise InputError(
                f"margin must be >= 0 and leave voxels of {volume.uri}, whose shape is {volume.shape};"
                f" got {tuple(margin)}"
            )
        if min(stride) < 1:
            raise InputError(f"stride must be at least 1 along each axis; got {tuple(stride)}")
        known = volume.metadata
        size, offset = known.voxel_size or voxel_size, known.offset
        if size is not None:
            offset = (offset[0] + margin[0] * size[0], offset[1] + margin[1] * size[1], offset[2] + margin[2] * size[2])
            size = (size[0] * stride[0], size[1] * stride[1], size[2] * stride[2])
        shape = [-(-n // step) for n, step in zip(extent, stride)]
        chunk = [max(1, n // step) for n, step in zip(volume.chunk_shape, stride)]
        super().__init__(
            volume.uri, shape, volume.dtype, Metadata(voxel_size=size, offset=offset, kind=known.kind), chunk, False
        )
        self.source, self.margin, self.stride = volume, tuple(margin), tuple(stride)

    def _read(self, box: Box) -> NDArray[Any]:
        made = np.empty(box.shape, self.dtype)
        step = self.stride
        rows = max(1, _BLOCK // max(1, step[0] * step[1] * step[2] * box.shape[1] * box.shape[2]))
        for part in grid(box, (rows, max(1, box.shape[1]), max(1, box.shape[2]))) if box.size else ():
            start = [m + a * n for m, a, n in zip(self.margin, part.start, step)]
            stop = [m + (b - 1) * n + 1 for m, b, n in zip(self.margin, part.stop, step)]
            old = self.source.read(Box(tuple(start), tuple(stop)))
            made[part.shift([-n for n in box.start]).slices] = old[:: step[0], :: step[1], :: step[2]]
        return made
