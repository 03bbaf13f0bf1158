"""Affinities to measure with: random, smooth random, like a prediction on synthetic tissue, and a prediction of AC4."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from neuropil.stages import convert, predict
from neuropil.synthetic import make_tissue
from neuropil.volume import exists, open_volume

NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
LONG = (
    *NEAREST,
    *((-2, 0, 0), (0, -3, 0), (0, 0, -3)),
    *((-3, 0, 0), (0, -9, 0), (0, 0, -9)),
    *((-4, 0, 0), (0, -27, 0), (0, 0, -27)),
)
SIDE = 128
AC4, PREDICTION = "runs/ac4_12nm.h5:raw", "runs/segmentation/ac4.h5:affinities"


def affinities(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return nearest affinities (3, n, n, n), float32: "random", "smooth" or "tissue"."""
    if kind == "tissue":
        return tissue(n, NEAREST, rng)
    links = rng.random((3, n, n, n), dtype=np.float32)
    if kind == "random":
        return links
    links = np.stack([ndimage.gaussian_filter(channel, 3) for channel in links])
    return (links - links.min()) / np.ptp(links)


def tissue(n: int, offsets: Sequence[Sequence[int]], rng: np.random.Generator) -> np.ndarray:
    """Return affinities of neurites as a network sees them, (c, n, n, n), float32; more than 128**3 are mirrored.

    Truth (same object: 1, else -1) is blurred; errors that all channels share, some voxels wide, and others of each
    channel are added; all that goes through a sigmoid. So insides are near 1 without being equal, membranes are
    graded, and some have gaps.
    """
    side = min(n, SIDE)
    ids = make_tissue((side, side, side), rng=rng, voxel_size=(10.0, 10.0, 10.0), caliber_nm=120.0).ids
    reach = max(abs(step) for offset in offsets for step in offset)
    wide = np.pad(ids, reach, mode="reflect")
    shared = _noise(ids.shape, 4, 1.0, rng)
    links = np.empty((len(offsets), *ids.shape), np.float32)
    for channel, offset in zip(links, offsets):
        there = wide[tuple(slice(reach + step, reach + step + side) for step in offset)]
        same = np.where((ids == there) & (ids > 0), np.float32(1), np.float32(-1))
        logit = 5 * ndimage.gaussian_filter(same, 0.8) + 1.5 * shared + _noise(ids.shape, 2, 0.5, rng)
        channel[...] = 1 / (1 + np.exp(-logit))
    whole = -(-n // side)
    return np.pad(links, [(0, 0)] + [(0, (whole - 1) * side)] * 3, mode="symmetric")[:, :n, :n, :n].copy()


def prediction() -> np.ndarray:
    """Return nearest affinities of AC4's sections 0:64 by the packaged model, (3, 64, 512, 512) float32.

    What is not there yet is made and kept: pixels of 12 nm, then the prediction, as

        neuropil convert data://snemi3d/ac4.h5:raw runs/ac4_12nm.h5:raw --kind image --resample 30,12,12
        neuropil predict --weights affinity-ssem --input runs/ac4_12nm.h5:raw --sections 0:64 --channels nearest \\
            --dtype float32 --output runs/segmentation/ac4.h5:affinities

    do it. The model has learnt from these sections.
    """
    if not exists(AC4):
        source = "data://snemi3d/ac4.h5:raw"
        convert.run(convert.Config(input=source, output=AC4, kind="image", resample=(30, 12, 12)))
    if not exists(PREDICTION):
        Path(PREDICTION).parent.mkdir(parents=True, exist_ok=True)
        about = {"sections": (0, 64), "channels": "nearest", "dtype": "float32"}
        predict.run(predict.Config(weights=Path("affinity-ssem"), input=AC4, output=PREDICTION, **about))
    with open_volume(PREDICTION) as volume:
        return volume.read()


def _noise(shape: tuple[int, ...], sigma: float, scale: float, rng: np.random.Generator) -> np.ndarray:
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)
    return noise * np.float32(scale / noise.std())
