"""Train networks on annotated stacks, one after the other, recursively where a network asks for another's maps.

The run folder holds one folder per network (checkpoints, log, TensorBoard) and model.safetensors, the chain that
`neuropil predict` runs. What is done is not done again: the same command continues a run that was stopped, to the
same weights.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

from neuropil.config import dump
from neuropil.errors import ConfigError, InputError, RunMismatch
from neuropil.files import write_json
from neuropil.networks import inference
from neuropil.networks.affinity_sampling import AffinitySampler, LabelledStack
from neuropil.networks.checkpoint import Model, Network, load_model, pick_device, read_tensors, save_model
from neuropil.networks.network import DenseNetwork
from neuropil.networks.packaged import read_card, weights_path
from neuropil.networks.patches import PatchGrid
from neuropil.networks.rsunet import RSUNet
from neuropil.networks.sampling import Sampler, Stack
from neuropil.networks.training import train
from neuropil.networks.unet_architecture import CUBE
from neuropil.stages import StageResult
from neuropil.stages.common import (
    fingerprint,
    finite,
    image_box,
    versions,
    write_volume,
)
from neuropil.stages.train_config import (
    Config,
    NetworkConfig,
    StackConfig,
    architecture_of,
    check,
    for_affinities,
    model_of,
    names_of,
    needs_of,
    network_of,
    unet_of,
    voxel_size_of,
    warn_of_shared_sections,
)
from neuropil.stages.train_labels import boundary_target, box_of, ids_of, unlabelled_of
from neuropil.volume import open_volume

EXAMPLES = [
    "neuropil train examples/vd2d3d_vnc.toml",
    "neuropil train run.toml --set train.seed=1 --output runs/seed1",
    "neuropil train run.toml --only vd2d3d",
]
POSITIONAL = ()
__all__ = ["EXAMPLES", "POSITIONAL", "Config", "run"]
log = logging.getLogger("neuropil")


def run(config: Config) -> StageResult:
    """Train the networks of a configuration in turn and write the model."""
    check(config)
    stacks, validation = _Stacks(config, config.stacks), _Stacks(config, config.validation)
    _check_data(config, stacks, validation)
    warn_of_shared_sections(config)
    if config.fresh:
        for net in config.networks:
            shutil.rmtree(config.output / net.name, ignore_errors=True)
    config.output.mkdir(parents=True, exist_ok=True)
    record = _record(config)
    write_json(config.output / "run.json", record)
    for net in config.networks:
        if config.only in (None, net.name):
            record["networks"][net.name] = _train_one(config, net, stacks, validation)
            record["seconds"] = sum(one["seconds"] for one in record["networks"].values())
            write_json(config.output / "run.json", record)
    path = config.output / "model.safetensors"
    if config.only is None:
        save_model(path, _chain(config, stacks))
        record["model"] = str(path)
        write_json(config.output / "run.json", record)
    return StageResult(_summary(record, path), record)


def _record(config: Config) -> dict[str, Any]:
    """Begin the run's record; what it says of networks trained before stays."""
    path, networks = config.output / "run.json", {}
    if path.exists() and not config.fresh:
        before = json.loads(path.read_text()).get("networks", {})
        networks = {name: before[name] for name in names_of(config) if name in before}
    return {"config": dump(config), "versions": versions(), "networks": networks}


class _Stacks:
    """The annotated stacks of a run, read at its start; maps of them are made once and kept."""

    def __init__(self, config: Config, stacks: list[StackConfig]) -> None:
        self.config = config
        self.voxel_sizes: list[tuple[float, ...] | None] = []
        self.all = [self._read(one) for one in stacks]
        self.images = {one.name: hashlib.sha256(one.image.tobytes()).hexdigest() for one in self.all}

    def chosen(self, names: list[str] | None = None) -> list[Any]:
        return [one for one in self.all if names is None or one.name in names]

    def open(self, maps_from: str | None, names: list[str] | None = None) -> list[Any]:
        return [self._with_map(one, maps_from) for one in self.chosen(names)]

    def _read(self, one: StackConfig) -> Stack | LabelledStack:
        with open_volume(one.image) as image, open_volume(one.labels) as labels:
            image_box(image, one.sections)  # is it one?
            box = box_of(one, image)
            if labels.shape != image.shape:
                raise InputError(
                    f"image and labels of stack '{one.name}' must have one shape; got {image.shape} and {labels.shape}"
                )
            if labels.dtype.kind not in "ui":
                raise InputError(f"labels of stack '{one.name}' must be integers; {one.labels} holds {labels.dtype}")
            self.voxel_sizes.append(image.metadata.voxel_size)
            with finite(one.image):
                ids = labels.read(box)
                if for_affinities(self.config):
                    unlabelled = unlabelled_of(one, ids, image.shape)
                    known = None if not unlabelled.any() else unlabelled
                    return LabelledStack(one.name, image.read(box), ids_of(one, ids, unlabelled), known, one.share)
                target = boundary_target(one, ids, image.shape)
                return Stack(one.name, image.read(box), target, share=one.share)

    def _with_map(self, stack: Any, maps_from: str | None) -> Any:
        if maps_from is None:
            return stack
        folder = self.config.output / maps_from / "maps"
        uri, marker = str(folder / f"{stack.name}.zarr"), folder / f"{stack.name}.json"
        made_with = {"weights": _lineage(self.config, maps_from), "image": self.images[stack.name]}
        if marker.exists() and json.loads(marker.read_text()) == made_with:
            with open_volume(uri) as volume:
                return replace(stack, map=volume.read())
        log.info("map of %s by %s", stack.name, maps_from)
        network = _network(_weights(self.config, maps_from)).to(pick_device(self.config.device))
        source = self._with_map(stack, network_of(self.config, maps_from).maps_from)
        made = inference.predict(network, source.inputs(network.architecture.streams))
        marker.unlink(missing_ok=True)
        write_volume(uri, made, kind="boundary", place={}, overwrite=True)
        write_json(marker, made_with)
        return replace(stack, map=made)


