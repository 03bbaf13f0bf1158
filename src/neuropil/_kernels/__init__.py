"""Numba loops, one file per algorithm: no checks, no keyword arguments."""

from __future__ import annotations

from numba.core.registry import cpu_target


def load_numba() -> None:
    """Load what numba loads with the first kernel of a process. Nothing is compiled."""
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()
