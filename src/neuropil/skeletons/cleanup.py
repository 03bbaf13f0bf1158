"""Clean-up of skeletons: loops, gaps, dust, ticks, and vertices at even distances.

Each step is a function from one skeleton to another, so they can be put together in any order; `clean` has the usual
one: what belongs together is joined first, so that no part of it is taken for dust or a tick.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csgraph
from scipy.spatial import cKDTree

from neuropil.errors import InputError
from neuropil.skeletons.branches import branches
from neuropil.skeletons.skeleton import Skeleton, edge_lengths


def clean(skeleton: Skeleton, *, dust_nm: float = 0.0, tick_nm: float = 0.0, gap_nm: float = 0.0) -> Skeleton:
    """Remove loops, join pieces, drop dust and remove ticks, in this order.

    Parameters
    ----------
    skeleton
        Any.
    dust_nm, tick_nm, gap_nm
        As in `remove_dust`, `remove_ticks` and `join_pieces`.

    Returns
    -------
    Skeleton
        Without loops.

    Examples
    --------
    >>> fork = Skeleton.of([[0, 0, 0], [0, 0, 50], [0, 0, 99], [0, 5, 50]], [[0, 1], [1, 2], [1, 3]])
    >>> clean(fork, tick_nm=10).length_nm
    99.0
    """
    joined = join_pieces(remove_loops(skeleton), gap_nm=gap_nm)
    return remove_ticks(remove_dust(joined, dust_nm), tick_nm)


def remove_loops(skeleton: Skeleton) -> Skeleton:
    """Remove the longest edge of each loop, and no other (a minimum spanning forest).

    >>> ring = Skeleton.of([[0, 0, 0], [0, 0, 3], [0, 4, 0]], [[0, 1], [1, 2], [2, 0]])
    >>> remove_loops(ring).edges.tolist()
    [[0, 1], [2, 0]]
    """
    kept = np.zeros(len(skeleton.edges), bool)
    kept[_forest(skeleton.edges, skeleton.edge_lengths_nm, len(skeleton.vertices_nm))] = True
    return skeleton.keep(np.ones(len(skeleton.vertices_nm), bool), kept)


def join_pieces(skeleton: Skeleton, *, gap_nm: float = 0.0) -> Skeleton:
    """Join pieces whose vertices are nearer than the sum of their radii, or than `gap_nm`, the nearest first.

    Parameters
    ----------
    skeleton
        Any; what is joined already gets no further edge.
    gap_nm
        Join over this distance whatever the radii are.

    Returns
    -------
    Skeleton
        With new edges after the old ones, one less than the number of pieces joined.

    Raises
    ------
    InputError
        If `gap_nm` is negative.

    Examples
    --------
    >>> two = Skeleton.of([[0, 0, 0], [0, 0, 50], [0, 0, 80], [0, 0, 99]], [[0, 1], [2, 3]], [9, 9, 25, 25])
    >>> join_pieces(two).edges.tolist()
    [[0, 1], [2, 3], [1, 2]]
    """
    _check("gap_nm", gap_nm)
    count, piece = skeleton.components()
    if count < 2:
        return skeleton
    pairs = _nearest_pairs(skeleton, piece, count, gap_nm)
    lengths = edge_lengths(skeleton.vertices_nm, pairs)
    chosen = _forest(piece[pairs].astype(np.int64), lengths, count)
    edges = np.concatenate([skeleton.edges, pairs[chosen]])
    return Skeleton(skeleton.vertices_nm, edges, skeleton.radii_nm, skeleton.kinds)


def remove_dust(skeleton: Skeleton, dust_nm: float) -> Skeleton:
    """Drop the pieces that are shorter than `dust_nm`; a single vertex has length 0.

    >>> two = Skeleton.of([[0, 0, 0], [0, 0, 50], [0, 90, 0], [0, 90, 5]], [[0, 1], [2, 3]])
    >>> remove_dust(two, 10).length_nm
    50.0
    """
    _check("dust_nm", dust_nm)
    count, piece = skeleton.components()
    lengths = np.bincount(piece[skeleton.edges[:, 0]], weights=skeleton.edge_lengths_nm, minlength=count)
    return skeleton.keep((lengths >= dust_nm)[piece])


def remove_ticks(skeleton: Skeleton, tick_nm: float) -> Skeleton:
    """Remove dead-end branches shorter than `tick_nm`, at each branch point the shortest first.

    Where only two branches are left at a point they are one from then on, so the end of a neurite is measured whole
    before it could be taken for a tick. A branch between two ends is no tick.

    >>> fork = Skeleton.of([[0, 0, 0], [0, 0, 50], [0, 0, 99], [0, 5, 50]], [[0, 1], [1, 2], [1, 3]])
    >>> remove_ticks(fork, 10).edges.tolist()
    [[0, 1], [1, 2]]
    """
    _check("tick_nm", tick_nm)
    while True:
        degrees, lengths = skeleton.degrees, skeleton.edge_lengths_nm
        shortest: dict[int, tuple[float, NDArray[np.int64]]] = {}
        for branch in branches(skeleton):
            chain, length = branch.vertices, float(lengths[branch.edges].sum())
            if degrees[chain[0]] == 1:
                chain = chain[::-1]
            joined = int(chain[0])
            is_tick = degrees[joined] > 1 and degrees[chain[-1]] == 1 and length < tick_nm
            if is_tick and (joined not in shortest or length < shortest[joined][0]):
                shortest[joined] = (length, chain[1:])
        if not shortest:
            return skeleton
        kept = np.ones(len(skeleton.vertices_nm), bool)
        kept[np.concatenate([tick for _, tick in shortest.values()])] = False
        skeleton = skeleton.keep(kept)


def resample(skeleton: Skeleton, spacing_nm: float) -> Skeleton:
    """Put vertices at even distances along each branch; ends and branch points stay.

    Parameters
    ----------
    skeleton
        Any.
    spacing_nm
        Greatest distance along a branch, > 0; each branch is cut into the fewest equal steps that do not exceed it.

    Returns
    -------
    Skeleton
        Radii are interpolated, kinds are those of the nearest old vertex on the branch. Corners are cut, so it is a
        little shorter.

    Raises
    ------
    InputError
        If the spacing is not positive.

    Examples
    --------
    >>> line = Skeleton.of([[0, 0, 0], [0, 0, 1], [0, 0, 10]], [[0, 1], [1, 2]])
    >>> resample(line, 4).vertices_nm[:, 2].round(2).tolist()
    [0.0, 10.0, 3.33, 6.67]
    """
    if not (np.isfinite(spacing_nm) and spacing_nm > 0):
        raise InputError(f"spacing_nm must be positive; got {spacing_nm}")
    found = branches(skeleton)
    stay = skeleton.degrees != 2
    stay[[branch.vertices[0] for branch in found]] = True  # a loop without ends keeps one vertex
    place = np.cumsum(stay) - 1
    columns = np.column_stack([skeleton.vertices_nm, skeleton.radii_nm])
    rows, kinds, edges = [columns[stay]], [skeleton.kinds[stay]], [np.empty((0, 2), np.int64)]
    used = int(stay.sum())
    for branch in found:
        chain = branch.vertices
        at = np.concatenate([[0.0], np.cumsum(skeleton.edge_lengths_nm[branch.edges])])
        closed = chain[0] == chain[-1]
        steps = max(int(np.ceil(at[-1] / spacing_nm)), 3 if closed else 1)
        new = np.linspace(0, at[-1], steps + 1)[1:-1]
        rows.append(np.column_stack([np.interp(new, at, column) for column in columns[chain].T]))
        kinds.append(skeleton.kinds[chain[np.abs(at[:, None] - new).argmin(axis=0)]])
        line = np.concatenate([[place[chain[0]]], np.arange(used, used + new.size), [place[chain[-1]]]])
        edges.append(np.stack([line[:-1], line[1:]], axis=1))
        used += new.size
    table = np.concatenate(rows)
    return Skeleton(table[:, :3].copy(), np.concatenate(edges), table[:, 3].copy(), np.concatenate(kinds))


def _nearest_pairs(skeleton: Skeleton, piece: NDArray[np.int32], count: int, gap_nm: float) -> NDArray[np.int64]:
    """Return, for each two pieces that are near enough to be joined, the two nearest vertices that may be."""
    points, radii = skeleton.vertices_nm, skeleton.radii_nm
    members = np.split(np.argsort(piece, kind="stable"), np.cumsum(np.bincount(piece, minlength=count))[:-1])
    low, high = (np.array([side(points[k], axis=0) for k in members]) for side in (np.min, np.max))
    thick = np.array([radii[k].max() for k in members])
    trees = [cKDTree(points[k]) for k in members]
    found = []
    for i in range(count - 1):
        apart = np.maximum(np.maximum(low[i + 1 :] - high[i], low[i] - high[i + 1 :]), 0)
        near = np.linalg.norm(apart, axis=1) <= np.maximum(thick[i] + thick[i + 1 :], gap_nm)
        for j in (i + 1 + np.flatnonzero(near)).tolist():
            large, small = (i, j) if members[i].size >= members[j].size else (j, i)
            u, v = _candidates(skeleton, trees[large], members[large], members[small], float(thick[large]))
            distance = np.linalg.norm(points[u] - points[v], axis=1)
            allowed = np.flatnonzero(distance <= np.maximum(radii[u] + radii[v], gap_nm))
            if allowed.size:
                k = allowed[np.argmin(distance[allowed])]
                found.append((min(u[k], v[k]), max(u[k], v[k])))
    return np.array(found, np.int64).reshape(-1, 2)


def _candidates(
    skeleton: Skeleton, tree: cKDTree, large: NDArray[np.int64], small: NDArray[np.int64], thick: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of vertices of two pieces: of each vertex of the small one the nearest of the large one.

    Where that is too thin to reach it, all that the `thick` one of the large piece could be.
    """
    radii, points = skeleton.radii_nm, skeleton.vertices_nm
    distance, nearest = (np.asarray(one) for one in tree.query(points[small]))
    reach = radii[small] + thick
    far = np.flatnonzero((distance > radii[small] + radii[large[nearest]]) & (distance <= reach))
    others = [large[tree.query_ball_point(points[small[k]], reach[k])] for k in far]
    u = np.concatenate([large[nearest], *others])
    v = np.concatenate([small, *(np.full(near.size, small[k]) for near, k in zip(others, far))])
    return u, v


def _forest(edges: NDArray[np.int64], lengths: NDArray[np.float64], nodes: int) -> NDArray[np.int64]:
    """Return the edges, ascending, of a forest that joins all that they join and is shortest; of equals, the first."""
    order = np.argsort(lengths, kind="stable")
    rank = np.empty(len(edges), np.float64)
    rank[order] = np.arange(1, len(edges) + 1)  # no two alike and none 0, which a sparse matrix would not hold
    u, v = edges.min(axis=1, initial=nodes), edges.max(axis=1, initial=0)
    first = order[np.unique(u[order] * nodes + v[order], return_index=True)[1]]  # of edges between the same two
    graph = coo_array((rank[first], (u[first], v[first])), shape=(nodes, nodes))
    kept = np.asarray(csgraph.minimum_spanning_tree(graph.tocsr()).data, np.int64)
    return np.asarray(np.sort(order[kept - 1]))


def _check(name: str, length_nm: float) -> None:
    if not length_nm >= 0:
        raise InputError(f"{name} must not be negative; got {length_nm}")
