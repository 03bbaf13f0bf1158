"""The page of `neuropil defects`: what was measured over the sections, what was found, and how it looks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.defects import KINDS, Kind, SectionFacts
from neuropil.report.charts import Axes, Series, line_chart
from neuropil.report.markup import facts, text
from neuropil.report.page import document
from neuropil.report.pictures import png_uri

_MEASURES = {
    "empty": ("Empty squares", "share of the section", "missing"),
    "sharpness": ("Sharpness", "log of fine over coarse detail", "blurred"),
    "mean": ("Mean", "grey levels", "contrast"),
    "deviation": ("Deviation", "grey levels", "contrast"),
    "shift": ("Shift to the section before", "pixels", "misaligned"),
}


def render_defects(
    title: str,
    known: SectionFacts,
    found: Mapping[Kind, NDArray[np.bool_]],
    pictures: Mapping[int, NDArray[Any]],
    first: int,
) -> str:
    """Return a page of HTML that needs nothing else.

    Parameters
    ----------
    title
        Name of the stack.
    known, found
        Of the sections, from `neuropil.defects`.
    pictures
        Sections (y, x) that were found, of any real dtype, by their number in `known`; they are shown small.
    first
        Number of the first section in the volume.

    Examples
    --------
    >>> one = np.zeros(1)
    >>> known = SectionFacts(one, one, one, one, np.zeros((1, 2)))
    >>> page = render_defects("stack", known, dict.fromkeys(KINDS, one > 0), {}, 0)
    >>> page.startswith("<!doctype html>"), page.count("<figure")
    (True, 5)
    """
    about: dict[str, str] = {kind: f"{int(found[kind].sum())} sections" for kind in KINDS}
    charts = "".join(_chart(name, known, found, first) for name in _MEASURES)
    cases = "".join(
        f'<figure><img src="{png_uri(_small(picture))}" alt="section {z + first}"><figcaption>section {z + first}: '
        f"{text(', '.join(kind for kind in KINDS if found[kind][z]))}</figcaption></figure>"
        for z, picture in pictures.items()
    )
    seen = f'<section><h2>What was found</h2><div class="thumbs">{cases}</div></section>' if cases else ""
    return document(
        f"Defects of {title}",
        f"<header><h1>Defects of {text(title)}</h1>{facts(about)}</header><main>{seen}"
        f'<section><h2>What was measured</h2><div class="charts">{charts}</div></section></main>',
    )


def _chart(name: str, known: SectionFacts, found: Mapping[Kind, NDArray[np.bool_]], first: int) -> str:
    title, unit, kind = _MEASURES[name]
    values = getattr(known, name)
    values = np.hypot(*values.T) if values.ndim == 2 else values
    sections = np.arange(values.size) + first
    seen = np.flatnonzero(np.isfinite(values))
    line = Series("sections", tuple(sections[seen].tolist()), tuple(values[seen].tolist()), style=1)
    marked = [z for z in seen.tolist() if found[kind][z]]  # type: ignore[index]  # names of kinds
    flagged = [
        Series(
            kind if k == 0 else "", (sections[z],), (values[z],), style=2, mark=(float(sections[z]), float(values[z]))
        )
        for k, z in enumerate(marked)
    ]
    low, high = (float(values[seen].min()), float(values[seen].max())) if seen.size else (0.0, 1.0)
    room = 0.05 * (high - low) or 0.5
    axes = Axes("section", unit, (float(first), float(max(sections[-1], first + 1))), (low - room, high + room))
    return line_chart(title, [line, *flagged], axes)


def _small(section: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a section of at most 200 pixels along an axis, dark to bright."""
    step = max(1, -(-max(section.shape) // 200))
    grey = section[::step, ::step].astype(np.float32)
    low, high = (0.0, 255.0) if section.dtype == np.uint8 else np.percentile(grey, [1, 99])
    shown: NDArray[np.uint8] = np.rint(255 * ((grey - low) / max(high - low, 1e-6)).clip(0, 1)).astype(np.uint8)
    return shown
