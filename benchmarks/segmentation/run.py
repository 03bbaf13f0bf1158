"""Speed and memory of watershed, contacts, agglomeration, mutex watershed, linkage and contingency, beside their peers.

    python benchmarks/segmentation/run.py [--quick] [--json FILE] [--prediction] [--affinities FILE.npy]

Ours and the peer take turns in one run on the same affinities; each figure is a median of seconds of processor time, so
that other work on the machine counts less; a ratio above 1 means that ours is faster. All run in one thread, but where
a figure says 2: those are seconds by the clock and mean little on a busy machine, so `mean_tree_2_runs_at_once` says
what it has for two threads at all: how much more two runs side by side do than one, each in one thread.
`--prediction` adds to the synthetic affinities those that the packaged model `affinity-ssem` finds in AC4 (64 x 512 x
512 voxels of 30 x 12 x 12 nm, predicted once, which takes some ten minutes, and kept in runs/segmentation);
`--affinities` takes them from a file, (3, z, y, x) floats. waterz hands out fragments only together with the edges
between them: `watershed_vs_waterz` is the time until it does over ours until we do, `watershed_alone_vs_waterz` leaves
out what the same call takes when it is given the fragments.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import bioimage_cpp.segmentation
import mwatershed
import numpy as np
import scipy
import skimage
import waterz
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree
from skimage.metrics import contingency_table
from volumes import LONG, affinities, prediction, tissue

from neuropil.labels import apply_lookup, contingency, relabel
from neuropil.machine import keep_memory, release
from neuropil.metrics.information import variation_of_information
from neuropil.metrics.rand import adapted_rand_error
from neuropil.segmentation.agglomeration import agglomerate
from neuropil.segmentation.components import connected_components
from neuropil.segmentation.contacts import region_contacts
from neuropil.segmentation.linkage import (
    ConstantSize,
    MergeTree,
    cut,
    fragment_sizes,
    merge_tree,
    size_dependent_linkage,
)
from neuropil.segmentation.mutex import mutex_watershed
from neuropil.segmentation.region_graph import region_edges
from neuropil.segmentation.threads import run_threads
from neuropil.segmentation.watershed import watershed

LOW, HIGH = 0.1, 0.99
MEAN = "OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>"
QUANTILE = "OneMinus<HistogramQuantileAffinity<RegionGraphType, 75, ScoreValue, 256, false>>"

# What is to be reached: figure, bound, and whether that is the most it may be.
GOALS = (
    ("watershed_mvox_s", 40, False),
    ("watershed_vs_waterz", 20, False),
    ("mean_tree_vs_waterz", 8, False),
    ("watershed_2_threads", 1.6, False),
    ("mean_tree_2_threads", 1.6, False),
    ("bytes_per_voxel", 16, True),
    ("watershed_growth", 0.2, True),
    ("mean_tree_growth", 0.2, True),
)


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


def seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


def alternate(
    repeats: int, *works: Callable[[], object], clock: Callable[[], float] = time.process_time
) -> list[float]:
    """Return the median seconds of each work, all taking turns; the first round only warms up."""
    rounds = [[seconds(work, clock) for work in works] for _ in range(repeats + 1)][1:]
    return [statistics.median(column) for column in zip(*rounds)]


def peer(
    links: np.ndarray, threshold: float = 0.0, fragments: np.ndarray | None = None, score: str = MEAN
) -> np.ndarray:
    """Return what waterz makes of it; at threshold 0 the fragments."""
    options = {"aff_threshold_low": LOW, "aff_threshold_high": HIGH, "scoring_function": score}
    with silent():
        return next(waterz.agglomerate(links, [threshold], fragments=fragments, **options))


def fragment(links: np.ndarray, threads: int = 1) -> np.ndarray:
    return watershed(links, low=LOW, high=HIGH, threads=threads, dtype=np.uint32)


def whole_tree(links: np.ndarray, quantile: bool = False, threads: int = 1) -> tuple[np.ndarray, MergeTree]:
    """Return fragments and the whole merge tree of their agglomeration."""
    fragments = fragment(links, threads)
    size, score = int(fragments.max()), "quantile" if quantile else "mean"
    # Without a name for them, the contacts are gone before most memory is taken.
    contacts = partial(region_contacts, fragments, links, histograms=quantile, threads=threads)
    return fragments, agglomerate(contacts(), size, score=score, threads=threads)


def segment(links: np.ndarray) -> np.ndarray:
    fragments, tree = whole_tree(links)
    return apply_lookup(fragments, cut(tree, 0.5))


def resident(field: str) -> int:
    """Return VmRSS or VmHWM of this process, bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def measure_memory(figures: dict[str, float], name: str, links: np.ndarray) -> None:
    """Peak memory of affinities to segmentation, bytes per voxel beside the affinities, in this whole process."""
    if not Path("/proc/self/clear_refs").exists():
        return
    keep_memory(False)  # what the C library holds back for later is not needed
    small = links[:, :16, :16, :16].copy()
    works: dict[str, Callable[[np.ndarray], object]] = {
        "watershed_": fragment,
        "contacts_": lambda x: region_edges(fragment(x), x),
        "": segment,
    }
    for stage, work in works.items():
        work(small)
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        work(links)
        figures[f"{stage}bytes_per_voxel{name}"] = (resident("VmHWM") - before) / links[0].size


