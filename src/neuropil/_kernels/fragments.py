"""Fragments of sections, one per offset within a step, and sections from them; called by `networks.layout`.

Maps of a voxel are words of 4 bytes, seen as float32, which are only moved.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from neuropil._kernels.vectors import transform

_copy = transform({1: np.eye(1)}, reads=True, writes=True)


@njit(cache=True, nogil=True)
def split(sections, step, out, first, last):
    """Write rows `first` to `last` of fragments (step, step, b, ⌈y/step⌉, ⌈x/step⌉, words), zeros beyond sections."""
    batch, height, width, words = sections.shape
    high = out.shape[3]
    for row in range(first, last):
        y, b, offset = row % high, row // high % batch, row // (high * batch)
        down, along, none = offset // step, offset % step, np.float32(0)
        there = y * step + down
        count = max(0, -(-(width - along) // step)) if there < height else 0
        to = out[down, along, b, y]
        if count:
            source = sections[b, there, along].ctypes.data
            _copy(1, count, source, 4 * step * words, 0, to.ctypes.data, 4 * words, 0, words, 0, none)
        to[count:] = 0


@njit(cache=True, nogil=True)
def merge(fragments, step, out, first, last):
    """Write rows `first` to `last` of sections (b, y, x, words)."""
    _, height, width, words = out.shape
    for row in range(first, last):
        b, y, none = row // height, row % height, np.float32(0)
        for along in range(min(step, width)):
            source = fragments[y % step, along, b, y // step].ctypes.data
            count = -(-(width - along) // step)
            target = out[b, y, along].ctypes.data
            _copy(1, count, source, 4 * words, 0, target, 4 * step * words, 0, words, 0, none)
