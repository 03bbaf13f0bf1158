"""What is known of the contact of each pair of fragments: sum, number, maximum and histogram of its affinities.

Key insight: all of these add up when fragments merge, so nothing that is decided later, by agglomeration at any
threshold, needs another look at the voxels. The histogram is kept sparse, as few of its 256 bins occur in one contact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import region_graph as _kernel
from neuropil._kernels.region_graph import STEPS
from neuropil.errors import InputError
from neuropil.labels import apply_lookup, relabel
from neuropil.segmentation.pairs import group_pairs
from neuropil.segmentation.threads import run_threads, split
from neuropil.segmentation.watershed import check_affinities

__all__ = ["BINS", "STEPS", "Contacts", "check_ids", "region_contacts"]
#: Bins of the histogram of affinities; value a falls in bin min(floor(256 a), 255), the byte s in bin s.
BINS = 256


@dataclass(frozen=True)
class Contacts:
    """Statistics of the links between fragments that touch, in ascending order of u, then v.

    Attributes
    ----------
    u, v
        uint64 (n,), ids of fragments, 0 < u < v, each pair once.
    total
        float64 (n,), sum of the affinities, each in [0, 1] and rounded to a multiple of 1 / `STEPS`.
    count
        int64 (n,), number of links, those of affinity 0 included.
    largest
        float32 (n,), greatest affinity.
    starts
        int64 (n + 1,) or, without histograms, (0,): pair k has the entries ``starts[k]`` to ``starts[k + 1] - 1`` of
        `bins` and `bin_counts`.
    bins
        uint8, ascending within a pair: those of its 256 bins that occur.
    bin_counts
        int64, number of links in the bin.
    """

    u: NDArray[np.uint64]
    v: NDArray[np.uint64]
    total: NDArray[np.float64]
    count: NDArray[np.int64]
    largest: NDArray[np.float32]
    starts: NDArray[np.int64]
    bins: NDArray[np.uint8]
    bin_counts: NDArray[np.int64]

    @property
    def steps(self) -> NDArray[np.int64]:
        """`total` as a whole number of steps of 1 / `STEPS`, int64 (n,), exact up to 2**50."""
        return np.rint(self.total * STEPS).astype(np.int64)

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean affinity of each pair, float32 (n,)."""
        return (self.total / self.count).astype(np.float32)

    @property
    def has_histograms(self) -> bool:
        """Whether histograms were asked for."""
        return self.starts.size > 0

    def contract(self, lookup: ArrayLike, *, ids: ArrayLike | None = None) -> Contacts:
        """Return the contacts between the segments of a lookup, fragment -> segment, 0 = dropped.

        Parameters and errors of the lookup are those of `neuropil.labels.apply_lookup`.

        >>> chain = np.zeros((3, 1, 1, 4), np.float32)
        >>> chain[2, 0, 0, 1:] = 0.5, 0.25, 0.75
        >>> contacts = region_contacts([[[1, 2, 1, 3]]], chain)
        >>> contacts.contract([0, 1, 2, 2]).mean.tolist()
        [0.5]
        """
        u, v = (apply_lookup(end, lookup, ids=ids) for end in (self.u, self.v))
        u, v = np.minimum(u, v), np.maximum(u, v)
        kept = np.flatnonzero((u != 0) & (u != v))
        order, first = group_pairs(u[kept], v[kept])
        kept = kept[order]
        u, v = u[kept], v[kept]
        starts, bins, counts = self.starts, self.bins, self.bin_counts
        if self.has_histograms:
            pairs = np.repeat(np.arange(first.size), np.diff(first, append=kept.size))
            starts, bins, counts = self._contract_histograms(kept, pairs, first.size)
        return Contacts(
            u[first],
            v[first],
            np.add.reduceat(self.total[kept], first) if first.size else self.total[:0],
            np.add.reduceat(self.count[kept], first) if first.size else self.count[:0],
            np.maximum.reduceat(self.largest[kept], first) if first.size else self.largest[:0],
            starts,
            bins,
            counts,
        )

    def _contract_histograms(
        self, kept: NDArray[np.intp], pairs: NDArray[np.intp], size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
        """Add up the histograms of the pairs `kept`, k-th of which becomes part of pair ``pairs[k]``."""
        target = np.full(self.u.size, -1)
        target[kept] = pairs
        owners = np.repeat(target, np.diff(self.starts))
        inside = owners >= 0
        keys, places = np.unique(owners[inside] * BINS + self.bins[inside], return_inverse=True)
        counts = np.zeros(keys.size, np.int64)
        np.add.at(counts, places, self.bin_counts[inside])
        return np.searchsorted(keys, np.arange(size + 1) * BINS), (keys % BINS).astype(np.uint8), counts


def region_contacts(
    fragments: ArrayLike, affinities: ArrayLike, *, histograms: bool = False, threads: int = 1
) -> Contacts:
    r"""Gather the affinities over the contact of each pair of fragments.

    Over the links :math:`C_{ij} = \{(v, w) : f(v) = i,\ f(w) = j,\ v \sim w\}` with affinities a these are
    :math:`\sum a`, :math:`|C_{ij}|`, :math:`\max a` and the counts of :math:`\min(\lfloor 256 a \rfloor, 255)`.

    Parameters
    ----------
    fragments
        Integers >= 0, (z, y, x); any uint64 ids, 0 is background. Those of `watershed` are dense and cost least.
    affinities
        (3, z, y, x), as for `neuropil.segmentation.watershed.watershed`; uint8 is not converted.
    histograms
        Whether histograms, for quantiles, are gathered too.
    threads
        Threads to share the work, >= 1; the result is the same for any number.

    Returns
    -------
    Contacts
        Pairs whose links are all 0 are among them.

    Raises
    ------
    InputError
        If the shapes do not match, the affinities are malformed, or there are 2**32 fragments or more.

    Notes
    -----
    Affinities are added up as whole numbers of steps of 1 / `STEPS`, so a sum is the same in any order, in threads and
    in the blocks of a volume. Bytes are multiples of it, and so is what has 16 binary places; of others a step is about
    what tells float32 below 1 apart.

    Linear in voxels. Takes 4 bytes per voxel, and 8 bytes per fragment and thread, beside what it returns.

    Examples
    --------
    >>> chain = np.zeros((3, 1, 1, 4), np.float32)
    >>> chain[2, 0, 0, 1:] = 0.5, 0.25, 0.5
    >>> contacts = region_contacts([[[1, 2, 1, 1]]], chain, histograms=True)
    >>> contacts.total.tolist(), contacts.count.tolist(), contacts.largest.tolist()
    ([0.75], [2], [0.5])
    >>> contacts.bins.tolist(), contacts.bin_counts.tolist()
    ([64, 128], [1, 1])
    """
    links = check_affinities(affinities, threads=threads)
    labels = np.asarray(fragments)
    if labels.shape != links.shape[1:] or labels.dtype.kind not in "ui":
        raise InputError(
            f"fragments must be integers of shape {links.shape[1:]}; got {labels.dtype} of shape {labels.shape}"
        )
    ids = None
    if labels.size and int(labels.max()) > max(2 * labels.size, 1024):
        dense = relabel(labels)
        labels, ids = dense.labels, dense.ids
    labels = np.ascontiguousarray(labels, np.uint64).view()
    labels.flags.writeable = False
    contacts = _gather(labels, links, histograms, split(labels.shape[0], threads))
    if ids is None:
        return contacts
    return replace(contacts, u=ids[contacts.u], v=ids[contacts.v])


def check_ids(largest: int) -> None:
    """Refuse ids that do not fit 32 bits, the width of ids in kernels.

    >>> check_ids(2**32 - 1)
    >>> check_ids(2**32)
    Traceback (most recent call last):
    neuropil.errors.InputError: fragments must number less than 2**32; got 4294967296
    """
    if largest >= 1 << 32:
        raise InputError(f"fragments must number less than 2**32; got {largest}")


def _gather(
    labels: NDArray[np.uint64],
    links: NDArray[np.float32] | NDArray[np.uint8],
    histograms: bool,
    slabs: list[tuple[int, int]],
) -> Contacts:
    """Gather the contacts of dense labels, for one range of smaller ids after the other, so that buckets stay small."""
    largest = int(labels.max()) if labels.size else 0
    check_ids(largest)
    counts = np.zeros((len(slabs), largest + 1), np.int64)
    run_threads(_kernel.count_contacts, [(labels, *slab, row) for slab, row in zip(slabs, counts)])
    ends = np.cumsum(counts.sum(0))
    at_once = max(labels.size // 2, 1 << 16)
    parts: list[list[NDArray[Any]]] = []
    lowest = 1
    while not parts or lowest <= largest:
        highest = max(int(np.searchsorted(ends, ends[lowest - 1] + at_once, side="right")), lowest + 1)
        parts += _bucket(labels, links, histograms, slabs, counts[:, lowest:highest], lowest, largest)
        lowest = highest
    u, v, total, count, most, sizes, bins, bin_counts = _joined(parts)
    starts = np.concatenate([[0], np.cumsum(sizes)]) if histograms else np.empty(0, np.int64)
    return Contacts(u, v, total, count, most, starts, bins, bin_counts)


def _bucket(
    labels: NDArray[np.uint64],
    links: NDArray[np.float32] | NDArray[np.uint8],
    histograms: bool,
    slabs: list[tuple[int, int]],
    counts: NDArray[np.int64],
    lowest: int,
    largest: int,
) -> list[list[NDArray[Any]]]:
    """Return, in parts, the fields of contacts whose smaller ids are `lowest` + 0 ... k - 1; counts are (slab, k)."""
    size = counts.shape[1]
    starts = np.concatenate([[0], np.cumsum(counts.sum(0))])
    places = starts[:-1] + np.cumsum(counts, 0) - counts
    packed = np.empty(int(starts[-1]), np.uint64)
    ids, values = packed.view(np.uint32), packed.view(np.float32)
    span, one = (np.uint64(lowest), np.uint64(size)), np.float32(255 if links.dtype == np.uint8 else 1)
    run_threads(
        _kernel.fill_contacts,
        [(labels, links, one, *slab, *span, row, ids, values) for slab, row in zip(slabs, places)],
    )
    cuts = np.searchsorted(starts, np.linspace(0, starts[-1], len(slabs) + 1)[1:-1])
    bounds = [0, *cuts.tolist(), size]
    done = run_threads(
        _gather_range,
        [(starts, first, last, packed, largest + 1, lowest, histograms) for first, last in pairwise(bounds)],
    )
    return [list(fields) for fields in done]


def _joined(parts: list[list[NDArray[Any]]]) -> list[NDArray[Any]]:
    """Put the fields of parts one behind the other; empties the parts, so that only one field is there twice."""
    if len(parts) == 1:
        return parts.pop()
    return [np.concatenate([part.pop(0) for part in parts]) for _ in range(len(parts[0]))]


def _gather_range(
    starts: NDArray[np.int64],
    first: int,
    last: int,
    packed: NDArray[np.uint64],
    width: int,
    lowest: int,
    histograms: bool,
) -> tuple[NDArray[Any], ...]:
    """Return the fields of the contacts in buckets first ... last - 1."""
    ids, values = packed.view(np.uint32), packed.view(np.float32)
    seen = np.zeros(width, np.int64)
    most = int(starts[last] - starts[first])  # room for a pair per contact; what is not used takes no memory
    u, v = np.empty(most, np.uint64), np.empty(most, np.uint64)
    total, count, largest = np.empty(most), np.empty(most, np.int64), np.empty(most, np.float32)
    n = _kernel.gather(starts, first, last, ids, values, seen, lowest, (u, v, total, count, largest))
    u, v, total, count, largest = u[:n], v[:n], total[:n] / STEPS, count[:n], largest[:n]
    entries = _kernel.count_bins(packed, starts, first, last, BINS) if histograms else 0
    sizes = np.empty(n, np.int64)
    bins, bin_counts = np.empty(entries, np.uint8), np.empty(entries, np.int64)
    if histograms:
        _kernel.fill_bins(packed, starts, first, last, BINS, sizes, bins, bin_counts)
    return u, v, total, count, largest, sizes, bins, bin_counts
