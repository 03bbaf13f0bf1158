"""neuropil export INPUT OUTPUT: labels as other tools take them.

precomputed: a folder for Neuroglancer, with a mesh and properties (sizes) of each segment. ome-zarr: labels of an
OME-Zarr image that is there. webknossos: an agglomerate attachment (version 4) of fragments and their merge tree, as
`neuropil segment --fragments` writes them, or `neuropil run` without a merge threshold. All are read and written in
blocks. Skeletons are written as SWC by `neuropil skeletonize`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from neuropil.config import Name, StageConfig, Triple
from neuropil.errors import ConfigError, InputError, OutputExists
from neuropil.geometry import Box, grid
from neuropil.progress import track
from neuropil.report.pictures import colours_of
from neuropil.segmentation.agglomerates import agglomerates
from neuropil.segmentation.linkage import MergeTree
from neuropil.segmentation.survey import Survey
from neuropil.stages import StageResult
from neuropil.stages.common import sidecar
from neuropil.stages.export_meshes import default_stride, write_meshes
from neuropil.volume import Volume, exports, open_volume
from neuropil.volume.copying import copy_volume

EXAMPLES = [
    "neuropil export neurons.zarr for_neuroglancer",
    "neuropil export neurons.zarr for_neuroglancer --mesh-stride 1,4,4 --mesh-dust 1000",
    "neuropil export neurons.zarr image.zarr --to ome-zarr --name neurons",
    "neuropil export fragments.zarr agglomerates/view_50 --to webknossos --merge-threshold 0.5",
]
POSITIONAL = ("input", "output")
LISTED = 10_000
"""Labels whose colours and sizes are listed in OME-Zarr's metadata, the largest first."""


class Config(StageConfig):
    """Fields of [export]."""

    input: str = Field(description="URI of labels; of fragments for webknossos")
    output: Path = Field(description="folder to write; for ome-zarr the image that gets the labels")
    to: Literal["precomputed", "ome-zarr", "webknossos"] = Field("precomputed", description="who shall read it")
    meshes: bool = Field(True, description="precomputed: write the surface of each segment")
    mesh_stride: Triple | None = Field(
        None, description="voxels z,y,x of which one is taken for meshes; default: about as wide as sections are thick"
    )
    mesh_dust: int = Field(100, ge=0, description="segments of fewer voxels have no mesh")
    name: Name = Field("segmentation", description="ome-zarr: of the labels")
    merge_threshold: float | None = Field(
        None, ge=0, le=1, description="webknossos: fragments are merged at this score or above"
    )
    tree: Path | None = Field(None, description="webknossos: the merge tree; beside the fragments if not given")
    block: Triple = Field((64, 256, 256), description="voxels z,y,x that are looked at at once")
    overwrite: bool = Field(False, description="replace the output")


def run(config: Config) -> StageResult:
    """Export one volume; the output appears under its name when it is complete."""
    if min(config.block) < 1 or (config.mesh_stride is not None and min(config.mesh_stride) < 1):
        raise ConfigError("block and mesh_stride must be three positive numbers z,y,x")
    with open_volume(config.input) as volume:
        if len(volume.shape) != 3 or volume.dtype.kind not in "ui":
            raise InputError(
                f"{config.input} must hold integer labels (z, y, x); it holds {volume.dtype} {volume.shape}"
            )
        if config.to == "ome-zarr":
            return _ome_zarr(config, volume)
        if config.output.exists() and not config.overwrite:
            raise OutputExists(f"output {config.output} exists; give --overwrite to replace it")
        part = config.output.with_name(f".{config.output.name}.partial")
        shutil.rmtree(part, ignore_errors=True)
        try:
            result = (
                _precomputed(config, volume, part) if config.to == "precomputed" else _webknossos(config, volume, part)
            )
            _replace(part, config.output)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return result


def _precomputed(config: Config, volume: Volume, part: Path) -> StageResult:
    size = volume.metadata.voxel_size
    if size is None:
        raise InputError(f"{config.input} does not tell its voxel size; record it: neuropil convert --voxel-size Z,Y,X")
    _copy(volume, f"precomputed://{part}")
    found = survey(volume, config.block)
    meshes = 0
    exports.add_to_precomputed(part, meshes=config.meshes)
    if config.meshes:
        wanted = found.ids[found.voxels >= config.mesh_dust]
        meshes = write_meshes(part, volume, config.mesh_stride or default_stride(size), config.block, wanted)
    cubic = float(np.prod(size)) / 1e9
    numbers = {
        "voxels": (found.voxels, "number of voxels"),
        "volume_um3": (found.voxels * cubic, "cubic micrometres"),
        "sections": ((found.high - found.low)[:, 0], "sections from the first to the last"),
    }
    exports.write_properties(part, found.ids, numbers)
    text = f"{config.output}: {found.ids.size} segments, {meshes} meshes; open it as precomputed://... in Neuroglancer"
    return StageResult(text, {"output": str(config.output), "segments": found.ids.size, "meshes": meshes})


