"""Slow twin of the warp: one voxel at a time, from the formulas."""

import math

import numpy as np


def warp(image, labels, places, outside):
    """Image and labels (z, y, x) at `places` (2, y', x') from the corner: linear, mirrored; nearest, or `outside`."""
    depth, height, width = image.shape
    made = np.empty((depth, *places.shape[1:]), np.float32), np.empty((depth, *places.shape[1:]), labels.dtype)
    for z, row, column in np.ndindex(made[0].shape):
        y, x = (float(one) for one in places[:, row, column])
        made[0][z, row, column] = sum(
            image[z, reflected(j, height), reflected(i, width)] * (1 - abs(y - j)) * (1 - abs(x - i))
            for j in (math.floor(y), math.floor(y) + 1)
            for i in (math.floor(x), math.floor(x) + 1)
        )
        j, i = math.floor(y + 0.5), math.floor(x + 0.5)
        made[1][z, row, column] = labels[z, j, i] if 0 <= j < height and 0 <= i < width else outside
    return made


def reflected(i, n):
    """Bounce an index off both ends until it lies inside."""
    while n > 1 and not 0 <= i < n:
        i = -i if i < 0 else 2 * (n - 1) - i
    return i if n > 1 else 0
