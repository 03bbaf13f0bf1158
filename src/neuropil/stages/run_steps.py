"""The steps of `neuropil run` from links to merges of means, each for one box: read from the work folder, call array
functions, write back.

Only the first and the last step look at voxels. A block has labels of its own, 0 ... n, and a list of what they are
called in the volume; contacts lie between labels. So what blocks say to each other are lists, and a block brings its
own into the volume's words by one look-up per label.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.defects import long_runs
from neuropil.geometry import Box
from neuropil.labels import apply_lookup
from neuropil.segmentation.affinity_moves import cut_masked
from neuropil.segmentation.agglomeration_parts import PartEdges, agglomerate_part, unite
from neuropil.segmentation.contacts_blocks import BlockContacts, face_contacts, inner_contacts
from neuropil.segmentation.linkage import fragment_sizes
from neuropil.segmentation.linkage_parts import PartLinks, link_part
from neuropil.segmentation.pairs import find_ids
from neuropil.segmentation.watershed_blocks import (
    HALO,
    Plateaus,
    block_fragments,
    divide_shared,
    face_pairs,
    inner_pairs,
    join_pairs,
    settle,
)
from neuropil.stages.run_files import (
    Arrays,
    Job,
    called,
    load,
    load_array,
    load_shelf,
    map_array,
    rename,
    save,
    save_array,
    save_shelves,
    save_table,
)
from neuropil.volume import open_volume
from neuropil.volume.volume import open_location

_CONTACTS = {"u": np.uint32, "v": np.uint32, "total": np.int64, "count": np.uint32, "largest": np.float32}


def fragments(job: Job, box: Box) -> None:
    """Label a block's basins, and gather what else there is to know of its voxels."""
    region = box.grow((HALO,) * 3).clip(job.whole)
    affinities = nearest(job, region)
    made = block_fragments(affinities, region, box, job.shape, low=job.low, high=job.high)
    save(job.file("plateaus", box), {"places": made.open.places, "bits": made.open.bits})
    save_array(job.array("ids", box), made.ids)
    affinities = affinities[(slice(None), *box.shift([-n for n in region.start]).slices)].copy()
    links = {f"links{axis}": _plane(affinities[axis], axis, 0) for axis in range(3)}
    save(job.file("sides", box), sides_of(made.labels, made.bits) | links)
    save_array(job.array("fragments", box), made.labels)
    save(job.file("contacts", box), _packed(inner_contacts(made.labels, affinities)))


def sides_of(labels: NDArray[np.uint32], bits: NDArray[np.uint8]) -> Arrays:
    """Return the voxels of each of a block's labels, and labels and links in the planes at its faces."""
    sides: Arrays = {"sizes": fragment_sizes(labels)}
    for axis in range(3):
        for name, place in (("low", 0), ("high", -1)):
            sides[f"{name}{axis}"] = _plane(labels, axis, place)
            sides[f"{name}_bits{axis}"] = _plane(bits, axis, place)
    return sides


