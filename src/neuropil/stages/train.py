"""Train networks on annotated stacks, one after the other, recursively where a network asks for another's maps.

The run folder holds one folder per network (checkpoints, log, TensorBoard) and model.safetensors, the chain that
`neuropil predict` runs. What is done is not done again: the same command continues a run that was stopped, to the
same weights.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuropil.config import Names, Sections, StageConfig, Triple, dump
from neuropil.errors import ConfigError, InputError
from neuropil.geometry import Box
from neuropil.networks import inference
from neuropil.networks.architecture import ARCHITECTURES, Architecture
from neuropil.networks.checkpoint import Model, load_model, pick_device, save_model, write_text
from neuropil.networks.network import DenseNetwork
from neuropil.networks.sampling import BOUNDARY, INTERIOR, UNLABELLED, Sampler, Stack
from neuropil.networks.training import Recipe, Validation, train
from neuropil.segmentation.boundary import boundary_from_labels
from neuropil.stages import StageResult
from neuropil.stages.common import fingerprint, image_box, section_box, versions
from neuropil.volume import create_volume, open_volume

EXAMPLES = [
    "neuropil train examples/vd2d3d_vnc.toml",
    "neuropil train run.toml --set train.seed=1 --output runs/seed1",
    "neuropil train run.toml --only vd2d3d",
]
POSITIONAL = ()
CREMI_UNLABELLED = 2**64 - 1


class StackConfig(StageConfig):
    """One annotated stack: [[train.stacks]] or [[train.validation]]."""

    name: str = Field(description="for messages and file names")
    image: str = Field(description="URI of the image")
    labels: str = Field(description="URI of instance ids or of a drawing of the membranes")
    mask: str | None = Field(None, description="URI; voxels where it is 0 are not learnt")
    sections: Sections | None = Field(None, description="only these sections")
    interior_above: int = Field(0, description="a voxel is boundary where its label is not above this value")
    touching_ids: bool = Field(False, description="also boundary: voxels beside another id in their section")
    unlabelled: int | None = Field(None, description="label value of voxels that are not learnt")


class NetworkConfig(StageConfig):
    """One network: [[train.networks]]."""

    name: str = Field(description="of its folder in the run")
    architecture: str | list[str] = Field(description=f"one of {', '.join(ARCHITECTURES)}, or a list of layers")
    join: str | None = Field(None, description="for a list of layers with two inputs: the convolution that sums them")
    patch: Triple = Field(description="output patch z, y, x")
    updates: int = Field(gt=0, description="number of updates in all")
    maps_from: str | None = Field(None, description="network whose maps are the second input")
    initialise_from: str | None = Field(None, description="network, or weights file, whose first layers are taken over")
    continues: str | None = Field(None, description="network whose training goes on here")
    stacks: list[str] | None = Field(None, description="names of the stacks to train on; all by default")
    recipe: Recipe | None = Field(None, description="instead of [train.recipe]")


class Config(StageConfig):
    """Fields of [train]."""

    output: Path = Field(description="run folder")
    stacks: list[StackConfig] = Field(min_length=1, description="annotated stacks")
    validation: list[StackConfig] = Field([], description="stacks, or sections, never trained on")
    networks: list[NetworkConfig] = Field(min_length=1, description="networks, in the order of training")
    model: Names = Field([], description="networks that predict one after the other; the last one trained by default")
    use: Literal["best", "last"] = Field("best", description="checkpoint that makes maps and the model")
    recipe: Recipe = Field(Recipe(), description="how networks are trained")
    seed: int = Field(0, ge=0, description="of weights, patches and dropout")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    only: str | None = Field(None, description="train this network alone; those before it must be done")
    fresh: bool = Field(False, description="delete what the run folder holds and start over")
    notes: str = Field("", description="for the model's card: data licence, citation, purpose")


def run(config: Config) -> StageResult:
    """Train the networks of a configuration in turn and write the model."""
    _check(config)
    if config.fresh:
        for name in [net.name for net in config.networks]:
            shutil.rmtree(config.output / name, ignore_errors=True)
    config.output.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    record: dict[str, Any] = {"config": dump(config), "versions": versions(), "networks": {}}
    write_text(config.output / "run.json", json.dumps(record, indent=1) + "\n")
    stacks, validation = _Stacks(config, config.stacks), _Stacks(config, config.validation)
    for net in config.networks:
        if config.only in (None, net.name):
            begun = time.monotonic()
            best = _train_one(config, net, stacks, validation)
            scores = vars(best) if best else {}
            record["networks"][net.name] = {"updates": net.updates, "seconds": time.monotonic() - begun, **scores}
            write_text(config.output / "run.json", json.dumps(record, indent=1) + "\n")
    path = config.output / "model.safetensors"
    if config.only is None:
        save_model(path, _chain(config, stacks))
        record["model"] = str(path)
    record["seconds"] = time.monotonic() - start
    write_text(config.output / "run.json", json.dumps(record, indent=1) + "\n")
    return StageResult(_summary(record, path), record)


class _Stacks:
    """The annotated stacks of a run, opened when asked for; their maps are made once and kept."""

    def __init__(self, config: Config, stacks: list[StackConfig]) -> None:
        self.config, self.stacks = config, stacks
        self._read: dict[str, tuple[NDArray[Any], NDArray[np.uint8]]] = {}
        self.voxel_sizes: list[tuple[float, ...] | None] = []

    def open(self, maps_from: str | None, names: list[str] | None = None) -> list[Stack]:
        chosen = [one for one in self.stacks if names is None or one.name in names]
        return [self._with_map(self._open(one), maps_from) for one in chosen]

    def _open(self, one: StackConfig) -> Stack:
        if one.name not in self._read:
            with open_volume(one.image) as image, open_volume(one.labels) as labels:
                box = image_box(image, one.sections)
                if labels.shape != image.shape:
                    raise InputError(
                        f"image and labels of stack '{one.name}' must have one shape;"
                        f" got {image.shape} and {labels.shape}"
                    )
                self.voxel_sizes.append(image.metadata.voxel_size)
                self._read[one.name] = image.read(box), _target(one, labels.read(box))
        return Stack(one.name, *self._read[one.name])

    def _with_map(self, stack: Stack, maps_from: str | None) -> Stack:
        if maps_from is None:
            return stack
        source = _weights(self.config, maps_from)
        folder = self.config.output / maps_from / "maps"
        uri, marker = str(folder / f"{stack.name}.zarr"), folder / f"{stack.name}.json"
        made_with = {"weights": fingerprint(source), "shape": list(stack.image.shape)}
        if marker.exists() and json.loads(marker.read_text()) == made_with:
            with open_volume(uri) as volume:
                return Stack(stack.name, stack.image, stack.target, volume.read())
        (network,) = load_model(source).networks
        network.to(pick_device(self.config.device))
        made = inference.predict(network, stack.inputs(1))
        marker.unlink(missing_ok=True)
        with create_volume(uri, shape=made.shape, dtype=made.dtype, kind="boundary", overwrite=True) as volume:
            volume.write(Box.of_shape(made.shape), made)
        write_text(marker, json.dumps(made_with))
        return Stack(stack.name, stack.image, stack.target, made)


def _target(one: StackConfig, labels: NDArray[Any]) -> NDArray[np.uint8]:
    boundary = boundary_from_labels(labels, interior_above=one.interior_above, touching_ids=one.touching_ids)
    target = np.where(boundary, np.uint8(BOUNDARY), np.uint8(INTERIOR))
    if one.unlabelled is not None:
        target[labels == one.unlabelled] = UNLABELLED
    if labels.dtype == np.uint64:
        target[labels == np.uint64(CREMI_UNLABELLED)] = UNLABELLED
    if one.mask is not None:
        with open_volume(one.mask) as mask:
            if mask.shape != (mask.shape[0], *labels.shape[1:]):
                raise InputError(f"mask of stack '{one.name}' must have the image's shape; got {mask.shape}")
            target[mask.read(section_box(mask, one.sections)) == 0] = UNLABELLED
    return target


def _train_one(config: Config, net: NetworkConfig, stacks: _Stacks, validation: _Stacks) -> Validation | None:
    """Train one network in its folder, from whatever it starts with."""
    folder = config.output / net.name
    recipe = net.recipe or config.recipe
    network = DenseNetwork(_architecture(net), config.seed)
    if net.initialise_from is not None:
        first = load_model(_weights(config, net.initialise_from)).networks[0].named_weights()
        network.load_weights(first, only=network.shared_with(first))
    if net.continues is not None and not (folder / "resume.safetensors").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("log.jsonl", "best.safetensors", "best.json", "resume.safetensors"):
            shutil.copy2(config.output / net.continues / name, folder / name)
    sampler = Sampler(
        stacks.open(net.maps_from, net.stacks),
        network.architecture,
        net.patch,
        config.seed,
        recipe.rebalance,
        recipe.flips,
        recipe.grey,
        recipe.elastic,
    )
    card = _card(config, stacks) | {"name": net.name, "network": dump(net), "recipe": vars(recipe)}
    network.to(pick_device(config.device))
    return train(
        network,
        sampler,
        folder=folder,
        updates=net.updates,
        recipe=recipe,
        validation=validation.open(net.maps_from),
        card=card,
    )


def _architecture(net: NetworkConfig) -> Architecture:
    if isinstance(net.architecture, str):
        return ARCHITECTURES[net.architecture]
    return Architecture(net.name, tuple(net.architecture), net.join)


def _weights(config: Config, name: str) -> Path:
    """Path of a network of this run by name, or of a weights file."""
    return config.output / name / f"{config.use}.safetensors" if name in _names(config) else Path(name)


def _names(config: Config) -> list[str]:
    return [net.name for net in config.networks]


def _chain(config: Config, stacks: _Stacks) -> Model:
    models = [load_model(_weights(config, name)) for name in config.model or _names(config)[-1:]]
    card = _card(config, stacks) | {"parts": [model.card for model in models]}
    return Model(tuple(net for model in models for net in model.networks), card)


def _card(config: Config, stacks: _Stacks) -> dict[str, Any]:
    size = next((size for size in stacks.voxel_sizes if size), None)
    return {
        "data": [dump(stack) for stack in config.stacks],
        "validation_data": [dump(stack) for stack in config.validation],
        "voxel_size": size,
        "seed": config.seed,
        "notes": config.notes,
    }


def _check(config: Config) -> None:
    """Check what refers to other entries, before anything is opened."""
    names: list[str] = []
    for net in config.networks:
        if isinstance(net.architecture, str) and net.architecture not in ARCHITECTURES:
            raise ConfigError(
                f"architecture of network '{net.name}' must be one of {', '.join(ARCHITECTURES)}, or a list of layers;"
                f" got '{net.architecture}'"
            )
        for key in ("maps_from", "continues"):
            if getattr(net, key) not in (None, *names):
                raise ConfigError(
                    f"{key} of network '{net.name}' must name a network before it; got '{getattr(net, key)}'"
                )
        if (net.maps_from is None) != (_architecture(net).streams == 1):
            rule = "needs maps_from for its second input" if net.maps_from is None else "has one input; drop maps_from"
            raise ConfigError(f"network '{net.name}' {rule}")
        names.append(net.name)
    for kind, found in (("networks", names), ("stacks", [stack.name for stack in config.stacks])):
        if len(set(found)) < len(found):
            raise ConfigError(f"{kind} must have different names; got {', '.join(found)}")
    for name in [*config.model, *([config.only] if config.only else [])]:
        if name not in names:
            raise ConfigError(f"'{name}' names no network; networks are {', '.join(names)}")


def _summary(record: dict[str, Any], path: Path) -> str:
    lines = [f"{'network':12} {'updates':>8} {'pixel error':>12} {'seconds':>8}"]
    for name, one in record["networks"].items():
        error = f"{one['pixel_error']:.4f}" if "pixel_error" in one else "-"
        lines.append(f"{name:12} {one['updates']:8d} {error:>12} {one['seconds']:8.0f}")
    return "\n".join([*lines, *([f"model: {path}"] if "model" in record else [])])
