"""Which form each layer of a network runs fastest in, measured on this machine at the shapes of the run.

The forms are equal up to rounding: a layer with dilation d may run on whole sections with sparse filters, or on
fragments (p² images a section, one per offset, with dilation d/p; for p = d the dense filters of ZNNi's max-pooling
fragments). Splitting and merging cost a copy, so the choice is the shortest path through (layer, fragments), with the
measured milliseconds as lengths. Plans are kept in the user's cache, one file per network, shape, device, number of
threads and version of torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuropil.files import cache_folder, write_json
from neuropil.networks.architecture import Architecture, Conv, Place, Pool, Size
from neuropil.networks.dense import activate, convolve, dropout, fold, fragmented, max_filter

REPEATS, ENOUGH = 5, 0.2  # at most so many timings of a form; none more after so many seconds


@dataclass(frozen=True)
class Step:
    """One layer of a plan.

    Attributes
    ----------
    name : of the layer
    fragments : a side; 1 = whole sections
    milliseconds : of the layer in this form, splitting or merging before it included (for the last, after it too)
    whole : milliseconds in the form 1
    operations : floating-point operations of the layer (2 per multiplication), counted once per voxel it makes
    bytes : float32 of its inputs and outputs
    """

    name: str
    fragments: int
    milliseconds: float
    whole: float
    operations: float
    bytes: float


@dataclass(frozen=True)
class Plan:
    """The form of every layer; `fragments` is what `DenseNetwork` takes."""

    steps: tuple[Step, ...]

    @property
    def fragments(self) -> tuple[int, ...]:
        """Fragments a side, layer by layer."""
        return tuple(step.fragments for step in self.steps)

    @property
    def milliseconds(self) -> float:
        """Sum over the layers."""
        return sum(step.milliseconds for step in self.steps)


def tune(
    architecture: Architecture, patch: Size, *, training: bool = False, spacing: int = 1, device: str = "cpu"
) -> Plan:
    """Measure the forms of every layer and return the fastest combination; from the cache where it was measured before.

    Parameters
    ----------
    architecture : of the network
    patch : output voxels z, y, x of a pass
    training : measure forward and backward pass, else the forward pass
    spacing : of the labelled voxels; see `DenseNetwork.forward`
    device : "cpu", "cuda" ...

    Returns
    -------
    the plan; its times add up to the pass only about, since each layer is timed by itself

    Examples
    --------
    >>> from neuropil.networks.architecture import Architecture
    >>> small = Architecture("small", ("conv1 1x3x3 2", "pool1 1x2x2", "conv2 1x3x3 2", "output 1x1x1 2 linear"))
    >>> [step.name for step in tune(small, (1, 8, 8)).steps]
    ['conv1', 'pool1', 'conv2', 'output']
    """
    key = {
        "architecture": architecture.to_dict(),
        "patch": list(patch),
        "training": training,
        "spacing": spacing,
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    path = (
        cache_folder() / "plans" / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]}.json"
    )
    with suppress(OSError, ValueError, KeyError, TypeError):  # no cache, or not one of ours: measure
        kept = json.loads(path.read_text())
        if kept["key"] == key:
            return Plan(tuple(Step(**step) for step in kept["steps"]))
    plan = _shortest(architecture.places(patch, spacing), training, torch.device(device))
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"key": key, "steps": [asdict(step) for step in plan.steps]})
    return plan


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    names = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in names if line.startswith("model name")), "cpu")
    return f"{model} {torch.backends.cpu.get_cpu_capability()}"


def _shortest(places: Sequence[Place], training: bool, device: torch.device) -> Plan:
    """Find the shortest path through (layer, fragments); one may split further at any layer, or merge all."""
    best: dict[int, tuple[float, list[Step]]] = {1: (0.0, [])}
    for place in places:
        times = {parts: _milliseconds(place, parts, training, device) for parts in _forms(place)}
        pairs = [(a, b) for a, b in product(best, times) if a != b and (b == 1 or b % a == 0)]
        moves = {pair: _moving(place, *pair, device) for pair in pairs}
        reached: dict[int, tuple[float, list[Step]]] = {}
        for parts, own in times.items():
            for before, (spent, steps) in best.items():
                if before != parts and (before, parts) not in moves:
                    continue
                cost = own + moves.get((before, parts), 0.0)
                if parts not in reached or spent + cost < reached[parts][0]:
                    step = Step(place.name, parts, cost, times[1], _operations(place), _bytes(place))
                    reached[parts] = (spent + cost, [*steps, step])
        best = reached
    merging = {parts: _moving(places[-1], parts, 1, device) if parts > 1 else 0.0 for parts in best}
    end = min(best, key=lambda parts: best[parts][0] + merging[parts])
    *steps, last = best[end][1]
    return Plan((*steps, replace(last, milliseconds=last.milliseconds + merging[end])))


def _forms(place: Place) -> list[int]:
    """Numbers of fragments a side that the dilation allows."""
    common = math.gcd(place.dilation[1], place.dilation[2])
    return [parts for parts in range(1, common + 1) if common % parts == 0]


def _runs(place: Place) -> tuple[int, int]:
    """How often a layer runs and on how many maps: once per stream, but a join once on both streams' maps."""
    return (1, place.maps_in * place.streams) if place.joined else (place.streams, place.maps_in)


