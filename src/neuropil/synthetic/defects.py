"""What goes wrong with real sections: lost, cracked, folded, stained or out of focus.

Only the image is spoilt; the truth stays, and a mask tells where the image can no longer be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from neuropil.errors import InputError
from neuropil.synthetic.noise import smooth_noise

Defect = Literal["missing", "crack", "fold", "stain", "blur"]
DEFECTS: tuple[Defect, ...] = get_args(Defect)


def check_defects(defects: Sequence[str]) -> None:
    """Raise InputError for a name that is no defect."""
    for name in [defects] if isinstance(defects, str) else defects:
        if isinstance(defects, str) or name not in DEFECTS:
            raise InputError(f"defects must be a list of names out of {', '.join(DEFECTS)}; got {defects!r}")


def apply_defects(
    image: NDArray[np.uint8],
    defects: Sequence[Defect],
    voxel_size: tuple[float, float, float],
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return a copy of `image` (z, y, x) with one section spoilt per entry of `defects`, and the mask of what was."""
    image, mask = image.copy(), np.zeros(image.shape, bool)
    order = rng.permutation(len(image))
    for index, name in enumerate(defects):
        z = int(order[index % len(order)])
        if name == "missing":
            image[z], mask[z] = 0, True
        elif name == "blur":
            image[z] = np.rint(ndimage.gaussian_filter(image[z].astype(np.float32), [14.0 / s for s in voxel_size[1:]]))
            mask[z] = True
        elif name == "stain":
            image[z], mask[z] = _stain(image[z], voxel_size, rng)
        else:
            image[z], mask[z] = _band(image[z], name, voxel_size, rng)
    return image, mask


def _stain(
    section: NDArray[np.uint8], voxel_size: tuple[float, float, float], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A dark blob of precipitate."""
    height, width = section.shape
    y, x = (np.arange(n) * s for n, s in zip(section.shape, voxel_size[1:]))
    centre = rng.uniform(0.2, 0.8, 2) * [height * voxel_size[1], width * voxel_size[2]]
    radius = rng.uniform(0.1, 0.2) * min(height * voxel_size[1], width * voxel_size[2])
    distance = np.hypot(y[:, None] - centre[0], x[None, :] - centre[1]) / max(radius, 1.0)
    distance = distance + 0.25 * smooth_noise(section.shape, [0.3 * radius / s for s in voxel_size[1:]], rng)
    share = 1 / (1 + np.exp((distance - 1) * 12))
    return np.rint(section * (1 - share) + 18 * share).astype(np.uint8), share > 0.1


def _band(
    section: NDArray[np.uint8],
    name: Literal["crack", "fold"],
    voxel_size: tuple[float, float, float],
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A wavy band across the section: bright where it cracked, dark where it folded over."""
    height, width = section.shape
    size = np.array(voxel_size[1:])
    angle = rng.uniform(0, np.pi)
    normal = np.array([np.sin(angle), np.cos(angle)])
    y, x = np.arange(height) * size[0], np.arange(width) * size[1]
    middle = rng.uniform(0.3, 0.7) * normal[0] * height * size[0] + rng.uniform(0.3, 0.7) * normal[1] * width * size[1]
    away = normal[0] * y[:, None] + normal[1] * x[None, :] - middle
    away = away + 25 * smooth_noise(section.shape, (150 / size).tolist(), rng)
    half = rng.uniform(20, 45) if name == "crack" else rng.uniform(40, 90)
    share = 1 / (1 + np.exp((np.abs(away) - half) / 5))
    filling = 240.0 if name == "crack" else 30.0
    strength = 1.0 if name == "crack" else 0.85
    grey = section * (1 - strength * share) + filling * strength * share
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8), share > 0.1
