"""Run trained networks over a volume: image in, boundary map or affinities out, as the model has it.

The output has the input's size, but for affinities predicted at another voxel size: those link voxels of their own
grid, and the output says how large they are. A recursive pair runs as one model, and a packaged model by its name. A
U-Net runs in overlapping patches, whose affinities are blended. Stopped at any moment, the same command continues.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuropil.blockwise import Ledger, open_ledger, run_blocks
from neuropil.config import Sections, StageConfig, Triple, Views, dump
from neuropil.errors import InputError, NeuropilError
from neuropil.files import Place, write_json
from neuropil.geometry import Box, grid
from neuropil.machine import Precision
from neuropil.networks.packaged import voxel_sizes, weights_path
from neuropil.progress import duration
from neuropil.stages import StageResult
from neuropil.stages.common import (
    ComputedVolume,
    claim,
    claimed,
    fingerprint,
    finite,
    image_box,
    placed,
    record_of,
    refuse_outputs,
    sidecar,
    write_volume,
)
from neuropil.stages.predict_patches import copy_result, patch_grid, predict_patches, put, scratch
from neuropil.stages.record import made
from neuropil.volume import Volume, open_volume
from neuropil.volume.copying import CopyReport
from neuropil.volume.resampled import ResampledVolume, resample

EXAMPLES = [
    "neuropil predict --weights vd2d3d-sstem --input stack.tif --output boundary.h5:map",
    "neuropil predict --weights vd2d3d-sstem --input fine.zarr --output boundary.h5:map --resample",
    "neuropil predict --weights runs/vnc/model.safetensors --input stack.tif --output boundary.h5:map",
    "neuropil predict --weights vd2d.safetensors --input stack.zarr --output map.zarr --sections 0:20 --max-memory 4",
    "neuropil predict --weights runs/unet/model.safetensors --input stack.zarr --output affinities.zarr --tta 8",
]
POSITIONAL = ()
log = logging.getLogger("neuropil")

ALIKE = 1.5
"""Ratio of pixel sizes from which on a model is taken to see something else than it was trained on."""


class Config(StageConfig):
    """Fields of [predict]."""

    weights: Path = Field(description="packaged model (`neuropil models`), or model file that `neuropil train` wrote")
    input: str = Field(description="URI of the image volume")
    output: str = Field(description="URI of the boundary map or affinities to write")
    sections: Sections | None = Field(None, description="only these sections, START:STOP")
    max_memory: float | None = Field(
        None, gt=0, description="GB that the process may take; default: 80 % of what is free"
    )
    tile: Triple | None = Field(None, description="output voxels of a pass, z,y,x; default: the fastest that fits")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    precision: Precision = Field("float32", description="of the network")
    augment: bool = Field(False, description="average over the 8 flips and rotations of a section; the same as --tta 8")
    tta: Views = Field(1, description="views to average: 1, 8 (flips and rotations of a section), 16 (upside down too)")
    patch: Triple | None = Field(None, description="U-Nets: voxels z,y,x seen at once; default: as trained")
    overlap: float = Field(0.5, gt=0, lt=1, description="U-Nets: share of a patch that the next one holds too")
    channels: Literal["all", "nearest"] = Field("all", description="U-Nets: affinities to write")
    resample: bool = Field(
        False,
        description="predict at the model's voxel size in y and x; boundary maps come back on the image's grid",
    )
    dtype: Literal["uint8", "float32"] = Field("uint8", description="on disk; uint8 stores values times 255")
    overwrite: bool = Field(False, description="replace an output that exists")
    fresh: bool = Field(False, description="forget unfinished work at the output")

    @property
    def views(self) -> Literal[1, 8, 16]:
        """How many views are averaged, by whichever option."""
        return 8 if self.augment and self.tta == 1 else self.tta


def run(config: Config) -> StageResult:
    """Predict the whole volume, block by block, then write the output in one go."""
    from neuropil.networks import checkpoint
    from neuropil.networks.planning import warn_if_slow

    weights = weights_path(config.weights)
    model = checkpoint.load_model(weights)
    work = sidecar(config.output, "unfinished")
    ours = claimed(work)  # of one that was killed when its output had its name already
    refuse_outputs([config.output], config.input, overwrite=config.overwrite, ours=ours)
    copying = config.model_copy(update={"overwrite": config.overwrite or config.output in ours})
    start = time.monotonic()
    with open_volume(config.input) as source:
        whole = image_box(source, config.sections)
        volume = _at_trained_size(config, model.card, source)
        plan = _plan(config, model, volume)
        parameters = _parameters(config, model) | {"weights": fingerprint(weights), "values of the image": plan.image}
        with open_ledger(work, parameters, fresh=config.fresh) as ledger:
            warn_if_slow(plan.device, config.precision)
            try:
                if model.unet is not None:
                    result = predict_patches(config, model.unet, volume, plan, plan.grid, ledger)
                    claim(ledger.folder, "output", config.output)
                    report = copy_result(copying, model.unet, result, placed(volume, plan.box))
                else:
                    maps = _predict_chain(config, model, volume, plan, ledger)
                    claim(ledger.folder, "output", config.output)
                    report = _write(copying, maps, plan.box.shape, whole.shape, placed(source, whole))
            except (NeuropilError, OSError):
                if not ledger.done:  # nothing to continue from
                    ledger.remove()
                raise
            record = record_of("predict", config, start) | {
                "weights_sha256": parameters["weights"],
                "model": model.name,
                "card": model.card,
                "predicted_at": volume.metadata.voxel_size,
                "voxels": whole.size,
                "steps": ledger.summary(),
                **made("predict", report, [config.input]),
            }
            write_json(sidecar(config.output, "json"), record)
            ledger.remove()
    what, seconds = "affinities" if model.unet else "boundary map", time.monotonic() - start
    rate = whole.size / seconds / 1e3
    text = f"{config.output}: {what} {report.shape} by {model.name}, {seconds:.1f} s, {rate:.1f} kvoxel/s"
    return StageResult(text, {"output": config.output, "shape": report.shape, **record})


def _parameters(config: Config, model: Any) -> dict[str, Any]:
    """Return what decides the result, as the ledger compares it."""
    parameters = dump(config)
    for free in ("overwrite", "fresh", "device", "max_memory", "tile", "output"):
        parameters.pop(free)
    if model.unet:
        parameters.pop("augment")
        return parameters | {"tta": config.views}
    for free in ("dtype", "tta", "patch", "overlap", "channels"):
        parameters.pop(free)
    return parameters | {"augment": config.views > 1}


def _at_trained_size(config: Config, card: Mapping[str, Any], image: Volume) -> Volume:
    """Return the image as it shall be predicted: as it is, or resampled to the nearest size that was trained on.

    Raises
    ------
    InputError : it shall be resampled and one of the two voxel sizes is not known
    """
    trained, size = voxel_sizes(card), image.metadata.voxel_size
    if config.resample and not trained:
        raise InputError(f"resample: the card of {config.weights} does not say at which voxel size it was trained")
    if config.resample and size is None:
        raise InputError(
            f"resample: {image.uri} does not say its voxel size; record it with `neuropil convert --voxel-size Z,Y,X`"
        )
    if not trained or size is None:
        return image
    least, most = np.min(trained, axis=0), np.max(trained, axis=0)
    if config.resample:
        wanted = (size[0], *np.clip(size, least, most).tolist()[1:])
        log.info("%s has voxels of %s nm, predicted at %s", image.uri, _nm(size), _nm(wanted))
        return ResampledVolume(image, size, wanted)
    if any(not a / ALIKE <= have <= b * ALIKE for have, a, b in list(zip(size, least, most))[1:]):
        log.warning(
            "%s has voxels of %s nm, %s was trained at %s: expect a poor map; --resample predicts at the model's size",
            image.uri, _nm(size), config.weights, " to ".join(dict.fromkeys(map(_nm, (least, most)))),
        )  # fmt: skip
    return image


def _nm(size: Iterable[float]) -> str:
    return "×".join(f"{length:.3g}" for length in size)


@dataclass(frozen=True)
class Plan:
    """What is settled before any work: the part, its sections' statistics and their hash, where it runs, patches."""

    box: Box
    statistics: Any
    image: str
    device: Any
    grid: Any


