"""What is known of the contact of each pair of fragments: sum, number, maximum and histogram of its affinities.

Key insight: all of these add up when fragments merge, so nothing that is decided later, by agglomeration at any
threshold, needs another look at the voxels. The histogram is kept sparse, as few of its 256 bins occur in one contact.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import region_graph as _kernel
from neuropil._kernels.moving import move
from neuropil._kernels.region_graph import STEPS
from neuropil.errors import InputError
from neuropil.labels import apply_lookup, relabel
from neuropil.segmentation.pairs import group_pairs
from neuropil.segmentation.threads import run_threads, split
from neuropil.segmentation.watershed import check_affinities

__all__ = ["BINS", "STEPS", "Contacts", "check_ids", "region_contacts"]
#: Bins of the histogram of affinities; value a falls in bin min(floor(256 a), 255), the byte s in bin s.
BINS = 256

_SLABS = 2  # slabs of sections per thread: those where a range of ids begins have most of its contacts


@dataclass(frozen=True)
class Contacts:
    """Statistics of the links between fragments that touch, in ascending order of u, then v.

    Attributes
    ----------
    u, v
        uint32 (n,), or uint64 where ids need it, ids of fragments, 0 < u < v, each pair once.
    total
        float64 (n,), sum of the affinities, each in [0, 1] and rounded to a multiple of 1 / `STEPS`.
    count
        int32 (n,), int64 in volumes of 2**29 voxels or more, number of links, those of affinity 0 included.
    largest
        float32 (n,), greatest affinity.
    starts
        int64 (n + 1,) or, without histograms, (0,): pair k has the entries ``starts[k]`` to ``starts[k + 1] - 1`` of
        `bins` and `bin_counts`.
    bins
        uint8, ascending within a pair: those of its 256 bins that occur.
    bin_counts
        int64, number of links in the bin.
    places
        uint32 (size + 1, 3): where the first voxel of each fragment lies, (0, 0, 0) if that is not known; or (0, 3).
        Agglomeration works in order of place, which changes its speed alone.
    """

    u: NDArray[np.uint32] | NDArray[np.uint64]
    v: NDArray[np.uint32] | NDArray[np.uint64]
    total: NDArray[np.float64]
    count: NDArray[np.int32] | NDArray[np.int64]
    largest: NDArray[np.float32]
    starts: NDArray[np.int64]
    bins: NDArray[np.uint8]
    bin_counts: NDArray[np.int64]
    places: NDArray[np.uint32] = field(default_factory=lambda: np.empty((0, 3), np.uint32))

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
            np.add.reduceat(self.count[kept].astype(np.int64), first) if first.size else self.count[:0],
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

    Linear in voxels. Takes 4 bytes per voxel, and 12 bytes per fragment and thread, beside what it returns, and with
    threads up to as much again as that.
    Fragments in uint32 take less time than those in uint64.

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
    labels = _plain(labels)
    maxima = _row_maxima(labels, threads)
    if int(maxima.max(initial=0)) > max(2 * labels.size, 1024):
        dense = relabel(labels)
        labels, ids = _plain(dense.labels), dense.ids
        maxima = _row_maxima(labels, threads)
    contacts = _gather(labels, maxima, links, histograms, threads)
    if ids is None:
        return contacts
    return replace(contacts, u=ids[contacts.u], v=ids[contacts.v], places=contacts.places[:0])


def _plain(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels as kernels take them, not to be written to."""
    view = np.ascontiguousarray(labels, np.uint32 if labels.dtype == np.uint32 else np.uint64).view()
    view.flags.writeable = False
    return view


