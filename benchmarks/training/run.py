"""What VD2D has learnt after some seconds: optimisers, dense patches and lattices, on the demo's real sections.

    python benchmarks/training/run.py [--quick] [--json FILE]
    python benchmarks/training/run.py --augmentation [--quick] [--json FILE]

With --augmentation: what patches for affinities cost, by function, and how many a second are drawn. Else each line is
one run on the demo's training crop of the nerve cord (it must be in NEUROPIL_DATA), seed 0. Errors are of pixels, best
over thresholds, on the demo's validation and test crops. Seconds are of training alone.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from augmentation import measure

from neuropil import machine
from neuropil.geometry import Box
from neuropil.metrics.pixel_error import best_pixel_error
from neuropil.networks.architecture import VD2D
from neuropil.networks.boundary_objective import validate
from neuropil.networks.inference import Predictor, read_halo
from neuropil.networks.network import DenseNetwork
from neuropil.networks.planning import Precision
from neuropil.networks.recipe import Recipe
from neuropil.networks.sampling import BOUNDARY, Sampler, Stack
from neuropil.networks.training import train
from neuropil.segmentation.boundary import boundary_from_labels
from neuropil.stages.demo import VNC
from neuropil.volume import open_volume

MUON = Recipe("muon", 0.005, schedule="cosine", warmup=10, grey=0.3, checkpoint_seconds=1e9)
ADAMW = replace(MUON, optimizer="adamw", learning_rate=0.002)
HALF = replace(MUON, precision="bfloat16")
RUNS = [  # recipe, patch, spacing, updates
    (ADAMW, 64, 1, 150),
    (MUON, 64, 1, 150),
    (MUON, 64, 1, 400),
    (MUON, 256, 16, 200),
    (MUON, 256, 8, 200),
    (MUON, 128, 8, 300),
    (MUON, 128, 4, 200),
    *([(HALF, 64, 1, 400), (HALF, 256, 8, 200)] if machine.has_bfloat16() else []),
]


def stacks() -> dict[str, Stack]:
    """Read the demo's crops of the nerve cord."""
    file = "data://vnc/vnc_x000-703.h5"
    with open_volume(f"{file}:raw") as raw, open_volume(f"{file}:labels") as labels:
        image, target = raw.read(), boundary_from_labels(labels.read(), interior_above=128).astype("uint8")
    return {part: Stack(part, image[box.slices], target[box.slices]) for part, box in VNC.items()}


def predicted(network: DenseNetwork, stack: Stack, precision: Precision) -> float:
    """Pixel error of a stack, best over thresholds, predicted in some precision."""
    whole = Box.of_shape(stack.image.shape)
    inputs = read_halo(network.architecture, [lambda box: stack.inputs(1)[0][box.slices]], whole.shape, whole)
    made = Predictor(network, precision=precision)(inputs)
    return float(best_pixel_error(made, stack.target == BOUNDARY).error)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three of the runs, a minute and a half; fewer patches")
    parser.add_argument("--augmentation", action="store_true", help="only what patches for affinities cost")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    figures = measure(args.quick) if args.augmentation else train_all(args.quick)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


def train_all(quick: bool) -> dict[str, float]:
    """Train each in turn and print a line for it."""
    data = stacks()
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, VD2D, seed 0")
    print(f"{'run':46} {'seconds':>8} {'validation':>11} {'test':>8}")
    figures: dict[str, float] = {}
    for recipe, edge, spacing, updates in [RUNS[i] for i in (1, 4, -1)] if quick else RUNS:
        network = DenseNetwork(VD2D, 0)
        sampler = Sampler([data["train"]], VD2D, (1, edge, edge), 0, grey=recipe.grey, spacing=spacing)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            train(network, sampler, folder=Path(folder), updates=updates, recipe=recipe, card={})
            seconds = time.perf_counter() - start
        errors = [validate(network, [data[part]]).pixel_error for part in ("validation", "test")]
        name = f"{recipe.optimizer}, {edge}x{edge} spacing {spacing}, {updates} updates"
        name += ", bfloat16" if recipe is HALF else ""
        print(f"{name:46} {seconds:8.0f} {errors[0]:11.4f} {errors[1]:8.4f}", flush=True)
        figures |= {f"{name}: seconds": seconds, f"{name}: validation": errors[0], f"{name}: test": errors[1]}
    if machine.has_bfloat16():
        exact, half = (predicted(network, data["test"], precision) for precision in ("float32", "bfloat16"))
        print(f"the last network's test error predicted in float32 {exact:.5f}, in bfloat16 {half:.5f}")
        figures |= {"predicted in float32": exact, "predicted in bfloat16": half}
    return figures


if __name__ == "__main__":
    main()
