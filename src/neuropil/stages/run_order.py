"""The methods of `neuropil run`, each a list of steps, and what the process that starts them does itself.

That is little: all steps but the last cut are boxes for workers, in levels of 1, 8, 64 ... blocks, so that nobody but
the cut, which takes a few bytes per segment, holds lists of the whole volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from neuropil.files import writing
from neuropil.segmentation.agglomeration_parts import Merges
from neuropil.segmentation.contacts import STEPS
from neuropil.segmentation.linkage import MergeTree, cut
from neuropil.segmentation.merge_tree_parts import TreeEdges
from neuropil.stages import run_components, run_steps, run_tree
from neuropil.stages.run_files import Arrays, Job, load, save_array, save_table
from neuropil.stages.run_step import Step

T = TypeVar("T", Merges, TreeEdges)


@dataclass(frozen=True)
class Part:
    """One or two steps of a method: `block` for each block, `group` for boxes of 2, 4 ... blocks along each axis."""

    name: str
    block: Callable[..., None] | None = None
    group: Callable[..., None] | None = None


_FRAGMENTS = (
    Part("fragments", run_steps.fragments),
    Part("plateaus", group=run_steps.plateaus),
    Part("faces", run_steps.faces),
    Part("join", group=run_steps.join),
    Part("linkage", run_steps.link_block, run_steps.link_group),
)
METHODS = {
    "components": (
        Part("components", run_components.components),
        Part("faces", run_components.faces),
        Part("join", group=run_steps.join),
        Part("sizes", run_components.sizes, run_steps.link_group),
    ),
    "size": (*_FRAGMENTS, Part("tree", run_tree.tree_block, run_tree.tree_group)),
    "mean": (*_FRAGMENTS, Part("agglomeration", run_steps.merge_block, run_steps.merge_group)),
}
CLIMBING = {part.name for parts in METHODS.values() for part in parts if part.group is not None}
"""Steps that have levels."""


def method_steps(job: Job) -> Iterator[Step]:
    """Yield the steps of a job's method."""
    for part in METHODS[job.method]:
        if part.block is not None:
            yield Step(part.name, partial(job.boxes, 0), partial(part.block, job))
        if part.group is None:
            continue
        for level in range(1, job.top + 1):
            yield Step(f"{part.name} {level}", partial(job.boxes, level), partial(part.group, job, level=level))


def number_segments(job: Job, threshold: float | None) -> int:
    """Write the merge tree, if there are merges, and the table node -> label; return the number of labels."""
    nodes = np.sort(np.concatenate([known["final"] for known in _everywhere(job, "linkage", ["final"])]))
    u, v, affinity = _merges(job, nodes)
    tree = MergeTree(u.astype(np.uint64) + np.uint64(1), v.astype(np.uint64) + np.uint64(1), affinity, nodes.size)
    if job.method != "components":
        with writing(job.work / "tree.npz") as file:
            np.savez(file, u=tree.u, v=tree.v, affinity=tree.affinity)
    labels = cut(tree, 2.0 if threshold is None else threshold)[1:]
    save_table(job.table("segments"), nodes, labels)
    save_array(job.table("nodes"), np.stack([nodes, labels]))
    return int(labels.max(initial=0))


def _merges(job: Job, nodes: NDArray[np.uint64]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    """Return which nodes merge, as places in a list of them, and at which affinity, best first."""
    if job.method == "mean":
        merges = Merges.joined(_placed(job, "agglomeration", Merges, nodes))
        return merges.u, merges.v, (merges.score / np.float32(STEPS)).astype(np.float32)
    if job.method == "size":
        tree = TreeEdges.joined(_placed(job, "tree", TreeEdges, nodes))
        return tree.first_u, tree.first_v, tree.affinity
    return np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.float32)


def _placed(job: Job, step: str, kind: type[T], nodes: NDArray[np.uint64]) -> Iterator[T]:
    """Yield what a step knows of each box, with places in the list of nodes, which take fewer bytes, for their ids."""
    dtype = np.min_scalar_type(nodes.size)
    for known in _everywhere(job, step, list(kind.__dataclass_fields__)):
        ids = {name: values for name, values in known.items() if values.dtype == np.uint64}
        yield kind(**known | {name: np.searchsorted(nodes, values).astype(dtype) for name, values in ids.items()})


def _everywhere(job: Job, step: str, names: Sequence[str]) -> Iterator[Arrays]:
    """Yield what a step knows of each box of each level."""
    for level in range(job.top + 1):
        for box in job.boxes(level):
            yield load(job.file(step, box), names)
