"""The backward pass of a convolution's bias and ReLU in one sweep; called by `networks.layers`."""

from __future__ import annotations

import numpy as np
from numba import njit

_RUN = 32  # voxels at a time: what they need stays in the nearest cache


@njit(cache=True, nogil=True)
def relu_backward(gradient, values, none, half, out, first, last):
    """Write the gradient where the value is above `none` (0 of their type), else that; return its sum per map.

    All are (voxels, maps), bits of float32 (int32) or, `half`, of bfloat16 (int16). Voxels `first` to `last` are done.
    """
    maps = gradient.shape[1]
    up, total = np.int32(16 if half else 0), np.zeros(_RUN * maps, np.float32)
    for start in range(first, last, _RUN):
        stop = min(start + _RUN, last)
        given, seen = gradient[start:stop].reshape(-1), values[start:stop].reshape(-1)
        result = out[start:stop].reshape(-1)
        for i in range(given.size):
            kept = given[i] if seen[i] > none else none
            result[i] = kept
            total[i] += np.int32(np.int32(kept) << up).view(np.float32)
    return total.reshape(_RUN, maps).sum(0)
