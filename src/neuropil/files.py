"""Small files that are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """Return the folder for what can be made or fetched again: $XDG_CACHE_HOME/neuropil, else ~/.cache/neuropil."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "neuropil"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; what is there when the block ends takes the place of `path`, and nothing if it fails."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file; NaN and infinities, which JSON does not have, become null, and paths become text."""
    write_text(path, json.dumps(_without_nan(data), indent=1, default=str) + "\n")


def _without_nan(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _without_nan(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_without_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
