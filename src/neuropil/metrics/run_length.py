"""Expected run length: how far one follows a neuron before the segmentation is wrong.

Put a pin into a random place of a skeleton and follow its segment both ways: the mean length of correct skeleton found
is the expected run length (ERL; Januszewski et al. 2018, doi:10.1038/s41592-018-0049-4). A segment that covers two
skeletons is worth nothing on either, so a merge costs more than a split. All is a function of the segment at each node:
no volume is looked at here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.errors import InputError
from neuropil.metrics.sections import Interval


@dataclass(frozen=True)
class RunLength:
    """Run lengths of skeletons in one segmentation; arrays are aligned with `skeletons`.

    Attributes
    ----------
    skeletons
        uint64 (s,), ids, ascending.
    length_nm
        float64 (s,), sums of edge lengths.
    run_length_nm
        float64 (s,), the expected run length on each: sum of squares of its correct lengths per segment / length.
    correct_nm, split_nm, merged_nm, omitted_nm
        float64 (s,), lengths of its edges by what they are; they add up to `length_nm`.
    pieces
        int64 (s,), segments that cover nodes of it, be it one; background left out.
    merging
        uint64, ids of the merging segments, ascending.
    merges
        Number of wrong joins: over merging segments, skeletons of which it covers `merge_threshold` nodes, less one.
    merge_threshold
        Nodes of a skeleton that a segment must cover to merge it with another.
    nodes
        Number of nodes of all skeletons.
    """

    skeletons: NDArray[np.uint64]
    length_nm: NDArray[np.float64]
    run_length_nm: NDArray[np.float64]
    correct_nm: NDArray[np.float64]
    split_nm: NDArray[np.float64]
    merged_nm: NDArray[np.float64]
    omitted_nm: NDArray[np.float64]
    pieces: NDArray[np.int64]
    merging: NDArray[np.uint64]
    merges: int
    merge_threshold: int
    nodes: int

    @property
    def erl_nm(self) -> float:
        """Expected run length: the mean of `run_length_nm`, weighted by length; nan without any length."""
        return _weighted(self.run_length_nm, self.length_nm)

    @property
    def true_erl_nm(self) -> float:
        """What a perfect segmentation would have: the mean length, weighted by length."""
        return _weighted(self.length_nm, self.length_nm)

    @property
    def normalized(self) -> float:
        """`erl_nm` / `true_erl_nm`, in [0, 1] (NERL)."""
        return self.erl_nm / self.true_erl_nm

    @property
    def splits(self) -> int:
        """Number of cuts: over skeletons, `pieces` less one."""
        return int(np.maximum(self.pieces - 1, 0).sum())

    def between(self, low_nm: float, high_nm: float) -> RunLength:
        """Return the run lengths of skeletons of low <= length < high; `merges` and `nodes` stay those of all.

        >>> result = run_length([[0, 0, 0], [0, 0, 5]], [[0, 1]], [1, 1], [9, 9])
        >>> result.between(0, 5).length_nm.size, result.between(5, 6).length_nm.size
        (0, 1)
        """
        inside = (self.length_nm >= low_nm) & (self.length_nm < high_nm)
        names = ("length_nm", "run_length_nm", "correct_nm", "split_nm", "merged_nm", "omitted_nm", "pieces")
        return replace(self, skeletons=self.skeletons[inside], **{name: getattr(self, name)[inside] for name in names})


def run_length(
    positions_nm: ArrayLike,
    edges: ArrayLike,
    skeletons: ArrayLike,
    segments: ArrayLike,
    *,
    merge_threshold: int = 0,
    no_merge: ArrayLike = (),
) -> RunLength:
    r"""Score a segmentation on skeletons.

    An edge is omitted if one of its ends is background, else split if its ends are in different segments, else merged
    if its segment is a merging one, else correct. A segment is merging if it covers nodes of two skeletons, of each at
    least `merge_threshold`; it is then bad for all skeletons that it touches. With correct lengths
    :math:`\ell_{s,g}` of skeleton s in segment g and lengths :math:`L_s`,

    .. math:: \mathrm{ERL} = \frac{1}{\sum_s L_s} \sum_s L_s \frac{\sum_g \ell_{s,g}^2}{L_s}

    Parameters
    ----------
    positions_nm
        (n, 3) nodes, z, y, x.
    edges
        Integers (m, 2), positions among the nodes; both ends of the same skeleton.
    skeletons
        Integers >= 0 (n,), the id of each node's skeleton; any uint64.
    segments
        Integers >= 0 (n,), the id of the segment at each node; any uint64, 0 is background.
    merge_threshold
        T; 0 and 1 both mean that one node is enough.
    no_merge
        Ids of segments that are merging whatever they cover, for example since they reach into a region where no
        skeleton is.

    Returns
    -------
    RunLength

    Raises
    ------
    InputError
        If shapes do not fit, a position is not finite, an edge joins two skeletons, or the threshold is negative.

    Notes
    -----
    The definition is that of funlib.evaluate with T = 0, and of em_erl, whose merge threshold this is. The number
    means little without T, the voxel size and the number of nodes.

    Examples
    --------
    >>> positions = [[0, 0, x] for x in range(11)]
    >>> edges = [[x, x + 1] for x in range(10)]
    >>> result = run_length(positions, edges, [1] * 11, [4] * 6 + [5] * 5)
    >>> result.erl_nm, result.true_erl_nm, result.splits
    (4.1, 10.0, 1)
    """
    nodes = checked_nodes(positions_nm, edges, skeletons, segments)
    if merge_threshold < 0:
        raise InputError(f"merge_threshold must not be negative; got {merge_threshold}")
    count, bad = nodes.skeleton_ids.size, np.isin(nodes.segment_ids, np.array(no_merge, np.uint64))
    pairs = nodes.pairs()
    large = pairs.nodes >= merge_threshold
    covered = np.bincount(pairs.segment[large], minlength=nodes.segment_ids.size)
    bad = (bad | (covered > 1)) & (nodes.segment_ids != 0)
    u, v = nodes.edges.T
    here, there, skeleton = nodes.segment[u], nodes.segment[v], nodes.skeleton[u]
    omitted = (nodes.segment_ids[here] == 0) | (nodes.segment_ids[there] == 0)
    split = ~omitted & (here != there)
    merged = ~omitted & ~split & bad[here]
    correct = ~omitted & ~split & ~merged

    def summed(which: NDArray[np.bool_]) -> NDArray[np.float64]:
        return sums(skeleton[which], nodes.lengths_nm[which], count)

    length = sums(skeleton, nodes.lengths_nm, count)
    owner, runs = _runs(skeleton[correct], here[correct], nodes.lengths_nm[correct])
    squares = sums(owner, runs**2, count)
    return RunLength(
        skeletons=nodes.skeleton_ids,
        length_nm=length,
        run_length_nm=np.divide(squares, length, out=np.zeros(count), where=length > 0),
        correct_nm=summed(correct),
        split_nm=summed(split),
        merged_nm=summed(merged),
        omitted_nm=summed(omitted),
        pieces=np.bincount(pairs.skeleton, minlength=count),
        merging=nodes.segment_ids[bad],
        merges=int(np.maximum(covered - 1, 0).sum()),
        merge_threshold=merge_threshold,
        nodes=nodes.segment.size,
    )


def run_length_interval(
    result: RunLength, rng: np.random.Generator, n: int = 1000, *, level: float = 0.95
) -> tuple[Interval, Interval]:
    """Estimate how far ERL and NERL would move had other skeletons been drawn: the percentile bootstrap over skeletons.

    Parameters
    ----------
    result
        Of at least 2 skeletons with a length; better 50. Which segments merge is not drawn anew.
    rng
        Source of the resamples.
    n
        Number of resamples.
    level
        Coverage of the intervals, in (0, 1).

    Returns
    -------
    two Interval
        Of `erl_nm` and of `normalized`.

    Raises
    ------
    InputError
        If fewer than two skeletons have a length, n < 1, or the level is not in (0, 1).

    Examples
    --------
    >>> result = run_length([[0, 0, x] for x in range(4)], [[0, 1], [2, 3]], [1, 1, 2, 2], [5, 5, 6, 0])
    >>> erl, nerl = run_length_interval(result, np.random.default_rng(0), 200)
    >>> nerl.low, nerl.estimate, nerl.high
    (0.0, 0.5, 1.0)
    """
    long = result.length_nm > 0
    lengths, runs = result.length_nm[long], result.run_length_nm[long]
    if lengths.size < 2 or n < 1 or not 0 < level < 1:
        raise InputError(f"bootstrap needs 2 skeletons, n >= 1, level in (0, 1); got {lengths.size}, {n}, {level}")
    drawn = np.empty((n, 2))
    for k in range(n):
        chosen = rng.integers(lengths.size, size=lengths.size)
        erl = _weighted(runs[chosen], lengths[chosen])
        drawn[k] = erl, erl / _weighted(lengths[chosen], lengths[chosen])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return (
        Interval(result.erl_nm, float(low[0]), float(high[0]), level),
        Interval(result.normalized, float(low[1]), float(high[1]), level),
    )


@dataclass(frozen=True)
class Pairs:
    """Each skeleton and segment that have nodes in common: their positions among the ids, and the number of nodes."""

    skeleton: NDArray[np.int64]
    segment: NDArray[np.int64]
    nodes: NDArray[np.int64]


@dataclass(frozen=True)
class CheckedNodes:
    """Nodes with dense ids: `skeleton` and `segment` are positions in the sorted ids."""

    positions_nm: NDArray[np.float64]
    edges: NDArray[np.int64]
    lengths_nm: NDArray[np.float64]
    skeleton_ids: NDArray[np.uint64]
    skeleton: NDArray[np.int64]
    segment_ids: NDArray[np.uint64]
    segment: NDArray[np.int64]

    def pairs(self) -> Pairs:
        """Return the table of skeletons and segments without background, sorted by skeleton, then segment."""
        wide = max(self.segment_ids.size, 1)  # the product of two numbers of distinct ids of nodes fits into 63 bits
        inside = self.segment_ids[self.segment] != 0
        codes, counts = np.unique(self.skeleton[inside] * wide + self.segment[inside], return_counts=True)
        return Pairs(codes // wide, codes % wide, counts.astype(np.int64))


def checked_nodes(positions_nm: ArrayLike, edges: ArrayLike, skeletons: ArrayLike, segments: ArrayLike) -> CheckedNodes:
    """Check the arguments that all functions of this subject share, and make ids dense; see `run_length`."""
    positions = np.asarray(positions_nm, np.float64)
    links = np.asarray(edges)
    links = links.reshape(-1, 2) if links.size == 0 else links
    n = len(positions)
    if positions.shape != (n, 3) or not np.isfinite(positions).all():
        raise InputError(f"positions_nm must be finite numbers (n, 3); got shape {positions.shape}")
    if links.ndim != 2 or links.shape[1] != 2 or (links.size and links.dtype.kind not in "iu"):
        raise InputError(f"edges must be integers (m, 2); got {links.dtype} {links.shape}")
    if links.size and (links.min() < 0 or links.max() >= n):
        raise InputError(f"edges must name nodes 0 ... {n - 1}; got {links.min()} ... {links.max()}")
    links = links.astype(np.int64)
    skeleton_ids, skeleton = _dense(skeletons, "skeletons", n)
    segment_ids, segment = _dense(segments, "segments", n)
    torn = np.flatnonzero(skeleton[links[:, 0]] != skeleton[links[:, 1]])
    if torn.size:
        raise InputError(f"both ends of an edge must be of one skeleton; edge {torn[0]} joins two")
    lengths = np.linalg.norm(positions[links[:, 0]] - positions[links[:, 1]], axis=1)
    return CheckedNodes(positions, links, lengths, skeleton_ids, skeleton, segment_ids, segment)


def _dense(ids: ArrayLike, name: str, n: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    array = np.asarray(ids)
    if array.shape != (n,) or (n and array.dtype.kind not in "iu") or (array.dtype.kind == "i" and np.any(array < 0)):
        raise InputError(f"{name} must be one integer >= 0 per node, ({n},); got {array.dtype} {array.shape}")
    found, places = np.unique(array.astype(np.uint64), return_inverse=True)
    return found, places.astype(np.int64)


def _runs(
    skeleton: NDArray[np.int64], segment: NDArray[np.int64], lengths: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the skeleton and the summed length of each pair of a skeleton and a segment."""
    wide = int(segment.max(initial=0)) + 1
    codes, places = np.unique(skeleton * wide + segment, return_inverse=True)
    return codes // wide, sums(places, lengths, codes.size)


def sums(places: NDArray[np.int64], values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Add up the values that belong to each of `size` places."""
    return np.asarray(np.bincount(places, weights=values, minlength=size), np.float64)


def _weighted(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    total = float(weights.sum())
    return float((values * weights).sum() / total) if total > 0 else float("nan")
