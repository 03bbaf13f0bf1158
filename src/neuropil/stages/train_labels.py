"""From the labels of a stack to what networks learn: boundary or interior for some, ids for others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.networks.sampling import BOUNDARY, INTERIOR, UNLABELLED
from neuropil.segmentation.boundary import boundary_from_labels
from neuropil.stages.common import CREMI_UNLABELLED, section_box
from neuropil.stages.train_config import StackConfig
from neuropil.volume import Volume, open_volume


def box_of(one: StackConfig, volume: Volume) -> Box:
    """Return the part of a volume that a stack is.

    Raises
    ------
    InputError : a range beyond the volume's end
    """
    box = section_box(volume, one.sections)
    spans = [(box.start[0], box.stop[0])]
    for name, given, extent in zip(("rows", "columns"), (one.rows, one.columns), volume.spatial_shape[1:]):
        start, stop = given or (0, extent)
        if stop > extent:
            raise InputError(f"{name} of stack '{one.name}' must lie within 0:{extent}; got {start}:{stop}")
        spans.append((start, stop))
    return Box(tuple(a for a, _ in spans), tuple(b for _, b in spans))


def boundary_target(one: StackConfig, labels: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Tell boundary, interior and unlabelled voxels of sections of a volume of `shape` apart."""
    boundary = boundary_from_labels(labels, interior_above=one.interior_above, touching_ids=one.touching_ids)
    target = np.where(boundary, np.uint8(BOUNDARY), np.uint8(INTERIOR))
    unlabelled = unlabelled_of(one, labels, shape)
    if one.touching_ids and unlabelled.any():  # whether a cell ends where its labels end is not known
        unlabelled |= boundary_from_labels(np.where(unlabelled, 2, 1), touching_ids=True)
    target[unlabelled] = UNLABELLED
    return target


def ids_of(one: StackConfig, labels: NDArray[Any], unlabelled: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the ids; what is not above the interior's limit, or unlabelled, is background."""
    return np.where(unlabelled | (labels <= one.interior_above), labels.dtype.type(0), labels)


def unlabelled_of(one: StackConfig, labels: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which voxels nobody labelled: by value, or by the stack's mask, which must have the volume's shape."""
    unlabelled: NDArray[np.bool_] = labels == CREMI_UNLABELLED
    if one.unlabelled is not None:
        unlabelled |= labels == one.unlabelled
    if one.mask is not None:
        with open_volume(one.mask) as mask:
            if mask.shape != shape:
                raise InputError(f"mask of stack '{one.name}' must have the image's shape {shape}; got {mask.shape}")
            unlabelled |= mask.read(box_of(one, mask)) == 0
    return unlabelled
