"""Convolution by Fourier transforms of sections, for large three-dimensional filters (ZNN, ZNNi).

A filter with dilation d convolves d² interleaved parts of each section by itself. Parts are cut into overlapping tiles
(overlap-save): the inverse of a tile's transform holds, in its first tile - k + 1 voxels of each axis, true
convolutions. Only y and x are transformed: along z the filter's sections are added up frequency by frequency, each a
product of matrices, so the spectrum of a section serves all sections around it and nothing is lost on a margin along z.
Tiles are short, so the transforms are products with matrices of cosines and sines as well: libraries do these near the
processor's peak, true transforms of interleaved maps far below it. The backward pass is the same with all matrices
transposed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuropil.networks.architecture import Size
from neuropil.networks.rooms import empty
from neuropil.networks.spectra import kept

WORK = 8e6  # bytes of spectra that are worked on at a time: about what the caches hold
LONGEST = 32  # of the transforms
BUFFERS = 20e6  # bytes that the library's products of matrices work in
MOVED, MULTIPLIED = 60, 1.5  # operations that moving a number costs; and one of the product, whose matrices are small
_Place = tuple[int, int]  # first voxel y, x of a tile


def convolve_fft(volume: Tensor, weight: Tensor, bias: Tensor | None, dilation: Size) -> Tensor:
    """Valid cross-correlation with a dilated filter.

    Parameters
    ----------
    volume : (n, in, z, y, x); half precision is transformed as float32
    weight : (out, in, kz, ky, kx)
    bias : (out,) or None
    dilation : z, y, x

    Returns
    -------
    (n, out, z - (kz-1)·dz, y - (ky-1)·dy, x - (kx-1)·dx)
    """
    dtype = torch.promote_types(volume.dtype, torch.float32)
    cut = _cut(tuple(volume.shape[2:]), volume.shape[1], len(weight), tuple(weight.shape[2:]), dilation)
    result: Tensor = _Transformed.apply(  # type: ignore[no-untyped-call]
        volume.to(dtype), kept(weight, (cut.tile, dtype), lambda: _matrices(weight, cut.tile, dtype)), cut
    )
    result = result.to(volume.dtype)
    if bias is None:
        return result
    added = bias.view(-1, 1, 1, 1)
    return result + added if torch.is_grad_enabled() else result.add_(added)


class _Cut(NamedTuple):
    """How sections are cut into tiles; pairs are of y and x.

    Attributes
    ----------
    counts : tiles of a part
    tile, valid : extents of a tile, and of the true convolutions in it
    kernel, dilation : of the filter, z, y, x
    """

    counts: tuple[int, int]
    tile: tuple[int, int]
    valid: tuple[int, int]
    kernel: Size
    dilation: Size

    def places(self) -> list[_Place]:
        """Return every tile's place: its first voxel y, x, in the volume and in the result."""
        firsts = (
            [tile * valid * gap + offset for tile in range(count) for offset in range(gap)]
            for count, valid, gap in zip(self.counts, self.valid, self.dilation[1:])
        )
        return [(y, x) for y, x in product(*firsts)]


