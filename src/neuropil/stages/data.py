"""List the public data sets that neuropil knows and where they lie on disk, or fetch one.

Address, size, licence and citation are shown before anything is downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from neuropil.config import StageConfig
from neuropil.errors import ConfigError
from neuropil.stages import StageResult
from neuropil.volume import datasets

EXAMPLES = ["neuropil data list", "neuropil data get vnc", "neuropil data get vnc --yes"]
POSITIONAL = ("action", "name")


class Config(StageConfig):
    """Fields of [data]."""

    action: Literal["list", "get"] = Field("list", description="list what is known, or get one set")
    name: str | None = Field(None, description="the set to get; `neuropil data list` shows the names")
    folder: Path | None = Field(None, description="root to download to; the user's cache if omitted")
    yes: bool = Field(False, description="accept the licence and download")


def run(config: Config) -> StageResult:
    """List the sets, or get one; without `yes` its terms are shown and nothing is downloaded."""
    if config.action == "list":
        return _list()
    if config.name is None:
        raise ConfigError("name must say which set to get, for example: neuropil data get vnc")
    dataset = datasets.get_dataset(config.name)
    if config.folder is None and (found := datasets.find(config.name)) is not None:
        return StageResult(f"{config.name} is here already: {found}", _facts(dataset, found))
    if not config.yes:
        folder = "" if config.folder is None else f" --folder {config.folder}"
        shown = datasets.terms(dataset, ask_server=True)
        accept = f"neuropil data get {config.name}{folder} --yes"
        text = f"{shown}\n\nNothing was downloaded. To accept these terms and download it:\n  {accept}"
        return StageResult(text, {**_facts(dataset, None), "accept": accept})
    path = datasets.get(config.name, config.folder, accept=True)
    lines = [f"{config.name} is here: {path}", f"  holds     {dataset.layout}", f"  licence   {dataset.licence}"]
    lines.append(f"  cite      {dataset.citation}")
    if config.folder is not None and datasets.find(config.name) is None:
        lines.append(f"  neuropil finds it by itself with NEUROPIL_DATA={config.folder}")
    return StageResult("\n".join(lines), _facts(dataset, path))


def _list() -> StageResult:
    lines, facts = [], []
    for dataset in datasets.list_datasets():
        found = datasets.find(dataset.name)
        size = "×".join(f"{length:g}" for length in dataset.voxel_size_nm)
        lines.append(f"{dataset.name:15} {dataset.tissue}, {size} nm; {dataset.licence}")
        lines.append(f"{'':15} {found if found is not None else f'not here: neuropil data get {dataset.name}'}")
        facts.append(_facts(dataset, found))
    return StageResult("\n".join(lines), {"datasets": facts})


def _facts(dataset: datasets.Dataset, path: Path | None) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "tissue": dataset.tissue,
        "voxel_size_nm": list(dataset.voxel_size_nm),
        "licence": dataset.licence,
        "citation": dataset.citation,
        "layout": dataset.layout,
        "urls": [file.url for file in dataset.files],
        "path": None if path is None else str(path),
    }
