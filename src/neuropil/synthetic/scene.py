"""The scene: neurites, organelles and synapses on a fine grid in nm, before any section is cut.

The grid is finer in z than the sections (about 17 nm), because a transmission image is a projection through the whole
section: a membrane that crosses it obliquely smears out, one that lies in it gives a grey veil. That is what makes
real serial sections hard, and `smear` is where it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from neuropil.synthetic import neurites

MITOCHONDRIA = 0.05
"""Share of the volume that mitochondria take, as in the fly's nerve cord."""
SYNAPSES_PER_UM3 = 5.0


@dataclass(frozen=True)
class Scene:
    """Fields (n_sections, y, x) on the scene's grid of `pitch_nm`, taken in the middle of each section.

    `ids` int32 ≥ 1; `border_nm` distance in the section to the next neurite; `smear` 0…1 membrane projected through the
    section; `mito_nm` distance to the mitochondrion's surface, negative inside; `density` 0…1 dark synaptic material;
    `vesicles` 0…1 relative number of vesicles.
    """

    ids: NDArray[np.int32]
    border_nm: NDArray[np.float32]
    smear: NDArray[np.float32]
    mito_nm: NDArray[np.float32]
    density: NDArray[np.float32]
    vesicles: NDArray[np.float32]
    pitch_nm: tuple[float, float]
    margin_nm: tuple[float, float]


