"""The steps of `neuropil run`, each for one block: read from the work folder, call array functions, write back.

Every file is written under its final name only when it is whole, and depends on its inputs alone; so a block may be
done twice, or by another machine, and nothing changes. Ids of fragments are places of first voxels, and tables are made
of pairs (id, what it becomes), so that a block reads of a table only what it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.files import replacing
from neuropil.geometry import Box, grid
from neuropil.labels import relabel
from neuropil.segmentation.affinities import NEAREST
from neuropil.segmentation.affinity_moves import known_values, with_offsets
from neuropil.segmentation.agglomeration_parts import PartEdges, agglomerate_part, unite
from neuropil.segmentation.contacts_blocks import BlockContacts, block_contacts
from neuropil.segmentation.linkage import ConstantSize
from neuropil.segmentation.linkage_parts import PartLinks, link_part
from neuropil.segmentation.watershed_blocks import HALO, block_fragments, face_pairs, steepest_links
from neuropil.stages.affinities import read_affinities
from neuropil.volume import open_volume

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Job:
    """What all blocks of a run have in common; data only, so that it travels to any worker.

    Attributes
    ----------
    affinities : URI
    work : folder of all that is made on the way
    output : URI of the segmentation that blocks are written to
    shape, block : voxels z, y, x of the volume and of a block
    unit : steps of affinity in which sums are kept, 255 or 2**24
    low, high, size, size_threshold, least : thresholds, as `neuropil segment` has them
    """

    affinities: str
    work: Path
    output: str
    shape: tuple[int, int, int]
    block: tuple[int, int, int]
    unit: int
    low: float
    high: float
    size: float
    size_threshold: float
    least: float

    @property
    def whole(self) -> Box:
        """The whole volume."""
        return Box.of_shape(self.shape)

    def file(self, step: str, box: Box) -> Path:
        """Where a step keeps what it knows of a box."""
        return self.work / step / f"{'_'.join(map(str, (*box.start, *box.shape)))}.npz"

    def table(self, name: str) -> Path:
        """Where a table of the whole volume is."""
        return self.work / f"{name}.npy"


def links(job: Job, box: Box) -> None:
    """Find the steepest links of a block."""
    region = box.grow((HALO,) * 3).clip(job.whole)
    found = steepest_links(_nearest(job, region), region, box, job.shape, low=job.low, high=job.high)
    _put(f"{job.work}/links.zarr", box, found.bits)
    save(job.file("plateaus", box), {"places": found.places, "shared": found.shared})


def fragments(job: Job, box: Box) -> None:
    """Label a block's basins."""
    shared = load(job.work / "plateaus.npz")
    labels, bits = block_fragments(
        _get(f"{job.work}/links.zarr", box), box, job.shape, (shared["places"], shared["bits"])
    )
    _put(f"{job.work}/links.zarr", box, bits)
    _put(f"{job.work}/fragments.zarr", box, labels)


def faces(job: Job, box: Box) -> None:
    """Find what links join across the faces that a block has in front of it."""
    pairs = [np.empty((0, 2), np.uint64)]
    for axis in range(3):
        if box.start[axis] > 0:
            two = face(box, axis).grow([int(k == axis) for k in range(3)], (0, 0, 0))
            ids, bits = _get(f"{job.work}/fragments.zarr", two), _get(f"{job.work}/links.zarr", two)
            planes = [(np.take(ids, k, axis), np.take(bits, k, axis)) for k in (0, 1)]
            pairs.append(face_pairs(planes[0], planes[1], axis))
    save(job.file("faces", box), {"pairs": np.concatenate(pairs)})