def _plan(config: Config, model: Any, volume: Volume) -> Plan:
    """Check model and volume, and measure the sections.

    Raises
    ------
    InputError : no image, smaller than the field of view, NaN, weights that are not a whole model, options that do not
        fit it
    """
    from neuropil.networks.checkpoint import pick_device
    from neuropil.networks.sampling import SectionStatistics

    box = image_box(volume, config.sections)
    grid = patch_grid(config, model.unet, model.card, box) if model.unet else None
    if grid is None:
        check_chain(config, model, box)
    device = pick_device(config.device)
    for network in model.networks:
        network.to(device)
    with finite(volume.uri):
        statistics = SectionStatistics.of(lambda z: volume.read(_section(box, z))[0], box.shape[0])
    measured = statistics.mean.tobytes() + statistics.deviation.tobytes()
    return Plan(box, statistics, hashlib.sha256(measured).hexdigest(), device, grid)


def check_chain(config: Config, model: Any, box: Box) -> None:
    """Refuse a chain that cannot run alone, a volume too small for it, and options of U-Nets."""
    from neuropil.networks import inference

    networks = [net.architecture for net in model.networks]
    if config.patch is not None or config.overlap != 0.5 or config.channels != "all" or config.views == 16:
        raise InputError(
            f"patch, overlap, channels and 16 views are for U-Nets; '{model.name}' predicts a boundary map"
        )
    if [net.streams for net in networks] != [1, *[2] * (len(networks) - 1)]:
        raise InputError(
            f"{config.weights} holds '{model.name}', which needs another network's map;"
            " give the model.safetensors of its run"
        )
    for net in networks:
        inference.check_extent(net, box.shape)
    if config.tile is not None and min(config.tile) < 1:
        raise InputError(f"tile must be positive; got {config.tile}")


