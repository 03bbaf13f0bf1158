"""Flips and rotations of a patch, and what they do to affinities: a network's answers to them, averaged.

Turning an image turns its links. A link's offset, turned, may be that of another channel (y and x swapped), or the
reverse of one: the same link, then stored at its other end, so that the channel has to be moved by the offset. An
offset that no channel holds either way takes no part in that view. So any offsets will do.

Source: test-time augmentation of Lee et al., arXiv:1706.00120: 16 views, flips along z, y and x with and without the
exchange of y and x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from neuropil.errors import InputError
from neuropil.networks.unet_architecture import Size
from neuropil.segmentation.affinities import inside_of

ViewCount = Literal[1, 8, 16]


@dataclass(frozen=True)
class View:
    """One of the 16 views: y and x exchanged or not, then flips.

    Attributes
    ----------
    transpose : whether y and x are exchanged
    flips : z, y, x: which axes are then reversed

    >>> View(True, (True, False, True)).turned((-2, 0, 5))
    (2, 5, 0)
    """

    transpose: bool
    flips: tuple[bool, bool, bool]

    def turn(self, patch: Tensor) -> Tensor:
        """Show a patch (..., z, y, x) this way, as a view of the same memory or a copy."""
        shown = patch.transpose(-1, -2) if self.transpose else patch
        axes = [axis - 3 for axis in range(3) if self.flips[axis]]
        return shown.flip(axes) if axes else shown

    def turn_back(self, shown: Tensor) -> Tensor:
        """Undo `turn`."""
        axes = [axis - 3 for axis in range(3) if self.flips[axis]]
        patch = shown.flip(axes) if axes else shown
        return patch.transpose(-1, -2) if self.transpose else patch

    def turned(self, offset: Size) -> Size:
        """Return an offset (z, y, x) as it appears in this view."""
        z, y, x = offset
        z, y, x = (z, x, y) if self.transpose else (z, y, x)
        return (-z if self.flips[0] else z, -y if self.flips[1] else y, -x if self.flips[2] else x)


def views(count: ViewCount) -> tuple[View, ...]:
    """Return the views to average: 1, as it is; 8, flipped and rotated in the section; 16, those upside down too.

    Raises
    ------
    InputError : another count

    >>> len(views(8)), views(1)[0].turned((-1, 0, 0))
    (8, (-1, 0, 0))
    """
    if count not in (1, 8, 16):
        raise InputError(f"views must be 1, 8 or 16; got {count}")
    if count == 1:
        return (View(False, (False, False, False)),)
    upside = (False, True) if count == 16 else (False,)
    return tuple(View(t, (z, y, x)) for z, t, y, x in product(upside, *[(False, True)] * 3))


def average_over_views(
    network: Callable[[Tensor], Tensor], patch: Tensor, offsets: Sequence[Size], count: ViewCount
) -> Tensor:
    """Return what a network says to the views of one patch, turned back and averaged per link.

    Parameters
    ----------
    network : patch (z, y, x) → affinities (c, z, y, x) of the same extent
    patch : (z, y, x)
    offsets : (z, y, x) per channel
    count : of the views, 1, 8 or 16

    Returns
    -------
    affinities (c, z, y, x), float32. Links that leave the patch are not meaningful.

    Examples
    --------
    >>> offsets = ((0, 0, -1),)
    >>> def same(patch):  # a network that knows
    ...     return (patch == patch.roll(1, -1)).float()[None]
    >>> patch = torch.tensor([[[1, 1, 2, 2]]])
    >>> average_over_views(same, patch, offsets, 8)[0, 0, 0, 1:]
    tensor([1., 0., 1.])
    """
    shown = views(count)
    if len(shown) == 1:
        return network(patch).float()
    total, seen = torch.zeros(0), [0] * len(offsets)
    for view in shown:
        made = view.turn_back(network(view.turn(patch))).float()
        total = total if total.numel() else torch.zeros_like(made)
        for channel, offset in enumerate(offsets):
            z, y, x = offset
            turned = view.turned(offset)
            reverse = (-turned[0], -turned[1], -turned[2])
            if turned in offsets:
                total[channel] += made[offsets.index(turned)]
            elif reverse in offsets:
                wanted, stored = inside_of(patch.shape, offset), inside_of(patch.shape, (-z, -y, -x))
                total[channel][wanted] += made[offsets.index(reverse)][stored]
            else:
                continue
            seen[channel] += 1
    return total / torch.tensor(seen, dtype=total.dtype, device=total.device).view(-1, 1, 1, 1)
