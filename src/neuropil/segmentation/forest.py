"""The trees that hold the fragments of segments together, and sums over what lies below each edge, or across it.

Key insight: a contact between two fragments of one tree lies across exactly the edges on the way from one to the other.
Added at both ends, and taken away twice where the ways to the root meet, it is left, in the sums over subtrees, at
those edges alone; so all edges are done in one pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuropil._kernels import forest as _kernel
from neuropil.segmentation.contacts import Contacts
from neuropil.segmentation.linkage import merge_tree
from neuropil.segmentation.region_graph import Edges

_DOUBT = 4  # links of affinity 0 that every contact has in addition, so that few links are not believed as many are


@dataclass(frozen=True)
class Forest:
    """Trees of fragments 0 ... n - 1, int64 (n,) each: parents (-1 at roots), depths, breadth-first order and roots.

    `counts` nodes are at or below a node; they have consecutive `numbers`, its own first.
    """

    parents: NDArray[np.int64]
    depths: NDArray[np.int64]
    order: NDArray[np.int64]
    roots: NDArray[np.int64]
    counts: NDArray[np.int64]
    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, contacts: Contacts, n: int) -> Forest:
        """Return the maximum spanning forest by mean affinity; of contacts of few links the mean says less."""
        score = contacts.total / (contacts.count + _DOUBT)
        tree = merge_tree(Edges.of(contacts.u, contacts.v, score), n - 1)
        ends = np.concatenate([tree.u, tree.v]).astype(np.int64)
        others = np.concatenate([tree.v, tree.u]).astype(np.int64)
        starts = np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=n))])
        parents, depths, order, roots = (np.empty(n, np.int64) for _ in range(4))
        _kernel.root(starts, others[np.argsort(ends, kind="stable")], parents, depths, order, roots)
        counts, numbers = np.ones((n, 1)), np.empty(n, np.int64)
        _kernel.sum_below(order, parents, counts)
        whole = counts[:, 0].astype(np.int64)
        _kernel.number(order, parents, whole, numbers)
        return cls(parents, depths, order, roots, whole, numbers)

    @property
    def child(self) -> NDArray[np.int64]:
        """The lower end of each edge."""
        return np.flatnonzero(self.parents > 0)

    @property
    def spans(self) -> NDArray[np.int64]:
        """The numbers [start, stop) of each edge's lower side."""
        return np.stack([self.numbers, self.numbers + self.counts], axis=1)[self.child]

    def below(self, values: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the sums of values (n, k) over the nodes below each node, itself included."""
        sums = values.astype(np.float64)
        _kernel.sum_below(self.order, self.parents, sums)
        return sums

    def crossing(self, contacts: Contacts, amounts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums (k, edges) of amounts (m, k) over the contacts between what is below an edge and the rest."""
        sums = np.zeros((self.parents.size, amounts.shape[1]))
        u, v = contacts.u.astype(np.int64), contacts.v.astype(np.int64)
        _kernel.add_crossings(u, v, amounts, self.parents, self.depths, sums)
        _kernel.sum_below(self.order, self.parents, sums)
        return sums[self.child].T
