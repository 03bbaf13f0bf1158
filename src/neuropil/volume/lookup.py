"""What labels of any size say at points and inside a mask: block by block, each block read once.

Points are in nm; the voxel of a point is the one whose centre is nearest, where the first voxel's centre is at the
volume's offset. Points outside the volume are on background.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.errors import InputError
from neuropil.geometry import Box, grid
from neuropil.labels import Contingency, contingency
from neuropil.progress import track
from neuropil.volume.copying import block_that_fits
from neuropil.volume.volume import Volume


def labels_at(
    volume: Volume,
    points_nm: ArrayLike,
    *,
    block_shape: Sequence[int] | None = None,
) -> NDArray[np.uint64]:
    """Return the label of the voxel at each point.

    Parameters
    ----------
    volume : open, of integers (z, y, x), with a voxel size
    points_nm : (n, 3), z, y, x
    block_shape : voxels z, y, x that are read at most at once; several chunks of the volume, about 128 MiB, if omitted

    Returns
    -------
    uint64 (n,); 0 outside the volume

    Raises
    ------
    InputError : no labels, points of another shape, or no voxel size

    >>> import tempfile
    >>> from neuropil.volume import create_volume
    >>> uri = tempfile.mkdtemp() + "/ids.h5:ids"
    >>> with create_volume(uri, shape=(1, 2, 3), dtype="uint8", voxel_size=(40, 4, 4)) as volume:
    ...     volume.write(None, np.arange(6, dtype=np.uint8).reshape(1, 2, 3))
    ...     labels_at(volume, [[0, 4, 5.9], [0, 0, 6.1], [40, 0, 0]]).tolist()
    [4, 2, 0]
    """
    _check_labels(volume)
    points = np.asarray(points_nm, np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"points_nm must have shape (n, 3); got {points.shape}")
    size = volume.metadata.voxel_size
    if size is None:
        raise InputError(f"{volume.uri} does not tell its voxel size; give --voxel-size z,y,x in nm")
    voxels = np.floor((points - np.array(volume.metadata.offset)) / np.array(size) + 0.5)
    inside = np.flatnonzero(((voxels >= 0) & (voxels < volume.spatial_shape)).all(axis=1))
    voxels = np.where(np.isin(np.arange(len(points)), inside)[:, None], voxels, 0).astype(np.int64)
    found = np.zeros(len(points), np.uint64)
    groups = _groups(inside, voxels[inside] // np.array(block_shape or block_that_fits(volume)))
    for group in track(groups, "look up nodes", len(groups)):
        start, stop = voxels[group].min(axis=0), voxels[group].max(axis=0) + 1
        array = volume.read(Box(tuple(start.tolist()), tuple(stop.tolist())))
        found[group] = array[tuple((voxels[group] - start).T)]
    return found


def overlap_with_mask(volume: Volume, mask: Volume) -> Contingency:
    """Count the voxels of each label that lie inside a mask, and of what value of the mask.

    Parameters
    ----------
    volume : open, of integers (z, y, x)
    mask : open, of the same shape; 0 is outside

    Returns
    -------
    Contingency : of labels and values of the mask, without those outside

    Raises
    ------
    InputError : no labels, or shapes that differ
    """
    _check_labels(volume)
    _check_labels(mask)
    if mask.shape != volume.shape:
        raise InputError(f"{mask.uri} must have the shape of the segmentation, {volume.shape}; got {mask.shape}")
    table = Contingency.empty()
    blocks = list(grid(Box.of_shape(volume.spatial_shape), block_that_fits(volume)))
    for block in track(blocks, "look into mask", len(blocks)):
        values = mask.read(block)
        table = table.add(contingency(volume.read(block), values, values != 0))
    return table


def _check_labels(volume: Volume) -> None:
    if len(volume.shape) != 3 or volume.dtype.kind not in "ui":
        raise InputError(f"{volume.uri} must hold integers (z, y, x); it holds {volume.dtype} {volume.shape}")


def _groups(members: NDArray[np.int64], blocks: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the members of each block, the blocks in raster order."""
    if not members.size:
        return []
    order = np.lexsort(blocks.T[::-1])
    new = np.any(np.diff(blocks[order], axis=0) != 0, axis=1)
    return np.split(members[order], np.flatnonzero(new) + 1)
