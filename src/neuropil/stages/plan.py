"""Tell what a pipeline will take, or how a network runs on this machine.

Of a pipeline.toml with a table [run]: blocks, memory of a worker, time, disk, files of each step of `neuropil run`,
measured on a small part of the data; what cannot fit is refused. Of a network: the fastest form of each layer, its
time, its share of the peak.

Layers are timed at the shapes of one output patch; what was measured is kept, so that a second call is instant. Of a
U-Net one whole patch is timed, and the plan is that of a volume: patches, memory, time.
"""

from __future__ import annotations

from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from neuropil.config import StageConfig, Triple, Views
from neuropil.errors import ConfigError, InputError
from neuropil.machine import Precision
from neuropil.progress import duration
from neuropil.stages import StageResult
from neuropil.stages.run_config import Config as RunConfig

if TYPE_CHECKING:
    from neuropil.networks.rsunet import RSUNet
    from neuropil.networks.tuning import Plan

EXAMPLES = [
    "neuropil plan pipeline.toml",
    "neuropil plan --weights vd2d3d-sstem --shape 1,256,256",
    "neuropil plan --weights runs/demo/model.safetensors --shape 1,256,256 --training --spacing 8",
    "neuropil plan --weights affinity-ssem --shape 100,1024,1024 --max-memory 4",
]
POSITIONAL = ()
TABLES = ("run",)


class Config(StageConfig):
    """Fields of [plan]."""

    run: RunConfig | None = Field(
        None, description="what `neuropil run` is told; it is planned where no weights are given"
    )
    weights: Path | None = Field(
        None, description="packaged model (`neuropil models`), or model file that `neuropil train` wrote"
    )
    shape: Triple | None = Field(None, description="output voxels of a pass, z,y,x; U-Nets: of a volume")
    training: bool = Field(False, description="a training step instead of prediction")
    spacing: int = Field(1, gt=0, description="of the voxels learnt from; see train")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    precision: Precision = Field("float32", description="auto, float32, bfloat16 or float16")
    patch: Triple | None = Field(None, description="U-Nets: voxels z,y,x seen at once; default: as trained")
    tta: Views = Field(1, description="U-Nets: views to average, 1, 8 or 16")
    max_memory: float | None = Field(None, gt=0, description="U-Nets: GB that predicting may take; as of predict")


def run(config: Config) -> StageResult:
    """Plan the pipeline, or each network of the model, and print a table."""
    if config.weights is None or config.shape is None:
        return _pipeline(config)
    from neuropil.networks import checkpoint, planning, tuning

    if min(config.shape) < 1:
        raise InputError(f"shape must be positive; got {config.shape}")
    model = checkpoint.load_model(config.weights)
    device = checkpoint.pick_device(config.device)
    planning.warn_if_slow(device, config.precision)
    if model.unet is not None:
        return _unet(config, config.shape, model.unet.to(device), model.card, device)
    if config.patch or config.tta > 1 or config.max_memory:
        raise InputError(f"patch, tta and max_memory are for U-Nets; '{model.name}' predicts a boundary map")
    dtype = planning.dtype_of(model.chain[0].to(device), config.precision)
    best = tuning.peak(str(device), dtype)
    text = [f"peak of 3x3 convolutions here, {str(dtype).removeprefix('torch.')}: {best:.0f} GFLOP/s"]
    data: dict[str, Any] = {"peak_gflops": best, "networks": {}}
    for network in model.chain:
        architecture, shape = network.architecture, config.shape
        plan = tuning.tune(
            architecture, shape, training=config.training, spacing=config.spacing, device=str(device), dtype=dtype
        )
        text += ["", f"{architecture.name}, {'training step' if config.training else 'prediction'} of {shape}"]
        text += _table(plan, best, 3 if config.training else 1)
        data["networks"][architecture.name] = asdict(plan)
        if not config.training:
            memory = planning.holes(device) * planning.peak_memory(architecture, shape, dtype.itemsize, plan.forms)
            text.append(f"memory of activations at the peak: {memory / 1e6:.0f} MB")
            data["networks"][architecture.name]["bytes"] = memory
    return StageResult("\n".join(text), data)


def _pipeline(config: Config) -> StageResult:
    """Plan a run, if the file says one."""
    if config.run is None or config.weights is not None or config.shape is not None:
        raise ConfigError("plan needs a pipeline.toml with a table [run], or --weights and --shape of a network")
    from neuropil.stages.plan_pipeline import plan_pipeline

    return plan_pipeline(config.run)


def _unet(config: Config, shape: tuple[int, int, int], unet: RSUNet, card: dict[str, Any], device: Any) -> StageResult:
    """Say how a volume of the given shape is predicted, and time one patch."""
    from neuropil.networks import patch_plan, planning
    from neuropil.networks.patches import PatchGrid

    if config.training or config.spacing > 1:
        raise InputError(f"training and spacing are for boundary networks; '{unet.architecture.name}' is a U-Net")
    architecture = unet.architecture
    grid = PatchGrid(shape, config.patch or patch_plan.default_patch(architecture, card))
    room = planning.device_memory(device, config.max_memory * 1e9 if config.max_memory else None)
    itemsize, channels = planning.dtype_of(unet, config.precision).itemsize, len(architecture.offsets)
    plan = patch_plan.plan_patches(
        architecture, grid, room, channels=channels, itemsize=itemsize, stored=1, views=config.tta
    )
    once = patch_plan.seconds_of_patch(unet, grid.patch, views=config.tta, precision=config.precision)
    seconds, voxels = once * plan.passes, prod(shape)
    text = [
        f"{architecture.name}, volume of {shape}, {channels} affinities, {config.tta} views, on {device}",
        f"{plan.passes} patches of {grid.patch}, half overlapping, {once:.2f} s each",
        f"sums are kept for columns of {plan.column[0]}×{plan.column[1]}; memory at most {plan.memory / 1e9:.2f} GB",
        f"about {duration(seconds)}, {voxels / seconds / 1e3:.1f} kvoxel/s",
    ]
    data = {"patch": grid.patch, "patches": plan.passes, "seconds_of_patch": once, "seconds": seconds}
    return StageResult("\n".join(text), data | {"column": plan.column, "bytes": plan.memory})


def _table(plan: Plan, best: float, passes: int) -> list[str]:
    """One line a layer; a training step does each convolution three times."""
    lines = [f"{'layer':10} {'form':14} {'ms':>8} {'GFLOP/s':>8} {'% of peak':>9} {'MB':>8}"]
    for step in plan.steps:
        parts = step.form.fragments
        form = "whole" if parts == 1 else f"{parts}x{parts} fragments"
        form = {"fft": "transforms", "winograd": "Winograd"}.get(step.form.method, form)
        rate = passes * step.operations / step.milliseconds / 1e6 if step.operations else 0.0
        share = f"{rate:8.0f} {100 * rate / best:9.0f}" if rate else f"{'-':>8} {'-':>9}"
        lines.append(f"{step.name:10} {form:14} {step.milliseconds:8.2f} {share} {step.bytes / 1e6:8.1f}")
    operations = passes * sum(step.operations for step in plan.steps)
    rate = operations / plan.milliseconds / 1e6
    lines.append(f"{'in all':10} {'':14} {plan.milliseconds:8.2f} {rate:8.0f} {100 * rate / best:9.0f}")
    return [*lines, f"in the usual forms, without measuring: {plan.default:.2f} ms"]
