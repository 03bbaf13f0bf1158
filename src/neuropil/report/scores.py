"""The parts of the page that show numbers: score tables, bars of best F, precision–recall and training curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

from neuropil.report.charts import Axes, Bar, Range, Series, bar_chart, line_chart
from neuropil.report.data import Decoder, DecoderScores, ModelScores, ReportData, TrainingLog
from neuropil.report.markup import count, details, duration, missing, percent, score, strong_best, table, text
from neuropil.report.trees import tree_charts

BINS = 150
DEFINITIONS = {
    "Pixel error": "share of pixels on the wrong side when boundary is where the probability of boundary exceeds a "
    "threshold. “Best” takes the threshold that is best on these very sections (the practice of the papers); "
    "“training threshold” was fixed on training sections beforehand and is the honest number.",
    "Rand F": "harmonic mean of V_merge = Σ n²/Σ s² (precision, falls with false mergers) and V_split = Σ n²/Σ t² "
    "(recall, falls with false splits), where n counts the voxels that a proposed segment shares with a true object, "
    "s and t the sizes of the two. True background is left out, each background voxel of the proposal is a segment of "
    "its own, and pairs are counted as squares. In 2-D, true objects are the connected pieces within each section, and "
    "counts are pooled over sections before dividing (Arganda-Carreras et al. 2015).",
    "Adapted Rand error": "1 − F; programs differ in what background is, so the variants are listed by name.",
    "Variation of information": "split = H(proposal | truth), merge = H(truth | proposal), in bits; true background is "
    "left out, the proposal’s background is one segment (Meilă 2007).",
    "Components": "segments are the connected regions whose probability of boundary is below the threshold, in 2-D "
    "4-connected within each section.",
    "Watershed": "basins of the boundary map, joined down to the merge level, an affinity (size-dependent single "
    "linkage).",
}


def model_styles(data: ReportData) -> dict[str, int]:
    """Give each model and network a chart style, the same in all charts; 0 is a baseline's.

    >>> from neuropil.report.data import ModelScores, ReportData
    >>> model_styles(ReportData("t", "r", models=(ModelScores("grey", baseline=True), ModelScores("N4"))))
    {'grey': 0, 'n4': 1}
    """
    styles: dict[str, int] = {}
    for name, baseline in [(one.model, one.baseline) for one in data.models] + [
        (log.network, False) for log in data.training
    ]:
        if name.lower() not in styles:
            styles[name.lower()] = 0 if baseline else sum(style > 0 for style in styles.values()) + 1
    return styles


def scores_part(data: ReportData) -> str:
    """Return tables of all scores and the bar chart of best F."""
    if not data.models:
        return missing("Nothing was evaluated in this run.", "neuropil evaluate run.toml")
    pixels = f'<div class="charts">{_pixel_table(data.models)}{_pixel_chart(data.models, model_styles(data))}</div>'
    return _bars(data.models) + _segmentation_table(data.models) + _are_table(data.models) + pixels


def curves_part(data: ReportData) -> str:
    """Return precision–recall curves of both decoders, F over their thresholds, and the best merge tree's scores."""
    styles = model_styles(data)
    charts = [
        _rand_chart("Components: precision and recall over the threshold", "components", data.models, styles),
        _rand_chart("Watershed: precision and recall over the merge level", "watershed", data.models, styles),
        _f_chart("Components: how flat is the optimum?", "threshold", "components", data.models, styles),
        _f_chart("Watershed: how flat is the optimum?", "merge level", "watershed", data.models, styles),
        tree_charts(data.models),
    ]
    if not any(charts):
        return missing("The evaluations hold no curves.", "neuropil evaluate run.toml")
    return (
        '<p class="lead">Precision falls with false mergers, recall with false splits; the marker is the best F, thin '
        "lines join points of equal F. A baseline may lie outside these axes. Point at a curve to read its values.</p>"
        f'<div class="charts">{"".join(charts)}</div>'
    )


def training_part(data: ReportData) -> str:
    """Return loss and validation curves and the table of speeds."""
    if not data.training:
        return missing("No training log in this run folder.", "neuropil train run.toml")
    styles = model_styles(data)
    error = _error_kind(data.training)
    charts = [
        _training_chart("Training loss", "loss per pixel", data.training, styles, _loss_series),
        _training_chart(f"Validation {error}", error, data.training, styles, _validation_series),
    ]
    return f'<div class="charts">{"".join(charts)}</div>' + _training_table(data.training)


