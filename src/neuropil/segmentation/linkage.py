"""Size-dependent single linkage of fragments, removal of dust, and the merge tree.

Plain single linkage chains objects through one weak spot. Key insight: leaks between two large objects are what hurts,
while small pieces may be merged on weak evidence; so in order of falling affinity w two clusters are merged only if the
smaller one is below size(w), a size that does not grow as w falls. At the end no pair in contact breaks that predicate,
and the maximum spanning tree of the edges gives the same result as all of them. That tree is then all that is needed to
threshold the outcome at any later affinity.

Source: Zlateski and Seung, arXiv 1505.00249.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import linkage as _kernel
from neuropil.errors import InputError
from neuropil.labels import apply_lookup, frozen
from neuropil.segmentation.region_graph import Edges

#: From affinities, float64 (n,), to sizes in voxels, float64 (n,): non-decreasing, >= 0, 0 = never merge.
SizeRule = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _reaches(affinity: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Compare in float32, the type affinities have, so that a threshold of 0.7 is met by a stored 0.7."""
    return affinity.astype(np.float32) >= np.float32(threshold)


@dataclass(frozen=True)
class ConstantSize:
    """size(w) = `size` voxels where w >= `threshold`, else 0.

    >>> ConstantSize(256, 0.3)(np.array([0.2, 0.3, 1.0])).tolist()
    [0.0, 256.0, 256.0]
    """

    size: float
    threshold: float

    def __call__(self, affinity: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(_reaches(affinity, self.threshold), float(self.size), 0.0)


@dataclass(frozen=True)
class LinearSize:
    """size(w) = `coefficient` * w voxels where w >= `threshold`, else 0.

    >>> LinearSize(1000)(np.array([0.25, 0.5])).tolist()
    [0.0, 500.0]
    """

    coefficient: float
    threshold: float = 0.3

    def __call__(self, affinity: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(_reaches(affinity, self.threshold), self.coefficient * affinity, 0.0)


@dataclass(frozen=True)
class SquareSize:
    """size(w) = `coefficient` * w**2 voxels where w >= `threshold`, else 0.

    >>> SquareSize(1000)(np.array([0.25, 0.5])).tolist()
    [0.0, 250.0]
    """

    coefficient: float
    threshold: float = 0.3

    def __call__(self, affinity: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(_reaches(affinity, self.threshold), self.coefficient * affinity**2, 0.0)


@dataclass(frozen=True)
class ShiftedSquareSize:
    """size(w) = `offset` + `greatest` * ((w - t) / (1 - t))**2 voxels where w >= t = `threshold`, else 0.

    >>> ShiftedSquareSize(10, 1000, 0.5)(np.array([0.25, 0.5, 1.0])).tolist()
    [0.0, 10.0, 1010.0]
    """

    offset: float
    greatest: float
    threshold: float

    def __call__(self, affinity: NDArray[np.float64]) -> NDArray[np.float64]:
        above = (affinity - self.threshold) / max(1.0 - self.threshold, 1e-12)
        return np.where(_reaches(affinity, self.threshold), self.offset + self.greatest * above**2, 0.0)


@dataclass(frozen=True)
class MergeTree:
    """Maximum spanning forest of the edges: pairs of nodes and the affinity at which they come together.

    Attributes
    ----------
    u, v
        uint64 (m,), nodes 1 ... `size`, u < v.
    affinity
        float32 (m,), falling.
    size
        Number of nodes n; trees of the forest number n - m.
    """

    u: NDArray[np.uint64]
    v: NDArray[np.uint64]
    affinity: NDArray[np.float32]
    size: int


def fragment_sizes(fragments: ArrayLike) -> NDArray[np.int64]:
    """Count the voxels of each fragment.

    Parameters
    ----------
    fragments
        Integers >= 0 of any shape, dense: the result is as long as the greatest id.

    Returns
    -------
    ndarray of int64
        (n + 1,), voxels of background and of fragments 1 ... n.

    Raises
    ------
    InputError
        If ids are not integers, are negative, or so sparse that `neuropil.labels.relabel` should come first.

    Examples
    --------
    >>> fragment_sizes([0, 1, 1, 3]).tolist()
    [1, 2, 0, 1]
    """
    ids = np.asarray(fragments)
    if ids.dtype.kind not in "ui":
        raise InputError(f"fragments must be integers; got {ids.dtype}")
    largest = int(ids.max()) if ids.size else 0
    if largest > max(2 * ids.size, 1024) or (ids.size and int(ids.min()) < 0):
        raise InputError(f"fragments must have dense ids 0 ... n, see neuropil.labels.relabel; got an id of {largest}")
    sizes = np.zeros(largest + 1, np.int64)
    native = np.ascontiguousarray(ids, ids.dtype.newbyteorder("="))
    _kernel.count_labels(frozen(native.reshape(-1)), sizes)
    return sizes


def size_dependent_linkage(edges: Edges, sizes: ArrayLike, size_rule: SizeRule) -> NDArray[np.uint64]:
    r"""Merge fragments in order of falling affinity w wherever the smaller cluster is below the size the rule allows.

    .. math:: \min(S_a, S_b) < \mathrm{size}(w)

    Parameters
    ----------
    edges
        Edges between fragments 1 ... n.
    sizes
        (n + 1,) voxels of each fragment, >= 0, entry 0 for background; see `fragment_sizes`.
    size_rule
        Function from affinities to sizes, e.g. `ConstantSize`, `LinearSize`; it must not fall as affinity rises.

    Returns
    -------
    ndarray of uint64
        (n + 1,) lookup, fragment -> segment 1 ... m, numbered in the order of their smallest fragments; 0 -> 0.

    Raises
    ------
    InputError
        If an edge names a fragment without a size, or the rule is not non-decreasing in affinity.

    Examples
    --------
    >>> edges = Edges.of([1, 2], [2, 3], [0.9, 0.8])
    >>> size_dependent_linkage(edges, [0, 10, 500, 500], ConstantSize(100, 0.3)).tolist()
    [0, 1, 1, 2]
    """
    voxels = _sizes(edges, sizes)
    limits = np.ascontiguousarray(size_rule(edges.affinity.astype(np.float64)), np.float64)
    if limits.shape != edges.affinity.shape or not np.all(limits[1:] <= limits[:-1]):
        raise InputError(f"size_rule must be a non-decreasing function of affinity, one size per edge; got {size_rule}")
    parents = np.arange(voxels.size)
    _kernel.link(edges.u, edges.v, limits, 0, int(np.count_nonzero(limits > 0)), parents, voxels)
    return _number(parents)


def stepwise_linkage(
    edges: Edges, sizes: ArrayLike, steps: Sequence[tuple[float, float]], *, restart: bool = True
) -> NDArray[np.uint64]:
    """Merge by a list of (size, threshold): for each in turn, where affinity > threshold and the smaller is below size.

    Parameters
    ----------
    edges, sizes
        As for `size_dependent_linkage`.
    steps
        Pairs of a size in voxels and an affinity.
    restart
        Whether every step starts again at the strongest edge, as the Julia program does, or goes on where the step
        before it stopped, as the C++ program does.

    Returns
    -------
    ndarray of uint64
        (n + 1,) lookup, fragment -> segment, as from `size_dependent_linkage`.

    Raises
    ------
    InputError
        If an edge names a fragment without a size, or a step is not a pair.

    Examples
    --------
    >>> edges = Edges.of([1, 2], [2, 3], [0.9, 0.4])
    >>> stepwise_linkage(edges, [0, 10, 10, 10], [(5, 0.5), (100, 0.2)]).tolist()
    [0, 1, 1, 1]
    >>> stepwise_linkage(edges, [0, 10, 10, 10], [(5, 0.5), (100, 0.2)], restart=False).tolist()
    [0, 1, 2, 2]
    """
    if any(len(step) != 2 for step in steps):
        raise InputError(f"steps must be pairs of size and threshold; got {steps}")
    voxels = _sizes(edges, sizes)
    parents = np.arange(voxels.size)
    start = 0
    for size, threshold in steps:
        stop = int(np.count_nonzero(edges.affinity > np.float32(threshold)))
        limits = np.full(edges.affinity.size, float(size))
        _kernel.link(edges.u, edges.v, limits, start, stop, parents, voxels)
        start = 0 if restart else max(start, stop)
    return _number(parents)


def remove_dust(lookup: ArrayLike, sizes: ArrayLike, dust: float) -> NDArray[np.uint64]:
    """Send segments of fewer than `dust` voxels to background and number the others consecutively, keeping their order.

    Parameters
    ----------
    lookup
        (n + 1,) integers, fragment -> segment; ``lookup[0]`` is 0.
    sizes
        (n + 1,) voxels of each fragment.
    dust
        Voxels; 0 removes nothing.

    Returns
    -------
    ndarray of uint64
        (n + 1,) lookup, fragment -> segment 1 ... m or 0.

    Raises
    ------
    InputError
        If `lookup` and `sizes` differ in length.

    Examples
    --------
    >>> remove_dust([0, 1, 2, 3], [7, 10, 2, 30], 5).tolist()
    [0, 1, 0, 2]
    """
    table, voxels = np.asarray(lookup, np.uint64), np.asarray(sizes, np.int64)
    if table.ndim != 1 or table.shape != voxels.shape:
        raise InputError(f"lookup and sizes must have one entry per fragment each; got {table.shape}, {voxels.shape}")
    segments, positions = np.unique(table, return_inverse=True)
    totals = np.zeros(segments.size, np.int64)
    np.add.at(totals, positions, voxels)
    kept = (totals >= dust) & (segments != 0)
    numbers: NDArray[np.uint64] = np.where(kept, np.cumsum(kept), 0).astype(np.uint64)
    return numbers[positions]


def without_dust(segmentation: NDArray[np.uint64], dust: float) -> NDArray[np.uint64]:
    """Return labels 0 ... n, uint64 of any shape, without those of fewer than `dust` voxels, numbered anew in order.

    >>> without_dust(np.array([3, 1, 0, 1, 2, 2], np.uint64), 2).tolist()
    [0, 1, 0, 1, 2, 2]
    """
    sizes = fragment_sizes(segmentation)
    return apply_lookup(segmentation, remove_dust(np.arange(sizes.size), sizes, dust))


def merge_tree(edges: Edges, size: int) -> MergeTree:
    """Return the maximum spanning forest of the edges (Kruskal 1956), which single linkage at any threshold needs.

    Parameters
    ----------
    edges
        Edges between nodes 1 ... `size`.
    size
        Number of nodes.

    Returns
    -------
    MergeTree

    Raises
    ------
    InputError
        If an edge names a node above `size`.

    Examples
    --------
    >>> tree = merge_tree(Edges.of([1, 2, 1], [2, 3, 3], [0.75, 0.5, 0.25]), 3)
    >>> tree.u.tolist(), tree.v.tolist(), tree.affinity.tolist()
    ([1, 2], [2, 3], [0.75, 0.5])
    """
    _check_nodes(edges, size)
    kept = np.zeros(edges.affinity.size, np.bool_)
    _kernel.spanning_forest(edges.u, edges.v, np.arange(size + 1), kept)
    return MergeTree(edges.u[kept], edges.v[kept], edges.affinity[kept], size)


def cut(tree: MergeTree, threshold: float) -> NDArray[np.uint64]:
    """Merge all nodes that the tree connects with affinities >= `threshold`: single linkage at that level.

    Parameters
    ----------
    tree
        Merge tree of nodes 1 ... n.
    threshold
        Affinity, compared as float32.

    Returns
    -------
    ndarray of uint64
        (n + 1,) lookup, node -> segment 1 ... m, numbered in the order of their smallest nodes; 0 -> 0.

    Examples
    --------
    >>> tree = merge_tree(Edges.of([1, 2], [2, 3], [0.75, 0.5]), 3)
    >>> cut(tree, 0.6).tolist(), cut(tree, 0.5).tolist()
    ([0, 1, 1, 2], [0, 1, 1, 1])
    """
    stop = int(np.count_nonzero(tree.affinity >= np.float32(threshold)))
    parents = np.arange(tree.size + 1)
    _kernel.spanning_forest(tree.u[:stop], tree.v[:stop], parents, np.zeros(stop, np.bool_))
    return _number(parents)


def _check_nodes(edges: Edges, size: int) -> None:
    largest = int(edges.v.max()) if edges.v.size else 0
    if largest > size:
        raise InputError(f"edges must name nodes 1 ... {size}; got {largest}")


def _sizes(edges: Edges, sizes: ArrayLike) -> NDArray[np.int64]:
    """Return a copy of the sizes that clusters may write to."""
    voxels = np.array(sizes, np.int64)
    if voxels.ndim != 1 or voxels.size == 0 or voxels.min() < 0:
        raise InputError(f"sizes must be a list of voxels >= 0, background first; got shape {voxels.shape}")
    _check_nodes(edges, voxels.size - 1)
    return voxels


def _number(parents: NDArray[np.int64]) -> NDArray[np.uint64]:
    lookup = np.zeros(parents.size, np.uint64)
    _kernel.number(parents, lookup)
    return lookup
