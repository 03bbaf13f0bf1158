"""The steps of `neuropil run`, each for one block: read from the work folder, call array functions, write back.

Every file is written under its final name only when it is whole, and depends on its inputs alone; so a block may be
done twice, or by another machine, and nothing changes. A block has labels of its own and a list of what they are called
in the volume, so that only lists are ever renamed, not voxels, and a block reads of a table only what it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.defects import long_runs
from neuropil.files import replacing
from neuropil.geometry import Box, grid
from neuropil.segmentation.affinities import NEAREST
from neuropil.segmentation.affinity_moves import cut_masked, known_values, with_offsets
from neuropil.segmentation.agglomeration_parts import PartEdges, agglomerate_part, unite
from neuropil.segmentation.contacts_blocks import BlockContacts, face_contacts, inner_contacts
from neuropil.segmentation.linkage import ConstantSize
from neuropil.segmentation.linkage_parts import PartLinks, link_part
from neuropil.segmentation.pairs import find_ids
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
    shape, block : voxels z, y, x of the volume and of a block
    unit : steps of affinity in which sums are kept, 255 or 2**24
    low, high, size, size_threshold : thresholds, as `neuropil segment` has them
    mask : URI or None; voxels where it is not 0 in more than `bridge` sections on end have no links
    """

    affinities: str
    work: Path
    shape: tuple[int, int, int]
    block: tuple[int, int, int]
    unit: int
    low: float
    high: float
    size: float
    size_threshold: float
    mask: str | None
    bridge: int

    @property
    def whole(self) -> Box:
        """The whole volume."""
        return Box.of_shape(self.shape)

    @property
    def size_rule(self) -> ConstantSize:
        """Up to which size fragments are merged."""
        return ConstantSize(self.size, self.size_threshold)

    def file(self, step: str, box: Box) -> Path:
        """Where a step keeps what it knows of a box."""
        return self.work / step / f"{'_'.join(map(str, (*box.start, *box.shape)))}.npz"

    def array(self, name: str, box: Box) -> Path:
        """Where an array of a block is kept."""
        return self.file(name, box).with_suffix(".npy")

    def in_front(self, box: Box, axis: int) -> Box:
        """Return the block before a block along an axis."""
        by = [-self.block[axis] if k == axis else 0 for k in range(3)]
        start = box.shift(by).start
        stop = tuple(min(a + n, extent) for a, n, extent in zip(start, self.block, self.shape))
        return Box(start, stop)

    def volume(self, name: str) -> str:
        """URI of a volume that blocks are written to."""
        return f"{self.work}/{name}.zarr"

    def table(self, name: str) -> Path:
        """Where a table of the whole volume is."""
        return self.work / f"{name}.npy"


def links(job: Job, box: Box) -> None:
    """Find the steepest links of a block."""
    region = box.grow((HALO,) * 3).clip(job.whole)
    found = steepest_links(_nearest(job, region), region, box, job.shape, low=job.low, high=job.high)
    save_array(job.array("links", box), found.bits)
    save(job.file("plateaus", box), {"places": found.places, "shared": found.shared})


def fragments(job: Job, box: Box) -> None:
    """Label a block's basins."""
    shared = load(job.work / "plateaus.npz")
    made = block_fragments(np.load(job.array("links", box)), box, job.shape, (shared["places"], shared["bits"]))
    save_array(job.array("divided", box), made.bits)
    save_array(job.array("fragments", box), made.labels.astype(np.uint32))
    save_array(job.array("ids", box), made.ids)


def faces(job: Job, box: Box) -> None:
    """Find what links join across the faces that a block has in front of it."""
    pairs = [np.empty((0, 2), np.uint64)]
    for axis in range(3):
        if box.start[axis] > 0:
            planes = [
                (
                    np.load(job.array("ids", one))[_plane(job, "fragments", one, axis, k)],
                    _plane(job, "divided", one, axis, k),
                )
                for one, k in ((job.in_front(box, axis), -1), (box, 0))
            ]
            pairs.append(face_pairs(planes[0], planes[1], axis))
    save(job.file("faces", box), {"pairs": np.concatenate(pairs)})


