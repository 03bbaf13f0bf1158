"""The page of `neuropil crowd`: scores, calibration, what more players bring, and the users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neuropil.crowd.cost import CostCurve
from neuropil.crowd.scores import CrowdScores
from neuropil.report.charts import Axes, Series, line_chart
from neuropil.report.markup import details, facts, missing, score, strong_best, table, text
from neuropil.report.page import document

SHOWN = 100
"""Most users in the table."""
_TARGETS = (0.9, 0.95, 0.98)


def render_crowd(
    title: str,
    about: Mapping[str, Any],
    scores: Mapping[str, CrowdScores],
    curves: Mapping[str, CostCurve],
    users: Mapping[str, Sequence[Any]],
    notes: Sequence[str] = (),
) -> str:
    """Return a page of HTML that needs nothing else.

    Parameters
    ----------
    title
        Heading.
    about
        Facts for the top.
    scores
        By name, those of the method first; empty where no labels are known.
    curves
        Cost curves by method.
    users
        Columns of the table of users: user, votes, tasks, weight, sensitivity, specificity, voxel_precision,
        voxel_recall, tier.
    notes
        Sentences that the reader must not miss.

    Examples
    --------
    >>> users = dict.fromkeys(("votes", "tasks", "weight", "sensitivity", "specificity"), [1.0])
    >>> users |= dict.fromkeys(("voxel_precision", "voxel_recall", "tier"), [0.5]) | {"user": ["ann"]}
    >>> page = render_crowd("Votes", {"votes": 1}, {}, {}, users, ["no labels"])
    >>> "ann" in page, page.count('class="note"')
    (True, 1)
    """
    warned = "".join(f'<p class="note">{text(note)}</p>' for note in notes)
    parts = [_scores(scores), _charts(scores, curves), _needed(curves)] if scores else []
    if not scores:
        parts = [missing("Nothing was scored: labels of several tasks are needed.", "neuropil crowd --segments")]
    return document(
        title,
        f"<header><h1>{text(title)}</h1>{warned}{facts(about)}</header>"
        f"<main><section>{''.join(parts)}</section><section><h2>Users</h2>{_users(users)}</section></main>",
    )


def _scores(scores: Mapping[str, CrowdScores]) -> str:
    head = ["cross-validated", "error", "F", "precision", "recall", "per task", "accuracy", "log loss", "Brier"]
    rows = list(scores.values())
    columns = [
        ([one.voxels.error for one in rows], False),
        ([one.voxels.f for one in rows], True),
        ([one.voxels.precision for one in rows], True),
        ([one.voxels.recall for one in rows], True),
        ([one.voxels.per_task for one in rows], False),
        ([one.accuracy for one in rows], True),
        ([one.log_loss for one in rows], False),
        ([one.brier for one in rows], False),
    ]
    cells = [strong_best([score(value, 4) for value in column], column, high=high) for column, high in columns]
    body = [[text(name), *row] for name, row in zip(scores, zip(*cells))]
    lead = (
        "<h2>Scores</h2><p>Each segment was judged by a model that had not seen its label, nor, with folds of tasks,"
        " any label of its task. Error, F, precision and recall are in voxels; accuracy, log loss and Brier score are"
        " per segment.</p>"
    )
    return lead + table("Scores on labelled segments", head, body)


def _charts(scores: Mapping[str, CrowdScores], curves: Mapping[str, CostCurve]) -> str:
    promised = [
        Series(
            name,
            tuple(np.nan_to_num(one.calibration.promised, nan=np.nan)[one.calibration.counts > 0].tolist()),
            tuple(one.calibration.observed[one.calibration.counts > 0].tolist()),
            style=1 + k,
            tips=tuple(f"{count} segments" for count in one.calibration.counts.tolist() if count),
            note=f"off by {one.calibration.error:.3f}",
        )
        for k, (name, one) in enumerate(scores.items())
    ]
    most = max((float(np.nanmax(one.error)) for one in curves.values()), default=1.0)
    last = max((float(one.votes[-1]) for one in curves.values()), default=1.0)
    costs = [
        Series(name, tuple(one.votes.tolist()), tuple(one.error.tolist()), style=1 + k)
        for k, (name, one) in enumerate(curves.items())
    ]
    diagonal = [Series("kept promises", (0.0, 1.0), (0.0, 1.0))]
    unit = (0.0, 1.0)
    charts = [
        line_chart(
            "Calibration", promised, Axes("probability", "share that belongs to the cell", unit, unit), diagonal
        ),
        line_chart("Cost", costs, Axes("votes per segment", "error", (1, max(last, 1.1)), (0, most or 1.0))),
    ]
    return f'<div class="charts">{"".join(charts)}</div>'


def _needed(curves: Mapping[str, CostCurve]) -> str:
    head = ["votes per segment for", *(f"F {target:g}" for target in _TARGETS)]
    body = []
    for name, curve in curves.items():
        needed = [curve.needed(target) for target in _TARGETS]
        body.append([text(name), *(f"{one:.1f}" if np.isfinite(one) else "not reached" for one in needed)])
    return table("What a target costs", head, body)


def _users(users: Mapping[str, Sequence[Any]]) -> str:
    order = sorted(range(len(users["user"])), key=lambda u: -users["weight"][u])
    names = ["weight", "sensitivity", "specificity", "voxel_precision", "voxel_recall"]
    head = ["user", "votes", "tasks", *(name.replace("_", " ") for name in names), "tier"]
    body = [
        [
            text(users["user"][u]),
            *(f"{users[name][u]:.0f}" for name in ("votes", "tasks")),
            *(score(users[name][u]) for name in names),
            f"{users['tier'][u]:g}" if np.isfinite(users["tier"][u]) else "exempt",
        ]
        for u in order[:SHOWN]
    ]
    more = f"<p>{len(order) - SHOWN} more are in the table of users.</p>" if len(order) > SHOWN else ""
    return details(f"{len(order)} users, by weight", table("Users", head, body) + more)
