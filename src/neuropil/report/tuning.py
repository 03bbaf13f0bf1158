"""The page of `neuropil tune`; the report of a run has the same part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuropil.report.markup import facts, text
from neuropil.report.page import document
from neuropil.report.sweeps import sweep


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
    >>> render_tuning("Thresholds", [row], {}).count("<figure")
    3
    """
    return document(
        title, f"<header><h1>{text(title)}</h1>{facts(about)}</header><main><section>{sweep(rows)}</section></main>"
    )
