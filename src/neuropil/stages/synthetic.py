"""Make synthetic serial-section electron microscopy with perfect truth.

Writes datasets raw, labels (neurite ids, 0 = membrane) and membrane.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuropil.config import StageConfig, Triple, TripleNm
from neuropil.errors import InputError, OutputExists
from neuropil.stages import StageResult
from neuropil.synthetic import make_tissue
from neuropil.synthetic.defects import DEFECTS
from neuropil.volume import create_volume, exists

EXAMPLES = [
    "neuropil synthetic tissue.h5 --shape 20,512,512 --seed 0",
    "neuropil synthetic iso.zarr --shape 200,200,200 --voxel-size 10,10,10 --defects",
]
POSITIONAL = ("output",)


class Config(StageConfig):
    """Fields of [synthetic]."""

    output: str = Field(
        description="file.h5, x.zarr or another container; raw, labels and membrane are written into it"
    )
    shape: Triple = Field((20, 512, 512), description="voxels z,y,x")
    seed: int = Field(0, ge=0, description="the same seed gives the same tissue")
    voxel_size: TripleNm = Field((50.0, 4.0, 4.0), description="nm z,y,x")
    defects: bool = Field(False, description="spoil one section each: missing, crack, fold, stain, blur")
    touching: bool = Field(False, description="labels meet in the middle of membranes instead of being 0 there")
    overwrite: bool = Field(False, description="replace what is there")


def run(config: Config) -> StageResult:
    """Make the tissue and write it."""
    if ":" in config.output.rpartition("/")[2]:
        raise InputError(
            f"output must name a file or folder, its datasets are raw, labels and membrane; got {config.output}"
        )
    separator = ":" if config.output.endswith((".h5", ".hdf5", ".hdf")) else "/"
    targets = {name: f"{config.output}{separator}{name}" for name in ("raw", "labels", "membrane")}
    for uri in targets.values():
        if not config.overwrite and exists(uri):
            raise OutputExists(f"{uri} exists already; give --overwrite to replace it")
    tissue = make_tissue(
        config.shape,
        rng=np.random.default_rng(config.seed),
        voxel_size=config.voxel_size,
        defects=DEFECTS if config.defects else (),
        membrane=not config.touching,
    )
    arrays: dict[str, NDArray[Any]] = {
        "raw": tissue.image,
        "labels": tissue.ids,
        "membrane": tissue.membrane.astype(np.uint8),
    }
    kinds = {"raw": "image", "labels": "labels", "membrane": "mask"}
    if config.defects:
        arrays["defects"], kinds["defects"] = tissue.defects.astype(np.uint8), "mask"
        targets["defects"] = f"{config.output}{separator}defects"
    for name, array in arrays.items():
        with create_volume(
            targets[name],
            shape=array.shape,
            dtype=array.dtype,
            voxel_size=tissue.voxel_size,
            kind=kinds[name],  # type: ignore[arg-type]  # one of the literals above
            overwrite=config.overwrite,
        ) as volume:
            volume.write(None, array)
    neurites = int(np.count_nonzero(np.unique(tissue.ids)))
    size = "×".join(str(n) for n in config.shape)
    membrane = f"{100 * tissue.membrane.mean():.0f} % membrane"
    return StageResult(
        f"{config.output}: {size} voxels, {neurites} neurites, {membrane}; datasets {', '.join(arrays)}",
        {"outputs": {name: targets[name] for name in arrays}, "neurites": neurites, "shape": list(config.shape)},
    )
