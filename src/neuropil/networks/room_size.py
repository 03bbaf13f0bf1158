"""The room that a pass needs: what its layers make and when that is freed, laid out before there is any memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from math import prod

import torch

from neuropil.networks.architecture import Architecture, Conv, Place, Pool, Size
from neuropil.networks.network import Form
from neuropil.networks.rooms import needed

Made = tuple[int, Size, int]
"""What is made of one stream: maps, voxels z, y, x, and fragments a side."""


def room_on(
    device: torch.device, architecture: Architecture, tile: Size, dtype: torch.dtype, forms: Sequence[Form] = ()
) -> int:
    """Return the bytes of the room that a pass has on a device: `room_size` on a CPU, none elsewhere."""
    return room_size(architecture, tile, dtype.itemsize, tuple(forms)) if device.type == "cpu" else 0


@cache
def room_size(architecture: Architecture, tile: Size, itemsize: int, forms: tuple[Form, ...] = ()) -> int:
    """Return the bytes of a room in which all that the layers of a pass make finds its place, the inputs included.

    The steps are those of `DenseNetwork.forward`: what a layer reads is freed once it is computed.

    Parameters
    ----------
    architecture : of the network
    tile : output voxels z, y, x
    itemsize : bytes of a number
    forms : of the layers; empty = direct convolution
    """
    places, run = architecture.places(tile), _Pass(itemsize)
    inputs = [run.make([], (1, places[0].shape_in, 1)) for _ in range(architecture.streams)]
    run.kept = frozenset(inputs)
    streams, splits = inputs, list[int]()
    for place, form in zip(places, forms or [Form()] * len(places)):
        moves = [(place.maps_in, place.shape_in, parts) for parts in _moves(splits, form.fragments)]
        streams = [run.chain(one, moves) for one in streams]
        if place.joined:
            streams = [run.make(streams, (2 * place.maps_in, place.shape_in, form.fragments))]
        streams = [run.chain(one, _results(place, form.fragments)) for one in streams]
    run.chain(streams[0], ((places[-1].maps_out, places[-1].shape_out, parts) for parts in _moves(splits, 1)))
    return needed(run.events)


class _Pass:
    """What is taken and given back in turn, as `needed` wants it; `kept` are the network's inputs."""

    def __init__(self, itemsize: int) -> None:
        self.itemsize, self.events, self.taken, self.kept = itemsize, list[int](), 0, frozenset[int]()

    def make(self, read: Iterable[int], made: Made) -> int:
        """Take what a layer makes, then give back what it read; return its number."""
        maps, (deep, *flat), parts = made
        self.events.append(self.itemsize * maps * deep * prod(parts * -(-edge // parts) for edge in flat))
        self.events += [-one - 1 for one in read if one not in self.kept]
        self.taken += 1
        return self.taken - 1

    def chain(self, part: int, made: Iterable[Made]) -> int:
        """Make one after the other, each from the one before; return the last."""
        for one in made:
            part = self.make([part], one)
        return part


def _moves(splits: list[int], wanted: int) -> list[int]:
    """Split and merge sections as `layout.fragmented` does; return the fragments a side after each step."""
    moves = []
    while splits and wanted % prod(splits):
        splits.pop()
        moves.append(prod(splits))
    if wanted > prod(splits):
        splits.append(wanted // prod(splits))
        moves.append(wanted)
    return moves


def _results(place: Place, parts: int) -> Iterator[Made]:
    """Yield what a layer makes of one stream: a max-filter one axis and one shift after the other."""
    if isinstance(place.layer, Conv):
        yield place.maps_out, place.shape_out, parts
    elif isinstance(place.layer, Pool):
        z, y, x = place.shape_in
        for axis in (2, 1, 0):
            for _ in range(place.layer.size[axis] - 1):
                z, y, x = (n - place.dilation[axis] * (k == axis) for k, n in enumerate((z, y, x)))
                yield place.maps_in, (z, y, x), parts
