"""Fields of [train], and the checks of what they say of each other, which need no data.

A run trains networks in turn; each may take maps or first layers from, or go on with, one before it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from neuropil.config import Name, Names, Sections, StageConfig, Triple, TripleNm, nearest
from neuropil.errors import ConfigError
from neuropil.networks.architecture import ARCHITECTURES, Architecture
from neuropil.networks.recipe import RECIPES, Recipe
from neuropil.networks.unet_architecture import Breadth, Norm, UNetArchitecture, architecture_for

UNETS: dict[str, Breadth] = {"rsunet": "full", "rsunet_small": "small", "rsunet_tiny": "tiny"}
AFFINITY_KEYS = ("augmentation", "erosion", "inverse_margin")
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
    augmentation = changes.get("augmentation")
    if isinstance(augmentation, dict):
        changes["augmentation"] = vars(RECIPES[base].augmentation) | augmentation
    return vars(RECIPES[base]) | changes


AnyRecipe = Annotated[Recipe, BeforeValidator(_named)]


class StackConfig(StageConfig):
    """One annotated stack: [[train.stacks]] or [[train.validation]]."""

    name: Name = Field(description="for messages and file names")
    image: str = Field(description="URI of the image")
    labels: str = Field(description="URI of instance ids or of a drawing of the membranes")
    mask: str | None = Field(None, description="URI; voxels where it is 0 are not learnt")
    sections: Sections | None = Field(None, description="only these sections")
    rows: Sections | None = Field(None, description="only this range of y")
    columns: Sections | None = Field(None, description="only this range of x")
    interior_above: int = Field(0, description="a voxel is boundary where its label is not above this value")
    touching_ids: bool = Field(False, description="also boundary: voxels beside another id in their section")
    unlabelled: int | None = Field(None, description="label value of voxels that are not learnt")
    share: float | None = Field(None, gt=0, description="of the patches, relative to others'; default: as many as fit")


class UNetConfig(StageConfig):
    """A U-Net for affinities: that for the stacks' voxel size, with changes."""

    base: Literal["rsunet", "rsunet_small", "rsunet_tiny"] = Field("rsunet", description="how many scales, how wide")
    voxel_size: TripleNm | None = Field(None, description="z, y, x; nm; by default that of the first stack")
    widths: list[int] | None = Field(None, description="feature maps per scale, the finest first")
    norm: Norm | None = Field(None, description="batch, instance, group or none")
    offsets: list[Triple] | None = Field(None, description="z, y, x of the affinities; voxels")
    first: Triple | None = Field(None, description="size of the first convolution of a residual module")
    pooling: list[Triple] | None = Field(None, description="factors z, y, x between the scales")
    full_resolution: bool | None = Field(None, description="whether the finest scale has residual modules")
    ends: Triple | None = Field(None, description="size of the first convolution and of the last but one")


def _kind(value: Any) -> str:
    return "name" if isinstance(value, str) else "layers" if isinstance(value, list) else UNetConfig.__name__


AnyArchitecture = Annotated[
    Annotated[str, Tag("name")] | Annotated[list[str], Tag("layers")] | Annotated[UNetConfig, Tag(UNetConfig.__name__)],
    Discriminator(_kind),
]


class NetworkConfig(StageConfig):
    """One network: [[train.networks]]."""

    name: Name = Field(description="of its folder in the run")
    architecture: AnyArchitecture = Field(
        description=f"one of {', '.join([*ARCHITECTURES, *UNETS])}, a list of layers, or a U-Net's table"
    )
    join: str | None = Field(None, description="for a list of layers with two inputs: the convolution that sums them")
    patch: Triple = Field(description="output patch z, y, x")
    spacing: int = Field(1, gt=0, description="learn from every so-manyth voxel of the patch along y and x")
    batch: int = Field(1, gt=0, description="U-Nets: patches of one update")
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
    recipe: AnyRecipe = Field(Recipe(), description="a table, or one of paper, fast, affinities")
    seed: int = Field(0, ge=0, description="of weights, patches and dropout")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    only: str | None = Field(None, description="train this network alone; those before it must be done")
    fresh: bool = Field(False, description="delete what the run folder holds and start over")
    notes: str = Field("", description="for the model's card: data licence, citation, purpose")


def architecture_of(config: Config, net: NetworkConfig) -> Architecture:
    """Return what a boundary network is built of; one that continues another is built like it."""
    if net.continues is not None:
        return architecture_of(config, network_of(config, net.continues))
    assert not isinstance(net.architecture, UNetConfig)
    if isinstance(net.architecture, str):
        return ARCHITECTURES[net.architecture]
    return Architecture(net.name, tuple(net.architecture), net.join)


def for_affinities(config: Config) -> bool:
    """Tell whether the run's networks are U-Nets, which predict affinities."""
    return _unet_config(config.networks[0]) is not None


