"""Fragments and their merge tree as lists of agglomerates: which fragments, joined by which edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuropil.segmentation.linkage import MergeTree, cut


@dataclass(frozen=True)
class Agglomerates:
    """Agglomerates 1 ... m of fragments 1 ... n; agglomerate 0 is empty.

    Attributes
    ----------
    of_fragment
        uint64 (n + 1,), fragment -> agglomerate, 0 -> 0.
    starts
        uint64 (m + 2,): agglomerate k has the entries ``starts[k]`` to ``starts[k + 1] - 1`` of `fragments`.
    fragments
        uint64 (n,), ascending within an agglomerate.
    edge_starts
        uint64 (m + 2,), in the same way for `edges` and `scores`.
    edges
        uint64 (e, 2), places of two fragments within their agglomerate's list, the lower first, in ascending order.
    scores
        float32 (e,).
    """

    of_fragment: NDArray[np.uint64]
    starts: NDArray[np.uint64]
    fragments: NDArray[np.uint64]
    edge_starts: NDArray[np.uint64]
    edges: NDArray[np.uint64]
    scores: NDArray[np.float32]


def agglomerates(tree: MergeTree, threshold: float) -> Agglomerates:
    """Return the agglomerates of a merge tree cut at a threshold.

    Examples
    --------
    >>> from neuropil.segmentation.linkage import merge_tree
    >>> from neuropil.segmentation.region_graph import Edges
    >>> found = agglomerates(merge_tree(Edges.of([1, 2], [3, 3], [0.75, 0.25]), 3), 0.5)
    >>> found.of_fragment.tolist(), found.starts.tolist(), found.fragments.tolist(), found.edges.tolist()
    ([0, 1, 2, 1], [0, 0, 2, 3], [1, 3, 2], [[0, 1]])
    """
    lookup = cut(tree, threshold)
    order = np.argsort(lookup[1:], kind="stable")
    sizes = np.bincount(lookup[1:].astype(np.int64), minlength=int(lookup.max()) + 1)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    places = np.empty(tree.size, np.int64)
    places[order] = np.arange(tree.size) - starts[lookup[1:][order].astype(np.int64)]
    kept = tree.affinity >= np.float32(threshold)
    ends = np.stack([tree.u[kept], tree.v[kept]], axis=1).astype(np.int64)
    owners = lookup[ends[:, 0]].astype(np.int64)
    edges = np.sort(places[ends - 1], axis=1)
    by_place = np.lexsort((edges[:, 1], edges[:, 0], owners))
    counts = np.bincount(owners, minlength=sizes.size)
    return Agglomerates(
        lookup,
        starts.astype(np.uint64),
        (order + 1).astype(np.uint64),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64),
        edges[by_place].astype(np.uint64),
        tree.affinity[kept][by_place],
    )