def edges(job: Job, box: Box) -> None:
    """Gather the contacts of a block's links, the sizes of its fragments, and which of them lie at its faces."""
    region = box.grow([int(n > 0) for n in box.start], (0, 0, 0))
    affinities = _nearest(job, region)[(slice(None), *box.shift([-n for n in region.start]).slices)]
    labels, names = np.load(job.array("fragments", box)), _names(job, box)
    contacts, at_faces = [inner_contacts(labels, affinities, names)], {}
    for axis in range(3):
        first = names[np.take(labels, 0, axis)]
        at_faces[f"low{axis}"] = np.unique(first)
        at_faces[f"high{axis}"] = np.unique(names[np.take(labels, -1, axis)])
        at_faces[f"before{axis}"] = np.empty(0, np.uint64)
        if box.start[axis] > 0:
            front = job.in_front(box, axis)
            last = _names(job, front)[_plane(job, "fragments", front, axis, -1)]
            at_faces[f"before{axis}"] = np.unique(last)
            contacts.append(face_contacts(first, last, np.take(affinities[axis], 0, axis)))
    ids, places = np.unique(names, return_inverse=True)
    sizes = np.zeros(ids.size, np.int64)
    np.add.at(sizes, places, np.bincount(labels.reshape(-1), minlength=names.size))
    known = vars(BlockContacts.united(contacts)) | {"ids": ids, "sizes": sizes}
    save(job.file("edges", box), known | at_faces)


def link_block(job: Job, box: Box) -> None:
    """Merge small fragments of a block, as far as it can tell."""
    known = load(job.file("edges", box))
    ends = np.unique(np.concatenate([known["ids"], known["u"], known["v"]]))
    ends = ends[ends > 0]
    sizes = np.zeros(ends.size, np.int64)
    own = known["ids"] > 0
    sizes[np.searchsorted(ends, known["ids"][own])] = known["sizes"][own]
    affinity = (known["largest"] / job.unit).astype(np.float32)
    strong = (affinity > 0) & (job.size_rule(affinity.astype(np.float64)) > 0)  # others merge nothing
    u, v = known["u"][strong], known["v"][strong]
    _link(job, box, PartLinks(u, v, affinity[strong], u, v, ends, sizes), [box])


def link_group(job: Job, box: Box, level: int) -> None:
    """Merge small fragments across what lies between the parts of a box."""
    names = PartLinks.__dataclass_fields__
    united = PartLinks.united(
        [PartLinks(**load(job.file("linkage", part), names)) for part in children(job, box, level)]
    )
    _link(job, box, united, blocks_of(job, box))


def _link(job: Job, box: Box, known: PartLinks, blocks: Iterable[Box]) -> None:
    frozen = np.concatenate([np.empty(0, np.uint64), *(at_outer_faces(job, box, block) for block in blocks)])
    # What has merged below is interior there, so no name of it is at an outer face.
    ids, smallest, left = link_part(known, frozen, job.size_rule)
    changed = ids != smallest
    # Clusters that nothing more can happen to stay here.
    open_ = np.isin(left.ids, np.concatenate([left.u, left.v, frozen]))
    final = {"final": left.ids[~open_], "final_sizes": left.sizes[~open_]}
    left = replace(left, ids=left.ids[open_], sizes=left.sizes[open_])
    save(job.file("linkage", box), vars(left) | final | {"old": ids[changed], "new": smallest[changed]})


def linked_contacts(job: Job, box: Box) -> BlockContacts:
    """Return the contacts of a block's links between what linkage left, dust left out."""
    known = load(job.file("edges", box), ("u", "v", "total", "count"))
    u, v = (rename(known[end], job.table("linkage")) for end in ("u", "v"))
    real = (u != 0) & (v != 0) & (u != v)
    u, v = np.minimum(u, v)[real], np.maximum(u, v)[real]
    same = np.zeros(u.size, np.int64)
    return BlockContacts.united([BlockContacts(u, v, known["total"][real], known["count"][real], same)])


