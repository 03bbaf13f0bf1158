"""Progress with an estimated time of arrival, quiet where nobody looks.

Code that takes long wraps its loop in `track`, and says with `expect` what else is to come; the command line decides
with `show` whether steps are drawn (a terminal), a line is logged now and then (a log file) or nothing happens (the
library's default).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")
Reporter = Callable[[str, int, int, str, float], None]
Steps = Sequence[tuple[str, int | None]]
"""Names of steps with the number of blocks, where that is known."""


@runtime_checkable
class View(Protocol):
    """A reporter that shows all steps at once."""

    def expect(self, steps: Steps) -> None: ...
    def foot(self, text: str) -> None: ...


_reporter: Reporter | None = None


@contextmanager
def show(reporter: Reporter) -> Iterator[None]:
    """Send progress to `reporter(description, done, total, note, seconds)` inside the `with` block."""
    global _reporter
    before, _reporter = _reporter, reporter
    try:
        yield
    finally:
        _reporter = before


class Progress:
    """One running count; `advance` it, with a note such as the loss."""

    def __init__(self, description: str, total: int, done: int = 0) -> None:
        self.description, self.total, self.done, self._start = description, total, done, done
        self._clock = time.monotonic()
        self._tell("")

    def advance(self, by: int = 1, note: str = "") -> None:
        """Count `by` more as done."""
        self.done += by
        self._tell(note)

    @property
    def rate(self) -> float:
        """Items per second since the start; 0 before the first."""
        return (self.done - self._start) / max(time.monotonic() - self._clock, 1e-9)

    @property
    def eta(self) -> float:
        """Seconds that remain at the present rate."""
        return (self.total - self.done) / self.rate if self.rate > 0 else float("nan")

    def _tell(self, note: str) -> None:
        if _reporter is not None:
            _reporter(self.description, self.done, self.total, note, self.eta)


def expect(steps: Steps) -> None:
    """Say which steps are to come, in their order."""
    if isinstance(_reporter, View):
        _reporter.expect(steps)


def foot(text: Callable[[], str]) -> None:
    """Have a text shown below all steps, if somebody looks."""
    if isinstance(_reporter, View):
        _reporter.foot(text())


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Yield `items` and report progress after each.

    >>> sum(track([1, 2, 3], "adding", 3))
    6
    """
    progress = Progress(description, total)
    for item in items:
        yield item
        progress.advance()


def duration(seconds: float) -> str:
    """Write seconds as people say them.

    >>> duration(125), duration(2 * 3600 + 60)
    ('2m05s', '2h01m')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"
