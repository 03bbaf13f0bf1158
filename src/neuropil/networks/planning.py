"""Which tile a volume is predicted in: as many voxels a second as the memory allows, and how long that will take.

A tile is a valid pass over its box and the field of view around it, so large tiles waste least on the margin (ZNNi).
On a CPU what layers make is laid out beforehand as it will lie in the run (`rooms`); only what they work in, and what
is read and written meanwhile, is estimated. `benchmarks/engine/run.py --memory` prints what is foreseen and taken.
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
from neuropil.networks.architecture import Architecture, Conv, Dropout, Place, Size
from neuropil.networks.fft import bytes_of_transforms
from neuropil.networks.layers import bytes_of_parts
from neuropil.networks.network import DenseNetwork, Form
from neuropil.networks.room_size import room_on, room_size
from neuropil.networks.rooms import Room
from neuropil.networks.tuning import tune, usual_forms
from neuropil.networks.winograd import bytes_of_tiles

log = logging.getLogger("neuropil")

TILE_EDGES = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
TILE_DEPTHS = (1, 2, 4, 8, 16)
NEAR_BEST = 1.1  # of tiles that cost about the same, the one that needs least memory: its pages are soon reused
TRAFFIC = 50  # a voxel read or written costs as much as so many multiplications
APART = 10e6  # bytes that libraries set up and small arrays take
HOLES = 1.4  # times the memory of a GPU: its allocator leaves holes, and its library works in memory of its own
SIZES = 6  # of parts that the C library keeps memory for: it cannot use what one layer frees for a larger part
TUNING = 50  # passes, or training steps, that finding the fastest forms takes about as long as
SHARE = 0.8  # of the free memory
TRYING_SHARE = 0.05  # of the expected time, at most, is spent on finding faster forms


@dataclass(frozen=True)
class TilePlan:
    """How one network runs over one volume.

    Attributes
    ----------
    tile : output voxels z, y, x of a pass
    blocks : how many
    memory : bytes of activations at the peak
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
    device = next(network.parameters()).device
    max_memory /= holes(device)
    chosen = tile or choose_tile(architecture, shape, max_memory, dtype.itemsize)
    blocks = _count(shape, chosen)
    forms = usual_forms(architecture, device, dtype)
    if peak_memory(architecture, chosen, dtype.itemsize, forms) > max_memory:
        forms = ()
    sample, room = _sample(chosen), Room()
    _pass(network, sample, dtype, forms, room)
    taken = _pass(network, sample, dtype, forms, room)
    seconds = passes * blocks * taken * cost(architecture, chosen) / cost(architecture, sample)
    if TRYING_SHARE * blocks * passes >= TUNING:
        plan = tune(architecture, chosen, device=str(device), dtype=dtype)
        if peak_memory(architecture, chosen, dtype.itemsize, plan.forms) <= max_memory:
            forms = plan.forms
            seconds *= plan.milliseconds / plan.default
    memory = holes(device) * peak_memory(architecture, chosen, dtype.itemsize, forms)
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


def dtype_of(network: nn.Module, precision: Precision) -> torch.dtype:
    """Return the dtype of activations; "auto" is bfloat16 on CUDA, float32 elsewhere."""
    if precision == "auto":
        precision = "bfloat16" if next(network.parameters()).device.type == "cuda" else "float32"
    result: torch.dtype = getattr(torch, precision)
    return result


def warn_if_slow(device: torch.device, precision: Precision) -> None:
    """Tell users of a precision what their processor does not gain by it."""
    if device.type == "cpu" and (precision == "float16" or (precision == "bfloat16" and not machine.has_bfloat16())):
        log.warning("this processor does not compute in %s: right, but many times slower than float32", precision)
    elif device.type == "cpu" and precision == "bfloat16" and machine.half_gains_little():
        log.info("without AMX bfloat16 takes about as long as float32 on this processor, or longer; it saves memory")


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

    On a CPU what layers make lies in a room, whose bytes are known; beside it there is what they work in, and what is
    read and written meanwhile.
    """
    places = architecture.places(tile)
    room = room_size(architecture, tile, itemsize, tuple(forms))
    needs = [
        _working(place, place.layer, form, itemsize)
        for place, form in zip(places, forms or [Form()] * len(places))
        if isinstance(place.layer, Conv)
    ]
    parts, working, spectra = zip(*needs)
    several = sum(sorted(parts, reverse=True)[:SIZES])
    return float(room + several + max(working) + sum(spectra) + _host(architecture, tile) + APART)


def holes(device: torch.device) -> float:
    """Return how many times `peak_memory` a device needs: its allocator may leave holes."""
    return HOLES if device.type == "cuda" else 1.0


def _working(place: Place, layer: Conv, form: Form, itemsize: int) -> tuple[float, float, float]:
    """Foresee the bytes of parts of a convolution, of what else it works in, and of spectra that it keeps."""
    maps = place.maps_in * (2 if place.joined else 1), place.maps_out, layer.size
    if form.method == "winograd" and itemsize == 4:
        return 0.0, *bytes_of_tiles(*maps)
    if form.method == "fft":
        return 0.0, *bytes_of_transforms(place.shape_in, *maps, place.dilation)
    return bytes_of_parts(place.shape_out, place.maps_out, layer.size, itemsize), 0.0, 0.0


def cost(architecture: Architecture, tile: Size) -> float:
    """Multiplications of one tile, and a charge per voxel for moving memory: about in proportion to its time."""
    total = 0.0
    for place in architecture.places(tile):
        if not isinstance(place.layer, Dropout):
            moved = place.maps_in * prod(place.shape_in) + place.maps_out * prod(place.shape_out)
            total += place.operations / 2 + TRAFFIC * place.streams * moved
    return total


def _count(shape: Sequence[int], tile: Size) -> int:
    return prod(ceil(n / t) for n, t in zip(shape, tile))


def _host(architecture: Architecture, tile: Size) -> int:
    """Bytes of float32 of inputs, computed on and read ahead, and of results, made, handed on and being written."""
    return 4 * ((2 * architecture.streams + 1) * prod(architecture.input_shape(tile)) + 4 * prod(tile))


def _pass(network: DenseNetwork, tile: Size, dtype: torch.dtype, forms: Sequence[Form], room: Room) -> float:
    """Run one pass over nothing; return its seconds."""
    device, shape = next(network.parameters()).device, network.architecture.input_shape(tile)
    network.eval()
    with torch.inference_mode(), room.of(room_on(device, network.architecture, tile, dtype, forms)):
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
