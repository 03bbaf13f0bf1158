"""What a patch of affinities costs, by function: can it keep a GPU busy? Called by run.py --augmentation."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from neuropil.networks.affinity_sampling import AffinitySampler, LabelledStack, erode_borders, pieces
from neuropil.networks.augmentation import EM_AUGMENTATION, NO_AUGMENTATION, Orientation, grey
from neuropil.networks.defects import misalign, missing_sections, out_of_focus, section_noise
from neuropil.networks.unet_architecture import UNetArchitecture
from neuropil.networks.warp import random_places, source_extent, warp
from neuropil.segmentation.affinities import link_labels
from neuropil.synthetic import make_tissue

PATCH = (18, 160, 160)


def milliseconds(call: Callable[[int], object], times: int) -> float:
    """Median over calls; the first, which may compile, is not counted."""
    call(0)
    taken = []
    for index in range(1, times + 1):
        start = time.perf_counter()
        call(index)
        taken.append(time.perf_counter() - start)
    return 1e3 * float(np.median(taken))


def functions() -> dict[str, Callable[[int], object]]:
    """Each step on a patch of the paper's size, as a function of a seed; shares as in EM_AUGMENTATION count as 1."""
    places = random_places(PATCH[1:], EM_AUGMENTATION, elastic=2.0, rng=np.random.default_rng(0))
    shape, margin = (PATCH[0], *source_extent(places)), EM_AUGMENTATION.shift
    tissue = make_tissue((4, 192, 192), rng=np.random.default_rng(0), voxel_size=(30.0, 6.0, 6.0))
    labels = np.resize(tissue.ids.astype(np.uint32), shape)
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    part = (slice(None), slice(PATCH[1]), slice(PATCH[2]))
    here, ids = np.ascontiguousarray(image[part]), np.ascontiguousarray(labels[part])
    wide = [np.pad(one, ((0, 0), (margin, margin), (margin, margin))) for one in (here, ids)]
    turn, unknown, rng = Orientation((0, 2), (0, 2, 1)), np.zeros(PATCH, bool), np.random.default_rng
    return {
        "draw the warp": lambda s: random_places(PATCH[1:], EM_AUGMENTATION, elastic=2.0, rng=rng(s)),
        "warp": lambda s: warp(image, labels, places),
        "pieces": lambda s: pieces(ids),
        "misalign": lambda s: misalign(wide[0], wide[1], margin, rng=rng(s)),
        "grey": lambda s: grey(here, 0.5, rng=rng(s)),
        "out of focus": lambda s: out_of_focus(here, ids, rng=rng(s)),
        "noise": lambda s: section_noise(here, ids, rng=rng(s)),
        "missing": lambda s: missing_sections(here, ids, rng=rng(s)),
        "erosion": lambda s: erode_borders(ids, unknown, 1),
        "orientation": lambda s: [turn.apply(one).copy() for one in (here, ids)],
        "12 affinities": lambda s: link_labels(ids, UNetArchitecture().offsets, unknown),
    }


def patches_per_second(sampler: AffinitySampler, threads: int, count: int) -> float:
    """Patches drawn by threads, as training on a GPU draws them."""
    sampler(0)
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        for _ in pool.map(sampler, range(1, count + 1)):
            pass
        return count / (time.perf_counter() - start)


def measure(quick: bool) -> dict[str, float]:
    """Print the cost of each function, and patches per second by number of threads; return them."""
    figures = {f"{name}: ms": milliseconds(call, 5 if quick else 30) for name, call in functions().items()}
    tissue = make_tissue((24, 288, 288), rng=np.random.default_rng(1), voxel_size=(30.0, 6.0, 6.0))
    stack = LabelledStack("tissue", tissue.image, tissue.ids)
    bare = AffinitySampler([stack], UNetArchitecture(), PATCH, 0, NO_AUGMENTATION)
    full = replace(bare, augmentation=EM_AUGMENTATION, grey=0.5, elastic=2.0)
    for name, sampler in (("plain", bare), ("all augmentation", full)):
        for threads in sorted({1, 2, min(8, os.cpu_count() or 1)}):
            rate = patches_per_second(sampler, threads, (10 if quick else 40) * threads)
            figures[f"{name}, {threads} threads: patches/s"] = rate
    print(f"patches of {PATCH}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for name, figure in figures.items():
        print(f"{name:40} {figure:8.2f}")
    return figures
