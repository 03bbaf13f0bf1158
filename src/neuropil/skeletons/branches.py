"""A skeleton cut at its ends and branch points: what lies between is a branch.

Ticks are short branches, resampling goes along branches, and both leave ends and branch points where they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuropil.skeletons.skeleton import Skeleton


@dataclass(frozen=True)
class Branch:
    """A chain of vertices between two ends or branch points; a loop without any begins and ends at one vertex.

    Attributes
    ----------
    vertices
        int64 (k,), k >= 2, in order.
    edges
        int64 (k - 1,), positions of the edges between them.
    """

    vertices: NDArray[np.int64]
    edges: NDArray[np.int64]


def branches(skeleton: Skeleton) -> list[Branch]:
    """Cut a skeleton at all vertices that do not have two edges.

    Parameters
    ----------
    skeleton
        May have loops and several pieces.

    Returns
    -------
    list of Branch
        Every edge is in one of them; single vertices are in none.

    Examples
    --------
    >>> fork = Skeleton.of([[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 1]], [[0, 1], [1, 2], [1, 3]])
    >>> [branch.vertices.tolist() for branch in branches(fork)]
    [[0, 1], [1, 2], [1, 3]]
    """
    first, edge_of, vertex_of = _neighbours(skeleton)
    used = np.zeros(len(skeleton.edges), bool)
    nodes = np.flatnonzero(skeleton.degrees != 2)
    found = []
    for start in [*nodes.tolist(), *range(len(skeleton.vertices_nm))]:  # what is left after the nodes are loops
        for k in range(first[start], first[start + 1]):
            if not used[edge_of[k]]:
                found.append(_follow(start, k, first, edge_of, vertex_of, used))
    return found


def _neighbours(skeleton: Skeleton) -> tuple[list[int], list[int], list[int]]:
    """Return where each vertex's entries begin, and of each entry the edge and the vertex at its other end."""
    ends = skeleton.edges.T.reshape(-1)
    order = np.argsort(ends, kind="stable")
    first = np.concatenate([[0], np.cumsum(skeleton.degrees)])
    others = skeleton.edges[:, ::-1].T.reshape(-1)
    return first.tolist(), (order % max(len(skeleton.edges), 1)).tolist(), others[order].tolist()


def _follow(
    start: int, k: int, first: list[int], edge_of: list[int], vertex_of: list[int], used: NDArray[np.bool_]
) -> Branch:
    """Go from start along its entry k to the next vertex that does not have two edges, or back to start."""
    vertices, edges = [start], []
    while True:
        used[edge_of[k]] = True
        edges.append(edge_of[k])
        v = vertex_of[k]
        vertices.append(v)
        if v == start or first[v + 1] - first[v] != 2:
            return Branch(np.array(vertices), np.array(edges))
        k = first[v] if edge_of[first[v]] != edges[-1] else first[v] + 1
