"""Meshes of all segments of a volume: pieces block by block into one file on disk, then each segment by itself.

Memory holds a block and one segment's surface, whatever the volume.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from neuropil.geometry import Box, grid
from neuropil.progress import track
from neuropil.segmentation.meshes import Mesh, block_meshes, region_of
from neuropil.volume import Volume
from neuropil.volume.exports import write_mesh
from neuropil.volume.metadata import Length
from neuropil.volume.thinned import ThinnedVolume

Piece = tuple[int, int, int]
"""Where a piece begins in the file, and how many corners and triangles it has."""


def default_stride(voxel_size: Length) -> tuple[int, int, int]:
    """Return the stride that makes voxels about as wide as sections are thick, at most 4.

    >>> default_stride((40, 4, 4)), default_stride((10, 10, 10))
    ((1, 4, 4), (1, 1, 1))
    """
    y, x = (min(4, max(1, int(voxel_size[0] // size))) for size in voxel_size[1:])
    return (1, y, x)


def write_meshes(
    folder: Path, volume: Volume, stride: tuple[int, int, int], block: tuple[int, int, int], wanted: NDArray[np.uint64]
) -> int:
    """Write the mesh of each wanted segment that has a surface; return how many."""
    thinned = ThinnedVolume(volume, stride=stride)
    size, known = volume.metadata.voxel_size, thinned.metadata
    assert size is not None
    assert known.voxel_size is not None
    # A voxel of the thinned volume is the first of its group: its middle is that of a small voxel.
    middle = tuple(o + (a - b) / 2 for o, a, b in zip(known.offset, size, known.voxel_size))
    path = folder / ".pieces"
    with path.open("w+b") as file:
        pieces = _pieces(thinned, block, wanted, file)
        for one in track(sorted(pieces), "meshes", len(pieces)):
            mesh = Mesh.united([_read(file, piece) for piece in pieces[one]])
            write_mesh(folder, one, mesh.vertices_nm(known.voxel_size, middle), mesh.triangles)
    path.unlink()
    return len(pieces)


def _pieces(
    volume: Volume, block: tuple[int, int, int], wanted: NDArray[np.uint64], file: BinaryIO
) -> dict[int, list[Piece]]:
    """Write the pieces of all blocks into a file; return where those of each segment are."""
    whole, pieces = Box.of_shape(volume.spatial_shape), defaultdict(list)
    boxes = list(grid(whole, block))
    for box in track(boxes, "surfaces", len(boxes)):
        region = region_of(box, whole)
        inside = region.clip(whole)
        labels = np.zeros(region.shape, volume.dtype)
        labels[inside.shift([-n for n in region.start]).slices] = volume.read(inside)
        for one, mesh in block_meshes(labels, region, wanted):
            pieces[one].append((file.tell(), len(mesh.corners), len(mesh.triangles)))
            file.write(mesh.corners.tobytes())
            file.write(mesh.triangles.tobytes())
    return pieces


def _read(file: BinaryIO, piece: Piece) -> Mesh:
    start, corners, triangles = piece
    file.seek(start)
    return Mesh(
        np.frombuffer(file.read(12 * corners), np.int32).reshape(-1, 3),
        np.frombuffer(file.read(12 * triangles), np.uint32).reshape(-1, 3),
    )
