"""Sections sampled at given places: the image between voxels, labels at the nearest; called by `networks.warp`.

All sections have the same places, so a place's four neighbours and weights are found once and used down the stack.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, inline="always")
def _mirrored(i, n):
    period = max(1, 2 * (n - 1))
    i %= period
    return i if i < n else period - i


@njit(cache=True, nogil=True)
def warp(image, labels, places, outside, out_image, out_labels):
    """Write image and labels (z, y, x) at `places` (2, y', x'); beyond the edge a mirrored image, label `outside`."""
    depth, height, width = image.shape
    for row in range(places.shape[1]):
        for column in range(places.shape[2]):
            y, x = places[0, row, column], places[1, row, column]
            top, left = int(np.floor(y)), int(np.floor(x))
            dy, dx = np.float32(y - top), np.float32(x - left)
            j, i = top + int(dy >= np.float32(0.5)), left + int(dx >= np.float32(0.5))
            inside = 0 <= j < height and 0 <= i < width
            a, b, c, d = top, top + 1, left, left + 1
            if a < 0 or b >= height or c < 0 or d >= width:
                a, b = _mirrored(a, height), _mirrored(b, height)
                c, d = _mirrored(c, width), _mirrored(d, width)
            one = np.float32(1)
            for z in range(depth):
                upper = image[z, a, c] * (one - dx) + image[z, a, d] * dx
                lower = image[z, b, c] * (one - dx) + image[z, b, d] * dx
                out_image[z, row, column] = upper * (one - dy) + lower * dy
                out_labels[z, row, column] = labels[z, j, i] if inside else outside
