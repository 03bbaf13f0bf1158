"""A chart as a file of its own, for pages that show pictures: the same lines as in a report, legend inside.

Colours are written out, on a white ground: many programs that draw SVG know no variables of style sheets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from neuropil.report.charts import DASHES, HEIGHT, WIDTH, Axes, Series, line_chart, style_of
from neuropil.report.style import CSS

_ROW, _MARGIN, _COLUMNS = 20, 12, 3


def svg_file(title: str, series: Sequence[Series], axes: Axes) -> str:
    """Return a line chart as an SVG document, with title, axes and legend.

    Parameters
    ----------
    title
        Above the chart.
    series, axes
        As for `neuropil.report.charts.line_chart`.

    Examples
    --------
    >>> chart = svg_file("t", [Series("a", (0, 1), (0, 1))], Axes("x", "y", (0, 1), (0, 1)))
    >>> chart.startswith("<svg xmlns"), ">a</text>" in chart
    (True, True)
    """
    found = re.search(r'<svg viewBox="[^"]*"[^>]*>(.*)</svg><div class="legend">', line_chart(title, series, axes))
    assert found is not None
    top = 24
    height = top + HEIGHT + _ROW * -(-len(series) // _COLUMNS) + _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
        f'<style>{_style()}</style><rect width="{WIDTH}" height="{height}" fill="#fff"/>'
        f'<text class="name" x="{_MARGIN}" y="17" font-weight="600">{escape(title)}</text>'
        f'<g transform="translate(0 {top})">{found.group(1)}</g>'
        f"{''.join(_entry(one, k, top + HEIGHT) for k, one in enumerate(series))}</svg>\n"
    )


def _style() -> str:
    """Return the report's rules about charts, the colours of its light page in place of variables."""
    colours = dict(re.findall(r"--([a-z0-9]+):(#[0-9a-f]+)", CSS.split("@media")[0]))
    rules = [rule for rule in re.findall(r"^svg [^{}]*{[^{}]*}", CSS, re.M) if "var(--c)" not in rule]
    lines = [f".line.k{k}{{stroke:{colours[f'c{k}']}}}" for k in range(len(DASHES))]
    plain = re.sub(r"var\(--([a-z0-9]+)\)", lambda found: colours[found[1]], "\n".join(rules))
    return f"{plain}\nsvg .line{{fill:none;stroke-width:2.1;stroke-linejoin:round}}\n" + "".join(lines)


def _entry(one: Series, k: int, top: int) -> str:
    x = _MARGIN + 40 + (k % _COLUMNS) * ((WIDTH - 40) // _COLUMNS)
    y = top + _ROW * (k // _COLUMNS) + _ROW // 2
    style = style_of(one.style)
    return (
        f'<path class="line k{style}" stroke-dasharray="{DASHES[style]}" d="M{x} {y}h30"/>'
        f'<text x="{x + 38}" y="{y}" dy=".35em">{escape(one.name)}</text>'
    )
