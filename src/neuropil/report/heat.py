"""A heat map as inline SVG: one row per set of parameters, a value along a threshold as depth of one colour.

One hue from pale to full is told apart by every kind of colour vision and on grey paper alike. A bracket under a row
marks the stretch that is nearly as good as its best, which a ring marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from neuropil.report.charts import WIDTH, ticks

_WIDE, _LEFT, _RIGHT, _ROW, _TOP = WIDTH + 260, 250, 64, 20, 6


@dataclass(frozen=True)
class HeatRow:
    """One row: values in equal cells over 0 to 1, and in those units the best place and the stretch as good."""

    name: str
    values: tuple[float, ...]
    best: float
    flat: tuple[float, float]
    note: str = ""


def heat_map(title: str, rows: Sequence[HeatRow], x_label: str, digits: int = 2) -> str:
    """Return a `<figure>`; `note` is written to the right of a row.

    >>> heat_map("t", [HeatRow("a", (0.2, 0.9), 0.75, (0.5, 1.0))], "threshold").count('class="ring"')
    1
    """
    known = np.concatenate([np.asarray(row.values, float) for row in rows])
    low, high = float(np.nanmin(known)), float(np.nanmax(known))
    width = _WIDE - _LEFT - _RIGHT
    bottom = _TOP + _ROW * len(rows)
    parts = [_row(row, _TOP + _ROW * k, width, (low, high)) for k, row in enumerate(rows)]
    for tick in ticks(0, 1):
        x = _LEFT + tick * width
        parts.append(f'<path class="axis" d="M{x:.1f} {bottom}v4"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{tick:g}</text>')
    parts.append(
        f'<text class="label" x="{_LEFT + width / 2}" y="{bottom + 36}" text-anchor="middle">{escape(x_label)}</text>'
    )
    return (
        f'<figure class="chart wide"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDE} {bottom + 44}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
        f'<div class="legend"><span>{low:.{digits}f} {_key()} {high:.{digits}f}</span>'
        "<span>ring: best; line: nearly as good</span></div></figure>"
    )


def _row(row: HeatRow, y: int, width: int, limits: tuple[float, float]) -> str:
    low, high = limits
    step = width / len(row.values)
    cells = "".join(
        f'<rect class="cell" x="{_LEFT + k * step:.1f}" y="{y + 1}" width="{step:.1f}" height="{_ROW - 5}"'
        f' fill-opacity="{_depth((value - low) / max(high - low, 1e-12)):.2f}"/>'
        for k, value in enumerate(row.values)
    )
    start, stop = (_LEFT + min(max(end, 0.0), 1.0) * width for end in row.flat)
    best = _LEFT + min(max(row.best, 0.0), 1.0) * width
    name = row.name if len(row.name) <= 38 else f"{row.name[:37]}…"
    return (
        f'<text class="tick" x="{_LEFT - 8}" y="{y + 8}" dy=".35em" text-anchor="end">{escape(name)}'
        f"<title>{escape(row.name)}</title></text>{cells}"
        f'<path class="bracket" d="M{start:.1f} {y + _ROW - 2}H{stop:.1f}"/>'
        f'<circle class="ring" cx="{best:.1f}" cy="{y + (_ROW - 3) / 2}" r="4.5"/>'
        f'<text class="value" x="{_LEFT + width + 8}" y="{y + 8}" dy=".35em">{escape(row.note)}</text>'
    )


def _depth(share: float) -> float:
    """Return the opacity of a share of the range; the upper end, where the choice is made, gets most of the steps."""
    return 0.06 + 0.94 * min(max(share, 0.0), 1.0) ** 2


def _key() -> str:
    cells = "".join(
        f'<rect class="cell" x="{10 * k}" width="10" height="12" fill-opacity="{_depth(k / 9):.2f}"/>'
        for k in range(10)
    )
    return f'<svg class="key ramp" viewBox="0 0 100 12">{cells}</svg>'
