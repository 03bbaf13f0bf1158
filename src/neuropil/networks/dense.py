"""The layers of a dense network: convolution with sparse filters, and the max-filter, sections folded into the batch.

Insight: nearly all layers of these networks are two-dimensional, and convolution libraries are fastest at
two-dimensional convolutions with channels last. So a volume (n, c, z, y, x) travels as (n·z, c, y, x): a 1×k×k layer
is one conv2d over all sections, and a layer with small z stacks the sections it needs along the channels. The
max-filter is a maximum of shifted views, one axis at a time; its backward pass routes the gradient to whichever of
the two was larger. The weight gradient of a dilated filter is taken over fragments (one image per offset within the
dilation, without gaps), and any layer can run on fragments as a whole. `benchmarks/engine/run.py` measures each choice.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from neuropil.networks.architecture import Activation, Size

TANH_GAIN, TANH_SLOPE = 1.7159, 0.6666  # LeCun's scaled tanh, as in ZNN


def fold(volume: Tensor) -> Tensor:
    """Turn (n, c, z, y, x) into (n·z, c, y, x), channels last."""
    n, c, z, y, x = volume.shape
    sections = volume.permute(0, 2, 1, 3, 4).reshape(n * z, c, y, x).contiguous(memory_format=torch.channels_last)
    # With one channel both layouts are the same bytes; only these strides make the library go on with channels last.
    return sections.as_strided(sections.shape, (y * x, 1, x, 1)) if c == 1 else sections


def unfold(sections: Tensor, n: int) -> Tensor:
    """Turn (n·z, c, y, x) back into (n, c, z, y, x)."""
    nz, c, y, x = sections.shape
    return sections.reshape(n, nz // n, c, y, x).permute(0, 2, 1, 3, 4)


def split(sections: Tensor, step: int) -> Tensor:
    """Split (b, c, y, x) into step² fragments (step²·b, c, ⌈y/step⌉, ⌈x/step⌉), one per offset, zeros at the end."""
    y, x = sections.shape[2:]
    padded = functional.pad(sections, (0, -x % step, 0, -y % step))
    b, c, y, x = padded.shape
    parts = padded.view(b, c, y // step, step, x // step, step).permute(3, 5, 0, 1, 2, 4)
    return parts.flatten(0, 2).contiguous(memory_format=torch.channels_last)


def merge(fragments: Tensor, step: int, extent: tuple[int, int]) -> Tensor:
    """Put fragments together again: the inverse of `split`, cut to `extent` (y, x)."""
    b, c, y, x = fragments.shape
    parts = fragments.view(step, step, b // step**2, c, y, x).permute(2, 3, 4, 0, 5, 1)
    whole = parts.reshape(b // step**2, c, y * step, x * step)[:, :, : extent[0], : extent[1]]
    return whole.contiguous(memory_format=torch.channels_last)


def fragmented(
    sections: Tensor, splits: tuple[int, ...], wanted: int, extent: tuple[int, int]
) -> tuple[Tensor, tuple[int, ...]]:
    """Split or merge until there are `wanted` fragments a side.

    Parameters
    ----------
    sections : (fragments·n·z, c, y, x)
    splits : the splits that made them, the last one outermost in the batch
    wanted : fragments a side
    extent : y, x of the whole sections

    Returns
    -------
    sections, splits
    """
    while splits and wanted % math.prod(splits):
        outer = math.prod(splits[:-1])
        sections = merge(sections, splits[-1], (-(-extent[0] // outer), -(-extent[1] // outer)))
        splits = splits[:-1]
    step = wanted // math.prod(splits)
    return (split(sections, step), (*splits, step)) if step > 1 else (sections, splits)


def convolve(sections: Tensor, n: int, weight: Tensor, bias: Tensor | None, dilation: Size) -> Tensor:
    """Valid cross-correlation with a dilated filter.

    Parameters
    ----------
    sections : (n·z, in, y, x)
    weight : (out, in, kz, ky, kx)
    bias : (out,) or None
    dilation : z, y, x

    Returns
    -------
    (n·(z - (kz-1)·dz), out, y - (ky-1)·dy, x - (kx-1)·dx)
    """
    out, fan, kz, ky, kx = weight.shape
    if kz == 1:
        flat = weight[:, :, 0].contiguous(memory_format=torch.channels_last)
        return _conv2d(sections, flat, bias, dilation)
    stacked = torch.cat([_shifted(sections, n, 0, step * dilation[0], (kz - 1) * dilation[0]) for step in range(kz)], 1)
    flat = weight.permute(0, 2, 1, 3, 4).reshape(out, kz * fan, ky, kx)
    return _conv2d(stacked, flat.contiguous(memory_format=torch.channels_last), bias, dilation)


def max_filter(sections: Tensor, n: int, size: Size, dilation: Size, step: int = 1) -> Tensor:
    """Maximum over a window of `size` voxels (z, y, x), `dilation` apart, at every position that fits.

    With a `step`, at every step-th position along y and x (max-pooling); their dilation must then be 1.
    """
    if step > 1:
        sections = functional.max_pool2d(sections, size[1:], step)
    for axis in (2, 1, 0) if step == 1 else (0,):
        for _ in range(size[axis] - 1):
            sections = _MaxOfTwo.apply(sections, n, axis, dilation[axis])  # type: ignore[no-untyped-call]
    return sections


def activate(sections: Tensor, kind: Activation) -> Tensor:
    """Apply the activation; in place where no gradient is asked for."""
    if kind == "linear":
        return sections
    if kind == "tanh":
        return TANH_GAIN * torch.tanh(TANH_SLOPE * sections)
    return functional.relu(sections, inplace=True)


def dropout(sections: Tensor, rate: float, training: bool) -> Tensor:
    """Inverted dropout; on the CPU its mask costs one random byte a voxel (the rate is rounded to 1/256)."""
    if not training or sections.device.type != "cpu":
        return functional.dropout(sections, rate, training)
    words = torch.empty((sections.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
    random = words.view(torch.uint8)[: sections.numel()]
    drawn = random.view(*(sections.shape[i] for i in (0, 2, 3, 1))).permute(0, 3, 1, 2)  # channels last
    return sections * (drawn >= round(rate * 256)).to(sections.dtype).mul_(1 / (1 - rate))


def _conv2d(sections: Tensor, weight: Tensor, bias: Tensor | None, dilation: Size) -> Tensor:
    plain = sections.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if plain and dilation[1] == dilation[2] > 1 and weight.requires_grad and torch.is_grad_enabled():
        out: Tensor = _DilatedConv.apply(sections, weight, bias, dilation[1])  # type: ignore[no-untyped-call]
        return out
    return functional.conv2d(sections, weight, bias, dilation=dilation[1:])


class _DilatedConv(torch.autograd.Function):
    """conv2d with one dilation for y and x, whose weight gradient is computed over fragments."""

    @staticmethod
    def forward(ctx: Any, sections: Tensor, weight: Tensor, bias: Tensor | None, step: int) -> Tensor:
        ctx.save_for_backward(sections, weight)
        ctx.step, ctx.biased = step, bias is not None
        return functional.conv2d(sections, weight, bias, dilation=step)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        (sections, weight), step = ctx.saved_tensors, ctx.step
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        fixed = ([0, 0], [step, step], False, [0, 0], 1)
        backward = torch.ops.aten.convolution_backward
        to_input = None
        if ctx.needs_input_grad[0]:
            to_input = backward(gradient, sections, weight, None, [1, 1], *fixed, [True, False, False])[0]
        inputs, outputs = split(sections, step), split(gradient, step)  # their zeros add nothing to the gradient
        to_weight = backward(
            outputs, inputs, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False]
        )[1]
        return to_input, to_weight, gradient.sum((0, 2, 3)) if ctx.biased else None, None


def _shifted(sections: Tensor, n: int, axis: int, start: int, spare: int) -> Tensor:
    """View `sections` from `start` on, shortened by `spare`, along z (0), y (1) or x (2)."""
    if axis:
        return sections.narrow(axis + 1, start, sections.shape[axis + 1] - spare)
    if n == 1:
        return sections.narrow(0, start, sections.shape[0] - spare)
    deep: Tensor = sections.unflatten(0, (n, -1))  # type: ignore[no-untyped-call]
    return deep.narrow(1, start, deep.shape[1] - spare).flatten(0, 1)


class _MaxOfTwo(torch.autograd.Function):
    """max(v, v shifted by `step`) along one axis; ties go to the first."""

    @staticmethod
    def forward(ctx: Any, sections: Tensor, n: int, axis: int, step: int) -> Tensor:
        first, second = _shifted(sections, n, axis, 0, step), _shifted(sections, n, axis, step, step)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(first >= second)
            ctx.place = (n, axis, step, sections.shape)
        return torch.maximum(first, second)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,), (won,) = gradients, ctx.saved_tensors
        n, axis, step, shape = ctx.place
        total = torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=torch.channels_last)
        to_first = gradient * won
        if axis:
            here, there, image, first = axis + 1, total, gradient, to_first
        else:  # the sections of one image are neighbours in the batch
            here = 1
            there, image, first = (one.unflatten(0, (n, -1)) for one in (total, gradient, to_first))
        kept = there.shape[here] - step
        there.narrow(here, 0, kept).copy_(first)
        there.narrow(here, kept, step).zero_()
        there.narrow(here, step, kept).add_(image).sub_(first)
        return total, None, None, None
