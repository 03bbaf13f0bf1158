"""The plain port: the networks as most would write them, and a process that runs one as most would run it.

    python benchmarks/engine/port.py NETWORK Z,Y,X PHASE

answers every line on standard input by one step and the seconds it took. Nothing of neuropil's care for memory and
threads is in that process.
"""

import sys
import time

import torch
from torch.nn import functional

from neuropil.networks.architecture import ARCHITECTURES, Architecture, Conv, Pool
from neuropil.networks.network import STREAMS, DenseNetwork, _key
from neuropil.networks.room_size import room_on
from neuropil.networks.rooms import Room

ZNNI = {"n337": (2, 3, 7, 3), "n537": (4, 5, 7, 3), "n726": (6, 7, 6, 2), "n926": (8, 9, 6, 2)}


def znni(name: str, maps: int) -> Architecture:
    """Give one of ZNNi's networks: first filter, other filters, convolutions, poolings; 3 outputs."""
    first, others, count, pools = ZNNI[name]
    lines = []
    for index in range(count):
        edge, last = (first if index == 0 else others), index == count - 1
        lines.append(f"conv{index + 1} {edge}x{edge}x{edge} " + ("3 linear" if last else str(maps)))
        lines += [f"pool{index + 1} 2x2x2"] if index < pools else []
    return Architecture(f"{name}-{maps}", tuple(lines))


def network_named(name: str) -> Architecture:
    """Give one of the paper's networks, or ZNNi's with a number of maps: n926-16."""
    return ARCHITECTURES[name] if name in ARCHITECTURES else znni(name.split("-")[0], int(name.split("-")[1]))


class PlainPort(torch.nn.Module):
    """The same network as most people would write it."""

    def __init__(self, network: DenseNetwork) -> None:
        super().__init__()
        self.network, self.architecture = network, network.architecture

    def forward(self, inputs):
        architecture, weights = self.architecture, self.network.weights
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


def work(net, patch, form, phase, dtype):
    """Return the call that is timed."""
    architecture = net.architecture
    inputs = [torch.randn(1, 1, *architecture.input_shape(patch)).to(dtype) for _ in range(architecture.streams)]
    target = torch.randint(0, 2, (1, *patch))
    room, size = Room(), 0
    if phase == "infer" and isinstance(net, DenseNetwork):
        size = room_on(torch.device("cpu"), architecture, tuple(patch), dtype, form.get("forms", ()))

    def infer() -> None:
        net.eval()
        with torch.inference_mode(), room.of(size):
            net(inputs, **form)

    def train() -> None:
        net.train()
        functional.cross_entropy(net(inputs, **form).float(), target).backward()
        for parameter in net.parameters():
            parameter.grad = None

    return infer if phase == "infer" else train


def main() -> None:
    """Step on request."""
    name, extents, phase = sys.argv[1:]
    net, patch = PlainPort(DenseNetwork(network_named(name))), tuple(map(int, extents.split(",")))
    call = work(net, patch, {}, phase, torch.float32)
    for _ in sys.stdin:
        start = time.perf_counter()
        call()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
