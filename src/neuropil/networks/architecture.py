"""A network as a short list of lines; the field of view, parameter count and dilations follow from it.

A max-pooling ConvNet that labels the centre pixel of a window is written as its layers, one line each:

    conv1a 1x3x3 24          convolution: name, size z×y×x, feature maps (ReLU)
    conv1c 1x2x2 24 tanh     the same with another activation (relu, tanh or linear)
    pool1  1x2x2             max-pooling; `pool3 2x2x2 stride 1x2x2` where the stride differs from the window
    dropout 0.5
    output 1x1x1 2 linear

Key insight (max-filter and sparse filters; Lee et al., NIPS 2015, section 3; Masci et al., ICIP 2013): sliding that
window over an image equals running it once with every pooling at stride 1 and all later filters dilated by the
product of the strides before. N4, VD2D and VD2D3D are the networks of Lee et al., "Recursive Training of 2D-3D
Convolutional Networks for Neuronal Boundary Detection".
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from neuropil.errors import InputError

Activation = Literal["relu", "tanh", "linear"]
Size = tuple[int, int, int]
CLASSES = 2


@dataclass(frozen=True)
class Conv:
    """Valid convolution (cross-correlation) with bias and activation."""

    name: str
    size: Size
    maps: int
    activation: Activation = "relu"


@dataclass(frozen=True)
class Pool:
    """Max-pooling, computed densely as a max-filter; `stride` only sets the dilation of what follows."""

    name: str
    size: Size
    stride: Size


@dataclass(frozen=True)
class Dropout:
    """Inverted dropout: scales while training, does nothing otherwise."""

    rate: float


Layer = Conv | Pool | Dropout


@dataclass(frozen=True)
class Place:
    """One layer at the shape it runs at, all streams alike.

    Attributes
    ----------
    layer : what runs
    dilation : z, y, x, on the lattice that is computed
    step : of a pooling that is run with its stride along y and x; 1 elsewhere
    streams : how many input streams the layer reads
    joined : whether it sums them
    maps_in, maps_out : feature maps of one stream
    shape_in, shape_out : voxels z, y, x
    """

    layer: Layer
    dilation: Size
    step: int
    streams: int
    joined: bool
    maps_in: int
    shape_in: Size
    maps_out: int
    shape_out: Size

    @property
    def name(self) -> str:
        """Name of the layer; "dropout" where it has none."""
        return "dropout" if isinstance(self.layer, Dropout) else self.layer.name

    @property
    def operations(self) -> float:
        """Floating-point operations of a convolution, all streams: 2 per multiplication, each voxel made once."""
        if not isinstance(self.layer, Conv):
            return 0.0
        maps = self.maps_in * self.streams * self.maps_out
        return 2.0 * maps * math.prod(self.layer.size) * math.prod(self.shape_out)


@dataclass(frozen=True)
class Architecture:
    """One network: its lines, how many input streams it has, and how it is initialised.

    Parameters
    ----------
    name : used in logs and checkpoints
    lines : the layers, in the notation of this module
    join : name of the convolution whose outputs are summed over two input streams (image and recursive map), before
    its one bias and its
        activation; layers up to it exist once per stream. None: one stream, the image.
    initialisation : "msra" (Gaussian, sd sqrt(2/fan_in)) or "xavier" (uniform ±sqrt(6/(fan_in+fan_out))); biases 0

    Raises
    ------
    InputError : a line that is not a layer, a join that names no convolution, an output that is not linear

    Examples
    --------
    >>> VD2D.field_of_view, VD2D.parameter_count
    ((1, 109, 109), 230714)
    """

    name: str
    lines: tuple[str, ...]
    join: str | None = None
    initialisation: Literal["msra", "xavier"] = "msra"

    def __post_init__(self) -> None:
        convs = self.convs
        if not convs or convs[-1].activation != "linear":
            raise InputError(f"the last convolution of '{self.name}' must be linear")
        if self.join is not None and self.join not in [conv.name for conv in convs]:
            raise InputError(f"join of '{self.name}' must name a convolution; got '{self.join}'")
        if len({conv.name for conv in convs}) < len(convs):
            raise InputError(f"convolutions of '{self.name}' must have different names")

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The parsed lines."""
        return tuple(_parse(line) for line in self.lines)

    @property
    def convs(self) -> tuple[Conv, ...]:
        """The convolutions in order."""
        return tuple(layer for layer in self.layers if isinstance(layer, Conv))

    @property
    def streams(self) -> int:
        """Number of input volumes: 1 (image) or 2 (image and recursive map)."""
        return 1 if self.join is None else 2

    def check_boundary(self) -> None:
        """Refuse a network that does not tell boundary from interior, which takes an output of 2 maps."""
        if self.convs[-1].maps != CLASSES:
            raise InputError(
                f"the last convolution of '{self.name}' must have {CLASSES} maps, interior and boundary;"
                f" it has {self.convs[-1].maps}"
            )

    @cached_property
    def dilations(self) -> tuple[Size, ...]:
        """Dilation of each layer: the product of the strides of the poolings before it, per axis."""
        dilation, result = (1, 1, 1), []
        for layer in self.layers:
            result.append(dilation)
            if isinstance(layer, Pool):
                dilation = _times(dilation, layer.stride)
        return tuple(result)

    def on_lattice(self, spacing: int) -> tuple[tuple[Layer, Size, int], ...]:
        """Give each layer with its dilation and step, if only every `spacing`-th voxel along y and x is wanted.

        Poolings whose stride the spacing allows step by it; what follows is dilated by so much less.

        >>> [(layer.name, dilation, step) for layer, dilation, step in N4.on_lattice(2)[1:3]]
        [('pool1', (1, 1, 1), 2), ('conv2', (1, 1, 1), 1)]
        """
        thinned, result = 1, []
        for layer, (deep, *flat) in zip(self.layers, self.dilations):
            dilation, step = (deep, flat[0] // thinned, flat[1] // thinned), 1
            if isinstance(layer, Pool) and layer.stride[1] == layer.stride[2] and dilation[1:] == (1, 1):
                step = layer.stride[1] if spacing % (thinned * layer.stride[1]) == 0 else 1
            result.append((layer, dilation, step))
            thinned *= step
        return tuple(result)

    def places(self, patch: Size, spacing: int = 1) -> tuple[Place, ...]:
        """Lay the layers out for an output patch (voxels z, y, x), of which every `spacing`-th is wanted."""
        before, maps, streams, result = self.input_shape(patch), 1, self.streams, []
        for layer, dilation, step in self.on_lattice(spacing):
            size = (1, 1, 1) if isinstance(layer, Dropout) else layer.size
            z, y, x = (n - (k - 1) * gap for n, k, gap in zip(before, size, dilation))
            after = (z, -(-y // step), -(-x // step))
            made = layer.maps if isinstance(layer, Conv) else maps
            joined = isinstance(layer, Conv) and layer.name == self.join
            result.append(Place(layer, dilation, step, streams, joined, maps, before, made, after))
            before, maps, streams = after, made, 1 if joined else streams
        return tuple(result)

    def input_shape(self, patch: Size) -> Size:
        """Voxels z, y, x that an output patch needs: the patch and its field of view."""
        z, y, x = (p + f - 1 for p, f in zip(patch, self.field_of_view))
        return (z, y, x)

    @property
    def stride(self) -> Size:
        """Product of all pooling strides, z, y, x."""
        result = (1, 1, 1)
        for layer in self.layers:
            if isinstance(layer, Pool):
                result = _times(result, layer.stride)
        return result

    @property
    def field_of_view(self) -> Size:
        """Voxels of the input, z, y, x, that one output voxel sees."""
        extent = [1, 1, 1]
        for layer, dilation in zip(self.layers, self.dilations):
            if not isinstance(layer, Dropout):
                extent = [n + (size - 1) * step for n, size, step in zip(extent, layer.size, dilation)]
        return (extent[0], extent[1], extent[2])

    def weight_shape(self, name: str) -> tuple[int, int, int, int, int]:
        """Shape (out, in, z, y, x) of one convolution's filters."""
        fan = 1
        for conv in self.convs:
            if conv.name == name:
                return (conv.maps, fan, *conv.size)
            fan = conv.maps
        raise InputError(f"'{self.name}' has no convolution '{name}'")

    def streams_of(self, name: str) -> int:
        """How many copies of a convolution there are: one per stream up to the join, one after it."""
        names = [conv.name for conv in self.convs]
        return self.streams if self.join is not None and names.index(name) <= names.index(self.join) else 1

    @property
    def parameter_count(self) -> int:
        """Number of weights and biases; the two joined convolutions share one bias."""
        count = 0
        for conv in self.convs:
            copies = self.streams_of(conv.name)
            biases = 1 if conv.name == self.join else copies
            count += copies * math.prod(self.weight_shape(conv.name)) + biases * conv.maps
        return count

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able data, the inverse of `from_dict`."""
        return {
            "name": self.name,
            "lines": list(self.lines),
            "join": self.join,
            "initialisation": self.initialisation,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Architecture:
        """Rebuild an architecture from `to_dict`."""
        return cls(data["name"], tuple(data["lines"]), data["join"], data["initialisation"])


def _times(a: Size, b: Size) -> Size:
    return (a[0] * b[0], a[1] * b[1], a[2] * b[2])


_SIZE = r"(\d+)x(\d+)x(\d+)"
_CONV = re.compile(rf"(\w+) {_SIZE} (\d+)(?: (relu|tanh|linear))?")
_POOL = re.compile(rf"(pool\w*) {_SIZE}(?: stride {_SIZE})?")
_DROPOUT = re.compile(r"dropout (0?\.\d+|0|1)")


def _parse(line: str) -> Layer:
    text = " ".join(line.split())
    if match := _POOL.fullmatch(text):
        size = _size(match.groups()[1:4])
        return Pool(match[1], size, _size(match.groups()[4:7]) if match[5] else size)
    if match := _DROPOUT.fullmatch(text):
        return Dropout(float(match[1]))
    if match := _CONV.fullmatch(text):
        activation: Any = match[6] or "relu"
        return Conv(match[1], _size(match.groups()[1:4]), int(match[5]), activation)
    raise InputError(
        "a layer must read like 'conv1 1x3x3 24', 'pool1 1x2x2', 'pool3 2x2x2 stride 1x2x2' or 'dropout 0.5';"
        f" got {line!r}"
    )


def _size(numbers: Sequence[str]) -> Size:
    z, y, x = (int(number) for number in numbers)
    if min(z, y, x) < 1:
        raise InputError(f"layer sizes must be positive; got {z}x{y}x{x}")
    return (z, y, x)


N4 = Architecture(
    "n4",
    (
        "conv1 1x4x4 48",
        "pool1 1x2x2",
        "conv2 1x5x5 48",
        "pool2 1x2x2",
        "conv3 1x4x4 48",
        "pool3 1x2x2",
        "conv4 1x4x4 48",
        "pool4 1x2x2",
        "conv5 1x3x3 200",
        "output 1x1x1 2 linear",
    ),
    initialisation="xavier",
)

_STEM = (
    "conv1a 1x3x3 24",
    "conv1b 1x3x3 24",
    "conv1c 1x2x2 24",
    "pool1 1x2x2",
    "conv2a 1x3x3 36",
    "conv2b 1x3x3 36",
    "pool2 1x2x2",
    "conv3a 1x3x3 48",
    "conv3b 1x3x3 48",
)

VD2D = Architecture(
    "vd2d",
    (
        *_STEM,
        "pool3 1x2x2",
        "conv4a 1x3x3 60",
        "conv4b 1x3x3 60",
        "pool4 1x2x2",
        "conv5 1x3x3 200",
        "dropout 0.5",
        "output 1x1x1 2 linear",
    ),
)

VD2D3D = Architecture(
    "vd2d3d",
    (
        *_STEM,
        "pool3 2x2x2 stride 1x2x2",
        "conv4a 2x3x3 60",
        "conv4b 2x3x3 60",
        "conv4c 2x3x3 100",
        "dropout 0.5",
        "output 1x1x1 2 linear",
    ),
    join="conv1c",
)


def _tanh_before_pool(base: Architecture) -> Architecture:
    """The lab's second lineage: 1.7159·tanh(0.6666·x) instead of ReLU just before each pooling."""
    lines = list(base.lines)
    for index, layer in enumerate(base.layers):
        if isinstance(layer, Pool):
            lines[index - 1] += " tanh"
    return replace(base, name=f"{base.name}_tanh", lines=tuple(lines))


ARCHITECTURES = {
    net.name: net
    for net in (
        N4,
        VD2D,
        VD2D3D,
        replace(VD2D3D, name="vd2d3d_single", join=None),  # the same without recursive input
        _tanh_before_pool(VD2D),
        _tanh_before_pool(VD2D3D),
    )
}
