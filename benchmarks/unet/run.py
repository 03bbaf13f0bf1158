"""Affinities of a residual U-Net: a pass over one patch in each form, and a whole stack in blended patches.

    python benchmarks/unet/run.py [--quick] [--json FILE]

The plain form is the network as written: conv3d of arrays as torch makes them, batch norms by themselves. Ours folds
batch norms into convolutions, keeps channels last, runs flat convolutions section by section, and has single volumes
convolved by oneDNN. Both have the same weights and take turns; answers are compared first. kvoxel/s of a pass counts a
patch's voxels; of a stack, the stack's voxels once, blended with half overlap. MB is the most that a stack's run holds
beyond what the process held before; foreseen is what the planner said.
"""

import argparse
import json
import os
import platform
import re
import statistics
import time
from pathlib import Path

from neuropil import machine

machine.quiet_threads()  # as the command line does

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

from neuropil.networks.patch_plan import patch_memory  # noqa: E402
from neuropil.networks.patches import PatchGrid, PatchPredictor  # noqa: E402
from neuropil.networks.rsunet import RSUNet, architecture_for  # noqa: E402

NETS = {
    "full": ((30, 6, 6), "full", (18, 160, 160)),
    "small": ((30, 6, 6), "small", (18, 160, 160)),
    "tiny": ((30, 6, 6), "tiny", (18, 160, 160)),
    "cube": ((8, 8, 8), "small", (64, 64, 64)),
}


def plain(network: RSUNet) -> RSUNet:
    """The network as most would write it: the default layout, torch's own choice of convolution."""
    copy = RSUNet(network.architecture)
    copy.load_weights(network.named_weights())
    for module in copy.modules():
        if isinstance(module, nn.Conv3d):
            module.__class__ = nn.Conv3d
            module.weight = nn.Parameter(module.weight.detach().contiguous())
    return copy.eval()


def trained(name: str) -> tuple[RSUNet, tuple[int, int, int]]:
    """A network whose running statistics are of its input."""
    size, breadth, patch = NETS[name]
    network = RSUNet(architecture_for(size, breadth=breadth))
    with torch.no_grad():
        network(torch.randn(1, 1, 8, 64, 64))
    return network.eval(), patch


def taking_turns(calls: dict, turns: int) -> dict:
    """Median seconds of each call; one turn first is not timed."""
    seconds = {name: [] for name in calls}
    with torch.inference_mode():
        for turn in range(turns + 1):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                if turn:
                    seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def passes(name: str, turns: int) -> dict[str, float]:
    """Passes over one patch: plain, ours, ours in bfloat16 where the processor computes in it."""
    network, patch = trained(name)
    image, slow, fast = torch.randn(1, 1, *patch), plain(network), network.folded()
    with torch.inference_mode():
        expected, made = slow(image), fast(image)
        assert float((expected - made).abs().max() / expected.abs().max()) < 1e-4
    calls = {"plain": lambda: slow(image), "ours": lambda: fast(image)}
    if machine.has_bfloat16():
        half = network.folded().to(torch.bfloat16)
        calls["ours_bfloat16"] = lambda: half(image.to(torch.bfloat16))
    taken = taking_turns(calls, turns)
    figures = {f"{name}_{form}_kvoxel_s": image.numel() / 1e3 / seconds for form, seconds in taken.items()}
    return figures | {f"{name}_vs_plain": taken["plain"] / taken["ours"]}


def whole(name: str, shape: tuple[int, int, int]) -> dict[str, float]:
    """A stack of noise in blended patches."""
    network, patch = trained(name)
    grid, image = PatchGrid(shape, patch), np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    foreseen = patch_memory(network.architecture, grid, shape[1:], len(network.architecture.offsets), stored=1)
    machine.release()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, start = machine.resident(), time.perf_counter()
    with PatchPredictor(network, grid, stored="uint8") as predictor:
        for block in grid.blocks(shape[1:]):
            predictor(block, image[grid.region(block).slices])
    seconds = time.perf_counter() - start
    peak = 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) - before
    return {
        f"{name}_stack_kvoxel_s": image.size / 1e3 / seconds,
        f"{name}_stack_patches_s": grid.count / seconds,
        f"{name}_stack_mb": peak / 1e6,
        f"{name}_stack_foreseen_mb": foreseen / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="within three minutes on two cores")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    figures: dict[str, float] = {"cores": os.cpu_count() or 1, "threads": torch.get_num_threads()}
    for name in NETS:
        figures |= passes(name, 3 if args.quick else 9)
    for name in ("small",) if args.quick else tuple(NETS):
        figures |= whole(name, (36, 320, 320) if args.quick else (72, 512, 512))
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}")
    for name, value in figures.items():
        print(f"{name:32} {value:10.2f}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
