"""The part of `neuropil convert` that knows how other tools store affinities: theirs become ours, ours become theirs.

Taking over changes no value, only what is said of them. Handing on may move links to their other end, so blocks are
read with as many voxels around them as the longest link has.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.segmentation.affinities import Offset
from neuropil.segmentation.affinity_conventions import CONVENTIONS, Tool, export_offsets, tool_offsets, tool_values
from neuropil.segmentation.affinity_moves import with_offsets
from neuropil.stages.affinities import check_affinity_volume, read_affinities
from neuropil.stages.common import ComputedVolume
from neuropil.volume import Metadata, Volume

log = logging.getLogger("neuropil")


def imported(volume: Volume, tool: Tool, offsets: Sequence[Offset] | None) -> Volume:
    """Return a tool's affinities with axes c, z, y, x, and metadata that say what they are; no value is changed.

    Raises
    ------
    InputError : not affinities, or offsets that are missing, said already, or do not fit
    """
    said, rule = volume.metadata, CONVENTIONS[tool]
    if said.kind not in (None, "affinities") or len(volume.shape) != 4:
        raise InputError(
            f"{volume.uri} must hold affinities (c, z, y, x) to be given offsets; it is {said.kind or 'unnamed'}"
            f" {volume.shape}"
        )
    if said.offsets is not None:
        raise InputError(f"{volume.uri} says its offsets already, {said.offsets}; drop affinities_from and offsets")
    links = tool_offsets(tool, volume.shape[0], offsets)
    # Where a file names its axes, its reader has turned them already.
    turned = rule.axes == "xyz" and said.sources.get("axes", "").startswith("guess")
    shape = (volume.shape[0], *volume.spatial_shape[::-1]) if turned else volume.shape

    def read(box: Box) -> NDArray[Any]:
        return volume.read(_backwards(box)).transpose(0, 3, 2, 1) if turned else volume.read(box)

    ours = ComputedVolume(shape, volume.dtype, read)
    ours.metadata = _turned(said) if turned else said
    ours.metadata = replace(ours.metadata, kind="affinities", offsets=links, one_means=rule.one_means)
    return ours


def exported(volume: Volume, tool: Tool, offsets: Sequence[Offset] | None) -> Volume:
    """Return affinities as a tool takes them; for tools with axes x, y, z no offsets are said, so nobody misreads them.

    Raises
    ------
    InputError : not affinities that say their offsets, or links that the tool wants are not there
    """
    check_affinity_volume(volume)
    said, rule = volume.metadata, CONVENTIONS[tool]
    backwards = rule.axes == "xyz"
    links = export_offsets(said.offsets or (), tool, offsets)
    reach = [max(abs(link[axis]) for link in (*links, *(said.offsets or ()))) for axis in range(3)]
    whole = Box.of_shape(volume.spatial_shape)
    as_bytes = volume.dtype == np.uint8 and (said.scale is None or np.isclose(said.scale, 1 / 255))
    dtype = np.dtype(np.uint8 if as_bytes else np.float32)
    if said.mask is not None:
        log.warning("%s does not know masks: links that are not known keep the values they have", tool)

    def read(box: Box) -> NDArray[Any]:
        box = _backwards(box) if backwards else box
        around = box.grow(reach).clip(whole)
        values = with_offsets(read_affinities(volume, around), links).values
        here = box.shift([-n for n in around.start]).slices
        return tool_values(values[(slice(None), *here)], tool).astype(dtype, copy=False)

    # Read once, so that links that are not there are told before anything is written.
    with_offsets(read_affinities(volume, Box((0, 0, 0), (1, 1, 1))), links)
    shape = whole.shape[::-1] if backwards else whole.shape
    theirs = ComputedVolume((len(links), *shape), dtype, read)
    scale = 1 / 255 if as_bytes else None
    told = replace(said, kind="affinities", scale=scale, offsets=links, one_means=rule.one_means, mask=None)
    if backwards:
        told = replace(_turned(told), axes=("c", "x", "y", "z"), offsets=None, one_means=None)
    theirs.metadata = told
    return theirs


def _backwards(box: Box) -> Box:
    return Box(box.start[::-1], box.stop[::-1])


def _turned(said: Metadata) -> Metadata:
    size = None if said.voxel_size is None else said.voxel_size[::-1]
    return replace(said, voxel_size=size, offset=said.offset[::-1])