def _ome_zarr(config: Config, volume: Volume) -> StageResult:
    image = config.output
    names = exports.label_names(image)
    with open_volume(str(image)) as known:
        if known.spatial_shape != volume.spatial_shape:
            raise InputError(
                f"labels must have the extent of the image, {known.spatial_shape}; {config.input} has {volume.shape}"
            )
    target = image / "labels" / config.name
    if target.exists() and not config.overwrite:
        raise OutputExists(f"output {target} exists; give --overwrite to replace it")
    part = Path(f"{str(image).rstrip('/')}.{config.name}.partial.zarr")
    shutil.rmtree(part, ignore_errors=True)
    try:
        _copy(volume, str(part))
        found = survey(volume, config.block)
        largest = np.sort(np.argsort(-found.voxels, kind="stable")[:LISTED])
        ids = found.ids[largest].tolist()
        colours = dict(zip(ids, map(tuple, colours_of(found.ids[largest]).tolist())))
        exports.mark_as_labels(part, colours, dict(zip(ids, found.voxels[largest].tolist())))
        target.parent.mkdir(exist_ok=True)
        _replace(part, target)
        exports.name_labels(image, sorted({*names, config.name}))
    finally:
        shutil.rmtree(part, ignore_errors=True)
    text = f"{target}: {found.ids.size} labels of the OME-Zarr image {image}"
    return StageResult(text, {"output": str(target), "segments": found.ids.size})


def _webknossos(config: Config, volume: Volume, part: Path) -> StageResult:
    if config.merge_threshold is None:
        raise ConfigError("webknossos needs merge_threshold: the score at or above which fragments are one agglomerate")
    found = survey(volume, config.block)
    n = found.ids.size
    if not np.array_equal(found.ids, np.arange(1, n + 1, dtype=np.uint64)):
        raise InputError(
            f"{config.input} must hold fragments 1 to {n}; its greatest id is {found.ids[-1]}; give what"
            " neuropil segment --fragments wrote"
        )
    tree = read_tree(config.tree or sidecar(config.input, "tree.npz"), n)
    made = agglomerates(tree, config.merge_threshold)
    order = made.fragments.astype(np.int64) - 1
    arrays: dict[str, Any] = {
        "segment_to_agglomerate": made.of_fragment,
        "agglomerate_to_segments_offsets": made.starts,
        "agglomerate_to_segments": made.fragments,
        "agglomerate_to_edges_offsets": made.edge_starts,
        "agglomerate_to_edges": made.edges,
        "agglomerate_to_affinities": made.scores,
        "agglomerate_to_positions": np.ascontiguousarray(found.place[order][:, ::-1], np.int32),
    }
    exports.write_agglomerates(part, arrays)
    count = made.starts.size - 2
    text = f"{config.output}: {count} agglomerates of {tree.size} fragments; its place is LAYER/agglomerates/NAME"
    return StageResult(text, {"output": str(config.output), "fragments": tree.size, "agglomerates": count})


def survey(volume: Volume, block: tuple[int, int, int]) -> Survey:
    """Survey all labels of a volume, block by block."""
    boxes = list(grid(Box.of_shape(volume.spatial_shape), block))
    return Survey.united([Survey.of(volume.read(box), box.start) for box in track(boxes, "survey", len(boxes))])


def read_tree(path: Path, size: int) -> MergeTree:
    """Read a merge tree of so many nodes.

    Raises
    ------
    InputError : there is none, or it has other nodes
    """
    try:
        with np.load(path) as file:
            tree = MergeTree(file["u"], file["v"], file["affinity"], size)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"tree {path} must be a merge tree that neuropil segment --fragments or neuropil run wrote ({error})"
        ) from None
    if int(tree.v.max(initial=0)) > size:
        raise InputError(f"tree {path} must be of the {size} fragments that are given; it names {int(tree.v.max())}")
    return tree


def _copy(volume: Volume, uri: str) -> None:
    metadata = volume.metadata
    dtype = None if volume.dtype.kind == "u" else "uint64"
    copy_volume(volume, uri, metadata=type(metadata)(metadata.voxel_size, metadata.offset, "labels"), dtype=dtype)


def _replace(part: Path, target: Path) -> None:
    """Put a folder in the place of another."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(part, target)
    shutil.rmtree(old, ignore_errors=True)
