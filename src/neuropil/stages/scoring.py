"""Scores of a boundary map's two decoders, and the search for the watershed's parameters.

What `neuropil evaluate` computes once its volumes are read: arrays in, JSON-able scores out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from neuropil.labels import Contingency, contingency
from neuropil.metrics.blocks import block_shape_for, block_tables, bootstrap_blocks
from neuropil.metrics.curves import Curve, InformationCurve, best, merge_tree_curve, merge_tree_information
from neuropil.metrics.information import variation_of_information
from neuropil.metrics.pixel_error import line_search
from neuropil.metrics.rand import Variant, adapted_rand_error, rand_scores
from neuropil.metrics.sections import bootstrap_interval, pool, section_tables
from neuropil.segmentation.affinities import affinities_from_boundary_map
from neuropil.segmentation.components import components_of_map
from neuropil.segmentation.segment import WatershedSegmentation, segment_affinities

AnyCurve = TypeVar("AnyCurve", Curve, InformationCurve)
START = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99)  # first grid of the components' threshold, percent
# Grids of the line search, in its order (Lee et al., NIPS 2015: T_high, then T_low, then the size).
GRIDS: dict[str, tuple[float, ...]] = {
    "high": (0.9, 0.95, 0.99, 0.999, 0.9999),
    "low": (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5),
    "size": tuple(range(0, 1001, 100)),
}


@dataclass(frozen=True)
class Watershed:
    """Parameters of the watershed decoder; see `neuropil.segmentation.segment.segment_affinities`."""

    low: float
    high: float
    size: float
    size_threshold: float
    dust: float


@dataclass(frozen=True)
class Task:
    """One boundary map to score.

    Attributes
    ----------
    boundary : (z, y, x) float32 in [0, 1] or uint8, probability of boundary
    truth : (z, y, x) labels; unique to a section where `per_section`
    mask : (z, y, x) bool or None, voxels that are scored
    per_section : score in 2-D, pooled over sections
    """

    boundary: NDArray[Any]
    truth: NDArray[Any]
    mask: NDArray[np.bool_] | None
    per_section: bool


def score_components(task: Task, fixed: float | None) -> tuple[dict[str, Any], NDArray[np.uint64]]:
    """Score connected components over the threshold (grid, then line search); the labels are those of the best F."""
    points: dict[int, tuple[float, ...]] = {}

    def decode(threshold: float) -> NDArray[np.uint64]:
        return components_of_map(task.boundary, threshold, per_section=task.per_section)

    def loss(percent: int) -> float:
        rand = rand_scores(contingency(decode(percent / 100), task.truth, task.mask))
        points[percent] = (percent / 100, rand.merge, rand.split, rand.f)
        return 1 - rand.f

    found = line_search(loss, START) / 100
    curve = Curve(*np.array([points[percent] for percent in sorted(points)]).T)
    labels = decode(found)
    return _decoder(task, labels, found, curve, decode, fixed), labels


def score_watershed(
    task: Task, parameters: Watershed, fixed: float | None
) -> tuple[dict[str, Any], NDArray[np.uint64]]:
    """Score the watershed over all levels of its merge tree; the labels are those of the best F."""
    result = _segment(task, parameters)
    curve = _tree_curve(task, result)
    point = best(curve)
    labels = result.cut(point.threshold)
    thinned = _thinned(curve, point.index)
    scores = _decoder(task, labels, point.threshold, thinned, result.cut, fixed)
    information = vars(_thinned(_tree_information(task, result), point.index))
    scores["information"] = {name: information[name].tolist() for name in ("threshold", "split", "merge")}
    return scores | {"parameters": asdict(parameters)}, labels


def search_watershed(task: Task, start: Watershed) -> Watershed:
    """Return the parameters of the best F over the merge tree, by a line search along one parameter at a time."""
    found = start
    for name, grid in GRIDS.items():
        tried = [found, *(replace(found, **{name: value}) for value in grid)]
        tried = [one for one in tried if one.low <= one.high - 0.001]
        found = max(tried, key=lambda one: best(_tree_curve(task, _segment(task, one))).f)
    return found


def scores_of(task: Task, labels: NDArray[Any]) -> dict[str, Any]:
    """Rand (all variants) and VI of one segmentation, with an interval over sections, or over blocks in 3-D."""
    if task.per_section:
        tables = section_tables(labels, task.truth, task.mask)
        table = pool(tables)
    else:
        tables = block_tables(labels, task.truth, block_shape_for(task.truth.shape), task.mask)
        table = Contingency.sum_of(tables)
    rand, information = rand_scores(table), variation_of_information(table)
    variants = {name: adapted_rand_error(table, variant=name).error for name in get_args(Variant)}
    best_of = {"f": rand.f, "merge": rand.merge, "split": rand.split, "are": variants}
    best_of |= {"vi": {"split": information.split, "merge": information.merge}}
    scores: dict[str, Any] = {"best": best_of}
    with_truth = [t for t in tables if (t.truth_ids > 0).any()]
    if task.per_section:
        scores["per_section"] = [asdict(rand_scores(t)) for t in with_truth]
    if len(with_truth) > 1:
        rng, n = np.random.default_rng(0), 200
        if task.per_section:
            interval = bootstrap_interval(with_truth, lambda t: rand_scores(t).f, rng, n)
        else:
            interval = bootstrap_blocks(with_truth, lambda t: {"f": rand_scores(t).f}, rng, n).intervals()["f"]
        best_of["interval"] = [interval.low, interval.high]
    return scores


def _decoder(
    task: Task,
    labels: NDArray[np.uint64],
    threshold: float,
    curve: Curve,
    decode: Callable[[float], NDArray[np.uint64]],
    fixed: float | None,
) -> dict[str, Any]:
    """Collect what is told of one decoder."""
    scores = scores_of(task, labels)
    scores["curve"] = {name: values.tolist() for name, values in vars(curve).items()}
    scores["best"]["threshold"] = threshold
    if fixed is not None:
        rand = rand_scores(contingency(decode(fixed), task.truth, task.mask))
        scores["at_fixed"] = {"threshold": fixed, **asdict(rand)}
    return scores


def _segment(task: Task, parameters: Watershed) -> WatershedSegmentation:
    links = affinities_from_boundary_map(task.boundary, per_section=task.per_section)
    return segment_affinities(links, **asdict(parameters))


def _tree_curve(task: Task, result: WatershedSegmentation) -> Curve:
    tree = result.tree
    table = contingency(result.fragments, task.truth, task.mask)
    return merge_tree_curve(table, tree.u, tree.v, tree.affinity)


def _tree_information(task: Task, result: WatershedSegmentation) -> InformationCurve:
    tree = result.tree
    table = contingency(result.fragments, task.truth, task.mask)
    return merge_tree_information(table, tree.u, tree.v, tree.affinity)


def _thinned(curve: AnyCurve, kept: int, points: int = 400) -> AnyCurve:
    """Keep about `points` points of a long curve, the best among them."""
    length: int = len(curve.threshold)
    chosen = np.unique([*np.linspace(0, length - 1, min(points, length)).astype(int), kept])
    return type(curve)(*(values[chosen] for values in vars(curve).values()))