def _operations(place: Place) -> float:
    if not isinstance(place.layer, Conv):
        return 0.0
    maps = place.maps_in * place.streams * place.maps_out
    return 2.0 * maps * math.prod(place.layer.size) * math.prod(place.shape_out)


def _bytes(place: Place) -> float:
    copies, maps = _runs(place)
    return 4.0 * copies * (maps * math.prod(place.shape_in) + place.maps_out * math.prod(place.shape_out))


def _input(place: Place, parts: int, device: torch.device) -> Tensor:
    z, y, x = place.shape_in
    return fold(torch.randn(1, _runs(place)[1], z * parts**2, -(-y // parts), -(-x // parts), device=device))


def _milliseconds(place: Place, parts: int, training: bool, device: torch.device) -> float:
    """Time one layer in one form, for all streams."""
    sections, images = _input(place, parts, device), parts**2
    dilation = (place.dilation[0], place.dilation[1] // parts, place.dilation[2] // parts)
    layer, (copies, maps) = place.layer, _runs(place)
    weights: list[Tensor] = []
    if isinstance(layer, Conv):
        weights = [
            torch.randn(layer.maps, maps, *layer.size, device=device),
            torch.zeros(layer.maps, device=device),
        ]

    def forward() -> Tensor:
        if isinstance(layer, Conv):
            return activate(convolve(sections, images, weights[0], weights[1], dilation), layer.activation)
        if isinstance(layer, Pool):
            return max_filter(sections, images, layer.size, dilation, place.step)
        return dropout(sections, layer.rate, training)

    if not training:
        with torch.inference_mode():
            return copies * _median(forward, device)
    leaves = [one.requires_grad_() for one in (sections, *weights)]
    outer = torch.ones_like(forward().detach())
    return copies * _median(lambda: torch.autograd.grad(forward(), leaves, outer, allow_unused=True), device)


def _moving(place: Place, before: int, after: int, device: torch.device) -> float:
    sections = _input(place, before, device)
    splits = (before,) if before > 1 else ()
    with torch.inference_mode():
        return _runs(place)[0] * _median(lambda: fragmented(sections, splits, after, place.shape_in[1:]), device)


def _median(call: Callable[[], Any], device: torch.device) -> float:
    """Milliseconds of a call: the median of a few, fewer where one takes long; the first is not counted."""
    taken: list[float] = []
    for turn in range(REPEATS + 1):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn:
            taken.append(time.perf_counter() - start)
        if sum(taken) > ENOUGH:
            break
    return 1e3 * statistics.median(taken)


def peak(device: str = "cpu") -> float:
    """Measure the GFLOP/s of a large 3×3 convolution, channels last: what this machine can do at best."""
    place = torch.device(device)
    channels, edge = 64, 256
    sections = torch.randn(1, channels, edge, edge, device=place).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 1, 3, 3, device=place)
    with torch.inference_mode():
        taken = _median(lambda: convolve(sections, 1, weight, None, (1, 1, 1)), place)
    return float(2 * 9 * channels**2 * (edge - 2) ** 2 / taken / 1e6)
