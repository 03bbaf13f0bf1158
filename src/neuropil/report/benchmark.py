"""The page of `neuropil benchmark`: per volume one table of scores with intervals, and where the methods stand.

Split and merge errors are plotted against each other, because one number hides which of the two a method makes: down
and left is better. Whether two methods differ is what the table of differences says, not whether their crosses touch:
what one block makes hard for one method it mostly makes hard for the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuropil.report.charts import Axes, Series, line_chart
from neuropil.report.markup import count, details, duration, facts, score, strong_best, table, text, toml
from neuropil.report.page import document

SCORES = (
    ("adapted_rand_error", "Rand error", False),
    ("v_merge", "V merge", True),
    ("v_split", "V split", True),
    ("vi_split", "VI split", False),
    ("vi_merge", "VI merge", False),
    ("cremi_score", "CREMI", False),
    ("instance_ap", "instance AP", True),
    ("unassigned", "unassigned", False),
    ("erl_um", "ERL µm", True),
    ("nerl", "NERL", True),
    ("skeleton_merges", "merges", False),
    ("skeleton_splits", "splits", False),
)
"""Scores that are shown where they are known: name, heading, whether higher is better."""

COUNTS = ("skeleton_merges", "skeleton_splits")

DEFINITIONS = {
    "Rand error": "1 − F of V merge and V split; truth background left out, proposal background as single voxels",
    "V merge, V split": "of the voxel pairs that the proposal (the truth) joins, the share that the other joins too",
    "VI split, VI merge": "bits; truth background left out, proposal background one segment",
    "CREMI": "√(VI · Rand error of the CREMI script), on the truth as it is, borders included",
    "instance AP": "mean over IoU 0.5, 0.55 … 0.95 of TP / (TP + FP + FN)",
    "unassigned": "share of the truth's voxels that the proposal leaves as background",
    "ERL, NERL": "expected run length on skeletons, and its share of that of a perfect segmentation; intervals over"
    " skeletons",
    "merges, splits": "on skeletons: wrong joins and cuts",
    "interval": "bootstrap over blocks of the volume; small numbers below the score. It speaks of other tissue of this"
    " volume, and is too narrow where errors are larger than a block",
    "against the first": "difference to the first method on the same blocks; an interval that holds 0 tells nothing",
}


def render_benchmark(title: str, volumes: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    """Return a page of HTML that needs nothing else.

    Parameters
    ----------
    title
        Heading.
    volumes
        As in results.json of `neuropil benchmark`: "name", "truth", "box", "blocks", "block_shape", "truth_segments"
        and "methods", each with "name", "source", "segments", "seconds", "scores" and "minus_first" (by score: "value",
        "low", "high", None where there is none).
    about
        "level", "config" and "versions".

    Examples
    --------
    >>> render_benchmark("Benchmark", [], {"level": 0.95, "config": {}, "versions": {}}).startswith("<!doctype html>")
    True
    """
    parts = "".join(_volume(one, about["level"]) for one in volumes)
    end = details("Configuration", f"<pre>{text(toml(about['config']))}</pre>") + facts(about["versions"])
    body = (
        f"<header><h1>{text(title)}</h1></header><main>{parts}<section><h2>Definitions</h2>{facts(DEFINITIONS)}</section>"
        f"<section><h2>Provenance</h2>{end}</section></main>"
    )
    return document(title, body)


def _volume(volume: Mapping[str, Any], level: float) -> str:
    box = ", ".join(f"{start}:{stop}" for start, stop in zip(*volume["box"]))
    known = {"truth": volume["truth"], "box": box, "true segments": count(volume["truth_segments"])}
    known["blocks"] = f"{volume['blocks']} of {' × '.join(map(str, volume['block_shape']))} voxels"
    return (
        f"<section><h2>{text(volume['name'])}</h2>{facts(known)}{_scores(volume['methods'], level)}"
        f'<div class="charts">{_scatter(volume["methods"])}</div>{_differences(volume["methods"], level)}</section>'
    )


def shown_scores(methods: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, bool]]:
    """Return what is shown of the methods of a volume: run lengths only where it has skeletons."""
    return [one for one in SCORES if one[0] in methods[0]["scores"]]


def _scores(methods: Sequence[Mapping[str, Any]], level: float) -> str:
    columns, known = [], shown_scores(methods)
    for key, _, high in known:
        values = [one["scores"][key]["value"] for one in methods]
        cells = strong_best([count(value) if key in COUNTS else score(value) for value in values], values, high=high)
        columns.append([cell + _interval(one["scores"][key]) for cell, one in zip(cells, methods)])
    rows = [
        [
            f"{text(one['name'])}<br><small>{text(one['source'])}</small>",
            *scores,
            count(one["segments"]),
            text(None if one["seconds"] is None else duration(one["seconds"])),
        ]
        for one, scores in zip(methods, zip(*columns))
    ]
    head = ["method", *(name for _, name, _ in known), "segments", "run time"]
    return table(f"Scores with {100 * level:g} % intervals; the best in bold", head, rows)


def _differences(methods: Sequence[Mapping[str, Any]], level: float) -> str:
    if len(methods) < 2:
        return ""
    known = shown_scores(methods)
    rows = [[text(one["name"]), *(f"{_signed(one['minus_first'][key])}" for key, _, _ in known)] for one in methods[1:]]
    caption = f"Against {text(methods[0]['name'])}, on the same blocks, with {100 * level:g} % intervals"
    return table(caption, ["method", *(name for _, name, _ in known)], rows)


def _signed(difference: Mapping[str, float | None]) -> str:
    value = difference["value"]
    return text(None) if value is None else f"{value:+.3f}{_interval(difference, '+.3f')}"


def _interval(found: Mapping[str, float | None], form: str = ".3f") -> str:
    if found["low"] is None or found["high"] is None:
        return ""
    return f"<br><small>{found['low']:{form}} to {found['high']:{form}}</small>"


def _scatter(methods: Sequence[Mapping[str, Any]]) -> str:
    """Return VI split over VI merge, each method with its interval along both."""
    series, bars, top = [], [], [0.0, 0.0]
    for k, one in enumerate(methods):
        merge, split = one["scores"]["vi_merge"], one["scores"]["vi_split"]
        if merge["value"] is None or split["value"] is None:
            continue
        place = (merge["value"], split["value"])
        series.append(Series(one["name"], place[:1], place[1:], style=1 + k, mark=place))
        if merge["low"] is not None and split["low"] is not None:
            bars.append(Series("", (merge["low"], merge["high"]), (place[1], place[1])))
            bars.append(Series("", (place[0], place[0]), (split["low"], split["high"])))
        top = [max(top[0], merge["high"] or place[0], place[0]), max(top[1], split["high"] or place[1], place[1])]
    if not series:
        return ""
    axes = Axes("VI merge, bits", "VI split, bits", (0, 1.05 * top[0] or 1.0), (0, 1.05 * top[1] or 1.0))
    return line_chart("Split against merge errors; down and left is better", series, axes, bars)
