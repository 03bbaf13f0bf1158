"""Which fragments go away when two fragments of one segment turn out to be of two objects: a minimum cut.

Of all divisions of the segment's fragments in two, with one of the two named on either side, take the one that severs
least affinity, summed over all links. Key insight: a false merge goes through little of the membrane, so what joins two
objects is small in sum even where it is strong in places; a person says where the two sides are, and the cut finds
where they meet. The minimum cut is a maximum flow (Ford and Fulkerson 1956).

Source: splits of proofread neurons as in Dorkenwald et al., "CAVE: Connectome Annotation Versioning Engine",
Nature Methods 2025.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from neuropil.errors import InputError

_ROOM = 1 << 29  # of flows in 32 bits, for the sum of all links


@dataclass(frozen=True)
class FragmentGraph:
    """Which fragments touch, how strongly, and the segment each belongs to: what corrections of a segmentation need.

    Attributes
    ----------
    u, v
        uint64 (n,), ids of fragments, 0 < u < v, each pair once.
    total
        float64 (n,), sum of the affinities over the contact.
    segments
        uint64 (m + 1,), segment of each fragment 0 ... m, 0 for 0.
    """

    u: NDArray[np.uint64]
    v: NDArray[np.uint64]
    total: NDArray[np.float64]
    segments: NDArray[np.uint64]

    def __post_init__(self) -> None:
        if self.u.ndim != 1 or not self.u.shape == self.v.shape == self.total.shape:
            shapes = self.u.shape, self.v.shape, self.total.shape
            raise InputError(f"u, v and total must be lists of one length; got {shapes}")
        largest = int(max(self.u.max(initial=0), self.v.max(initial=0)))
        if self.segments.ndim != 1 or self.segments.size <= largest or self.segments[0] != 0:
            raise InputError(
                f"segments must list fragments 0 ... {largest} and begin with 0; got {self.segments.shape}"
            )


def split_off(graph: FragmentGraph, fragments: ArrayLike, a: int, b: int, *, joined: ArrayLike = ()) -> tuple[int, ...]:
    r"""Return the fragments that go away with `b` when it is separated from `a`.

    The division (S, T) of the fragments with a in S and b in T that minimises

    .. math:: \sum_{u \in S, v \in T} \mathrm{total}(u, v)

    where of equal ones the smallest S is taken; of T, what hangs together with b goes away, the rest stays with a.

    Parameters
    ----------
    graph
        Contacts; only those within `fragments` count.
    fragments
        Ids of the segment's fragments.
    a, b
        Two of them.
    joined
        (n, 2), pairs of fragments that a person merged: such a pair is severed only where there is no other way.

    Returns
    -------
    tuple of int
        Ascending, `b` among them and `a` not.

    Raises
    ------
    InputError
        If a or b is not among the fragments, or they are the same.

    Notes
    -----
    Affinities count in steps of the segment's sum / 2**29, and each contact at least one.

    Examples
    --------
    >>> ends, segments = np.array([1, 2, 3], np.uint64), np.array([0, 1, 1, 1, 1], np.uint64)
    >>> chain = FragmentGraph(ends, ends + np.uint64(1), np.array([9.0, 2.0, 7.0]), segments)
    >>> split_off(chain, [1, 2, 3, 4], 1, 4)
    (3, 4)
    """
    ids = np.unique(np.asarray(fragments, np.uint64))
    ends = np.array([a, b], np.uint64)
    if a == b or not np.isin(ends, ids).all():
        raise InputError(f"a and b must be two of the {ids.size} fragments; got {a} and {b}")
    pairs, capacity = _links(graph, ids, np.asarray(joined, np.uint64).reshape(-1, 2))
    source, sink = np.searchsorted(ids, ends)
    full = _symmetric(pairs, capacity, ids.size)
    flow = maximum_flow(full, int(source), int(sink)).flow
    left = csr_array(full - flow)
    left.eliminate_zeros()
    near = np.zeros(ids.size, np.bool_)
    near[breadth_first_order(left, source, return_predecessors=False)] = True
    kept = near[pairs[:, 0]] == near[pairs[:, 1]]
    uncut = _symmetric(pairs[kept], capacity[kept], ids.size)
    away = breadth_first_order(uncut, sink, return_predecessors=False)
    return tuple(np.sort(ids[away]).tolist())


def _links(
    graph: FragmentGraph, ids: NDArray[np.uint64], joined: NDArray[np.uint64]
) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Return the links within a segment, as places in `ids`, (n, 2), and their capacities."""
    inside = np.zeros(max(graph.segments.size, int(ids[-1]) + 1), np.bool_)
    inside[ids.astype(np.intp)] = True
    within = inside[graph.u.astype(np.intp)] & inside[graph.v.astype(np.intp)]
    made = joined[inside[joined.astype(np.intp)].all(axis=1)]
    pairs = np.concatenate([np.stack([graph.u[within], graph.v[within]], 1), made])
    # What a person joined weighs as much as everything else together.
    steps = np.full(len(pairs), _ROOM // max(1, len(made)), np.int64)
    total = graph.total[within]
    steps[: total.size] = np.maximum(1, np.rint(total * (_ROOM // max(1, len(made)) / max(total.sum(), 1e-9))))
    return np.searchsorted(ids, pairs), steps.astype(np.int32)


def _symmetric(pairs: NDArray[np.intp], capacity: NDArray[np.int32], size: int) -> csr_array:
    ends = np.concatenate([pairs, pairs[:, ::-1]])
    made = csr_array((np.concatenate([capacity, capacity]), (ends[:, 0], ends[:, 1])), shape=(size, size))
    made.sum_duplicates()
    return made
