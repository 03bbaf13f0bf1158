"""One live view of all steps of a command: what waits, runs and is done, a line each, with a foot.

`Board` holds what is known, `render` turns it into lines and is a pure function; `LiveView` has rich draw them a few
times a second, and `PlainView` writes a line now and then where nobody can see a drawing.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.text import Text

from neuropil.progress import Steps, duration

EVERY = 20.0
"""Seconds between two plain lines."""
BAR = 20
"""Characters of a bar."""


@dataclass
class Step:
    """What is known of one step; times are of `time.monotonic`, and `left` is as of `told`."""

    name: str
    total: int | None = None
    done: int = 0
    note: str = ""
    began: float | None = None
    told: float = 0.0
    left: float = math.nan

    @property
    def state(self) -> str:
        """Waiting, running or done."""
        if self.began is None:
            return "waiting"
        return "done" if self.total is not None and self.done >= self.total else "running"


@dataclass
class Board:
    """Steps by name, in the order in which they are expected or came; and a text below them."""

    steps: dict[str, Step] = field(default_factory=dict)
    foot: str = ""
    began: float | None = None

    def expect(self, steps: Steps) -> None:
        """Put steps on the board that wait."""
        for name, total in steps:
            self.steps[name] = Step(name, total)

    def tell(self, name: str, done: int, total: int, note: str, left: float, now: float) -> None:
        """Note how far a step is."""
        step = self.steps.get(name)
        if step is None or (step.state == "done" and done < total):
            step = self.steps[name] = Step(name)
        step.began = now if step.began is None else step.began
        self.began = now if self.began is None else self.began
        step.done, step.total, step.told, step.left = done, total, now, left
        step.note = note or step.note


def render(board: Board, now: float, width: int = 100, height: int = 40, fancy: bool = True) -> list[str]:
    """Return the lines of a board, none longer than `width`, and no more than `height`.

    Where there is no room for all steps, those done are counted, and then the last of those that wait.

    >>> board = Board()
    >>> board.expect([("fragments", 4), ("faces", 4)])
    >>> board.tell("fragments", 1, 4, "2.0 Mvoxel/s, 210 MB", 30.0, now=100.0)
    >>> for line in render(board, now=110.0, fancy=False):
    ...     print(line)
    fragments  running  1/4  #####---------------  0m20s left  2.0 Mvoxel/s, 210 MB
    faces      waiting  0/4
    0m10s
    """
    steps = list(board.steps.values())
    names = max((len(step.name) for step in steps), default=0)
    counts = max((len(_count(step)) for step in steps), default=0)
    lines = [_line(step, now, names, counts, fancy) for step in steps]
    over = len(lines) + 1 - height
    if over > 0:
        lines = _shorter(lines, [step.state for step in steps], over)
    passed = "" if board.began is None else duration(now - board.began)
    lines.append(", ".join(filter(None, [passed, board.foot])))
    return [line[:width].rstrip() for line in lines if line]


def _line(step: Step, now: float, names: int, counts: int, fancy: bool) -> str:
    line = f"{step.name:{names}}  {step.state:7}  {_count(step):>{counts}}"
    if step.state == "waiting":
        return line
    if step.state == "done":
        return f"{line}  {'':{BAR}}  {duration(step.told - (step.began or step.told)):10}  {step.note}"
    full = BAR * step.done // max(1, step.total or 1)
    bar = ("━" if fancy else "#") * full + ("╌" if fancy else "-") * (BAR - full)
    left = f"{duration(max(0.0, step.left - (now - step.told)))} left" if math.isfinite(step.left) else ""
    return f"{line}  {bar}  {left:10}  {step.note}"


def _count(step: Step) -> str:
    return "" if step.total is None else f"{step.done}/{step.total}"


def _shorter(lines: list[str], states: Sequence[str], over: int) -> list[str]:
    """Put as many lines as must be into one: steps that are done, from the first on, then those that wait."""
    done = [i for i, state in enumerate(states) if state == "done"][: over + 1]
    gone = set(done) if len(done) > 1 else set()
    over -= max(0, len(gone) - 1)
    last = [i for i, state in enumerate(states) if state == "waiting"][-over - 1 :] if over > 0 else []
    kept = [line for i, line in enumerate(lines) if i not in gone and i not in last]
    before = [f"{len(gone)} steps are done"] if gone else []
    return [*before, *kept, *([f"{len(last)} more wait"] if last else [])]


class LiveView:
    """Draws on a terminal, over and over at the same place; log lines go above."""

    def __init__(self, console: Console) -> None:
        self._console, self._board = console, Board()
        self._live: Live | None = None

    def expect(self, steps: Steps) -> None:
        """Show steps that are to come."""
        self._board.expect(steps)
        self._show()

    def foot(self, text: str) -> None:
        """Show a text below the steps."""
        self._board.foot = text

    def __call__(self, name: str, done: int, total: int, note: str, left: float) -> None:
        """Show how far a step is."""
        self._board.tell(name, done, total, note, left, time.monotonic())
        self._show()

    def close(self) -> None:
        """Leave the last picture on the screen."""
        if self._live is not None:
            self._live.stop()

    def _show(self) -> None:
        if self._live is None:
            self._live = Live(get_renderable=self._picture, console=self._console, refresh_per_second=4)
            self._live.start()

    def _picture(self) -> Text:
        width, height = self._console.size
        fancy = self._console.encoding.lower().startswith("utf")
        lines = render(self._board, time.monotonic(), width - 1, max(3, height - 1), fancy)
        return Text("\n".join(lines), no_wrap=True, overflow="crop")


class PlainView:
    """Writes which steps there are before the first, then a line when one is done, and every `EVERY` seconds."""

    def __init__(self) -> None:
        self._last, self._expected = -math.inf, ""

    def expect(self, steps: Steps) -> None:
        """Say which steps are to come, once the first begins: what is refused before is told in one line."""
        known = [name if total is None else f"{name} ({total})" for name, total in steps]
        self._expected = f"{len(known)} steps: {', '.join(known)}\n"

    def foot(self, text: str) -> None:
        """Say nothing of it: lines have notes of their own."""

    def __call__(self, name: str, done: int, total: int, note: str, left: float) -> None:
        """Say how far a step is, if it is time."""
        if time.monotonic() - self._last < EVERY and done < total:
            return
        self._last = time.monotonic()
        print(self._expected, end="", file=sys.stderr)
        self._expected = ""
        rest = f", {duration(left)} left" if math.isfinite(left) and done < total else ""
        print(f"{name}: {done}/{total}{rest}{'  ' + note if note else ''}", file=sys.stderr, flush=True)
