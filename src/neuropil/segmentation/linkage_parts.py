"""Size-dependent single linkage of a volume that is known in parts: what a part cannot tell travels up.

As for agglomeration, clusters that may have edges beyond a part are frozen: when the strongest edge in turn has a
frozen end, both ends are frozen and the edge is left to the part that unites several. Key insight: a pair that is
turned down stays so, since clusters only grow and weaker edges allow no larger ones; so every other edge is decided for
good.

Source: that of `neuropil.segmentation.linkage`; delayed decisions as in the chunked watershed of the MICrONS
segmentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import linkage as _kernel
from neuropil.errors import InputError
from neuropil.segmentation.linkage import SizeRule
from neuropil.segmentation.pairs import find_ids, group_pairs


@dataclass(frozen=True)
class PartLinks:
    """Edges that are not decided yet, and the sizes of the clusters at their ends.

    Attributes
    ----------
    u, v
        uint64 (n,), clusters, each named by its smallest fragment.
    affinity
        float32 (n,), in [0, 1].
    first_u, first_v
        uint64 (n,), fragments u < v that the edge is between: its rank among equal affinities.
    ids, sizes
        uint64 and int64 (m,), clusters and their voxels, as far as the part knows them; ids ascending.
    """

    u: NDArray[np.uint64]
    v: NDArray[np.uint64]
    affinity: NDArray[np.float32]
    first_u: NDArray[np.uint64]
    first_v: NDArray[np.uint64]
    ids: NDArray[np.uint64]
    sizes: NDArray[np.int64]

    @classmethod
    def united(cls, parts: list[PartLinks]) -> PartLinks:
        """Return the edges of all parts, and the clusters with the sum of what parts know of their sizes.

        An edge between the same fragments that several parts know counts once, with its greatest affinity.
        """
        u, v, affinity, first_u, first_v, ids, sizes = (
            np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__
        )
        order, starts = group_pairs(first_u, first_v, -affinity)
        kept = order[starts]
        known, places = np.unique(ids, return_inverse=True)
        summed = np.zeros(known.size, np.int64)
        np.add.at(summed, places, sizes)
        return cls(u[kept], v[kept], affinity[kept], first_u[kept], first_v[kept], known, summed)


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
    >>> two = np.array([2, 3], np.uint64)
    >>> links = PartLinks(two - 1, two, np.float32([0.9, 0.8]), two - 1, two, np.arange(1, 4, dtype=np.uint64),
    ...                   np.array([5, 9, 900]))
    >>> ids, smallest, left = link_part(links, [3], ConstantSize(100, 0.3))
    >>> smallest.tolist(), left.u.tolist(), left.v.tolist(), left.sizes.tolist()
    ([1, 1, 3], [1], [3], [14, 900])
    """
    order = np.lexsort((links.first_v, links.first_u, -links.affinity))
    affinity = links.affinity[order]
    limits = np.ascontiguousarray(size_rule(affinity.astype(np.float64)), np.float64)
    if limits.shape != affinity.shape or not np.all(limits[1:] <= limits[:-1]):
        raise InputError(f"size_rule must be a non-decreasing function of affinity, one size per edge; got {size_rule}")
    u, v = (find_ids(links.ids, end[order]) for end in (links.u, links.v))
    if (u == links.ids.size).any() or (v == links.ids.size).any():
        raise InputError("links must have the sizes of all clusters that edges name")
    held = np.zeros(links.ids.size + 1, np.bool_)
    held[find_ids(links.ids, np.asarray(frozen, np.uint64))] = True
    parents, sizes = np.arange(links.ids.size), links.sizes.copy()
    stop = int(np.count_nonzero(limits > 0))
    kept = np.zeros(stop, np.bool_)
    _kernel.link_part(u, v, limits, parents, sizes, held, kept)
    while not np.array_equal(parents, parents[parents]):
        parents = parents[parents]
    roots = np.flatnonzero(parents == np.arange(parents.size))
    rest = np.flatnonzero(kept)
    a, b = (links.ids[parents[end[rest]]] for end in (u, v))
    first_u, first_v = links.first_u[order][rest], links.first_v[order][rest]
    left = PartLinks(a, b, affinity[rest], first_u, first_v, links.ids[roots], sizes[roots])
    return Linked(links.ids, links.ids[parents], left)
