"""Convolution by Winograd's minimal filtering: a fifth of the products, for filters of 2 to 5 voxels along y and x.

Filters become matrices (maps in, maps out), one a frequency; the kernels transform tiles of 6×6 or 7×7 voxels,
multiply, and transform back. The gradient of the image is the same with filters turned round and margins of zeros, that
of the filters the same steps transposed. Of float32 on a CPU alone: processors multiply bfloat16 so much faster than
they add float32 that nothing would be gained.
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuropil._kernels import winograd as kernels
from neuropil._kernels.vectors import FUSED, LANES
from neuropil.networks.activation import relu_backward
from neuropil.networks.architecture import Size
from neuropil.networks.rooms import empty
from neuropil.networks.spectra import kept
from neuropil.networks.threads import by_rows

FEWEST, ENOUGH = 8, 12  # maps from which on products of matrices may be, and usually are, worth their transforms


def suits(weight_shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> bool:
    """Whether filters (out, in, kz, ky, kx) can be convolved so."""
    _, _, _, high, wide = weight_shape
    return device.type == "cpu" and dtype == torch.float32 and high == wide and high in kernels.SIZES


def worth_trying(weight_shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> bool:
    """Whether filters (out, in, kz, ky, kx) may be convolved faster so."""
    return FUSED and min(weight_shape[:2]) >= FEWEST and suits(weight_shape, device, dtype)


def usually_faster(weight_shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> bool:
    """Whether filters (out, in, kz, ky, kx) were convolved faster so on all processors that were tried."""
    many = min(weight_shape[:2]) >= ENOUGH and weight_shape[3] > 2
    return many and worth_trying(weight_shape, device, dtype)


def convolve_winograd(
    volume: Tensor, weight: Tensor, bias: Tensor | None, dilation: Size, relu: bool = False, margin: Size = (0, 0, 0)
) -> Tensor:
    """Cross-correlation with a dilated filter, and ReLU if asked for.

    Parameters
    ----------
    volume : (n, in, z, y, x), float32, channels last
    weight : (out, in, kz, k, k), k of 2 to 5
    bias : (out,) or None
    dilation : z, y, x
    relu : whether negative results become 0
    margin : zeros on each side of the volume, z, y, x

    Returns
    -------
    (n, out, z + 2·mz - (kz-1)·dz, y + 2·my - (k-1)·dy, x + 2·mx - (k-1)·dx), channels last
    """
    keep = not torch.is_grad_enabled()  # filters that learn are others at the next step
    made: Tensor = _Winograd.apply(volume, weight, bias, dilation, relu, margin, keep)  # type: ignore[no-untyped-call]
    return made


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, volume: Tensor, weight: Tensor, bias: Tensor | None, dilation: Size, relu: bool, margin: Size,
        keep: bool,
    ) -> Tensor:  # fmt: skip
        made = _convolved(volume, weight, bias, dilation, margin, relu, keep)
        ctx.save_for_backward(volume, weight, *([made] if relu else []))
        ctx.where, ctx.biased = (dilation, margin), bias is not None
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (volume, weight, *made), gradient = ctx.saved_tensors, gradients[0]
        gradient = gradient.contiguous(memory_format=torch.channels_last_3d)
        to_volume = to_weight = None
        if made:
            gradient, to_bias = relu_backward(gradient, made[0])
        else:
            to_bias = gradient.sum((0, 2, 3, 4))
        if ctx.needs_input_grad[0]:
            to_volume = _image_gradient(gradient, weight, *ctx.where)
        if ctx.needs_input_grad[1]:
            to_weight = filter_gradient(gradient, volume, weight.shape, *ctx.where)
        return to_volume, to_weight, to_bias if ctx.biased else None, None, None, None, None


def _image_gradient(gradient: Tensor, weight: Tensor, dilation: Size, margin: Size) -> Tensor:
    """Gradient of the volume, from that of the result (n, out, z, y, x)."""
    turned = weight.flip(2, 3, 4).transpose(0, 1)
    outside = tuple((k - 1) * gap - within for k, gap, within in zip(weight.shape[2:], dilation, margin))
    return _convolved(gradient, turned, None, dilation, outside, False, False)


def filter_gradient(
    gradient: Tensor, volume: Tensor, weight_shape: tuple[int, ...], dilation: Size, margin: Size
) -> Tensor:
    """Gradient of the filters of `convolve_winograd`.

    Parameters
    ----------
    gradient : of the result, (n, out, z', y', x'), float32
    volume : (n, in, z, y, x), float32
    weight_shape : out, in, kz, k, k
    dilation, margin : z, y, x, as they were in the convolution

    Returns
    -------
    (out, in, kz, k, k), float32
    """
    maps, fan, depth, size, _ = weight_shape
    given, outer = _numbers(volume), _numbers(gradient)
    tile = _tile(outer.shape, size, dilation)
    count = kernels.tiles(outer.shape, tile, size, dilation)
    parts = by_rows(kernels.filter_gradient, count, given.nbytes, given, outer, tile, size, depth, dilation, margin)
    sums = torch.from_numpy(sum(part[:, :maps, : depth * fan] for part in parts))
    made = sums.permute(1, 2, 0).double() @ _to_frequencies(tile, size)
    return made.float().view(maps, depth, fan, size, size).transpose(1, 2)


def bytes_of_tiles(maps_in: int, maps_out: int, kernel: Size) -> tuple[float, float]:
    """Foresee the bytes that a convolution works in, and those of the spectra it keeps."""
    tile, given, made = max(kernels.POINTS), kernel[0] * maps_in + 2 * LANES, maps_out + LANES
    spectra = 4.0 * tile**2 * kernel[0] * maps_in * made
    together = kernels.MADE if spectra < kernels.LARGE else kernels.SUMMED
    work = 4.0 * tile * (together * ((tile + 1) * given + (tile + 2 - kernel[1]) * made) + 2 * LANES)
    return torch.get_num_threads() * work, spectra


def _convolved(
    volume: Tensor, weight: Tensor, bias: Tensor | None, dilation: Size, margin: tuple[int, ...], relu: bool, keep: bool
) -> Tensor:
    """Convolve; the spectra of the filters are kept for the next time if asked for."""
    (n, _, *extent), (maps, _, depth, size, _) = volume.shape, weight.shape
    shape = (n, *(e + 2 * m - (k - 1) * d for e, m, k, d in zip(extent, margin, (depth, size, size), dilation)), maps)
    tile = _tile(shape, size, dilation)
    spectra = kept(weight, ("winograd", tile), lambda: _spectra(weight, tile)) if keep else _spectra(weight, tile)
    added = np.zeros(maps, np.float32) if bias is None else bias.detach().numpy()
    made = empty((n, maps, *shape[1:4]), volume)
    out, floor = _numbers(made), np.float32(0 if relu else -np.inf)
    by_rows(
        kernels.convolve, kernels.tiles(shape, tile, size, dilation), out.nbytes,
        _numbers(volume), spectra, added, floor, tile, size, depth, dilation, margin, out,
    )  # fmt: skip
    return made


@cache
def _tile(shape: tuple[int, ...], size: int, dilation: Size) -> int:
    """Choose the tile that needs the fewest products for a result (n, z, y, x, maps)."""

    def products(tile: int) -> int:
        edge, counts = tile + 1 - size, [1, 1]
        for axis, (extent, gap) in enumerate(zip(shape[2:4], dilation[1:])):
            counts[axis] = sum(-(-len(range(offset, extent, gap)) // edge) for offset in range(gap))
        return tile**2 * counts[0] * counts[1]

    return min(kernels.POINTS, key=products)


def _numbers(volume: Tensor) -> NDArray[np.float32]:
    return volume.detach().permute(0, 2, 3, 4, 1).contiguous().numpy()


def _spectra(weight: Tensor, tile: int) -> NDArray[np.float32]:
    """Transform filters (out, in, kz, k, k) to (tile², kz·in, out), the last up to whole vectors."""
    maps, fan, depth, size, _ = weight.shape
    made = weight.detach().double().flatten(3) @ _to_frequencies(tile, size).t()
    shape = (made.shape[-1], depth * fan, -(-maps // LANES) * LANES)
    out: NDArray[np.float32] = kernels.zeros(prod(shape)).reshape(shape)
    out[:, :, :maps] = made.permute(3, 2, 1, 0).reshape(-1, depth * fan, maps)
    return out


@cache
def _to_frequencies(tile: int, size: int) -> Tensor:
    """Matrix (tile², size²) that transforms a filter."""
    along = torch.from_numpy(kernels.matrices(tile, size)[0])
    return torch.kron(along, along)
