"""Which data a piece of work reads: noted where they are read, so that what is told is what was done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

Spans = dict[str, list[tuple[int, int]]]
_noted: ContextVar[Spans | None] = ContextVar("noted", default=None)


@contextmanager
def noting() -> Iterator[Spans]:
    """Collect what this thread reads meanwhile: for each source the least box that holds all that was read.

    >>> with noting() as seen:
    ...     note("a.zarr", (0, 0, 4), (1, 2, 8))
    ...     note("a.zarr", (1, 0, 0), (2, 2, 4))
    >>> told(seen)
    {'a.zarr': '0:2,0:2,0:8'}
    """
    seen: Spans = {}
    token = _noted.set(seen)
    try:
        yield seen
    finally:
        _noted.reset(token)


def note(source: str, start: Sequence[int], stop: Sequence[int]) -> None:
    """Say that a box of a source is read."""
    seen = _noted.get()
    if seen is not None:
        before = seen.get(source) or list(zip(start, stop))
        seen[source] = [(min(a, c), max(b, d)) for (a, b), c, d in zip(before, start, stop)]


def told(seen: Spans) -> dict[str, str]:
    """Write boxes as the command line does."""
    return {source: ",".join(f"{a}:{b}" for a, b in spans) for source, spans in seen.items()}
