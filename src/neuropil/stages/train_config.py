"""Fields of [train], and the checks of what they say of each other, which need no data.

A run trains networks in turn; each may take maps or first layers from, or go on with, one before it.
"""

from __future__ import annotations

import logging
import sys
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from neuropil.config import Name, Names, Sections, StageConfig, Triple, nearest
from neuropil.errors import ConfigError
from neuropil.networks.architecture import ARCHITECTURES, Architecture
from neuropil.networks.training import RECIPES, Recipe

log = logging.getLogger("neuropil")


def _named(value: Any) -> Any:
    """Take "fast", or a table whose `base` is "fast", for that recipe with the table's other fields changed."""
    table = {"base": value} if isinstance(value, str) else value
    if not isinstance(table, dict) or "base" not in table:
        return value
    base, changes = table["base"], {key: field for key, field in table.items() if key != "base"}
    if base not in RECIPES:
        known = ", ".join(RECIPES)
        raise ValueError(f"must be one of {known}, or a table{nearest(str(base), [*RECIPES])}")
    return vars(RECIPES[base]) | changes


AnyRecipe = Annotated[Recipe, BeforeValidator(_named)]


class StackConfig(StageConfig):
    """One annotated stack: [[train.stacks]] or [[train.validation]]."""

    name: Name = Field(description="for messages and file names")
    image: str = Field(description="URI of the image")
    labels: str = Field(description="URI of instance ids or of a drawing of the membranes")
    mask: str | None = Field(None, description="URI; voxels where it is 0 are not learnt")
    sections: Sections | None = Field(None, description="only these sections")
    interior_above: int = Field(0, description="a voxel is boundary where its label is not above this value")
    touching_ids: bool = Field(False, description="also boundary: voxels beside another id in their section")
    unlabelled: int | None = Field(None, description="label value of voxels that are not learnt")
    share: float | None = Field(None, gt=0, description="of the patches, relative to others'; default: as many as fit")


class NetworkConfig(StageConfig):
    """One network: [[train.networks]]."""

    name: Name = Field(description="of its folder in the run")
    architecture: str | list[str] = Field(description=f"one of {', '.join(ARCHITECTURES)}, or a list of layers")
    join: str | None = Field(None, description="for a list of layers with two inputs: the convolution that sums them")
    patch: Triple = Field(description="output patch z, y, x")
    spacing: int = Field(1, gt=0, description="learn from every so-manyth voxel of the patch along y and x")
    updates: int = Field(gt=0, description="number of updates in all")
    maps_from: str | None = Field(None, description="network whose maps are the second input")
    initialise_from: str | None = Field(None, description="network, packaged model or weights file to start from")
    continues: str | None = Field(None, description="network whose training goes on here")
    stacks: list[str] | None = Field(None, description="names of the stacks to train on; all by default")
    recipe: AnyRecipe | None = Field(None, description="instead of [train.recipe]")


class Config(StageConfig):
    """Fields of [train]."""

    output: Path = Field(description="run folder")
    stacks: list[StackConfig] = Field(min_length=1, description="annotated stacks")
    validation: list[StackConfig] = Field([], description="stacks, or sections, never trained on")
    networks: list[NetworkConfig] = Field(min_length=1, description="networks, in the order of training")
    model: Names = Field(
        [],
        description="networks that predict one after the other; by default the last one and those it takes maps from",
    )
    use: Literal["best", "last"] = Field("best", description="checkpoint that makes maps and the model")
    recipe: AnyRecipe = Field(Recipe(), description="how networks are trained: a table, or one of paper, fast")
    seed: int = Field(0, ge=0, description="of weights, patches and dropout")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    only: str | None = Field(None, description="train this network alone; those before it must be done")
    fresh: bool = Field(False, description="delete what the run folder holds and start over")
    notes: str = Field("", description="for the model's card: data licence, citation, purpose")


def architecture_of(config: Config, net: NetworkConfig) -> Architecture:
    """Return what a network is built of; one that continues another is built like it."""
    if net.continues is not None:
        return architecture_of(config, network_of(config, net.continues))
    if isinstance(net.architecture, str):
        return ARCHITECTURES[net.architecture]
    return Architecture(net.name, tuple(net.architecture), net.join)


def names_of(config: Config) -> list[str]:
    """Return the names of the run's networks."""
    return [net.name for net in config.networks]


