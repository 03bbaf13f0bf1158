"""Charts as inline SVG: lines over one pair of axes, and grouped bars.

SVG is written directly rather than by a plotting library: text stays text, colours follow the page's light, dark or
print theme through CSS variables, each point can say its values when pointed at, and a report needs no display or font
cache. Series differ by colour (Okabe–Ito), dash pattern and marker, so they survive grey printing and colour blindness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 340
LEFT, RIGHT, TOP, BOTTOM = 62, 26, 12, 50
DASHES = ("2 3", "", "7 3", "2 2", "9 3 2 3", "12 4", "4 2 1 2")
MARKERS = (
    "M0-5.5V5.5M-5.5 0H5.5",  # a cross for the baseline, then filled shapes
    "M0-5A5 5 0 1 0 .01-5Z",
    "M-4.5-4.5h9v9h-9Z",
    "M0-6L5.6 4.4H-5.6Z",
    "M0-6.2L6.2 0 0 6.2-6.2 0Z",
    "M0 6L5.6-4.4H-5.6Z",
    "M-5.5-2h3.5v-3.5h4v3.5h3.5v4h-3.5v3.5h-4v-3.5h-3.5Z",
)
STYLES = len(DASHES)
TIPS = 80  # most points of a line that say their values
Range = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line: points in data units; values that are not finite break it.

    Attributes
    ----------
    style : int
        0 is the grey dotted style of a baseline; 1 … 6 are the coloured ones, repeated beyond.
    tips : tuple of str
        Per point the text shown when it is pointed at; none if empty.
    mark : (x, y) or None
        The point to emphasise, usually the best.
    band : (low, high) or None
        Two sequences between which the background is tinted.
    note : str
        Text after the name in the legend.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    style: int = 1
    tips: tuple[str, ...] = ()
    mark: tuple[float, float] | None = None
    band: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    note: str = ""


@dataclass(frozen=True)
class Axes:
    """Labels and limits of a chart; `percent` shows y values as per cent."""

    x_label: str
    y_label: str
    x_range: Range
    y_range: Range
    percent: bool = False


@dataclass(frozen=True)
class Bar:
    """One bar from 0 to `value` in [0, 1], with an optional (low, high) whisker."""

    value: float
    whisker: Range | None = None


def line_chart(title: str, series: Sequence[Series], axes: Axes, guides: Sequence[Series] = ()) -> str:
    """Return a `<figure>` with the chart and its legend; `guides` are thin grey lines labelled at their end.

    Examples
    --------
    >>> chart = line_chart("t", [Series("a", (0, 1), (0, 1))], Axes("x", "y", (0, 1), (0, 1)))
    >>> chart.startswith("<figure"), chart.count("<polyline")
    (True, 1)
    """
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    parts = [_frame(axes)]
    # An inner <svg> clips what runs out of the axes, without ids that could clash on the page.
    parts.append(f'<svg x="{LEFT}" y="{TOP}" width="{inner_width}" height="{inner_height}">')
    parts += [_guide(one, axes) for one in guides]
    parts += [_band(one, axes) for one in series if one.band is not None]
    parts += [_line(one, axes) for one in series]
    parts.append("</svg>")
    parts += [_mark(one, axes) for one in series if one.mark is not None]
    legend = "".join(_legend(one) for one in series)
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
        f'<div class="legend">{legend}</div></figure>'
    )


def bar_chart(title: str, names: Sequence[str], series: Sequence[tuple[str, Sequence[Bar | None]]]) -> str:
    """Return a `<figure>` of horizontal bars in [0, 1]: one group per name, in it one bar per series (None: no bar).

    The first series is solid, the second hatched, the third solid again.

    >>> bar_chart("t", ["model"], [("components", [Bar(0.9)]), ("watershed", [None])]).count("0.9000")
    1
    """
    left, thick, gap = 190, 20, 18
    rows = [[(s, bars[g]) for s, (_, bars) in enumerate(series) if bars[g] is not None] for g in range(len(names))]
    height = sum(len(row) * (thick + 3) + gap for row in rows) + 30
    scale = (WIDTH + 260 - left - 60) * 1.0
    parts, y = [_hatch()], float(gap) / 2
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1.0):
        x = left + tick * scale
        parts.append(f'<path class="grid" d="M{x:.1f} 0V{height - 28}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 10}" text-anchor="middle">{tick:g}</text>')
    for name, row in zip(names, rows):
        middle = y + len(row) * (thick + 3) / 2 - 1
        parts.append(
            f'<text class="name" x="{left - 10}" y="{middle:.1f}" dy=".35em" text-anchor="end">{escape(name)}</text>'
        )
        for s, bar in row:
            if bar is not None:
                parts.append(_bar(bar, s, (left, y), scale, thick))
            y += thick + 3
        y += gap
    legend = "".join(
        f'<span><svg class="key" viewBox="0 0 26 12"><rect class="bar b{s % 3}" y="1" width="26" height="10"/></svg>'
        f"{escape(name)}</span>"
        for s, (name, _) in enumerate(series)
    )
    return (
        f'<figure class="chart wide"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH + 260} {height}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
        f'<div class="legend">{legend}</div></figure>'
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round values in [low, high], about `count` of them.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _x(value: float, axes: Axes) -> float:
    low, high = axes.x_range
    return (value - low) / max(high - low, 1e-12) * (WIDTH - LEFT - RIGHT)


def _y(value: float, axes: Axes) -> float:
    low, high = axes.y_range
    return (1 - (value - low) / max(high - low, 1e-12)) * (HEIGHT - TOP - BOTTOM)


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\u202f") if abs(value) >= 1000 else f"{value:g}"


def _frame(axes: Axes) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick in ticks(*axes.x_range, count=6):
        x = LEFT + _x(tick, axes)
        parts.append(f'<path class="grid" d="M{x:.1f} {TOP}V{bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{_number(tick)}</text>')
    for tick in ticks(*axes.y_range):
        y = TOP + _y(tick, axes)
        text = f"{100 * tick:g} %" if axes.percent else _number(tick)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{y:.1f}" dy=".35em" text-anchor="end">{text}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    middle_x, middle_y = (LEFT + right) / 2, (TOP + bottom) / 2
    parts.append(
        f'<text class="label" x="{middle_x}" y="{HEIGHT - 10}" text-anchor="middle">{escape(axes.x_label)}</text>'
    )
    parts.append(
        f'<text class="label" transform="translate(14 {middle_y}) rotate(-90)" text-anchor="middle">'
        f"{escape(axes.y_label)}</text>"
    )
    return "".join(parts)


def _runs(one: Series, y: Sequence[float], axes: Axes) -> list[str]:
    """Return the points as "x,y x,y ..." strings, one per stretch of finite values."""
    runs: list[list[str]] = [[]]
    for px, py in zip(one.x, y):
        if math.isfinite(px) and math.isfinite(py):
            runs[-1].append(f"{_x(px, axes):.1f},{_y(py, axes):.1f}")
        elif runs[-1]:
            runs.append([])
    return [" ".join(run) for run in runs if run]


def style_of(style: int) -> int:
    """Return which of the styles a number means: 0 is the baseline, the coloured ones repeat."""
    return 0 if style == 0 else (style - 1) % (STYLES - 1) + 1


def _line(one: Series, axes: Axes) -> str:
    style = style_of(one.style)
    lines = "".join(
        f'<polyline class="line k{style}" stroke-dasharray="{DASHES[style]}" points="{run}"/>'
        for run in _runs(one, one.y, axes)
    )
    step = -(-max(len(one.tips), 1) // TIPS)
    hover = "".join(
        f'<circle class="hover k{style}" cx="{_x(px, axes):.1f}" cy="{_y(py, axes):.1f}" r="5">'
        f"<title>{escape(f'{one.name}: {tip}')}</title></circle>"
        for px, py, tip in list(zip(one.x, one.y, one.tips))[::step]
        if math.isfinite(px) and math.isfinite(py)
    )
    return lines + hover


def _guide(one: Series, axes: Axes) -> str:
    points = [(_x(px, axes), _y(py, axes)) for px, py in zip(one.x, one.y)]
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    inside = [(px, py) for px, py in points if px <= width - 3 and 14 <= py <= height - 2]
    lines = "".join(f'<polyline class="guide" points="{run}"/>' for run in _runs(one, one.y, axes))
    if not inside:
        return lines
    x, y = inside[-1]
    return lines + f'<text class="guide" x="{x:.1f}" y="{y - 4:.1f}" text-anchor="end">{escape(one.name)}</text>'


def _band(one: Series, axes: Axes) -> str:
    low, high = one.band or ((), ())
    points = [
        f"{_x(px, axes):.1f},{_y(py, axes):.1f}"
        for xs, ys in ((one.x, low), (one.x[::-1], high[::-1]))
        for px, py in zip(xs, ys)
        if math.isfinite(px) and math.isfinite(py)
    ]
    return f'<polygon class="band k{style_of(one.style)}" points="{" ".join(points)}"/>'


def _mark(one: Series, axes: Axes) -> str:
    x, y = one.mark or (0.0, 0.0)
    if not (axes.x_range[0] <= x <= axes.x_range[1] and axes.y_range[0] <= y <= axes.y_range[1]):
        return ""
    style = style_of(one.style)
    return (
        f'<path class="mark k{style}" transform="translate({LEFT + _x(x, axes):.1f} {TOP + _y(y, axes):.1f})" '
        f'd="{MARKERS[style]}"><title>{escape(f"{one.name} {one.note}".strip())}</title></path>'
    )


def _legend(one: Series) -> str:
    style = style_of(one.style)
    mark = f'<path class="mark k{style}" transform="translate(17 7)" d="{MARKERS[style]}"/>' if one.mark else ""
    note = f' <span class="note">{escape(one.note)}</span>' if one.note else ""
    return (
        f'<span><svg class="key" viewBox="0 0 34 14"><path class="line k{style}" '
        f'stroke-dasharray="{DASHES[style]}" d="M1 7H33"/>{mark}</svg>{escape(one.name)}{note}</span>'
    )


def _hatch() -> str:
    return (
        '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect class="hatch-ground" width="6" height="6"/><rect class="hatch-line" width="2.4" height="6"/>'
        "</pattern></defs>"
    )


def _bar(bar: Bar, series: int, corner: tuple[float, float], scale: float, thick: float) -> str:
    left, y = corner
    end, middle = left + min(max(bar.value, 0.0), 1.0) * scale, y + thick / 2
    parts = f'<rect class="bar b{series % 3}" x="{left}" y="{y:.1f}" width="{end - left:.1f}" height="{thick}"/>'
    right = end
    if bar.whisker is not None:
        low, high = (left + min(max(value, 0.0), 1.0) * scale for value in bar.whisker)
        right = max(end, high)
        parts += (
            f'<path class="whisker" d="M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {middle - 4:.1f}v8'
            f'M{high:.1f} {middle - 4:.1f}v8"/>'
        )
    return parts + f'<text class="value" x="{right + 7:.1f}" y="{middle:.1f}" dy=".35em">{bar.value:.4f}</text>'
