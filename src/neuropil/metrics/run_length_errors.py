"""Where run length is lost: each merging segment and each split skeleton, with the run length it costs and a place.

A merge is a segment that covers two skeletons, a split is a skeleton that lies in two segments; the same search with
the roles exchanged. The cost is exact: for a merge the squares of the lengths that it makes worthless, for a split what
would be gained were its correct and split pieces one, both over the length of all skeletons, so that costs are in nm of
ERL. The place to look at is in the middle between the two nearest nodes of the two largest parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from neuropil.errors import InputError
from neuropil.metrics.run_length import CheckedNodes, RunLength, checked_nodes, sums


@dataclass(frozen=True)
class RunLengthError:
    """One merge or split.

    Attributes
    ----------
    whole
        The id of what holds several parts: of a segment for a merge, of a skeleton for a split.
    parts
        Ids of all parts, skeletons for a merge, segments for a split: that of most nodes first.
    nodes
        Number of nodes of each part inside the whole.
    cost_nm
        ERL that it costs.
    point_nm
        (z, y, x), where the two largest parts are nearest to each other.
    """

    whole: int
    parts: tuple[int, ...]
    nodes: tuple[int, ...]
    cost_nm: float
    point_nm: tuple[float, float, float]


@dataclass(frozen=True)
class RunLengthErrors:
    """Merges and splits, each list from the most costly to the least; of equals, the smaller id first."""

    merges: tuple[RunLengthError, ...]
    splits: tuple[RunLengthError, ...]


def run_length_errors(
    positions_nm: ArrayLike,
    edges: ArrayLike,
    skeletons: ArrayLike,
    segments: ArrayLike,
    result: RunLength,
    *,
    count: int | None = None,
) -> RunLengthErrors:
    """List the merges and splits of a segmentation on skeletons.

    Parameters
    ----------
    positions_nm, edges, skeletons, segments
        As in `run_length`.
    result
        What `run_length` said of them; its merge threshold holds for merges.
    count
        Longest list wanted, >= 1; all if omitted.

    Returns
    -------
    RunLengthErrors
        Segments that are merging only because the caller of `run_length` said so are not listed: no place is wrong.

    Raises
    ------
    InputError
        As `run_length`, or if `count` is below 1 or `result` is of other skeletons.

    Examples
    --------
    >>> from neuropil.metrics.run_length import run_length
    >>> nodes = [[0, 0, 0], [0, 0, 8], [0, 6, 0], [0, 6, 8]], [[0, 1], [2, 3]], [1, 1, 2, 2], [5, 5, 5, 5]
    >>> errors = run_length_errors(*nodes, run_length(*nodes))
    >>> errors.merges[0].parts, errors.merges[0].point_nm, errors.merges[0].cost_nm, errors.splits
    ((1, 2), (0.0, 3.0, 0.0), 8.0, ())
    """
    nodes = checked_nodes(positions_nm, edges, skeletons, segments)
    if count is not None and count < 1:
        raise InputError(f"count must be at least 1; got {count}")
    if not np.array_equal(nodes.skeleton_ids, result.skeletons):
        raise InputError("result must be of the same skeletons; run run_length on these nodes")
    merge_costs, split_costs = _costs(nodes, result)
    pairs = nodes.pairs()
    large = pairs.nodes >= result.merge_threshold
    merged = pairs.segment[large], pairs.skeleton[large], pairs.nodes[large]
    by_segment = _Side(nodes.segment_ids, nodes.segment, nodes.skeleton_ids, nodes.skeleton)
    by_skeleton = _Side(nodes.skeleton_ids, nodes.skeleton, nodes.segment_ids, nodes.segment)
    return RunLengthErrors(
        _listed(nodes.positions_nm, by_segment, merged, merge_costs, count),
        _listed(nodes.positions_nm, by_skeleton, (pairs.skeleton, pairs.segment, pairs.nodes), split_costs, count),
    )


@dataclass(frozen=True)
class _Side:
    """The wholes and the parts: ids, and for each node its position among them."""

    whole_ids: NDArray[np.uint64]
    whole: NDArray[np.int64]
    part_ids: NDArray[np.uint64]
    part: NDArray[np.int64]


def _costs(nodes: CheckedNodes, result: RunLength) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ERL that each segment costs by merging and each skeleton by being split."""
    total = max(float(result.length_nm.sum()), np.finfo(float).tiny)
    u, v = nodes.edges.T
    here, there, skeleton = nodes.segment[u], nodes.segment[v], nodes.skeleton[u]
    bad = np.isin(nodes.segment_ids, result.merging)
    inside = (here == there) & (nodes.segment_ids[here] != 0) & bad[here]
    wide = max(nodes.segment_ids.size, 1)
    codes, places = np.unique(skeleton[inside] * wide + here[inside], return_inverse=True)
    lengths = sums(places, nodes.lengths_nm[inside], codes.size)
    merges = sums(codes % wide, lengths**2, wide) / total
    usable = result.correct_nm + result.split_nm
    return merges, (usable**2 - result.run_length_nm * result.length_nm) / total


def _listed(
    positions: NDArray[np.float64],
    side: _Side,
    table: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    costs: NDArray[np.float64],
    count: int | None,
) -> tuple[RunLengthError, ...]:
    """Return the wholes of several parts; the table has whole, part and number of nodes."""
    order = np.lexsort((table[1], -table[2], table[0]))
    whole, part, size = (column[order] for column in table)
    first = np.flatnonzero(np.diff(whole, prepend=-1))
    last = np.append(first[1:], whole.size)
    several = last - first > 1
    first, last = first[several], last[several]
    worst = np.argsort(-costs[whole[first]], kind="stable")[:count]
    by_whole = np.argsort(side.whole, kind="stable")
    starts = np.searchsorted(side.whole[by_whole], np.arange(side.whole_ids.size + 1))
    found = []
    for k in worst:
        one, parts = whole[first[k]], part[first[k] : last[k]]
        members = by_whole[starts[one] : starts[one + 1]]
        large, small = (positions[members[side.part[members] == p]] for p in parts[:2])
        z, y, x = _between(large, small).tolist()
        found.append(
            RunLengthError(
                int(side.whole_ids[one]),
                tuple(side.part_ids[parts].tolist()),
                tuple(size[first[k] : last[k]].tolist()),
                float(costs[one]),
                (z, y, x),
            )
        )
    return tuple(found)


def _between(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the middle between the two nearest points of two sets; of equally near ones, the first of the second."""
    distance, nearest = (np.asarray(found) for found in cKDTree(one).query(other))
    k = int(np.argmin(distance))
    return np.asarray((one[int(nearest[k])] + other[k]) / 2)
