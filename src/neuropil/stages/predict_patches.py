"""The part of `neuropil predict` that runs a U-Net: image in, affinities out, in overlapping patches.

Blocks are slabs of sections between two patches' beginnings; what is on disk is finished, so a run that was stopped
computes one layer of patches again at most. Columns follow the memory, the result does not depend on them.
"""

from __future__ import annotations

import json
import logging
import os
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuropil.blockwise import Ledger, run_blocks
from neuropil.errors import InputError
from neuropil.files import Place, write_json
from neuropil.geometry import Box
from neuropil.progress import Progress
from neuropil.stages.common import ComputedVolume, write_volume
from neuropil.volume import Volume
from neuropil.volume.base import storage_errors
from neuropil.volume.copying import CopyReport
from neuropil.volume.uri import parse_uri

if TYPE_CHECKING:
    from neuropil.networks.patch_plan import PatchPlan
    from neuropil.networks.patches import PatchGrid
    from neuropil.networks.rsunet import RSUNet
    from neuropil.stages.predict import Config, Plan

log = logging.getLogger("neuropil")


def patch_grid(config: Config, unet: RSUNet, card: dict[str, Any], box: Box) -> PatchGrid:
    """Return where the patches lie, and refuse what U-Nets do not do.

    Raises
    ------
    InputError : an option of boundary networks, an output of one channel, or patches that do not fit the network
    """
    from neuropil.networks.patch_plan import default_patch
    from neuropil.networks.patches import PatchGrid, network_shape

    if config.tile is not None:
        raise InputError("tile is for boundary networks; a U-Net takes --patch")
    if parse_uri(config.output).format == "sections":
        raise InputError(f"output {config.output} is a folder of sections, which holds one channel; give HDF5 or zarr")
    z, y, x = box.shape
    grid = PatchGrid((z, y, x), config.patch or default_patch(unet.architecture, card), config.overlap)
    network_shape(unet.architecture, grid, config.views)
    for channel in wanted_channels(config, unet):
        grid.totals(unet.architecture.offsets[channel])
    return grid


def predict_patches(config: Config, unet: RSUNet, volume: Volume, plan: Plan, grid: PatchGrid, ledger: Ledger) -> Path:
    """Predict what is not done yet; return the file (c, z, y, x) of values as they are stored."""
    from neuropil.networks.patches import PatchPredictor

    name, box, channels = f"1-{unet.architecture.name}", plan.box, wanted_channels(config, unet)
    columns = _plan_columns(config, unet, plan, grid, ledger.folder)
    made = scratch(ledger, name, (len(channels), *grid.shape), config.dtype)

    def read(block: Box) -> tuple[Box, NDArray[np.float32]]:
        part = grid.region(block)
        return block, np.asarray(plan.statistics.apply(volume.read(part.shift(box.start)), part.slices[0]))

    with PatchPredictor(
        unet, grid, channels=channels, views=config.views, precision=config.precision, stored=config.dtype
    ) as predictor:
        blocks = grid.blocks(columns.column)
        left = grid.passes([block for block in blocks if (name, block) not in ledger.done])
        predictor.progress = Progress(name, columns.passes, max(0, columns.passes - left))
        run_blocks(ledger, name, blocks, read, lambda given: predictor(*given), partial(put, made), predictor.progress)
    return made


def copy_result(config: Config, unet: RSUNet, made: Path, place: dict[str, Any]) -> CopyReport:
    """Copy the finished affinities into the output, a block at a time."""
    shape = np.load(made, mmap_mode="r").shape
    source = ComputedVolume(shape, config.dtype, lambda box: np.array(np.load(made, mmap_mode="r")[:, *box.slices]))
    offsets = [unet.architecture.offsets[channel] for channel in wanted_channels(config, unet)]
    scale = 1 / 255 if config.dtype == "uint8" else None
    return write_volume(
        config.output, source, kind="affinities", place=place, overwrite=config.overwrite, scale=scale, offsets=offsets
    )


def wanted_channels(config: Config, unet: RSUNet) -> list[int]:
    """Numbers of the channels that are wanted."""
    offsets = unet.architecture.offsets
    chosen = [c for c, offset in enumerate(offsets) if config.channels == "all" or sum(map(abs, offset)) == 1]
    if not chosen:
        raise InputError(f"channels: '{unet.architecture.name}' predicts no nearest links, only {offsets}")
    return chosen


def _plan_columns(config: Config, unet: RSUNet, plan: Plan, grid: PatchGrid, folder: Place) -> PatchPlan:
    """Plan the columns; those of unfinished work stay, so that its blocks do.

    Raises
    ------
    InputError : too little memory for the patches
    """
    from neuropil.networks.patch_plan import PatchPlan, plan_patches
    from neuropil.networks.planning import device_memory, dtype_of

    path = folder / "tiles.json"
    if path.exists():
        kept = json.loads(path.read_text())
        return PatchPlan(tuple(kept["column"]), kept["passes"], kept["memory"])
    most = config.max_memory * 1e9 if config.max_memory else None
    columns = plan_patches(
        unet.architecture, grid, device_memory(plan.device, most), channels=len(wanted_channels(config, unet)),
        itemsize=dtype_of(unet, config.precision).itemsize, stored=np.dtype(config.dtype).itemsize, views=config.views,
    )  # fmt: skip
    log.info(
        "%s: %d patches of %s on %s, %d views each, in columns of %d×%d, at most %.2f GB",
        unet.architecture.name, columns.passes, grid.patch, plan.device, config.views, *columns.column,
        columns.memory / 1e9,
    )  # fmt: skip
    write_json(path, vars(columns))
    return columns


def put(made: Path, block: Box, values: NDArray[Any]) -> None:
    """Store one block; the file is mapped only meanwhile, so that what was written does not stay in memory."""
    with storage_errors(str(made), "write"):
        file = np.load(made, mmap_mode="r+")
        file[..., *block.slices] = values
        file.flush()


def scratch(ledger: Ledger, name: str, shape: tuple[int, ...], dtype: str) -> Path:
    """Make sure of the file that holds what one network makes while the run lasts.

    A new one is written full of zeros: writing into a mapped hole of the file would kill the process on a full disk.
    """
    path = Path(str(ledger.folder), f"{name}.npy")  # in a local folder, as it is mapped
    if not path.exists():
        ledger.forget(name)
        part = path.with_suffix(".part")
        with storage_errors(str(path), "write"), part.open("wb") as file:
            header = {"descr": np.dtype(dtype).newbyteorder("<").str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(prod(shape[:-2])):
                file.write(bytes(np.dtype(dtype).itemsize * shape[-2] * shape[-1]))
        os.replace(part, path)
    return path