def tiles_of(config: Config, model: Any, plan: Plan, folder: Place) -> list[Any]:
    """Plan each network's tiles; those of unfinished work stay, so that its blocks and their rounding do.

    Raises
    ------
    InputError : too little memory for the smallest tile
    """
    from neuropil.networks.planning import TilePlan, device_memory, plan_tiles

    path, place = folder / "tiles.json", f"{plan.device} {config.precision} {config.tile}"
    if path.exists():
        kept = json.loads(path.read_text())
        if kept["place"] == place:
            return [TilePlan.from_dict(one) for one in kept["plans"]]
    most = config.max_memory * 1e9 if config.max_memory else None
    passes, plans = config.views, []
    for network in model.networks:
        one = plan_tiles(
            network, plan.box.shape, device_memory(plan.device, most),
            precision=config.precision, passes=passes, tile=config.tile,
        )  # fmt: skip
        log.info(
            "%s: %d tiles of %s on %s, about %s, activations of %.2f GB",
            network.architecture.name, one.blocks, one.tile, plan.device, duration(one.seconds), one.memory / 1e9,
        )  # fmt: skip
        plans.append(one)
    write_json(path, {"place": place, "plans": [one.to_dict() for one in plans]})
    return plans


def _predict_chain(config: Config, model: Any, volume: Volume, plan: Plan, ledger: Ledger) -> Path:
    """Run the networks in turn; each writes its map into a file of the ledger's folder, and the next reads it."""
    from neuropil.networks import inference

    box, shape = plan.box, plan.box.shape

    def image(part: Box) -> NDArray[np.float32]:
        return np.asarray(plan.statistics.apply(volume.read(part.shift(box.start)), part.slices[0]))

    sources: list[inference.Source] = [image]
    for index, (network, tiles) in enumerate(zip(model.networks, tiles_of(config, model, plan, ledger.folder))):
        name = f"{index + 1}-{network.architecture.name}"
        maps = scratch(ledger, name, shape, "float32")
        read = partial(inference.read_halo, network.architecture, tuple(sources), shape)
        forms, precision = tiles.forms, config.precision
        with inference.Predictor(network, precision=precision, augment=config.views > 1, forms=forms) as predictor:
            run_blocks(ledger, name, list(grid(Box.of_shape(shape), tiles.tile)), read, predictor, partial(put, maps))
        sources = [image, partial(_cut, maps)]
    return maps


def _cut(maps: Path, part: Box) -> NDArray[np.float32]:
    return np.array(np.load(maps, mmap_mode="r")[part.slices])


def _section(box: Box, z: int) -> Box:
    return Box((box.start[0] + z, *box.start[1:]), (box.start[0] + z + 1, *box.stop[1:]))


def _write(
    config: Config, maps: Path, small: tuple[int, ...], shape: tuple[int, ...], place: dict[str, Any]
) -> CopyReport:
    """Copy the finished map into the output, a block at a time, from the shape it was made in to the input's."""

    def stored(part: Box) -> NDArray[Any]:
        values = resample(partial(_cut, maps), small, shape, part).clip(0, 1)
        return np.rint(values * 255).astype(np.uint8) if config.dtype == "uint8" else values

    source = ComputedVolume(shape, config.dtype, stored)
    scale = 1 / 255 if config.dtype == "uint8" else None
    return write_volume(config.output, source, kind="boundary", place=place, overwrite=config.overwrite, scale=scale)