def edges(job: Job, box: Box) -> None:
    """Gather the contacts of a block's links, the sizes of its fragments, and which of them lie at its faces."""
    before = tuple(int(n > 0) for n in box.start)
    region = box.grow(before, (0, 0, 0))
    labels = rename(_get(f"{job.work}/fragments.zarr", region), job.table("join"))
    contacts = block_contacts(labels, _nearest(job, region), before)  # type: ignore[arg-type]
    core = labels[box.shift([-n for n in region.start]).slices]
    dense = relabel(core)
    sizes = np.bincount(dense.labels.reshape(-1).astype(np.intp), minlength=dense.ids.size)
    at_faces = {}
    for axis in range(3):
        at_faces[f"low{axis}"] = np.unique(np.take(core, 0, axis))
        at_faces[f"high{axis}"] = np.unique(np.take(core, -1, axis))
        at_faces[f"before{axis}"] = np.unique(np.take(labels, 0, axis)) if before[axis] else np.empty(0, np.uint64)
    save(job.file("edges", box), vars(contacts) | {"ids": dense.ids, "sizes": sizes} | at_faces)


def link_block(job: Job, box: Box) -> None:
    """Merge small fragments of a block, as far as it can tell."""
    known = load(job.file("edges", box))
    ends = np.unique(np.concatenate([known["ids"], known["u"], known["v"]]))
    ends = ends[ends > 0]
    sizes = np.zeros(ends.size, np.int64)
    own = known["ids"] > 0
    sizes[np.searchsorted(ends, known["ids"][own])] = known["sizes"][own]
    real = known["largest"] > 0
    u, v = known["u"][real], known["v"][real]
    affinity = (known["largest"][real] / job.unit).astype(np.float32)
    _link(job, box, PartLinks(u, v, affinity, u, v, ends, sizes), [box])


def link_group(job: Job, box: Box, level: int) -> None:
    """Merge small fragments across what lies between the parts of a box."""
    parts = [load(job.file("linkage", part)) for part in children(job, box, level)]
    united = PartLinks.united([PartLinks(**{k: part[k] for k in PartLinks.__dataclass_fields__}) for part in parts])
    _link(job, box, united, blocks_of(job, box))


def _link(job: Job, box: Box, known: PartLinks, blocks: Iterable[Box]) -> None:
    frozen = np.concatenate([np.empty(0, np.uint64), *(at_outer_faces(job, box, block) for block in blocks)])
    # What has merged below is interior there, so no name of it is at an outer face.
    ids, smallest, left = link_part(known, frozen, ConstantSize(job.size, job.size_threshold))
    changed = ids != smallest
    save(job.file("linkage", box), vars(left) | {"old": ids[changed], "new": smallest[changed]})


def merge_block(job: Job, box: Box) -> None:
    """Agglomerate a block's segments, as far as it can tell."""
    known = load(job.file("edges", box))
    u, v = (rename(known[end], job.table("linkage")) for end in ("u", "v"))
    real = (u != 0) & (v != 0) & (u != v)
    u, v = np.minimum(u, v)[real], np.maximum(u, v)[real]
    same = np.zeros(u.size, np.int64)
    contacts = BlockContacts.united([BlockContacts(u, v, known["total"][real], known["count"][real], same)])
    part = PartEdges.of(contacts.u, contacts.v, contacts.total, contacts.count)
    _merge(job, box, part, [box])


def merge_group(job: Job, box: Box, level: int) -> None:
    """Agglomerate across what lies between the parts of a box."""
    parts = [load(job.file("agglomeration", part)) for part in children(job, box, level)]
    known = unite([PartEdges(**{k: part[f"left_{k}"] for k in PartEdges.__dataclass_fields__}) for part in parts])
    _merge(job, box, known, blocks_of(job, box))


def _merge(job: Job, box: Box, known: PartEdges, blocks: Iterable[Box]) -> None:
    outer = np.concatenate([np.empty(0, np.uint64), *(at_outer_faces(job, box, block) for block in blocks)])
    frozen = np.unique(rename(outer, job.table("linkage")))
    merges, left = agglomerate_part(known, frozen, least=job.least * job.unit)
    save(job.file("agglomeration", box), vars(merges) | {f"left_{name}": value for name, value in vars(left).items()})


