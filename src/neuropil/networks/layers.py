"""The layers of a dense network on folded sections: convolution with sparse filters, max-filter, activation, dropout.

On a CPU a convolution and its ReLU are one pass. What layers of a pass make lies in its room (`rooms`), if it has one;
the library's convolutions return memory of their own, so they are copied there, a part at a time, from the caches.
Without gradients the max-filter is a maximum of shifted views, one axis at a time; with them a compiled loop remembers
which voxel won, so that its backward pass is one pass too. The library has fast weight gradients for AVX-512 alone;
elsewhere they are products of matrices, row by row. `benchmarks/engine/run.py` measures each choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from math import prod
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neuropil._kernels import dropout as dropout_kernels
from neuropil._kernels import max_filter as kernels
from neuropil.machine import cpu_flags
from neuropil.networks.activation import BITS, activate, relu_backward
from neuropil.networks.architecture import Activation, Size
from neuropil.networks.fft import convolve_fft
from neuropil.networks.layout import fold, refold, unfold
from neuropil.networks.rooms import empty, in_room, place
from neuropil.networks.threads import by_rows
from neuropil.networks.winograd import convolve_winograd, filter_gradient, suits, usually_faster

Method = Literal["direct", "fft", "winograd"]
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
PART = 2 << 20  # bytes a thread that the library makes at a time where they are copied into a room
LONG_ROWS = 64  # voxels along x from which on the product of matrices of a row is fast


def convolve(
    sections: Tensor,
    n: int,
    weight: Tensor,
    bias: Tensor | None,
    dilation: Size,
    activation: Activation = "linear",
    method: Method = "direct",
) -> Tensor:
    """Valid cross-correlation with a dilated filter, and the activation.

    Parameters
    ----------
    sections : (n·z, in, y, x)
    weight : (out, in, kz, ky, kx)
    bias : (out,) or None
    dilation : z, y, x
    activation : of the result
    method : direct, by Fourier transforms, or by minimal filtering (where that suits; else direct)

    Returns
    -------
    (n·(z - (kz-1)·dz), out, y - (ky-1)·dy, x - (kx-1)·dx)
    """
    if method == "fft":
        return activate(fold(convolve_fft(unfold(sections, n), weight, bias, dilation)), activation)
    if method == "winograd" and suits(weight.shape, sections.device, sections.dtype):
        made = convolve_winograd(unfold(sections, n), weight, bias, dilation, activation == "relu")
        return activate(refold(made), activation) if activation == "tanh" else refold(made)
    flat = weight.shape[2] == 1
    image = sections if flat else unfold(sections, n)
    filters = weight[:, :, 0] if flat else weight
    filters, gaps = filters.contiguous(memory_format=LAST[image.dim()]), dilation[1:] if flat else dilation
    learning = torch.is_grad_enabled() and (weight.requires_grad or sections.requires_grad)
    if sections.device.type != "cpu" or sections.dtype not in BITS:
        run = functional.conv2d if flat else functional.conv3d
        out = activate(run(image, filters, bias, dilation=gaps), activation)
    elif learning:
        out = _Convolution.apply(image, filters, bias, gaps, activation == "relu")  # type: ignore[no-untyped-call]
        out = activate(out, activation) if activation == "tanh" else out
    else:
        out = (_in_parts if in_room() else _fused)(image, filters, bias, gaps, activation)
    return out if flat else refold(out)


def max_filter(sections: Tensor, n: int, size: Size, dilation: Size, step: int = 1) -> Tensor:
    """Maximum over a window of `size` voxels (z, y, x), `dilation` apart, at every position that fits.

    With a `step`, at every step-th position along y and x (max-pooling); their dilation must then be 1.
    """
    compiled = sections.device.type == "cpu" and sections.dtype in BITS
    if compiled and sections.requires_grad and torch.is_grad_enabled():
        out: Tensor = _MaxFilter.apply(sections, n, size, dilation, step)  # type: ignore[no-untyped-call]
        return out
    if step > 1 or (sections.device.type != "cpu" and size[1] * size[2] > 1):
        sections = functional.max_pool2d(sections, size[1:], step, dilation=dilation[1:])
        size = (size[0], 1, 1)
    for axis in (2, 1, 0):
        for _ in range(size[axis] - 1):
            a, b = (_shifted(sections, n, axis, start, dilation[axis]) for start in (0, dilation[axis]))
            sections = torch.maximum(a, b, out=place(a.shape, a))
    return sections


def dropout(sections: Tensor, rate: float, training: bool) -> Tensor:
    """Inverted dropout; on the CPU the mask follows from one random number (the rate is rounded to 1/256)."""
    if not training or sections.device.type != "cpu" or sections.dtype not in BITS:
        return functional.dropout(sections, rate, training)
    seed = int(torch.randint(2**62, ()))
    out: Tensor = _Dropout.apply(sections, np.uint64(seed), rate)  # type: ignore[no-untyped-call]
    return out


def _fused(
    image: Tensor, filters: Tensor, bias: Tensor | None, gaps: tuple[int, ...], activation: Activation
) -> Tensor:
    """Convolve and activate in one pass where the library can."""
    if activation != "relu" or not _library_fuses(image.dtype):
        run = functional.conv2d if image.dim() == 4 else functional.conv3d
        return activate(run(image, filters, bias, dilation=gaps), activation)
    zero, one = [0] * len(gaps), [1] * len(gaps)
    out: Tensor = torch.ops.mkldnn._convolution_pointwise(
        image, filters, bias, zero, one, list(gaps), 1, "relu", [], ""
    )
    return out


def _in_parts(
    image: Tensor, filters: Tensor, bias: Tensor | None, gaps: tuple[int, ...], activation: Activation
) -> Tensor:
    """Convolve and activate into a room, some images or some rows (of volumes: sections) at a time."""
    halo = [(k - 1) * gap for k, gap in zip(filters.shape[2:], gaps)]
    out = empty((len(image), len(filters), *(e - h for e, h in zip(image.shape[2:], halo))), image)
    for images, rows in _parts(out):
        given = image[images, :, rows.start : rows.stop + halo[0]]
        out[images, :, rows] = _fused(given, filters, bias, gaps, activation)
    return out


def _parts(out: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield images and rows of about `PART` bytes a thread, or one row where that has more."""
    row = out[0, :, 0].numel() * out.itemsize
    rows = max(1, torch.get_num_threads() * PART // row)
    images = max(1, rows // out.shape[2])
    for image in range(0, len(out), images):
        for first in range(0, out.shape[2], rows):
            yield slice(image, image + images), slice(first, min(first + rows, out.shape[2]))


def bytes_of_parts(shape: Size, maps_out: int, kernel: Size, itemsize: int) -> float:
    """Foresee the bytes that a convolution with a result of `shape` voxels has at a time beside it."""
    row = maps_out * prod(shape[2:] if kernel[0] == 1 else shape[1:]) * itemsize
    return float(max(row, torch.get_num_threads() * PART))


@cache
def _library_fuses(dtype: torch.dtype) -> bool:
    """Whether this build of torch has oneDNN's convolution with ReLU, and the processor what it needs for `dtype`."""
    try:
        one, fused = torch.ones(1, 1, 1, 1, dtype=dtype), torch.ops.mkldnn._convolution_pointwise
        return float(fused(-one, one, None, [0, 0], [1, 1], [1, 1], 1, "relu", [], "")) == 0
    except (AttributeError, RuntimeError):
        return False


@cache
def _half_is_safe() -> bool:
    """Whether the library computes gradients of bfloat16 filters without a segmentation fault (torch 2.13)."""
    return "amx_bf16" in cpu_flags()


@cache
def _gradient_by_rows() -> bool:
    return not torch.backends.cpu.get_cpu_capability().startswith("AVX512")


class _Convolution(torch.autograd.Function):
    """Convolution, and ReLU if asked for, of images (n, c, y, x) or volumes (n, c, z, y, x) with channels last."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, filters: Tensor, bias: Tensor | None, gaps: tuple[int, ...], relu: bool
    ) -> Tensor:
        out = _fused(image, filters, bias, gaps, "relu" if relu else "linear")
        ctx.save_for_backward(image, filters, *([out] if relu else []))
        ctx.gaps, ctx.biased = gaps, bias is not None
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (image, filters, *made), gaps = ctx.saved_tensors, ctx.gaps
        gradient = gradients[0].contiguous(memory_format=LAST[image.dim()])
        to_image = to_filters = None
        if made:
            gradient, to_bias = relu_backward(gradient, made[0])
        else:
            to_bias = gradient.sum((0, *range(2, gradient.dim())))
        if ctx.needs_input_grad[0]:
            to_image = _gradient(gradient, image, filters, gaps, 0)
        if ctx.needs_input_grad[1]:
            way = _filter_gradient
            if image.dtype == torch.bfloat16 and not _half_is_safe():
                way = _filter_gradient_of_half
            elif _gradient_by_rows() and image.dtype == torch.float32 and gradient.shape[-1] >= LONG_ROWS:
                way = _filter_gradient_by_rows
            to_filters = way(gradient, image, filters, gaps)
        return to_image, to_filters, to_bias if ctx.biased else None, None, None


def _gradient(gradient: Tensor, image: Tensor, filters: Tensor, gaps: tuple[int, ...], which: int) -> Tensor:
    """Gradient of the image (0) or of the filters (1)."""
    zero, one = [0] * len(gaps), [1] * len(gaps)
    result: Tensor = torch.ops.aten.convolution_backward(
        gradient, image, filters, None, one, zero, list(gaps), False, zero, 1, [which == 0, which == 1, False]
    )[which]
    return result


def _filter_gradient(gradient: Tensor, image: Tensor, filters: Tensor, gaps: tuple[int, ...]) -> Tensor:
    """Of volumes, section by section of the filter: oneDNN's own bfloat16 gradient of these can hang (torch 2.13)."""
    if image.dim() == 4:
        return _gradient(gradient, image, filters, gaps, 1)
    sections, depth = refold(gradient), gradient.shape[2]
    taps = [
        _gradient(sections, _sections(image, k * gaps[0], depth), filters[:, :, k], gaps[1:], 1)
        for k in range(filters.shape[2])
    ]
    return torch.stack(taps, 2)


def _filter_gradient_of_half(gradient: Tensor, image: Tensor, filters: Tensor, gaps: tuple[int, ...]) -> Tensor:
    """In float32: oneDNN's bfloat16 gradient of dilated filters can end the process where there is no AMX."""
    outer, inner, flat = gradient.float(), image.float(), image.dim() == 4
    shape = (*filters.shape[:2], 1, *filters.shape[2:]) if flat else tuple(filters.shape)
    if not usually_faster(shape, image.device, torch.float32):
        return _filter_gradient(outer, inner, filters.float(), gaps).to(image.dtype)
    if flat:
        outer, inner, gaps = outer.unsqueeze(2), inner.unsqueeze(2), (1, *gaps)
    made = filter_gradient(outer, inner, shape, (gaps[0], gaps[1], gaps[2]), (0, 0, 0))
    return made.view(filters.shape).to(image.dtype)


def _sections(volume: Tensor, start: int, depth: int) -> Tensor:
    return refold(volume.narrow(2, start, depth)).contiguous(memory_format=torch.channels_last)


def _filter_gradient_by_rows(gradient: Tensor, image: Tensor, filters: Tensor, gaps: tuple[int, ...]) -> Tensor:
    """Of each voxel of the filter, the sum over rows along x of products of matrices (out, x) and (x, in)."""
    if image.dim() == 4:
        flat = _filter_gradient_by_rows(gradient.unsqueeze(2), image.unsqueeze(2), filters.unsqueeze(2), (1, *gaps))
        return flat.squeeze(2)
    n, _, depth, height, width = gradient.shape
    above, below = gradient.permute(0, 2, 3, 1, 4), image.permute(0, 2, 3, 4, 1)  # n, z, y, out, x and n, z, y, x, in
    made = filters.new_zeros(*filters.shape[2:], *filters.shape[:2])
    for i, k in product(range(n), range(depth)):  # a section stays in the cache for all voxels of the filter
        for tap in product(*map(range, filters.shape[2:])):
            z, y, x = (at * gap for at, gap in zip(tap, gaps))
            rows = below[i, z + k, y : y + height, x : x + width]
            made[tap] += torch.bmm(above[i, k], rows).sum(0)  # type: ignore[no-untyped-call]
    return made.permute(3, 4, 0, 1, 2)


class _MaxFilter(torch.autograd.Function):
    """The max-filter of folded sections; a tie goes to the first voxel of the window."""

    @staticmethod
    def forward(ctx: Any, sections: Tensor, n: int, size: Size, dilation: Size, step: int) -> Tensor:
        deep, (high, wide) = len(sections) // n, sections.shape[2:]
        z, y, x = (e - (k - 1) * gap for e, k, gap in zip((deep, high, wide), size, dilation))
        shape = (n, z, -(-y // step), -(-x // step), sections.shape[1])
        best = torch.empty(shape, dtype=sections.dtype)
        winner = np.empty(shape, np.uint8)
        given, bits = _bits(sections, n), best.view(BITS[best.dtype]).numpy()
        by_rows(
            kernels.max_filter, z * shape[2] * n, bits.nbytes,
            given, size, dilation, step, bits.dtype.type(np.iinfo(bits.dtype).max),
            np.arange(size[0] * size[1] * size[2], dtype=bits.dtype), bits, winner,
        )  # fmt: skip
        ctx.winner, ctx.window, ctx.n, ctx.shape = winner, (size, dilation, step), n, given.shape
        return refold(best.permute(0, 4, 1, 2, 3))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        total = torch.empty(ctx.shape, dtype=gradient.dtype)
        out = total.view(BITS[total.dtype]).numpy()
        by_rows(
            kernels.max_filter_backward, ctx.shape[0] * ctx.shape[1] * ctx.shape[2], out.nbytes,
            _bits(gradient, ctx.n), ctx.winner, *ctx.window, out.itemsize == 2, out,
        )  # fmt: skip
        return refold(total.permute(0, 4, 1, 2, 3)), None, None, None, None


class _Dropout(torch.autograd.Function):
    """Dropout by random bytes, one a voxel and map, drawn again for the way back."""

    @staticmethod
    def forward(ctx: Any, sections: Tensor, seed: np.uint64, rate: float) -> Tensor:
        ctx.given = seed, rate
        return _dropped(sections.detach(), *ctx.given)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _dropped(gradients[0], *ctx.given), None, None


def _dropped(sections: Tensor, seed: np.uint64, rate: float) -> Tensor:
    sections = sections.contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(sections)
    flat, made = (one.permute(0, 2, 3, 1).view(BITS[one.dtype]).numpy().reshape(-1) for one in (sections, out))
    runs, scale = -(-flat.size // dropout_kernels.RUN), np.float32(1 / (1 - rate))
    kept = seed, round(rate * 256), scale, flat.itemsize == 2
    by_rows(dropout_kernels.dropout, runs, flat.nbytes, flat, *kept, made)
    return out


def _bits(sections: Tensor, n: int) -> NDArray[Any]:
    """View folded sections as integers (n, z, y, x, c)."""
    volume = unfold(sections.detach(), n).permute(0, 2, 3, 4, 1)
    return volume.contiguous().view(BITS[sections.dtype]).numpy()


def _shifted(sections: Tensor, n: int, axis: int, start: int, spare: int) -> Tensor:
    """View `sections` from `start` on, shortened by `spare`, along z (0), y (1) or x (2)."""
    if axis:
        return sections.narrow(axis + 1, start, sections.shape[axis + 1] - spare)
    if n == 1:
        return sections.narrow(0, start, sections.shape[0] - spare)
    deep: Tensor = sections.unflatten(0, (n, -1))  # type: ignore[no-untyped-call]
    return deep.narrow(1, start, deep.shape[1] - spare).flatten(0, 1)
