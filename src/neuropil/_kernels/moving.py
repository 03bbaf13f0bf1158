"""Parts of an array put behind each other where they are, which takes no memory."""

from __future__ import annotations

from neuropil._kernels.uncounted import uncounted


@uncounted
def move(values, at, to, size):
    """Move values[at : at + size] down to `to`."""
    if at > to:
        for i in range(size):
            values[to + i] = values[at + i]
