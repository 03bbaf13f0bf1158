"""Where a segmentation is probably wrong: places at which one join or one cut would change much.

A segmentation of fragments can be wrong in two ways, and either has its candidates. Two segments that touch may belong
together: one candidate for each pair, to be joined. A segment may hold two objects: one candidate for each edge of its
merge tree, to be cut there in two. Key insight: what speaks for a cut is not the one edge by which the two sides came
together but the whole of their contact, and the contacts that cross each edge of a tree are found for all edges at
once by sums over subtrees. Beside the affinities, shape speaks: a piece that ends inside the volume, a hole in one
neighbour, a neck thin for what it joins, two sides that both go on to the volume's faces, an area that jumps from
section to section where the sides meet.

What a suggestion would change, if it is right, is known beforehand: the variation of information of two pure pieces
of a and b voxels falls by (a + b) log (a + b) - a log a - b log b, over the number of voxels. A list in the order of
that times the probability of being right (`neuropil.segmentation.suspicion`) gains most per look.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import forest as _kernel
from neuropil.errors import InputError
from neuropil.labels import relabel
from neuropil.segmentation.contacts import Contacts, region_contacts
from neuropil.segmentation.forest import Forest
from neuropil.segmentation.linkage import fragment_sizes
from neuropil.segmentation.shapes import Shapes, face_bits, jumps

#: What speaks for joining two segments, in the order of the columns of `Suspects.features`.
JOIN_FEATURES = ("mean", "largest", "log_count", "share", "lead", "ends", "overlap", "log_size")
#: What speaks for cutting a segment in two.
CUT_FEATURES = ("mean", "edge", "log_count", "neck", "weak", "faces", "jump", "log_size")


@dataclass(frozen=True)
class Parts:
    """A segmentation and the fragments that it is made of.

    Attributes
    ----------
    fragments
        uint64 (z, y, x), 1 ... n, 0 background.
    segment_of
        int64 (n + 1,), fragment -> segment 1 ... m, 0 -> 0.
    segment_ids, fragment_ids
        uint64 (m + 1,) and (n + 1,), the ids they had; ids of fragments repeat where one was cut by segments.
    """

    fragments: NDArray[np.uint64]
    segment_of: NDArray[np.int64]
    segment_ids: NDArray[np.uint64]
    fragment_ids: NDArray[np.uint64]


@dataclass(frozen=True)
class Suspects:
    """Candidates, in no order.

    Attributes
    ----------
    cut
        bool (k,), whether a segment shall be cut in two, else two be joined.
    u, v
        int64 (k,), fragments: the tree's edge that is cut, or the pair over whose contact two segments are joined.
    sizes
        int64 (k, 2), voxels of the two sides, that of u first.
    features
        float64 (k, 8), named by `JOIN_FEATURES` or `CUT_FEATURES`.
    gain
        float64 (k,), bits of variation of information that a right suggestion gains if both sides are pure.
    middle
        float64 (k, 3), mean place z, y, x of the contact of u and v, voxels.
    segments
        int64 (k, 2), positions in `Parts.segment_ids` of the segments of u and v.
    span
        int64 (k, 2), for cuts: the fragments on the side of u are those numbered [start, stop) along the trees.
    """

    cut: NDArray[np.bool_]
    u: NDArray[np.int64]
    v: NDArray[np.int64]
    sizes: NDArray[np.int64]
    features: NDArray[np.float64]
    gain: NDArray[np.float64]
    middle: NDArray[np.float64]
    segments: NDArray[np.int64]
    span: NDArray[np.int64]

    def take(self, which: NDArray[np.integer] | NDArray[np.bool_]) -> Suspects:
        """Return some of them, in a given order."""
        return Suspects(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Search:
    """What `find_suspects` found.

    Attributes
    ----------
    suspects
        Candidates.
    edges
        int64 (m, 2), the edges of the trees of all segments.
    numbers
        int64 (n + 1,), number of each fragment along the trees; see `Suspects.span`.
    """

    suspects: Suspects
    edges: NDArray[np.int64]
    numbers: NDArray[np.int64]

    def side(self, k: int) -> NDArray[np.bool_]:
        """Return bool (n + 1,): the fragments on the side of u of a cut."""
        start, stop = self.suspects.span[k]
        return np.asarray((self.numbers >= start) & (self.numbers < stop))


def parts_of(segmentation: ArrayLike, fragments: ArrayLike) -> Parts:
    """Return a segmentation as one of fragments; a fragment that lies in two segments becomes two.

    Parameters
    ----------
    segmentation, fragments
        Integers >= 0, (z, y, x); background is where the segmentation is 0. Where a segment has no fragment, the rest
        of it is one.

    Raises
    ------
    InputError
        If shapes differ, there are not three axes, or there are 2**32 fragments or more.

    Examples
    --------
    >>> parts = parts_of([[[5, 5, 5, 9, 0]]], [[[1, 1, 2, 2, 2]]])
    >>> parts.fragments.tolist(), parts.segment_of.tolist()
    ([[[1, 1, 2, 3, 0]]], [0, 1, 1, 2])
    """
    whole, pieces = relabel(segmentation), relabel(fragments)
    if whole.labels.shape != pieces.labels.shape or whole.labels.ndim != 3:
        raise InputError(
            f"fragments must have the shape (z, y, x) of the segmentation, {whole.labels.shape};"
            f" got {pieces.labels.shape}"
        )
    if max(whole.ids.size, pieces.ids.size) >= 1 << 32:
        raise InputError("fragments must number less than 2**32")
    both = (whole.labels << np.uint64(32)) | pieces.labels
    both[whole.labels == 0] = 0
    dense = relabel(both)
    return Parts(
        dense.labels,
        (dense.ids >> np.uint64(32)).astype(np.int64),
        whole.ids,
        pieces.ids[(dense.ids & np.uint64(0xFFFFFFFF)).astype(np.int64)],
    )


def find_suspects(
    parts: Parts, affinities: ArrayLike, *, threshold: float = 0.5, least: int = 100, threads: int = 1
) -> Search:
    """Find all candidates of a segmentation and what speaks for each.

    Parameters
    ----------
    parts
        From `parts_of`.
    affinities
        (3, z, y, x), as for `neuropil.segmentation.watershed.watershed`.
    threshold
        Mean affinity at which the segmentation was cut, in (0, 1); means are told from there.
    least
        Voxels; candidates with a smaller side are left out.
    threads
        Threads to share the work.

    Raises
    ------
    InputError
        If the shapes do not match, the affinities are malformed, or the threshold is out of range.

    Examples
    --------
    >>> links = np.zeros((3, 1, 1, 4), np.float32)
    >>> links[2, 0, 0, 1:] = 0.9, 0.2, 0.6
    >>> found = find_suspects(parts_of([[[1, 1, 1, 2]]], [[[1, 1, 2, 3]]]), links, least=1).suspects
    >>> found.cut.tolist(), found.u.tolist(), found.v.tolist()
    ([False, True], [2, 2], [3, 1])
    """
    if not 0 < threshold < 1:
        raise InputError(f"threshold must lie between 0 and 1; got {threshold}")
    contacts = region_contacts(parts.fragments, affinities, threads=threads)
    places, along_z = _places(parts.fragments, contacts)
    shapes = Shapes.of(parts.fragments, parts.segment_of)
    known = _Known(parts, contacts, places, along_z, shapes, float(_logit(np.float64(threshold))))
    ends = parts.segment_of[np.stack([contacts.u, contacts.v]).astype(np.int64)]
    inner = _some(contacts, np.flatnonzero(ends[0] == ends[1]))
    forest = Forest.of(inner, parts.segment_of.size)
    joins, cuts = _joins(known), _cuts(known, inner, forest)
    both = Suspects(*(np.concatenate([getattr(one, name) for one in (joins, cuts)]) for name in vars(joins)))
    large = np.flatnonzero(both.sizes.min(axis=1, initial=np.iinfo(np.int64).max) >= least)
    edges = np.stack([forest.child, forest.parents[forest.child]], axis=1)
    return Search(both.take(large), edges, forest.numbers)


def contact_voxel(
    fragments: NDArray[np.uint64], u: int, v: int, middle: ArrayLike, voxel_size: ArrayLike, box: ArrayLike
) -> tuple[int, int, int]:
    """Return the voxel z, y, x of fragment u that touches v and is nearest to a place.

    Parameters
    ----------
    fragments
        uint64 (z, y, x).
    middle
        z, y, x, voxels.
    voxel_size
        z, y, x, nm.
    box
        z0, z1, y0, y1, x0, x1: where to look; it must hold u.

    Examples
    --------
    >>> contact_voxel(np.array([[[1, 1, 2]]], np.uint64), 1, 2, (0, 0, 1.5), (1, 1, 1), (0, 1, 0, 1, 0, 3))
    (0, 0, 1)
    """
    place, scale = np.asarray(middle, np.float64), np.asarray(voxel_size, np.float64)
    found = _kernel.nearest_link(fragments, np.uint64(u), np.uint64(v), np.asarray(box, np.int64), place, scale)
    return (int(found[0]), int(found[1]), int(found[2]))


@dataclass(frozen=True)
class _Known:
    parts: Parts
    contacts: Contacts
    places: NDArray[np.float64]
    along_z: NDArray[np.int64]
    shapes: Shapes
    level: float


def _joins(known: _Known) -> Suspects:
    """Return one candidate for each pair of segments in contact."""
    contacts, segment_of, sizes = known.contacts, known.parts.segment_of, known.shapes.sizes
    ends = segment_of[np.stack([contacts.u, contacts.v]).astype(np.int64)]
    apart = np.flatnonzero(ends[0] != ends[1])
    low, high = ends[:, apart].min(0), ends[:, apart].max(0)
    order = np.lexsort((-contacts.total[apart], high, low))  # of a pair of segments, the strongest contact first
    apart, low, high = apart[order], low[order], high[order]
    first = np.flatnonzero((np.diff(low, prepend=-1) != 0) | (np.diff(high, prepend=-1) != 0))
    total, count, along_z = (_sums(one[apart], first) for one in (contacts.total, contacts.count, known.along_z))
    largest = np.maximum.reduceat(contacts.largest[apart], first) if first.size else contacts.largest[:0]
    best, low, high = apart[first], low[first], high[first]
    mean = total / np.maximum(count, 1)
    small = np.where(sizes[low] <= sizes[high], low, high)
    around = np.bincount(low, count, sizes.size) + np.bincount(high, count, sizes.size)
    features = np.stack(
        [
            _logit(mean) - known.level,
            largest,
            np.log10(count + 1.0),
            count / np.maximum(around[small], 1),
            mean - _best_other(mean, low, high, small, sizes.size),
            known.shapes.inner_ends(small),
            known.shapes.overlap(low, high, along_z),
            np.log10(sizes[small] + 1.0),
        ],
        axis=1,
    )
    u, v = contacts.u[best].astype(np.int64), contacts.v[best].astype(np.int64)
    pair = np.stack([sizes[segment_of[u]], sizes[segment_of[v]]], axis=1)
    gain = _gain(pair, known.shapes.voxels)
    segments = segment_of[np.stack([u, v], axis=1)]
    return Suspects(
        np.zeros(u.size, np.bool_), u, v, pair, features, gain, known.places[best], segments, np.zeros_like(segments)
    )


def _cuts(known: _Known, inner: Contacts, forest: Forest) -> Suspects:
    """Return one candidate for each edge of the merge trees of the segments."""
    contacts, segment_of = known.contacts, known.parts.segment_of
    weak = inner.mean < _inverse_logit(known.level)
    total, count, weak_count = forest.crossing(
        inner, np.stack([inner.total, inner.count, np.where(weak, inner.count, 0)], axis=1)
    )
    sizes = fragment_sizes(known.parts.fragments)
    below = forest.below(np.column_stack([sizes, face_bits(known.parts.fragments, segment_of.size - 1)]))
    child, parent = forest.child, forest.parents[forest.child]
    inside, rest = below[child], below[forest.roots[child]] - below[child]
    pair = np.rint(np.stack([inside[:, 0], rest[:, 0]], axis=1)).astype(np.int64)
    faces = [(side[:, 1:] > 0.5).sum(1) for side in (inside, rest)]
    at, small = _find_pairs(contacts, child, parent), pair.min(1, initial=np.iinfo(np.int64).max)
    features = np.stack(
        [
            _logit(total / np.maximum(count, 1)) - known.level,
            contacts.mean[at],
            np.log10(count + 1.0),
            count / np.maximum(small, 1.0) ** (2 / 3),
            weak_count / np.maximum(count, 1),
            np.minimum(np.minimum(*faces), 2),
            jumps(known.shapes, segment_of[child], known.places[at, 0]),
            np.log10(small + 1.0),
        ],
        axis=1,
    )
    gain = _gain(pair, known.shapes.voxels)
    segments = segment_of[np.stack([child, parent], axis=1)]
    return Suspects(
        np.ones(child.size, np.bool_), child, parent, pair, features, gain, known.places[at], segments, forest.spans
    )


def _places(fragments: NDArray[np.uint64], contacts: Contacts) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the mean place z, y, x of each contact, and how many of its links run along z."""
    keys = (contacts.u << np.uint64(32)) | contacts.v
    sums, counts = np.zeros((keys.size, 3)), np.zeros((keys.size, 2), np.int64)
    for axis in range(3):
        _kernel.gather_places(fragments, axis, keys, sums, counts)
    return sums / np.maximum(counts[:, :1], 1), counts[:, 1]


