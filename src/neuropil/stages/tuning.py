"""Search for a decoder's parameters: every threshold of one merge tree against truth, then one score elsewhere.

What `neuropil tune` computes once its volumes are read: arrays in, JSON-able rows out. The best threshold of a curve is
always a little too good for its own data, so a second crop says what to expect, and the width of the optimum says how
far the threshold may be off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuropil.labels import contingency
from neuropil.machine import cores
from neuropil.metrics.curves import flat_range, merge_tree_curve, merge_tree_information
from neuropil.metrics.information import variation_of_information
from neuropil.metrics.rand import rand_scores
from neuropil.segmentation.affinities import Affinities
from neuropil.segmentation.decoding import Decoder, decode
from neuropil.segmentation.segment import WatershedSegmentation

Score = Literal["rand", "vi"]
POINTS = 200  # of a curve that are kept for the report


@dataclass(frozen=True)
class Crop:
    """Affinities with truth.

    Attributes
    ----------
    links : affinities of the crop
    truth : (z, y, x) labels, 0 is not scored
    mask : (z, y, x) bool or None, voxels that are scored
    """

    links: Affinities
    truth: NDArray[Any]
    mask: NDArray[np.bool_] | None


def tune(
    crop: Crop, decoder: Decoder, score: Score, tolerance: float, thresholds: Sequence[float] = ()
) -> dict[str, Any]:
    """Score a decoder at every threshold and return its best, with the range of thresholds that are nearly as good.

    Parameters
    ----------
    crop, decoder : what to segment, and how; its threshold is not used
    score : "rand" looks for the highest Rand F, "vi" for the lowest variation of information
    tolerance : a threshold is nearly as good where F >= (1 - tolerance) best, or VI <= (1 + tolerance) best
    thresholds : those that are tried with method "multicut", which has no merge tree
    """
    if decoder.method == "multicut":
        curve = _cut_by_cut(crop, decoder, thresholds)
    else:
        curve = _from_tree(crop, decode(crop.links, replace(decoder, merge_threshold=None), threads=cores()))
    value = curve.f if score == "rand" else -curve.vi
    k = int(np.argmax(value))
    good = value >= value[k] * (1 - tolerance if score == "rand" else 1 + tolerance)
    chosen = np.unique([*np.linspace(0, value.size - 1, min(POINTS, value.size)).astype(int), k])
    return {
        **asdict(decoder),
        "merge_threshold": float(curve.threshold[k])
        if decoder.method == "multicut"
        else _threshold(curve.threshold, k),
        **_numbers(curve.f[k], curve.split[k], curve.merge[k]),
        "flat": list(flat_range(curve.threshold, good, k)),
        "levels": int(value.size),
        "curve": {
            "threshold": np.minimum(curve.threshold[chosen], 1).tolist(),
            "f": curve.f[chosen].tolist(),
            "vi": curve.vi[chosen].tolist(),
        },
    }


def check(crop: Crop, decoder: Decoder) -> dict[str, Any]:
    """Score a decoder at its threshold on another crop; `best_f` is what the best cut of its tree would have given."""
    result = decode(crop.links, decoder, threads=cores())
    best = None if decoder.method == "multicut" else float(_from_tree(crop, result).f.max())
    return score_labels(result.segmentation, crop.truth, crop.mask) | {"best_f": best}


def score_labels(labels: NDArray[Any], truth: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> dict[str, float]:
    """Return Rand F, adapted Rand error 1 - F and VI (bits) of labels (z, y, x); truth 0 is not scored."""
    table = contingency(labels, truth, mask)
    information = variation_of_information(table)
    return _numbers(rand_scores(table).f, information.split, information.merge)


@dataclass(frozen=True)
class _Curve:
    """Scores by falling threshold, float64 (n,): Rand F, and VI in bits in its two parts."""

    threshold: NDArray[np.float64]
    f: NDArray[np.float64]
    split: NDArray[np.float64]
    merge: NDArray[np.float64]

    @property
    def vi(self) -> NDArray[np.float64]:
        return self.split + self.merge


def _from_tree(crop: Crop, result: WatershedSegmentation) -> _Curve:
    table = contingency(result.fragments, crop.truth, crop.mask)
    tree = result.tree.u, result.tree.v, result.tree.affinity
    rand, information = merge_tree_curve(table, *tree), merge_tree_information(table, *tree)
    return _Curve(rand.threshold, rand.f, information.split, information.merge)


def _cut_by_cut(crop: Crop, decoder: Decoder, thresholds: Sequence[float]) -> _Curve:
    falling = sorted(thresholds, reverse=True)
    points = []
    for one in falling:
        result = decode(crop.links, replace(decoder, merge_threshold=one), threads=cores())
        scores = score_labels(result.segmentation, crop.truth, crop.mask)
        points.append([scores[key] for key in ("f", "vi_split", "vi_merge")])
    return _Curve(np.array(falling), *np.array(points).T)


def _threshold(levels: NDArray[np.float64], k: int) -> float:
    """Return a threshold that gives the segmentation of a curve's point, also once it is rounded to float32."""
    if k > 0:
        return float(levels[k])
    return 1.0 if levels.size == 1 else float(np.nextafter(np.float32(levels[1]), np.float32(2)))


def _numbers(f: float, split: float, merge: float) -> dict[str, float]:
    return {
        "f": float(f),
        "adapted_rand_error": float(1 - f),
        "vi_split": float(split),
        "vi_merge": float(merge),
        "vi": float(split + merge),
    }