def _row_maxima(labels: NDArray[Any], threads: int) -> NDArray[Any]:
    """Return the greatest id of each row, (z, y)."""
    maxima = np.zeros(labels.shape[:2], labels.dtype)
    if labels.size:
        run_threads(_kernel.row_maxima, [(labels, *slab, maxima) for slab in split(labels.shape[0], threads)])
    return maxima


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
    labels: NDArray[Any],
    maxima: NDArray[Any],
    links: NDArray[np.float32] | NDArray[np.uint8],
    histograms: bool,
    threads: int,
) -> Contacts:
    """Gather the contacts of dense labels, for one range of smaller ids after the other, so that buckets stay small."""
    slabs = split(labels.shape[0], threads if threads == 1 else _SLABS * threads)
    largest = int(maxima.max(initial=0))
    check_ids(largest)
    places = np.zeros((largest + 1, 3), np.uint32)
    before = [int(maxima[:first].max(initial=0)) for first, _ in slabs]
    run_threads(_kernel.first_places, [(labels, maxima, *slab, b, places) for slab, b in zip(slabs, before)], threads)
    counts = np.zeros((len(slabs), largest + 1), np.uint32 if labels.size < 1 << 30 else np.int64)
    run_threads(_kernel.count_contacts, [(labels, *slab, row) for slab, row in zip(slabs, counts)], threads)
    ends = np.cumsum(counts.sum(0, dtype=np.int64))
    at_once = max(labels.size // 2, 1 << 16)
    one = np.float32(255 if links.dtype == np.uint8 else 1)
    room = np.empty(min(int(ends[-1]), at_once), np.uint64)  # for one range after the other
    most = int(ends[-1])  # room for a pair per contact; what is not used takes no memory
    number = np.dtype(np.int32 if most < 1 << 31 else np.int64)
    fields = [np.empty(most, kind) for kind in (np.uint32, np.uint32, np.float64, number, np.float32)]
    n, histogram = 0, []
    lowest = 1
    while lowest == 1 or lowest <= largest:
        highest = max(int(np.searchsorted(ends, ends[lowest - 1] + at_once, side="right")), lowest + 1)
        span = labels.dtype.type(lowest), labels.dtype.type(highest - lowest)
        starts = np.concatenate([[0], ends[lowest:highest] - ends[lowest - 1]])
        rows = [starts[:-1].copy()]  # where each slab writes
        for before_it in counts[:-1, lowest:highest]:
            rows.append(rows[-1] + before_it)
        packed = room[: int(starts[-1])] if starts[-1] <= room.size else np.empty(int(starts[-1]), np.uint64)
        out = packed.view(np.uint32), packed.view(np.float32)
        tasks = [(labels, links, one, maxima, *slab, *span, row, *out) for slab, row in zip(slabs, rows)]
        run_threads(_kernel.fill_contacts, tasks, threads)
        found, more = _gather_bucket(starts, packed, lowest, largest, [x[n:] for x in fields], histograms, threads)
        n, lowest = n + found, highest
        histogram += more
    for whole in fields:
        whole.resize(n, refcheck=False)  # gives back what is behind; no view of it is left
    u, v, total, count, strongest = fields
    sizes, bins, bin_counts = (np.concatenate(field) for field in zip(*histogram))
    starts = np.concatenate([[0], np.cumsum(sizes)]) if histograms else sizes
    return Contacts(u, v, total, count, strongest, starts, bins, bin_counts, places)


def _gather_bucket(
    starts: NDArray[np.int64],
    packed: NDArray[np.uint64],
    lowest: int,
    largest: int,
    fields: list[NDArray[Any]],
    histograms: bool,
    threads: int,
) -> tuple[int, list[tuple[NDArray[Any], ...]]]:
    """Write the fields of contacts whose smaller ids are `lowest` + k, which are from starts[k] on.

    Returns their number, and of each part the sizes of histograms, their bins and counts.
    """
    cuts = np.searchsorted(starts, np.linspace(0, starts[-1], threads + 1)[1:-1])
    bounds = [0, *cuts.tolist(), starts.size - 1]
    given = packed, largest + 1, lowest, fields, histograms
    parts = run_threads(_gather_range, [(starts, *span, *given) for span in pairwise(bounds)], threads)
    n = 0
    for first, (found, _) in zip(bounds, parts):
        run_threads(move, [(field, int(starts[first]), n, found) for field in fields], threads)
        n += found
    return n, [more for _, more in parts]


def _gather_range(
    starts: NDArray[np.int64],
    first: int,
    last: int,
    packed: NDArray[np.uint64],
    width: int,
    lowest: int,
    fields: list[NDArray[Any]],
    histograms: bool,
) -> tuple[int, tuple[NDArray[Any], ...]]:
    """Write the fields of the contacts in buckets first ... last - 1 to where these begin."""
    ids, values = packed.view(np.uint32), packed.view(np.float32)
    span = slice(int(starts[first]), int(starts[last]))
    u, v, total, count, largest = (field[span] for field in fields)
    seen = np.zeros(width, np.int32 if u.size < 1 << 31 else np.int64)
    n = _kernel.gather(starts, first, last, ids, values, seen, lowest, (u, v, total, count, largest))
    total[:n] /= STEPS
    entries = _kernel.count_bins(packed, starts, first, last, BINS) if histograms else 0
    sizes = np.empty(n if histograms else 0, np.int64)
    bins, bin_counts = np.empty(entries, np.uint8), np.empty(entries, np.int64)
    if histograms:
        _kernel.fill_bins(packed, starts, first, last, BINS, sizes, bins, bin_counts)
    return n, (sizes, bins, bin_counts)
