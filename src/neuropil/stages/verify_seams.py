"""neuropil verify-seams: does a crop of your own data come out of blocks as it does whole?

A crop of affinities or of a boundary map is segmented twice, by `neuropil run` in blocks and by `neuropil segment` in
one piece, and compared voxel by voxel.
Of either result, and of any segmentation that another program made in blocks, the seam statistic says whether labels
change more often at the faces of blocks than elsewhere.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuropil.config import Sections, Triple
from neuropil.errors import ConfigError, InputError, NeuropilError
from neuropil.geometry import Box
from neuropil.metrics.seams import Seam, seams
from neuropil.stages import StageResult
from neuropil.stages import run as blocks
from neuropil.stages import segment as whole
from neuropil.stages.affinities import read_affinities, write_affinities
from neuropil.stages.common import placed, read_boundary, write_volume
from neuropil.stages.methods import Method, MethodConfig
from neuropil.volume import Volume, open_volume

EXAMPLES = [
    "neuropil verify-seams --input affinities.zarr --block 16,128,128 --merge-threshold 0.6",
    "neuropil verify-seams --input affinities.zarr --sections 20:60 --rows 0:300 --columns 0:300 --block 16,100,100",
    "neuropil verify-seams --input boundary.h5:map --block 16,100,100 --method components --threshold 0.4",
    "neuropil verify-seams --segmentation theirs.zarr --block 64,512,512",
]
POSITIONAL = ()
SHARED = ("method", "per_section", "threshold", "low", "high", "size", "size_threshold", "dust", "merge_threshold")
"""Fields of run and of segment."""


class Config(MethodConfig):
    """Fields of [verify-seams]."""

    input: str | None = Field(None, description="URI of affinities or a boundary map; segmented in blocks and whole")
    segmentation: str | None = Field(None, description="URI of a segmentation that was made in blocks, to be looked at")
    block: Triple = Field(description="voxels z,y,x of a block")
    sections: Sections | None = Field(None, description="crop; all if not given, as for rows and columns")
    rows: Sections | None = Field(None, description="crop in y")
    columns: Sections | None = Field(None, description="crop in x")
    method: Method = Field("mean", description="this and what follows as for run")
    per_section: bool = Field(True, description="as for run")
    threshold: float = Field(0.5, ge=0, le=1, description="as for run")
    low: float = Field(0.3, description="as for run")
    high: float = Field(0.999, description="as for run")
    size: float = Field(256, ge=0, description="as for run")
    size_threshold: float = Field(0.3, description="as for run")
    dust: float = Field(256, ge=0, description="as for run")
    merge_threshold: float = Field(0.5, ge=0, le=1, description="as for run")


def run(config: Config) -> StageResult:
    """Compare, and tell."""
    if (config.input is None) == (config.segmentation is None):
        raise ConfigError("verify-seams needs either --input or --segmentation")
    if config.segmentation is not None:
        with open_volume(config.segmentation) as volume:
            box = _crop(config, volume)
            found = seams(volume.read(box), config.block, box.start)
        return StageResult("\n".join(_lines(found)), {"seams": [asdict(one) for one in found]})
    labels, expected = _both(config, config.input or "")
    differ = int(np.count_nonzero(labels != expected))
    found = seams(labels, config.block)
    data = {"voxels": labels.size, "differ": differ, "seams": [asdict(one) for one in found]}
    if differ:
        raise NeuropilError(
            f"{differ} of {labels.size} voxels differ between blocks of {config.block} and the whole: this is a bug of"
            " neuropil; please report it with the crop"
        )
    text = f"blocks of {config.block} and the whole of {labels.shape}: all {labels.size} voxels have the same id"
    return StageResult("\n".join([text, *_lines(found)]), data)


def _both(config: Config, uri: str) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Segment a crop in blocks and whole."""
    how: dict[str, Any] = {name: getattr(config, name) for name in SHARED}
    with tempfile.TemporaryDirectory() as folder:
        crop, one, other = (f"{folder}/{name}.zarr" for name in ("crop", "blocks", "whole"))
        with open_volume(uri) as volume:
            box = _crop(config, volume)
            facts: dict[str, Any] = {"place": placed(volume, box), "overwrite": False}
            if len(volume.shape) == 4:
                write_affinities(crop, read_affinities(volume, box), **facts)
            else:
                boundary = read_boundary(volume, box)
                scale = 1 / 255 if boundary.dtype == np.uint8 else None
                write_volume(crop, boundary, kind="boundary", scale=scale, **facts)
        blocks.run(blocks.Config(input=crop, output=one, block=config.block, executor="serial", **how))
        whole.run(whole.Config(input=crop, output=other, **how))
        with open_volume(one) as made, open_volume(other) as expected:
            return made.read(), expected.read()


def _crop(config: Config, volume: Volume) -> Box:
    """Return the part of a volume to look at.

    Raises
    ------
    InputError : a range beyond the volume's end
    """
    given = {"sections": config.sections, "rows": config.rows, "columns": config.columns}
    ranges = []
    for (name, wanted), extent in zip(given.items(), volume.spatial_shape):
        if wanted is not None and wanted[1] > extent:
            raise InputError(f"{name} must lie within 0:{extent} of {volume.uri}; got {wanted[0]}:{wanted[1]}")
        ranges.append(wanted or (0, extent))
    return Box(*zip(*ranges))


def _lines(found: tuple[Seam, ...]) -> list[str]:
    """Say it in words, one axis a line."""
    if not found:
        return ["no face of a block lies in the crop"]
    lines = ["labels change across           at faces  elsewhere  t (beyond 4 faces can be seen)"]
    for seam in found:
        name = f"planes along {'zyx'[seam.axis]}"
        lines.append(f"{name:30} {100 * seam.at_faces:7.2f} %  {100 * seam.elsewhere:7.2f} %  {seam.t:+.1f}")
    return lines