def plateaus(job: Job, box: Box, level: int) -> None:
    """Divide the plateaus that lie in a box of blocks."""
    parts = [Plateaus(**load(job.file("plateaus", part), ("places", "bits"))) for part in job.parts(box, level)]
    settled, left = divide_shared(parts, box, job.shape)
    save(job.file("plateaus", box), {"places": left.places, "bits": left.bits})
    along = [-(-n // k) for n, k in zip(box.shape, job.block)]
    at = np.stack(np.unravel_index(settled.places, job.shape)) - np.array(box.start)[:, None]
    owners = np.ravel_multi_index(tuple(at // np.array(job.block)[:, None]), tuple(along))
    values = settled.places << 8 | settled.bits
    save_shelves(job.array("settled", box), values, owners, int(np.prod(along)))


def faces(job: Job, box: Box) -> None:
    """Find what divided plateaus join in a block, and what links join and touch across the faces in front of it."""
    settled = _settled(job, box)
    labels, ids = map_array(job.array("fragments", box)), load_array(job.array("ids", box))
    save_table(job.array("join_names", box), *join_pairs([ids[inner_pairs(labels, settled, box, job.shape)]]))
    own = load(job.file("sides", box))
    known = no_pairs()
    found, count = [BlockContacts.united([])], ids.size
    for axis, front, there, beyond, names in in_front(job, box):
        here = own[f"low{axis}"].astype(np.uint64)
        bits = settle(own[f"low_bits{axis}"], _slab(box, axis, 0), job.shape, settled)
        beyond = settle(beyond, _slab(front, axis, -1), job.shape, _settled(job, front))
        pairs = face_pairs((there, beyond), (here, bits), axis)
        known[f"pairs{axis}"] = np.stack([names[pairs[:, 0]], ids[pairs[:, 1]]], 1)
        touching = _present(there, names.size)
        known[f"before{axis}"] = names[touching]
        own_labels = np.zeros(names.size, np.int64)  # labels in front of the block continue its own
        own_labels[touching] = count + np.arange(touching.size)
        count += touching.size
        found.append(face_contacts(here, own_labels[there], own[f"links{axis}"]))
    save(job.file("faces", box), known | _packed(BlockContacts.united(found)))


def in_front(
    job: Job, box: Box
) -> Iterator[tuple[int, Box, NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint64]]]:
    """Yield each axis along which a block lies in front: that block, labels and links at its far face, and its ids."""
    for axis in range(3):
        if box.start[axis] > 0:
            front = job.in_front(box, axis)
            sides = load(job.file("sides", front), (f"high{axis}", f"high_bits{axis}"))
            labels = sides[f"high{axis}"].astype(np.uint64)
            yield axis, front, labels, sides[f"high_bits{axis}"], map_array(job.array("ids", front))


def no_pairs() -> Arrays:
    """Return what `faces` knows where no block lies in front."""
    known: Arrays = {f"pairs{axis}": np.empty((0, 2), np.uint64) for axis in range(3)}
    return known | {f"before{axis}": np.empty(0, np.uint64) for axis in range(3)}


def join(job: Job, box: Box, level: int) -> None:
    """Join the pieces of fragments across what lies between the parts of a box."""
    pairs = []
    for block in job.parts(box, 1):
        part = job.above(block, level - 1)
        for axis in range(3):
            if block.start[axis] == part.start[axis] > box.start[axis]:
                front = job.in_front(block, axis)
                before, behind = load(job.file("faces", block), [f"pairs{axis}"])[f"pairs{axis}"].T
                ends = [
                    called(job, "join", front, before, below=level),
                    called(job, "join", block, behind, below=level),
                ]
                pairs.append(np.stack(ends, 1))
    save_table(job.array("join_names", box), *join_pairs(pairs))


def link_block(job: Job, box: Box) -> None:
    """Merge small fragments of a block, as far as it can tell."""
    names, sizes = joined(job, box)
    u, v, affinity = contacts(job, box, "u", "v", "largest")
    strong = (affinity > 0) & (job.size_rule(affinity.astype(np.float64)) > 0)  # others merge nothing
    link(job, box, PartLinks.of(names, sizes, u[strong], v[strong], affinity[strong]))


def joined(job: Job, box: Box) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return what a block's labels, and those before it, are called after all joins, and their voxels in the block.

    What lies at its faces is kept.
    """
    ids, sides = load_array(job.array("ids", box)), load(job.file("sides", box))
    names = [called(job, "join", box, ids)]
    at_faces: Arrays = {}
    for axis in range(3):
        before = load(job.file("faces", box), [f"before{axis}"])[f"before{axis}"]
        at_faces[f"before{axis}"] = called(job, "join", job.in_front(box, axis), before) if before.size else before
        names.append(at_faces[f"before{axis}"])
        for side in ("low", "high"):
            at_faces[f"{side}{axis}"] = np.unique(names[0][_present(sides[f"{side}{axis}"], ids.size)])
    every = np.concatenate(names)
    save_array(job.array("names", box), every)
    sizes = np.zeros(every.size, np.int64)
    sizes[: ids.size] = sides["sizes"]
    save(job.file("at_faces", box), at_faces)
    return every, sizes


def link_group(job: Job, box: Box, level: int) -> None:
    """Merge small fragments across what lies between the parts of a box."""
    names = PartLinks.__dataclass_fields__
    parts = (PartLinks(**load(job.file("linkage", part), names)) for part in job.parts(box, level))
    link(job, box, PartLinks.united(parts))


def link(job: Job, box: Box, known: PartLinks) -> None:
    """Merge what a box can tell, and give all that nothing more can happen to its final name, or 0 if it is dust."""
    # What is frozen keeps its name, so names at outer faces are still those of fragments.
    made = link_part(known, at_outer_faces(job, "at_faces", box), job.size_rule)
    kept = made.sizes >= job.dust
    gone = made.closed[~kept]
    at = find_ids(np.sort(gone), made.names)
    save_table(job.array("linkage_names", box), made.ids, np.where(at < gone.size, np.uint64(0), made.names))
    save(job.file("linkage", box), vars(made.left) | {"final": made.closed[kept]})


def merge_block(job: Job, box: Box) -> None:
    """Agglomerate a block's segments, as far as it can tell."""
    keep_faces(job, box)
    _merge(job, box, contacts_of_nodes(job, box))


def keep_faces(job: Job, box: Box) -> None:
    """Keep which nodes, that is what linkage left, lie at a block's faces."""
    at_faces = load(job.file("at_faces", box))
    nodes = {name: np.unique(called(job, "linkage", box, ids)) for name, ids in at_faces.items()}
    save(job.file("nodes_at_faces", box), nodes)


def nodes_of(job: Job, box: Box) -> NDArray[np.uint64]:
    """Return the nodes of a block's labels, and of those before it."""
    return called(job, "linkage", box, load_array(job.array("names", box)))


def contacts_of_nodes(job: Job, box: Box) -> PartEdges:
    """Return the contacts of a block's links between nodes."""
    return PartEdges.of_labels(nodes_of(job, box), *contacts(job, box, "u", "v", "total", "count"))


def merge_group(job: Job, box: Box, level: int) -> None:
    """Agglomerate across what lies between the parts of a box."""
    names = {f"left_{name}": name for name in PartEdges.__dataclass_fields__}
    parts = (load(job.file("agglomeration", part), names) for part in job.parts(box, level))
    _merge(job, box, unite(PartEdges(**{names[key]: value for key, value in part.items()}) for part in parts))


def _merge(job: Job, box: Box, known: PartEdges) -> None:
    merges, left = agglomerate_part(known, at_outer_faces(job, "nodes_at_faces", box))
    save(job.file("agglomeration", box), vars(merges) | {f"left_{name}": value for name, value in vars(left).items()})


def write(job: Job, box: Box) -> NDArray[np.uint64]:
    """Write a block of the segmentation, and return it."""
    names = rename(nodes_of(job, box), job.table("segments"))
    labels = apply_lookup(load_array(job.array("fragments", box)), names)
    with open_location(job.output, writable=True) as volume:
        volume.write(box, labels)
    return labels


def at_outer_faces(job: Job, name: str, box: Box) -> NDArray[np.uint64]:
    """Return the ids in a box, and just before it, that may go on beyond it."""
    found = [np.empty(0, np.uint64)]
    for block in job.parts(box, 1):
        wanted = []
        for axis in range(3):
            if block.start[axis] == box.start[axis] > 0:
                wanted += [f"low{axis}", f"before{axis}"]
            if block.stop[axis] == box.stop[axis] < job.shape[axis]:
                wanted.append(f"high{axis}")
        if wanted:
            found += load(job.file(name, block), wanted).values()
    return np.concatenate(found)


def nearest(job: Job, region: Box) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Read the affinities of nearest links; those of masked voxels are 0."""
    links = job.source.nearest(region)
    if job.mask is None:
        return links
    links = links.copy()
    cut_masked(links, masked(job, region))
    return links


def masked(job: Job, region: Box) -> NDArray[np.bool_]:
    """Tell which voxels are masked in more sections on end than the network bridges."""
    wide = region.grow((job.bridge, 0, 0)).clip(job.whole)
    with open_volume(job.mask or "") as volume:
        found = volume.read(wide.shift(job.mask_origin)) != 0
    return long_runs(found, job.bridge)[region.shift([-n for n in wide.start]).slices]


def _settled(job: Job, block: Box) -> Plateaus:
    """Read how the plateaus that a block shares were divided."""
    found = [np.empty(0, np.int64)]
    for box in job.around(block)[1:]:
        along = [-(-n // k) for n, k in zip(box.shape, job.block)]
        at = [(a - b) // k for a, b, k in zip(block.start, box.start, job.block)]
        shelf = int(np.ravel_multi_index(at, along))
        found.append(load_shelf(job.array("settled", box), shelf, int(np.prod(along))))
    values = np.sort(np.concatenate(found))
    return Plateaus(values >> 8, (values & 255).astype(np.uint8))


def _packed(found: BlockContacts) -> Arrays:
    """Return contacts between labels in as few bytes as they need."""
    return {name: getattr(found, name).astype(dtype) for name, dtype in _CONTACTS.items()}


def contacts(job: Job, box: Box, *names: str) -> list[NDArray[Any]]:
    """Read what is known of the contacts of a block, within it and across the faces in front of it."""
    parts = [load(job.file(step, box), names) for step in ("contacts", "faces")]
    return [np.concatenate([part[name] for part in parts]) for name in names]


def _plane(array: NDArray[Any], axis: int, place: int) -> NDArray[Any]:
    return np.ascontiguousarray(np.take(array, place, axis))


def _slab(box: Box, axis: int, place: int) -> Box:
    """Return the first voxels of a box along an axis, or, for place -1, the last."""
    start, stop = [*box.start], [*box.stop]
    if place:
        start[axis] = stop[axis] - 1
    else:
        stop[axis] = start[axis] + 1
    return Box(tuple(start), tuple(stop))


def _present(labels: NDArray[Any], size: int) -> NDArray[np.intp]:
    """Return which of the labels 0 ... size - 1 there are."""
    seen = np.zeros(size, np.bool_)
    seen[labels] = True
    return np.flatnonzero(seen)
