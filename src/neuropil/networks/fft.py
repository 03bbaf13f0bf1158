"""Convolution by Fourier transforms, for large three-dimensional filters (ZNN, ZNNi).

A filter with dilation d convolves d³ interleaved parts of the volume each by itself, so these are cut out first and
filters are transformed at the parts' small size. Large parts are cut into overlapping tiles (overlap-save): the tile's
transform holds, beyond the first k - 1 voxels of each axis, true convolutions only. For each frequency the maps of all
parts and tiles are then one product of matrices with the filters' spectra, which are kept from one prediction to the
next. Extents are products of 2, 3, 5 and 7. Torch differentiates all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from math import prod

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.weak import WeakIdKeyDictionary

from neuropil.networks.architecture import Size

LONGEST = 48  # of the transforms: larger ones outgrow the caches
_kept = WeakIdKeyDictionary()  # type: ignore[no-untyped-call]
"""Of filters, the last spectra, and what they are of."""


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
    n, fan = volume.shape[:2]
    kernel, out = weight.shape[2:], len(weight)
    extent = [e - (k - 1) * d for e, k, d in zip(volume.shape[2:], kernel, dilation)]
    tiles, transform = zip(*map(_tiling, extent, kernel, dilation))
    tile = [t - k + 1 for t, k in zip(transform, kernel)]
    need = [(c * t + k - 1) * d for c, t, k, d in zip(tiles, tile, kernel, dilation)]
    spare = [value for e, w in zip(volume.shape[:1:-1], need[::-1]) for value in (0, w - e)]
    dtype = torch.promote_types(volume.dtype, torch.float32)
    parts = functional.pad(volume.to(dtype).contiguous(), spare)  # maps first: rows along x stay together
    for axis, (gap, size, wide) in enumerate(zip(dilation, tile, transform)):
        # (..., e, ...) -> (..., gap offsets, tiles, wide, ...)
        at = 2 + 3 * axis
        split = parts.reshape(*parts.shape[:at], -1, gap, *parts.shape[at + 1 :]).movedim(at + 1, at)
        parts = split.unfold(at + 1, wide, size).movedim(-1, at + 2)
    # n, in, (offset, tile, wide) of z, y, x -> images, in, z, y, x
    images = parts.permute(0, 2, 3, 5, 6, 8, 9, 1, 4, 7, 10).reshape(-1, fan, *transform)
    spectra = torch.fft.rfftn(images, dim=(2, 3, 4))
    del parts, images
    made = _multiply(spectra.flatten(2), _spectra(weight, transform, dtype)).view(-1, out, *spectra.shape[2:])
    result = torch.fft.irfftn(made, s=transform, dim=(2, 3, 4))
    result = result[:, :, : tile[0], : tile[1], : tile[2]]
    cuts = [value for d, c in zip(dilation, tiles) for value in (d, c)]
    result = result.reshape(n, *cuts, out, *tile).permute(0, 7, 2, 8, 1, 4, 9, 3, 6, 10, 5)
    whole: Tensor = result.reshape(n, out, *(c * t * d for c, t, d in zip(tiles, tile, dilation)))
    whole = whole[:, :, : extent[0], : extent[1], : extent[2]].to(volume.dtype)
    return whole if bias is None else whole + bias.view(-1, 1, 1, 1)


def _spectra(weight: Tensor, transform: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Transform filters (out, in, kz, ky, kx), or take the spectra kept: matrices (f, 2·in, 2·out), see `_multiply`."""
    if torch.is_grad_enabled() or weight.is_inference():
        return _matrices(weight, transform, dtype)
    of = (weight._version, tuple(transform), dtype)
    if weight not in _kept or _kept[weight][0] != of:
        _kept[weight] = of, _matrices(weight, transform, dtype)
    matrices: Tensor = _kept[weight][1]
    return matrices


def _matrices(weight: Tensor, transform: Sequence[int], dtype: torch.dtype) -> Tensor:
    filters = torch.fft.rfftn(weight.to(dtype), s=transform, dim=(2, 3, 4)).conj().flatten(2)
    real, imaginary = filters.real.permute(2, 1, 0), filters.imag.permute(2, 1, 0)
    upper, lower = torch.stack([real, imaginary], -1), torch.stack([-imaginary, real], -1)  # f, in, out, 2
    return torch.stack([upper, lower], 2).flatten(3).flatten(1, 2)


def _multiply(spectra: Tensor, matrices: Tensor) -> Tensor:
    """Sum over maps for each frequency: (images, in, f) and (f, 2·in, 2·out) to (images, out, f).

    As a product of real matrices, with real and imaginary part side by side: torch multiplies complex ones one by one.
    """
    rows = torch.view_as_real(spectra.permute(2, 0, 1).contiguous()).flatten(2)  # f, images, 2·in
    made = torch.bmm(rows, matrices).unflatten(2, (-1, 2))  # type: ignore[no-untyped-call]
    # as a transposed matrix, which torch copies in blocks; its transforms are slow on strided spectra
    result = torch.view_as_complex(made).flatten(1).t().contiguous()
    return result.view(*spectra.shape[:1], -1, *spectra.shape[2:])


def bytes_of_transforms(shape: Size, maps_in: int, maps_out: int, kernel: Size, dilation: Size) -> tuple[float, float]:
    """Foresee the bytes of float32 that a convolution of `shape` voxels works in, and those of the spectra it keeps."""
    extent = [e - (k - 1) * d for e, k, d in zip(shape, kernel, dilation)]
    tiles, transform = zip(*map(_tiling, extent, kernel, dilation))
    half = 8 * (transform[2] // 2 + 1) * prod(transform[:2])
    parts = prod(tiles) * prod(dilation)
    return 2.0 * (maps_in + maps_out) * half * parts, 2.0 * maps_in * maps_out * half


def _tiling(extent: int, kernel: int, dilation: int) -> tuple[int, int]:
    """Choose how many tiles a part is cut into on an axis, and their extent: the least to transform, none very long."""
    valid = -(-extent // dilation)
    cuts = [(count, _good(-(-valid // count) + kernel - 1)) for count in range(1, valid + 1)]
    fitting = [cut for cut in cuts if cut[1] <= max(LONGEST, 2 * kernel)] or cuts[-1:]
    return min(fitting, key=lambda cut: cut[0] * cut[1])


@cache
def _good(extent: int) -> int:
    """Return the least product of 2, 3, 5 and 7 that is not below `extent`."""
    best = 1
    while best < extent:
        best *= 2
    for threes, fives, sevens in product(range(8), range(6), range(5)):
        size = 3**threes * 5**fives * 7**sevens
        while size < extent:
            size *= 2
        best = min(best, size)
    return best