class _Transformed(torch.autograd.Function):
    """Convolve a volume (n, in, z, y, x) with the spectra of filters (kz, f, 2·in, 2·out)."""

    @staticmethod
    def forward(ctx: Any, volume: Tensor, spectra: Tensor, cut: _Cut) -> Tensor:
        ctx.save_for_backward(volume, spectra)
        ctx.cut = cut
        (n, _, *extent), out = volume.shape, spectra.shape[3] // 2
        extent = [e - (k - 1) * d for e, k, d in zip(extent, cut.kernel, cut.dilation)]
        result = empty((n, out, *extent), volume)
        to_y, to_x, from_x, from_y = _transforms(cut.tile, cut.valid, volume.dtype, volume.device)
        for places in _batches(cut, spectra, n * volume.shape[2]):
            given = _analyse(_gathered(volume, places, cut, cut.tile), to_y, to_x)
            made = _multiply(given, spectra, cut.dilation[0] * len(places) * n)
            tiles = _synthesise(made, from_x, from_y).view(*cut.valid, extent[0], len(places), n, out)
            for i, place in enumerate(places):
                part = _part(result, place, cut, cut.valid)
                part.copy_(tiles[: len(part), : part.shape[1], :, i])
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (volume, spectra), cut = ctx.saved_tensors, ctx.cut
        n, maps, z, y, x = volume.shape
        to_volume = volume.new_zeros(n, z, y, x, maps).permute(0, 4, 1, 2, 3)
        to_spectra = torch.zeros_like(spectra)
        to_y, to_x, from_x, from_y = _transforms(cut.tile, cut.valid, volume.dtype, volume.device)
        for places in _batches(cut, spectra, n * z):
            given = _analyse(_gathered(volume, places, cut, cut.tile), to_y, to_x)
            gradient = _analyse(_gathered(gradients[0], places, cut, cut.valid), from_y.t(), from_x.t())
            to_given, rows, gap = torch.zeros_like(given), gradient.shape[1], cut.dilation[0] * len(places) * n
            for k in range(len(spectra)):
                span = slice(k * gap, k * gap + rows)
                to_spectra[k].baddbmm_(given[:, span].transpose(1, 2), gradient)
                to_given[:, span].baddbmm_(gradient, spectra[k].transpose(1, 2))
            tiles = _synthesise(to_given, to_x.t(), to_y.t()).view(*cut.tile, z, len(places), n, maps)
            for i, place in enumerate(places):
                part = _part(to_volume, place, cut, cut.tile)
                part.add_(tiles[: len(part), : part.shape[1], :, i])
        return to_volume, to_spectra, None


def _batches(cut: _Cut, spectra: Tensor, rows: int) -> Iterator[list[_Place]]:
    """Give the places of tiles, as many at a time as have their spectra in the caches."""
    _, frequencies, fan, out = spectra.shape
    together = max(1, round(WORK / (spectra.itemsize * frequencies * rows * (fan + out))))
    places = cut.places()
    return (places[i : i + together] for i in range(0, len(places), together))


def _part(volume: Tensor, place: _Place, cut: _Cut, tile: tuple[int, int]) -> Tensor:
    """View a tile, or what of it lies in the volume (n, c, z, y, x), as (y, x, z, n, c)."""
    y, x = (slice(first, first + edge * gap, gap) for first, edge, gap in zip(place, tile, cut.dilation[1:]))
    return volume[..., y, x].permute(3, 4, 2, 0, 1)


def _gathered(volume: Tensor, places: Sequence[_Place], cut: _Cut, tile: tuple[int, int]) -> Tensor:
    """Copy some tiles side by side, zeros beyond the volume: (y, x, z·tile·n, c)."""
    n, maps, z = volume.shape[:3]
    tiles = volume.new_zeros(*tile, z, len(places), n, maps)
    for i, place in enumerate(places):
        part = _part(volume, place, cut, tile)
        tiles[: len(part), : part.shape[1], :, i] = part
    return tiles.flatten(2, 4)


def _analyse(tiles: Tensor, by_y: Tensor, by_x: Tensor) -> Tensor:
    """Transform (y, x, m, c) to (fy·fx, m, 2·c), real parts first."""
    height, width, m, c = tiles.shape
    rows = (by_y @ tiles.view(height, -1)).view(-1, 2 * width, m * c)  # fy, (part, x), m·c
    both = torch.matmul(by_x, rows).view(len(rows), 2, -1, m, c)
    return both.permute(0, 2, 3, 1, 4).reshape(-1, m, 2 * c)


def _synthesise(spectra: Tensor, by_x: Tensor, by_y: Tensor) -> Tensor:
    """Transform (fy·fx, m, 2·c) to (y, x, m·c)."""
    m, c, high = spectra.shape[1], spectra.shape[2] // 2, by_y.shape[1] // 2
    both = spectra.view(high, -1, m, 2, c).permute(0, 3, 1, 2, 4).reshape(high, -1, m * c)
    rows = torch.matmul(by_x, both).view(by_y.shape[1], -1)  # (fy, part), x·m·c
    return (by_y @ rows).view(len(by_y), -1, m * c)


def _multiply(given: Tensor, spectra: Tensor, gap: int) -> Tensor:
    """Add up the filter's sections, `gap` rows of `given` (f, z·…, 2·in) apart: (f, z'·…, 2·out)."""
    rows = given.shape[1] - (len(spectra) - 1) * gap
    made = torch.bmm(given[:, :rows], spectra[0])  # type: ignore[no-untyped-call]
    for k in range(1, len(spectra)):
        made.baddbmm_(given[:, k * gap : k * gap + rows], spectra[k])
    return made