def _bars(models: Sequence[ModelScores]) -> str:
    bars: list[tuple[str, list[Bar | None]]] = []
    for decoder in get_args(Decoder):
        row = [_bar(one.decoders.get(decoder)) for one in models]
        if any(row):
            bars.append((decoder, row))
    if not bars:
        return missing("No segmentation was scored.", "neuropil evaluate run.toml")
    title = "Best Rand F"
    if any(bar is not None and bar.whisker for _, row in bars for bar in row):
        known = any(scores.interval for one in models for scores in one.decoders.values())
        what = "95 % interval over sections, or blocks in 3-D" if known else "lowest and highest single section"
        title += f" (whiskers: {what})"
    return bar_chart(title, [one.model for one in models], bars)


def _bar(scores: DecoderScores | None) -> Bar | None:
    if scores is None:
        return None
    sections = scores.f_per_section
    spread = (min(sections), max(sections)) if len(sections) > 1 else None
    return Bar(scores.f, scores.interval or spread)


def _segmentation_table(models: Sequence[ModelScores]) -> str:
    rows = [(one, decoder, scores) for one in models for decoder, scores in one.decoders.items()]
    if not rows:
        return ""
    sums = [None if s.vi_split is None or s.vi_merge is None else s.vi_split + s.vi_merge for _, _, s in rows]
    fixed = [s.f_at_fixed for *_, s in rows]
    columns = {
        "Rand F": _column([s.f for *_, s in rows], high=True),
        "V<sub>merge</sub>": _column([s.merge for *_, s in rows], high=True),
        "V<sub>split</sub>": _column([s.split for *_, s in rows], high=True),
        "ARE": _column([s.are.get("neuropil", 1 - s.f) for *_, s in rows], high=False),
        "VI split": _column([s.vi_split for *_, s in rows], high=False, digits=3),
        "VI merge": _column([s.vi_merge for *_, s in rows], high=False, digits=3),
        "VI sum": _column(sums, high=False, digits=3),
        "threshold": [score(s.threshold) for *_, s in rows],
    }
    if any(value is not None for value in fixed):
        columns["F at fixed<br>threshold"] = _at(_column(fixed, high=True), [s.fixed_threshold for *_, s in rows])
    cells = [[_name(one), text(decoder), *row] for (one, decoder, _), *row in zip(rows, *columns.values())]
    caption = "Segmentations, each at the threshold of its best Rand F; bold is best, VI in bits"
    return table(caption, ["model", "decoder", *columns], cells, words=2)


def _column(values: Sequence[float | None], *, high: bool, digits: int = 4) -> list[str]:
    return strong_best([score(value, digits) for value in values], values, high=high)


def _name(one: ModelScores) -> str:
    return text(one.model) + (" <small>baseline</small>" if one.baseline else "")


def _pixel_table(models: Sequence[ModelScores]) -> str:
    rows = [(one, one.pixel_error) for one in models if one.pixel_error is not None]
    if not rows:
        return missing("No pixel error was measured.", "neuropil evaluate run.toml")
    fixed, best = [error.at_fixed for _, error in rows], [error.best for _, error in rows]
    columns = [
        _errors(fixed, [error.fixed_threshold for _, error in rows]),
        _errors(best, [error.threshold for _, error in rows]),
    ]
    head = ["model", "pixel error at<br>training threshold", "best<br>pixel error"]
    return table("Boundary maps", head, [[_name(one), *row] for (one, _), *row in zip(rows, *columns)])


def _errors(values: Sequence[float | None], thresholds: Sequence[float | None]) -> list[str]:
    return _at(strong_best([percent(value) for value in values], values, high=False), thresholds)


def _at(cells: Sequence[str], thresholds: Sequence[float | None]) -> list[str]:
    """Write the threshold of each value behind it."""
    return [
        cell if threshold is None else f"{cell} <small>at {threshold:.2f}</small>"
        for cell, threshold in zip(cells, thresholds)
    ]


