"""Show how a network runs on this machine: the fastest form of each layer, its time, its share of the peak.

Layers are timed at the shapes of one output patch; what was measured is kept, so that a second call is instant.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from neuropil.config import StageConfig, Triple
from neuropil.errors import InputError
from neuropil.machine import Precision
from neuropil.stages import StageResult

if TYPE_CHECKING:
    from neuropil.networks.tuning import Plan

EXAMPLES = [
    "neuropil plan --weights vd2d3d-sstem --shape 1,256,256",
    "neuropil plan --weights runs/demo/model.safetensors --shape 1,256,256 --training --spacing 8",
]
POSITIONAL = ()


class Config(StageConfig):
    """Fields of [plan]."""

    weights: Path = Field(description="packaged model (`neuropil models`), or model file that `neuropil train` wrote")
    shape: Triple = Field(description="output voxels of a pass, z,y,x")
    training: bool = Field(False, description="a training step instead of prediction")
    spacing: int = Field(1, gt=0, description="of the voxels learnt from; see train")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    precision: Precision = Field("float32", description="auto, float32, bfloat16 or float16")


def run(config: Config) -> StageResult:
    """Plan each network of the model and print its table."""
    from neuropil.networks import checkpoint, planning, tuning

    if min(config.shape) < 1:
        raise InputError(f"shape must be positive; got {config.shape}")
    model = checkpoint.load_model(config.weights)
    device = checkpoint.pick_device(config.device)
    planning.warn_if_slow(device, config.precision)
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
            memory = planning.peak_memory(architecture, shape, dtype.itemsize, plan.forms)
            text.append(f"memory of activations at the peak: {memory / 1e6:.0f} MB")
            data["networks"][architecture.name]["bytes"] = memory
    return StageResult("\n".join(text), data)


def _table(plan: Plan, best: float, passes: int) -> list[str]:
    """One line a layer; a training step does each convolution three times."""
    lines = [f"{'layer':10} {'form':14} {'ms':>8} {'GFLOP/s':>8} {'% of peak':>9} {'MB':>8}"]
    for step in plan.steps:
        parts = step.form.fragments
        form = "whole" if parts == 1 else f"{parts}x{parts} fragments"
        form = "transforms" if step.form.method == "fft" else form
        rate = passes * step.operations / step.milliseconds / 1e6 if step.operations else 0.0
        share = f"{rate:8.0f} {100 * rate / best:9.0f}" if rate else f"{'-':>8} {'-':>9}"
        lines.append(f"{step.name:10} {form:14} {step.milliseconds:8.2f} {share} {step.bytes / 1e6:8.1f}")
    operations = passes * sum(step.operations for step in plan.steps)
    rate = operations / plan.milliseconds / 1e6
    lines.append(f"{'in all':10} {'':14} {plan.milliseconds:8.2f} {rate:8.0f} {100 * rate / best:9.0f}")
    return [*lines, f"all layers in the default form: {plan.default:.2f} ms"]
