"""One section's image: what the beam sees of membranes, cytoplasm and organelles, and what the camera adds.

Grey values and noise were set by eye and by numbers (histogram, autocorrelation, contrast of membranes) against public
serial sections of the fly's nerve cord. Everything is given in nm, so any voxel size renders the same tissue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from neuropil.synthetic.noise import smooth_noise

Plane = NDArray[np.float32]


@dataclass(frozen=True)
class Section:
    """Fields (y, x) of one section on the voxel grid; see `scene.Scene`."""

    ids: NDArray[np.int32]
    border_nm: Plane
    smear: Plane
    mito_nm: Plane
    density: Plane
    vesicles: Plane


@dataclass(frozen=True)
class Look:
    """What is special to each neurite, by id: grey value, direction and strength of cristae, number of tubules."""

    grey: Plane
    angle: Plane
    cristae: Plane
    grain: Plane


def make_look(last_id: int, rng: np.random.Generator) -> Look:
    """Draw the look of neurites 0…`last_id`."""
    n = last_id + 1
    grey = 168 + 9 * rng.standard_normal(n, np.float32)
    grey[rng.random(n) < 0.08] -= 38  # dark cells: glia, dying neurites
    return Look(
        grey,
        rng.uniform(0, np.pi, n).astype(np.float32),
        rng.uniform(4, 26, n).astype(np.float32),
        rng.uniform(0.6, 1.5, n).astype(np.float32),
    )


def render(section: Section, pixel_nm: tuple[float, float], look: Look, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the uint8 image (y, x) of one section; `pixel_nm` is its pixel size y, x."""
    scale = float(np.sqrt(pixel_nm[0] * pixel_nm[1]))
    grey = look.grey[section.ids]
    grey += _cytoplasm(section, pixel_nm, look, rng)
    grey = _mitochondria(grey, section, pixel_nm, look, rng)
    dark = 42 + 9 * _field(grey.shape, 45, pixel_nm, rng)
    # Stain varies along a membrane, so it is faint in places.
    stain = np.clip(0.92 + 0.12 * _field(grey.shape, 40, pixel_nm, rng), 0.45, 1.0)
    share = section.smear * stain
    grey = grey * (1 - share) + dark * share
    synapse = np.clip(1.25 * section.density, 0, 0.95)
    grey = grey * (1 - synapse) + 42 * synapse
    grey = ndimage.gaussian_filter(grey, [max(0.35, 2.0 / p) for p in pixel_nm])
    noise = ndimage.gaussian_filter(rng.standard_normal(grey.shape, np.float32), 0.65)
    shot = 15.5 / float(noise.std() + 1e-9) if noise.size > 1 else 0.0
    grey += shot * noise * np.sqrt(np.clip(grey, 20, None) / 140) * float(np.clip(4.0 / scale, 0.5, 1.1))
    shading = 6 * _field(grey.shape, 900, pixel_nm, rng)
    contrast, brightness = np.clip(rng.normal(1.0, 0.08), 0.75, 1.25), rng.normal(0, 8)
    grey = 128 + contrast * (grey + shading - 136) + brightness
    return np.asarray(np.clip(np.rint(grey), 0, 255), np.uint8)


def _field(shape: tuple[int, ...], sigma_nm: float, pixel_nm: tuple[float, float], rng: np.random.Generator) -> Plane:
    return smooth_noise(shape, [sigma_nm / p for p in pixel_nm], rng)


def _spots(weight: Plane, per_um2: float, pixel_nm: tuple[float, float], rng: np.random.Generator) -> Plane:
    """Impulses of height 1 at random pixels, `per_um2` × `weight` of them per µm²."""
    chance = per_um2 * 1e-6 * pixel_nm[0] * pixel_nm[1] * weight
    return (rng.random(weight.shape, np.float32) < chance).astype(np.float32)


def _blob(spots: Plane, sigma_nm: float, pixel_nm: tuple[float, float]) -> Plane:
    """Gaussian blobs of height 1 at the spots."""
    sigma = [max(0.5, sigma_nm / p) for p in pixel_nm]
    return np.asarray(ndimage.gaussian_filter(spots, sigma) * (2 * np.pi * sigma[0] * sigma[1]), np.float32)


def _cytoplasm(section: Section, pixel_nm: tuple[float, float], look: Look, rng: np.random.Generator) -> Plane:
    """Grain, microtubules, reticulum and vesicles, as a change of grey value."""
    shape = section.ids.shape
    room = section.border_nm > 26
    grain = look.grain[section.ids]
    change = grain * (15 * _field(shape, 6, pixel_nm, rng) + 9 * _field(shape, 15, pixel_nm, rng))
    change += 8 * _field(shape, 50, pixel_nm, rng)
    # Microtubules: dark dots about 24 nm wide, more of them in some neurites.
    tubules = _blob(_spots(room * np.maximum(0, grain - 0.4), 400, pixel_nm, rng), 7, pixel_nm)
    change -= 36 * np.minimum(tubules, 1)
    # Reticulum: dark curved lines (zero crossings of noise) in patches; looks like membrane, separates nothing.
    line = np.exp(-((_field(shape, 42, pixel_nm, rng) / 0.14) ** 2))
    patch = np.clip(_field(shape, 110, pixel_nm, rng) - 0.9, 0, 0.6) / 0.6
    change -= 70 * line * patch * room
    # Vesicles: 40 nm, dark rim and pale lumen, dense near synapses; some with a dense core.
    centres = _spots(np.minimum(section.vesicles + 0.02, 1) * room, 330, pixel_nm, rng)
    change -= 240 * np.clip(_blob(centres, 15, pixel_nm) - 1.05 * _blob(centres, 10, pixel_nm), -0.15, 0.42)
    cores = _spots(room.astype(np.float32), 1.6, pixel_nm, rng)
    change -= 85 * np.minimum(_blob(cores, 17, pixel_nm), 1)
    return np.asarray(change, np.float32)


def _mitochondria(
    grey: Plane, section: Section, pixel_nm: tuple[float, float], look: Look, rng: np.random.Generator
) -> Plane:
    """Dark matrix with cristae inside a double membrane."""
    inside = np.clip(0.5 - section.mito_nm / 8.0, 0, 1)
    if not inside.any():
        return grey
    angle = look.angle[section.ids]
    y = np.arange(grey.shape[0], dtype=np.float32)[:, None] * pixel_nm[0]
    x = np.arange(grey.shape[1], dtype=np.float32)[None, :] * pixel_nm[1]
    phase = (y * np.sin(angle) + x * np.cos(angle)) * (2 * np.pi / 46.0)
    phase = phase + 1.9 * _field(grey.shape, 60, pixel_nm, rng)
    matrix = 89 + look.cristae[section.ids] * np.sin(phase) + 9 * _field(grey.shape, 8, pixel_nm, rng)
    rim = np.exp(-((section.mito_nm / 8.0) ** 2)) * 0.75
    grey = grey * (1 - inside) + matrix * inside
    return np.asarray(grey * (1 - rim) + 64 * rim, np.float32)
