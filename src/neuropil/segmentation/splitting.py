"""Which fragments go away when two fragments of one segment turn out to be of two objects: the weakest link is cut.

The contacts within the segment, the strongest first, hold its fragments together as a maximum spanning forest; of the
links on the way between the two, the weakest is severed. Key insight: this is agglomeration done once more with one
rule added, that the two must not meet, so every other fragment goes with the side to which it is linked by the stronger
way. A minimum cut of summed affinities sounds better and is not: it prefers to cut out one of the two fragments, whose
own surface is small (benchmarks/splits compares both).

Source: maximum spanning forests rooted in seeds, as in Cousty et al., "Watershed cuts: minimum spanning forests and the
drop of water principle", IEEE TPAMI 2009.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

from neuropil._kernels.linkage import spanning_forest
from neuropil.errors import InputError


@dataclass(frozen=True)
class FragmentGraph:
    """Which fragments touch, how strongly, and the segment each belongs to: what corrections of a segmentation need.

    Attributes
    ----------
    u, v
        uint64 (n,), ids of fragments, 0 < u < v, each pair once.
    affinity
        float32 (n,), mean affinity over the contact.
    segments
        uint64 (m + 1,), segment of each fragment 0 ... m, 0 for 0.
    """

    u: NDArray[np.uint64]
    v: NDArray[np.uint64]
    affinity: NDArray[np.float32]
    segments: NDArray[np.uint64]

    def __post_init__(self) -> None:
        if self.u.ndim != 1 or not self.u.shape == self.v.shape == self.affinity.shape:
            shapes = self.u.shape, self.v.shape, self.affinity.shape
            raise InputError(f"u, v and affinity must be lists of one length; got {shapes}")
        largest = int(max(self.u.max(initial=0), self.v.max(initial=0)))
        if self.segments.ndim != 1 or self.segments.size <= largest or self.segments[0] != 0:
            raise InputError(
                f"segments must list fragments 0 ... {largest} and begin with 0; got {self.segments.shape}"
            )


def split_off(graph: FragmentGraph, fragments: ArrayLike, a: int, b: int, *, joined: ArrayLike = ()) -> tuple[int, ...]:
    """Return the fragments that go away with `b` when it is separated from `a`.

    Parameters
    ----------
    graph
        Contacts; only those within `fragments` count.
    fragments
        Ids of the segment's fragments.
    a, b
        Two of them.
    joined
        (n, 2), pairs of fragments that a person merged: stronger than any contact, cut where there is no other way.

    Returns
    -------
    tuple of int
        Ascending, `b` among them and `a` not: what still hangs together with b after the cut. The rest stays with a.

    Raises
    ------
    InputError
        If a or b is not among the fragments, or they are the same.

    Examples
    --------
    >>> ends, segments = np.array([1, 2, 3], np.uint64), np.array([0, 1, 1, 1, 1], np.uint64)
    >>> chain = FragmentGraph(ends, ends + np.uint64(1), np.array([0.9, 0.2, 0.7], np.float32), segments)
    >>> split_off(chain, [1, 2, 3, 4], 1, 4)
    (3, 4)
    """
    ids = np.unique(np.asarray(fragments, np.uint64))
    ends = np.array([a, b], np.uint64)
    if a == b or not np.isin(ends, ids).all():
        raise InputError(f"a and b must be two of the {ids.size} fragments; got {a} and {b}")
    tree = _forest(graph, ids, np.asarray(joined, np.uint64).reshape(-1, 2))
    start, goal = (int(k) for k in np.searchsorted(ids, ends))
    _, before = breadth_first_order(_between(tree, ids.size), start, return_predecessors=True)
    way = [goal]
    while before[way[-1]] >= 0:
        way.append(int(before[way[-1]]))
    if len(way) > 1:
        steps = np.sort(np.stack([way[:-1], way[1:]], 1), axis=1) @ [ids.size, 1]
        on_way = np.isin(np.sort(tree, axis=1) @ [ids.size, 1], steps)
        tree = np.delete(tree, np.flatnonzero(on_way)[-1], axis=0)
    away = breadth_first_order(_between(tree, ids.size), goal, return_predecessors=False)
    return tuple(np.sort(ids[away]).tolist())


def _forest(graph: FragmentGraph, ids: NDArray[np.uint64], joined: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the links of the maximum spanning forest as places in `ids`, (n, 2), the strongest first."""
    inside = np.zeros(graph.segments.size, np.bool_)
    inside[ids.astype(np.intp)] = True
    within = inside[graph.u.astype(np.intp)] & inside[graph.v.astype(np.intp)]
    falling = np.argsort(-graph.affinity[within], kind="stable")
    made = joined[inside[joined.astype(np.intp)].all(axis=1)]
    pairs = np.concatenate([made, np.stack([graph.u[within], graph.v[within]], 1)[falling]])
    places = np.searchsorted(ids, pairs)
    kept = np.zeros(len(places), np.bool_)
    nodes = places.astype(np.uint64) + np.uint64(1)  # the kernel's node 0 is background
    spanning_forest(nodes[:, 0].copy(), nodes[:, 1].copy(), np.arange(ids.size + 1), kept)
    return places[kept]


def _between(pairs: NDArray[np.intp], size: int) -> csr_array:
    ends = np.concatenate([pairs, pairs[:, ::-1]])
    return csr_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(size, size))
