"""Size-dependent single linkage of a volume that is known in parts: what a part cannot tell travels up.

A cluster that may have edges or voxels beyond a part is frozen: what is known of its size is a lower bound. Key
insight: of two clusters only the smaller one's size counts, and a limit never rises. So a small cluster that is known
wholly merges with whatever it is next in turn with, frozen or not, and two that are large by now never do; undecided is
only what a small frozen cluster does. While a frozen cluster is small, its growth matters: such edges are kept, too, to
be taken again in their turn. Once it is large, it takes in others for good, which are counted apart (`late`). So what
travels up reaches no further than the limit from a part's faces.

Source: that of `neuropil.segmentation.linkage`; delayed decisions as in the chunked watershed of the MICrONS
segmentation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import linkage as _kernel
from neuropil.errors import InputError
from neuropil.segmentation.linkage import SizeRule
from neuropil.segmentation.pairs import falling, find_ids, order_of_pairs, stacked


@dataclass(frozen=True)
class PartLinks:
    """Edges that are not decided yet, and the sizes of the clusters at their ends.

    Attributes
    ----------
    u, v
        int32 (n,), clusters, as places in `ids`. Of edges between the same two only the first in rank matters.
    affinity
        float32 (n,), in [0, 1].
    first_u, first_v
        uint64 (n,), fragments u < v that the edge is between: its rank among equal affinities.
    ids, sizes
        uint64 and int64 (m,), clusters, each named by one of its fragments, and their voxels, as far as the part knows
        them; ids ascending.
    late, least
        int64 and uint64 (m,), voxels that came when the cluster was large already, and its smallest fragment.
    """

    u: NDArray[np.int32]
    v: NDArray[np.int32]
    affinity: NDArray[np.float32]
    first_u: NDArray[np.uint64]
    first_v: NDArray[np.uint64]
    ids: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    late: NDArray[np.int64]
    least: NDArray[np.uint64]

    @classmethod
    def of(
        cls, names: NDArray[np.uint64], sizes: NDArray[np.int64], u: ArrayLike, v: ArrayLike, affinity: ArrayLike
    ) -> PartLinks:
        """Return the edges of a block.

        Parameters
        ----------
        names
            uint64 (n + 1,), what labels 0 ... n are called in the volume, 0 for background; some may share a name.
        sizes
            (n + 1,), their voxels in the block.
        u, v, affinity
            Labels in contact, and their greatest affinity.

        >>> links = PartLinks.of(np.array([0, 9, 7, 9], np.uint64), np.array([5, 1, 2, 3]), [1, 2], [2, 3], [0.5, 0.75])
        >>> links.ids.tolist(), links.sizes.tolist(), links.u.tolist(), links.v.tolist(), links.affinity.tolist()
        ([7, 9], [2, 4], [0, 0], [1, 1], [0.5, 0.75])
        """
        ids, places = np.unique(np.append(names, np.uint64(0)), return_inverse=True)
        summed = np.zeros(ids.size, np.int64)
        np.add.at(summed, places[:-1], sizes)
        places = (places - 1).astype(np.int32)
        a, b, values = places[np.asarray(u, np.intp)], places[np.asarray(v, np.intp)], np.asarray(affinity, np.float32)
        a, b = np.minimum(a, b), np.maximum(a, b)
        real = (a >= 0) & (a != b)
        a, b, ids = a[real], b[real], ids[1:]
        return cls(a, b, values[real], ids[a], ids[b], ids, summed[1:], np.zeros_like(summed[1:]), ids)

    @classmethod
    def united(cls, parts: Iterable[PartLinks]) -> PartLinks:
        """Return the edges of all parts, and the clusters with the sum of what parts know of their sizes.

        A part that the caller does not hold is let go of as soon as it is taken in.
        """
        waiting = deque(parts)
        ids = np.unique(np.concatenate([part.ids for part in waiting]))
        sizes, late, least = np.zeros(ids.size, np.int64), np.zeros(ids.size, np.int64), ids.copy()

        def edges() -> Iterator[list[NDArray[Any]]]:
            while waiting:
                part = waiting.popleft()
                places = np.searchsorted(ids, part.ids).astype(np.int32)
                sizes[places] += part.sizes
                late[places] += part.late
                least[places] = np.minimum(least[places], part.least)
                yield [places[part.u], places[part.v], part.affinity, part.first_u, part.first_v]

        u, v, affinity, first_u, first_v = stacked(edges())
        return cls(u, v, affinity, first_u, first_v, ids, sizes, late, least)


class Linked(NamedTuple):
    """What a part can tell.

    Attributes
    ----------
    ids, names
        uint64 (m,), clusters, and what each is called now: where nothing more can happen, by its smallest fragment.
    closed, sizes
        uint64 and int64 (k,), clusters that nothing more can happen to, by their new names, and their voxels.
    left
        Edges that are not decided, and all other clusters.
    """

    ids: NDArray[np.uint64]
    names: NDArray[np.uint64]
    closed: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    left: PartLinks


def link_part(links: PartLinks, frozen: ArrayLike, size_rule: SizeRule) -> Linked:
    """Merge clusters as far as a part can tell.

    Parameters
    ----------
    links
        All edges that the part knows and the clusters at their ends.
    frozen
        Clusters that may have edges or voxels beyond the part.
    size_rule
        As for `neuropil.segmentation.linkage.size_dependent_linkage`; the same for all parts.

    Returns
    -------
    Linked

    Raises
    ------
    InputError
        If an end of an edge has no size, or the rule is not non-decreasing in affinity.

    Examples
    --------
    >>> from neuropil.segmentation.linkage import ConstantSize
    >>> links = PartLinks.of(np.arange(4, dtype=np.uint64), np.array([0, 5, 9, 900]), [1, 2], [2, 3], [0.9, 0.8])
    >>> made = link_part(links, [3], ConstantSize(100, 0.3))
    >>> made.names.tolist(), made.left.ids.tolist(), made.left.sizes.tolist(), made.left.late.tolist()
    ([3, 3, 3], [3], [900], [14])
    """
    size = links.ids.size
    if max(links.u.max(initial=-1), links.v.max(initial=-1)) >= size:
        raise InputError("links must have the ids and sizes of all clusters that edges name")
    by_pair = order_of_pairs(links.first_u, links.first_v)
    fall = falling(links.affinity[by_pair])
    order = by_pair[fall]
    limits = np.ascontiguousarray(size_rule(links.affinity[order].astype(np.float64)), np.float64)
    if limits.shape != order.shape or not np.all(limits[1:] <= limits[:-1]):
        raise InputError(f"size_rule must be a non-decreasing function of affinity, one size per edge; got {size_rule}")
    held = np.zeros(size + 1, np.bool_)
    held[find_ids(links.ids, np.asarray(frozen, np.uint64))] = True
    order = order[: np.count_nonzero(limits > 0)]
    kept, sizes = np.zeros(order.size, np.bool_), links.sizes.copy()
    merged = _merge(links.u[order], links.v[order], limits, held, sizes, kept)
    total, least = np.zeros(size, np.int64), links.ids.copy()
    np.add.at(total, merged, links.sizes + links.late)
    np.minimum.at(least, merged, links.least)
    rest = by_pair[np.sort(fall[: order.size][kept])]  # sorted by pairs already, which the next one makes use of
    ends = [merged[end[rest]] for end in (links.u, links.v)]
    held[ends[0]] = held[ends[1]] = True
    alone, open_ = merged == np.arange(size), held[:-1]
    names = np.where(open_, links.ids, least)[merged]
    closed, open_ = alone & ~open_, alone & open_
    u, v = ((np.cumsum(open_, dtype=np.int32) - 1)[end] for end in ends)
    edges = (u, v, links.affinity[rest], links.first_u[rest], links.first_v[rest])
    left = PartLinks(*edges, links.ids[open_], sizes[open_], (total - sizes)[open_], least[open_])
    return Linked(links.ids, names, least[closed], total[closed], left)


def _merge(
    u: NDArray[np.int32],
    v: NDArray[np.int32],
    limits: NDArray[np.float64],
    held: NDArray[np.bool_],
    sizes: NDArray[np.int64],
    kept: NDArray[np.bool_],
) -> NDArray[np.int32]:
    """Take edges in their turn; return the cluster of each cluster, write sizes and which edges are kept."""
    trees, groups, merged = (np.arange(sizes.size, dtype=np.int32) for _ in range(3))
    _kernel.link_part((u, v, limits), trees, (groups, sizes.copy(), held.copy()), (merged, sizes), kept)
    while not np.array_equal(merged, merged[merged]):
        merged = merged[merged]
    return merged
