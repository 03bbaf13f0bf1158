"""Forward and training step of the paper's networks, against the plain port (conv3d and max_pool3d, dilated).

    python benchmarks/networks/run.py [--quick] [--json FILE]

Both run the same weights on the same input, alternating; figures are medians. kvoxel/s counts output voxels.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional

from neuropil.networks.architecture import N4, VD2D, VD2D3D, Conv, Pool
from neuropil.networks.network import STREAMS, DenseNetwork, _key

PATCHES = {"n4": (1, 200, 200), "vd2d": (1, 150, 150), "vd2d3d": (1, 100, 100)}


class PlainPort(torch.nn.Module):
    """The same network as most people would write it."""

    def __init__(self, network: DenseNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs):
        architecture, weights = self.network.architecture, self.network.weights
        streams = list(inputs)
        for layer, dilation in zip(architecture.layers, architecture.dilations):
            if isinstance(layer, Pool):
                streams = [functional.max_pool3d(x, layer.size, 1, dilation=dilation) for x in streams]
            elif isinstance(layer, Conv):
                joined = layer.name == architecture.join
                made = []
                for x, stream in zip(streams, STREAMS):
                    weight = weights[_key(f"{layer.name}{stream}.weight")]
                    bias = None if joined and stream else weights[_key(f"{layer.name}{stream}.bias")]
                    made.append(functional.conv3d(x, weight, bias, dilation=dilation))
                streams = [sum(made)] if joined else made
                if layer.activation == "relu":
                    streams = [functional.relu(x) for x in streams]
            else:
                streams = [functional.dropout(x, layer.rate, self.training) for x in streams]
        return streams[0]


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(architecture, repeats: int) -> dict[str, float]:
    patch = PATCHES[architecture.name]
    network = DenseNetwork(architecture)
    plain = PlainPort(network)
    shape = [p + f - 1 for p, f in zip(patch, architecture.field_of_view)]
    inputs = [torch.randn(1, 1, *shape) for _ in range(architecture.streams)]
    target = torch.randint(0, 2, (1, *patch))

    def forward(net) -> None:
        net.eval()
        with torch.inference_mode():
            net(inputs)

    def step(net) -> None:
        net.train()
        functional.cross_entropy(net(inputs), target).backward()
        network.zero_grad()

    with torch.no_grad():
        assert (network.eval()(inputs) - plain.eval()(inputs)).abs().max() < 1e-4
    times: dict[str, list[float]] = {}
    for turn in range(repeats + 1):
        for phase, work in (("forward", forward), ("train", step)):
            for name, net in (("plain", plain), ("neuropil", network)):
                taken = seconds(lambda work=work, net=net: work(net))
                if turn:
                    times.setdefault(f"{phase} {name}", []).append(taken)
    median = {key: statistics.median(values) for key, values in times.items()}
    voxels = patch[0] * patch[1] * patch[2]
    figures = {}
    for phase in ("forward", "train"):
        ours, theirs = median[f"{phase} neuropil"], median[f"{phase} plain"]
        figures[f"{architecture.name} {phase}: times faster than plain port"] = theirs / ours
        figures[f"{architecture.name} {phase}: kvoxel/s"] = voxels / ours / 1e3
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads,")
    print(f"torch {torch.__version__}, float32, load {os.getloadavg()[0]:.1f}", file=sys.stdout)
    figures: dict[str, float] = {}
    for architecture in (N4, VD2D, VD2D3D):
        figures |= measure(architecture, 3 if args.quick else 9)
    for name, value in figures.items():
        print(f"{name:50} {value:8.2f}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