def write(job: Job, box: Box) -> None:
    """Write a block of the segmentation."""
    labels = rename(_get(f"{job.work}/fragments.zarr", box), job.table("join"))
    labels = rename(rename(labels, job.table("linkage")), job.table("segments"))
    _put(job.output, box, labels)


def face(box: Box, axis: int) -> Box:
    """Return the first plane of a box along an axis."""
    stop = [*box.stop]
    stop[axis] = box.start[axis] + 1
    return Box(box.start, tuple(stop))


def at_outer_faces(job: Job, box: Box, block: Box) -> NDArray[np.uint64]:
    """Return the fragments of a block, and just before it, that may go on beyond a box that holds it."""
    wanted = []
    for axis in range(3):
        if block.start[axis] == box.start[axis] > 0:
            wanted += [f"low{axis}", f"before{axis}"]
        if block.stop[axis] == box.stop[axis] < job.shape[axis]:
            wanted.append(f"high{axis}")
    if not wanted:
        return np.empty(0, np.uint64)
    with np.load(job.file("edges", block)) as known:
        return np.concatenate([known[name] for name in wanted])


def group_boxes(job: Job, level: int) -> list[Box]:
    """Return the boxes of 2**level blocks along every axis that cover the volume; level 0 is the blocks."""
    return list(grid(job.whole, tuple(n << level for n in job.block)))


def children(job: Job, box: Box, level: int) -> list[Box]:
    """Return the boxes one level below that a box of a level is made of."""
    return list(grid(box, tuple(n << (level - 1) for n in job.block)))


def blocks_of(job: Job, box: Box) -> list[Box]:
    """Return the blocks that a box is made of."""
    return list(grid(box, job.block))


def levels(job: Job) -> int:
    """Return the level whose only box is the volume."""
    level = 0
    while any(n << level < extent for n, extent in zip(job.block, job.shape)):
        level += 1
    return level


def rename(labels: NDArray[np.uint64], table: Path) -> NDArray[np.uint64]:
    """Replace ids by what a table, (2, n) with ascending ids, says; others stay."""
    known = np.load(table, mmap_mode="r")
    dense = relabel(labels)
    at = np.searchsorted(known[0], dense.ids)
    there = at < known.shape[1]
    there[there] = known[0][at[there]] == dense.ids[there]
    names = dense.ids.copy()
    names[there] = known[1][at[there]]
    result: NDArray[np.uint64] = names[dense.labels]
    return result


def save(path: Path, arrays: Arrays) -> None:
    """Write arrays into one file that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # names of arrays, no option


def load(path: Path) -> Arrays:
    """Read the arrays of a file."""
    with np.load(path) as file:
        return dict(file)


def save_table(path: Path, old: NDArray[np.uint64], new: NDArray[np.uint64]) -> None:
    """Write a table for `rename`."""
    order = np.argsort(old)
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, np.stack([old[order], new[order]]))


def _nearest(job: Job, region: Box) -> NDArray[Any]:
    """Read the affinities of nearest links."""
    with open_volume(job.affinities) as volume:
        return known_values(with_offsets(read_affinities(volume, region), NEAREST))


def _get(uri: str, box: Box) -> NDArray[Any]:
    with open_volume(uri) as volume:
        return volume.read(box)


def _put(uri: str, box: Box, values: NDArray[Any]) -> None:
    with open_volume(uri, writable=True) as volume:
        volume.write(box, values)


def chunk_of(block: Sequence[int]) -> tuple[int, int, int]:
    """Return chunks that blocks are made of, of at most 64 voxels along an axis where it can be divided so.

    >>> chunk_of((64, 512, 500))
    (64, 64, 50)
    """
    z, y, x = (max(k for k in range(1, min(n, 64) + 1) if n % k == 0) for n in block)
    return (z, y, x)
