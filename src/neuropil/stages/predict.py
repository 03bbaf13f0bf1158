"""Run trained networks densely over a volume: image in, boundary map out.

The output has the input's size (borders are mirrored). A recursive pair runs as one model. Stopped at any moment, the
same command continues.
"""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuropil.blockwise import Ledger, run_blocks
from neuropil.config import Sections, StageConfig, dump
from neuropil.errors import InputError, OutputExists
from neuropil.geometry import Box, grid
from neuropil.stages import StageResult
from neuropil.stages.common import fingerprint, image_box, placed, sidecar, versions
from neuropil.volume import Volume, create_volume, exists, open_volume

EXAMPLES = [
    "neuropil predict --weights runs/vnc/model.safetensors --input stack.tif --output boundary.h5:map",
    "neuropil predict --weights vd2d.safetensors --input stack.zarr --output map.zarr --sections 0:20 --max-memory 4",
]
POSITIONAL = ()


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
    with open_volume(config.input) as volume:
        box = image_box(volume, config.sections)
        for net in model.networks:
            _check(net.architecture, box)
        if exists(config.output) and not config.overwrite:
            raise OutputExists(f"output {config.output} exists; give --overwrite to replace it")
        start = time.monotonic()
        # What decides the result; a weights file that changed is another run.
        parameters = dump(config) | {"weights": fingerprint(config.weights)}
        for free in ("overwrite", "fresh", "device", "max_memory", "output"):
            parameters.pop(free)
        ledger = Ledger(sidecar(config.output, "unfinished"), parameters, fresh=config.fresh)
        result = _predict_chain(config, model, volume, box, ledger)
        _write(config, result, volume, box)
    seconds = time.monotonic() - start
    record = {
        "config": dump(config),
        "weights_sha256": parameters["weights"],
        "model": model.name,
        "card": model.card,
        "versions": versions(),
        "seconds": round(seconds, 2),
    }
    sidecar(config.output, "json").write_text(json.dumps(record, indent=1, default=str) + "\n")
    del result
    ledger.remove()
    rate = box.size / seconds / 1e3
    text = f"{config.output}: boundary map {box.shape} by {model.name}, {seconds:.1f} s, {rate:.1f} kvoxel/s"
    return StageResult(text, {"output": config.output, "shape": box.shape, **record})


def _check(architecture: Any, box: Box) -> None:
    from neuropil.networks.inference import check_extent

    check_extent(architecture, box.shape)


def _predict_chain(config: Config, model: Any, volume: Volume, box: Box, ledger: Ledger) -> NDArray[np.float32]:
    """Run the networks in turn; each writes its map into a file of the ledger's folder, and the next reads it."""
    from neuropil.networks import inference
    from neuropil.networks.checkpoint import pick_device
    from neuropil.networks.sampling import SectionStatistics

    device = pick_device(config.device)
    statistics = SectionStatistics.of(lambda z: volume.read(_section(box, z))[0], box.shape[0])

    def image(part: Box) -> NDArray[np.float32]:
        return statistics.apply(volume.read(part.shift(box.start)), part.slices[0])

    sources: list[inference.Source] = [image]
    for index, network in enumerate(model.networks):
        name = f"{index + 1}-{network.architecture.name}"
        maps = _scratch(ledger.folder / f"{name}.npy", box.shape)
        network.to(device)
        tile = inference.choose_tile(network.architecture, box.shape, config.max_memory * 1e9)

        def task(part: Box, network: Any = network, maps: Any = maps, inputs: Any = tuple(sources)) -> None:
            maps[part.slices] = inference.predict_box(
                network, inputs, box.shape, part, precision=config.precision, augment=config.augment
            )
            maps.flush()

        blocks = list(grid(Box.of_shape(box.shape), tile))
        run_blocks(ledger, name, blocks, task)
        sources = [image, partial(_cut, maps)]
    result: NDArray[np.float32] = maps
    return result


def _cut(maps: NDArray[np.float32], part: Box) -> NDArray[np.float32]:
    return np.asarray(maps[part.slices])


def _section(box: Box, z: int) -> Box:
    return Box((box.start[0] + z, *box.start[1:]), (box.start[0] + z + 1, *box.stop[1:]))


def _scratch(path: Path, shape: tuple[int, ...]) -> Any:
    """Open the float32 file that holds one network's map while the run lasts."""
    if path.exists():
        return np.load(path, mmap_mode="r+")
    needed, free = 4 * int(np.prod(shape)), os.statvfs(path.parent).f_bavail * os.statvfs(path.parent).f_frsize
    if needed > free:
        raise InputError(f"the disk of {path.parent} must have {needed / 1e6:.0f} MB free; it has {free / 1e6:.0f} MB")
    part = path.with_suffix(".part")
    np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape).flush()
    os.replace(part, path)
    return np.load(path, mmap_mode="r+")


def _write(config: Config, result: NDArray[np.float32], volume: Volume, box: Box) -> None:
    """Copy the finished map into the output, some sections at a time."""
    output = create_volume(
        config.output,
        shape=box.shape,
        dtype=config.dtype,
        kind="boundary",
        scale=1 / 255 if config.dtype == "uint8" else None,
        overwrite=config.overwrite,
        **placed(volume, box),
    )
    with output:
        step = max(1, output.chunk_shape[-3] if output.chunk_shape else 1)
        for part in grid(Box.of_shape(box.shape), (step, *box.shape[1:])):
            values = np.asarray(result[part.slices])
            output.write(part, np.rint(values * 255).astype(np.uint8) if config.dtype == "uint8" else values)
