"""Run trained networks densely over a volume: image in, boundary map out.

The output has the input's size (borders are mirrored). A recursive pair runs as one model. Stopped at any moment, the
same command continues.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuropil.blockwise import Ledger, run_blocks
from neuropil.config import Sections, StageConfig, dump
from neuropil.errors import InputError, NeuropilError
from neuropil.files import write_json
from neuropil.geometry import Box, grid
from neuropil.stages import StageResult
from neuropil.stages.common import (
    ComputedVolume,
    fingerprint,
    finite,
    image_box,
    placed,
    refuse_outputs,
    sidecar,
    versions,
    write_volume,
)
from neuropil.volume import Volume, open_volume
from neuropil.volume.base import storage_errors

EXAMPLES = [
    "neuropil predict --weights runs/vnc/model.safetensors --input stack.tif --output boundary.h5:map",
    "neuropil predict --weights vd2d.safetensors --input stack.zarr --output map.zarr --sections 0:20 --max-memory 4",
]
POSITIONAL = ()
log = logging.getLogger("neuropil")


class Config(StageConfig):
    """Fields of [predict]."""

    weights: Path = Field(description="model file (safetensors) that `neuropil train` wrote")
    input: str = Field(description="URI of the image volume")
    output: str = Field(description="URI of the boundary map to write")
    sections: Sections | None = Field(None, description="only these sections, START:STOP")
    max_memory: float = Field(1.0, gt=0, description="GB that network activations may take")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field("float32", description="of the network")
    augment: bool = Field(False, description="average over the 8 flips and rotations of a section")
    dtype: Literal["uint8", "float32"] = Field("uint8", description="on disk; uint8 stores probability times 255")
    overwrite: bool = Field(False, description="replace an output that exists")
    fresh: bool = Field(False, description="forget unfinished work at the output")


def run(config: Config) -> StageResult:
    """Predict the whole volume, block by block, then write the output in one go."""
    from neuropil.networks import checkpoint

    model = checkpoint.load_model(config.weights)
    refuse_outputs([config.output], config.input, overwrite=config.overwrite)
    start = time.monotonic()
    with open_volume(config.input) as volume:
        plan = _plan(config, model, volume)
        # What decides the result; weights or an image that changed make another run.
        parameters = dump(config) | {"weights": fingerprint(config.weights), "values of the image": plan.image}
        for free in ("overwrite", "fresh", "device", "max_memory", "output", "dtype"):
            parameters.pop(free)
        ledger = Ledger(sidecar(config.output, "unfinished"), parameters, fresh=config.fresh)
        try:
            result = _predict_chain(config, model, volume, plan, ledger)
            _write(config, result, placed(volume, plan.box))
        except (NeuropilError, OSError):
            if not ledger.done:  # nothing to continue from
                ledger.remove()
            raise
    seconds = time.monotonic() - start
    record = {
        "config": dump(config),
        "weights_sha256": parameters["weights"],
        "model": model.name,
        "card": model.card,
        "versions": versions(),
        "seconds": round(seconds, 2),
    }
    write_json(sidecar(config.output, "json"), record)
    del result
    ledger.remove()
    shape = plan.box.shape
    rate = plan.box.size / seconds / 1e3
    text = f"{config.output}: boundary map {shape} by {model.name}, {seconds:.1f} s, {rate:.1f} kvoxel/s"
    return StageResult(text, {"output": config.output, "shape": shape, **record})


@dataclass(frozen=True)
class _Plan:
    """What is settled before any work: the part, its sections' statistics and their hash, a tile per network."""

    box: Box
    statistics: Any
    image: str
    tiles: tuple[tuple[int, int, int], ...]
    device: Any