def merge_block(job: Job, box: Box) -> None:
    """Agglomerate a block's segments, as far as it can tell."""
    contacts = linked_contacts(job, box)
    _merge(job, box, PartEdges.of(contacts.u, contacts.v, contacts.total, contacts.count), [box])


def merge_group(job: Job, box: Box, level: int) -> None:
    """Agglomerate across what lies between the parts of a box."""
    names = {f"left_{name}": name for name in PartEdges.__dataclass_fields__}
    parts = [load(job.file("agglomeration", part), names) for part in children(job, box, level)]
    known = unite([PartEdges(**{names[key]: value for key, value in part.items()}) for part in parts])
    _merge(job, box, known, blocks_of(job, box))


def _merge(job: Job, box: Box, known: PartEdges, blocks: Iterable[Box]) -> None:
    outer = np.concatenate([np.empty(0, np.uint64), *(at_outer_faces(job, box, block) for block in blocks)])
    frozen = np.unique(rename(outer, job.table("linkage")))
    merges, left = agglomerate_part(known, frozen)
    save(job.file("agglomeration", box), vars(merges) | {f"left_{name}": value for name, value in vars(left).items()})


def write(job: Job, box: Box, name: str, table: str) -> None:
    """Write a block of the segmentation, or of the fragments that it is made of."""
    names = rename(rename(_names(job, box), job.table("linkage")), job.table(table))
    with open_volume(job.volume(name), writable=True) as volume:
        volume.write(box, names[np.load(job.array("fragments", box))])


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


def rename(ids: NDArray[np.uint64], table: Path) -> NDArray[np.uint64]:
    """Replace ids by what a table, (2, n) with ascending ids, says; others stay."""
    known = np.load(table, mmap_mode="r")
    at = find_ids(known[0], ids)
    there = at < known.shape[1]
    names = ids.copy()
    names[there] = known[1][at[there]]
    return names


def save(path: Path, arrays: Arrays) -> None:
    """Write arrays into one file that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # names of arrays, no option


def load(path: Path, names: Iterable[str] | None = None) -> Arrays:
    """Read some arrays of a file, or all."""
    with np.load(path) as file:
        return {name: file[name] for name in (file.files if names is None else names)}


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array into a file, from which parts can be read, that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, array)


def save_table(path: Path, old: NDArray[np.uint64], new: NDArray[np.uint64]) -> None:
    """Write a table for `rename`."""
    order = np.argsort(old)
    save_array(path, np.stack([old[order], new[order]]))


def _nearest(job: Job, region: Box) -> NDArray[Any]:
    """Read the affinities of nearest links."""
    with open_volume(job.affinities) as volume:
        links = known_values(with_offsets(read_affinities(volume, region), NEAREST))
    if job.mask is None:
        return links
    links = links.copy()
    cut_masked(links, _masked(job, region))
    return links


def _masked(job: Job, region: Box) -> NDArray[np.bool_]:
    """Tell which voxels are masked in more sections on end than the network bridges."""
    wide = region.grow((job.bridge, 0, 0)).clip(job.whole)
    with open_volume(job.mask or "") as volume:
        masked = volume.read(wide) != 0
    return long_runs(masked, job.bridge)[region.shift([-n for n in wide.start]).slices]


def _names(job: Job, box: Box) -> NDArray[np.uint64]:
    """Return the id of each of a block's labels, what is one across faces having one."""
    return rename(np.load(job.array("ids", box)), job.table("join"))


def _plane(job: Job, name: str, box: Box, axis: int, place: int) -> NDArray[Any]:
    """Read one plane of a block."""
    return np.array(np.take(np.load(job.array(name, box), mmap_mode="r"), place, axis))


def chunk_of(block: Sequence[int]) -> tuple[int, int, int]:
    """Return chunks that blocks are made of, of at most 64 voxels along an axis where it can be divided so.

    >>> chunk_of((64, 512, 500))
    (64, 64, 50)
    """
    z, y, x = (max(k for k in range(1, min(n, 64) + 1) if n % k == 0) for n in block)
    return (z, y, x)
