"""Size-dependent single linkage of a volume that is known in parts: what a part cannot tell travels up.

As for agglomeration, clusters that may have edges beyond a part are frozen: when the strongest edge in turn has a
frozen end, both ends are frozen and the edge is left to the part that unites several. Key insight: a pair that is
turned down stays so, since clusters only grow and weaker edges allow no larger ones; so every other edge is decided for
good, and so is one whose ends are both too large as far as they are known.

Source: that of `neuropil.segmentation.linkage`; delayed decisions as in the chunked watershed of the MICrONS
segmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import linkage as _kernel
from neuropil.errors import InputError
from neuropil.segmentation.linkage import SizeRule
from neuropil.segmentation.pairs import falling, find_ids, group_pairs


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
        uint64 and int64 (m,), clusters, each named by its smallest fragment, and their voxels, as far as the part knows
        them; ids ascending.
    """

    u: NDArray[np.int64]
    v: NDArray[np.int64]
    affinity: NDArray[np.float32]
    first_u: NDArray[np.uint64]
    first_v: NDArray[np.uint64]
    ids: NDArray[np.uint64]
    sizes: NDArray[np.int64]

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
        return cls(a - 1, b - 1, values, ids[a], ids[b], ids[1:], summed[1:])

    @classmethod
    def united(cls, parts: Sequence[PartLinks]) -> PartLinks:
        """Return the edges of all parts, and the clusters with the sum of what parts know of their sizes.

        An edge between the same fragments that several parts know counts once, with its greatest affinity.
        """
        affinity, first_u, first_v, ids, sizes = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("affinity", "first_u", "first_v", "ids", "sizes")
        )
        known, places = np.unique(ids, return_inverse=True)
        summed = np.zeros(known.size, np.int64)
        np.add.at(summed, places, sizes)
        before = np.cumsum([0, *(part.ids.size for part in parts)])
        u, v = (places[np.concatenate([getattr(p, end) + n for p, n in zip(parts, before)])] for end in "uv")
        order, starts = group_pairs(first_u, first_v, -affinity)
        kept = order[starts]
        return cls(u[kept], v[kept], affinity[kept], first_u[kept], first_v[kept], known, summed)

    def split(self, frozen: NDArray[np.uint64]) -> tuple[PartLinks, NDArray[np.uint64], NDArray[np.int64]]:
        """Return what is open still, and the ids and sizes of clusters without edges that are not frozen."""
        open_ = np.zeros(self.ids.size + 1, np.bool_)
        open_[find_ids(self.ids, frozen)] = True
        open_[self.u] = open_[self.v] = True
        open_ = open_[:-1]
        ranks = np.cumsum(open_) - 1
        left = replace(self, u=ranks[self.u], v=ranks[self.v], ids=self.ids[open_], sizes=self.sizes[open_])
        return left, self.ids[~open_], self.sizes[~open_]


class Linked(NamedTuple):
    """What a part can tell: clusters, uint64 (m,), the smallest cluster that each is one with now, and what is left."""

    ids: NDArray[np.uint64]
    smallest: NDArray[np.uint64]
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
        `left` are the edges that are not decided, and all clusters that are left.

    Raises
    ------
    InputError
        If an end of an edge has no size, or the rule is not non-decreasing in affinity.

    Examples
    --------
    >>> from neuropil.segmentation.linkage import ConstantSize
    >>> links = PartLinks.of(np.arange(4, dtype=np.uint64), np.array([0, 5, 9, 900]), [1, 2], [2, 3], [0.9, 0.8])
    >>> ids, smallest, left = link_part(links, [3], ConstantSize(100, 0.3))
    >>> smallest.tolist(), left.u.tolist(), left.v.tolist(), left.ids.tolist(), left.sizes.tolist()
    ([1, 1, 3], [0], [1], [1, 3], [14, 900])
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
    parents, sizes = np.arange(size), links.sizes.copy()
    order = order[: np.count_nonzero(limits > 0)]
    kept = np.zeros(order.size, np.bool_)
    _kernel.link_part(links.u[order], links.v[order], limits, parents, sizes, held, kept)
    while not np.array_equal(parents, parents[parents]):
        parents = parents[parents]
    alone = parents == np.arange(size)
    ranks = np.cumsum(alone) - 1
    rest = np.sort(order[kept])
    u, v = (ranks[parents[end[rest]]] for end in (links.u, links.v))
    ids = links.ids[alone]
    left = PartLinks(u, v, links.affinity[rest], links.first_u[rest], links.first_v[rest], ids, sizes[alone])
    return Linked(links.ids, links.ids[parents], left)
