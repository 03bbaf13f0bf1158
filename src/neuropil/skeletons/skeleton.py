"""A skeleton: points in nm joined by edges, the centre line of one object.

Most skeletons are trees, or several trees where the object is in pieces; nothing forbids loops, `is_tree` tells. Many
skeletons side by side are one table of nodes (`nodes_of`), which is what scores and files take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array, csgraph

from neuropil.errors import InputError

UNKNOWN, SOMA, AXON, DENDRITE = 0, 1, 2, 3
"""Kinds of a vertex, with the numbers that SWC files use."""


@dataclass(frozen=True)
class Skeleton:
    """The centre line of one object.

    Attributes
    ----------
    vertices_nm
        float64 (n, 3), z, y, x.
    edges
        int64 (m, 2), positions in `vertices_nm`; undirected, without repetition.
    radii_nm
        float64 (n,), distance to the object's surface, >= 0.
    kinds
        uint8 (n,), the types of SWC files: 0 unknown, 1 soma, 2 axon, 3 dendrite.

    Raises
    ------
    InputError
        If shapes do not fit, a number is not finite, or an edge joins a vertex with itself or with none.

    Examples
    --------
    >>> line = Skeleton.of([[0, 0, 0], [0, 3, 4]], [[0, 1]])
    >>> line.length_nm, line.is_tree
    (5.0, True)
    """

    vertices_nm: NDArray[np.float64]
    edges: NDArray[np.int64]
    radii_nm: NDArray[np.float64]
    kinds: NDArray[np.uint8]

    def __post_init__(self) -> None:
        n = len(self.vertices_nm)
        if self.vertices_nm.shape != (n, 3) or self.radii_nm.shape != (n,) or self.kinds.shape != (n,):
            raise InputError(
                f"a skeleton of n vertices must have vertices_nm (n, 3), radii_nm (n,) and kinds (n,);"
                f" got {self.vertices_nm.shape}, {self.radii_nm.shape}, {self.kinds.shape}"
            )
        if not (np.isfinite(self.vertices_nm).all() and np.isfinite(self.radii_nm).all()):
            raise InputError("vertices_nm and radii_nm must be finite; got NaN or infinity")
        check_edges(self.edges, n)

    @classmethod
    def of(
        cls,
        vertices_nm: ArrayLike,
        edges: ArrayLike,
        radii_nm: ArrayLike | None = None,
        kinds: ArrayLike | None = None,
    ) -> Skeleton:
        """Return a skeleton from anything like arrays; radii and kinds are 0 where none are given."""
        vertices = np.array(vertices_nm, np.float64).reshape(-1, 3)
        n = len(vertices)
        radii = np.zeros(n) if radii_nm is None else np.array(radii_nm, np.float64)
        types = np.zeros(n, np.uint8) if kinds is None else np.array(kinds, np.uint8)
        return cls(vertices, np.array(edges, np.int64).reshape(-1, 2), radii, types)

    @property
    def edge_lengths_nm(self) -> NDArray[np.float64]:
        """Length of each edge, float64 (m,)."""
        return edge_lengths(self.vertices_nm, self.edges)

    @property
    def length_nm(self) -> float:
        """Sum of the lengths of all edges."""
        return float(self.edge_lengths_nm.sum())

    @property
    def degrees(self) -> NDArray[np.int64]:
        """Number of edges at each vertex, int64 (n,)."""
        return np.bincount(self.edges.ravel(), minlength=len(self.vertices_nm))

    def components(self) -> tuple[int, NDArray[np.int32]]:
        """Return the number of connected pieces, and for each vertex that of its piece, int32 (n,)."""
        n = len(self.vertices_nm)
        graph = coo_array((np.ones(len(self.edges), np.int8), (self.edges[:, 0], self.edges[:, 1])), shape=(n, n))
        count, of_vertex = csgraph.connected_components(graph, directed=False)
        return int(count), of_vertex

    @property
    def is_forest(self) -> bool:
        """Whether there is no loop."""
        return len(self.edges) == len(self.vertices_nm) - self.components()[0]

    @property
    def is_tree(self) -> bool:
        """Whether all is connected and there is no loop."""
        return len(self.vertices_nm) > 0 and self.components()[0] == 1 and self.is_forest

    def keep(self, vertices: NDArray[np.bool_], edges: NDArray[np.bool_] | None = None) -> Skeleton:
        """Return what is left with only these vertices and, of the edges between them, only these."""
        place = np.cumsum(vertices) - 1
        kept = vertices[self.edges].all(axis=1)
        if edges is not None:
            kept &= edges
        return Skeleton(
            self.vertices_nm[vertices], place[self.edges[kept]], self.radii_nm[vertices], self.kinds[vertices]
        )


@dataclass(frozen=True)
class SkeletonNodes:
    """The vertices and edges of many skeletons, side by side.

    Attributes
    ----------
    positions_nm
        float64 (n, 3), z, y, x.
    edges
        int64 (m, 2), positions in the arrays of nodes.
    skeletons
        uint64 (n,), the id of each node's skeleton.
    """

    positions_nm: NDArray[np.float64]
    edges: NDArray[np.int64]
    skeletons: NDArray[np.uint64]


def nodes_of(skeletons: Mapping[int, Skeleton]) -> SkeletonNodes:
    """Put skeletons side by side, in ascending order of their ids.

    Parameters
    ----------
    skeletons
        Id to skeleton; ids may be any uint64.

    Returns
    -------
    SkeletonNodes

    Examples
    --------
    >>> line = Skeleton.of([[0, 0, 0], [0, 3, 4]], [[0, 1]])
    >>> nodes = nodes_of({2**50: line, 7: line})
    >>> nodes.skeletons.tolist(), nodes.edges.tolist()
    ([7, 7, 1125899906842624, 1125899906842624], [[0, 1], [2, 3]])
    """
    ids = sorted(skeletons)
    parts = [skeletons[one] for one in ids]
    counts = [len(part.vertices_nm) for part in parts]
    firsts = np.cumsum([0, *counts])
    return SkeletonNodes(
        np.concatenate([np.empty((0, 3)), *(part.vertices_nm for part in parts)]),
        np.concatenate([np.empty((0, 2), np.int64), *(part.edges + first for part, first in zip(parts, firsts))]),
        np.repeat(np.array(ids, np.uint64), counts),
    )


def edge_lengths(positions: NDArray[np.float64], edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the Euclidean length of each edge, in the unit of the positions."""
    return np.asarray(np.linalg.norm(positions[edges[:, 0]] - positions[edges[:, 1]], axis=1))


def check_edges(edges: NDArray[np.int64], nodes: int) -> None:
    """Raise InputError unless edges are (m, 2) places of so many nodes and none joins a node with itself."""
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "iu":
        raise InputError(f"edges must be integers (m, 2); got {edges.dtype} {edges.shape}")
    if edges.size and (edges.min() < 0 or edges.max() >= nodes):
        raise InputError(f"edges must name vertices 0 ... {nodes - 1}; got {edges.min()} ... {edges.max()}")
    if np.any(edges[:, 0] == edges[:, 1]):
        raise InputError(f"an edge must join two vertices; got {edges[edges[:, 0] == edges[:, 1]][0].tolist()}")
