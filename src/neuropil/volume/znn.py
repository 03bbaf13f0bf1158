"""Networks that ZNN saved: an HDF5 file with one group for each of ZNN's groups of nodes and of edges.

A group's datasets are its fields: texts (type, input, output, function), sizes, the `filters` (in, out, z, y, x) of a
convolution, the `biases` of a node. The groups lie at the root, or deeper where the learning curve is in the same
file. What the fields mean is in `networks/znn.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuropil.errors import InputError, VolumeError, VolumeNotFound

PLACES = ("processing/znn/train/network", "/")
ARRAYS = ("filters", "biases", "size", "stride")
ITERATIONS = "processing/znn/train/statistics/train/it"


@dataclass(frozen=True)
class SavedNetwork:
    """What the file holds.

    Attributes
    ----------
    groups : name → field → array (`filters`, `biases`, `size`, `stride`) or text; among them `name`, and
        `group_type`, "node" or "edge"
    updates : of its training, where the file holds the learning curve
    """

    groups: dict[str, dict[str, Any]]
    updates: int | None


def read_network(path: Path) -> SavedNetwork:
    """Read a network that ZNN saved.

    Raises
    ------
    VolumeNotFound : no such file
    VolumeError : not HDF5, or damaged
    InputError : HDF5 of another program
    """
    if not path.exists():
        raise VolumeNotFound(f"{path} does not exist")
    if path.is_dir() or not h5py.is_hdf5(path):
        raise VolumeError(f"{path} is not an HDF5 file")
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            places = [file[name] for name in PLACES if isinstance(file.get(name), h5py.Group)]
            found = [(_text(name), group) for name, group in places[0].items() if _is_part(group)]
            groups = {name: {**_fields(group), "name": name} for name, group in found}
            iterations = file.get(ITERATIONS)
            updates = int(np.max(iterations[()], initial=0)) if isinstance(iterations, h5py.Dataset) else None
    except (OSError, RuntimeError, LookupError, TypeError, ValueError) as error:  # h5py raises all of them
        raise VolumeError(f"{path} is truncated or damaged: {str(error)[:200]}") from error
    if not groups:
        raise InputError(f"{path} holds no network of ZNN: no groups with a 'group_type', at its root or {PLACES[0]}")
    return SavedNetwork(groups, updates)


def _is_part(item: Any) -> bool:
    return isinstance(item, h5py.Group) and isinstance(item.get("group_type"), h5py.Dataset)


def _fields(group: Any) -> dict[str, Any]:
    """Return a group's datasets but the momenta of its weights."""
    values = {key: item[()] for key, item in group.items() if isinstance(item, h5py.Dataset) and key != "momentum_vol"}
    return {key: value if key in ARRAYS and np.ndim(value) else _text(value) for key, value in values.items()}


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