@cache
def _transforms(
    tile: tuple[int, int], valid: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the matrices that transform along y (real) and x (complex), and back to the valid voxels along x and y.

    Frequencies of y come with their two parts next to each other, those of x with all real parts first.
    """
    (high, wide), (y, x) = tile, valid
    angle = 2 * math.pi / high * torch.outer(torch.arange(high // 2 + 1), torch.arange(high)).double()
    to_y = torch.stack([angle.cos(), -angle.sin()], 1).flatten(0, 1)
    twice = torch.full((len(angle), 1), 2.0).double()  # the other half of the frequencies is their conjugate
    twice[0] = 1
    if high % 2 == 0:
        twice[-1] = 1
    from_y = (torch.stack([angle.cos(), -angle.sin()], 1) * (twice / high)[:, None]).flatten(0, 1)[:, :y].t()
    angle = 2 * math.pi / wide * torch.outer(torch.arange(wide), torch.arange(wide)).double()
    cos, sin = angle.cos(), angle.sin()
    to_x = torch.cat([torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)])
    cos, sin = cos[:x] / wide, sin[:x] / wide
    from_x = torch.cat([torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)])
    made = [one.to(device, dtype).contiguous() for one in (to_y, to_x, from_x, from_y)]
    return made[0], made[1], made[2], made[3]


def _matrices(weight: Tensor, tile: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Real matrices, so that the real and imaginary parts of all maps are one product: torch has none for complex."""
    filters = torch.fft.fft(torch.fft.rfft(weight.to(dtype), n=tile[0], dim=3), n=tile[1], dim=4).conj()
    filters = filters.permute(2, 3, 4, 1, 0).flatten(1, 2)  # kz, f, in, out
    upper = torch.cat([filters.real, filters.imag], 3)
    return torch.cat([upper, torch.cat([-filters.imag, filters.real], 3)], 2).contiguous()


def bytes_of_transforms(shape: Size, maps_in: int, maps_out: int, kernel: Size, dilation: Size) -> tuple[float, float]:
    """Foresee the bytes of float32 that a convolution of `shape` voxels works in, and those of the spectra it keeps."""
    cut = _cut(tuple(shape), maps_in, maps_out, tuple(kernel), tuple(dilation))
    frequencies, deep = (cut.tile[0] // 2 + 1) * cut.tile[1], shape[0] - (kernel[0] - 1) * dilation[0]
    work = max(WORK, 8.0 * frequencies * (shape[0] * maps_in + deep * maps_out))
    return 4 * work + BUFFERS, 16.0 * kernel[0] * frequencies * maps_in * maps_out


@cache
def _cut(shape: Size, maps_in: int, maps_out: int, kernel: Size, dilation: Size) -> _Cut:
    """Choose the tiles that take the least, by the operations of all steps and what they move."""
    z, deep = shape[0] * maps_in, (shape[0] - (kernel[0] - 1) * dilation[0]) * maps_out
    parts = [math.ceil((e - (k - 1) * d) / d) for e, k, d in zip(shape[1:], kernel[1:], dilation[1:])]

    def cost(edges: tuple[int, int]) -> float:
        (high, wide), valid = edges, [edge - k + 1 for edge, k in zip(edges, kernel[1:])]
        half = high // 2 + 1
        transforms = z * half * wide * (4 * high + 8 * wide) + deep * half * valid[1] * (8 * wide + 4 * valid[0])
        multiplied = 8 * half * wide * kernel[0] * maps_in * deep
        moved = (high + 2 * half) * wide * z + (math.prod(valid) + 2 * half * wide) * deep
        each = transforms + MULTIPLIED * multiplied + MOVED * moved
        return each * math.prod(math.ceil(part / v) for part, v in zip(parts, valid))

    heights, widths = (range(k, max(k, min(LONGEST, part + k - 1)) + 1) for k, part in zip(kernel[1:], parts))
    tile = min(((high, wide) for high in heights for wide in widths), key=cost)
    valid = (tile[0] - kernel[1] + 1, tile[1] - kernel[2] + 1)
    counts = (math.ceil(parts[0] / valid[0]), math.ceil(parts[1] / valid[1]))
    return _Cut(counts, tile, valid, kernel, dilation)