def _train_one(config: Config, net: NetworkConfig, stacks: _Stacks, validation: _Stacks) -> dict[str, Any]:
    """Train one network in its folder, from whatever it starts with; return its line of the record."""
    folder, recipe = config.output / net.name, net.recipe or config.recipe
    for name in needs_of(config, net):
        if not _is_done(config, name):
            raise InputError(
                f"network '{net.name}' needs '{name}', which is not trained to its end; run without --only"
            )
    if _is_done(config, net.name):
        log.info("%s: done before", net.name)
    network = _begun(config, net, stacks)
    _check_inputs(config, net, folder, stacks)
    if net.continues is not None:
        _copy_state(config.output / net.continues, folder)
    about = {"name": net.name, "network": dump(net), "recipe": asdict(recipe), "patch": net.patch}
    card = _card(config, stacks) | about | _origin(config, net)
    best = train(
        network.to(pick_device(config.device)),
        _sampler(config, net, stacks),
        folder=folder,
        updates=net.updates,
        recipe=recipe,
        validation=validation.open(net.maps_from),
        card=card,
    )
    return {"updates": net.updates, "seconds": _state(folder)["seconds"], **(vars(best) if best else {})}


def _begun(config: Config, net: NetworkConfig, stacks: _Stacks) -> Network:
    """Return a network before its training, with the weights it starts from."""
    if for_affinities(config):
        unet = RSUNet(unet_of(net, voxel_size_of(net, stacks.voxel_sizes[0])), config.seed)
        if net.initialise_from is not None:
            unet.load_weights(_unet(config, net.initialise_from).named_weights())
        return unet
    network = DenseNetwork(architecture_of(config, net), config.seed)
    if net.initialise_from is not None:
        network.take_over(_start(config, net.initialise_from, network).named_weights())
    return network


def _sampler(config: Config, net: NetworkConfig, stacks: _Stacks) -> Sampler | AffinitySampler:
    """Return what draws the patches of a network from its stacks, whose maps are there."""
    recipe, training = net.recipe or config.recipe, stacks.open(net.maps_from, net.stacks)
    if not for_affinities(config):
        vary = (recipe.rebalance, recipe.flips, recipe.grey, recipe.elastic)
        return Sampler(training, architecture_of(config, net), net.patch, config.seed, *vary, net.spacing)
    size = voxel_size_of(net, stacks.voxel_sizes[0])
    return AffinitySampler(
        training,
        unet_of(net, size),
        net.patch,
        config.seed,
        recipe.augmentation,
        recipe.flips,
        recipe.grey,
        recipe.elastic,
        recipe.erosion,
        isotropic=max(size) <= CUBE * min(size),
        batch=net.batch,
    )


def _check_inputs(config: Config, net: NetworkConfig, folder: Path, stacks: _Stacks) -> None:
    """Refuse to go on with a network whose images, or the networks it builds on, are not those it began with."""
    inputs: dict[str, Any] = {f"image of {one.name}": stacks.images[one.name] for one in stacks.chosen(net.stacks)}
    inputs |= {name: _lineage(config, name) for name in needs_of(config, net)}
    path = folder / "inputs.json"
    if path.exists() and (folder / "resume.safetensors").exists():
        before = json.loads(path.read_text())
        for key in sorted({*before, *inputs}):
            if before.get(key) != inputs.get(key):
                raise RunMismatch(
                    f"{folder} was trained with another {key}; choose another output, or start over with --fresh"
                )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, inputs)


def _copy_state(source: Path, folder: Path) -> None:
    """Begin where the training in `source` ended, unless that was done before; the file to resume from comes last."""
    if (folder / "resume.safetensors").exists():
        return
    for name in ("log.jsonl", "best.safetensors", "best.json", "resume.safetensors"):
        part = folder / f".{name}.part"
        shutil.copyfile(source / name, part)
        os.replace(part, folder / name)


