"""Max-filter that remembers which voxel of the window won, and its backward pass; called by `networks.layers`.

Values come as the bits of float32 (int32) or of bfloat16 (int16, its upper half). Integers order floating-point numbers
once the bits of negative ones, but the sign, are flipped. All arrays are (n, z, y, x, c); c and, at step 1, x are one
run of memory that the inner loops go along. Rows `first` to `last` of the n·z·y rows of the output are done. A voxel of
the window is numbered along x, y, z.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _keep_larger(values, best, winner, at, low):
    """Let `values` win where they are larger; `low` is all bits but the sign."""
    for i in range(best.size):
        value, other = values[i], best[i]
        larger = (value ^ (low if value < 0 else 0)) > (other ^ (low if other < 0 else 0))
        best[i] = value if larger else other
        winner[i] = at if larger else winner[i]


@njit(cache=True, nogil=True)
def max_filter(volume, size, dilation, step, low, out, winner, first, last):
    """Write the maximum over the window (z, y, x) and the number of its first winner; `low`: all bits but the sign."""
    _, depth, height, width, maps = out.shape
    for row in range(first, last):
        n, z, y = row // (depth * height), row // height % depth, row % height
        best, won = out[n, z, y].reshape(-1), winner[n, z, y].reshape(-1)
        for at in range(size[0] * size[1] * size[2]):
            k, j, i = at // (size[1] * size[2]), at // size[2] % size[1], at % size[2]
            values = volume[n, z + k * dilation[0], y * step + j * dilation[1], i * dilation[2] :]
            # one run of memory, or one for each x
            runs, long = (1, width * maps) if step == 1 else (width, maps)
            for x in range(runs):
                run = values[x * step : x * step + long // maps].reshape(-1)
                span = slice(x * maps, x * maps + long)
                if at == 0:
                    best[span] = run
                    won[span] = 0
                else:
                    _keep_larger(run, best[span], won[span], np.uint8(at), low)


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
    runs, long = (1, wide * maps) if step == 1 else (wide, maps)
    up = np.int32(16 if half else 0)
    for row in range(first, last):
        n, z, y = row // (depth * height), row // height % depth, row % height
        total[:] = 0
        for of_plane in range(size[0] * size[1]):
            above, along = z - of_plane // size[1] * dilation[0], y - of_plane % size[1] * dilation[1]
            if not (0 <= above < deep and along >= 0 and along % step == 0 and along // step < high):
                continue
            won = winner[n, above, along // step].reshape(-1)
            _widen(gradient[n, above, along // step].reshape(-1), up, run_bits)
            for i in range(size[2]):
                at = np.uint8(of_plane * size[2] + i)
                for x in range(runs):
                    span, start = slice(x * maps, x * maps + long), (x * step + i * dilation[2]) * maps
                    _add_where(run[span], won[span], at, total[start : start + long])
        _narrow(total_bits, half, out[n, z, y].reshape(-1))


@njit(cache=True, nogil=True)
def _widen(bits, up, result):
    for i in range(bits.size):
        result[i] = np.int32(bits[i]) << up


@njit(cache=True, nogil=True)
def _narrow(bits, half, result):
    """Keep the upper half, rounded to the nearest, ties to even; or, unless `half`, all."""
    if half:
        for i in range(result.size):
            result[i] = (bits[i] + np.int32(0x7FFF) + ((bits[i] >> np.int32(16)) & np.int32(1))) >> np.int32(16)
    else:
        for i in range(result.size):
            result[i] = bits[i]
