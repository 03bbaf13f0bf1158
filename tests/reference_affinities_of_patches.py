"""Slow, obvious twin of blended prediction: every patch over the whole volume, weights of all axes written out."""

import math

import numpy as np
import torch


def positions(extent, patch):
    if extent <= patch:
        return [0]
    return sorted({*range(0, extent - patch, patch // 2), extent - patch})


def weight(position, extent, step):
    """Of one voxel along one axis of a patch of `extent`, for links by `step`."""
    first, last = max(0, -step), extent - 1 - max(0, step)
    if not first <= position <= last:
        return 0.0
    u = (position - first + 1) / (last - first + 2)
    return max(1e-5, math.exp(8 - (u * (1 - u)) ** -1.5))


def blended(net, image, patch):
    """Affinities (c, z, y, x) by patches that overlap by half."""
    offsets, extent = net.architecture.offsets, np.minimum(image.shape, patch)
    total, weights = np.zeros((2, len(offsets), *image.shape))
    multiple = np.array(net.architecture.multiple)
    for z in positions(image.shape[0], patch[0]):
        for y in positions(image.shape[1], patch[1]):
            for x in positions(image.shape[2], patch[2]):
                box = tuple(slice(a, a + n) for a, n in zip((z, y, x), extent))
                cut = image[box]
                cut = np.pad(cut, [(0, n) for n in -extent % multiple], mode="reflect")
                with torch.inference_mode():
                    made = torch.sigmoid(net(torch.from_numpy(cut.copy())[None, None]))[0].numpy()
                for c, offset in enumerate(offsets):
                    for v in np.ndindex(*extent):
                        w = math.prod(weight(p, n, step) for p, n, step in zip(v, extent, offset))
                        place = tuple(np.add(v, (z, y, x)))
                        total[c][place] += w * made[c][v]
                        weights[c][place] += w
    return np.divide(total, weights, out=np.zeros_like(total), where=weights > 0)
