"""Speed of watershed, edges, linkage, merge tree and contingency tables, beside their peers, in one run on one machine.

    python benchmarks/segmentation/run.py [--quick] [--json FILE]

Ours and the peer take turns, each figure is a median, a ratio above 1 means that ours is faster. waterz offers no
watershed alone: it is timed with and without building fragments, and the difference is its watershed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import scipy
import skimage
import waterz
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree
from skimage.metrics import contingency_table

from neuropil.labels import contingency, relabel
from neuropil.segmentation.components import connected_components
from neuropil.segmentation.linkage import ConstantSize, cut, fragment_sizes, merge_tree, size_dependent_linkage
from neuropil.segmentation.region_graph import region_edges
from neuropil.segmentation.watershed import watershed

LOW, HIGH = 0.1, 0.9


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep what compiled code prints from the terminal."""
    saved, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nowhere)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(repeats: int, *works: Callable[[], object]) -> list[float]:
    """Return the median seconds of each work, all taking turns; the first round only warms up."""
    rounds = [[seconds(work) for work in works] for _ in range(repeats + 1)][1:]
    return [statistics.median(column) for column in zip(*rounds)]


def affinities(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return affinities (3, n, n, n), float32, of independent or of smooth random values."""
    links = rng.random((3, n, n, n), dtype=np.float32)
    if kind == "random":
        return links
    links = np.stack([ndimage.gaussian_filter(channel, 3) for channel in links])
    return (links - links.min()) / np.ptp(links)


def peer(links: np.ndarray, fragments: np.ndarray | None = None) -> object:
    with silent():
        return next(waterz.agglomerate(links, [0], fragments=fragments, aff_threshold_low=LOW, aff_threshold_high=HIGH))


def measure_watershed(figures: dict[str, float], quick: bool, rng: np.random.Generator) -> None:
    repeats = 3 if quick else 5
    for kind in ("random", "smooth"):
        for n in (64, 128) if quick else (64, 128, 256):
            links = affinities(kind, n, rng)
            watershed(links, low=LOW, high=HIGH)  # warm
            took = statistics.median(seconds(lambda x=links: watershed(x, low=LOW, high=HIGH)) for _ in range(repeats))
            figures[f"watershed_mvox_per_s_{kind}_{n}"] = n**3 / took / 1e6
        n = 96 if quick else 128
        links = affinities(kind, n, rng)
        fragments = watershed(links, low=LOW, high=HIGH)
        ours, both, whole, rest = alternate(
            repeats,
            lambda x=links: watershed(x, low=LOW, high=HIGH),
            lambda x=links: region_edges(watershed(x, low=LOW, high=HIGH), x),
            lambda x=links: peer(x),
            lambda x=links, f=fragments: peer(x, f.copy()),
        )
        figures[f"watershed_vs_waterz_{kind}"] = max(whole - rest, 0.0) / ours
        figures[f"watershed_and_edges_vs_waterz_{kind}"] = whole / both
        same_ties = watershed(links, low=LOW, high=HIGH, tiebreak="waterz")
        figures[f"voxels_equal_to_waterz_{kind}"] = float(np.mean(same_ties == peer(links)))
    tracemalloc.start()
    watershed(links, low=LOW, high=HIGH)
    figures["watershed_peak_bytes_per_voxel"] = tracemalloc.get_traced_memory()[1] / n**3
    tracemalloc.stop()


def measure_linkage(figures: dict[str, float], quick: bool, rng: np.random.Generator) -> None:
    links = affinities("random", 96 if quick else 160, rng)
    fragments = watershed(links, low=LOW, high=HIGH)
    edges, sizes = region_edges(fragments, links), fragment_sizes(fragments)
    n = sizes.size - 1
    graph = coo_array((-edges.affinity, (edges.u.astype(int), edges.v.astype(int))), (n + 1, n + 1)).tocsr()
    rule = ConstantSize(256, 0.3)
    linkage, tree, peer_tree = alternate(
        3 if quick else 5,
        lambda: size_dependent_linkage(edges, sizes, rule),
        lambda: merge_tree(edges, n),
        lambda: minimum_spanning_tree(graph),
    )
    figures["linkage_million_edges_per_s"] = edges.u.size / linkage / 1e6
    figures["merge_tree_million_edges_per_s"] = edges.u.size / tree / 1e6
    figures["merge_tree_vs_scipy"] = peer_tree / tree  # scipy sorts the edges, ours come sorted


def measure_contingency(figures: dict[str, float], quick: bool, rng: np.random.Generator) -> None:
    n = 128 if quick else 256
    links = affinities("smooth", n, rng)
    fine = watershed(links, low=LOW, high=HIGH)  # basins of some ten voxels: the hard case
    tree = merge_tree(region_edges(fine, links), int(fine.max()))
    truth = np.kron(rng.integers(1, 2**32, (8, 8, 8)), np.ones((n // 8,) * 3, np.int64)).astype(np.uint64)
    neurites = np.roll(truth, (3, 5, 7), (0, 1, 2))  # objects of some thousand voxels, the usual case
    cases = {"fine": (fine, cut(tree, 0.6)[fine]), "coarse": (relabel(neurites).labels, relabel(truth).labels)}
    for name, (proposal, reference) in cases.items():
        ours, theirs = alternate(
            3 if quick else 5,
            lambda a=proposal, b=reference: contingency(a, b),
            lambda a=proposal, b=reference: contingency_table(b, a),
        )
        figures[f"contingency_mvox_per_s_{name}"] = n**3 / ours / 1e6
        figures[f"contingency_vs_skimage_{name}"] = theirs / ours
    proposal = fine
    figures["relabel_vs_numpy_unique"] = _relabel_ratio(proposal, quick)
    mask = links[2] > 0.5
    ours, theirs = alternate(
        3 if quick else 5,
        lambda: connected_components(mask, per_section=True),
        lambda: [ndimage.label(section) for section in mask],
    )
    figures["section_components_vs_scipy"] = theirs / ours


def _relabel_ratio(labels: np.ndarray, quick: bool) -> float:
    part = labels[: labels.shape[0] // 4]
    ours, theirs = alternate(3 if quick else 5, lambda: relabel(part), lambda: np.unique(part, return_inverse=True))
    return theirs / ours


def machine() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if (info.exists())
        else []
    )
    versions = f"numpy {np.__version__}, scipy {scipy.__version__}, skimage {skimage.__version__}"
    name = names[0] if names else platform.machine()
    return f"{name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller volumes, fewer repeats")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args()
    print(machine(), "; one thread")
    rng = np.random.default_rng(0)
    figures: dict[str, float] = {}
    for measure in (measure_watershed, measure_linkage, measure_contingency):
        measure(figures, options.quick, rng)
    for name, value in figures.items():
        print(f"{name:45s} {value:10.3f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