def _plan(config: Config, model: Any, volume: Volume) -> _Plan:
    """Check model and volume, and measure the sections.

    Raises
    ------
    InputError : no image, smaller than the field of view, NaN, too little memory, weights that are not a whole model
    """
    from neuropil.networks import inference
    from neuropil.networks.checkpoint import pick_device
    from neuropil.networks.sampling import SectionStatistics

    box = image_box(volume, config.sections)
    networks = [net.architecture for net in model.networks]
    if [net.streams for net in networks] != [1, *[2] * (len(networks) - 1)]:
        raise InputError(
            f"{config.weights} holds '{model.name}', which needs another network's map;"
            " give the model.safetensors of its run"
        )
    for net in networks:
        inference.check_extent(net, box.shape)
    tiles = tuple(inference.choose_tile(net, box.shape, config.max_memory * 1e9) for net in networks)
    trained, size = model.card.get("voxel_size"), volume.metadata.voxel_size
    if trained and size and not np.allclose(trained, size, rtol=0.2):
        log.warning("the model was trained at %s nm; %s has %s nm (z, y, x)", tuple(trained), volume.uri, size)
    with finite(volume.uri):
        statistics = SectionStatistics.of(lambda z: volume.read(_section(box, z))[0], box.shape[0])
    measured = statistics.mean.tobytes() + statistics.deviation.tobytes()
    return _Plan(box, statistics, hashlib.sha256(measured).hexdigest(), tiles, pick_device(config.device))


def _predict_chain(config: Config, model: Any, volume: Volume, plan: _Plan, ledger: Ledger) -> NDArray[np.float32]:
    """Run the networks in turn; each writes its map into a file of the ledger's folder, and the next reads it."""
    from neuropil.networks import inference

    box, shape = plan.box, plan.box.shape

    def image(part: Box) -> NDArray[np.float32]:
        return np.asarray(plan.statistics.apply(volume.read(part.shift(box.start)), part.slices[0]))

    sources: list[inference.Source] = [image]
    for index, (network, tile) in enumerate(zip(model.networks, plan.tiles)):
        name = f"{index + 1}-{network.architecture.name}"
        maps = _scratch(ledger, name, shape)
        network.to(plan.device)

        def task(part: Box, network: Any = network, maps: Any = maps, inputs: Any = tuple(sources)) -> None:
            maps[part.slices] = inference.predict_box(
                network, inputs, shape, part, precision=config.precision, augment=config.augment
            )
            maps.flush()

        run_blocks(ledger, name, list(grid(Box.of_shape(shape), tile)), task)
        sources = [image, partial(_cut, maps)]
    result: NDArray[np.float32] = maps
    return result


def _cut(maps: NDArray[np.float32], part: Box) -> NDArray[np.float32]:
    return np.asarray(maps[part.slices])


def _section(box: Box, z: int) -> Box:
    return Box((box.start[0] + z, *box.start[1:]), (box.start[0] + z + 1, *box.stop[1:]))


def _scratch(ledger: Ledger, name: str, shape: tuple[int, ...]) -> Any:
    """Open the float32 file that holds one network's map while the run lasts.

    A new one is written full of zeros: writing into a mapped hole of the file would kill the process on a full disk.
    """
    path = ledger.folder / f"{name}.npy"
    if not path.exists():
        ledger.forget(name)
        part = path.with_suffix(".part")
        with storage_errors(str(path), "write"), part.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(shape[0]):
                file.write(bytes(4 * shape[1] * shape[2]))
        os.replace(part, path)
    return np.load(path, mmap_mode="r+")


def _write(config: Config, result: NDArray[np.float32], place: dict[str, Any]) -> None:
    """Copy the finished map into the output, a block at a time."""

    def stored(part: Box) -> NDArray[Any]:
        values = np.asarray(result[part.slices])
        return np.rint(values * 255).astype(np.uint8) if config.dtype == "uint8" else values

    source = ComputedVolume(result.shape, config.dtype, stored)
    scale = 1 / 255 if config.dtype == "uint8" else None
    write_volume(config.output, source, kind="boundary", place=place, overwrite=config.overwrite, scale=scale)
