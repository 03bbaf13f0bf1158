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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import linkage as _kernel
from neuropil.errors import InputError
from neuropil.segmentation.linkage import SizeRule
from neuropil.segmentation.pairs import falling, find_ids, first_greatest, group_pairs


@dataclass(frozen=True)
class PartLinks:
    """Edges that are not decided yet, and the sizes of the clusters at their ends.

    Attributes
    ----------
    u, v
        int64 (n,), clusters, as places in `ids`.
    affinity
        float32 (n,), in [0, 1].
    first_u, first_v
        uint64 (n,), fragments u < v that the edge is between: its rank among equal affinities. Edges ascend by them.
    ids, sizes
        uint64 and int64 (m,), clusters, each named by one of its fragments, and their voxels, as far as the part knows
        them; ids ascending.
    late, least
        int64 and uint64 (m,), voxels that came when the cluster was large already, and its smallest fragment.
    """

    u: NDArray[np.int64]
    v: NDArray[np.int64]
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
        ([7, 9], [2, 4], [0], [1], [0.75])
        """
        ids, places = np.unique(np.append(names, np.uint64(0)), return_inverse=True)
        summed = np.zeros(ids.size, np.int64)
        np.add.at(summed, places[:-1], sizes)
        a, b = places[np.asarray(u, np.intp)], places[np.asarray(v, np.intp)]
        a, b, values = np.minimum(a, b), np.maximum(a, b), np.asarray(affinity, np.float32)
        real = (a > 0) & (a != b)
        a, b, values = a[real], b[real], values[real]
        order, starts = group_pairs(a.view(np.uint64), b.view(np.uint64))
        a, b = a[order][starts], b[order][starts]
        values = np.maximum.reduceat(values[order], starts) if starts.size else values
        return cls(a - 1, b - 1, values, ids[a], ids[b], ids[1:], summed[1:], np.zeros_like(summed[1:]), ids[1:])

    @classmethod
    def united(cls, parts: Sequence[PartLinks]) -> PartLinks:
        """Return the edges of all parts, and the clusters with the sum of what parts know of their sizes.

        An edge between the same fragments that several parts know counts once, with its greatest affinity.
        """
        affinity, first_u, first_v, ids, sizes, late, least = (
            np.concatenate([getattr(part, name) for part in parts]) for name in list(cls.__dataclass_fields__)[2:]
        )
        known, places = np.unique(ids, return_inverse=True)
        summed, summed_late, smallest = np.zeros(known.size, np.int64), np.zeros(known.size, np.int64), known.copy()
        np.add.at(summed, places, sizes)
        np.add.at(summed_late, places, late)
        np.minimum.at(smallest, places, least)
        before = np.cumsum([0, *(part.ids.size for part in parts)])
        u, v = (places[np.concatenate([getattr(p, end) + n for p, n in zip(parts, before)])] for end in "uv")
        order, starts = group_pairs(first_u, first_v)
        kept = order[first_greatest(affinity[order], starts)]
        u, v, affinity, first_u, first_v = (x[kept] for x in (u, v, affinity, first_u, first_v))
        return cls(u, v, affinity, first_u, first_v, known, summed, summed_late, smallest)


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
    order = falling(links.affinity)
    limits = np.ascontiguousarray(size_rule(links.affinity[order].astype(np.float64)), np.float64)
    if limits.shape != order.shape or not np.all(limits[1:] <= limits[:-1]):
        raise InputError(f"size_rule must be a non-decreasing function of affinity, one size per edge; got {size_rule}")
    held = np.zeros(size + 1, np.bool_)
    held[find_ids(links.ids, np.asarray(frozen, np.uint64))] = True
    merged, sizes = np.arange(size), links.sizes.copy()
    order = order[: np.count_nonzero(limits > 0)]
    kept, groups = np.zeros(order.size, np.bool_), (np.arange(size), links.sizes.copy(), held.copy())
    _kernel.link_part((links.u[order], links.v[order], limits), groups, (merged, sizes), kept)
    while not np.array_equal(merged, merged[merged]):
        merged = merged[merged]
    total, least = np.zeros(size, np.int64), links.ids.copy()
    np.add.at(total, merged, links.sizes + links.late)
    np.minimum.at(least, merged, links.least)
    rest = np.sort(order[kept])
    ends = [merged[end[rest]] for end in (links.u, links.v)]
    held[ends[0]] = held[ends[1]] = True
    alone, open_ = merged == np.arange(size), held[:-1]
    names = np.where(open_, links.ids, least)[merged]
    closed, open_ = alone & ~open_, alone & open_
    u, v = ((np.cumsum(open_) - 1)[end] for end in ends)
    edges = (u, v, links.affinity[rest], links.first_u[rest], links.first_v[rest])
    left = PartLinks(*edges, links.ids[open_], sizes[open_], (total - sizes)[open_], least[open_])
    return Linked(links.ids, names, least[closed], total[closed], left)
