"""From affinities to a segmentation in one call: watershed, size-dependent linkage, dust, merge tree.

The order matters: small basins are merged while their weak links are still known, what stays small is dropped as dust,
and only then are edges gathered again, so that the merge tree is about objects worth a decision.

Source: Zlateski and Seung, arXiv 1505.00249; defaults as that group used it on serial sections later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.labels import apply_lookup
from neuropil.segmentation.linkage import (
    ConstantSize,
    MergeTree,
    cut,
    fragment_sizes,
    merge_tree,
    remove_dust,
    size_dependent_linkage,
)
from neuropil.segmentation.region_graph import region_edges
from neuropil.segmentation.watershed import Tiebreak, check_affinities, watershed


@dataclass(frozen=True)
class WatershedSegmentation:
    """Fragments that are ready to be merged at any threshold, and the segmentation at one.

    Attributes
    ----------
    fragments
        uint64 (z, y, x), 1 ... n after linkage and removal of dust, 0 background.
    tree
        Merge tree of the fragments.
    segmentation
        uint64 (z, y, x): the fragments cut at the merge threshold, or the fragments if there was none.
    """

    fragments: NDArray[np.uint64]
    tree: MergeTree
    segmentation: NDArray[np.uint64]

    def cut(self, threshold: float) -> NDArray[np.uint64]:
        """Return the segmentation, uint64 (z, y, x), with all fragments linked at affinity >= `threshold` merged."""
        return apply_lookup(self.fragments, cut(self.tree, threshold))


def segment_affinities(
    affinities: ArrayLike,
    *,
    low: float = 0.3,
    high: float = 0.999,
    size: float = 256,
    size_threshold: float = 0.3,
    dust: float = 256,
    merge_threshold: float | None = None,
    tiebreak: Tiebreak = "index",
    threads: int = 1,
) -> WatershedSegmentation:
    """Segment a volume by watershed and size-dependent single linkage of its affinities.

    Parameters
    ----------
    affinities
        (3, z, y, x), floats in [0, 1] or uint8, as for `neuropil.segmentation.watershed.watershed`. Links of 0 along z
        make it work section by section.
    low, high
        Affinities for the watershed, 0 <= low < high.
    size, size_threshold
        Fragments in contact with an affinity >= `size_threshold` are merged, strongest first, while the smaller one has
        fewer than `size` voxels. 0 voxels merges nothing.
    dust
        Fragments that still have fewer voxels become background.
    merge_threshold
        Affinity of the cut that makes `segmentation`.
    tiebreak, threads
        As for `watershed`.

    Returns
    -------
    WatershedSegmentation

    Raises
    ------
    InputError
        If the affinities or thresholds are malformed.

    Examples
    --------
    >>> chain = np.zeros((3, 1, 1, 6), np.float32)
    >>> chain[2, 0, 0, 1:] = 0.9, 0.5, 0.4, 0.5, 0.9
    >>> result = segment_affinities(chain, size=2, dust=2)
    >>> result.segmentation.tolist(), result.cut(0.4).tolist()
    ([[[1, 1, 1, 2, 2, 2]]], [[[1, 1, 1, 1, 1, 1]]])
    """
    links = check_affinities(affinities, threads=threads)
    fragments = watershed(links, low=low, high=high, tiebreak=tiebreak, threads=threads)
    sizes = fragment_sizes(fragments)
    edges = region_edges(fragments, links, threads=threads)
    lookup = size_dependent_linkage(edges, sizes, ConstantSize(size, size_threshold))
    lookup = remove_dust(lookup, sizes, dust)
    apply_lookup(fragments, lookup, out=fragments)
    tree = merge_tree(edges.contract(lookup), int(lookup.max()))
    if merge_threshold is None:
        return WatershedSegmentation(fragments, tree, fragments)
    return WatershedSegmentation(fragments, tree, apply_lookup(fragments, cut(tree, merge_threshold)))
