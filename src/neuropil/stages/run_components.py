"""The steps of `neuropil run --method components` that are its own, each for one box.

All others are those of fragments: pieces are joined, added up and named like these, but there are no plateaus, no
contacts and no merges.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuropil.geometry import Box
from neuropil.segmentation.components import inner_links, interior_of, strong_links
from neuropil.segmentation.components_blocks import HALO, block_components
from neuropil.segmentation.linkage_parts import PartLinks
from neuropil.segmentation.watershed_blocks import face_pairs, join_pairs
from neuropil.stages.run_files import Job, load, load_array, save, save_array, save_table
from neuropil.stages.run_steps import in_front, joined, link, masked, nearest, no_pairs, sides_of


def components(job: Job, box: Box) -> None:
    """Label a block's pieces."""
    region = box.grow((HALO,) * 3).clip(job.whole)
    made = block_components(_links(job, region), region, box, job.shape)
    save_array(job.array("ids", box), made.ids)
    save(job.file("sides", box), sides_of(made.labels, made.bits))
    save_array(job.array("fragments", box), made.labels)


def _links(job: Job, region: Box) -> NDArray[np.uint8]:
    """Read a region, and tell which voxels are linked."""
    boundary = job.source.boundary(region)
    if boundary is None:
        return strong_links(nearest(job, region), job.threshold)
    interior = interior_of(boundary, job.threshold)
    if job.mask is not None:
        interior &= ~masked(job, region)
    return inner_links(interior, per_section=job.source.per_section)


def faces(job: Job, box: Box) -> None:
    """Find what links join across the faces in front of a block."""
    ids, own = load_array(job.array("ids", box)), load(job.file("sides", box))
    known = no_pairs()
    for axis, _, there, beyond, names in in_front(job, box):
        here = own[f"low{axis}"].astype(np.uint64), own[f"low_bits{axis}"]
        pairs = face_pairs((there, beyond), here, axis)
        known[f"pairs{axis}"] = np.stack([names[pairs[:, 0]], ids[pairs[:, 1]]], 1)
    save(job.file("faces", box), known)
    save_table(job.array("join_names", box), *join_pairs([]))


def sizes(job: Job, box: Box) -> None:
    """Count the voxels of a block's pieces; those that end in the block are done."""
    names, voxels = joined(job, box)
    link(job, box, PartLinks.of(names, voxels, [], [], []))