def _some(contacts: Contacts, which: NDArray[np.intp]) -> Contacts:
    """Return some contacts, without histograms."""
    starts, bins, bin_counts = np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.int64)
    u, v, total = contacts.u[which], contacts.v[which], contacts.total[which]
    return Contacts(u, v, total, contacts.count[which], contacts.largest[which], starts, bins, bin_counts)


def _find_pairs(contacts: Contacts, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the position of pairs in contact."""
    keys = (contacts.u << np.uint64(32)) | contacts.v
    wanted = (np.minimum(a, b).astype(np.uint64) << np.uint64(32)) | np.maximum(a, b).astype(np.uint64)
    return np.searchsorted(keys, wanted)


def _best_other(
    mean: NDArray[np.float64], low: NDArray[np.int64], high: NDArray[np.int64], small: NDArray[np.int64], n: int
) -> NDArray[np.float64]:
    """Return the highest mean that the smaller segment of each pair has with any other neighbour; 0 for none."""
    top, second = np.zeros(n), np.zeros(n)
    ends, means = np.concatenate([low, high]), np.concatenate([mean, mean])
    order = np.lexsort((-means, ends))
    ends, means = ends[order], means[order]
    first = np.flatnonzero(np.diff(ends, prepend=-1) != 0)
    top[ends[first]] = means[first]
    next_ = first[np.diff(first, append=ends.size) > 1] + 1
    second[ends[next_]] = means[next_]
    return np.where(mean >= top[small], second[small], top[small])


def _gain(sizes: NDArray[np.int64], voxels: int) -> NDArray[np.float64]:
    """Return the bits that joining, or cutting apart, two pure pieces gains."""
    a, b = np.maximum(sizes.astype(np.float64), 1).T if sizes.size else np.empty((2, 0))
    return np.asarray(((a + b) * np.log2(a + b) - a * np.log2(a) - b * np.log2(b)) / max(voxels, 1))


def _sums(values: NDArray[np.generic], first: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.add.reduceat(values.astype(np.float64), first) if first.size else np.empty(0)


def _logit(p: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    inside = np.clip(p, 0.01, 0.99)
    return np.asarray(np.log(inside / (1 - inside)))


def _inverse_logit(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))
