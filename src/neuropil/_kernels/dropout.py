"""Dropout in one sweep, there and back; called by `networks.layers`."""

from __future__ import annotations

import numpy as np
from numba import njit

from neuropil._kernels.max_filter import upper_half

RUN = 4096  # values at a time: what they need stays in the nearest cache


@njit(cache=True, nogil=True)
def _draw(seed, run, words):
    """Write the random words of a run: SplitMix64, whose words follow from their number alone (Steele et al. 2014)."""
    for i in range(words.size):
        word = seed + np.uint64(run * words.size + i + 1) * np.uint64(0x9E3779B97F4A7C15)
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        words[i] = word ^ (word >> np.uint64(31))


@njit(cache=True, nogil=True)
def dropout(values, seed, least, scale, half, out, first, last):
    """Write values × scale where a random byte is at least `least`, else 0; the same bytes for the same `seed`.

    Values and `out` are bits of float32 (int32) or, `half`, of bfloat16 (int16), all flat. Runs `first` to `last` are
    done.
    """
    up, edge = np.int32(16 if half else 0), np.int32(least)  # one width throughout is what vectors need
    words = np.empty(RUN // 8, np.uint64)
    drawn = words.view(np.uint8)
    for run in range(first, last):
        start, stop = run * RUN, min((run + 1) * RUN, values.size)
        given, made = values[start:stop], out[start:stop]
        _draw(seed, run, words)
        for i in range(given.size):
            number = np.int32(np.int32(given[i]) << up).view(np.float32) * scale
            bits = np.float32(number if np.int32(drawn[i]) >= edge else np.float32(0)).view(np.int32)
            made[i] = upper_half(bits) if half else bits