def _are_table(models: Sequence[ModelScores]) -> str:
    rows = [(one, decoder, scores) for one in models for decoder, scores in one.decoders.items() if scores.are]
    variants = list(dict.fromkeys(name for *_, scores in rows for name in scores.are))
    if len(variants) < 2:
        return ""
    cells = [
        [_name(one), text(decoder), *(score(scores.are.get(name), 4) for name in variants)]
        for one, decoder, scores in rows
    ]
    caption = "Adapted Rand error as the named programs define it"
    title = f"Adapted Rand error in {len(variants)} variants, to compare with other programs"
    return details(title, table(caption, ["model", "decoder", *map(text, variants)], cells, words=2))


def _rand_chart(title: str, decoder: Decoder, models: Sequence[ModelScores], styles: Mapping[str, int]) -> str:
    series = []
    for one in models:
        scores = one.decoders.get(decoder)
        if scores is None or scores.curve is None:
            continue
        curve = scores.curve
        tips = tuple(
            f"F {score(f, 4)}, V_merge {score(m, 4)}, V_split {score(s, 4)} at {score(t)}"
            for t, m, s, f in zip(curve.threshold, curve.merge, curve.split, curve.f)
        )
        mark = (scores.split, scores.merge) if scores.split is not None and scores.merge is not None else None
        note = f"F {scores.f:.4f}" + (f" at {scores.threshold:.3g}" if scores.threshold is not None else "")
        series.append(Series(one.model, curve.split, curve.merge, styles[one.model.lower()], tips, mark, note=note))
    if not series:
        return ""
    low = _lower_limit(series)
    axes = Axes("V_split (recall)", "V_merge (precision)", (low, 1.0), (low, 1.0))
    return line_chart(title, series, axes, [_equal_f(f) for f in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95) if f > low])


def _f_chart(
    title: str, x_label: str, decoder: Decoder, models: Sequence[ModelScores], styles: Mapping[str, int]
) -> str:
    """Return F over the threshold: a model whose F falls off steeply needs its threshold tuned on every new volume."""
    series = []
    for one in models:
        scores = one.decoders.get(decoder)
        if scores is None or scores.curve is None:
            continue
        pairs = zip(scores.curve.threshold, scores.curve.f)
        points = sorted((threshold, f) for threshold, f in pairs if math.isfinite(threshold))
        x, y = tuple(point[0] for point in points), tuple(point[1] for point in points)
        mark = (scores.threshold, scores.f) if scores.threshold is not None else None
        tips = tuple(f"F {score(f, 4)} at {score(threshold)}" for threshold, f in points)
        series.append(Series(one.model, x, y, styles[one.model.lower()], tips, mark))
    ends = [value for one in series for value in one.x]
    if not ends:
        return ""
    limits = (min(0.0, *ends), max(1.0, *ends))
    return line_chart(title, series, Axes(x_label, "Rand F", limits, (0.0, 1.0)))


def _lower_limit(series: Sequence[Series]) -> float:
    """Lower end of both axes: a multiple of 0.1 with room below every model's best point.

    A poor baseline may lie outside, or it would press all that matters into one corner.
    """
    shown = [one for one in series if one.style > 0] or series
    values = [value for one in shown for value in (one.mark or ())]
    return max(0.0, math.floor(10 * (min(values, default=0.0) - 0.12)) / 10)


def _equal_f(f: float) -> Series:
    """Points of equal F: precision = F recall / (2 recall − F)."""
    recall = [f / (2 - f) + k / 60 * (1 - f / (2 - f)) for k in range(61)]
    precision = tuple(f * one / (2 * one - f) for one in recall)
    return Series(f"F {f:g}", tuple(recall), precision)


def _pixel_chart(models: Sequence[ModelScores], styles: Mapping[str, int]) -> str:
    series = []
    for one in models:
        error = one.pixel_error
        if error is None or not error.curve_threshold:
            continue
        order = sorted(range(len(error.curve_threshold)), key=error.curve_threshold.__getitem__)
        x, y = (tuple(column[k] for k in order) for column in (error.curve_threshold, error.curve_error))
        mark = (error.threshold, error.best) if error.threshold is not None else None
        tips = tuple(f"{percent(value)} at {threshold:.3g}" for threshold, value in zip(x, y))
        series.append(Series(one.model, x, y, styles[one.model.lower()], tips, mark, note=percent(error.best)))
    if not series:
        return ""
    highest = max((value for one in series for value in one.y if math.isfinite(value)), default=1.0)
    top = min(1.0, highest * 1.05, 4 * max(one.mark[1] if one.mark else highest for one in series))
    axes = Axes("threshold (probability of boundary)", "pixel error", (0.0, 1.0), (0.0, max(top, 0.01)), percent=True)
    return line_chart("Pixel error over threshold", series, axes)


