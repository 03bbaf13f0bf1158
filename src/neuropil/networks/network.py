"""The trainable network of an `Architecture`: weights in a flat dictionary, one dense forward pass.

Weights are named `conv.weight` (out, in, z, y, x) and `conv.bias`; copies for the recursive input stream are named
`conv.recursive.weight`. At the join both streams' convolutions are summed before the one bias and the activation (Lee
et al., NIPS 2015, figure 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from neuropil.errors import InputError
from neuropil.networks.architecture import Architecture, Conv, Dropout
from neuropil.networks.layers import Method, convolve, dropout, max_filter
from neuropil.networks.layout import fold, fragmented, unfold
from neuropil.networks.rooms import place

STREAMS = ("", ".recursive")


class Form(NamedTuple):
    """How one layer is computed; all forms give the same result up to rounding.

    Attributes
    ----------
    fragments : a side into which sections are split while it runs: 1, or a divisor of its dilation along y and x
    method : of a convolution
    """

    fragments: int = 1
    method: Method = "direct"


class DenseNetwork(nn.Module):
    """A max-filtering ConvNet that labels every voxel whose field of view lies inside the input.

    Parameters
    ----------
    architecture : the description
    seed : of the initial weights

    Examples
    --------
    >>> from neuropil.networks.architecture import N4
    >>> net = DenseNetwork(N4, seed=0)
    >>> net([torch.zeros(1, 1, 1, 95, 96)]).shape
    torch.Size([1, 2, 1, 1, 2])
    """

    def __init__(self, architecture: Architecture, seed: int = 0) -> None:
        super().__init__()
        self.architecture = architecture
        self.weights = nn.ParameterDict()
        generator = torch.Generator().manual_seed(seed)
        for conv in architecture.convs:
            for stream in STREAMS[: architecture.streams_of(conv.name)]:
                weight = _initial(architecture, conv, generator)
                self.weights[_key(f"{conv.name}{stream}.weight")] = nn.Parameter(weight)
                if not (stream and conv.name == architecture.join):
                    self.weights[_key(f"{conv.name}{stream}.bias")] = nn.Parameter(torch.zeros(conv.maps))

    def forward(self, inputs: Sequence[Tensor], spacing: int = 1, forms: Sequence[Form] = ()) -> Tensor:
        """Label every voxel, or every `spacing`-th.

        Parameters
        ----------
        inputs : one tensor (n, 1, z, y, x) per stream: the standardised image, then the recursive map. Their dtype is
            the one computed in.
        spacing : of the labelled voxels along y and x, from the first on. The poolings that it allows are run with
            their strides instead of densely, so a wide lattice costs little more than its first layers.
        forms : of the layers; direct convolutions on whole sections by default

        Returns
        -------
        logits (n, 2, z', y', x'), channel 0 interior, channel 1 boundary; each axis shorter by field of view - 1, then
        y and x thinned to every `spacing`-th voxel

        Raises
        ------
        InputError : not one input per stream, or forms that do not fit the layers
        """
        architecture, n = self.architecture, inputs[0].shape[0]
        if len(inputs) != architecture.streams:
            raise InputError(f"'{architecture.name}' takes {architecture.streams} inputs; got {len(inputs)}")
        streams, splits = [fold(one) for one in inputs], tuple[int, ...]()
        extent, rest = (inputs[0].shape[3], inputs[0].shape[4]), spacing
        lattice = architecture.on_lattice(spacing)
        forms = forms or [Form()] * len(lattice)
        if len(forms) != len(lattice) or any(
            y % f.fragments or x % f.fragments for (_, (_, y, x), _), f in zip(lattice, forms)
        ):
            raise InputError(
                f"forms must be {len(lattice)}, their fragments divisors of the dilations; got {tuple(forms)}"
            )
        for (layer, (deep, *flat), step), form in zip(lattice, forms):
            made = [fragmented(streams.pop(0), splits, form.fragments, extent) for _ in tuple(streams)]
            streams, splits = [one for one, _ in made], made[0][1]
            del made
            images, parts = n * form.fragments**2, form.fragments
            dilation = (deep, flat[0] // parts, flat[1] // parts)
            if isinstance(layer, Dropout):
                streams = [dropout(one, layer.rate, self.training) for one in streams]
                continue
            if isinstance(layer, Conv) and layer.name == architecture.join:
                shape = (len(streams[0]), 2 * streams[0].shape[1], *streams[0].shape[2:])
                streams = [torch.cat(streams, 1, out=place(shape, streams[0]))]
            for stream in STREAMS[: len(streams)]:  # what a layer has used is freed before the next stream's turn
                if isinstance(layer, Conv):
                    weight, bias = self._filters(layer, stream, inputs[0].dtype)
                    one = convolve(streams.pop(0), images, weight, bias, dilation, layer.activation, form.method)
                else:
                    one = max_filter(streams.pop(0), images, layer.size, dilation, step)
                streams.append(one)
                del one
            height, width = (e - (size - 1) * gap for e, size, gap in zip(extent, layer.size[1:], flat))
            extent, rest = (-(-height // step), -(-width // step)), rest // step
        whole, _ = fragmented(streams[0], splits, 1, extent)
        return unfold(whole[:, :, ::rest, ::rest], n)

    def named_weights(self) -> dict[str, Tensor]:
        """Return the parameters under their public names, `conv1a.weight` and so on."""
        return {_name(key): value.detach() for key, value in self.weights.items()}

    def load_weights(self, weights: dict[str, Tensor], *, only: Sequence[str] | None = None) -> None:
        """Copy weights in by public name.

        Parameters
        ----------
        weights : public name → tensor
        only : names to copy; all of the network's own by default

        Raises
        ------
        InputError : a name is missing or a shape differs
        """
        mine = self.named_weights()
        for name in mine if only is None else only:
            if name not in weights:
                raise InputError(
                    f"weights for '{self.architecture.name}' lack '{name}'; they are of another architecture"
                )
            if weights[name].shape != mine[name].shape:
                raise InputError(
                    f"weights '{name}' must have shape {tuple(mine[name].shape)} for '{self.architecture.name}';"
                    f" got {tuple(weights[name].shape)}: they are of another architecture"
                )
            mine[name].copy_(weights[name])

    def take_over(self, other: dict[str, Tensor]) -> None:
        """Start from another network: copy the shared weights.

        Where the other has no recursive stream, this one's is silent at the join: so the first layers begin as what
        the other network learnt, and the stream's map is taken in from there on.
        """
        self.load_weights(other, only=self.shared_with(other))
        join = f"{self.architecture.join}{STREAMS[1]}.weight"
        if self.architecture.join is not None and join not in other:
            self.weights[_key(join)].detach().zero_()

    def shared_with(self, other: dict[str, Tensor]) -> list[str]:
        """Return the names of weights that `other` holds in the same shape, up to the first layer where they part.

        This is what VD2D3D takes over from VD2D: conv1* to conv3* (the layers of the image stream before the third
        pooling). A recursive stream is shared where the other has one.
        """
        shared: list[str] = []
        mine = self.named_weights()
        recursive = self.architecture.join is not None and f"{self.architecture.join}{STREAMS[1]}.weight" in other
        for conv in self.architecture.convs:
            streams = STREAMS[: self.architecture.streams_of(conv.name) if recursive else 1]
            names = [f"{conv.name}{stream}.{kind}" for stream in streams for kind in ("weight", "bias")]
            names = [name for name in names if name in mine]
            if any(name not in other or other[name].shape != mine[name].shape for name in names):
                break
            shared += names
        return shared

    def _filters(self, layer: Conv, stream: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Weight and bias of one stream; a join has one convolution over both streams' maps, which is their sum."""
        streams = STREAMS if layer.name == self.architecture.join else (stream,)
        weights = [self.weights[_key(f"{layer.name}{one}.weight")] for one in streams]
        weight = torch.cat(weights, 1) if len(weights) > 1 else weights[0]
        return weight.to(dtype), self.weights[_key(f"{layer.name}{streams[0]}.bias")].to(dtype)


def _initial(architecture: Architecture, conv: Conv, generator: torch.Generator) -> Tensor:
    shape = architecture.weight_shape(conv.name)
    fan_in, fan_out = math.prod(shape[1:]), shape[0] * math.prod(shape[2:])
    if architecture.initialisation == "msra":
        return torch.randn(shape, generator=generator) * math.sqrt(2 / fan_in)
    return (torch.rand(shape, generator=generator) * 2 - 1) * math.sqrt(6 / (fan_in + fan_out))


def _key(name: str) -> str:
    return name.replace(".", ":")  # torch forbids dots in parameter names


def _name(key: str) -> str:
    return key.replace(":", ".")
