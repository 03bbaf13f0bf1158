"""Max-filter that remembers which voxel of the window won, and its backward pass; called by `networks.layers`.

Values come as the bits of float32 (int32) or, `half`, of bfloat16 (int16), its upper half. Integers order
floating-point numbers once the bits of negative ones, but the sign, are flipped. All arrays are (n, z, y, x, c); c
and, at step 1, x are one run of memory that the inner loops go along. Rows `first` to `last` of the n·z·y rows of the
output are done.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _keep_larger(values, best, winner, at):
    for i in range(best.size):
        value, other = values[i], best[i]
        larger = (value ^ ((value >> np.int32(31)) & np.int32(0x7FFFFFFF))) > (
            other ^ ((other >> np.int32(31)) & np.int32(0x7FFFFFFF))
        )
        best[i] = value if larger else other
        winner[i] = at if larger else winner[i]


@njit(cache=True, nogil=True)
def _keep_larger_half(values, best, winner, at):
    for i in range(best.size):
        value, other = values[i], best[i]
        larger = (value ^ ((value >> np.int16(15)) & np.int16(0x7FFF))) > (
            other ^ ((other >> np.int16(15)) & np.int16(0x7FFF))
        )
        best[i] = value if larger else other
        winner[i] = at if larger else winner[i]


@njit(cache=True, nogil=True)
def max_filter(volume, size, dilation, step, half, out, winner, first, last):
    """Write the maximum over the window (z, y, x) and the number of its first winner, counted along x, y, z."""
    _, depth, height, width, maps = out.shape
    for row in range(first, last):
        n, z, y = row // (depth * height), row // height % depth, row % height
        best, won = out[n, z, y].reshape(-1), winner[n, z, y].reshape(-1)
        for k in range(size[0]):
            for j in range(size[1]):
                values = volume[n, z + k * dilation[0], y * step + j * dilation[1]]
                for i in range(size[2]):
                    at = np.uint8((k * size[1] + j) * size[2] + i)
                    if step == 1:
                        run = values[i * dilation[2] : i * dilation[2] + width].reshape(-1)
                        if at == 0:
                            best[:] = run
                            won[:] = 0
                        elif half:
                            _keep_larger_half(run, best, won, at)
                        else:
                            _keep_larger(run, best, won, at)
                        continue
                    for x in range(width):
                        run, span = values[x * step + i], slice(x * maps, (x + 1) * maps)
                        if at == 0:
                            best[span] = run
                            won[span] = 0
                        elif half:
                            _keep_larger_half(run, best[span], won[span], at)
                        else:
                            _keep_larger(run, best[span], won[span], at)


@njit(cache=True, nogil=True)
def _add_where(gradient, winner, at, total):
    for i in range(gradient.size):
        total[i] += gradient[i] if winner[i] == at else np.float32(0)


@njit(cache=True, nogil=True)
def max_filter_backward(gradient, winner, size, dilation, step, half, out, first, last):
    """Write, for each voxel of the input, the gradients of all windows that it won.

    Sums are float32, rounded to the nearest where `half`.
    """
    _, depth, height, width, maps = out.shape
    _, deep, high, wide, _ = gradient.shape
    total_bits, run_bits = np.zeros(width * maps, np.int32), np.zeros(wide * maps, np.int32)
    total, run = total_bits.view(np.float32), run_bits.view(np.float32)
    up = np.int32(16 if half else 0)
    for row in range(first, last):
        n, z, y = row // (depth * height), row // height % depth, row % height
        total[:] = 0
        for k in range(size[0]):
            for j in range(size[1]):
                above, along = z - k * dilation[0], y - j * dilation[1]
                if not (0 <= above < deep and along >= 0 and along % step == 0 and along // step < high):
                    continue
                bits = gradient[n, above, along // step].reshape(-1)
                won = winner[n, above, along // step].reshape(-1)
                for i in range(bits.size):
                    run_bits[i] = np.int32(bits[i]) << up
                for i in range(size[2]):
                    at = np.uint8((k * size[1] + j) * size[2] + i)
                    if step == 1:
                        start = i * dilation[2] * maps
                        _add_where(run, won, at, total[start : start + run.size])
                        continue
                    for x in range(wide):
                        span, start = slice(x * maps, (x + 1) * maps), (x * step + i) * maps
                        _add_where(run[span], won[span], at, total[start : start + maps])
        result = out[n, z, y].reshape(-1)
        if half:
            for i in range(result.size):
                value = total_bits[i]
                result[i] = (value + np.int32(0x7FFF) + ((value >> up) & np.int32(1))) >> up
        else:
            for i in range(result.size):
                result[i] = total_bits[i]
