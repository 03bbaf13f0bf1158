"""The room that a pass needs: what its layers make and when that is freed, laid out before there is any memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod

from neuropil.networks.architecture import Architecture, Conv, Pool, Size
from neuropil.networks.network import Form
from neuropil.networks.rooms import needed


@cache
def room_size(architecture: Architecture, tile: Size, itemsize: int, forms: tuple[Form, ...] = ()) -> int:
    """Return the bytes of a room in which all that the layers of a pass make finds its place.

    The steps are those of `DenseNetwork.forward`: what a layer reads is freed once it is computed.
    """
    places, events = architecture.places(tile), _Events()
    inputs = [events.take(itemsize * prod(places[0].shape_in)) for _ in range(architecture.streams)]
    streams, splits = list(inputs), list[int]()

    def replace(parts: Sequence[int], maps: int, shape: Sequence[int]) -> int:
        """Make a layer's result on the present fragments, then free what it read, but for the network's inputs."""
        fragments = prod(splits)
        edges = [fragments * -(-e // fragments) for e in shape[1:]]
        made = events.take(itemsize * maps * shape[0] * prod(edges))
        for part in parts:
            if part not in inputs:
                events.give(part)
        return made

    for place, form in zip(places, forms or [Form()] * len(places)):
        before = list(splits)
        for i, part in enumerate(streams):
            splits[:] = before
            while splits and form.fragments % prod(splits):
                splits.pop()
                part = replace([part], place.maps_in, place.shape_in)
            if form.fragments > prod(splits):
                splits.append(form.fragments // prod(splits))
                part = replace([part], place.maps_in, place.shape_in)
            streams[i] = part
        if place.joined:
            streams = [replace(streams, 2 * place.maps_in, place.shape_in)]
        for i, part in enumerate(streams):
            if isinstance(place.layer, Conv):
                part = replace([part], place.maps_out, place.shape_out)
            elif isinstance(place.layer, Pool):
                shape = list(place.shape_in)
                for axis in (2, 1, 0):
                    for _ in range(place.layer.size[axis] - 1):
                        shape[axis] -= place.dilation[axis]
                        part = replace([part], place.maps_in, shape)
            streams[i] = part
    while splits:
        splits.pop()
        streams = [replace(streams, places[-1].maps_out, places[-1].shape_out)]
    return needed(events)


class _Events(list[int]):
    """What is taken and given back, as `needed` wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0

    def take(self, size: int) -> int:
        self.append(size)
        self.taken += 1
        return self.taken - 1

    def give(self, which: int) -> None:
        self.append(-which - 1)