def measure_watershed(figures: dict[str, float], name: str, links: np.ndarray, repeats: int) -> None:
    voxels = links[0].size
    fragments = fragment(links)
    assert np.array_equal(fragments, fragment(links, 2))
    ours, both, whole, rest = alternate(
        repeats,
        lambda: fragment(links),
        lambda: region_edges(fragment(links), links),
        lambda: peer(links),
        lambda: peer(links, fragments=fragments.astype(np.uint64)),
    )
    figures[f"watershed_mvox_s{name}"] = voxels / ours / 1e6
    figures[f"watershed_vs_waterz{name}"] = whole / ours
    figures[f"watershed_alone_vs_waterz{name}"] = max(whole - rest, 0.0) / ours
    figures[f"watershed_and_edges_vs_waterz{name}"] = whole / both
    # The system may take half a second, several rounds here, until it gives a thread a core of its own.
    one, two = alternate(9, lambda: fragment(links), lambda: fragment(links, 2), clock=time.perf_counter)
    figures[f"watershed_2_threads{name}"] = one / two
    figures[f"voxels_per_fragment{name}"] = voxels / int(fragments.max())
    same_ties = watershed(links, low=LOW, high=HIGH, tiebreak="waterz")
    figures[f"voxels_equal_to_waterz{name}"] = float(np.mean(same_ties == peer(links)))
    stored = np.round(links * 255).astype(np.uint8)
    figures[f"watershed_mvox_s_uint8{name}"] = voxels / alternate(repeats, lambda: fragment(stored))[0] / 1e6


def measure_trees(figures: dict[str, float], name: str, links: np.ndarray, repeats: int, quantile: bool) -> None:
    kind, score = ("quantile", QUANTILE) if quantile else ("mean", MEAN)
    fragments, tree = whole_tree(links, quantile)
    ours, theirs = alternate(repeats, lambda: whole_tree(links, quantile), lambda: peer(links, 1.0, None, score))
    figures[f"{kind}_tree_vs_waterz{name}"] = theirs / ours
    figures[f"{kind}_tree_mvox_s{name}"] = links[0].size / ours / 1e6
    merged = contingency(apply_lookup(fragments, cut(tree, 0.5)), peer(links, 0.5, None, score))
    figures[f"{kind}_cut_vi_to_waterz{name}"] = variation_of_information(merged).total
    if not quantile:
        one, two = alternate(
            max(repeats, 3),
            lambda: region_contacts(fragments, links),
            lambda: region_contacts(fragments, links, threads=2),
            clock=time.perf_counter,
        )
        figures[f"contacts_2_threads{name}"] = one / two
        one, two, both = alternate(
            max(repeats, 5),
            lambda: whole_tree(links),
            lambda: whole_tree(links, threads=2),
            lambda: run_threads(whole_tree, [(links,), (links,)]),
            clock=time.perf_counter,
        )
        figures[f"mean_tree_2_threads{name}"] = one / two
        figures[f"mean_tree_2_runs_at_once{name}"] = 2 * one / both  # what this machine has for two threads at all


def measure_growth(figures: dict[str, float], quick: bool, rng: np.random.Generator) -> None:
    """Rates of independent and smooth values; how much more a voxel costs at most than in blocks of 64 cubed.

    Memory is kept from round to round, in large volumes as in small ones: how fast a system hands it out, which on
    virtual machines differs by ten, is not asked here.
    """
    for kind in ("random", "smooth"):
        links = affinities(kind, 128, rng)
        took, theirs = alternate(3, lambda x=links: fragment(x), lambda x=links: peer(x))
        figures[f"watershed_vs_waterz_{kind}_128"] = theirs / took
        if kind == "random":  # smooth values follow
            figures["watershed_mvox_s_random_128"] = links[0].size / took / 1e6
    for kind in ("tissue", "smooth"):
        large = affinities(kind, 256 if quick else 512, rng)
        costs: dict[str, list[float]] = {"watershed": [], "mean_tree": []}
        keep_memory(True)
        for n in (64, 128, 256) if quick else (64, 128, 256, 512):
            cuts = pieces(large, n)
            voxels = len(cuts) * n**3
            for (name, cost), work in zip(costs.items(), (fragment, whole_tree)):
                took = alternate(2 if quick else 3, lambda f=work, x=cuts: [f(links) for links in x])[0]
                cost.append(took / voxels)
                figures[f"{name}_mvox_s_{kind}_{n}"] = 1e-6 / cost[-1]
        keep_memory(False)
        release()
        for name, cost in costs.items():
            figures[f"{name}_growth_{kind}"] = max(cost) / cost[0] - 1


