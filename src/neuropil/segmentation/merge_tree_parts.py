"""Merge tree of a volume that is known in parts: the maximum spanning forest, edge by edge decided as low as can be.

A part takes its edges in falling order, as Kruskal does. Key insight: an edge between two trees belongs to the forest
of the whole as soon as one of them has no frozen node, for then the part knows all edges that leave it, and this is the
strongest (cut rule); an edge within a tree never does (cycle rule). What is left are edges between trees that both have
frozen nodes, fewer than these; contracted along what is decided, each tree has one, by which it is named. So what
travels up is a forest of the clusters at a part's faces.

Source: Kruskal 1956; that a forest of forests of parts is that of the whole, and contraction along edges that are
certain, as in Boruvka 1926 and its parallel forms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import linkage as _kernel
from neuropil.errors import InputError
from neuropil.segmentation.pairs import find_ids, group_pairs, stacked


@dataclass(frozen=True)
class TreeEdges:
    """Edges between clusters.

    Attributes
    ----------
    u, v
        uint64 (n,), clusters that the edges connect.
    affinity
        float32 (n,), in (0, 1], the greatest over the contact.
    first_u, first_v
        uint64 (n,), clusters u < v as they were in the blocks: what the edge is called, and its rank among equal ones.
    """

    u: NDArray[np.uint64]
    v: NDArray[np.uint64]
    affinity: NDArray[np.float32]
    first_u: NDArray[np.uint64]
    first_v: NDArray[np.uint64]

    @classmethod
    def of_labels(cls, names: NDArray[np.uint64], u: ArrayLike, v: ArrayLike, affinity: ArrayLike) -> TreeEdges:
        """Return the edges of contacts between labels 0 ... n, which have `names`; what has the name 0 has no edges.

        >>> names = np.array([0, 9, 7, 9, 0], np.uint64)
        >>> edges = TreeEdges.of_labels(names, [1, 2, 3], [2, 3, 4], [0.5, 0.75, 1])
        >>> edges.u.tolist(), edges.v.tolist(), edges.affinity.tolist()
        ([7], [9], [0.75])
        """
        a, b, value = names[np.asarray(u, np.intp)], names[np.asarray(v, np.intp)], np.asarray(affinity, np.float32)
        a, b = np.minimum(a, b), np.maximum(a, b)
        real = (a != 0) & (a != b) & (value > 0)
        a, b, value = a[real], b[real], value[real]
        order, starts = group_pairs(a, b, -value)
        a, b, value = (field[order][starts] for field in (a, b, value))
        return cls(a, b, value, a, b)

    @classmethod
    def joined(cls, parts: Iterable[TreeEdges]) -> TreeEdges:
        """Return the edges of all parts by falling affinity, equal ones by what they are called."""
        every = cls(*stacked(vars(part).values() for part in parts))
        order = np.lexsort((every.first_v, every.first_u, -every.affinity))
        return every.taken(order)

    def taken(self, which: NDArray[np.intp]) -> TreeEdges:
        """Return some of the edges."""
        return TreeEdges(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


class GrownTree(NamedTuple):
    """What a part can tell: edges of the whole's merge tree; and those between frozen clusters, not decided yet."""

    tree: TreeEdges
    left: TreeEdges


def grow_part(edges: TreeEdges, frozen: ArrayLike) -> GrownTree:
    """Find the edges of the merge tree that a part can tell.

    Parameters
    ----------
    edges
        All edges that the part knows; of its own parts, what they left, and what crosses faces between them.
    frozen
        Clusters that may have edges the part does not know; others are ignored.

    Returns
    -------
    GrownTree
        Nothing is left where nothing is frozen: then all trees together are what
        `neuropil.segmentation.linkage.merge_tree` makes of the whole.

    Raises
    ------
    InputError
        If an affinity is not above 0.

    Examples
    --------
    2 and 3 may touch beyond this part, more strongly than along the way through 1 and 4; that 1 and 4 belong to them is
    certain, for these are known wholly:

    >>> names = np.arange(5, dtype=np.uint64)
    >>> edges = TreeEdges.of_labels(names, [1, 1, 3], [2, 4, 4], [0.9, 0.5, 0.8])
    >>> tree, left = grow_part(edges, [2, 3])
    >>> tree.affinity.tolist(), left.u.tolist(), left.v.tolist(), left.affinity.tolist()
    ([0.8999999761581421, 0.800000011920929], [2], [3], [0.5])
    """
    if not (edges.affinity > 0).all():
        raise InputError("affinity of edges must be above 0")
    edges = TreeEdges.joined([edges])
    ids, places = np.unique(np.concatenate([edges.u, edges.v]), return_inverse=True)
    u, v = np.ascontiguousarray(places.reshape(2, -1).astype(np.int64))
    held = np.zeros(ids.size + 1, np.bool_)
    held[find_ids(ids, np.unique(np.asarray(frozen, np.uint64)))] = True
    own, merged, state = np.flatnonzero(held[:-1]), np.arange(ids.size), np.empty(u.size, np.uint8)
    _kernel.spanning_part(u, v, held, np.arange(ids.size), merged, state)
    while not np.array_equal(merged, merged[merged]):
        merged = merged[merged]
    names = ids.copy()
    names[merged[own]] = ids[own]
    rest = np.flatnonzero(state == 2)
    a, b = (names[merged[end[rest]]] for end in (u, v))
    left = edges.taken(rest)
    return GrownTree(
        edges.taken(np.flatnonzero(state == 1)), TreeEdges(a, b, left.affinity, left.first_u, left.first_v)
    )
