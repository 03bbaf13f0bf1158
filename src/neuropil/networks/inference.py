"""Dense prediction: tiles with mirrored borders, so that the output has the input's size and tiling changes nothing.

Outside the volume the input is its own mirror image (field of view - 1 voxels, as ZNN does). A tile is a valid pass
over its box and the halo around it; what is read for it never depends on how the volume was cut. The tile is the
largest that the memory limit allows, since large tiles waste least on the halo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import product
from math import prod
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.geometry import Box, grid
from neuropil.networks.architecture import Architecture, Conv, Dropout, Pool, Size
from neuropil.networks.network import DenseNetwork

Source = Callable[[Box], NDArray[np.float32]]
"""Reads a box (z, y, x) that lies inside the volume, as the network wants it (standardised)."""
Precision = Literal["auto", "float32", "bfloat16", "float16"]
TILE_EDGES = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
TILE_DEPTHS = (1, 2, 4, 8, 16)


def predict(
    network: DenseNetwork, inputs: Sequence[NDArray[np.float32]], *, max_memory: float = 1e9, augment: bool = False
) -> NDArray[np.float32]:
    """Predict the boundary map of a whole stack in memory.

    Parameters
    ----------
    network : on the device to use
    inputs : one (z, y, x) float32 array per stream: standardised image, then the recursive map in [0, 1]
    max_memory : bytes that activations may take
    augment : average over the 8 flips and rotations of the section plane

    Returns
    -------
    (z, y, x) float32, probability of boundary

    Raises
    ------
    InputError : the stack is smaller than the field of view
    """
    shape = inputs[0].shape
    check_extent(network.architecture, shape)
    sources: list[Source] = [lambda box, one=one: one[box.slices] for one in inputs]  # type: ignore[misc]
    result = np.empty(shape, np.float32)
    for box in grid(Box.of_shape(shape), choose_tile(network.architecture, shape, max_memory)):
        result[box.slices] = predict_box(network, sources, shape, box, augment=augment)
    return result


def predict_box(
    network: DenseNetwork,
    sources: Sequence[Source],
    shape: Sequence[int],
    box: Box,
    *,
    precision: Precision = "float32",
    augment: bool = False,
) -> NDArray[np.float32]:
    """Predict one box of a volume of `shape`; see `predict`."""
    view = network.architecture.field_of_view
    before = [(n - 1) // 2 for n in view]
    halo = box.grow(before, [n - 1 - b for n, b in zip(view, before)])
    inputs = [read_mirrored(source, shape, halo) for source in sources]
    if not augment:
        return _forward(network, inputs, precision)
    total = np.zeros(box.shape, np.float32)
    for transpose, flips in product((False, True), ((), (1,), (2,), (1, 2))):
        turned = [_turn(one, transpose, flips) for one in inputs]
        total += _turn_back(_forward(network, turned, precision), transpose, flips)
    return total / np.float32(8)


def _forward(network: DenseNetwork, inputs: Sequence[NDArray[np.float32]], precision: Precision) -> NDArray[np.float32]:
    device = next(network.parameters()).device
    network.eval()
    with torch.inference_mode(), autocast(device, precision):
        tensors = [torch.from_numpy(one.copy())[None, None].to(device) for one in inputs]
        logits = network(tensors).float()
        # softmax over two classes is the logistic function of their difference
        boundary = torch.sigmoid(logits[0, 1] - logits[0, 0])
    result: NDArray[np.float32] = boundary.cpu().numpy()
    return result


def autocast(device: torch.device, precision: Precision) -> Any:
    """Return the context in which a forward pass runs; "auto" is bfloat16 on CUDA, float32 elsewhere."""
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" else "float32"
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def _turn(array: NDArray[np.float32], transpose: bool, flips: tuple[int, ...]) -> NDArray[np.float32]:
    return np.flip(array.swapaxes(1, 2) if transpose else array, flips)


def _turn_back(array: NDArray[np.float32], transpose: bool, flips: tuple[int, ...]) -> NDArray[np.float32]:
    array = np.flip(array, flips)
    return array.swapaxes(1, 2) if transpose else array


def check_extent(architecture: Architecture, shape: Sequence[int]) -> None:
    """Refuse a volume (z, y, x) smaller than the field of view, which mirroring could not fill meaningfully."""
    missing = {axis: need - have for axis, need, have in zip("zyx", architecture.field_of_view, shape) if have < need}
    if missing:
        lacks = ", ".join(f"{count} more in {axis}" for axis, count in missing.items())
        raise InputError(
            f"the stack {tuple(shape)} is smaller than the field of view {architecture.field_of_view} of"
            f" '{architecture.name}'; it needs {lacks}"
        )


def read_mirrored(source: Source, shape: Sequence[int], box: Box) -> NDArray[np.float32]:
    """Read a box that may reach outside the volume, which is mirrored about its outermost voxels (z, y, x)."""
    places = [mirror(np.arange(a, b), n) for a, b, n in zip(box.start, box.stop, shape)]
    inner = Box(tuple(int(p.min()) for p in places), tuple(int(p.max()) + 1 for p in places))
    array = source(inner)
    if inner == box:
        return array
    return array[np.ix_(*(p - a for p, a in zip(places, inner.start)))]


def mirror(index: NDArray[np.intp], extent: int) -> NDArray[np.intp]:
    """Fold indices into [0, extent) by mirroring at the first and last voxel, as often as needed.

    >>> mirror(np.array([-2, -1, 0, 3, 4]), 4).tolist()
    [2, 1, 0, 3, 2]
    """
    period = max(1, 2 * (extent - 1))
    folded = index % period
    result: NDArray[np.intp] = np.where(folded < extent, folded, period - folded)
    return result


def choose_tile(architecture: Architecture, shape: Sequence[int], max_memory: float) -> Size:
    """Return the output tile (z, y, x) that does the least arithmetic per voxel within the memory limit.

    Raises
    ------
    InputError : even the smallest tile needs more
    """
    deep = [z for z in TILE_DEPTHS if z < shape[0]] if architecture.field_of_view[0] > 1 else [1]
    depths = [*deep, min(shape[0], TILE_DEPTHS[-1])] if architecture.field_of_view[0] > 1 else deep
    heights, widths = ([*(e for e in TILE_EDGES if e < n), min(n, TILE_EDGES[-1])] for n in shape[1:])
    tiles = [(z, y, x) for z, y, x in product(depths, heights, widths) if max(y, x) <= 4 * min(y, x)]
    fitting = [tile for tile in tiles if peak_memory(architecture, tile) <= max_memory]
    if not fitting:
        least = min(peak_memory(architecture, tile) for tile in tiles)
        raise InputError(
            f"max_memory must be at least {least / 1e6:.0f} MB for '{architecture.name}'; got {max_memory / 1e6:.0f} MB"
        )
    blocks = {tile: np.prod([-(-n // t) for n, t in zip(shape, tile)]) for tile in fitting}
    return min(fitting, key=lambda tile: (float(blocks[tile]) * _operations(architecture, tile), blocks[tile]))


def peak_memory(architecture: Architecture, tile: Size) -> float:
    """Estimate the bytes of float32 activations that one tile needs at its worst layer."""
    worst = 0.0
    for place in architecture.places(tile):
        if isinstance(place.layer, Dropout):
            continue
        read, made = place.maps_in * prod(place.shape_in), place.maps_out * prod(place.shape_out)
        stacked = place.layer.size[0] if isinstance(place.layer, Conv) and place.layer.size[0] > 1 else 0
        held = read * (1 + stacked) + made * (2 if isinstance(place.layer, Pool) else 1)
        # while one stream is computed the other's maps wait; a join reads both once more, side by side
        worst = max(worst, held + (place.streams - 1) * max(read, made) * 2)
    return 6.0 * worst + 60e6  # 4 bytes each; half as much again, and the rest, for the library's buffers


def _operations(architecture: Architecture, tile: Size) -> float:
    """Multiplications of one tile, and a charge per voxel for layers that only move memory."""
    total = 0.0
    for place in architecture.places(tile):
        if not isinstance(place.layer, Dropout):
            read, made = place.maps_in * prod(place.shape_in), place.maps_out * prod(place.shape_out)
            work = place.maps_in * prod(place.layer.size) * made if isinstance(place.layer, Conv) else 0
            total += place.streams * (work + 50 * (read + made))
    return total
