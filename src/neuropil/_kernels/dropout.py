"""Dropout in one sweep, there and back; called by `networks.layers`."""

from __future__ import annotations

import numpy as np
from numba import njit

from neuropil._kernels.max_filter import narrow, widen

_RUN = 4096  # values at a time: what they need stays in the nearest cache


@njit(cache=True, nogil=True)
def dropout(values, random, least, scale, half, out, first, last):
    """Write values × scale where the random byte is at least `least`, else 0.

    Values and `out` are bits of float32 (int32) or, `half`, of bfloat16 (int16), all flat. `first` to `last` are done.
    """
    up = np.int32(16 if half else 0)
    bits = np.empty(_RUN, np.int32)
    numbers = bits.view(np.float32)
    for start in range(first, last, _RUN):
        stop = min(start + _RUN, last)
        size = stop - start
        drawn = random[start:stop]
        widen(values[start:stop], up, bits[:size])
        for i in range(size):
            numbers[i] = numbers[i] * scale if drawn[i] >= least else np.float32(0)
        narrow(bits[:size], half, out[start:stop])
