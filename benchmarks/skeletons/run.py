"""Speed of skeletons and of run length, beside other programs, in one run on one machine.

    python benchmarks/skeletons/run.py [--quick] [--json FILE]

Skeletons are made of true labels: of FIB-25 and of AC4 (NEUROPIL_DATA), and of synthetic tissue where these are not
found. Peers are bioimage-cpp and, where it is installed, kimimaro; all get the same parameters and one thread. They
take turns; seconds are medians of processor time, a ratio above 1 means ours is faster. TEASAR leaves choices open, so
answers are not equal; lengths of all skeletons stand beside the times and must agree within a fifth.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bioimage_cpp.skeleton
import numpy as np
from numpy.typing import NDArray

from neuropil.errors import VolumeNotFound
from neuropil.geometry import Box
from neuropil.metrics.run_length import run_length
from neuropil.metrics.run_length_errors import run_length_errors
from neuropil.skeletons.teasar import skeletonize
from neuropil.synthetic import make_tissue
from neuropil.volume import open_volume

SCALE, CONSTANT_NM, DUST = 1.5, 300.0, 100
CROPS = {
    "fib25": ("data://fib25/fib25_sample2_z000-179.h5:neuron_ids", (10.0, 10.0, 10.0), (180, 250, 250), (90, 200, 200)),
    "ac4": ("data://snemi3d/ac4.h5:labels", (30.0, 6.0, 6.0), (50, 512, 512), (20, 256, 256)),
}


def seconds(work: Callable[[], object]) -> float:
    """Return how much processor time `work` takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def crops(quick: bool) -> Iterator[tuple[str, NDArray[np.uint32], tuple[float, float, float]]]:
    """Yield name, labels without single voxels' worth of dust, and voxel size."""
    found = False
    for name, (uri, size, whole, small) in CROPS.items():
        try:
            with open_volume(uri) as volume:
                labels = volume.read(Box.of_shape(small if quick else whole)).astype(np.uint32)
        except VolumeNotFound:
            continue
        found = True
        yield name, labels, size
    if not found:
        shape = (40, 160, 160) if quick else (80, 256, 256)
        tissue = make_tissue(shape, rng=np.random.default_rng(0), voxel_size=(40.0, 10.0, 10.0))
        yield "synthetic", tissue.ids.astype(np.uint32), (40.0, 10.0, 10.0)


def makers(labels: NDArray[np.uint32], size: tuple[float, float, float]) -> dict[str, Callable[[], float]]:
    """Return functions that skeletonize and give the length of all skeletons, nm."""

    def ours() -> float:
        found = skeletonize(labels, size, scale=SCALE, constant_nm=CONSTANT_NM, dust=DUST)
        return sum(one.length_nm for one in found.values())

    def bioimage() -> float:
        found = bioimage_cpp.skeleton.teasar_labels(
            labels, spacing=size, scale=SCALE, constant=CONSTANT_NM, invalidation="ball"
        )
        return float(
            sum(
                np.linalg.norm(np.diff(v[e.astype(np.int64)], axis=1)[:, 0], axis=1).sum() for v, e, _ in found.values()
            )
        )

    def kimimaro() -> float:
        import kimimaro as peer

        options = {"scale": SCALE, "const": CONSTANT_NM, "pdrf_scale": 1e5, "pdrf_exponent": 4}
        options |= {"soma_detection_threshold": 1e9, "soma_acceptance_threshold": 1e9}
        found = peer.skeletonize(
            labels, options, dust_threshold=DUST, anisotropy=size, progress=False, parallel=1, fix_borders=False
        )
        return float(sum(one.cable_length() for one in found.values()))

    made = {"ours": ours, "bioimage_cpp": bioimage}
    return made | ({"kimimaro": kimimaro} if importlib.util.find_spec("kimimaro") else {})


def skeletons(quick: bool, repeats: int) -> dict[str, float]:
    """Skeletonization of each crop by each program."""
    figures: dict[str, float] = {}
    for name, labels, size in crops(quick):
        programs = makers(labels, size)
        lengths = {program: make() for program, make in programs.items()}
        for program, length in lengths.items():
            if program != "bioimage_cpp":  # it has no dust threshold
                np.testing.assert_allclose(length, lengths["ours"], rtol=0.2)
        turns = [[seconds(make) for make in programs.values()] for _ in range(repeats)]
        times = dict(zip(programs, (statistics.median(column) for column in zip(*turns))))
        figures[f"skeletons_{name}_voxels_per_s"] = np.count_nonzero(labels) / times["ours"]
        for program, length in lengths.items():
            figures[f"skeletons_{name}_length_um_{program}"] = length / 1000
            if program != "ours":
                figures[f"skeletons_{name}_speedup_over_{program}"] = times[program] / times["ours"]
    return figures


def run_lengths(repeats: int) -> dict[str, float]:
    """ERL of 10**6 nodes with 5,000 skeletons and 20,000 segments of huge ids, and the list of all errors."""
    rng, n = np.random.default_rng(0), 10**6
    owner = np.sort(rng.integers(0, 5000, n))
    inside = np.flatnonzero(owner[1:] == owner[:-1])
    positions = np.cumsum(rng.normal(0, 30, (n, 3)), axis=0)
    segments = (owner * 4 + rng.integers(0, 4, n)).astype(np.uint64) * np.uint64(2**41)
    segments[rng.random(n) < 0.01] = 2**63  # one segment touches nearly all skeletons
    nodes = positions, np.stack([inside, inside + 1], axis=1), owner, segments
    result = run_length(*nodes, merge_threshold=50)
    score = statistics.median(seconds(lambda: run_length(*nodes, merge_threshold=50)) for _ in range(repeats))
    errors = statistics.median(seconds(lambda: run_length_errors(*nodes, result)) for _ in range(repeats))
    return {"erl_million_nodes_s": score, "erl_million_nodes_errors_s": errors, "erl_nodes_per_s": n / score}


def main() -> None:
    """Run all and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller crops, under three minutes on 2 cores")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    figures = run_lengths(3) | skeletons(options.quick, 1 if options.quick else 3)
    for name, value in figures.items():
        print(f"{name:60s} {value:12.4g}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
