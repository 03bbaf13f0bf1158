"""Which tile a volume is predicted in: as many voxels a second as the memory allows, and how long that will take.

A tile is a valid pass over its box and the field of view around it, so large tiles waste least on the margin (ZNNi).
Memory is not estimated from the layers' sizes alone: the allocator is imitated, which keeps what is freed and fills the
smallest hole that is large enough. `benchmarks/engine/run.py --slab` prints what is foreseen beside what was measured.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from math import ceil, prod
from typing import Any

import torch
from torch import nn

from neuropil import machine
from neuropil.errors import InputError
from neuropil.machine import Precision
from neuropil.networks.architecture import Architecture, Dropout, Pool, Size
from neuropil.networks.fft import bytes_of_transforms
from neuropil.networks.network import DenseNetwork, Form
from neuropil.networks.tuning import tune, usual_forms
from neuropil.networks.winograd import bytes_of_tiles

log = logging.getLogger("neuropil")

TILE_EDGES = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
TILE_DEPTHS = (1, 2, 4, 8, 16)
NEAR_BEST = 1.1  # of tiles that cost about the same, the one that needs least memory: its pages are soon reused
TRAFFIC = 50  # a voxel read or written costs as much as so many multiplications
UNSEEN, APART = 1.4, 30e6  # what holes and the library's buffers may add to what is foreseen: a factor and bytes
TUNING = 50  # passes, or training steps, that finding the fastest forms takes about as long as
WARM_UP = 4  # passes until memory is in its final order
SHARE = 0.8  # of the free memory
TRYING_SHARE = 0.05  # of the expected time, at most, is spent on finding faster forms and on measuring memory


@dataclass(frozen=True)
class TilePlan:
    """How one network runs over one volume.

    Attributes
    ----------
    tile : output voxels z, y, x of a pass
    blocks : how many
    memory : bytes of activations at the peak: measured where the run is long enough to repay it, else a bound
    seconds : expected in all; 0 where not asked for
    forms : of the layers; empty = direct convolution
    """

    tile: Size
    blocks: int
    memory: float
    seconds: float = 0.0
    forms: tuple[Form, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able data, the inverse of `from_dict`."""
        return {**asdict(self), "forms": [list(form) for form in self.forms]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TilePlan:
        """Rebuild a plan from `to_dict`."""
        return cls(**{**data, "tile": tuple(data["tile"]), "forms": tuple(Form(*form) for form in data["forms"])})


def plan_tiles(
    network: DenseNetwork,
    shape: Sequence[int],
    max_memory: float,
    *,
    precision: Precision = "float32",
    passes: int = 1,
    tile: Size | None = None,
) -> TilePlan:
    """Choose the tile, expect the time, and, where that is long, find the fastest forms first.

    Parameters
    ----------
    network : on the device to use
    shape : voxels z, y, x of the volume
    max_memory : bytes that activations may take
    precision : of the activations
    passes : over each tile (8 with augmentation)
    tile : instead of the best one

    Returns
    -------
    the plan; its time is scaled from a pass over a small tile

    Raises
    ------
    InputError : even the smallest tile needs more memory
    """
    architecture, dtype = network.architecture, dtype_of(network, precision)
    chosen = tile or choose_tile(architecture, shape, max_memory, dtype.itemsize)
    blocks = _count(shape, chosen)
    device = next(network.parameters()).device
    forms = usual_forms(architecture, device, dtype)
    if peak_memory(architecture, chosen, dtype.itemsize, forms) > max_memory:
        forms = ()
    sample = _sample(chosen)
    _pass(network, sample, dtype, forms)
    taken = _pass(network, sample, dtype, forms)
    seconds = passes * blocks * taken * cost(architecture, chosen) / cost(architecture, sample)
    if TRYING_SHARE * blocks * passes >= TUNING:
        plan = tune(architecture, chosen, device=str(device), dtype=dtype)
        if peak_memory(architecture, chosen, dtype.itemsize, plan.forms) <= max_memory:
            forms = plan.forms
            seconds *= plan.milliseconds / plan.default
    memory = peak_memory(architecture, chosen, dtype.itemsize, forms)
    if TRYING_SHARE * blocks * passes >= WARM_UP and device.type == "cpu":
        memory = measured_memory(network, chosen, dtype, forms) or memory
    return TilePlan(chosen, blocks, memory, seconds, forms)


def forms_for_training(
    network: DenseNetwork, patch: Size, spacing: int, dtype: torch.dtype, updates: int
) -> tuple[Form, ...]:
    """Find the fastest forms of training steps; the usual ones where that would not be repaid.

    Parameters
    ----------
    network : on the device to use
    patch : output voxels z, y, x
    spacing : of the labelled voxels; see `DenseNetwork.forward`
    dtype : of the activations
    updates : how many steps there will be

    Returns
    -------
    one per layer; empty = direct convolution
    """
    device = next(network.parameters()).device
    if TRYING_SHARE * updates < TUNING:
        return usual_forms(network.architecture, device, dtype)
    return tune(network.architecture, patch, training=True, spacing=spacing, device=str(device), dtype=dtype).forms


def measured_memory(network: DenseNetwork, tile: Size, dtype: torch.dtype, forms: Sequence[Form] = ()) -> float:
    """Run some tiles and see what the process holds, since it keeps what it frees; 0 where the system does not say."""
    machine.release()
    before = machine.resident()
    for turn in range(WARM_UP):
        machine.keep_memory(turn > 0)
        _pass(network, tile, dtype, forms)
    held = machine.resident() - before
    machine.keep_memory(False)
    machine.release()
    return held + _host(network.architecture, tile, 2) if before else 0.0  # a pass has one of each itself


def dtype_of(network: nn.Module, precision: Precision) -> torch.dtype:
    """Return the dtype of activations; "auto" is bfloat16 on CUDA, float32 elsewhere."""
    if precision == "auto":
        precision = "bfloat16" if next(network.parameters()).device.type == "cuda" else "float32"
    result: torch.dtype = getattr(torch, precision)
    return result


def warn_if_slow(device: torch.device, precision: Precision) -> None:
    """Tell users of a precision that their processor does not compute in."""
    if device.type == "cpu" and (precision == "float16" or (precision == "bfloat16" and not machine.has_bfloat16())):
        log.warning("this processor does not compute in %s: right, but many times slower than float32", precision)


def choose_tile(architecture: Architecture, shape: Sequence[int], max_memory: float, itemsize: int = 4) -> Size:
    """Return the output tile (z, y, x) that does about the least work per voxel within the memory limit.

    Raises
    ------
    InputError : even the smallest tile needs more
    """
    flat = architecture.field_of_view[0] == 1
    depths = [1] if flat else [*(z for z in TILE_DEPTHS if z < shape[0]), min(shape[0], TILE_DEPTHS[-1])]
    heights, widths = ([*(e for e in TILE_EDGES if e < n), min(n, TILE_EDGES[-1])] for n in shape[1:])
    tiles = [(z, y, x) for z, y, x in product(depths, heights, widths) if max(y, x) <= 4 * min(y, x)]
    needs = {tile: peak_memory(architecture, tile, itemsize) for tile in tiles}
    fitting = [tile for tile in tiles if needs[tile] <= max_memory]
    if not fitting:
        raise InputError(
            f"max_memory is too small for '{architecture.name}': its smallest tile needs"
            f" {min(needs.values()) / 1e6:.0f} MB of activations, {max(0.0, max_memory) / 1e6:.0f} MB are left for them"
        )
    costs = {tile: _count(shape, tile) * cost(architecture, tile) for tile in fitting}
    least = min(costs.values())
    return min((tile for tile in fitting if costs[tile] <= NEAR_BEST * least), key=lambda tile: needs[tile])


def peak_memory(architecture: Architecture, tile: Size, itemsize: int = 4, forms: Sequence[Form] = ()) -> float:
    """Foresee the bytes of activations that predicting one tile needs at its worst moment.

    The passes of a layer are those of `DenseNetwork.forward`: what it reads is freed once it is computed.
    """
    heap, places = _Heap(), architecture.places(tile)
    held = [heap.take(itemsize * prod(places[0].shape_in)) for _ in range(architecture.streams)]  # kept by the caller
    streams, before, kept = list(held), 1, 0.0
    for place, form in zip(places, forms or [Form()] * len(places)):
        if isinstance(place.layer, Dropout):
            continue
        if place.joined:
            streams = [heap.replace(streams, 2 * place.maps_in * prod(place.shape_in) * itemsize, keep=held)]
        for _ in range(len(streams)):
            part = streams.pop(0)
            if form.fragments != before:
                part = heap.replace([part], place.maps_in * prod(place.shape_in) * itemsize, keep=held)
            if isinstance(place.layer, Pool):
                shape = list(place.shape_in)
                for axis in (2, 1, 0):
                    for _ in range(place.layer.size[axis] - 1):
                        shape[axis] -= place.dilation[axis]
                        part = heap.replace([part], place.maps_in * prod(shape) * itemsize, keep=held)
                streams.append(part)
                continue
            if form.method != "direct":
                maps = place.maps_in * (2 if place.joined else 1), place.maps_out, place.layer.size
                fourier = form.method == "fft"
                work = bytes_of_transforms(place.shape_in, *maps, place.dilation) if fourier else bytes_of_tiles(*maps)
                meanwhile, spectra = work
                heap.give(heap.take(int(meanwhile)))
                kept += spectra
            streams.append(heap.replace([part], place.maps_out * prod(place.shape_out) * itemsize, keep=held))
        before = form.fragments
    return UNSEEN * heap.high + kept + _host(architecture, tile) + APART


def cost(architecture: Architecture, tile: Size) -> float:
    """Multiplications of one tile, and a charge per voxel for moving memory: about in proportion to its time."""
    total = 0.0
    for place in architecture.places(tile):
        if not isinstance(place.layer, Dropout):
            moved = place.maps_in * prod(place.shape_in) + place.maps_out * prod(place.shape_out)
            total += place.operations / 2 + TRAFFIC * place.streams * moved
    return total


class _Heap:
    """An allocator that takes the smallest hole that is large enough and joins neighbouring holes."""

    def __init__(self) -> None:
        self.holes: list[tuple[int, int]] = []  # start, stop
        self.top = self.high = 0

    def take(self, size: int) -> tuple[int, int]:
        fitting = [hole for hole in self.holes if hole[1] - hole[0] >= size]
        if not fitting:
            self.top += size
            self.high = max(self.high, self.top)
            return (self.top - size, self.top)
        start, stop = min(fitting, key=lambda hole: hole[1] - hole[0])
        self.holes.remove((start, stop))
        if start + size < stop:
            self.holes.append((start + size, stop))
        return (start, start + size)

    def give(self, part: tuple[int, int]) -> None:
        start, stop = part
        for hole in [hole for hole in self.holes if hole[1] == start or hole[0] == stop]:
            self.holes.remove(hole)
            start, stop = min(start, hole[0]), max(stop, hole[1])
        if stop == self.top:
            self.top = start
        else:
            self.holes.append((start, stop))

    def replace(self, parts: Sequence[tuple[int, int]], size: int, keep: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """Take what a layer makes, then give back what it read, but for the inputs of the network."""
        made = self.take(size)
        for part in parts:
            if part not in keep:
                self.give(part)
        return made


def _count(shape: Sequence[int], tile: Size) -> int:
    return prod(ceil(n / t) for n, t in zip(shape, tile))


def _host(architecture: Architecture, tile: Size, times: int = 3) -> int:
    """Bytes of float32 read ahead, read, and handed over; made, handed on, and being written: `times` in all."""
    return 4 * times * (architecture.streams * prod(architecture.input_shape(tile)) + prod(tile))


def _pass(network: DenseNetwork, tile: Size, dtype: torch.dtype, forms: Sequence[Form]) -> float:
    """Run one pass over nothing; return its seconds."""
    device, shape = next(network.parameters()).device, network.architecture.input_shape(tile)
    network.eval()
    with torch.inference_mode():
        inputs = [torch.zeros(1, 1, *shape, dtype=dtype, device=device) for _ in range(network.architecture.streams)]
        start = time.perf_counter()
        network(inputs, forms=forms)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start


def device_memory(device: torch.device, max_memory: float | None = None) -> float:
    """Bytes that activations may take if the process may take `max_memory`; by default 80 % of what is free."""
    if device.type == "cuda":
        free = float(torch.cuda.mem_get_info(device)[0])
        return min(SHARE * free, max_memory or free)
    return (max_memory - machine.resident()) if max_memory else SHARE * machine.available_memory()


def _sample(tile: Size) -> Size:
    """Return the part of a tile that is timed."""
    return (min(tile[0], 4), min(tile[1], 96), min(tile[2], 96))
