"""Find the centre lines of labels (TEASAR) and write them as one npz, or as a folder of SWC files.

Parameters in nm mean the same at any voxel size. On a large volume give --stride: of so many voxels along z, y, x one
is taken, and memory follows what is left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from neuropil.config import Triple, TripleNm, dump
from neuropil.errors import OutputExists
from neuropil.files import write_json
from neuropil.stages import StageResult
from neuropil.stages.common import versions
from neuropil.stages.lines import Lines, make_lines, read_labels
from neuropil.volume import open_volume
from neuropil.volume.skeleton_files import write_skeletons
from neuropil.volume.thinned import ThinnedVolume

EXAMPLES = [
    "neuropil skeletonize --labels truth.h5:ids --output skeletons.npz",
    "neuropil skeletonize --labels neurons.zarr --output swc --stride 1,4,4 --tick-nm 500 --spacing-nm 200",
    "neuropil skeletonize --labels seg_0-0-0_pad.h5:main --voxel-size 30,8,8 --margin 20,512,512 --output axons.npz",
]
POSITIONAL = ()


class Config(Lines):
    """Fields of [skeletonize]."""

    labels: str = Field(description="URI of labels")
    output: Path = Field(description="file.npz, or a folder for one SWC file per label")
    voxel_size: TripleNm | None = Field(None, description="nm z,y,x, where the labels do not tell it")
    margin: Triple = Field((0, 0, 0), description="voxels z,y,x left out at each face")
    stride: Triple = Field((1, 1, 1), description="take one voxel of so many along z,y,x")
    overwrite: bool = Field(False, description="replace the output")


def run(config: Config) -> StageResult:
    """Skeletonize one volume."""
    if not config.overwrite and (config.output.is_file() or any(config.output.glob("*.swc"))):
        raise OutputExists(f"output {config.output} exists; give --overwrite to replace it")
    with open_volume(config.labels) as volume:
        thinned = ThinnedVolume(volume, margin=config.margin, stride=config.stride, voxel_size=config.voxel_size)
        labels = read_labels(thinned)
    skeletons = make_lines(labels, config)
    write_skeletons(config.output, skeletons, voxel_size=labels.voxel_size, overwrite=config.overwrite)
    data: dict[str, Any] = {
        "labels": config.labels,
        "output": str(config.output),
        "voxel_size": labels.voxel_size,
        "skeletons": len(skeletons),
        "nodes": sum(len(one.vertices_nm) for one in skeletons.values()),
        "length_um": sum(one.length_nm for one in skeletons.values()) / 1000,
        "config": dump(config),
        "versions": versions(),
    }
    write_json(config.output.with_name(f"{config.output.name}.json"), data)
    text = f"{len(skeletons)} skeletons, {data['nodes']} nodes, {data['length_um']:.1f} um -> {config.output}"
    return StageResult(text, data)
