"""List the packaged models, or print the card of one: what it was trained on, licence, citation, scores.

A packaged model's name stands for its file wherever weights are asked for; this command reads the card of any other
weights file too.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from pydantic import Field

from neuropil.config import StageConfig
from neuropil.errors import InputError
from neuropil.networks.packaged import architecture_of, packaged_models, read_card, voxel_sizes, weights_path
from neuropil.networks.unet_architecture import UNetArchitecture
from neuropil.stages import StageResult

EXAMPLES = ["neuropil models", "neuropil models vd2d3d-sstem", "neuropil models runs/vnc/model.safetensors"]
POSITIONAL = ("name",)

FIRST = ("citation", "notes", "initialised_from", "data", "training", "scores")
"""Entries of a card that are printed first, in this order."""
TOLD = ("networks", "voxel_size", "voxel_sizes", "tissues", "licence", "format", "parts")
"""Entries that are printed as facts, or are for programs (`parts`: the card of each network as it was trained)."""


class Config(StageConfig):
    """Fields of [models]."""

    name: str | None = Field(None, description="a packaged model, or a weights file; the list of models if omitted")


def run(config: Config) -> StageResult:
    """List the packaged models, or tell about one model."""
    if config.name is not None:
        return _one(config.name)
    models = [_facts(name, path, read_card(path)) for name, path in packaged_models().items()]
    lines = [line for facts in models for line in [*_text(facts), ""]]
    hint = "`neuropil models NAME` prints a model's card; `neuropil predict --weights NAME` runs it."
    return StageResult("\n".join([*lines, hint]), {"models": models})


def _one(name: str) -> StageResult:
    path = weights_path(name)
    card = read_card(path)
    if "networks" not in card:
        raise InputError(f"{path} holds weights of another program or architecture: it has no neuropil model card")
    facts = _facts(name, path, card)
    rest = [*(key for key in FIRST if key in card), *(key for key in card if key not in (*FIRST, *TOLD))]
    lines = [line for key in rest for line in _entry(key, card[key])]
    return StageResult("\n".join([*_text(facts), "", *lines]), {**facts, "card": card})


def _facts(name: str, path: Path, card: dict[str, Any]) -> dict[str, Any]:
    networks = [architecture_of(one) for one in card["networks"]]
    return {
        "name": name,
        "path": str(path),
        "networks": [
            {"name": one.name, "field_of_view": one.field_of_view, "parameters": one.parameter_count}
            | ({"offsets": one.offsets} if isinstance(one, UNetArchitecture) else {})
            for one in networks
        ],
        "voxel_sizes": voxel_sizes(card),
        "tissues": card.get("tissues"),
        "licence": card.get("licence"),
    }


def _text(facts: dict[str, Any]) -> list[str]:
    """Return a model's entry of the list."""
    networks = [
        f"{one['name']}: field of view {_times(one['field_of_view'])}, {one['parameters']:,} parameters"
        + (f", affinities of {len(one['offsets'])} offsets" if "offsets" in one else "")
        for one in facts["networks"]
    ]
    sizes = [f"{_times(size)} nm" for size in facts["voxel_sizes"]]
    rows = {"networks": "; ".join(networks), "trained at": ", ".join(sizes) or "unknown voxel size (z, y, x)"}
    rows |= {key: _plain(facts[key]) for key in ("tissues", "licence") if facts[key]}
    return [facts["name"], *(line for key, text in rows.items() for line in _row(key, text))]


def _entry(key: str, value: Any, indent: str = "  ") -> list[str]:
    """Return an entry of a card as indented lines: nested entries go further in, empty ones are left out."""
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        value = {str(one.get("name", n)): {**one, "name": None} for n, one in enumerate(value, 1)}
    if isinstance(value, dict):
        inner = [line for name, one in value.items() for line in _entry(str(name), one, indent + "  ")]
        return [f"{indent}{key}", *inner] if inner else []
    return [] if value in (None, "", []) else _row(key, _plain(value), indent)


def _row(key: str, text: str, indent: str = "  ") -> list[str]:
    head = f"{indent}{key:<11} "
    rest = " " * len(head)
    return textwrap.wrap(text, 100, initial_indent=head, subsequent_indent=rest, break_on_hyphens=False)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ("; " if any(isinstance(one, str) for one in value) else ", ").join(map(_plain, value))
    return str(value)


def _times(lengths: Any) -> str:
    return "×".join(f"{length:g}" for length in lengths)
