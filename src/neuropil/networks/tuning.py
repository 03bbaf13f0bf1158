"""Which form each layer of a network runs fastest in, measured on this machine at the shapes of the run.

The forms are equal up to rounding: a layer with dilation d may run on whole sections with sparse filters, or on
fragments (p² images a section, one per offset, with dilation d/p; for p = d the dense filters of ZNNi's max-pooling
fragments), and a convolution by minimal filtering or, with large filters, by Fourier transforms. Splitting and merging
cost a copy, so the choice is the shortest path through (layer, fragments), with the measured milliseconds as lengths.
Layers timed one by one do not add up to a pass, so the path is then timed as a whole beside the uniform plans, and the
fastest is kept. Plans are kept in the user's cache, one file per network, shape, precision, device, number of threads
and versions.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from itertools import product
from typing import Any, TypeVar

import torch
from torch import Tensor

from neuropil import machine
from neuropil.files import cache_folder, write_json
from neuropil.networks.architecture import Architecture, Conv, Place, Pool, Size
from neuropil.networks.layers import convolve, dropout, max_filter
from neuropil.networks.layout import fold, fragmented
from neuropil.networks.network import DenseNetwork, Form
from neuropil.networks.room_size import room_on
from neuropil.networks.rooms import Room
from neuropil.networks.winograd import usually_faster, worth_trying
from neuropil.progress import track

K = TypeVar("K", bound=Hashable)
FFT_FROM = 1000  # operations per voxel and map, in or out, above which transforms are worth a try
FORMS = 6  # counts up when forms change, so that plans are made anew
HOPELESS = 1.5  # times slower, at the machine's peak, than what was measured: not tried
REPEATS, ENOUGH = 8, 0.3  # at most so many timings of a form; none but a second more after so many seconds


@dataclass(frozen=True)
class Step:
    """One layer of a plan.

    Attributes
    ----------
    name : of the layer
    form : chosen
    milliseconds : of the layer in this form; in a mixed plan with splitting or merging before it (the last, after it)
    operations : see `Place`
    bytes : of its inputs and outputs
    """

    name: str
    form: Form
    milliseconds: float
    operations: float
    bytes: float


@dataclass(frozen=True)
class Plan:
    """The form of every layer; `forms` is what `DenseNetwork` takes.

    Attributes
    ----------
    steps : the layers
    milliseconds, default : of a whole pass (or training step) in these forms, and in the usual ones; of those a lower
        bound where they have no chance
    """

    steps: tuple[Step, ...]
    milliseconds: float
    default: float

    @property
    def forms(self) -> tuple[Form, ...]:
        """Form of each layer."""
        return tuple(step.form for step in self.steps)


def tune(
    architecture: Architecture,
    patch: Size,
    *,
    training: bool = False,
    spacing: int = 1,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Plan:
    """Measure the forms of every layer and return the fastest combination; from the cache where it was measured before.

    Parameters
    ----------
    architecture : of the network
    patch : output voxels z, y, x of a pass
    training : measure forward and backward pass, else the forward pass
    spacing : of the labelled voxels; see `DenseNetwork.forward`
    device : "cpu", "cuda" ...
    dtype : of the activations

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
        "dtype": str(dtype),
        "threads": torch.get_num_threads(),
        "versions": [torch.__version__, version("neuropil"), FORMS],
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    path = cache_folder() / "plans" / f"{name}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # no cache, or not one of ours: measure
        kept = json.loads(path.read_text())
        if kept["key"] == key:
            steps = tuple(Step(**{**step, "form": Form(*step["form"])}) for step in kept["steps"])
            return Plan(steps, kept["milliseconds"], kept["default"])
    run = _Run(architecture, patch, training, spacing, torch.device(device), dtype)
    plan = run.fastest(run.shortest())
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"key": key, **asdict(plan)})
    return plan


def usual_forms(architecture: Architecture, device: torch.device, dtype: torch.dtype) -> tuple[Form, ...]:
    """Return the forms that are most likely fast, without measuring; none where direct ones are."""
    forms = [
        Form(1, "winograd")
        if isinstance(layer, Conv) and usually_faster(architecture.weight_shape(layer.name), device, dtype)
        else Form()
        for layer in architecture.layers
    ]
    return tuple(forms) if Form(1, "winograd") in forms else ()


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{machine.cpu_name()} {torch.backends.cpu.get_cpu_capability()}"


