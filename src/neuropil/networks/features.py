"""What a layer of a network makes of an image: its feature maps, at the size of the image.

A network that is cut off behind a layer is a network too, with a smaller field of view. So it is built as one, given
the layer's weights, and run like any other over a halo that is mirrored at the faces of the volume. Seen before and
after recursive training, the maps of a layer show what the second input brings (Lee et al., NIPS 2015, figure 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.networks.activation import activate
from neuropil.networks.architecture import Architecture
from neuropil.networks.inference import Predictor, Source, read_halo
from neuropil.networks.network import STREAMS, DenseNetwork


def feature_maps(
    network: DenseNetwork, sources: Sequence[Source], shape: Sequence[int], box: Box, layer: str
) -> dict[str, NDArray[np.float32]]:
    """Compute the maps of a convolution, activation included, over a box of a volume.

    Parameters
    ----------
    network : as trained
    sources : one per input stream: standardised image, then the recursive map
    shape : z, y, x of the volume
    box : voxels z, y, x to show; each axis keeps its extent
    layer : name of the convolution

    Returns
    -------
    stream → (maps, z, y, x) float32. The stream is "" where there is one; in a layer before two streams are joined,
    "image" and "map".

    Raises
    ------
    InputError : the network has no such convolution

    Examples
    --------
    >>> from neuropil.networks.architecture import VD2D
    >>> image = np.zeros((1, 120, 120), np.float32)
    >>> box = Box((0, 10, 10), (1, 42, 50))
    >>> feature_maps(DenseNetwork(VD2D), [lambda part: image[part.slices]], image.shape, box, "conv1c")[""].shape
    (24, 1, 32, 40)
    """
    architecture = network.architecture
    names = [conv.name for conv in architecture.convs]
    if layer not in names:
        raise InputError(f"'{architecture.name}' has no convolution '{layer}'; it has {', '.join(names)}")
    apart = architecture.join is not None and names.index(layer) < names.index(architecture.join)
    if not apart:
        return {"": _maps(_cut_off(network, layer, architecture.join), sources, shape, box, architecture, layer)}
    return {
        name: _maps(_cut_off(network, layer, None, stream), [source], shape, box, architecture, layer)
        for name, stream, source in zip(("image", "map"), STREAMS, sources)
    }


def map_source(network: DenseNetwork, sources: Sequence[Source], shape: Sequence[int]) -> Source:
    """Return a source whose voxels are the network's boundary map, computed when they are read."""

    def read(box: Box) -> NDArray[np.float32]:
        with Predictor(network) as predictor:
            return predictor(read_halo(network.architecture, sources, shape, box))

    return read


def _cut_off(network: DenseNetwork, layer: str, join: str | None, stream: str = "") -> DenseNetwork:
    """Return the network up to a layer, which is linear there; or one stream of it as a network of its own."""
    whole = network.architecture
    place = next(k for k, line in enumerate(whole.lines) if line.split()[0] == layer)
    last = " ".join([*whole.lines[place].split()[:3], "linear"])
    part = DenseNetwork(replace(whole, lines=(*whole.lines[:place], last), join=join))
    weights = {name.replace(f"{stream}.", ".") if stream else name: value for name, value in _of(network, stream)}
    part.load_weights(weights)
    return part.to(next(network.parameters()).device).eval()


def _of(network: DenseNetwork, stream: str) -> list[tuple[str, torch.Tensor]]:
    """Return the weights of a stream; of the image stream, all."""
    return [(name, value) for name, value in network.named_weights().items() if stream in name]


def _maps(
    part: DenseNetwork, sources: Sequence[Source], shape: Sequence[int], box: Box, whole: Architecture, layer: str
) -> NDArray[np.float32]:
    device = next(part.parameters()).device
    inputs = read_halo(part.architecture, sources, shape, box)
    with torch.inference_mode():
        made = part([torch.from_numpy(one)[None, None].to(device) for one in inputs])[0]
        kind = next(conv.activation for conv in whole.convs if conv.name == layer)
        maps: NDArray[np.float32] = activate(made, kind).cpu().numpy()
    return maps