def make_scene(
    shape: tuple[int, int, int],
    voxel_size: tuple[float, float, float],
    *,
    margin_nm: float,
    caliber_nm: float,
    membrane_nm: float,
    rng: np.random.Generator,
) -> Scene:
    """Build the scene of `shape` voxels (sections, y, x) plus `margin_nm` in the plane."""
    slices = max(1, round(voxel_size[0] / 17.0))
    plane = [s * max(1, round(8.0 / s)) for s in voxel_size[1:]]
    pitch = np.array([voxel_size[0] / slices, *plane])
    cells = [int(np.ceil((n * s + 2 * margin_nm) / p)) + 2 for n, s, p in zip(shape[1:], voxel_size[1:], plane)]
    size = np.array([shape[0] * voxel_size[0], cells[0] * plane[0], cells[1] * plane[1]])
    skeletons = neurites.grow(size, caliber_nm, rng)
    fine = neurites.paint(skeletons, (shape[0] * slices, cells[0], cells[1]), pitch)

    border = np.stack([_border(s, pitch[1:]) for s in fine])
    middle = slice(slices // 2, None, slices)
    ids, border_nm = fine[middle], border[middle]
    mito = _mitochondria(skeletons, ids, border_nm, voxel_size[0], pitch, rng)
    density, vesicles = _synapses(ids, border_nm, voxel_size[0], pitch, rng)
    return Scene(
        ids,
        border_nm,
        _smear(fine, border, slices, membrane_nm),
        mito,
        density,
        vesicles,
        (pitch[1], pitch[2]),
        (margin_nm, margin_nm),
    )


def _border(ids: NDArray[np.int32], pitch: NDArray[np.float64]) -> NDArray[np.float32]:
    """Distance, nm, of every pixel of one slice from the nearest change of id."""
    edge = np.zeros(ids.shape, bool)
    for axis in (0, 1):
        differs = np.diff(ids, axis=axis) != 0
        first = tuple(slice(None, -1) if a == axis else slice(None) for a in (0, 1))
        second = tuple(slice(1, None) if a == axis else slice(None) for a in (0, 1))
        edge[first] |= differs
        edge[second] |= differs
    if not edge.any():
        return np.full(ids.shape, 1e4, np.float32)
    distance = (ndimage.distance_transform_edt(~edge, sampling=pitch) + pitch.mean() / 2).astype(np.float32)
    return np.asarray(ndimage.gaussian_filter(distance, 0.8))  # round the staircase of the grid


def _smear(
    fine: NDArray[np.int32], border: NDArray[np.float32], slices: int, membrane_nm: float
) -> NDArray[np.float32]:
    """Membrane darkness, 0…1, projected through each section; en-face membranes between slices included."""
    depth = (np.minimum(border, 4 * membrane_nm) - 0.36 * membrane_nm) / (0.09 * membrane_nm)
    profile = 1.0 / (1.0 + np.exp(depth))
    if slices > 1:
        face = np.zeros(fine.shape, np.float32)
        face[:-1] = fine[:-1] != fine[1:]
        blurred = ndimage.gaussian_filter(face, (0, 1, 1))
        profile = np.maximum(profile, 0) + 1.2 * blurred * (1 - profile)
    mean = profile.reshape(-1, slices, *fine.shape[1:]).mean(axis=1)
    return np.asarray(np.minimum(1.4 * mean, 1.0), np.float32)


def _window(
    centre: NDArray[np.float64], reach: float, shape: tuple[int, ...], pitch: NDArray[np.float64]
) -> tuple[tuple[slice, ...], NDArray[np.float64]] | None:
    """The cells within `reach` nm of `centre` and their distance, nm; None when they lie outside."""
    low = np.clip(np.floor((centre - reach) / pitch), 0, shape).astype(int)
    high = np.clip(np.ceil((centre + reach) / pitch), 0, shape).astype(int)
    if np.any(low >= high):
        return None
    z, y, x = (((np.arange(a, b) + 0.5) * p - c) ** 2 for a, b, p, c in zip(low, high, pitch, centre))
    return tuple(slice(a, b) for a, b in zip(low, high)), np.sqrt(z[:, None, None] + (y[:, None] + x))


def _mitochondria(
    skeletons: neurites.Skeletons,
    ids: NDArray[np.int32],
    border_nm: NDArray[np.float32],
    thickness: float,
    pitch: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Sausages along the axes of the thicker neurites, until they take their share of the volume."""
    surface = np.full(ids.shape, 1e3, np.float32)
    grid = np.array([thickness, *pitch[1:]])
    axis = np.flatnonzero(skeletons.core & (skeletons.radius > 75.0))
    inside = 0
    for first in rng.permutation(axis)[: len(axis) // 2]:
        if inside > MITOCHONDRIA * ids.size:
            break
        neurite, length, target = skeletons.id[first], 0.0, rng.uniform(250, 900)
        width = float(np.clip(skeletons.radius[first] * rng.uniform(0.45, 0.7), 55, 170))
        for ball in range(first, len(skeletons.id)):
            step = np.linalg.norm(skeletons.position[ball] - skeletons.position[max(first, ball - 1)])
            length += float(step)
            if skeletons.id[ball] != neurite or not skeletons.core[ball] or length > target or step > 400:
                break
            window = _window(skeletons.position[ball], width + 60, ids.shape, grid)
            if window is None:
                continue
            part, distance = window
            distance = np.where(ids[part] == neurite, distance - width, 1e3)
            # The organelle keeps clear of its own cell's membrane.
            distance = np.maximum(distance, 30.0 - border_nm[part])
            before = int((surface[part] < 0).sum())
            np.minimum(surface[part], distance, out=surface[part], casting="same_kind")
            inside += int((surface[part] < 0).sum()) - before
    return surface


def _synapses(
    ids: NDArray[np.int32],
    border_nm: NDArray[np.float32],
    thickness: float,
    pitch: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Dark material at random places on membranes, and the cloud of vesicles on one side of it."""
    density, vesicles = np.zeros(ids.shape, np.float32), np.zeros(ids.shape, np.float32)
    grid = np.array([thickness, *pitch[1:]])
    count = rng.poisson(SYNAPSES_PER_UM3 * ids.size * np.prod(grid) * 1e-9)
    sites = np.flatnonzero((border_nm > 15) & (border_nm < 40))
    for site in rng.choice(sites, count) if len(sites) else []:
        cell = np.unravel_index(site, ids.shape)
        centre = (np.array(cell) + 0.5) * grid
        for reach, width, field in ((130.0, rng.uniform(30, 48), density), (500.0, rng.uniform(110, 190), vesicles)):
            window = _window(centre, reach, ids.shape, grid)
            if window is None:
                continue
            part, distance = window
            bump = np.exp(-0.5 * (distance / width) ** 2)
            if field is vesicles:
                bump = bump * (ids[part] == ids[cell])
            np.maximum(field[part], bump, out=field[part], casting="same_kind")
    density *= np.exp(-((border_nm / 32.0) ** 2))
    return density, vesicles
