"""Turn a boundary map into a segmentation: connected components, or watershed with size-dependent linkage.

A boundary map is segmented section by section unless --no-per-section is given; affinities (c, z, y, x) are segmented
in 3-D.
"""

from __future__ import annotations

import time
from typing import Literal

import numpy as np
from pydantic import Field

from neuropil.config import Sections, StageConfig, dump
from neuropil.errors import ConfigError, InputError
from neuropil.files import replacing, write_json
from neuropil.segmentation.affinities import affinities_from_boundary_map
from neuropil.segmentation.components import components_of_map
from neuropil.segmentation.segment import segment_affinities
from neuropil.stages import StageResult
from neuropil.stages.common import (
    placed,
    read_boundary,
    refuse_outputs,
    section_box,
    sidecar,
    versions,
    write_volume,
)
from neuropil.volume import open_volume

EXAMPLES = [
    "neuropil segment --input boundary.h5:map --output segmentation.h5:ids",
    "neuropil segment --input boundary.h5:map --output ids.zarr --method components --threshold 0.4",
    "neuropil segment --input boundary.h5:map --output ids.tif --merge-threshold 0.5 --fragments fragments.tif",
]
POSITIONAL = ()
NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))


class Config(StageConfig):
    """Fields of [segment]."""

    input: str = Field(description="URI of a boundary map, or of affinities with nearest offsets")
    output: str = Field(description="URI of the segmentation to write (uint64)")
    fragments: str | None = Field(None, description="URI; also write the fragments, with their merge tree beside them")
    sections: Sections | None = Field(None, description="only these sections")
    method: Literal["components", "watershed"] = Field("watershed", description="decoder")
    per_section: bool = Field(True, description="segment every section by itself")
    threshold: float = Field(0.5, ge=0, le=1, description="components: interior is where P(boundary) is below")
    rule: Literal["interior", "min", "mean"] = Field("interior", description="how two voxels of a map make a link")
    low: float = Field(0.3, description="watershed: links at or below this affinity do not count")
    high: float = Field(0.999, description="watershed: links at or above this affinity always join")
    size: float = Field(256, ge=0, description="fragments below this many voxels are merged ...")
    size_threshold: float = Field(0.3, description="... with a neighbour linked at this affinity or above")
    dust: float = Field(256, ge=0, description="segments below this many voxels become background")
    merge_threshold: float | None = Field(None, description="fragments linked at this affinity or above are merged")
    overwrite: bool = Field(False, description="replace outputs that exist")


def run(config: Config) -> StageResult:
    """Segment a volume in memory."""
    if config.fragments is not None and config.method == "components":
        raise ConfigError("fragments are what method 'watershed' makes; drop fragments, or the method 'components'")
    refuse_outputs([config.output, config.fragments], config.input, overwrite=config.overwrite)
    start = time.monotonic()
    with open_volume(config.input) as volume:
        box = section_box(volume, config.sections)
        place = placed(volume, box)
        if len(volume.shape) == 4:
            if config.method == "components":
                raise InputError(
                    f"method 'components' needs a boundary map; {config.input} holds affinities {volume.shape}"
                )
            if volume.metadata.kind not in (None, "affinities"):
                raise InputError(f"{config.input} must hold affinities; its metadata call it {volume.metadata.kind}")
            if volume.metadata.offsets not in (None, NEAREST):
                raise InputError(
                    f"affinities must have the offsets {NEAREST}; those of {config.input} are {volume.metadata.offsets}"
                )
            source = volume.read(box)
        else:
            source = read_boundary(volume, box)
    if config.method == "components":
        labels = components_of_map(source, config.threshold, per_section=config.per_section)
    else:
        links = source
        if source.ndim == 3:
            links = affinities_from_boundary_map(source, per_section=config.per_section, rule=config.rule)
        result = segment_affinities(
            links,
            low=config.low,
            high=config.high,
            size=config.size,
            size_threshold=config.size_threshold,
            dust=config.dust,
            merge_threshold=config.merge_threshold,
        )
        labels = result.segmentation
        if config.fragments is not None:
            write_volume(config.fragments, result.fragments, kind="labels", place=place, overwrite=config.overwrite)
            tree = result.tree
            with replacing(sidecar(config.fragments, "tree.npz")) as part, part.open("wb") as file:
                np.savez(file, u=tree.u, v=tree.v, affinity=tree.affinity)
    write_volume(config.output, labels, kind="labels", place=place, overwrite=config.overwrite)
    record = {"config": dump(config), "versions": versions(), "seconds": round(time.monotonic() - start, 2)}
    write_json(sidecar(config.output, "json"), record)
    count = int(labels.max()) if labels.size else 0
    text = f"{config.output}: {count} segments in {labels.shape}, {100 * np.mean(labels == 0):.1f} % background"
    return StageResult(text, {"output": config.output, "segments": count, "shape": labels.shape, **record})
