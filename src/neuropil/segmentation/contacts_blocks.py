"""Contacts of fragments in one block of a volume: every link belongs to the block of the voxel that stores it.

So the links of all blocks are those of the whole volume, each once, and what blocks say of a pair adds up. Sums are
whole numbers of steps, for the whole volume too, so that their order does not matter.

Source: ownership of edges by blocks as in the MICrONS segmentation and daisy; see `neuropil.segmentation.contacts`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.errors import InputError
from neuropil.segmentation.contacts import STEPS, region_contacts
from neuropil.segmentation.pairs import group_pairs
from neuropil.segmentation.watershed import check_affinities


@dataclass(frozen=True)
class BlockContacts:
    """What the links of one block, or of several, say of pairs of fragments; pairs in ascending order.

    Attributes
    ----------
    u, v
        uint64 (n,), ids of fragments, 0 < u < v, each pair once.
    total
        int64 (n,), sum of the affinities, in steps of 1 / `STEPS`.
    count
        int64 (n,), number of links.
    largest
        float32 (n,), greatest affinity, in [0, 1], not rounded.
    """

    u: NDArray[np.uint64]
    v: NDArray[np.uint64]
    total: NDArray[np.int64]
    count: NDArray[np.int64]
    largest: NDArray[np.float32]

    @classmethod
    def united(cls, parts: list[BlockContacts]) -> BlockContacts:
        """Return what all parts say together."""
        u, v, total, count, largest = (
            np.concatenate([np.empty(0, dtype), *(getattr(part, name) for part in parts)])
            for name, dtype in zip(cls.__dataclass_fields__, (np.uint64, np.uint64, np.int64, np.int64, np.float32))
        )
        order, starts = group_pairs(u, v)
        u, v, total, count, largest = (field[order] for field in (u, v, total, count, largest))
        if starts.size:
            total, count = np.add.reduceat(total, starts), np.add.reduceat(count, starts)
            largest = np.maximum.reduceat(largest, starts)
        return cls(u[starts], v[starts], total, count, largest)


def block_contacts(fragments: ArrayLike, affinities: ArrayLike, before: tuple[int, int, int]) -> BlockContacts:
    """Gather the contacts over the links that a block's voxels store.

    Parameters
    ----------
    fragments
        Integers >= 0, (z, y, x), ids of the volume: the block, after one voxel along the axes named by `before`.
    affinities
        (3, z, y, x) of the same voxels, as for `neuropil.segmentation.watershed.watershed`.
    before
        For z, y, x: 1 if the arrays begin a voxel before the block, 0 if the block begins with the volume.

    Returns
    -------
    BlockContacts

    Raises
    ------
    InputError
        If shapes or dtypes do not match, or nothing is left of the block.

    Examples
    --------
    >>> links = np.full((3, 1, 1, 3), 51, np.uint8)
    >>> contacts = block_contacts([[[7, 7, 9]]], links, (0, 0, 1))
    >>> contacts.u.tolist(), contacts.v.tolist(), contacts.total.tolist(), contacts.count.tolist()
    ([7], [9], [3342336], [1])
    """
    labels, links = np.asarray(fragments), check_affinities(affinities)
    if labels.shape != links.shape[1:] or not set(before) <= {0, 1} or min(np.subtract(labels.shape, before)) < 1:
        raise InputError(
            f"fragments must have the affinities' extent {links.shape[1:]}, more than {before}; got {labels.shape}"
        )
    core = tuple(slice(n, None) for n in before)
    parts = [inner_contacts(labels[core], links[(slice(None), *core)])]
    for axis in range(3):
        if before[axis]:
            here, there = [*core], [*core]
            here[axis], there[axis] = slice(1, 2), slice(0, 1)
            parts.append(face_contacts(labels[tuple(here)], labels[tuple(there)], links[axis][tuple(here)]))
    return BlockContacts.united(parts)


def inner_contacts(fragments: ArrayLike, affinities: ArrayLike) -> BlockContacts:
    """Gather the contacts within a block.

    Parameters
    ----------
    fragments, affinities
        As for `block_contacts`, of the block alone.

    >>> links = np.full((3, 1, 1, 3), 51, np.uint8)
    >>> contacts = inner_contacts([[[1, 2, 3]]], links)
    >>> contacts.u.tolist(), contacts.v.tolist(), contacts.count.tolist()
    ([1, 2], [2, 3], [1, 1])
    """
    links = check_affinities(affinities)
    found = region_contacts(fragments, links)
    u, v, count = found.u.astype(np.uint64), found.v.astype(np.uint64), found.count.astype(np.int64)
    return BlockContacts(u, v, found.steps, count, found.largest)


def face_contacts(here: ArrayLike, there: ArrayLike, affinities: ArrayLike) -> BlockContacts:
    """Gather the contacts across a face, of the links that its voxels `here` store to those `there`.

    Parameters
    ----------
    here, there
        Ids of the volume in the planes on either side, integers >= 0 of one shape.
    affinities
        Of the same shape, float32 in [0, 1] or uint8.
    """
    a, b = (np.asarray(side).reshape(-1).astype(np.uint64) for side in (here, there))
    links = np.asarray(affinities)
    u, v = np.minimum(a, b), np.maximum(a, b)
    real = (u != 0) & (u != v)
    u, v, links = u[real], v[real], links.reshape(-1)[real]
    largest = links / np.float32(255) if links.dtype == np.uint8 else links
    total = np.rint(largest * np.float32(STEPS)).astype(np.int64)
    return BlockContacts.united([BlockContacts(u, v, total, np.ones_like(total), largest)])