def _error_kind(logs: Sequence[TrainingLog]) -> str:
    affinities = any(one.rand_error is not None for log in logs for one in log.validations)
    return "Rand error" if affinities else "pixel error"


def _loss_series(log: TrainingLog, style: int) -> Series | None:
    if not log.update:
        return None
    x, middle, low, high = smooth(log.update, log.loss, BINS)
    return Series(log.network, x, middle, style, band=(low, high), note=f"last {middle[-1]:.3f}" if middle else "")


def _validation_series(log: TrainingLog, style: int) -> Series | None:
    points = [(float(one.update), one.error) for one in log.validations if one.error is not None]
    if not points:
        return None
    best = min(points, key=lambda point: point[1])
    x, y = tuple(point[0] for point in points), tuple(point[1] for point in points)
    tips = tuple(f"{percent(value)} after {count(update)} updates" for update, value in points)
    return Series(log.network, x, y, style, tips, best, note=f"best {percent(best[1])} at {count(best[0])}")


def smooth(
    update: Sequence[float], value: Sequence[float], bins: int
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Return x, mean, 10th and 90th percentile of at most `bins` equal stretches; only finite values count.

    >>> smooth([1, 2, 3, 4], [4.0, 2.0, float("nan"), 1.0], 2)
    ((1.0, 3.0), (4.0, 1.5), (4.0, 1.0), (4.0, 2.0))
    """
    points = [(x, y) for x, y in zip(update, value) if math.isfinite(y)]
    # About five points a stretch, if there are enough of them, so that the mean is smoother than the points.
    bins = min(bins, max(len(points) // 5, min(len(points), 20)))
    columns = []
    for k in range(bins):
        part = points[k * len(points) // bins : (k + 1) * len(points) // bins]
        if part:
            ys = sorted(y for _, y in part)
            ends = (ys[round(0.1 * (len(ys) - 1))], ys[round(0.9 * (len(ys) - 1))])
            columns.append((sum(x for x, _ in part) / len(part), sum(ys) / len(ys), *ends))
    x, mean, low, high = (tuple(column[i] for column in columns) for i in range(4))
    return x, mean, low, high


def _training_chart(
    title: str,
    y_label: str,
    logs: Sequence[TrainingLog],
    styles: Mapping[str, int],
    make: Callable[[TrainingLog, int], Series | None],
) -> str:
    series = [one for log in logs if (one := make(log, styles[log.network.lower()])) is not None]
    values = sorted(value for one in series for value in (*one.y, *(one.band[1] if one.band else ())))
    if not values:
        return missing(f"{title}: nothing was logged.", "neuropil train run.toml")
    # A first spike must not flatten all the rest: the top is where 98 % of the values lie below.
    top = max(values[min(len(values) - 1, math.floor(0.98 * len(values)))] * 1.1, 1e-6)
    limits: Range = (0.0, max(x for one in series for x in one.x))
    is_error = y_label.endswith(" error")
    return line_chart(title, series, Axes("updates", y_label, limits, (0.0, top), percent=is_error))


def _training_table(logs: Sequence[TrainingLog]) -> str:
    rows = []
    for log in logs:
        best = min((one.error for one in log.validations if one.error is not None), default=None)
        rows.append(
            [
                text(log.network),
                count(log.update[-1]) if log.update else "–",
                duration(log.seconds) if log.seconds is not None else "–",
                f"{log.updates_per_second:.3g}" if log.updates_per_second else "–",
                count(log.pixels_per_second) if log.pixels_per_second else "–",
                percent(best),
            ]
        )
    error = f"best validation<br>{_error_kind(logs)}"
    head = ["network", "updates", "time", "updates/s", "output pixels/s", error]
    return table("Training (pixels/s: median over logged updates)", head, rows)
