"""Agglomeration of fragments by what is known of their whole contact: mean, greatest or quantile affinity.

Single linkage trusts the strongest link of a contact; the mean or a quantile asks all of them, and asks again after
every merge, when two contacts become one. Key insight: none of these scores can rise by merging, so the scores at which
pairs merge fall from the first merge to the last. One run is therefore a merge tree, and every threshold is a cut.

Source: agglomeration by mean affinity as in Lee, Zung, Li, Jain and Seung, "Superhuman accuracy on the SNEMI3D
connectomics challenge", arXiv 1706.00120; by quantiles as in Funke et al., "Large scale image segmentation with
structured loss based deep learning for connectome reconstruction", IEEE TPAMI 2019.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from neuropil.errors import InputError
from neuropil.segmentation.contacts import STEPS, Contacts, check_ids
from neuropil.segmentation.linkage import MergeTree, merge_tree
from neuropil.segmentation.merging import edge_rows, merge_rows, scores_of
from neuropil.segmentation.region_graph import Edges

Score = Literal["mean", "max", "quantile"]
Start = Literal["all", "max"]


def agglomerate(
    contacts: Contacts,
    size: int,
    *,
    score: Score = "mean",
    quantile: float = 0.75,
    start: Start = "all",
    least: float = 0.0,
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
    For E contacts about O(E log E); takes 80 bytes per contact. The program waterz makes the same merges, in scores
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
    return _by_queue(contacts, size, quantile if score == "quantile" else -1.0, start, least)


def check_contacts(number: int) -> None:
    """Refuse more contacts than kernels can number in 31 bits, two per contact.

    >>> check_contacts(2**30 - 1)
    >>> check_contacts(2**30)
    Traceback (most recent call last):
    neuropil.errors.InputError: contacts must number less than 2**30; got 1073741824
    """
    if number >= 1 << 30:
        raise InputError(f"contacts must number less than 2**30; got {number}")


def _by_queue(contacts: Contacts, size: int, q: float, start: Start, least: float) -> MergeTree:
    """Run the kernels on copies of what they change; q < 0 stands for the mean."""
    rows = edge_rows(contacts.u, contacts.v, contacts.steps, contacts.count)
    heads, chain = np.empty(0, np.int64), np.empty(0, np.int64)
    bins, counts = np.empty(0, np.uint8), np.empty(0, np.int64)
    if q >= 0:
        bins, counts = contacts.bins, contacts.bin_counts.copy()
        chain = np.arange(1, bins.size + 1)
        chain[contacts.starts[1:] - 1] = -1
        heads = contacts.starts[:-1].copy()
        if start == "max":
            heads = contacts.starts[1:] - 1
            counts[heads], rows[:, 1] = 1, 1
    histograms, one = (heads, chain, bins, counts, q), np.float32(STEPS if q < 0 else 1)
    below = np.nextafter(np.float32(least) * one, np.float32(0))  # what rounds to `least` is among them
    u, v, entry, _ = merge_rows(rows, histograms, float(below), np.zeros(size + 1, np.bool_))
    falling = np.argsort(entry)
    affinity = scores_of(entry[falling]) / one
    falling = falling[affinity >= np.float32(least)]
    return MergeTree(u[falling], v[falling], affinity[: falling.size], size)
