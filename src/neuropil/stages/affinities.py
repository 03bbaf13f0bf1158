"""Affinities between disk and array functions: what a volume says is checked, and nothing is guessed.

The dear mistakes with affinities give plausible garbage, not a crash. So a volume must say which voxels its channels
link; what it says (offsets, scale, meaning of 1, mask) is turned into the one form that array functions take.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil import progress
from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.segmentation.affinities import Affinities
from neuropil.segmentation.affinity_moves import clear_leaving
from neuropil.stages.common import ComputedVolume
from neuropil.volume import Metadata, Volume, open_volume
from neuropil.volume.copying import copy_volume

AXES = ("c", "z", "y", "x")


def read_affinities(volume: Volume, box: Box | None = None, channels: slice | None = None) -> Affinities:
    """Read affinities, all or some channels, with their offsets and mask; uint8 stays uint8 where it means s / 255.

    Raises
    ------
    InputError : it is not said which voxels the channels link, or something said does not fit the values
    """
    said = volume.metadata
    check_affinity_volume(volume)
    values, offsets = volume.read(box, channels), said.offsets or ()
    offsets = offsets if channels is None else offsets[channels]
    if values.dtype == np.uint8:
        values = _scaled_bytes(volume, values)
    elif said.scale is not None:
        values = values.astype(np.float32) * np.float32(said.scale)
    if said.one_means == "different":
        np.subtract(values.dtype.type(255 if values.dtype == np.uint8 else 1), values, out=values)
    mask = None
    if said.mask is not None:
        with open_volume(beside(volume.uri, said.mask)) as known:
            if known.shape != volume.shape:
                raise InputError(
                    f"{known.uri} must have the shape of its affinities, {volume.shape}; got {known.shape}"
                )
            mask = known.read(box, channels) != 0
    clear_leaving(values, offsets)
    try:
        return Affinities(values, offsets, mask)
    except InputError as error:
        raise InputError(f"{volume.uri}: {error}") from None


def check_affinity_volume(volume: Volume) -> None:
    """Check what can be checked without reading.

    Raises
    ------
    InputError : not affinities, offsets not said, or not one per channel
    """
    said = volume.metadata
    if len(volume.shape) != 4 or said.kind not in (None, "affinities"):
        raise InputError(
            f"{volume.uri} must hold affinities (c, z, y, x); it is {said.kind or 'unnamed'} {volume.shape}"
        )
    if said.offsets is None:
        raise InputError(
            f"{volume.uri} does not say which voxels its {volume.shape[0]} channels link; record it with "
            "neuropil convert --affinities-from TOOL or --offsets"
        )
    if len(said.offsets) != volume.shape[0]:
        raise InputError(f"{volume.uri} has {volume.shape[0]} channels but offsets for {len(said.offsets)}")


def write_affinities(uri: str, affinities: Affinities, *, place: dict[str, Any], overwrite: bool) -> None:
    """Write affinities, and their mask beside them if they have one; each appears when it is complete.

    Parameters
    ----------
    uri : the volume of the values; the mask has the same name with `_mask` added
    affinities : as array functions have them
    place : voxel_size and offset, as from `neuropil.stages.common.placed`
    """
    name = None
    if affinities.mask is not None:
        name = mask_name(uri)
        meant = Metadata(kind="mask", axes=AXES, **place)
        _copy(beside(uri, name), affinities.mask.astype(np.uint8), meant, overwrite)
    said = Metadata(kind="affinities", axes=AXES, offsets=affinities.offsets, one_means="same", mask=name, **place)
    scale = 1 / 255 if affinities.values.dtype == np.uint8 else None
    _copy(uri, affinities.values, replace(said, scale=scale), overwrite)


def beside(uri: str, name: str) -> str:
    """Return the URI of a volume of another name in the same folder or container.

    >>> beside("a/b.h5:group/affinities", "mask"), beside("a/b.zarr", "c.zarr")
    ('a/b.h5:group/mask', 'a/c.zarr')
    """
    return re.sub(r"[^/:]+/?$", lambda _: name, uri)


def mask_name(uri: str) -> str:
    """Return the name of the mask of affinities.

    >>> mask_name("a/b.h5:group/affinities"), mask_name("a/b.zarr")
    ('affinities_mask', 'b_mask.zarr')
    """
    last = re.split(r"[/:]", uri.rstrip("/"))[-1]
    stem, dot, suffix = last.partition(".")
    return f"{stem}_mask{dot}{suffix}"


def _copy(uri: str, array: NDArray[Any], metadata: Metadata, overwrite: bool) -> None:
    source = ComputedVolume(array.shape, array.dtype, lambda box: array[(slice(None), *box.slices)])
    with progress.show(lambda *_: None):
        copy_volume(source, uri, metadata=metadata, overwrite=overwrite)


def _scaled_bytes(volume: Volume, values: NDArray[np.uint8]) -> NDArray[np.uint8] | NDArray[np.float32]:
    scale = volume.metadata.scale
    if scale is None and values.size and values.max() == 1:
        raise InputError(
            f"{volume.uri} holds the bytes 0 and 1 and says no scale; record what they mean with "
            "neuropil convert --scale 1, or --scale 0.00392156862745098 for 0 to 255"
        )
    if scale is None or np.isclose(scale, 1 / 255):
        return values
    return values.astype(np.float32) * np.float32(scale)
