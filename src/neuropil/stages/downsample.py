"""Add coarser copies to a volume, for viewers: levels of OME-Zarr, or scales of precomputed.

Each level halves the axes whose voxels are shorter than twice the shortest. Images are averaged, of labels the most
frequent is taken. `neuropil run --levels N` does the same for its output.
"""

from __future__ import annotations

import time

from pydantic import Field

from neuropil.config import StageConfig
from neuropil.progress import track
from neuropil.stages import StageResult
from neuropil.volume.pyramid import level_blocks, make_level, name_levels, plan_pyramid, write_level
from neuropil.volume.uri import parse_uri

EXAMPLES = [
    "neuropil downsample segmentation.zarr",
    "neuropil downsample precomputed://segmentation --levels 3",
]
POSITIONAL = ("input",)


class Config(StageConfig):
    """Fields of [downsample]."""

    input: str = Field(description="URI of a volume, x.zarr or precomputed://, that gets the levels; they are replaced")
    levels: int | None = Field(
        None, gt=0, le=16, description="how many; by default until a section is at most 512 voxels high and wide"
    )


def run(config: Config) -> StageResult:
    """Make one level after the other, then name them."""
    start, pyramid = time.monotonic(), plan_pyramid(parse_uri(config.input), config.levels)
    for number in range(1, len(pyramid.factors) + 1):
        make_level(pyramid, number)
        blocks = level_blocks(pyramid, number)
        for block in track(blocks, f"level {number}", len(blocks)):
            write_level(pyramid, number, block)
    name_levels(pyramid)
    each = ", ".join("×".join(map(str, factor)) for factor in pyramid.factors) or "it is small enough"
    text = f"{config.input}: {len(pyramid.factors)} levels by {pyramid.method} ({each})"
    return StageResult(text, {"factors": pyramid.factors, "seconds": round(time.monotonic() - start, 2)})
