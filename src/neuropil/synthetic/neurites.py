"""Neurites as branching tubes that fill space: the geometry, and so the truth, of synthetic tissue.

Each neurite is a persistent random walk in nm that is pushed away from the neurites placed before it, thick ones first;
side branches carry the same id. Every voxel then goes to the tube whose axis is nearest *in units of that tube's
radius*. Key insight: measured so, a voxel on an axis always belongs to its own tube, so a thin neurite that runs into a
thick one becomes an invagination instead of being cut in two, and truth stays connected along z. Voxels that no tube
reaches go to the nearest one (Euclidean distance transform in nm), so that neurites touch, as they do in neuropil.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

FILL = 1.1
"""Tube volume to place per tissue volume, about; what is left between the tubes goes to the nearest one."""
REACH = 1.5
"""How far a tube reaches, in units of its radius, before a gap counts as a gap."""


@dataclass(frozen=True)
class Skeletons:
    """Balls along the axes of all neurites: `position` (n, 3) nm z, y, x; `radius` (n,) nm; `id` (n,) from 1.

    `core` tells axis balls from lobes (balls off the axis that make cross-sections irregular).
    """

    position: NDArray[np.float64]
    radius: NDArray[np.float64]
    id: NDArray[np.int32]
    core: NDArray[np.bool_]


def grow(size_nm: NDArray[np.float64], caliber_nm: float, rng: np.random.Generator) -> Skeletons:
    """Place neurites in a box of `size_nm` (z, y, x) until they fill it; `caliber_nm` is the median radius."""
    volume = float(np.prod(size_nm))
    radii = _draw_radii(volume, float(size_nm.mean()), caliber_nm, rng)
    paths: list[tuple[NDArray[np.float64], NDArray[np.float64], int]] = []
    pending: list[NDArray[np.float64]] = []
    placed, tree, waiting = np.empty((0, 4)), None, 0
    for neurite, radius in enumerate(radii, 1):
        if waiting > 0.02 * len(placed):  # a neurite may miss the last 2 %: rebuilding every time would be quadratic
            placed, pending, waiting = np.concatenate([placed, *pending]), [], 0
            tree = cKDTree(placed[:, :3])
        start = _free_place(size_nm, tree, placed, rng)
        for positions, widths in _neurite(start, float(radius), size_nm, tree, placed, rng):
            paths.append((positions, widths, neurite))
            pending.append(np.column_stack([positions, widths]))
            waiting += len(positions)
    return _balls(paths, rng)


def paint(skeletons: Skeletons, shape: tuple[int, int, int], pitch_nm: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return the id ≥ 1 of every voxel, (z, y, x) int32, on a grid of `pitch_nm`: the axis nearest in its own radii."""
    best = np.full(shape, REACH**2, np.float32)
    owner = np.zeros(shape, np.int32)
    axes = [((np.arange(n) + 0.5) * p).astype(np.float32) for n, p in zip(shape, pitch_nm)]
    reach = REACH * skeletons.radius[:, None]
    low = np.clip(np.floor((skeletons.position - reach) / pitch_nm), 0, shape).astype(int)
    high = np.clip(np.ceil((skeletons.position + reach) / pitch_nm), 0, shape).astype(int)
    for ball in np.flatnonzero(np.all(low < high, axis=1)):
        window = tuple(map(slice, low[ball].tolist(), high[ball].tolist()))
        scale = float(1 / skeletons.radius[ball])
        centre = skeletons.position[ball].tolist()
        z, y, x = (np.square((axis[part] - c) * scale) for axis, part, c in zip(axes, window, centre))
        distance = z[:, None, None] + (y[:, None] + x)
        if not skeletons.core[ball]:  # a lobe may never win over another tube's axis
            distance *= 0.85
            distance += 0.15
        so_far = best[window]
        nearer = distance < so_far
        np.copyto(so_far, distance, where=nearer)
        np.copyto(owner[window], skeletons.id[ball], where=nearer)
    if not owner.any():
        owner[tuple(n // 2 for n in shape)] = 1
    if not owner.all():
        nearest = ndimage.distance_transform_edt(
            owner == 0, sampling=pitch_nm, return_distances=False, return_indices=True
        )
        owner = owner[tuple(nearest)]
    return owner


def _draw_radii(volume: float, length: float, caliber_nm: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Radii, thickest first, of as many neurites as fill the volume; log-normal, as profiles in ssTEM are."""
    reach = max(1.1 * length, 4 * caliber_nm)
    count = max(4, int(3 * FILL * volume / (math.pi * caliber_nm**2 * reach)))
    radii = np.clip(caliber_nm * np.exp(rng.normal(0.0, 0.6, count)), 0.38 * caliber_nm, 3.4 * caliber_nm)
    filled = np.cumsum(math.pi * radii**2 * reach)
    enough = max(4, int(np.searchsorted(filled, FILL * volume)))
    return np.sort(radii[:enough])[::-1]


def _free_place(
    size_nm: NDArray[np.float64], tree: cKDTree | None, placed: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """The freest of a few random places."""
    candidates = rng.uniform(0, 1, (24, 3)) * size_nm
    if tree is None:
        return np.asarray(candidates[0])
    distance, index = tree.query(candidates)
    return np.asarray(candidates[np.argmax(distance - placed[index, 3])])


def _neurite(
    start: NDArray[np.float64],
    radius: float,
    size_nm: NDArray[np.float64],
    tree: cKDTree | None,
    placed: NDArray[np.float64],
    rng: np.random.Generator,
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Both arms of a neurite from `start`, and its side branches."""
    if rng.random() < 0.8:  # mostly across the sections, else mostly along them
        direction = np.array([1.0, *rng.normal(0, 0.4, 2)])
    else:
        direction = np.array([rng.normal(0, 0.3), *rng.normal(0, 1, 2)])
    direction /= np.linalg.norm(direction)
    pieces = [_walk(start, sign * direction, radius, math.inf, size_nm, tree, placed, rng) for sign in (1.0, -1.0)]
    for positions, _ in list(pieces):
        for index in np.flatnonzero(rng.random(len(positions)) < 0.035 * min(1.0, radius / 40.0)):
            heading = rng.normal(0, 1, 3)
            heading /= np.linalg.norm(heading)
            thin = max(0.35 * radius, min(28.0, 0.8 * radius)) * rng.uniform(1.0, 1.5)
            reach = rng.uniform(3, 14) * radius
            pieces.append(_walk(positions[index], heading, thin, reach, size_nm, tree, placed, rng))
    return pieces


def _walk(
    start: NDArray[np.float64],
    direction: NDArray[np.float64],
    radius: float,
    length: float,
    size_nm: NDArray[np.float64],
    tree: cKDTree | None,
    placed: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A persistent random walk, pushed away from what is there, until it leaves the box, ends or is stuck."""
    step = 0.6 * radius
    limit = int(min(length, 3.0 * float(size_nm.sum())) / step) + 2
    swell = np.exp(0.3 * ndimage.gaussian_filter1d(rng.normal(0, 1, limit + 1), 4, mode="wrap") * 3.5)
    place, points, widths = start, [start], [radius * swell[0]]
    for index in range(1, limit):
        push = np.zeros(3)
        width = radius * min(max(float(swell[index]), 0.6), 1.9)
        if tree is not None:
            distance, near = tree.query(place, k=min(6, len(placed)))
            distance, near = np.atleast_1d(distance), np.atleast_1d(near)
            away = (place - placed[near, :3]) / np.maximum(distance, 1e-6)[:, None]
            overlap = np.maximum(0.0, width + placed[near, 3] - distance) / radius
            push = (away * np.minimum(overlap, 2.0)[:, None]).sum(axis=0)
            if index > 4 and (distance < 0.5 * placed[near, 3]).any():
                break  # stuck inside another neurite: this one ends here
        direction = direction + 0.22 * rng.normal(0, 1, 3) + 0.7 * push
        direction = direction / math.hypot(*direction)
        place = place + step * direction
        points.append(place)
        widths.append(width)
        if (place < -width).any() or (place > size_nm + width).any():
            break
    return np.array(points), np.array(widths)


def _balls(paths: list[tuple[NDArray[np.float64], NDArray[np.float64], int]], rng: np.random.Generator) -> Skeletons:
    """Balls along every path, and lobes that swing around it."""
    position: list[NDArray[np.float64]] = []
    radius: list[NDArray[np.float64]] = []
    owner: list[NDArray[np.int32]] = []
    core: list[NDArray[np.bool_]] = []
    for points, widths, neurite in paths:
        first = len(radius)
        position.append(points)
        radius.append(widths)
        core.append(np.ones(len(points), bool))
        for _ in range(2):
            swing = ndimage.gaussian_filter1d(rng.normal(0, 1, (len(points), 3)), 3, axis=0, mode="nearest")
            swing /= np.maximum(np.linalg.norm(swing, axis=1, keepdims=True), 1e-6)
            bumps = np.flatnonzero((widths > 40) & (rng.random(len(points)) < 0.6))
            position.append((points + swing * (widths * rng.uniform(0.5, 0.9))[:, None])[bumps])
            radius.append((widths * rng.uniform(0.5, 0.8))[bumps])
            core.append(np.zeros(len(bumps), bool))
        owner.append(np.full(sum(len(part) for part in radius[first:]), neurite, np.int32))
    return Skeletons(np.concatenate(position), np.concatenate(radius), np.concatenate(owner), np.concatenate(core))
