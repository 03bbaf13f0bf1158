"""The steps of `neuropil run` in their order, and what the process that starts them does itself.

That is little: all steps but the last cut are boxes for workers, in levels of 1, 8, 64 ... blocks, so that nobody but
the cut, which takes a few bytes per segment, holds lists of the whole volume.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.blockwise import Ledger, Pool
from neuropil.files import writing
from neuropil.segmentation.agglomeration_parts import Merges
from neuropil.segmentation.linkage import MergeTree, cut
from neuropil.stages import run_steps
from neuropil.stages.run_files import Job, load, save_array, save_table
from neuropil.stages.run_step import Step, do_step


def steps_in_order(job: Job) -> list[Step]:
    """Return the steps up to the merge tree."""
    steps: list[Step] = []

    def each(name: str, work: Any) -> None:
        steps.append(Step(name, partial(job.boxes, 0), partial(work, job)))

    def climb(name: str, work: Any) -> None:
        for level in range(1, job.top + 1):
            steps.append(Step(f"{name} {level}", partial(job.boxes, level), partial(work, job, level=level)))

    each("fragments", run_steps.fragments)
    climb("plateaus", run_steps.plateaus)
    each("faces", run_steps.faces)
    climb("join", run_steps.join)
    each("linkage", run_steps.link_block)
    climb("linkage", run_steps.link_group)
    each("agglomeration", run_steps.merge_block)
    climb("agglomeration", run_steps.merge_group)
    return steps


def run_in_order(job: Job, ledger: Ledger, pool: Pool, threshold: float | None) -> int:
    """Do what is not done yet, up to the table of labels; return the number of segments."""
    for step in steps_in_order(job):
        do_step(step, ledger, pool)
    return _cut(job, threshold)


def _cut(job: Job, threshold: float | None) -> int:
    """Write the merge tree and the table segment -> label; return the number of labels."""
    nodes = np.sort(_everywhere(job, "linkage", "final"))
    merges = Merges.joined([Merges(*(_everywhere(job, "agglomeration", n) for n in Merges.__dataclass_fields__))])
    u, v = (np.searchsorted(nodes, end).astype(np.uint64) + np.uint64(1) for end in (merges.u, merges.v))
    tree = MergeTree(u, v, (merges.score / np.float32(job.unit)).astype(np.float32), nodes.size)
    with writing(job.work / "tree.npz") as file:
        np.savez(file, u=tree.u, v=tree.v, affinity=tree.affinity)
    labels = cut(tree, 2.0 if threshold is None else threshold)[1:]
    save_table(job.table("segments"), nodes, labels)
    save_array(job.table("nodes"), np.stack([nodes, labels]))
    return int(labels.max(initial=0))


def _everywhere(job: Job, step: str, name: str) -> NDArray[Any]:
    """Return what a step knows of all boxes of all levels."""
    boxes = [box for level in range(job.top + 1) for box in job.boxes(level)]
    return np.concatenate([load(job.file(step, box), [name])[name] for box in boxes])
