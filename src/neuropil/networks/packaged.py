"""Models that come with neuropil, by name, and what the card of a model says.

A packaged model lies in the package's folder `models` as NAME.safetensors, with its card in the header as in any model
file. Wherever a weights file is asked for, its name will do.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from neuropil.errors import InputError, VolumeError, VolumeNotFound
from neuropil.networks.architecture import Architecture
from neuropil.networks.unet_architecture import FAMILY, UNetArchitecture

FOLDER = Path(str(files("neuropil").joinpath("models")))


def packaged_models() -> dict[str, Path]:
    """Return the file of each packaged model, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.safetensors"))}


def weights_path(name: str | Path) -> Path:
    """Return the weights file that a path, or the name of a packaged model, means; a file comes before a name.

    Raises
    ------
    InputError : a bare word, without folder and suffix, that is neither

    >>> weights_path("runs/vnc/model.safetensors").as_posix()
    'runs/vnc/model.safetensors'
    """
    path, known = Path(name), packaged_models()
    if path.is_file() or path.suffix or path.name != str(name):
        return path
    if path.name not in known:
        match = difflib.get_close_matches(path.name, known, n=1, cutoff=0.5)
        hint = f"did you mean '{match[0]}'? " if match else ""
        names = ", ".join(known) or "none here"
        raise InputError(f"'{name}' is neither a weights file nor a packaged model; {hint}packaged are {names}")
    return known[path.name]


def read_card(path: Path) -> dict[str, Any]:
    """Return the card in the header of a weights file, without reading the weights.

    Raises
    ------
    VolumeNotFound : no such file
    VolumeError : not a safetensors file, or truncated
    """
    if not path.is_file():
        raise VolumeNotFound(f"weights file {path} does not exist")
    try:
        with safe_open(path, "np") as file:
            card: dict[str, Any] = json.loads((file.metadata() or {}).get("card", "{}"))
            return card
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise VolumeError(f"{path} is not a readable safetensors file: {error}") from None


def architecture_of(description: Mapping[str, Any]) -> Architecture | UNetArchitecture:
    """Return the architecture that one of a card's `networks` describes."""
    if description.get("family") == FAMILY:
        return UNetArchitecture.from_dict(description)
    return Architecture.from_dict(dict(description))


def voxel_sizes(card: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    """Return the voxel sizes (z, y, x; nm) of the data that a model was trained on, as far as its card has them.

    >>> voxel_sizes({"voxel_size": [50, 4, 4]})
    [(50.0, 4.0, 4.0)]
    """
    found = card.get("voxel_sizes") or [card.get("voxel_size")]
    return [(float(z), float(y), float(x)) for z, y, x in filter(None, found)]
