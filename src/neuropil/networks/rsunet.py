"""The residual, symmetric U-Net: an image patch in, affinities of the same size out.

Convolutions keep the size, features of the encoder are added to those of the decoder rather than put beside them, and
each scale has a residual module: one convolution, then two more whose result is added to the first's. The 1x1x1
convolution after an interpolation is done before it here, at the coarse scale: both are linear and act on different
axes, so the result is the same for a quarter of the work.

Source: Lee et al., arXiv:1706.00120, figure 2; `UNetArchitecture` has the choices.
"""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.errors import InputError
from neuropil.networks.layout import fold, refold, unfold
from neuropil.networks.unet_architecture import GROUPS, Norm, Size, UNetArchitecture, architecture_for
from neuropil.networks.winograd import convolve_winograd, usually_faster

__all__ = ["RSUNet", "UNetArchitecture", "architecture_for"]

_ONEDNN = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
SMALL = 20480  # of torch 2.4 to 2.13: n·c·z·y up to which a single volume is taken for too small for oneDNN
BATCH_MOMENTUM = 0.01
"""Weight of a new batch in the running statistics of batch norm."""


class RSUNet(nn.Module):
    """A U-Net that predicts one affinity per voxel and offset.

    Parameters
    ----------
    architecture : the description; that of the paper by default
    seed : of the initial weights, normal with variance 2 / fan-in (He et al., 2015); biases are 0

    Examples
    --------
    >>> net = RSUNet(UNetArchitecture(widths=(4, 8), pooling=((1, 2, 2),)), seed=0)
    >>> net(torch.zeros(1, 1, 3, 8, 10)).shape
    torch.Size([1, 12, 3, 8, 10])
    """

    def __init__(self, architecture: UNetArchitecture | None = None, seed: int = 0) -> None:
        super().__init__()
        self.architecture = architecture = architecture or UNetArchitecture()
        widths, finest = architecture.widths, architecture.widths[0]
        self.embed = _conv(1, finest, architecture.ends)
        self.encoder = nn.ModuleList(_Residual(a, b, architecture) for a, b in zip((finest, *widths), widths))
        self.decoder = nn.ModuleList(_Residual(width, width, architecture) for width in widths[:-1])
        if not architecture.full_resolution:
            for modules in (self.encoder, self.decoder)[: len(widths)]:
                modules[0] = nn.Identity()
        self.up = nn.ModuleList(_conv(coarse, fine, (1, 1, 1)) for fine, coarse in pairwise(widths))
        self.joins = nn.ModuleList(_Join(architecture.norm, fine) for fine in widths[:-1])
        self.head = _conv(finest, finest, architecture.ends)
        self.output = _conv(finest, len(architecture.offsets), (1, 1, 1))
        self._initialise(seed)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Predict the affinities of patches.

        Parameters
        ----------
        image : (n, 1, z, y, x), standardised; extents must be multiples of `architecture.multiple`

        Returns
        -------
        logits (n, c, z, y, x), one channel per offset; their logistic function is the affinity

        Raises
        ------
        InputError : another shape
        """
        self._check(image)
        features = image.contiguous(memory_format=torch.channels_last_3d)
        features = _elu(self.embed(features))
        skips: list[Tensor] = []
        for level, module in enumerate(self.encoder):
            if level:
                skips.append(features)
                features = _pool(features, self.architecture.pooling[level - 1])
            features = module(features)
        for level in reversed(range(len(skips))):
            finer = skips.pop()
            coarse = _enlarge(self.up[level](features), self.architecture.pooling[level])
            features = self.decoder[level](self.joins[level](coarse, finer))
            del coarse, finer
        return cast(Tensor, self.output(_elu(self.head(features))))

    def named_weights(self) -> dict[str, Tensor]:
        """Return parameters and running statistics by name, not copied."""
        return {name: value.detach() for name, value in self.state_dict().items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Copy weights in by name.

        Parameters
        ----------
        weights : name → tensor, as `named_weights` gives them

        Raises
        ------
        InputError : a name is missing or a shape differs
        """
        for name, mine in self.named_weights().items():
            if name not in weights:
                raise InputError(
                    f"weights for '{self.architecture.name}' lack '{name}'; they are of another architecture"
                )
            if weights[name].shape != mine.shape:
                raise InputError(
                    f"weights '{name}' must have shape {tuple(mine.shape)} for '{self.architecture.name}';"
                    f" got {tuple(weights[name].shape)}: they are of another architecture"
                )
            mine.copy_(weights[name])

    def folded(self) -> RSUNet:
        """Return a copy for prediction whose batch norms are part of its convolutions; others are only copied.

        The result is the same up to rounding, in less time and memory. The copy cannot be trained, and its weights are
        not those of a model file.
        """
        net = copy.deepcopy(self).eval().requires_grad_(False)
        for module in net.modules():
            if isinstance(module, _Residual):
                if _fold(module.conv1, module.norm1) is not None:
                    module.norm1 = nn.Identity()
                if _fold(module.conv2, module.norm2) is not None:
                    module.norm2 = nn.Identity()
                module.join.fold(module.conv3)
        for up, join in zip(net.up, net.joins):
            cast(_Join, join).fold(cast(nn.Conv3d, up))
        return net

    def _check(self, image: Tensor) -> None:
        multiple = self.architecture.multiple
        if image.dim() != 5 or image.shape[1] != 1 or any(n % m or not n for n, m in zip(image.shape[2:], multiple)):
            raise InputError(
                f"'{self.architecture.name}' takes images (n, 1, z, y, x) whose extents z, y, x are multiples of"
                f" {multiple}; got {tuple(image.shape)}"
            )

    def _initialise(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class _Residual(nn.Module):
    """conv, norm, ELU, giving s; conv, norm, ELU; conv; + s, norm, ELU."""

    def __init__(self, maps_in: int, maps: int, architecture: UNetArchitecture) -> None:
        super().__init__()
        bias, norm, cube = architecture.norm == "none", architecture.norm, (3, 3, 3)
        self.conv1, self.norm1 = _conv(maps_in, maps, architecture.first, bias), _norm(norm, maps)
        self.conv2, self.norm2 = _conv(maps, maps, cube, bias), _norm(norm, maps)
        self.conv3, self.join = _conv(maps, maps, cube, bias), _Join(norm, maps)

    def forward(self, features: Tensor) -> Tensor:
        short = _elu(self.norm1(self.conv1(features)))
        return cast(Tensor, self.join(self.conv3(_elu(self.norm2(self.conv2(short)))), short))


class _Join(nn.Module):
    """Sum, norm, ELU. Once the norm is folded into what made `new`, its factor is left for `old`."""

    def __init__(self, norm: Norm, maps: int) -> None:
        super().__init__()
        self.norm = _norm(norm, maps)
        self.factor: Tensor | None
        self.register_buffer("factor", None)

    def forward(self, new: Tensor, old: Tensor) -> Tensor:
        if self.factor is not None:
            return _elu(new.addcmul_(old, self.factor))
        return _elu(self.norm(new + old))

    def fold(self, conv: nn.Conv3d) -> None:
        factor = _fold(conv, self.norm)
        if factor is not None:
            self.factor, self.norm = factor.view(1, -1, 1, 1, 1), nn.Identity()


def _fold(conv: nn.Conv3d, norm: nn.Module) -> Tensor | None:
    """Let a convolution do what the batch norm after it would; return the factors, one per map, or None."""
    if not isinstance(norm, nn.BatchNorm3d):
        return None
    assert norm.running_var is not None
    assert norm.running_mean is not None
    factor = (norm.weight * torch.rsqrt(norm.running_var + norm.eps)).detach()
    before = -norm.running_mean if conv.bias is None else conv.bias.detach() - norm.running_mean
    conv.weight = nn.Parameter(conv.weight.detach() * factor.view(-1, 1, 1, 1, 1), requires_grad=False)
    conv.bias = nn.Parameter(norm.bias.detach() + factor * before, requires_grad=False)
    return factor


class _Convolution(nn.Conv3d):
    """Convolution that keeps the size, by minimal filtering where that is faster.

    Else flat filters are convolved section by section, which libraries do faster. A small single volume torch gives to
    a loop of its own, many times slower than oneDNN, forwards and backwards. So it is convolved by name, or, where
    there will be a gradient, as a batch of its two halves.
    """

    def forward(self, features: Tensor) -> Tensor:
        deep, *flat = cast(tuple[int, int, int], self.padding)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else features.dtype
        if usually_faster(self.weight.shape, features.device, dtype):
            return convolve_winograd(features, self.weight, self.bias, (1, 1, 1), margin=(deep, flat[0], flat[1]))
        if self.kernel_size[0] == 1:
            sections = functional.conv2d(fold(features), self.weight[:, :, 0], self.bias, padding=flat)
            return unfold(sections, features.shape[0])
        if not _left_to_torch(features):
            return super().forward(features)
        if not torch.is_grad_enabled():
            one = [1, 1, 1]
            return torch.mkldnn_convolution(features, self.weight, self.bias, [deep, *flat], one, one, 1)
        depth = features.shape[2]
        half = -(-depth // 2)
        padded = functional.pad(features, (0, 0, 0, 0, deep, deep + depth % 2))
        halves = torch.cat([padded[:, :, : half + 2 * deep], padded[:, :, half:]])
        halves = halves.contiguous(memory_format=torch.channels_last_3d)
        made = functional.conv3d(halves, self.weight, self.bias, padding=(0, *flat))
        return unfold(refold(made), 1)[:, :, :depth]


def _left_to_torch(features: Tensor) -> bool:
    """Whether this is a float32 volume on a CPU that torch would not ask oneDNN for."""
    small = len(features) == 1 and math.prod(features.shape[:4]) <= SMALL
    plain = features.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return small and plain and features.device.type == "cpu" and _ONEDNN


def _conv(maps_in: int, maps: int, size: Size, bias: bool = True) -> nn.Conv3d:
    return _Convolution(maps_in, maps, size, padding=(size[0] // 2, size[1] // 2, size[2] // 2), bias=bias)


def _norm(kind: Norm, maps: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm3d(maps, momentum=BATCH_MOMENTUM)
    if kind == "instance":
        return nn.InstanceNorm3d(maps, affine=True)
    return nn.GroupNorm(GROUPS, maps) if kind == "group" else nn.Identity()


def _elu(features: Tensor) -> Tensor:
    return functional.elu(features, inplace=True)


def _pool(features: Tensor, factors: Size) -> Tensor:
    return functional.max_pool3d(features, factors)


def _enlarge(features: Tensor, factors: Size) -> Tensor:
    return functional.interpolate(features, scale_factor=[float(n) for n in factors], mode="trilinear")