def network_of(config: Config, name: str) -> NetworkConfig:
    """Return the network of that name."""
    return config.networks[names_of(config).index(name)]


def needs_of(config: Config, net: NetworkConfig) -> list[str]:
    """Names of the networks of this run that one builds on."""
    named = (net.maps_from, net.initialise_from, net.continues)
    return [name for name in named if name is not None and name in names_of(config)]


def model_of(config: Config) -> list[str]:
    """Names of the networks of the model, in the order they run."""
    if config.model:
        return config.model
    chain: list[str] = []
    name = names_of(config)[-1]
    while name:
        chain.insert(0, name)
        name = network_of(config, name).maps_from or ""
    return chain


def check(config: Config) -> None:
    """Check what refers to other entries, before anything is opened.

    Raises
    ------
    ConfigError : the first thing that is wrong
    """
    stacks = [stack.name for stack in config.stacks]
    _check_different("networks", names_of(config))
    _check_different("stacks and validation", [*stacks, *(stack.name for stack in config.validation)])
    for index, net in enumerate(config.networks):
        _check_network(config, net, names_of(config)[:index])
        for name in net.stacks or []:
            if name not in stacks:
                raise ConfigError(f"stacks of network '{net.name}': there is no '{name}'{nearest(name, stacks)}")
    for name in [*config.model, *([config.only] if config.only else [])]:
        if name not in names_of(config):
            raise ConfigError(f"'{name}' names no network; networks are {', '.join(names_of(config))}")
    streams = [architecture_of(config, network_of(config, name)).streams for name in model_of(config)]
    if streams != [1, *[2] * (len(streams) - 1)]:
        raise ConfigError(
            f"model must be a network of one input, then networks of two; got {', '.join(model_of(config))}"
            f" with {', '.join(map(str, streams))}"
        )


def warn_of_shared_sections(config: Config) -> None:
    """Scores on what was learnt say nothing; masks may keep a shared section's parts apart, so it is a warning."""
    for held, stack in product(config.validation, config.stacks):
        (a, b), (c, d) = (one.sections or (0, sys.maxsize) for one in (held, stack))
        if held.image == stack.image and max(a, c) < min(b, d) and not (held.mask and stack.mask):
            log.warning(
                "validation '%s' and stack '%s' share sections of %s: validation will look better than it is",
                held.name,
                stack.name,
                held.image,
            )


def _check_different(kind: str, names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise ConfigError(f"{kind} must have different names; got {', '.join(names)}")


def _check_network(config: Config, net: NetworkConfig, before: list[str]) -> None:
    if isinstance(net.architecture, str) and net.architecture not in ARCHITECTURES:
        raise ConfigError(
            f"architecture of network '{net.name}' must be one of {', '.join(ARCHITECTURES)}, or a list of layers;"
            f" got '{net.architecture}'"
        )
    if min(net.patch) < 1:
        raise ConfigError(f"patch of network '{net.name}' must be positive; got {net.patch}")
    for key in ("maps_from", "initialise_from", "continues"):
        value = getattr(net, key)
        if value not in (None, *before) and (key != "initialise_from" or value in names_of(config)):
            raise ConfigError(f"{key} of network '{net.name}' must name a network before it; got '{value}'")
    if net.continues is not None:
        _check_continued(config, net, network_of(config, net.continues))
    if (net.maps_from is None) != (architecture_of(config, net).streams == 1):
        rule = "needs maps_from for its second input" if net.maps_from is None else "has one input; drop maps_from"
        raise ConfigError(f"network '{net.name}' {rule}")


def _check_continued(config: Config, net: NetworkConfig, before: NetworkConfig) -> None:
    """Going on must be as if the network before had never stopped."""
    for key in ("architecture", "join", "patch", "spacing", "stacks", "maps_from"):
        if getattr(net, key) != getattr(before, key):
            raise ConfigError(f"{key} of network '{net.name}' must be that of '{before.name}', which it continues")
    if (net.recipe or config.recipe) != (before.recipe or config.recipe):
        raise ConfigError(f"recipe of network '{net.name}' must be that of '{before.name}', which it continues")
    if (net.recipe or config.recipe).schedule != "constant":
        raise ConfigError(f"network '{net.name}' can continue another only with the schedule 'constant'")
    if net.updates <= before.updates:
        raise ConfigError(
            f"updates of network '{net.name}' must exceed the {before.updates} of '{before.name}', which it continues;"
            f" got {net.updates}"
        )
