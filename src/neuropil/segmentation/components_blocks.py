"""Connected components of a volume in blocks: those of the whole, whatever the blocks.

A block's pieces are called by their first voxel's place in the volume, and what links join across faces is joined as
for the watershed (`neuropil.segmentation.watershed_blocks.face_pairs`, `join_pairs`): the smallest name of pieces that
are one is the place of the component's first voxel. Key insight: which links there are depends on a voxel and its
neighbours alone; so voxels are looked at once, and only pieces at faces are ever spoken of again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuropil._kernels.watershed_blocks import first_places
from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.segmentation.watershed import label_links, slabs_of
from neuropil.segmentation.watershed_blocks import names_of

HALO = 1
"""Voxels around a block whose links decide which of its voxels are linked at all."""


class BlockComponents(NamedTuple):
    """The pieces of a block, as if links ended at its faces.

    Attributes
    ----------
    labels
        uint32 (z, y, x): 1 ... n in raster order of first voxels, 0 background.
    ids
        uint64 (n + 1,), ascending: what labels are called in the volume, 1 + the place of their first voxel, 0 for
        background.
    bits
        uint8 (z, y, x): the links, those out of the block included.
    """

    labels: NDArray[np.uint32]
    ids: NDArray[np.uint64]
    bits: NDArray[np.uint8]


def block_components(bits: NDArray[np.uint8], region: Box, block: Box, shape: Sequence[int]) -> BlockComponents:
    """Label what links connect in a block.

    Parameters
    ----------
    bits
        uint8 (z, y, x), links of the voxels of `region`, from `neuropil.segmentation.components.strong_links` or
        `inner_links`.
    region
        The block and `HALO` voxels around it, as far as the volume goes.
    block
        Part of the volume.
    shape
        Extent of the volume.

    Raises
    ------
    InputError
        If the region is not what it should be.

    Examples
    --------
    Links across the face in the middle of four voxels count, but are not followed:

    >>> bits = np.array([[[0, 32, 4]]], np.uint8)
    >>> made = block_components(bits, Box((0, 0, 0), (1, 1, 3)), Box((0, 0, 0), (1, 1, 2)), (1, 1, 4))
    >>> made.labels.tolist(), made.ids.tolist()
    ([[[0, 1]]], [0, 2])
    """
    wanted = block.grow((HALO,) * 3).clip(Box.of_shape(shape))
    if region != wanted or bits.shape != region.shape:
        raise InputError(f"region must be {wanted} for block {block}; got {region} and bits of {bits.shape}")
    own = np.ascontiguousarray(bits[block.shift([-n for n in region.start]).slices])
    labels = np.empty(block.shape, np.uint32)
    label_links(own, slabs_of(own.shape, 1), labels.reshape(-1), 1)
    return BlockComponents(labels, names_of(first_places(labels.reshape(-1)), block, shape), own)
