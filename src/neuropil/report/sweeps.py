"""What `neuropil tune` found, as a part of a page.

A heat map shows every set of parameters over all thresholds at once, so that a wide good stretch stands out from a
sharp peak; curves show the best of them, a table all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neuropil.report.charts import Axes, Series, line_chart
from neuropil.report.data import Sweep
from neuropil.report.heat import HeatRow, heat_map
from neuropil.report.markup import facts, missing, score, strong_best, table, text

CURVES, HEAT_ROWS, CELLS = 6, 24, 50
"""Most curves in a chart, most rows of a heat map, and its cells along the threshold."""


def sweeps_part(sweeps: Sequence[Sweep]) -> str:
    """Return all sweeps of a run, each under its name."""
    if not sweeps:
        return missing("Nothing was tuned in this folder.", "neuropil tune --output RUN/found.toml")
    return "".join(f"<h3>{text(one.name)}</h3>{facts(one.about)}{sweep(one.rows)}" for one in sweeps)


def sweep(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return heat map, curves and table of one sweep."""
    shown = rows[:CURVES]
    most = max((value for row in shown for value in row["curve"]["vi"]), default=1.0)
    charts = [
        line_chart("Rand F, higher is better", _series(shown, "f"), Axes("threshold", "F", (0, 1), (0, 1))),
        line_chart("VI, lower is better", _series(shown, "vi"), Axes("threshold", "bits", (0, 1), (0, most or 1.0))),
    ]
    return f'{_heat(rows[:HEAT_ROWS])}<div class="charts">{"".join(charts)}</div>{_table(rows)}'


def _heat(rows: Sequence[Mapping[str, Any]]) -> str:
    title = "Rand F over the threshold, per set of parameters"
    made = [
        HeatRow(
            row["name"], over_thresholds(row["curve"]["threshold"], row["curve"]["f"], CELLS),
            row["merge_threshold"], (row["flat"][0], row["flat"][1]), f"{row['f']:.4f}",
        )
        for row in rows
    ]  # fmt: skip
    return heat_map(title, made, "threshold")


def over_thresholds(threshold: Sequence[float], value: Sequence[float], cells: int) -> tuple[float, ...]:
    """Return a curve's values in equal cells over 0 to 1: at each middle, what merging down to it has given.

    >>> over_thresholds([1.0, 0.5], [0.2, 0.9], 4)
    (0.9, 0.9, 0.2, 0.2)
    """
    order = np.argsort(threshold, kind="stable")
    at, values = np.asarray(threshold, float)[order], np.asarray(value, float)[order]
    place = np.searchsorted(at, (np.arange(cells) + 0.5) / cells)
    return tuple(values[np.minimum(place, at.size - 1)].tolist())


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
