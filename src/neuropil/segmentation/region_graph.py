"""Edges between fragments that touch, each with the greatest affinity over their contact.

Key insight: single linkage merges two basins as soon as one path between them is strong enough, so of a contact only
its strongest link counts (1 - affinity is the saliency of the boundary). Links to background make no edge.

Source: Zlateski and Seung, arXiv 1505.00249, section "basin graph".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.errors import InputError
from neuropil.labels import apply_lookup
from neuropil.segmentation.contacts import region_contacts
from neuropil.segmentation.pairs import falling, order_of_pairs


@dataclass(frozen=True)
class Edges:
    """Edges between fragments, in order of falling affinity; edges of equal affinity by u, then v.

    Attributes
    ----------
    u, v
        uint64 (n,), ids of fragments, 0 < u < v, each pair once.
    affinity
        float32 (n,), in [0, 1].
    """

    u: NDArray[np.uint64]
    v: NDArray[np.uint64]
    affinity: NDArray[np.float32]

    @classmethod
    def of(cls, u: ArrayLike, v: ArrayLike, affinity: ArrayLike) -> Edges:
        """Return the edges listed in any order: background and loops dropped, the strongest of each pair kept.

        Raises
        ------
        InputError
            If the three do not have one axis of the same length.

        Examples
        --------
        >>> Edges.of([2, 3, 1, 1], [1, 3, 2, 3], [0.5, 1.0, 0.75, 0.25]).affinity.tolist()
        [0.75, 0.25]
        """
        a, b, score = np.asarray(u, np.uint64), np.asarray(v, np.uint64), np.asarray(affinity, np.float32)
        if a.ndim != 1 or a.shape != b.shape or a.shape != score.shape:
            raise InputError(f"u, v and affinity must be lists of one length; got {a.shape}, {b.shape}, {score.shape}")
        a, b = np.minimum(a, b), np.maximum(a, b)
        real = (a != 0) & (a != b)
        a, b, score = a[real], b[real], score[real]
        order = order_of_pairs(a, b)
        a, b, score = a[order], b[order], score[order]
        first = np.ones(a.size, bool)
        first[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
        if not first.all():
            starts = np.flatnonzero(first)
            a, b, score = a[starts], b[starts], np.maximum.reduceat(score, starts)
        order = falling(score)
        return cls(a[order], b[order], score[order])

    def contract(self, lookup: ArrayLike, *, ids: ArrayLike | None = None) -> Edges:
        """Return the edges between the segments of a lookup, fragment -> segment, 0 = dropped.

        Parameters and errors of the lookup are those of `neuropil.labels.apply_lookup`.

        >>> Edges.of([1, 2, 1], [2, 3, 3], [0.5, 0.25, 0.75]).contract([0, 1, 1, 2]).affinity.tolist()
        [0.75]
        """
        u, v = (apply_lookup(end, lookup, ids=ids) for end in (self.u, self.v))
        return Edges.of(u, v, self.affinity)


def region_edges(fragments: ArrayLike, affinities: ArrayLike, *, threads: int = 1) -> Edges:
    r"""Return the edges between fragments in contact, by falling affinity.

    .. math:: A(i, j) = \max \{a(v, w) : f(v) = i,\ f(w) = j,\ v \sim w\}

    Parameters
    ----------
    fragments
        Integers >= 0, (z, y, x); any uint64 ids, 0 is background.
    affinities
        (3, z, y, x), as for `neuropil.segmentation.watershed.watershed`.
    threads
        Threads to share the work, >= 1; the result is the same for any number.

    Returns
    -------
    Edges
        Contacts where all links are 0, such as those across sections that were segmented one by one, make no edge.

    Raises
    ------
    InputError
        If the shapes do not match or the affinities are malformed.

    Examples
    --------
    >>> chain = np.zeros((3, 1, 1, 4), np.float32)
    >>> chain[2, 0, 0, 1:] = 0.9, 0.5, 0.9
    >>> edges = region_edges([[[1, 1, 2, 2]]], chain)
    >>> edges.u.tolist(), edges.v.tolist(), edges.affinity.tolist()
    ([1], [2], [0.5])
    """
    contacts = region_contacts(fragments, affinities, threads=threads)
    order = falling(contacts.largest)  # contacts are unique and in order, so no more needs to be sorted
    order = order[: np.count_nonzero(contacts.largest)]
    u, v = (ids[order].astype(np.uint64, copy=False) for ids in (contacts.u, contacts.v))
    return Edges(u, v, contacts.largest[order])