def _state(folder: Path) -> dict[str, Any]:
    return read_tensors(folder / "resume.safetensors")[1]


def _is_done(config: Config, name: str) -> bool:
    folder = config.output / name
    return (folder / "resume.safetensors").exists() and _state(folder)["update"] >= network_of(config, name).updates


def _network(path: Path) -> DenseNetwork:
    return load_model(path).chain[0]


def _start(config: Config, name: str, network: DenseNetwork) -> DenseNetwork:
    """Return what to begin with: of a model's networks the one that has the most weights in common with this one."""
    networks = load_model(_weights(config, name)).chain
    return max(networks, key=lambda one: len(network.shared_with(one.named_weights())))


def _unet(config: Config, name: str) -> RSUNet:
    model = load_model(_weights(config, name))
    if model.unet is None:
        raise ConfigError(f"initialise_from = '{name}' must be a U-Net that predicts affinities; it is '{model.name}'")
    return model.unet


def _weights(config: Config, name: str) -> Path:
    """Path of a network of this run by name, of a packaged model by name, or of a weights file."""
    return config.output / name / f"{config.use}.safetensors" if name in names_of(config) else weights_path(name)


def _lineage(config: Config, name: str) -> list[str]:
    """Fingerprints of a network's weights and of those whose maps it sees."""
    parent = network_of(config, name).maps_from
    return [fingerprint(_weights(config, name)), *(_lineage(config, parent) if parent else [])]


def _origin(config: Config, net: NetworkConfig) -> dict[str, Any]:
    """Entry of the card of a fine-tuned network: the weights it began with, whose licence its own must respect."""
    name = net.initialise_from
    if name is None or name in names_of(config):
        return {}
    path = weights_path(name)
    origin = {"network": net.name, "weights": name, "sha256": fingerprint(path)}
    return {"initialised_from": origin | {"licence": read_card(path).get("licence")}}


def _chain(config: Config, stacks: _Stacks) -> Model:
    paths = [_weights(config, name) for name in model_of(config)]
    if for_affinities(config):
        return load_model(paths[0])
    parts = [read_tensors(path)[1] for path in paths]
    origins = [part["initialised_from"] for part in parts if "initialised_from" in part]
    card = _card(config, stacks) | ({"initialised_from": origins} if origins else {}) | {"parts": parts}
    return Model(tuple(_network(path) for path in paths), card)


def _card(config: Config, stacks: _Stacks) -> dict[str, Any]:
    sizes = sorted({size for size in stacks.voxel_sizes if size})
    return {
        "data": [dump(stack) for stack in config.stacks],
        "validation_data": [dump(stack) for stack in config.validation],
        "voxel_size": sizes[0] if sizes else None,
        "voxel_sizes": sizes,
        "seed": config.seed,
        "notes": config.notes,
    }


def _check_data(config: Config, stacks: _Stacks, validation: _Stacks) -> None:
    """Check every network against every stack at the start, rather than hours later when its turn comes."""
    pick_device(config.device)
    for net in config.networks:
        if for_affinities(config):
            _sampler(config, net, stacks)
            unet = unet_of(net, voxel_size_of(net, stacks.voxel_sizes[0]))
            for stack, offset in product(validation.all, unet.offsets):  # can it be predicted in such patches?
                PatchGrid(stack.image.shape, net.patch).totals(offset)
            if net.initialise_from not in (None, *names_of(config)):
                _begun(config, net, stacks)
            continue
        architecture = architecture_of(config, net)
        Sampler(stacks.chosen(net.stacks), architecture, net.patch, config.seed)
        heirs = [heir for heir in config.networks if heir.maps_from == net.name]
        for stack in [*validation.all, *(stack for heir in heirs for stack in stacks.chosen(heir.stacks))]:
            inference.check_extent(architecture, stack.image.shape)
        if net.initialise_from is not None:
            _check_shared(config, net, net.initialise_from)


def _check_shared(config: Config, net: NetworkConfig, name: str) -> None:
    network, known = DenseNetwork(architecture_of(config, net)), name in names_of(config)
    source = DenseNetwork(architecture_of(config, network_of(config, name))) if known else _start(config, name, network)
    if not network.shared_with(source.named_weights()):
        raise ConfigError(
            f"initialise_from of network '{net.name}': its first layer has another name or size in '{name}'"
        )


def _summary(record: dict[str, Any], path: Path) -> str:
    networks = record["networks"]
    kind = "rand_error" if any("rand_error" in one for one in networks.values()) else "pixel_error"
    lines = [f"{'network':12} {'updates':>8} {kind.replace('_', ' '):>12} {'seconds':>8}"]
    for name, one in networks.items():
        error = f"{one[kind]:.4f}" if one.get(kind) is not None else "-"
        lines.append(f"{name:12} {one['updates']:8d} {error:>12} {one['seconds']:8.0f}")
    return "\n".join([*lines, *([f"model: {path}"] if "model" in record else [])])
