"""Random variation of a training patch: pure functions of arrays and an rng, the same for image, map and target.

Flips along z, y and x and the y-x transpose, each with probability one half, are the paper's (Lee et al., NIPS 2015).
Grey variation (contrast, brightness and gamma per section; after Ciresan-style EM pipelines) and in-plane elastic
deformation are options. What goes wrong with sections is in `neuropil.networks.defects`, the warp in
`neuropil.networks.warp`; `Augmentation` says how often and how strongly both are done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from neuropil.errors import InputError

ELASTIC_SPACING = 32  # voxels between control points of the deformation


class Patch(NamedTuple):
    """Image (z, y, x) float32, standardised, and its labels (z, y, x), any integers."""

    image: NDArray[np.float32]
    labels: NDArray[Any]


@dataclass(frozen=True)
class Augmentation:
    """How often patches are varied the way serial sections vary, and how strongly. The defaults: never.

    Attributes
    ----------
    warp : share of patches that are rotated, scaled and sheared
    rotation : up to so many degrees either way
    scale, shear : by up to this fraction either way
    misalign : share of patches with a misalignment
    shift : up to so many voxels along y and x
    slip : share of the misalignments in which one section slips, instead of all from a section on
    missing : share of patches with missing or partly missing sections
    out_of_focus : share of patches with sections out of focus, wholly or in part
    blur : s.d. of the blur, up to so many voxels
    noise : share of patches with noisy sections
    deviation : s.d. of the noise, up to this fraction of the section's own
    sections : missing, and out of focus, at most
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  read by pydantic where a config nests this class

    warp: float = 0.0
    rotation: float = 45.0
    scale: float = 0.1
    shear: float = 0.1
    misalign: float = 0.0
    shift: int = 17
    slip: float = 0.3
    missing: float = 0.0
    out_of_focus: float = 0.0
    blur: float = 5.0
    noise: float = 0.0
    deviation: float = 0.5
    sections: int = 5

    def __post_init__(self) -> None:
        for name in ("warp", "misalign", "slip", "missing", "out_of_focus", "noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be a share in [0, 1]; got {getattr(self, name)}")
        for name in ("scale", "shear"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be a fraction in [0, 1); got {getattr(self, name)}")
        for name in ("rotation", "shift", "blur", "deviation"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be finite and not negative; got {getattr(self, name)}")
        if self.sections < 1:
            raise InputError(f"sections must be at least 1; got {self.sections}")


NO_AUGMENTATION = Augmentation()
EM_AUGMENTATION = Augmentation(warp=0.7, misalign=0.7, missing=0.7, out_of_focus=0.7, noise=0.5)
"""The shares and strengths of Lee et al., "Superhuman accuracy on the SNEMI3D connectomics challenge", 2017, as far as
they are known, and noise."""


@dataclass(frozen=True)
class Orientation:
    """One of the orientations of a volume: flips along axes, then axes in another order.

    >>> turned = Orientation((2,), (0, 2, 1)).apply(np.array([[[1, 2], [3, 4]]]))
    >>> turned.tolist(), Orientation((2,), (0, 2, 1)).undo(turned).tolist()
    ([[[2, 4], [1, 3]]], [[[1, 2], [3, 4]]])
    """

    flipped: tuple[int, ...] = ()
    order: tuple[int, int, int] = (0, 1, 2)

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Turn an array (z, y, x); the result is a view."""
        return np.flip(array, self.flipped).transpose(self.order)

    def undo(self, array: NDArray[Any]) -> NDArray[Any]:
        """Turn it back."""
        return np.flip(array.transpose(np.argsort(self.order)), self.flipped)


def random_orientation(*, rng: np.random.Generator, axes: Sequence[int] = (1, 2)) -> Orientation:
    """Draw flips along z, y and x and an order of `axes`: (1, 2) for sections, (0, 1, 2) for isotropic stacks."""
    flipped = tuple(axis for axis, chosen in enumerate(rng.random(3) < 0.5) if chosen)
    if len(axes) == 3:
        z, y, x = (int(axis) for axis in rng.permutation(3))
        return Orientation(flipped, (z, y, x))
    return Orientation(flipped, (0, 2, 1) if len(axes) == 2 and rng.random() < 0.5 else (0, 1, 2))


def random_flips(
    arrays: Sequence[NDArray[Any]], *, rng: np.random.Generator, transpose: bool = True
) -> list[NDArray[Any]]:
    """Flip all arrays (z, y, x) alike along random axes and, where y and x extents agree, transpose y and x."""
    orientation = random_orientation(rng=rng, axes=(1, 2) if transpose else ())
    return [orientation.apply(array) for array in arrays]


def grey(
    image: NDArray[np.float32], strength: float, *, rng: np.random.Generator, together: bool = False
) -> NDArray[np.float32]:
    """Vary contrast, brightness and gamma of each section of a standardised image.

    Parameters
    ----------
    image : (z, y, x) float32, mean about 0 and s.d. about 1 per section
    strength : 0 leaves the image as it is; 1 varies contrast by up to ±40 %, brightness by ±0.4 s.d., gamma between
    1/1.5 and 1.5
    together : vary all sections alike
    """
    sections = (1 if together else image.shape[0], 1, 1)
    contrast = 1 + 0.4 * strength * rng.uniform(-1, 1, sections)
    brightness = 0.4 * strength * rng.uniform(-1, 1, sections)
    gamma = 1.5 ** (strength * rng.uniform(-1, 1, sections))
    unit = np.clip((image + 4) / 8, 0, 1)  # ±4 s.d. onto [0, 1]
    varied = (unit**gamma - 0.5**gamma) * 8 * contrast + brightness
    return varied.astype(np.float32)


def elastic_field(shape: Sequence[int], amplitude: float, *, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return smooth random coordinates (2, y, x) to sample a section at.

    Parameters
    ----------
    shape : y, x
    amplitude : s.d. of the displacement of the control points, voxels
    """
    knots = [max(2, round(n / ELASTIC_SPACING) + 1) for n in shape]
    coarse = rng.normal(0, amplitude, (2, *knots))
    rows, columns = (_spline(n, k) for n, k in zip(shape, knots))
    places: NDArray[np.float64] = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    return places + rows @ coarse @ columns.T


@cache
def _spline(extent: int, knots: int) -> NDArray[np.float64]:
    """Matrix (extent, knots) of the cubic spline through `knots` values, laid evenly over `extent` voxels."""
    places = np.linspace(0, knots - 1, extent)[None]
    columns = [ndimage.map_coordinates(one, places, order=3, mode="nearest") for one in np.eye(knots)]
    return np.stack(columns, axis=1)


def deform(array: NDArray[Any], field: NDArray[np.float64], *, order: int) -> NDArray[Any]:
    """Sample every section of `array` (z, y, x) at `field` (2, y, x), mirrored outside.

    `order` is 1 for images and 0 for labels.
    """
    sections = [ndimage.map_coordinates(one, field, order=order, mode="mirror") for one in array]  # type: ignore[call-overload]
    return np.stack(sections)
