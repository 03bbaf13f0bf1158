"""The steps of `neuropil run --method size` that find the merge tree, each for one box."""

from __future__ import annotations

from neuropil.geometry import Box
from neuropil.segmentation.merge_tree_parts import TreeEdges, grow_part
from neuropil.stages.run_files import Job, load, save
from neuropil.stages.run_steps import at_outer_faces, contacts, keep_faces, nodes_of


def tree_block(job: Job, box: Box) -> None:
    """Find the edges of the merge tree that a block can tell."""
    keep_faces(job, box)
    _grow(job, box, TreeEdges.of_labels(nodes_of(job, box), *contacts(job, box, "u", "v", "largest")))


def tree_group(job: Job, box: Box, level: int) -> None:
    """Find those across what lies between the parts of a box."""
    names = {f"left_{name}": name for name in TreeEdges.__dataclass_fields__}
    parts = (load(job.file("tree", part), names) for part in job.parts(box, level))
    _grow(job, box, TreeEdges.joined(TreeEdges(**{names[key]: value for key, value in part.items()}) for part in parts))


def _grow(job: Job, box: Box, known: TreeEdges) -> None:
    tree, left = grow_part(known, at_outer_faces(job, "nodes_at_faces", box))
    save(job.file("tree", box), vars(tree) | {f"left_{name}": value for name, value in vars(left).items()})
