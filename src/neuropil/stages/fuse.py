"""Fuse several people's annotations of one cube into one, with a confidence and a mask to train with.

Ids of different people need not match. The fused labels agree with most annotators on which voxels belong together;
annotators weigh by how far they agree with the others. Writes the labels, and if asked the confidence (float32, share
of annotators who agree about a voxel) and the mask (1 where that is at least --least). Three annotations or more are
needed to outvote a slip; of two, what they disagree on stays apart and unsure.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuropil.config import Names, Numbers, StageConfig, dump
from neuropil.crowd.annotations import Background, FusedAnnotation, fuse_annotations
from neuropil.errors import ConfigError, InputError
from neuropil.files import write_json
from neuropil.progress import track
from neuropil.stages import StageResult
from neuropil.stages.common import placed, refuse_outputs, section_box, sidecar, versions, write_volume
from neuropil.volume import open_volume

EXAMPLES = [
    "neuropil fuse --annotations ann.h5:ids,bob.h5:ids,eve.tif --output fused.zarr/labels",
    "neuropil fuse --annotations a.h5:x,b.h5:x,c.h5:x --output fused.h5:labels --confidence fused.h5:confidence"
    " --mask fused.h5:mask",
]
POSITIONAL = ()


class Config(StageConfig):
    """Fields of [fuse]."""

    annotations: Names = Field(description="URIs of labels of one cube, at least two: a.h5:x,b.h5:x,c.h5:x")
    output: str = Field(description="URI of the fused labels (uint64)")
    confidence: str | None = Field(None, description="URI of the confidence to write (float32)")
    mask: str | None = Field(None, description="URI of the mask to write (uint8)")
    least: float = Field(0.75, ge=0, le=1, description="least confidence of the mask")
    background: Background = Field("opinion", description="whether 0 means that nothing is there, or not looked at")
    weights: Numbers | None = Field(None, description="how much annotators count; by their reliability if not given")
    overwrite: bool = Field(False, description="replace outputs that exist")


def run(config: Config) -> StageResult:
    """Fuse annotations in memory."""
    if len(config.annotations) < 2:
        raise ConfigError(f"annotations must be at least two; got {len(config.annotations)}")
    for source in config.annotations:
        refuse_outputs([config.output, config.confidence, config.mask], source, overwrite=config.overwrite)
    arrays, place = _read(config)
    fused = fuse_annotations(arrays, background=config.background, weights=config.weights)
    mask = fused.mask(config.least)
    write_volume(config.output, fused.labels, kind="labels", place=place, overwrite=config.overwrite)
    if config.confidence is not None:
        write_volume(config.confidence, fused.confidence, kind="image", place=place, overwrite=config.overwrite)
    if config.mask is not None:
        write_volume(config.mask, mask.astype(np.uint8), kind="mask", place=place, overwrite=config.overwrite)
    annotators = _annotators(config, fused)
    record = {"annotators": annotators, "config": dump(config), "versions": versions()}
    write_json(sidecar(config.output, "json"), record)
    lines = [f"{one['uri']:40} reliability {one['reliability']:.3f}  weight {one['weight']:.3f}" for one in annotators]
    share = float(mask.mean()) if mask.size else 0.0
    segments = int(fused.labels.max()) if fused.labels.size else 0
    lines.append(f"{config.output}: {segments} segments, {share:.1%} of voxels with confidence >= {config.least:g}")
    return StageResult("\n".join(lines), {"output": config.output, "segments": segments, "confident": share, **record})


def _read(config: Config) -> tuple[list[NDArray[Any]], dict[str, Any]]:
    """Read all annotations; place and voxel size are those of the first that knows them."""
    arrays: list[NDArray[Any]] = []
    place: dict[str, Any] = {"voxel_size": None, "offset": None}
    for uri in track(config.annotations, "read", len(config.annotations)):
        with open_volume(uri) as volume:
            if len(volume.shape) != 3 or volume.dtype.kind not in "ui":
                raise InputError(f"{uri} must hold integer labels (z, y, x); it holds {volume.dtype} {volume.shape}")
            if arrays and volume.shape != arrays[0].shape:
                first = config.annotations[0]
                raise InputError(f"{uri} must have the shape of {first}, {arrays[0].shape}; it has {volume.shape}")
            if place["voxel_size"] is None:
                place = placed(volume, section_box(volume, None))
            arrays.append(volume.read())
    return arrays, place


def _annotators(config: Config, fused: FusedAnnotation) -> list[dict[str, Any]]:
    return [
        {"uri": uri, "reliability": float(reliability), "weight": float(weight)}
        for uri, reliability, weight in zip(config.annotations, fused.reliability, fused.weights)
    ]
