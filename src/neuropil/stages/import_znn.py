"""neuropil import-znn NET.h5 MODEL.safetensors: take over a network that ZNN trained, for predict and fine-tuning.

ZNN's saved networks hold layers and weights. A description without weights (NET.znn) is printed as a table for
`neuropil train`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from neuropil.config import Name, StageConfig, TripleNm
from neuropil.errors import InputError, OutputExists
from neuropil.stages import StageResult
from neuropil.stages.common import fingerprint
from neuropil.volume.znn import read_network

if TYPE_CHECKING:
    from neuropil.networks.architecture import Architecture

EXAMPLES = [
    "neuropil import-znn net_current.h5 n4.safetensors --voxel-size 40,7,7",
    "neuropil import-znn net_current.h5 n4.safetensors --spec N4.znn --name n4",
    "neuropil import-znn N4.znn",
]
POSITIONAL = ("input", "output")


class Config(StageConfig):
    """Fields of [import-znn]."""

    input: Path = Field(description="network that ZNN saved (HDF5), or the description of one (.znn)")
    output: Path | None = Field(None, description="model file (safetensors) to write; none for a description")
    spec: Path | None = Field(None, description="description (.znn) of its layers; by default what the network says")
    name: Name | None = Field(None, description="of the network; by default that of the input file")
    voxel_size: TripleNm | None = Field(None, description="z,y,x in nm that it was trained at, for the model's card")
    notes: str = Field("", description="for the card: data it was trained on, licence")
    overwrite: bool = Field(False, description="replace a model that is there")


def run(config: Config) -> StageResult:
    """Write the network with its weights as a model, or print the layers of a description."""
    described = config.input.suffix == ".znn"
    _check(config, described)
    return _describe(config) if described else _import(config)


def _check(config: Config, described: bool) -> None:
    if described and (config.output or config.spec):
        raise InputError(
            f"{config.input} describes a network without weights; give the network that ZNN saved (HDF5) as input and"
            " this as --spec, or no output to see its layers"
        )
    if described:
        return
    if config.output is None or config.output.suffix != ".safetensors":
        raise InputError(f"output must be a file whose name ends in .safetensors; got {config.output or 'none'}")
    if config.voxel_size is not None and min(config.voxel_size) <= 0:
        raise InputError(f"voxel_size must be positive; got {config.voxel_size}")
    for path in (config.output, config.output.with_suffix(".json")):
        if path.exists() and not config.overwrite:
            raise OutputExists(f"output {path} exists; give --overwrite to replace it")


def _describe(config: Config) -> StageResult:
    from neuropil.networks.znn import architecture_of, parse_description

    with _about(config.input):
        architecture = architecture_of(parse_description(_text(config.input)), config.name or config.input.stem)
    lines = ["[[train.networks]]", f"name = {json.dumps(architecture.name)}", "architecture = ["]
    lines += [f"    {json.dumps(line)}," for line in architecture.lines]
    return StageResult("\n".join([f"# {_size(architecture)}", *lines, "]"]), _data(architecture))


def _import(config: Config) -> StageResult:
    from neuropil.networks.checkpoint import Model, save_model
    from neuropil.networks.znn import architecture_of, network_of, parse_description

    saved, name = read_network(config.input), config.name or config.input.stem
    with _about(config.spec or config.input):
        groups = saved.groups if config.spec is None else parse_description(_text(config.spec))
        architecture_of(groups, name)
    with _about(config.input):
        network = network_of(groups, saved.groups, name)
    card = {
        "source": {"program": "ZNN", "file": config.input.name, "sha256": fingerprint(config.input)},
        "updates": saved.updates,
        "voxel_size": config.voxel_size,
        "notes": config.notes,
    }
    assert config.output is not None
    save_model(config.output, Model((network,), card))
    trained = "" if saved.updates is None else f", {saved.updates:,} updates"
    text = f"wrote {config.output}: {network.architecture.name}, {_size(network.architecture)}{trained}"
    return StageResult(text, {"output": str(config.output), **card, **_data(network.architecture)})


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Name the file that an error is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _size(architecture: Architecture) -> str:
    view = "x".join(map(str, architecture.field_of_view))
    return f"{architecture.parameter_count:,} parameters, field of view {view}"


def _data(architecture: Architecture) -> dict[str, Any]:
    return {
        "architecture": architecture.to_dict(),
        "parameters": architecture.parameter_count,
        "field_of_view": architecture.field_of_view,
    }
