"""Dense prediction: tiles with mirrored borders, so that the output has the input's size and tiling changes nothing.

Outside the volume the input is its own mirror image (field of view - 1 voxels, as ZNN does). A tile is a valid pass
over its box and the halo around it; what is read for it never depends on how the volume was cut.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuropil.errors import InputError
from neuropil.geometry import Box, grid
from neuropil.machine import Precision, keep_memory, release
from neuropil.networks.architecture import Architecture
from neuropil.networks.network import DenseNetwork, Form
from neuropil.networks.planning import choose_tile, dtype_of
from neuropil.networks.room_size import room_on
from neuropil.networks.rooms import Room, empty
from neuropil.networks.tuning import usual_forms

Source = Callable[[Box], NDArray[np.float32]]
"""Reads a box (z, y, x) that lies inside the volume, as the network wants it (standardised)."""


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
    forms = usual_forms(network.architecture, next(network.parameters()).device, torch.float32)
    with Predictor(network, augment=augment, forms=forms) as predictor:
        for box in grid(Box.of_shape(shape), choose_tile(network.architecture, shape, max_memory)):
            result[box.slices] = predictor(read_halo(network.architecture, sources, shape, box))
    return result


def read_halo(
    architecture: Architecture, sources: Sequence[Source], shape: Sequence[int], box: Box
) -> list[NDArray[np.float32]]:
    """Read what one box of a volume of `shape` depends on: itself and the field of view around it, per source."""
    view = architecture.field_of_view
    before = [(n - 1) // 2 for n in view]
    halo = box.grow(before, [n - 1 - b for n, b in zip(view, before)])
    return [apart(read_mirrored(source, shape, halo)) for source in sources]


def apart(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a copy in pages of its own, which go back to the system with it.

    For what one thread hands to another: freed at any moment, it would tear holes between what is kept for reuse, and
    a run would take more memory than another like it.
    """
    copy = np.frombuffer(mmap.mmap(-1, max(1, array.nbytes)), array.dtype, array.size).reshape(array.shape)
    copy[...] = array
    return copy


class Predictor:
    """Forward passes of one network over many tiles; a context, in which freed memory is kept from pass to pass.

    Parameters
    ----------
    network : on the device to use
    precision : of the activations
    augment : average over the 8 flips and rotations of the section plane
    forms : of the layers

    Attributes
    ----------
    room : where layers place what they make, on a CPU
    """

    def __init__(
        self,
        network: DenseNetwork,
        *,
        precision: Precision = "float32",
        augment: bool = False,
        forms: Sequence[Form] = (),
    ) -> None:
        network.architecture.check_boundary()
        self.network, self.augment, self.forms = network.eval(), augment, forms
        self.device, self.dtype = next(network.parameters()).device, dtype_of(network, precision)
        self.room = Room()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.room = Room()
        keep_memory(False)
        release()

    def __call__(self, inputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the probability of boundary (z, y, x) where the field of view lies inside the inputs."""
        keep_memory(True)
        if not self.augment:
            return self._pass(inputs)
        total: NDArray[np.float32] | None = None
        for transpose, flips in product((False, True), ((), (1,), (2,), (1, 2))):
            made = _turn_back(self._pass([_turn(one, transpose, flips) for one in inputs]), transpose, flips)
            total = made.copy() if total is None else total + made
        assert total is not None
        return total / np.float32(8)

    def _pass(self, inputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        architecture = self.network.architecture
        z, y, x = (n - view + 1 for n, view in zip(inputs[0].shape, architecture.field_of_view))
        size = room_on(self.device, architecture, (z, y, x), self.dtype, self.forms)
        with torch.inference_mode(), self.room.of(size):
            tensors = [self._moved(np.require(one, requirements=["C", "W"])) for one in inputs]
            logits = self.network(tensors, forms=self.forms).float()
            # softmax over two classes is the logistic function of their difference
            boundary = torch.sigmoid(logits[0, 1] - logits[0, 0])
        return apart(boundary.cpu().numpy())

    def _moved(self, array: NDArray[np.float32]) -> Tensor:
        """Bring one input to where, and into the type that, is computed."""
        image = torch.from_numpy(array)[None, None]
        if self.device.type != "cpu":
            return image.to(self.device, self.dtype)
        return empty(image.shape, torch.empty(0, dtype=self.dtype)).copy_(image)


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