def pieces(links: np.ndarray, n: int) -> list[np.ndarray]:
    """Return blocks of n cubed voxels of a volume, some 30 from all over it where there are more."""
    starts = list(itertools.product(range(0, links.shape[1], n), repeat=3))
    chosen = starts[:: len(starts) // 32 | 1]
    return [links[:, z : z + n, y : y + n, x : x + n].copy() for z, y, x in chosen]


def measure_mutex(figures: dict[str, float], quick: bool, rng: np.random.Generator) -> None:
    links = tissue(64 if quick else 128, LONG, rng)
    strengths = links.copy()
    strengths[3:] = 1 - strengths[3:]
    signed = strengths.astype(np.float64)
    signed[3:] *= -1
    ours, theirs, others = alternate(
        1 if quick else 2,
        lambda: mutex_watershed(links, LONG),
        lambda: mwatershed.agglom(signed, LONG),
        lambda: bioimage_cpp.segmentation.mutex_watershed(strengths, LONG, 3),
    )
    figures["mutex_mvox_s"] = links[0].size / ours / 1e6
    figures["mutex_vs_mwatershed"] = theirs / ours
    figures["mutex_vs_bioimage_cpp"] = others / ours
    table = contingency(mutex_watershed(links, LONG), bioimage_cpp.segmentation.mutex_watershed(strengths, LONG, 3))
    figures["mutex_vi_to_bioimage_cpp"] = variation_of_information(table).total


def measure_scores(figures: dict[str, float], rng: np.random.Generator) -> None:
    """Rand and VI of 512 cubed voxels, cells of 8 against cells of 32."""
    proposal = np.kron(rng.integers(1, 20_000, (64, 64, 64), dtype=np.uint64), np.ones((8, 8, 8), np.uint64))
    truth = np.kron(rng.integers(0, 500, (16, 16, 16), dtype=np.uint64), np.ones((32, 32, 32), np.uint64))

    def work() -> None:
        table = contingency(proposal, truth)
        adapted_rand_error(table)
        variation_of_information(table)

    figures["rand_vi_512_s"] = alternate(1, work)[0]


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


def verdicts(figures: dict[str, float], volumes: dict[str, str]) -> Iterator[str]:
    """Say on which volumes the goals of speed, ratios to waterz, and of memory, threads and growth hold."""
    for figure, goal, most in GOALS:
        for name, volume in volumes.items():
            value = figures.get(figure + name)
            if value is not None:
                holds = value <= goal if most else value >= goal
                bound = f"{figure} {'<=' if most else '>='} {goal}"
                yield f"{'holds ' if holds else 'MISSED'} {bound}: {value:.2f} on {volume}"


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
    parser.add_argument("--prediction", action="store_true", help="measure with a prediction of AC4, too")
    parser.add_argument("--affinities", type=Path, metavar="FILE", help="a prediction to measure with, too (.npy)")
    options = parser.parse_args()
    print(machine(), "; one thread, unless the figure says 2")
    rng = np.random.default_rng(0)
    figures: dict[str, float] = {}
    quick = options.quick
    links = affinities("tissue", 192 if quick else 256, rng)
    cases, volumes = {"": links}, {"": "synthetic tissue"}
    if options.prediction:
        cases["_em"], volumes["_em"] = prediction(), "AC4, predicted"
    if options.affinities:
        cases["_given"], volumes["_given"] = np.load(options.affinities).astype(np.float32), options.affinities.name
    volumes = {name: f"{title} {'x'.join(map(str, cases[name].shape[1:]))}" for name, title in volumes.items()}
    for name, given in cases.items():
        measure_memory(figures, name, given)
        measure_watershed(figures, name, given, 2 if quick else 3)
        measure_trees(figures, name, given, 1 if quick else 2, quantile=False)
        measure_trees(figures, name, given[:, :128, :128, :128].copy(), 1, quantile=True)
    del links, cases
    measure_mutex(figures, quick, rng)
    measure_scores(figures, rng)
    for measure in (measure_growth, measure_linkage, measure_contingency):
        measure(figures, quick, rng)
    volumes["_smooth_128"], volumes["_random_128"] = "smooth values 128x128x128", "independent values 128x128x128"
    volumes["_tissue"], volumes["_smooth"] = "blocks of synthetic tissue", "blocks of smooth values"
    for name, value in figures.items():
        print(f"{name:45s} {value:10.3f}")
    print(*verdicts(figures, volumes), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
