"""Agglomeration of a volume that is known in parts: each part merges what it knows to the end, the rest travels up.

A part knows the links of some blocks. Clusters that may have links beyond them are frozen: they never merge there, and
what they are next in turn with is frozen, too. All edges that are left, weak ones as well, go on to the part that
unites several; nothing is frozen in the last. Key insight: a mean never rises by merging, so two clusters that are each
other's best, and know all their links, merge in the whole volume as well, whatever happens elsewhere. Sums are whole
numbers, and equal scores go by the edges of the fragments, so the merges are the same to the bit however the volume is
cut.

Source: chunked agglomeration of the MICrONS segmentation, Dorkenwald et al., "Binary and analog variation of synapses
between cortical pyramidal neurons", eLife 2022, methods; that of `neuropil.segmentation.agglomeration`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.errors import InputError
from neuropil.segmentation.agglomeration import check_contacts
from neuropil.segmentation.merging import NO_HISTOGRAMS, Merging, edge_rows, scores_of
from neuropil.segmentation.pairs import group_pairs, stacked


@dataclass(frozen=True)
class PartEdges:
    """Edges between clusters of fragments, as far as a part knows them.

    Attributes
    ----------
    u, v
        uint64 (n,), clusters, each named by its smallest fragment; u < v, each pair once.
    total
        int64 (n,), sum of the affinities over the contact, in units of the affinities' smallest step.
    count
        int64 (n,), links of the contact.
    first_u, first_v
        uint64 (n,), the pair of fragments that ranks the edge among equal scores: of all pairs that became this edge,
        the last one.
    """

    u: NDArray[np.uint64]
    v: NDArray[np.uint64]
    total: NDArray[np.int64]
    count: NDArray[np.int64]
    first_u: NDArray[np.uint64]
    first_v: NDArray[np.uint64]

    @classmethod
    def of(cls, u: ArrayLike, v: ArrayLike, total: ArrayLike, count: ArrayLike) -> PartEdges:
        """Return the edges of contacts between fragments.

        Raises
        ------
        InputError
            If the lists differ in length, or a pair is not 0 < u < v.
        """
        a, b = np.asarray(u, np.uint64), np.asarray(v, np.uint64)
        sums, links = np.asarray(total, np.int64), np.asarray(count, np.int64)
        if a.ndim != 1 or not a.shape == b.shape == sums.shape == links.shape:
            raise InputError(f"u, v, total and count must be lists of one length; got {a.shape}, {b.shape}")
        if not ((a > 0) & (a < b)).all():
            raise InputError("edges must join fragments 0 < u < v")
        return cls(a, b, sums, links, a, b)

    @classmethod
    def of_labels(
        cls, names: NDArray[np.uint64], u: ArrayLike, v: ArrayLike, total: ArrayLike, count: ArrayLike
    ) -> PartEdges:
        """Return the edges of contacts between labels 0 ... n, which have `names`; what has the name 0 has no edges.

        >>> names = np.array([0, 9, 7, 9, 0], np.uint64)
        >>> edges = PartEdges.of_labels(names, [1, 2, 3], [2, 3, 4], [5, 3, 1], [1, 1, 1])
        >>> edges.u.tolist(), edges.v.tolist(), edges.total.tolist()
        ([7], [9], [8])
        """
        ids, places = np.unique(np.append(names, np.uint64(0)), return_inverse=True)
        a, b = places[np.asarray(u, np.intp)], places[np.asarray(v, np.intp)]
        a, b = np.minimum(a, b), np.maximum(a, b)
        real = (a > 0) & (a != b)
        a, b = a[real], b[real]
        order, starts = group_pairs(a.view(np.uint64), b.view(np.uint64))
        sums, links = (np.asarray(x)[real][order].astype(np.int64) for x in (total, count))
        if starts.size:
            sums, links = np.add.reduceat(sums, starts), np.add.reduceat(links, starts)
        return cls.of(ids[a[order][starts]], ids[b[order][starts]], sums, links)


@dataclass(frozen=True)
class Merges:
    """Merges of clusters, in no order.

    Attributes
    ----------
    u, v
        uint64 (m,), the smallest fragments of the two clusters, u < v.
    score
        float32 (m,), mean affinity in the units of the totals.
    first_u, first_v
        uint64 (m,), rank among equal scores.
    """

    u: NDArray[np.uint64]
    v: NDArray[np.uint64]
    score: NDArray[np.float32]
    first_u: NDArray[np.uint64]
    first_v: NDArray[np.uint64]

    @classmethod
    def joined(cls, parts: Iterable[Merges]) -> Merges:
        """Return the merges of all parts, best first: the merge tree of the whole."""
        fields = stacked(vars(part).values() for part in parts)
        whole = cls(*fields)
        order = np.lexsort((whole.first_v, whole.first_u, -whole.score))
        return cls(*(field[order] for field in fields))


def unite(parts: Iterable[PartEdges]) -> PartEdges:
    """Put the edges of several parts together; what they know of one pair adds up.

    >>> one, two = PartEdges.of([1], [2], [5], [1]), PartEdges.of([1, 1], [2, 3], [7, 1], [2, 1])
    >>> both = unite([one, two])
    >>> both.v.tolist(), both.total.tolist(), both.count.tolist()
    ([2, 3], [12, 1], [3, 1])
    """
    fields = stacked(vars(part).values() for part in parts)
    u, v, _, _, first_u, first_v = fields
    order, starts = group_pairs(u, v, first_u, first_v)
    u, v, total, count, first_u, first_v = (field[order] for field in fields)
    last = np.append(starts[1:], u.size) - 1 if u.size else starts
    total, count = (np.add.reduceat(x, starts) if u.size else x for x in (total, count))
    return PartEdges(u[starts], v[starts], total, count, first_u[last], first_v[last])


class Agglomerated(NamedTuple):
    """What a part can tell: its merges, and the edges that are left."""

    merges: Merges
    left: PartEdges


def agglomerate_part(edges: PartEdges, frozen: ArrayLike, *, least: float = 0.0) -> Agglomerated:
    r"""Merge what a part can decide, by mean affinity; return the merges, and the edges that are left.

    Parameters
    ----------
    edges
        All edges that the part knows, partial sums included.
    frozen
        Clusters (their smallest fragments) that may have links the part does not know; others are ignored.
    least
        Mean affinity below which nothing is merged, in units of the totals. Must be the same for all parts.

    Returns
    -------
    Agglomerated
        Merges of the whole volume's tree, and edges between the clusters that are left, to be united with those of
        other parts; of the last part, nothing of which is frozen, those below `least`.

    Raises
    ------
    InputError
        If there are 2**30 edges or more.

    Notes
    -----
    A frozen cluster freezes those that it is next in turn with, so what is left grows with the part's surface.

    Examples
    --------
    Fragment 3 may go on beyond this part, so that it is not known what its edge to 2 will come to:

    >>> merges, left = agglomerate_part(PartEdges.of([1, 2], [2, 3], [9, 8], [10, 10]), [3])
    >>> merges.v.tolist(), left.u.tolist(), left.v.tolist()
    ([2], [1], [3])
    """
    check_contacts(edges.u.size)
    order = np.lexsort((edges.first_v, edges.first_u))
    ids = np.unique(np.concatenate([np.zeros(1, np.uint64), edges.u, edges.v]))
    a, b = (np.searchsorted(ids, end[order]) for end in (edges.u, edges.v))
    rows = edge_rows(a, b, edges.total[order], edges.count[order])
    held = np.isin(ids, np.asarray(frozen, np.uint64))
    u, v, entry, kept, rows = Merging(rows, NO_HISTOGRAMS, least).run(held)
    first_u, first_v = edges.first_u[order], edges.first_v[order]
    which = (entry & np.uint64(0xFFFFFFFF)).astype(np.intp)
    merges = Merges(ids[u.astype(np.intp)], ids[v.astype(np.intp)], scores_of(entry), first_u[which], first_v[which])
    a, b = ids[rows.view(np.uint32)[:, 6:]].T
    total, count = rows[:, :2].astype(np.int64).T
    left = PartEdges(np.minimum(a, b), np.maximum(a, b), total, count, first_u[kept], first_v[kept])
    return Agglomerated(merges, left)