def voxel_size_of(net: NetworkConfig, first: Sequence[float] | None) -> Sequence[float]:
    """Return the voxel size (z, y, x; nm) that a U-Net is for: its table's, or that of the first stack.

    Raises
    ------
    ConfigError : neither has one
    """
    asked = _unet_config(net)
    assert asked is not None
    size = asked.voxel_size or first
    if size is None:
        raise ConfigError(
            f"network '{net.name}' needs a voxel size, which its first stack does not have; write"
            f' architecture = {{ base = "{asked.base}", voxel_size = [z, y, x] }} in nm'
        )
    return size


def unet_of(net: NetworkConfig, size: Sequence[float]) -> UNetArchitecture:
    """Return the U-Net for stacks of a voxel size (z, y, x; nm).

    Raises
    ------
    InputError : fields that make no network
    """
    asked = _unet_config(net)
    assert asked is not None
    fields = asked.model_dump(exclude={"base", "voxel_size"}, exclude_none=True)
    chosen = architecture_for(size, breadth=UNETS[asked.base])
    if "widths" in fields and "pooling" not in fields:
        fields["pooling"] = architecture_for(size).pooling[: len(fields["widths"]) - 1]
    return replace(chosen, **fields)


def _unet_config(net: NetworkConfig) -> UNetConfig | None:
    """Return the table of a U-Net, written out or by its name."""
    named = isinstance(net.architecture, str) and net.architecture in UNETS
    table = UNetConfig.model_validate({"base": net.architecture}) if named else net.architecture
    return table if isinstance(table, UNetConfig) else None


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
    if for_affinities(config):
        _check_affinities(config)
        return
    for recipe in (config.recipe, *(net.recipe for net in config.networks)):
        for key in AFFINITY_KEYS:
            if recipe and getattr(recipe, key) != getattr(Recipe(), key):
                raise ConfigError(f"recipe.{key} is for affinities; boundary networks take flips, grey and elastic")
    streams = [architecture_of(config, network_of(config, name)).streams for name in model_of(config)]
    if streams != [1, *[2] * (len(streams) - 1)]:
        raise ConfigError(
            f"model must be a network of one input, then networks of two; got {', '.join(model_of(config))}"
            f" with {', '.join(map(str, streams))}"
        )


def warn_of_shared_sections(config: Config) -> None:
    """Scores on what was learnt say nothing; masks may keep a shared section's parts apart, so it is a warning."""
    for held, stack in product(config.validation, config.stacks):
        shared = all(
            max(a, c) < min(b, d)
            for (a, b), (c, d) in (
                (getattr(one, axis) or (0, sys.maxsize) for one in (held, stack))
                for axis in ("sections", "rows", "columns")
            )
        )
        if held.image == stack.image and shared and not (held.mask and stack.mask):
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
    known = [*ARCHITECTURES, *UNETS]
    if isinstance(net.architecture, str) and net.architecture not in known:
        raise ConfigError(
            f"architecture of network '{net.name}' must be one of {', '.join(known)}, a list of layers, or a table;"
            f" got '{net.architecture}'"
        )
    if (_unet_config(net) is not None) != for_affinities(config):
        raise ConfigError(f"a run's networks must all predict affinities, or all boundary maps; '{net.name}' differs")
    if min(net.patch) < 1:
        raise ConfigError(f"patch of network '{net.name}' must be positive; got {net.patch}")
    for key in ("maps_from", "initialise_from", "continues"):
        value = getattr(net, key)
        if value not in (None, *before) and (key != "initialise_from" or value in names_of(config)):
            raise ConfigError(f"{key} of network '{net.name}' must name a network before it; got '{value}'")
    if net.batch > 1 and not for_affinities(config):
        raise ConfigError(f"batch of network '{net.name}' is for U-Nets; boundary networks take a larger patch")
    if net.continues is not None:
        _check_continued(config, net, network_of(config, net.continues))
    if not for_affinities(config) and (net.maps_from is None) != (architecture_of(config, net).streams == 1):
        rule = "needs maps_from for its second input" if net.maps_from is None else "has one input; drop maps_from"
        raise ConfigError(f"network '{net.name}' {rule}")


def _check_affinities(config: Config) -> None:
    """Refuse what only boundary networks have."""
    for net in config.networks:
        for key in ("maps_from", "join"):
            if getattr(net, key) is not None:
                raise ConfigError(f"{key} of network '{net.name}' is for boundary networks, which take two inputs")
        if net.spacing != 1:
            raise ConfigError(f"spacing of network '{net.name}' is for boundary networks; got {net.spacing}")
        if (net.recipe or config.recipe).rebalance == "global":
            raise ConfigError("recipe.rebalance must be 'patch' or 'none' for affinities; got 'global'")
    for stack in [*config.stacks, *config.validation]:
        if stack.touching_ids:
            raise ConfigError(
                f"touching_ids of stack '{stack.name}' is for boundary maps; for affinities, recipe.erosion parts ids"
            )
    if len(model_of(config)) > 1:
        raise ConfigError(f"model must be one network that predicts affinities; got {', '.join(model_of(config))}")


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
