"""What `neuropil suspects` reads: the same part of every volume, as array functions take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.machine import cores
from neuropil.segmentation.affinities import NEAREST, Affinities
from neuropil.segmentation.affinity_moves import known_values, with_offsets
from neuropil.segmentation.decoding import Decoder, decode
from neuropil.segmentation.suspects import Parts, parts_of
from neuropil.stages.affinities import check_affinity_volume, read_affinities
from neuropil.stages.common import CREMI_UNLABELLED, section_box
from neuropil.volume import open_volume
from neuropil.volume.metadata import Length

if TYPE_CHECKING:
    from neuropil.stages.suspects import Config


@dataclass(frozen=True)
class Given:
    """All arrays (z, y, x) of one box of the volumes.

    Attributes
    ----------
    box : where they lie in the affinities
    parts, links : segmentation with fragments; nearest affinities (3, z, y, x)
    image, truth : None where not given
    voxel_size, offset : nm z, y, x; of the volumes
    """

    box: Box
    parts: Parts
    links: NDArray[Any]
    image: NDArray[np.uint8] | None
    truth: NDArray[Any] | None
    voxel_size: Length | None
    offset: Length


def read_given(config: Config) -> Given:
    """Read all volumes.

    Raises
    ------
    InputError : extents do not match, or a volume is of another kind
    """
    with open_volume(config.affinities) as volume:
        check_affinity_volume(volume)
        box, whole = section_box(volume, config.sections), volume.spatial_shape
        known = volume.metadata
        links = known_values(with_offsets(read_affinities(volume, box), NEAREST))
    segmentation = _labels(config.segmentation, "segmentation", box, whole)
    if config.fragments is not None:
        fragments = _labels(config.fragments, "fragments", box, whole)
    else:
        how = Decoder(low=config.low, high=config.high, size=config.size, size_threshold=config.size_threshold, dust=0)
        fragments = decode(Affinities(links, NEAREST), how, threads=cores()).fragments
    truth = None if config.truth is None else _labels(config.truth, "truth", box, whole)
    if truth is not None and truth.dtype == np.uint64:
        truth[truth == CREMI_UNLABELLED] = 0
    image = None if config.image is None else _grey(_read(config.image, "image", box, whole))
    parts = parts_of(segmentation, fragments)
    return Given(box, parts, links, image, truth, known.voxel_size, known.offset)


def _labels(uri: str, name: str, box: Box, whole: tuple[int, ...]) -> NDArray[Any]:
    labels = _read(uri, name, box, whole)
    if labels.dtype.kind not in "ui":
        raise InputError(f"{name} must hold integer labels; {uri} holds {labels.dtype}")
    return labels


def _read(uri: str, name: str, box: Box, whole: tuple[int, ...]) -> NDArray[Any]:
    """Read a box of a volume that is as large as the affinities, or as the box."""
    with open_volume(uri) as volume:
        if volume.shape == whole:
            return volume.read(box)
        if volume.shape == box.shape:
            return volume.read()
        raise InputError(f"{name} must have the extent of the affinities, {whole}; {uri} has {volume.shape}")


def _grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an image as bytes, dark to bright."""
    if image.dtype == np.uint8:
        return image
    values = image.astype(np.float32)
    low, high = np.percentile(values, [0.5, 99.5])
    grey: NDArray[np.uint8] = (255 * ((values - low) / max(high - low, 1e-6)).clip(0, 1)).astype(np.uint8)
    return grey