@dataclass(frozen=True)
class _Run:
    """What is measured: one network at one shape."""

    architecture: Architecture
    patch: Size
    training: bool
    spacing: int
    device: torch.device
    dtype: torch.dtype

    def shortest(self) -> list[Step]:
        """Find the shortest path through (layer, form); one may split further at any layer, or merge all."""
        best: dict[int, tuple[float, list[Step]]] = {1: (0.0, [])}
        places = self.architecture.places(self.patch, self.spacing)
        for place in track(places, f"timing forms of {self.architecture.name}", len(places)):
            times = self.times(place)
            pairs = {(a, b.fragments) for a, b in product(best, times) if a != b.fragments}
            moves = {(a, b): self.moving(place, a, b) for a, b in pairs if b == 1 or b % a == 0}
            reached: dict[int, tuple[float, list[Step]]] = {}
            for form, own in times.items():
                for before, (spent, steps) in best.items():
                    if before != form.fragments and (before, form.fragments) not in moves:
                        continue
                    cost = own + moves.get((before, form.fragments), 0.0)
                    if form.fragments not in reached or spent + cost < reached[form.fragments][0]:
                        step = Step(place.name, form, cost, place.operations, self.bytes(place))
                        reached[form.fragments] = (spent + cost, [*steps, step])
            best = reached
        merging = {parts: self.moving(places[-1], parts, 1) if parts > 1 else 0.0 for parts in best}
        end = min(best, key=lambda parts: best[parts][0] + merging[parts])
        *steps, last = best[end][1]
        return [*steps, replace(last, milliseconds=last.milliseconds + merging[end])]

    def times(self, place: Place) -> dict[Form, float]:
        """Time the forms of a layer, transforms first: direct ones of very large filters have no chance against it."""
        found: dict[Form, float] = {}
        for form in sorted(self.candidates(place), key=lambda form: form.method == "direct"):
            if not (found and form.method == "direct" and self.least([place]) > HOPELESS * min(found.values())):
                found[form] = self.layer(place, form)
        return found

    def candidates(self, place: Place) -> list[Form]:
        """Forms worth timing: the fragments that the dilation allows, and what suits the filters."""
        common = math.gcd(place.dilation[1], place.dilation[2])
        forms = [Form(parts) for parts in range(1, common + 1) if common % parts == 0]
        if isinstance(place.layer, Conv):
            shape = (place.maps_out, _runs(place)[1], *place.layer.size)
            forms += [Form(1, "winograd")] * worth_trying(shape, self.device, self.dtype)
            forms += [Form(1, "fft")] * _large(place)
        return forms

    def least(self, places: Sequence[Place]) -> float:
        """Milliseconds that the operations of direct forms take at the machine's peak; of large filters only."""
        operations = sum(place.operations for place in places if _large(place)) * (3 if self.training else 1)
        return 1e-6 * operations / peak(str(self.device), self.dtype) if operations else 0.0

    def fastest(self, steps: Sequence[Step]) -> Plan:
        """Time the path as a whole beside uniform plans: the usual forms, direct ones, and fragments throughout."""
        places = self.architecture.places(self.patch, self.spacing)
        direct = tuple(Form() for _ in places)
        default = usual_forms(self.architecture, self.device, self.dtype) or direct
        most = tuple(Form(max(form.fragments for form in self.candidates(place))) for place in places)
        found = tuple(step.form for step in steps)
        network = DenseNetwork(self.architecture).to(self.device).train(self.training)
        shape, leaves = (1, 1, *self.architecture.input_shape(self.patch)), list(network.parameters())
        inputs = [torch.randn(shape, device=self.device).to(self.dtype) for _ in range(self.architecture.streams)]
        room, passes = Room(), {}
        for forms in (found, default, direct, most):
            size = room_on(self.device, self.architecture, self.patch, self.dtype, forms)
            passes[forms] = partial(self.placed, room, size, partial(network, inputs, self.spacing, forms))
        times = self.milliseconds({found: passes[found]}, leaves)
        if self.least(places) <= HOPELESS * times[found]:
            times = self.milliseconds(passes, leaves)
        chosen = min(times, key=lambda forms: times[forms])
        if chosen != found:
            apart = [self.layer(place, form) for place, form in zip(places, chosen)]
            steps = [replace(step, form=form, milliseconds=own) for step, form, own in zip(steps, chosen, apart)]
        return Plan(tuple(steps), times[chosen], times.get(default, self.least(places)))

    def layer(self, place: Place, form: Form) -> float:
        """Milliseconds of one layer in one form, for all streams."""
        sections, images, parts = self.sections(place, form.fragments), form.fragments**2, form.fragments
        dilation = (place.dilation[0], place.dilation[1] // parts, place.dilation[2] // parts)
        layer, (copies, maps) = place.layer, _runs(place)
        weights: list[Tensor] = []
        if isinstance(layer, Conv):
            shapes = [(layer.maps, maps, *layer.size), (layer.maps,)]
            weights = [torch.randn(shape, device=self.device).to(self.dtype) for shape in shapes]

        def forward() -> Tensor:
            if isinstance(layer, Conv):
                return convolve(sections, images, weights[0], weights[1], dilation, layer.activation, form.method)
            if isinstance(layer, Pool):
                return max_filter(sections, images, layer.size, dilation, place.step)
            return dropout(sections, layer.rate, self.training)

        leaves = [one.requires_grad_() for one in (sections, *weights)] if self.training else []
        size = int(2 * self.bytes(place))  # what a max-filter makes first along x has its place, too
        return copies * self.milliseconds({form: partial(self.placed, Room(), size, forward)}, leaves)[form]

    def placed(self, room: Room, size: int, call: Callable[[], Tensor]) -> Tensor:
        """Make a pass, in so many bytes of a room; a training step has none."""
        with room.of(0 if self.training else size):
            return call()

    def moving(self, place: Place, before: int, after: int) -> float:
        """Milliseconds of splitting or merging what a layer reads, and in training of its gradient."""
        sections, splits = self.sections(place, before), (before,) if before > 1 else ()
        leaves = [sections.requires_grad_()] if self.training else []

        def move() -> Tensor:
            return fragmented(sections, splits, after, place.shape_in[1:])[0]

        return _runs(place)[0] * self.milliseconds({after: move}, leaves)[after]

    def sections(self, place: Place, parts: int) -> Tensor:
        z, y, x = place.shape_in
        shape = (1, _runs(place)[1], z * parts**2, -(-y // parts), -(-x // parts))
        return fold(torch.randn(shape, device=self.device).to(self.dtype))

    def bytes(self, place: Place) -> float:
        copies, maps = _runs(place)
        voxels = maps * math.prod(place.shape_in) + place.maps_out * math.prod(place.shape_out)
        return float(self.dtype.itemsize * copies * voxels)

    def milliseconds(self, passes: Mapping[K, Callable[[], Tensor]], leaves: Sequence[Tensor]) -> dict[K, float]:
        """Time forward passes, or forward and backward with respect to `leaves` where training, by turns."""
        if not self.training:
            with torch.inference_mode():
                return _least(passes, self.device)
        outer = {name: torch.ones_like(forward().detach()) for name, forward in passes.items()}

        def step(name: K) -> Any:
            return torch.autograd.grad(passes[name](), leaves, outer[name], allow_unused=True)

        return _least({name: partial(step, name) for name in passes}, self.device)


def _large(place: Place) -> bool:
    """Whether a filter is so large that transforms are worth a try."""
    if not isinstance(place.layer, Conv):
        return False
    _, maps = _runs(place)
    return 2 * math.prod(place.layer.size) * maps * place.maps_out / (maps + place.maps_out) > FFT_FROM


def _runs(place: Place) -> tuple[int, int]:
    """How often a layer runs and on how many maps: once per stream, but a join once on both streams' maps."""
    return (1, place.maps_in * place.streams) if place.joined else (place.streams, place.maps_in)


def _least(calls: Mapping[K, Callable[[], Any]], device: torch.device) -> dict[K, float]:
    """Milliseconds of calls: the least of a few by turns, two where they take long; the first is not counted.

    The least, since what else the machine does only adds. Memory is kept from the second on, as in runs.
    """
    taken: dict[K, list[float]] = {name: [] for name in calls}
    for turn in range(REPEATS + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                taken[name].append(time.perf_counter() - start)
        machine.keep_memory(True)
        if turn > 1 and max(map(sum, taken.values())) > ENOUGH:
            break
    machine.keep_memory(False)
    return {name: 1e3 * min(times) for name, times in taken.items()}


def large_convolution(device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[float, Callable[[], Tensor]]:
    """Return operations and call of a convolution that a machine is fastest at: 3×3, 64 maps, channels last."""
    place, channels, edge = torch.device(device), 64, 256
    sections = fold(torch.randn(1, channels, 1, edge, edge, device=place).to(dtype))
    weight = torch.randn(channels, channels, 1, 3, 3, device=place).to(dtype)

    def call() -> Tensor:
        with torch.inference_mode():
            return convolve(sections, 1, weight, None, (1, 1, 1))

    return 2.0 * 9 * channels**2 * (edge - 2) ** 2, call


@cache
def peak(device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Measure the GFLOP/s of `large_convolution`: what this machine can do at best."""
    operations, call = large_convolution(device, dtype)
    return operations / _least({"": call}, torch.device(device))[""] / 1e6
