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
def _keep_largest(a, b, c, d, numbers, low, more, best, winner):
    """Let the largest of four win, the first of equal ones; with `more`, over what has won so far.

    `numbers` are those of the four, in the type of the bits, and `low` is all bits but the sign: one width throughout
    is what the processor's vectors need.
    """
    for i in range(best.size):
        value, won = a[i], numbers[0]
        most = value ^ (low if value < 0 else type(low)(0))
        for other, number in ((b[i], numbers[1]), (c[i], numbers[2]), (d[i], numbers[3])):
            key = other ^ (low if other < 0 else type(low)(0))
            won = number if key > most else won
            value = other if key > most else value
            most = max(key, most)
        if more:
            before = best[i]
            kept = most <= before ^ (low if before < 0 else type(low)(0))
            value = before if kept else value
            won = type(low)(winner[i]) if kept else won
        best[i] = value
        winner[i] = np.uint8(won)


@njit(cache=True, nogil=True)
def max_filter(volume, size, dilation, step, low, numbers, out, winner, first, last):
    """Write the maximum over the window (z, y, x) and the number of its first winner.

    `low` is all bits but the sign; `numbers` are 0, 1, 2 ... of the same type, as many as the window has voxels.
    """
    _, depth, height, width, maps = out.shape
    # one run of memory, or one for each x
    runs, long = (1, width * maps) if step == 1 else (width, maps)
    four = np.empty(4, numbers.dtype)
    for row in range(first, last):
        n, z, y = row // (depth * height), row // height % depth, row % height
        best, won = out[n, z, y].reshape(-1), winner[n, z, y].reshape(-1)
        for start in range(0, numbers.size, 4):
            for i in range(4):  # the last one again has no effect
                four[i] = numbers[min(start + i, numbers.size - 1)]
            a = _row(volume, n, z, y * step, size, dilation, four[0])
            b = _row(volume, n, z, y * step, size, dilation, four[1])
            c = _row(volume, n, z, y * step, size, dilation, four[2])
            d = _row(volume, n, z, y * step, size, dilation, four[3])
            for x in range(runs):
                at, span = x * step * maps, slice(x * maps, x * maps + long)
                end = at + long
                _keep_largest(a[at:end], b[at:end], c[at:end], d[at:end], four, low, start > 0, best[span], won[span])


@njit(cache=True, nogil=True)
def _row(volume, n, z, y, size, dilation, number):
    """Return the row that a voxel of the window is in, from that voxel on."""
    k, j, i = number // (size[1] * size[2]), number // size[2] % size[1], number % size[2]
    return volume[n, z + k * dilation[0], y + j * dilation[1], i * dilation[2] :].reshape(-1)


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
            widen(gradient[n, above, along // step].reshape(-1), up, run_bits)
            for i in range(size[2]):
                at = np.uint8(of_plane * size[2] + i)
                for x in range(runs):
                    span, start = slice(x * maps, x * maps + long), (x * step + i * dilation[2]) * maps
                    _add_where(run[span], won[span], at, total[start : start + long])
        narrow(total_bits, half, out[n, z, y].reshape(-1))


@njit(cache=True, nogil=True)
def widen(bits, up, result):
    for i in range(bits.size):
        result[i] = np.int32(bits[i]) << up


@njit(cache=True, nogil=True)
def upper_half(bits):
    """Return bits of float32 as those of bfloat16: rounded to the nearest, ties to even."""
    return np.int32(bits + np.int32(0x7FFF) + ((bits >> np.int32(16)) & np.int32(1))) >> np.int32(16)


@njit(cache=True, nogil=True)
def narrow(bits, half, result):
    """Keep the upper half, rounded, or, unless `half`, all."""
    if half:
        for i in range(result.size):
            result[i] = upper_half(bits[i])
    else:
        for i in range(result.size):
            result[i] = bits[i]
