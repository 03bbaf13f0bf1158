"""Prediction and training step of the paper's networks in each form, against the plain port and the machine's peak.

    python benchmarks/engine/run.py [--quick] [--json FILE]

The plain port is conv3d and max_pool3d, dilated, as most would write it. All run the same weights on the same input and
take turns; figures are medians. kvoxel/s counts output voxels. GFLOP/s counts the minimal algorithm (each feature voxel
of the patch once, a training step three times); the peak is a 3x3 convolution of 64 maps, measured in the same run.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from math import gcd, prod
from pathlib import Path

import torch
from torch.nn import functional

from neuropil.networks.architecture import N4, VD2D, VD2D3D, Conv, Pool
from neuropil.networks.network import STREAMS, DenseNetwork, _key
from neuropil.networks.tuning import peak, tune

PATCHES = {"n4": (1, 200, 200), "vd2d": (1, 150, 150), "vd2d3d": (1, 100, 100)}
LARGE = (1, 256, 256)  # prediction is free to choose its patch; the port gets the paper's


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


def fragmented(architecture) -> list[int]:
    """Give each layer the most fragments it allows: ZNNi's max-pooling fragments."""
    return [gcd(*dilation[1:]) for dilation in architecture.dilations]


def measure(architecture, repeats: int, best: float, large: bool) -> tuple[list[str], dict[str, float]]:
    """Time one network; return the lines of the table and the figures for the JSON."""
    name, patch = architecture.name, PATCHES[architecture.name]
    network = DenseNetwork(architecture)
    plain = PlainPort(network)
    lines, figures = [], {}
    for phase in ("infer", "train"):
        free = phase == "infer" and large
        chosen = LARGE if free else patch
        plans = {edge: tune(architecture, edge, training=phase == "train") for edge in {patch, chosen}}
        cases = {
            f"plain port {patch}": (plain, patch, {}),
            f"whole {patch}": (network, patch, {}),
            f"fragments {patch}": (network, patch, {"fragments": fragmented(architecture)}),
            f"tuned {patch}": (network, patch, {"fragments": plans[patch].fragments}),
        }
        if free:
            cases[f"tuned {LARGE}"] = (network, LARGE, {"fragments": plans[LARGE].fragments})
        times: dict[str, list[float]] = {case: [] for case in cases}
        for turn in range(repeats + 1):
            for case, (net, edge, form) in cases.items():
                taken = seconds(work(architecture, network, net, edge, form, phase))
                if turn:
                    times[case].append(taken)
        median = {case: statistics.median(taken) for case, taken in times.items()}
        rate = {case: prod(edge) / median[case] for case, (_, edge, _) in cases.items()}
        port = next(iter(cases))
        for case, (_, edge, _) in cases.items():
            done = sum(step.operations for step in plans[edge].steps) * (3 if phase == "train" else 1)
            speed = done / median[case] / 1e9
            lines.append(
                f"{name:7} {phase:6} {case:26} {1e3 * median[case]:9.1f} {rate[case] / 1e3:9.1f} {speed:8.0f}"
                f" {100 * speed / best:7.0f} {rate[case] / rate[port]:7.2f}"
            )
        tuned = f"tuned {chosen}"
        figures[f"{name}_{phase}_vs_naive"] = rate[tuned] / rate[port]
        if phase == "infer":
            done = sum(step.operations for step in plans[chosen].steps)
            figures[f"{name}_infer_pct_peak"] = 100 * done / median[tuned] / 1e9 / best
        forms = [median[f"{form} {patch}"] for form in ("whole", "fragments", "tuned")]
        figures[f"{name}_{phase}_tuner_vs_best"] = forms[2] / min(forms)
    return lines, figures


def work(architecture, network, net, patch, form, phase):
    """Return the call that is timed."""
    shape = [p + f - 1 for p, f in zip(patch, architecture.field_of_view)]
    inputs = [torch.randn(1, 1, *shape) for _ in range(architecture.streams)]
    target = torch.randint(0, 2, (1, *patch))

    def infer() -> None:
        net.eval()
        with torch.inference_mode():
            net(inputs, **form)

    def train() -> None:
        net.train()
        functional.cross_entropy(net(inputs, **form), target).backward()
        network.zero_grad()

    return infer if phase == "infer" else train


def check(architecture) -> None:
    """All forms must agree before anything is timed."""
    network = DenseNetwork(architecture).eval()
    inputs = [torch.randn(1, 1, *(f + 7 for f in architecture.field_of_view)) for _ in range(architecture.streams)]
    with torch.no_grad():
        theirs = PlainPort(network).eval()(inputs)
        for form in ({}, {"fragments": fragmented(architecture)}):
            assert (network(inputs, **form) - theirs).abs().max() < 1e-4


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats; only VD2D at the large patch")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    best = peak()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads,")
    print(
        f"torch {torch.__version__}, float32, load {os.getloadavg()[0]:.1f}, peak {best:.0f} GFLOP/s", file=sys.stdout
    )
    print(
        f"{'net':7} {'phase':6} {'form, patch':26} {'ms':>9} {'kvoxel/s':>9} {'GFLOP/s':>8} {'% peak':>7} {'ratio':>7}"
    )
    figures: dict[str, float] = {"peak_gflops": best}
    for architecture in (N4, VD2D, VD2D3D):
        check(architecture)
        lines, more = measure(architecture, 2 if args.quick else 9, best, not args.quick or architecture == VD2D)
        print("\n".join(lines), flush=True)
        figures |= more
    figures["tuner_vs_best"] = max(value for key, value in figures.items() if key.endswith("_tuner_vs_best"))
    for name, value in figures.items():
        print(f"{name:32} {value:8.2f}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
