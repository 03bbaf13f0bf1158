"""What `neuropil run` can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from neuropil.config import Names, Ranges, StageConfig, Triple, Views
from neuropil.errors import ConfigError
from neuropil.machine import Precision
from neuropil.segmentation.affinities import Rule
from neuropil.stages.methods import Method, MethodConfig


class Slurm(StageConfig):
    """Table [run.slurm]: what a job is asked for. A job runs as many workers as it has cores."""

    jobs: int = Field(1, gt=0, description="how many jobs")
    cores: int = Field(1, gt=0, description="of a job; each is one worker")
    memory: float = Field(4, gt=0, description="GB of a job, shared by its workers")
    walltime: str = Field("01:00:00", description="after which a job ends; what is undone then is done by the others")
    queue: str | None = Field(None, description="partition")
    account: str | None = Field(None, description="that is charged")
    directives: Names = Field([], description="further #SBATCH lines, such as --gres=gpu:1")
    prologue: Names = Field([], description="lines of shell before the worker starts, such as module load cuda")
    interface: str | None = Field(None, description="network that workers and this process see each other on, as ib0")


class Config(MethodConfig):
    """Fields of [run]."""

    input: str = Field(description="URI of affinities or a boundary map; with weights, of the image")
    output: str = Field(description="URI of the segmentation to write (uint64)")
    weights: Path | None = Field(None, description="model, as for predict; its prediction is then segmented")
    prediction: str | None = Field(None, description="URI; also keep what was predicted")
    box: Ranges | None = Field(None, description="only this part, Z0:Z1,Y0:Y1,X0:X1, as if there were nothing else")
    fragments: str | None = Field(None, description="URI; also write the fragments, which neuropil view corrects by")
    block: Triple = Field((64, 512, 512), description="voxels z,y,x of a block; decides memory, not the result")
    mask: str | None = Field(None, description="URI of a mask (z, y, x), such as `neuropil defects` writes")
    bridge: int = Field(2, ge=0, description="a voxel that is masked in more sections on end loses its links")
    device: str = Field("auto", description="of the network; auto, cpu, cuda or cuda:N")
    precision: Precision = Field("float32", description="of the network")
    tta: Views = Field(1, description="views to average; as for predict")
    tile: Triple | None = Field(None, description="boundary networks: voxels z,y,x of a pass; default: the fastest")
    patch: Triple | None = Field(None, description="U-Nets: voxels z,y,x seen at once; default: as trained")
    overlap: float = Field(0.5, gt=0, lt=1, description="U-Nets: share of a patch that the next one holds too")
    channels: Literal["all", "nearest"] = Field("nearest", description="U-Nets: affinities to predict")
    method: Method = Field(
        "mean", description="components, size (also called watershed) or mean; all others want the whole in memory"
    )
    per_section: bool = Field(True, description="boundary maps: segment every section by itself")
    rule: Rule = Field("interior", description="boundary maps: how two voxels make a link")
    threshold: float = Field(
        0.5,
        ge=0,
        le=1,
        description="components: interior is where P(boundary) is below; affinities at or above it join",
    )
    low: float = Field(0.3, description="links at or below this affinity do not count")
    high: float = Field(0.999, description="links at or above this affinity always join")
    size: float = Field(256, ge=0, description="fragments below this many voxels are merged ...")
    size_threshold: float = Field(0.3, description="... with a neighbour linked at this affinity or above")
    dust: float = Field(
        256, ge=0, description="segments below this many voxels become background; components: none unless given"
    )
    merge_threshold: float | None = Field(
        None, ge=0, le=1, description="score at or above which segments merge: the mean affinity, or the strongest"
    )
    levels: int = Field(0, ge=0, le=16, description="coarser copies to add to the output; zarr and precomputed")
    executor: Literal["dask", "serial"] = Field(
        "dask", description="processes, or one block after the other in this one"
    )
    workers: int | None = Field(None, gt=0, description="processes; all cores if not given")
    worker_memory: float | None = Field(
        None, gt=0, description="GB at which a worker is started anew; default: its share"
    )
    block_timeout: float | None = Field(
        None, gt=0, description="seconds after which a block counts as hung and is tried again"
    )
    only: str | None = Field(
        None, description="STEP:Z,Y,X; redo this block of unfinished work alone, in this process, to look for errors"
    )
    scheduler: str | None = Field(None, description="address of a running Dask cluster, which sees the same files")
    cluster: Literal["slurm"] | None = Field(None, description="have a batch system start workers; see [run.slurm]")
    slurm: Slurm = Field(Slurm(), description="what is asked of it")
    overwrite: bool = Field(False, description="replace an output that exists")
    fresh: bool = Field(False, description="forget unfinished work at the output")


DECIDES_NOTHING = (
    "output", "fragments", "executor", "workers", "worker_memory", "block_timeout", "only", "scheduler", "cluster",
    "slurm", "device", "levels", "overwrite", "fresh",
)  # fmt: skip
"""Fields that may change while work is unfinished."""

IN_MEMORY = {
    "quantile": "the histograms of contacts that quantiles need are not carried from block to block",
    "mutex": "a strong repulsion anywhere may forbid a merge, so that no block can tell",
    "multicut": "it weighs all contacts of the volume at once",
    "seeded": "a seed may reach any voxel, so that no block can tell",
}
"""Why a method does not work in blocks."""


def method_of(config: Config) -> str:
    """Return the method under one of its names.

    Raises
    ------
    ConfigError : it does not work in blocks
    """
    if config.method in IN_MEMORY:
        raise ConfigError(
            f"method '{config.method}' does not work in blocks: {IN_MEMORY[config.method]}; take 'mean', 'size' or"
            f" 'components', or neuropil segment --method {config.method} on a crop that fits into memory"
        )
    return "size" if config.method == "watershed" else config.method
