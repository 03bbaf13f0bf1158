"""Charts of a merge tree: every level of it is a segmentation, and all of them are scored at once."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from neuropil.report.charts import Axes, Series, line_chart
from neuropil.report.data import ModelScores


def tree_charts(models: Sequence[ModelScores]) -> str:
    """Return, for the model of the best F, its scores over the merge level; empty where there is no tree.

    From high to low levels splits become fewer and mergers more: where the two lines cross, errors balance.
    """
    with_tree = [one for one in models if "watershed" in one.decoders and one.decoders["watershed"].curve]
    trained = [one for one in with_tree if not one.baseline] or with_tree
    if not trained:
        return ""
    best = max(trained, key=lambda one: one.decoders["watershed"].f)
    scores = best.decoders["watershed"]
    charts = []
    if scores.curve is not None:
        lines = (
            ("F", scores.curve.f),
            ("V_merge (precision)", scores.curve.merge),
            ("V_split (recall)", scores.curve.split),
        )
        axes = Axes("merge level (affinity)", "score", (0.0, 1.0), (0.0, 1.0))
        charts.append(line_chart(f"Merge tree of {best.model}: Rand", _lines(lines, scores.curve.threshold), axes))
    if scores.information is not None:
        known = scores.information
        total = tuple(a + b for a, b in zip(known.split, known.merge))
        lines = (("VI", total), ("merge", known.merge), ("split", known.split))
        most = max((value for value in total if isfinite(value)), default=0.0)
        axes = Axes("merge level (affinity)", "bits", (0.0, 1.0), (0.0, 1.05 * most or 1.0))
        title = f"Merge tree of {best.model}: variation of information"
        charts.append(line_chart(title, _lines(lines, known.threshold, low=True), axes))
    return "".join(charts)


def _lines(
    lines: Sequence[tuple[str, tuple[float, ...]]], levels: tuple[float, ...], *, low: bool = False
) -> list[Series]:
    """Return one series per line; the first has its best point marked."""
    made = []
    for k, (name, values) in enumerate(lines):
        known = zip(levels, values)
        points = sorted((min(level, 1.0), value) for level, value in known if isfinite(level) and isfinite(value))
        if not points:
            continue
        x, y = tuple(point[0] for point in points), tuple(point[1] for point in points)
        best = (min if low else max)(points, key=lambda point: point[1])
        tips = tuple(f"{value:.4f} at {level:.3f}" for level, value in points)
        mark, note = (best, f"best {best[1]:.4f} at {best[0]:.3f}") if k == 0 else (None, "")
        made.append(Series(name, x, y, 1 + k, tips, mark, note=note))
    return made
