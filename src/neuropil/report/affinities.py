"""The page of `neuropil demo --affinities`: one table of scores, the thresholds' curves, and pictures of every step.

The pictures go from image to neurons as the computation does: image, affinities, fragments, segmentations, truth. Links
along z, y and x are the red, green and blue of one picture, so that white is inside, black a boundary in all
directions, and a colour a boundary that some directions cross and others do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from neuropil.report.charts import Axes, Series, line_chart
from neuropil.report.data import Image, Labels
from neuropil.report.gallery import figure, scale_mark, segmentation_picture
from neuropil.report.markup import facts, score, strong_best, table, text
from neuropil.report.page import document
from neuropil.report.pictures import link_colours, paint

COLUMNS = 4
LEAD = (
    '<p class="lead">Affinities: red, green and blue are the links to the voxel before in z, y and x; white is inside,'
    " black is boundary. Segmentations: black is background, white is a border between true objects where the"
    " segmentation has none. A segment that is the largest piece of a true object has that object’s colour, so a"
    " foreign colour is a split, and a colour that crosses a white line is a merge. Click a picture to enlarge it.</p>"
)


@dataclass(frozen=True)
class AffinitySection:
    """One section, all (y, x): image uint8, nearest affinities (3, y, x) uint8 or float32, labels uint64 by name.

    `pixel_nm` is the length of a pixel along x, or None if it is not known.
    """

    z: int
    image: Image
    affinities: Image | npt.NDArray[np.float32]
    truth: Labels
    fragments: Labels
    segmentations: Mapping[str, Labels]
    pixel_nm: float | None = None


def render_affinities(
    title: str, rows: Sequence[Mapping[str, Any]], sections: Sequence[AffinitySection], about: Mapping[str, Any]
) -> str:
    """Return a page of HTML that needs nothing else.

    Parameters
    ----------
    title
        Heading.
    rows
        Per segmentation its "name", "tested" (adapted_rand_error, vi_split, vi_merge) and, where something was tuned,
        "tuned": a row of `neuropil.stages.tuning.tune`.
    sections
        What to show as pictures.
    about
        Facts for the top.

    Examples
    --------
    >>> row = {"name": "mean", "tested": {"adapted_rand_error": 0.1, "vi_split": 1.5, "vi_merge": 0.25}}
    >>> "1.500" in render_affinities("From image to neurons", [row], [], {})
    True
    """
    pictures = "".join(_section(one) for one in sections)
    body = (
        f"<header><h1>{text(title)}</h1>{facts(about)}</header><main>"
        f'<section><h2>Scores</h2>{_table(rows)}<div class="charts">{_chart(rows)}</div></section>'
        f"<section><h2>Pictures</h2>{LEAD}{pictures}</section></main>"
    )
    return document(title, body)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["segmentation", "Rand error, tuned on", "Rand error, tested", "VI split (bits)", "VI merge (bits)"]
    columns = [[(row.get("tuned") or {}).get("adapted_rand_error") for row in rows]]
    columns += [[row["tested"][key] for row in rows] for key in ("adapted_rand_error", "vi_split", "vi_merge")]
    cells = [strong_best([score(value) for value in column], column, high=False) for column in columns]
    body = [[text(row["name"]), *scores] for row, scores in zip(rows, zip(*cells))]
    return table("Tested on sections that had no say in training or tuning; lower is better", head, body)


def _chart(rows: Sequence[Mapping[str, Any]]) -> str:
    tuned = [
        (row["name"], row["tuned"]) for row in rows if len((row.get("tuned") or {}).get("curve", {"f": ()})["f"]) > 1
    ]
    series = [
        Series(
            name,
            tuple(one["curve"]["threshold"]),
            tuple(one["curve"]["f"]),
            style=1 + k,
            mark=(min(one["merge_threshold"], 1.0), one["f"]),
        )
        for k, (name, one) in enumerate(tuned)
    ]
    if not series:
        return ""
    return line_chart("Rand F on the sections to tune on", series, Axes("threshold", "F", (0, 1), (0, 1)))


def _section(one: AffinitySection) -> str:
    scale = "" if one.pixel_nm is None else scale_mark(one.image.shape[1], one.pixel_nm)
    figures = [
        figure(one.image, "<b>image</b>", scale),
        figure(link_colours(one.affinities), "<b>affinities</b> along z, y, x"),
        figure(paint(one.fragments, one.truth), "<b>fragments</b>"),
        figure(paint(one.truth), "<b>truth</b>"),
        *(
            figure(segmentation_picture(labels, one.truth), f"<b>{text(name)}</b>")
            for name, labels in one.segmentations.items()
        ),
    ]
    return f'<h3>Section {one.z}</h3><div class="matrix" style="--n:{COLUMNS}">{"".join(figures)}</div>'
