"""Speed of the scores, beside scikit-image, funlib's scorer (in waterz) and plain NumPy, in one run on one machine.

    python benchmarks/metrics/run.py [--quick] [--json FILE]

Ours and the peer take turns on the same arrays; seconds are medians, a ratio above 1 means ours is faster. The peer's
answers are compared with ours before anything is timed. scikit-image is given dense ids, which it needs, for free.
`table_..._over_reading_both_volumes` is the time of the contingency table over that of one look at each voxel of both
volumes (NumPy's maximum): 1 would be the speed of memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import waterz
from skimage.metrics import adapted_rand_error as skimage_rand
from skimage.metrics import variation_of_information as skimage_information

from neuropil.labels import contingency
from neuropil.metrics.curves import merge_tree_curve
from neuropil.metrics.information import variation_of_information
from neuropil.metrics.pixel_error import best_pixel_error, boundary_curve
from neuropil.metrics.rand import adapted_rand_error, rand_scores


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(repeats: int, *works: Callable[[], object]) -> list[float]:
    """Return the median seconds of each work, all taking turns."""
    times = [[seconds(work) for work in works] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*times)]


def cells(rng: np.random.Generator, side: int, grain: int, ids: int) -> np.ndarray:
    """Blocky labels of side**3 voxels, about a fiftieth of them background."""
    coarse = rng.integers(1, ids, (side // grain,) * 3).astype(np.uint64)
    coarse[rng.random(coarse.shape) < 0.02] = 0
    return np.kron(coarse, np.ones((grain,) * 3, np.uint64))


# Sides of the proposal's cubes, and how many ids they have: few large segments, many, very many tiny ones, and the
# worst case, an id drawn for each voxel.
GRAINS = {"few": (32, 500), "many": (8, 20_000), "tiny": (2, 2_000_000), "noise": (1, 10_000_000)}


def overlap_scores(rng: np.random.Generator, side: int, name: str, repeats: int) -> dict[str, float]:
    """Table, Rand and VI of a volume of side**3 voxels, against scikit-image and funlib's scorer in waterz."""
    grain, ids = GRAINS[name]
    proposal, truth = cells(rng, side, grain, ids), cells(rng, side, 32, 500)
    signed = truth.astype(np.int64), proposal.astype(np.int64)

    def ours() -> tuple[float, float, float]:
        table = contingency(proposal, truth)
        rand = adapted_rand_error(table, variant="skimage").error
        return rand, adapted_rand_error(table, variant="funlib").merge, variation_of_information(table).total

    def peer() -> tuple[float, float]:
        error, _, _ = skimage_rand(*signed, ignore_labels=(0,))
        return float(error), float(sum(skimage_information(*signed, ignore_labels=(0,))))

    def funlib() -> tuple[float, float]:
        found = waterz.evaluate(proposal, truth)
        return found["rand_merge"], found["voi_split"] + found["voi_merge"]

    skimage_error, funlib_merge, information = ours()
    np.testing.assert_allclose((skimage_error, information), peer(), atol=1e-9)
    works = [ours, peer, lambda: contingency(proposal, truth), lambda: (proposal.max(), truth.max())]
    if name in ("few", "many"):  # its maps take minutes for more ids
        np.testing.assert_allclose((funlib_merge, information), funlib(), atol=1e-9)
        works.append(funlib)
    mine, theirs, table, read, *third = alternate(repeats, *works)
    stem = f"{name}_{side}_cubed"
    figures = {f"rand_and_information_{stem}_s": mine, f"rand_and_information_{stem}_voxels_per_s": side**3 / mine}
    figures |= {f"rand_and_information_{stem}_speedup_over_skimage": theirs / mine}
    figures |= {f"rand_and_information_{stem}_speedup_over_funlib": one / mine for one in third}
    return figures | {f"table_{stem}_s": table, f"table_{stem}_over_reading_both_volumes": table / read}


def merge_curve(rng: np.random.Generator, repeats: int) -> dict[str, float]:
    """Every level of a merge tree in one pass, against cutting the table and scoring it at each level."""
    count = 20_000
    table = contingency(cells(rng, 256, 8, count), cells(rng, 256, 32, 500))
    u = np.arange(2, count)
    v = (rng.random(u.size) * (u - 1)).astype(np.int64) + 1  # a random tree
    score = rng.random(u.size)
    ids = np.arange(count)

    def at_level(threshold: float) -> float:
        root = ids.copy()
        kept = score >= threshold
        root[u[kept]] = v[kept]
        while not np.array_equal(root, root[root]):
            root = root[root]
        return rand_scores(table.merge_proposal(root)).f

    curve = merge_tree_curve(table, u, v, score)
    levels = np.linspace(1, curve.f.size - 1, 10).astype(int)
    again = [at_level(curve.threshold[k]) for k in levels]
    np.testing.assert_allclose(curve.f[levels], again, rtol=1e-9)
    mine, theirs = alternate(
        repeats, lambda: merge_tree_curve(table, u, v, score), lambda: [at_level(curve.threshold[k]) for k in levels]
    )
    per_level = theirs / levels.size
    return {
        "merge_curve_levels": curve.f.size,
        "merge_curve_all_levels_s": mine,
        "merge_curve_rescoring_one_level_s": per_level,
        "merge_curve_levels_per_s_over_rescoring": curve.f.size / mine * per_level,
    }


def pixel_errors(rng: np.random.Generator, repeats: int) -> dict[str, float]:
    """All thresholds of a stack of 20 sections of 1024 x 704 pixels, against NumPy one threshold at a time."""
    boundary_map = rng.random((20, 1024, 704), dtype=np.float32)
    truth = rng.random(boundary_map.shape) < 0.2

    def ours() -> float:
        return best_pixel_error(boundary_map, truth).error

    def one_by_one() -> list[float]:
        interior = np.float64(1) - boundary_map
        return [float(np.mean((interior < t) != truth)) for t in np.arange(0, 11) / 10]

    curve = boundary_curve(boundary_map, truth)
    np.testing.assert_allclose(curve.error[::10], one_by_one(), atol=1e-12)
    mine, theirs = alternate(repeats, ours, one_by_one)
    return {
        "pixel_error_101_thresholds_s": mine,
        "pixel_error_pixels_per_s": truth.size / mine,
        "pixel_error_101_thresholds_speedup_over_numpy_11_thresholds": theirs / mine,
    }


def main() -> None:
    """Run all and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller volumes, under three minutes on 2 cores")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    figures: dict[str, float] = {}
    for side in (128, 256) if options.quick else (128, 256, 512):
        for name in GRAINS:
            if (side, name) != (512, "noise"):  # would take 20 GB
                figures |= overlap_scores(rng, side, name, repeats=3)
    figures |= merge_curve(rng, repeats=3)
    figures |= pixel_errors(rng, repeats=3)
    for name, value in figures.items():
        print(f"{name:66s} {value:12.4g}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
