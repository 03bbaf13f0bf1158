"""How volumes lie in memory on their way through a network: sections in the batch, channels last, or in fragments.

A volume (n, c, z, y, x) travels as (n·z, c, y, x) with channels last: libraries are fastest at two-dimensional
convolutions of that layout, and seen as (n, z, y, x, c) the same bytes are a volume with channels last, so a 1×k×k
layer and a k×k×k one follow each other without a copy. Dilated layers may run on fragments: step² images a section,
one per offset within the step, without gaps (the max-pooling fragments of ZNNi). Along z no fragments are needed, since
sections are images of their own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neuropil._kernels import fragments as kernels
from neuropil.networks.rooms import empty
from neuropil.networks.threads import by_rows


def fold(volume: Tensor) -> Tensor:
    """Turn (n, c, z, y, x) into (n·z, c, y, x), channels last."""
    n, c, z, y, x = volume.shape
    sections = volume.permute(0, 2, 1, 3, 4).reshape(n * z, c, y, x).contiguous(memory_format=torch.channels_last)
    # With one channel both layouts are the same bytes; only these strides make the library go on with channels last.
    return sections.as_strided(sections.shape, (y * x, 1, x, 1)) if c == 1 else sections


def unfold(sections: Tensor, n: int) -> Tensor:
    """Turn (n·z, c, y, x) back into (n, c, z, y, x); of channels last, a view."""
    nz, c, y, x = sections.shape
    return sections.permute(0, 2, 3, 1).reshape(n, nz // n, y, x, c).permute(0, 4, 1, 2, 3)


def refold(volume: Tensor) -> Tensor:
    """Turn (n, c, z, y, x) with channels last into (n·z, c, y, x), a view."""
    n, c, z, y, x = volume.shape
    return volume.permute(0, 2, 3, 4, 1).reshape(n * z, y, x, c).permute(0, 3, 1, 2)


def split(sections: Tensor, step: int) -> Tensor:
    """Split (b, c, y, x) into step² fragments (step²·b, c, ⌈y/step⌉, ⌈x/step⌉), one per offset, zeros at the end."""
    if _in_words(sections):
        made: Tensor = _Split.apply(sections, step)  # type: ignore[no-untyped-call]
        return made
    y, x = sections.shape[2:]
    padded = functional.pad(sections, (0, -x % step, 0, -y % step))
    b, c, y, x = padded.shape
    parts = padded.view(b, c, y // step, step, x // step, step).permute(3, 5, 0, 1, 2, 4)
    return parts.flatten(0, 2).contiguous(memory_format=torch.channels_last)


def merge(fragments: Tensor, step: int, extent: tuple[int, int]) -> Tensor:
    """Put fragments together again: the inverse of `split`, cut to `extent` (y, x)."""
    if _in_words(fragments):
        made: Tensor = _Merge.apply(fragments, step, extent)  # type: ignore[no-untyped-call]
        return made
    b, c, y, x = fragments.shape
    parts = fragments.view(step, step, b // step**2, c, y, x).permute(2, 3, 4, 0, 5, 1)
    whole = parts.reshape(b // step**2, c, y * step, x * step)[:, :, : extent[0], : extent[1]]
    return whole.contiguous(memory_format=torch.channels_last)


def _in_words(sections: Tensor) -> bool:
    """Whether the maps of a voxel are whole words of 4 bytes on a CPU, which kernels move much faster than torch."""
    return sections.device.type == "cpu" and sections.shape[1] * sections.itemsize % 4 == 0


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sections: Tensor, step: int) -> Tensor:
        b, c, y, x = sections.shape
        ctx.step, ctx.extent = step, (y, x)
        shape = (step**2 * b, c, -(-y // step), -(-x // step))
        made = empty(shape, sections)
        out = _words(made)
        out = out.reshape(step, step, b, *out.shape[1:])
        by_rows(kernels.split, step**2 * b * shape[2], out.nbytes, _words(sections), step, out)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return merge(gradients[0], ctx.step, ctx.extent), None


class _Merge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fragments: Tensor, step: int, extent: tuple[int, int]) -> Tensor:
        parts, c, _, _ = fragments.shape
        ctx.step, b = step, parts // step**2
        made = empty((b, c, *extent), fragments)
        given, out = _words(fragments), _words(made)
        given = given.reshape(step, step, b, *given.shape[1:])
        by_rows(kernels.merge, b * extent[0], out.nbytes, given, step, out)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return split(gradients[0], ctx.step), None, None


def _words(sections: Tensor) -> NDArray[np.float32]:
    """View (b, c, y, x) as (b, y, x, words)."""
    b, _, y, x = sections.shape
    flat = sections.detach().permute(0, 2, 3, 1).contiguous().view(-1)  # strides of axes of one voxel are anything
    return flat.view(torch.float32).view(b, y, x, -1).numpy()


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
