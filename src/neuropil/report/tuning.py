"""The page of `neuropil tune`: one curve per set of parameters, the best point of each, and the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuropil.report.charts import Axes, Series, line_chart
from neuropil.report.markup import facts, score, strong_best, table, text
from neuropil.report.page import document

CURVES = 6
"""Most curves in one chart."""


def render_tuning(title: str, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    """Return a page of HTML that needs nothing else.

    Parameters
    ----------
    title
        Heading.
    rows
        Results, the best first, as from `neuropil.stages.tuning.tune`, each with a "name" and perhaps a "check".
    about
        Facts for the top: data, sections, score.

    Examples
    --------
    >>> row = {"name": "size", "merge_threshold": 0.5, "f": 0.9, "vi": 0.2, "flat": [0.3, 0.8]}
    >>> row["curve"] = {"threshold": [1, 0.5], "f": [0.8, 0.9], "vi": [0.4, 0.2]}
    >>> render_tuning("Thresholds", [row], {}).count("<svg viewBox")
    2
    """
    shown = rows[:CURVES]
    most = max((value for row in shown for value in row["curve"]["vi"]), default=1.0)
    charts = [
        line_chart("Rand F, higher is better", _series(shown, "f"), Axes("threshold", "F", (0, 1), (0, 1))),
        line_chart("VI, lower is better", _series(shown, "vi"), Axes("threshold", "bits", (0, 1), (0, most or 1.0))),
    ]
    return document(
        title,
        f"<header><h1>{text(title)}</h1>{facts(about)}</header><main><section>"
        f'<div class="charts">{"".join(charts)}</div>{_table(rows)}</section></main>',
    )


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> list[Series]:
    return [
        Series(
            row["name"],
            tuple(row["curve"]["threshold"]),
            tuple(row["curve"][key]),
            style=1 + k,
            mark=(min(row["merge_threshold"], 1.0), row[key]),
            note=f"nearly as good from {row['flat'][0]:.2f} to {row['flat'][1]:.2f}",
        )
        for k, row in enumerate(rows)
    ]


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["parameters", "threshold", "nearly as good", "F", "VI", "F, second crop", "VI, second crop"]
    seconds = [row.get("check") or {} for row in rows]
    columns = [[row["f"] for row in rows], [row["vi"] for row in rows]]
    columns += [[one.get(key) for one in seconds] for key in ("f", "vi")]
    cells = [
        strong_best([score(value) for value in column], column, high=k % 2 == 0) for k, column in enumerate(columns)
    ]
    body = [
        [text(row["name"]), score(row["merge_threshold"]), f"{row['flat'][0]:.3f} to {row['flat'][1]:.3f}", *scores]
        for row, scores in zip(rows, zip(*cells))
    ]
    return table("Best threshold of each set of parameters", head, body)
