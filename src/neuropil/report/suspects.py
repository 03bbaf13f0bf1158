"""The page of `neuropil suspects`: where to look, worst first, each with pictures, and what that is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuropil.report.charts import Axes, Series, line_chart
from neuropil.report.data import Image, Labels
from neuropil.report.gallery import figure, scale_mark
from neuropil.report.markup import count, details, facts, percent, score, table, text
from neuropil.report.page import document
from neuropil.report.pictures import BLUE, ORANGE, draw, outlines


class Picture(NamedTuple):
    """A picture, and the place (y, x) in it that it is about, in pixels."""

    image: Image
    spot: tuple[float, float]


@dataclass(frozen=True)
class Suspect:
    """One suggestion.

    Attributes
    ----------
    kind : "join" two segments, or "cut" one in two
    probability : of being right
    gain : bits of variation of information, if right
    place, place_nm : z, y, x
    segments : their ids; one for a cut
    sizes : voxels of the two sides
    command : that opens a viewer there
    pictures : by name
    right : whether the truth says so; None without truth
    """

    kind: Literal["join", "cut"]
    probability: float
    gain: float
    place: tuple[int, int, int]
    place_nm: tuple[float, float, float] | None
    segments: tuple[int, ...]
    sizes: tuple[int, int]
    command: str
    pictures: Mapping[str, Picture]
    right: bool | None = None


@dataclass(frozen=True)
class Worth:
    """What the list is worth, by the truth.

    Attributes
    ----------
    precision : share of the first k that is right, by k
    vi, rand_error : scores after 0, 1, 2 ... suggestions were looked at and the right ones accepted
    predicted, observed, counts : of the reliability diagram, over all candidates
    error : expected calibration error
    """

    precision: Mapping[int, float]
    vi: Sequence[float]
    rand_error: Sequence[float]
    predicted: Sequence[float]
    observed: Sequence[float]
    counts: Sequence[int]
    error: float


@dataclass(frozen=True)
class SuspectsPage:
    """All that the page shows; `facts` are of the segmentation and the search, `voxel_nm` along z, y, x."""

    title: str
    suspects: Sequence[Suspect]
    facts: Mapping[str, Any] = field(default_factory=dict)
    voxel_nm: tuple[float, float, float] | None = None
    worth: Worth | None = None


def render_suspects(page: SuspectsPage) -> str:
    """Return a page of HTML that needs nothing else.

    >>> render_suspects(SuspectsPage("a & b", [])).count("a &amp; b")
    2
    """
    lead = (
        '<p class="lead">Places where one correction would change much, by the gain to be expected: the probability '
        "that the suggestion is right, times what it then gains (bits of variation of information). In colour the two "
        "sides: blue and orange are to be joined, or to be cut apart. Coordinates are z, y, x in voxels.</p>"
    )
    cases = "".join(_case(k + 1, one, page.voxel_nm) for k, one in enumerate(page.suspects))
    return document(
        f"Suspects of {page.title}",
        f"<header><h1>Where to look: {text(page.title)}</h1>{facts(page.facts)}</header><main>"
        f"{_worth(page.worth) if page.worth else ''}"
        f'<section><h2>Suspects</h2>{lead}<div class="cases">{cases}</div></section>'
        f"<section>{_table(page.suspects)}</section></main>",
    )


def sides_picture(image: Image, labels: Labels) -> Image:
    """Lay two sides (labels 1 and 2), and the borders of all others, over an image (y, x).

    >>> sides_picture(np.zeros((1, 3), np.uint8), np.array([[1, 2, 0]], np.uint64)).shape
    (1, 3, 3)
    """
    picture = draw(image, outlines(labels), (255, 255, 255), 0.4)
    for side, colour in ((1, BLUE), (2, ORANGE)):
        picture = draw(picture, labels == np.uint64(side), colour, 0.5)
    return picture


def upright(picture: NDArray[Any], thickness: int) -> NDArray[Any]:
    """Return a picture (z, x) with each row repeated, so that sections are as thick as they are in x.

    >>> upright(np.zeros((2, 3)), 2).shape
    (4, 3)
    """
    return np.repeat(picture, thickness, axis=0)


def _case(rank: int, one: Suspect, voxel_nm: tuple[float, float, float] | None) -> str:
    what = "Join" if one.kind == "join" else "Cut"
    verdict = "" if one.right is None else (" – right" if one.right else " – not right")
    ids = " and ".join(map(str, one.segments))
    words = (
        f"at <code>{_place(one)}</code>, segment{'s' * (len(one.segments) > 1)} {text(ids)}, sides of "
        f"{count(one.sizes[0])} and {count(one.sizes[1])} voxels; probability {percent(one.probability)}, "
        f"gain {score(one.gain)} bit"
    )
    pixel = 0.0 if voxel_nm is None else voxel_nm[2]
    thumbs = "".join(
        figure(
            picture.image,
            text(name),
            _spot(picture) + (scale_mark(picture.image.shape[1], pixel) if pixel and k == 0 else ""),
        )
        for k, (name, picture) in enumerate(one.pictures.items())
    )
    return (
        f'<div class="case" id="suspect-{rank}"><h3>{rank}. {what}{verdict}</h3><p>{words}</p>'
        f'<div class="thumbs">{thumbs}</div><p><code>{text(one.command)}</code></p></div>'
    )


def _spot(picture: Picture) -> str:
    height, width = picture.image.shape[:2]
    y, x = 100 * picture.spot[0] / height, 100 * picture.spot[1] / width
    return f'<span class="spot" style="left:{x:.1f}%;top:{y:.1f}%"></span>'


def _worth(worth: Worth) -> str:
    rows = [[f"first {k}", percent(value)] for k, value in worth.precision.items()]
    looked = tuple(float(k) for k in range(len(worth.vi)))
    scores = Series("variation of information", looked, tuple(worth.vi), style=1)
    errors = Series("adapted Rand error", looked, tuple(worth.rand_error), style=2)
    most = max(looked[-1], 1.0)
    right = Series(
        "suggestions", tuple(worth.predicted), tuple(worth.observed), style=1,
        tips=tuple(f"{n} suggestions" for n in worth.counts), note=f"error {worth.error:.3f}",
    )  # fmt: skip
    even = Series("as predicted", (0.0, 1.0), (0.0, 1.0), style=0)
    charts = [
        line_chart("Variation of information", [scores], Axes("looked at", "bits", (0, most), _range(worth.vi))),
        line_chart("Adapted Rand error", [errors], Axes("looked at", "error", (0, most), _range(worth.rand_error))),
        line_chart("Reliability", [even, right], Axes("probability", "share that is right", (0, 1), (0, 1))),
    ]
    lead = (
        '<p class="lead">By the truth: suggestions are looked at in this order, and the right ones accepted. A '
        "suggestion is right if the true objects that the two sides mostly are, are the same (join) or differ (cut)."
        "</p>"
    )
    return (
        f'<section><h2>What it is worth</h2>{lead}<div class="charts">{"".join(charts)}</div>'
        f"{table('Precision', ['', 'right'], rows)}</section>"
    )


def _table(suspects: Sequence[Suspect]) -> str:
    rows = [
        [
            str(k + 1),
            one.kind,
            f"<code>{_place(one)}</code>",
            text(", ".join(map(str, one.segments))),
            f"{count(one.sizes[0])}, {count(one.sizes[1])}",
            percent(one.probability),
            score(one.gain),
        ]
        for k, one in enumerate(suspects)
    ]
    head = ["rank", "kind", "z, y, x", "segments", "voxels of the sides", "probability", "gain, bit"]
    return details(f"All {len(rows)} as a table", table("Most gain first", head, rows, words=7))


def _place(one: Suspect) -> str:
    return ", ".join(map(str, one.place))


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.05
    return (max(0.0, low - room), high + room)
