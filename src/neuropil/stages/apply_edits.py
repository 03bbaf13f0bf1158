"""Write a segmentation as it was corrected in `neuropil view --edit`: labels to go on with, or to train on.

The log beside the segmentation is replayed on the table fragment -> segment, and voxels are renamed block by block, so
volumes may be of any size. With --mask, only what somebody corrected is 1, for `neuropil train` to learn from it alone.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuropil.config import StageConfig, dump
from neuropil.errors import InputError, VolumeNotFound
from neuropil.files import write_json
from neuropil.geometry import Box
from neuropil.segmentation.edits import Edits
from neuropil.segmentation.splitting import FragmentGraph
from neuropil.stages import StageResult
from neuropil.stages.common import ComputedVolume, placed, refuse_outputs, sidecar, versions
from neuropil.stages.edit_log import edits_of, log_path, read_log
from neuropil.stages.fragment_graph import load_graph
from neuropil.volume import Metadata, Volume, open_volume
from neuropil.volume.copying import copy_volume

EXAMPLES = [
    "neuropil apply-edits --segmentation ids.zarr --fragments fragments.zarr --output corrected.zarr",
    "neuropil apply-edits --segmentation ids.zarr --output corrected.h5:labels --mask corrected.h5:mask",
]
POSITIONAL = ()


class Config(StageConfig):
    """Fields of [apply-edits]."""

    segmentation: str = Field(description="URI of the segmentation that was edited")
    fragments: str | None = Field(None, description="URI of its fragments, if it was edited with them")
    log: Path | None = Field(None, description="file of the edits; beside the segmentation if not given")
    output: str = Field(description="URI of the corrected labels to write (uint64)")
    mask: str | None = Field(None, description="URI; also write a mask, 1 in segments that were edited")
    overwrite: bool = Field(False, description="replace outputs that exist")


def run(config: Config) -> StageResult:
    """Replay the log and rename voxels."""
    refuse_outputs([config.output, config.mask, config.fragments], config.segmentation, overwrite=True)
    refuse_outputs([config.output, config.mask], config.segmentation, overwrite=config.overwrite)
    path = log_path(config.segmentation, None if config.log is None else str(config.log))
    if not path.exists():
        raise VolumeNotFound(f"there is no log of edits {path}; neuropil view --edit writes one")
    graph = None if config.fragments is None else load_graph(config.fragments)
    done = read_log(path, graph)
    edits = edits_of(path, graph, done)
    with ExitStack() as kept:
        segmentation = kept.enter_context(open_volume(config.segmentation))
        if len(segmentation.shape) != 3 or segmentation.dtype.kind not in "ui":
            raise InputError(
                f"segmentation must hold integers (z, y, x); it holds {segmentation.dtype} {segmentation.shape}"
            )
        place = placed(segmentation, Box.of_shape(segmentation.spatial_shape))
        fragments = segmentation if config.fragments is None else kept.enter_context(open_volume(config.fragments))
        if fragments.shape != segmentation.shape:
            raise InputError(
                f"fragments must have the extent of the segmentation, {segmentation.shape}; got {fragments.shape}"
            )

        def corrected(box: Box) -> NDArray[np.uint64]:
            return _corrected(edits, graph, fragments, segmentation, box)

        def edited(box: Box) -> NDArray[np.uint8]:
            return np.isin(corrected(box), np.array(edits.segments_touched(), np.uint64)).astype(np.uint8)

        labels = ComputedVolume(segmentation.shape, np.uint64, corrected)
        copy_volume(labels, config.output, metadata=_said("labels", place), overwrite=config.overwrite)
        if config.mask is not None:
            mask = ComputedVolume(segmentation.shape, np.uint8, edited)
            copy_volume(mask, config.mask, metadata=_said("mask", place), overwrite=config.overwrite)
    standing = [edit.op for edit in edits.standing]
    counts = {"merges": standing.count("merge"), "splits": standing.count("split"), "lines": len(done)}
    record = {"config": dump(config), "versions": versions(), **counts}
    write_json(sidecar(config.output, "json"), record)
    stand = f"{counts['merges']} merges and {counts['splits']} splits"
    text = f"{config.output}: {stand} stand, of {len(done)} lines of {path}"
    return StageResult(text, {"output": config.output, "log": str(path), **record})


def _said(kind: Any, place: dict[str, Any]) -> Metadata:
    return Metadata(kind=kind, sources={}, **place)


def _corrected(
    edits: Edits, graph: FragmentGraph | None, fragments: Volume, segmentation: Volume, box: Box
) -> NDArray[np.uint64]:
    """Return the corrected labels of a box.

    Raises
    ------
    InputError : the segmentation is not what the fragments give
    """
    pieces = fragments.read(box)
    if graph is not None:
        made, labels = Edits(graph.segments).apply(pieces), segmentation.read(box)
        if not np.array_equal(made, labels):
            raise InputError(
                f"{segmentation.uri} is not what {fragments.uri} and its graph give between {box.start} and {box.stop};"
                " give the two that one command wrote"
            )
    return edits.apply(pieces)
