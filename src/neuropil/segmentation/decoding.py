"""From affinities to labels by any method, with one description of what to do.

All methods that merge fragments share their first steps (watershed, size-dependent linkage, dust) and end in a merge
tree; they differ in the score by which fragments are merged. So one run gives the segmentation at every threshold, and
tuning a threshold costs no more than one segmentation. Multicut cuts the same fragments anew for every threshold; the
mutex watershed has neither fragments nor a threshold. Their trees are empty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.labels import apply_lookup, relabel
from neuropil.segmentation.affinities import NEAREST, Affinities, inside_of
from neuropil.segmentation.affinity_moves import known_values, with_offsets
from neuropil.segmentation.agglomeration import Score, agglomerate
from neuropil.segmentation.contacts import region_contacts
from neuropil.segmentation.linkage import merge_tree, without_dust
from neuropil.segmentation.multicut import multicut
from neuropil.segmentation.mutex import mutex_watershed
from neuropil.segmentation.region_graph import Edges
from neuropil.segmentation.segment import WatershedSegmentation, segment_affinities
from neuropil.segmentation.watershed import stored_thresholds

Method = Literal["watershed", "size", "mean", "quantile", "mutex", "multicut"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class Decoder:
    """A method and its parameters.

    Attributes
    ----------
    method
        "size" (also called "watershed"): fragments are merged by the strongest link of their contact, "mean" by the
        mean of all its links, "quantile" by a quantile of them. "mutex": nearest links attract, all others repel, in
        order of strength (`neuropil.segmentation.mutex.mutex_watershed`). "multicut": all fragments at once, by the
        mean (`neuropil.segmentation.multicut.multicut`).
    low, high, size, size_threshold, dust
        As for `neuropil.segmentation.segment.segment_affinities`; of these, "mutex" has `low` and `dust`.
    quantile
        q in [0, 1]; a low one asks for contacts that are strong nearly everywhere.
    strides
        (z, y, x), "mutex": repulsive links are used on this grid only.
    merge_threshold
        Score at or above which fragments are merged, in [0, 1]; None: not at all. For "multicut" the mean that speaks
        neither for nor against merging; None: 0.5.
    """

    method: Method = "watershed"
    low: float = 0.3
    high: float = 0.999
    size: float = 256
    size_threshold: float = 0.3
    dust: float = 256
    quantile: float = 0.75
    strides: tuple[int, int, int] = (1, 1, 1)
    merge_threshold: float | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}; got {self.method!r}")
        if not 0 <= self.low < self.high:
            raise InputError(f"low and high must satisfy 0 <= low < high; got low {self.low}, high {self.high}")
        if self.merge_threshold is not None and not 0 <= self.merge_threshold <= 1:
            raise InputError(f"merge_threshold must lie in [0, 1]; got {self.merge_threshold}")


def decode(affinities: Affinities, decoder: Decoder, *, threads: int = 1) -> WatershedSegmentation:
    """Segment a volume.

    Parameters
    ----------
    affinities
        With links to the nearest neighbours, stored at either end; links that are not known join nothing.
    decoder
        What to do.
    threads
        Threads to share the work, >= 1; the result is the same for any number.

    Returns
    -------
    WatershedSegmentation
        Fragments, their merge tree, and the segmentation at the decoder's threshold.

    Raises
    ------
    InputError
        If links are missing, or parameters are out of range.

    Examples
    --------
    >>> row = np.array([0.9, 0.5, 0.4, 0.5, 0.9, 0], np.float32).reshape(1, 1, 1, 6)
    >>> zeros = np.zeros_like(row)
    >>> stored_low = Affinities(np.concatenate([zeros, zeros, row]), ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    >>> decode(stored_low, Decoder(size=2, dust=2)).segmentation.tolist()
    [[[1, 1, 1, 2, 2, 2]]]
    """
    if decoder.method == "mutex":
        return _mutex(affinities, decoder)
    links = known_values(with_offsets(affinities, NEAREST))
    by_strongest = decoder.method in ("watershed", "size")
    result = segment_affinities(
        links,
        low=decoder.low,
        high=decoder.high,
        size=decoder.size,
        size_threshold=decoder.size_threshold,
        dust=decoder.dust,
        merge_threshold=decoder.merge_threshold if by_strongest else None,
        threads=threads,
    )
    if by_strongest:
        return result
    quantile = decoder.method == "quantile"
    gather = partial(region_contacts, result.fragments, links, histograms=quantile, threads=threads)
    if decoder.method == "multicut":
        threshold = 0.5 if decoder.merge_threshold is None else decoder.merge_threshold
        lookup = multicut(gather(), result.tree.size, threshold=threshold)
        return _without_tree(apply_lookup(result.fragments, lookup))
    score: Score = "quantile" if quantile else "mean"
    tree = agglomerate(gather(), result.tree.size, score=score, quantile=decoder.quantile, threads=threads)
    merged = WatershedSegmentation(result.fragments, tree, result.fragments)
    if decoder.merge_threshold is None:
        return merged
    return replace(merged, segmentation=merged.cut(decoder.merge_threshold))


def _mutex(affinities: Affinities, decoder: Decoder) -> WatershedSegmentation:
    """Return the mutex watershed without background and dust."""
    far = tuple(o for o in affinities.offsets if o not in NEAREST and (-o[0], -o[1], -o[2]) not in NEAREST)
    if not far:
        raise InputError(f"method mutex needs long-range links beside the nearest ones; got {affinities.offsets}")
    links = with_offsets(affinities, (*NEAREST, *far))
    values = links.values
    if links.mask is not None:  # a link that is not known does not attract, and does not repel either
        top = values.dtype.type(255 if values.dtype == np.uint8 else 1)
        silent = np.array([top * 0] * len(NEAREST) + [top] * len(far), values.dtype)
        values = np.where(links.mask, values, silent[:, None, None, None])
    labels = mutex_watershed(values, links.offsets, strides=decoder.strides)
    linked = _linked(values[: len(NEAREST)], decoder.low)
    labels = relabel(np.where(linked, labels, np.uint64(0))).labels
    return _without_tree(without_dust(labels, decoder.dust))


def _without_tree(labels: NDArray[np.uint64]) -> WatershedSegmentation:
    return WatershedSegmentation(labels, merge_tree(Edges.of([], [], []), int(labels.max(initial=0))), labels)


def _linked(nearest: NDArray[Any], low: float) -> NDArray[np.bool_]:
    """Tell which voxels have a nearest link above `low`; the others are background, as for the watershed."""
    above = nearest > stored_thresholds(low, 1.0, nearest.dtype)[0]
    linked = np.zeros(nearest.shape[1:], np.bool_)
    for channel, offset in zip(above, NEAREST):
        here, there = inside_of(linked.shape, offset), inside_of(linked.shape, (-offset[0], -offset[1], -offset[2]))
        linked[here] |= channel[here]
        linked[there] |= channel[here]
    return linked
