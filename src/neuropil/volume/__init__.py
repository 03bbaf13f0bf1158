"""Volumes on disk and in buckets: one protocol over HDF5, TIFF, folders of sections, zarr, n5 and precomputed.

Names are loaded on first use, so `import neuropil.volume` stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuropil.volume.base import Entry
    from neuropil.volume.metadata import Metadata
    from neuropil.volume.volume import Volume, create_volume, exists, list_arrays, open_volume

_HOME = {
    "Entry": "base",
    "Metadata": "metadata",
    "Volume": "volume",
    "create_volume": "volume",
    "exists": "volume",
    "list_arrays": "volume",
    "open_volume": "volume",
}
__all__ = ["Entry", "Metadata", "Volume", "create_volume", "exists", "list_arrays", "open_volume"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"neuropil.volume.{_HOME[name]}"), name)
    raise AttributeError(f"module 'neuropil.volume' has no attribute '{name}'")
