"""What `neuropil run --fragments` keeps besides: the fragments that the merge tree is of, numbered, and their graph."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.blockwise import Ledger, Pool
from neuropil.files import write_text
from neuropil.geometry import Box
from neuropil.labels import apply_lookup
from neuropil.progress import track
from neuropil.segmentation.agglomeration_parts import unite
from neuropil.segmentation.contacts import STEPS
from neuropil.segmentation.pairs import find_ids
from neuropil.segmentation.splitting import FragmentGraph
from neuropil.stages.run_files import Job, chunk_of, load_array, map_array
from neuropil.stages.run_steps import contacts_of_nodes, nodes_of
from neuropil.tasks import run_tasks
from neuropil.volume import create_volume, open_volume

FRAGMENTS = "numbered fragments"


def fragments_uri(job: Job) -> str:
    """Return where the fragments are written to, a block at a time."""
    return f"{job.work}/fragments.zarr"


def keep_fragments(job: Job, ledger: Ledger, pool: Pool, place: dict[str, Any]) -> None:
    """Write the fragments, once the segmentation is there."""
    mark = job.work / "fragments.begun"
    if not mark.exists():
        ledger.forget(FRAGMENTS)
        size = {"chunk_shape": chunk_of(job.block), "kind": "labels", **place}
        create_volume(fragments_uri(job), overwrite=True, shape=job.shape, dtype=np.uint64, **size).close()
        write_text(mark, "")
    run_tasks(ledger, FRAGMENTS, job.boxes(0), partial(write, job), pool)


def write(job: Job, box: Box) -> None:
    """Write a block of fragments."""
    numbers = _numbers(job, nodes_of(job, box))
    with open_volume(fragments_uri(job), writable=True) as volume:
        volume.write(box, apply_lookup(load_array(job.array("fragments", box)), numbers))


def graph_of(job: Job) -> FragmentGraph:
    """Return which fragments touch, and the segment of each."""
    boxes = job.boxes(0)
    known = unite(contacts_of_nodes(job, box) for box in track(boxes, "graph of fragments", len(boxes)))
    mean = known.total / STEPS / np.maximum(known.count, 1)
    segments = np.concatenate([np.zeros(1, np.uint64), load_array(job.table("nodes"))[1]])
    return FragmentGraph(_numbers(job, known.u), _numbers(job, known.v), mean.astype(np.float32), segments)


def _numbers(job: Job, nodes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the numbers 1 ... n of nodes, in their order; 0 for background."""
    every = map_array(job.table("nodes"))[0]
    return np.where(nodes == 0, 0, find_ids(every, nodes) + 1).astype(np.uint64)
