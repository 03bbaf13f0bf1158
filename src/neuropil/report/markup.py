"""Small pieces of HTML: escaped text, tables, lists of facts, configurations written as TOML."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any


def text(value: object) -> str:
    """Return `value` as escaped text; None is a dash.

    >>> text("<b>"), text(None)
    ('&lt;b&gt;', '–')
    """
    return "–" if value is None else escape(str(value))


def score(value: float | None, digits: int = 3) -> str:
    """Write a fraction; a dash if there is none.

    >>> score(0.95), score(None)
    ('0.950', '–')
    """
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """Write a fraction as per cent.

    >>> percent(0.0876)
    '8.76 %'
    """
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.2f} %"


def count(value: float) -> str:
    """Write a whole number with its thousands apart (by thin no-break spaces).

    >>> count(90000).split()
    ['90', '000']
    """
    return f"{value:,.0f}".replace(",", "\u202f")


def duration(seconds: float) -> str:
    """Write seconds for people.

    >>> duration(3.21), duration(75), duration(7265)
    ('3.2 s', '1 min 15 s', '2 h 01 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Return a table of cells that are HTML already; the first cell of a row is its heading.

    The first `words` columns hold words and are aligned left, the others hold numbers.
    """
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table class="words{words}"><caption>{caption}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def strong_best(cells: Sequence[str], values: Sequence[float | None], *, high: bool) -> list[str]:
    """Return the cells with those of the best value in bold; nothing stands out where fewer than two compete.

    >>> strong_best(["1", "2"], [1, 2], high=True)
    ['1', '<strong>2</strong>']
    """
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return list(cells)
    best = max(known) if high else min(known)
    return [f"<strong>{cell}</strong>" if value == best else cell for cell, value in zip(cells, values)]


def facts(pairs: Mapping[str, Any]) -> str:
    """Return a list of names and values; nested values are written as compact JSON."""
    items = "".join(f"<dt>{text(key)}</dt><dd>{text(plain(value))}</dd>" for key, value in pairs.items())
    return f'<dl class="facts">{items}</dl>' if items else ""


def missing(sentence: str, command: str = "") -> str:
    """Return the line that stands for an absent part: what is not there, and the command that makes it.

    >>> missing("No pictures.", "neuropil evaluate run.toml")
    '<p class="missing">No pictures. Get it with <code>neuropil evaluate run.toml</code>.</p>'
    """
    how = f" Get it with <code>{text(command)}</code>." if command else ""
    return f'<p class="missing">{text(sentence)}{how}</p>'


def details(title: str, content: str) -> str:
    """Return a part that opens on a click (and is open in print)."""
    return f"<details><summary>{text(title)}</summary>{content}</details>"


def plain(value: Any) -> str:
    """Write a value of a configuration: text as it is, the rest as JSON.

    >>> plain("a"), plain([1, 2]), plain(None)
    ('a', '[1, 2]', 'none')
    """
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def toml(content: Mapping[str, Any], table_name: str = "") -> str:
    """Write a configuration as TOML, ready to be copied into a file; a value that is not set becomes a comment.

    >>> print(toml({"seed": 1, "train": {"patch": [1, 150, 150], "resume": None}}))
    seed = 1
    <BLANKLINE>
    [train]
    patch = [1, 150, 150]
    # resume is not set
    """
    lines, below = [], []
    for key, value in content.items():
        name = f"{table_name}.{_key(key)}" if table_name else _key(key)
        if isinstance(value, Mapping):
            below.append(f"[{name}]\n{toml(value, name)}".rstrip("\n"))
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            below += [f"[[{name}]]\n{toml(one, name)}".rstrip("\n") for one in value]
        elif value is None:
            lines.append(f"# {_key(key)} is not set")
        else:
            lines.append(f"{_key(key)} = {_value(value)}")
    return "\n\n".join([*(["\n".join(lines)] if lines else []), *below])


def _key(key: object) -> str:
    name = str(key)
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(one) for one in value)}]"
    return json.dumps(value, ensure_ascii=False, default=str)
