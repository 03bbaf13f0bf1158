"""Agglomeration of fragments by what is known of their whole contact: mean, greatest or quantile affinity.

Single linkage trusts the strongest link of a contact; the mean or a quantile asks all of them, and asks again after
every merge, when two contacts become one. Key insight: none of these scores can rise by merging, so the scores at which
pairs merge fall from the first merge to the last. One run is therefore a merge tree, and every threshold is a cut.

Source: agglomeration by mean affinity as in Lee, Zung, Li, Jain and Seung, "Superhuman accuracy on the SNEMI3D
connectomics challenge", arXiv 1706.00120; by quantiles as in Funke et al., "Large scale image segmentation with
structured loss based deep learning for connectome reconstruction", IEEE TPAMI 2019.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuropil._kernels.clusters import write_keys
from neuropil.errors import InputError
from neuropil.segmentation.contacts import STEPS, Contacts, check_ids
from neuropil.segmentation.linkage import MergeTree, merge_tree
from neuropil.segmentation.merging import NO_HISTOGRAMS, Merging, edge_rows, scores_of
from neuropil.segmentation.region_graph import Edges
from neuropil.segmentation.threads import call, run_threads

Score = Literal["mean", "max", "quantile"]
Start = Literal["all", "max"]

_BLOCK = 5  # 2**5 voxels a side has a block whose fragments are merged before those of the next


def agglomerate(
    contacts: Contacts,
    size: int,
    *,
    score: Score = "mean",
    quantile: float = 0.75,
    start: Start = "all",
    least: float = 0.0,
    threads: int = 1,
) -> MergeTree:
    r"""Merge fragments, the pair of clusters with the greatest score first, and return the whole merge tree.

    The score of two clusters is that of all links between them: :math:`\sum a / n`, :math:`\max a`, or the middle of
    the first of 256 bins up to which more than :math:`\lfloor q n \rfloor` links lie. Of equal scores the pair goes
    first whose edge comes first in ascending order of u, then v; of edges that become one, the last stays.

    Parameters
    ----------
    contacts
        Contacts of fragments 1 ... `size`; with histograms for quantiles.
    size
        Number of fragments.
    score
        What makes the score of a pair.
    quantile
        q in [0, 1], for "quantile".
    start
        Links that a quantile is taken of, of each contact between two fragments: "all" of them, or "max", only the
        greatest, so that the first scores are maxima.
    least
        Score below which nothing is merged; 0 gives the whole tree, more saves time.
    threads
        Threads to share the work, >= 1, which they can where the contacts know places. The result is the same for any
        number.

    Returns
    -------
    MergeTree
        `affinity` is the score at which two clusters merged, u and v are their smallest fragments. `cut` gives the
        segmentation at any threshold >= `least`.

    Raises
    ------
    InputError
        If an option is out of range, histograms are missing, or a contact names a fragment above `size`.

    Notes
    -----
    For E contacts about O(E log E); takes some 60 bytes per contact, and contacts that are handed over without a name
    are gone before most of it is taken. Threads merge what is decided by its part of the volume; the rest is done
    by one. The program waterz makes the same merges, in scores
    1 - s, and stops below a threshold that it does not reach itself; its quantiles begin with maxima (``start="max"``)
    unless told not to.

    Examples
    --------
    >>> from neuropil.segmentation.contacts import region_contacts
    >>> from neuropil.segmentation.linkage import cut
    >>> chain = np.zeros((3, 1, 2, 3), np.float32)
    >>> chain[2, 0] = [[0, 0.5, 0.75], [0, 0.25, 0.75]]
    >>> tree = agglomerate(region_contacts([[[1, 2, 3], [1, 2, 3]]], chain), 3)
    >>> tree.u.tolist(), tree.v.tolist(), tree.affinity.tolist()
    ([2, 1], [3, 2], [0.75, 0.375])
    >>> cut(tree, 0.5).tolist()
    [0, 1, 2, 2]
    """
    if score not in ("mean", "max", "quantile") or start not in ("all", "max"):
        raise InputError(f"score must be mean, max or quantile, start all or max; got {score!r}, {start!r}")
    if threads < 1:
        raise InputError(f"threads must be at least 1; got {threads}")
    if not 0 <= quantile <= 1 or not 0 <= least <= 1:
        raise InputError(f"quantile and least must lie in [0, 1]; got {quantile}, {least}")
    largest = int(contacts.v.max()) if contacts.v.size else 0
    if largest > size:
        raise InputError(f"contacts must name fragments 1 ... {size}; got {largest}")
    check_ids(size)
    check_contacts(contacts.u.size)
    if score == "max":
        strong = contacts.largest >= np.float32(least)
        return merge_tree(Edges.of(contacts.u[strong], contacts.v[strong], contacts.largest[strong]), size)
    if score == "quantile" and not contacts.has_histograms:
        raise InputError("contacts must have histograms for quantiles; got none, see region_contacts(histograms=True)")
    histograms, count = _histograms(contacts, quantile if score == "quantile" else -1.0, start)
    one = np.float32(STEPS if score == "mean" else 1)
    below = np.nextafter(np.float32(least) * one, np.float32(0))  # what rounds to `least` is among them
    fields, places = (contacts.u, contacts.v, contacts.total, count), contacts.places
    del contacts  # memory, if nobody else keeps them
    make_rows = partial(edge_rows, one=STEPS, threads=max(1, threads - 1))
    rows, parts = run_threads(call, [(make_rows, *fields), (_parts, places, size, threads)], threads)
    del fields, places
    work = Merging(rows, histograms, float(below), threads=threads)
    del rows
    u, v, entry = work.run(np.zeros(size + 1, np.bool_), parts)[:3]
    affinity = scores_of(entry) / one
    n = np.count_nonzero(affinity >= np.float32(least))
    return MergeTree(u[:n], v[:n], affinity[:n], size)


def check_contacts(number: int) -> None:
    """Refuse more contacts than kernels can number in 31 bits, two per contact.

    >>> check_contacts(2**30 - 1)
    >>> check_contacts(2**30)
    Traceback (most recent call last):
    neuropil.errors.InputError: contacts must number less than 2**30; got 1073741824
    """
    if number >= 1 << 30:
        raise InputError(f"contacts must number less than 2**30; got {number}")


def _histograms(contacts: Contacts, q: float, start: Start) -> tuple[tuple[Any, ...], NDArray[Any]]:
    """Return histograms, which kernels will change, and how many links each has; q < 0 stands for the mean."""
    if q < 0:
        return NO_HISTOGRAMS, contacts.count
    bins, counts = contacts.bins, contacts.bin_counts.copy()
    chain = np.arange(1, bins.size + 1)
    chain[contacts.starts[1:] - 1] = -1
    if start == "all":
        return (contacts.starts[:-1].copy(), chain, bins, counts, q), contacts.count
    heads = contacts.starts[1:] - 1
    counts[heads] = 1
    return (heads, chain, bins, counts, q), np.ones_like(contacts.count)


def _parts(places: NDArray[np.uint32], size: int, threads: int) -> list[NDArray[np.uint32]]:
    """Share out fragments 1 ... `size` along the longest axis of the volume, in order of place, block by block.

    Where places are not known, there is one part, by number.
    """
    if places.shape[0] != size + 1 or size == 0:
        return [np.arange(1, size + 1, dtype=np.uint32)]
    extent = np.array([int(along.max()) + 1 for along in places.T])
    axis = int(np.argmax(extent))
    below = np.cumsum(np.bincount(places[1:, axis].astype(np.intp)))
    cuts = np.searchsorted(below, size * np.arange(1, threads) / threads)
    spans = (extent - 1 >> _BLOCK) + 1
    keys = np.empty(size, np.min_scalar_type(threads * math.prod(spans.tolist())))  # small ones are sorted by counting
    sizes = np.zeros(threads, np.int64)
    write_keys(places, axis, cuts, spans, _BLOCK, keys, sizes)
    order = (np.argsort(keys, kind="stable") + 1).astype(np.uint32)
    return np.split(order, np.cumsum(sizes)[:-1])
