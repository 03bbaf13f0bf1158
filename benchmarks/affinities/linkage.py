"""How fragments are best joined by their strongest links: size-dependent linkage, single linkage, Felzenszwalb's rule.

    python benchmarks/affinities/linkage.py [--json FILE]

The curves of Rand merge and split scores that Zlateski and Seung (arXiv 1505.00249) compare: one point for each size,
for each threshold, and for each k. Affinities are a prediction of AC4 by the packaged model, as benchmarks/segmentation
makes and keeps it, fragments the same for all three. The model has learnt from these sections, so the numbers say
which rule is better, not how good a segmentation of new ones is. The data must be in NEUROPIL_DATA.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "segmentation"))
from volumes import prediction

from neuropil.geometry import Box
from neuropil.labels import apply_lookup, contingency
from neuropil.metrics.curves import merge_tree_curve
from neuropil.metrics.rand import rand_scores
from neuropil.segmentation.linkage import LinearSize, fragment_sizes, merge_tree, size_dependent_linkage
from neuropil.segmentation.region_graph import Edges, region_edges
from neuropil.segmentation.watershed import watershed
from neuropil.stages import convert
from neuropil.volume import exists, open_volume

LABELS = "runs/ac4_12nm.h5:labels"
PART = Box((40, 128, 128), (64, 384, 384))
SIZES = (10, 30, 100, 300, 1000, 3000, 10_000, 30_000)  # voxels at affinity 1
SCALES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)


def felzenszwalb(edges: Edges, sizes: np.ndarray, k: float) -> np.ndarray:
    """Join clusters a, b where 1 - w <= min(I(a) + k / |a|, I(b) + k / |b|), I the weakest 1 - w inside, best first.

    Source: Felzenszwalb and Huttenlocher, "Efficient graph-based image segmentation", IJCV 2004.
    """
    parents, voxels, inside = list(range(sizes.size)), sizes.tolist(), [0.0] * sizes.size

    def find(a: int) -> int:
        while parents[a] != a:
            parents[a] = parents[parents[a]]
            a = parents[a]
        return a

    for u, v, affinity in zip(edges.u.tolist(), edges.v.tolist(), edges.affinity.tolist()):
        a, b = find(u), find(v)
        if a != b and 1 - affinity <= min(inside[a] + k / voxels[a], inside[b] + k / voxels[b]):
            parents[b] = a
            voxels[a] += voxels[b]
            inside[a] = 1 - affinity
    return np.array([find(a) for a in range(sizes.size)], np.uint64)


def curves() -> dict[str, list[tuple[float, float, float]]]:
    """Return (parameter, merge, split) of each rule."""
    if not exists(LABELS):
        source = "data://snemi3d/ac4.h5:labels"
        convert.run(convert.Config(input=source, output=LABELS, kind="labels", resample=(30, 12, 12)))
    links = np.ascontiguousarray(prediction()[:, *PART.slices])
    with open_volume(LABELS) as volume:
        truth = volume.read(PART)
    fragments = watershed(links, low=0.05, high=0.99)
    edges, sizes = region_edges(fragments, links), fragment_sizes(fragments)

    def point(parameter: float, lookup: np.ndarray) -> tuple[float, float, float]:
        scores = rand_scores(contingency(apply_lookup(fragments, lookup), truth))
        return parameter, scores.merge, scores.split

    tree = merge_tree(edges, sizes.size - 1)
    single = merge_tree_curve(contingency(fragments, truth), tree.u, tree.v, tree.affinity)
    chosen = np.linspace(0, single.f.size - 1, 200).astype(int)
    return {
        "size-dependent": [point(k, size_dependent_linkage(edges, sizes, LinearSize(k))) for k in SIZES],
        "single linkage": [
            (float(single.threshold[i]), float(single.merge[i]), float(single.split[i])) for i in chosen
        ],
        "Felzenszwalb": [point(k, felzenszwalb(edges, sizes, k)) for k in SCALES],
    }


def harmonic(point: tuple[float, float, float]) -> float:
    """Rand F of a point: the harmonic mean of merge and split."""
    _, merge, split = point
    return 2 * merge * split / (merge + split)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the curves to FILE")
    options = parser.parse_args()
    found = curves()
    print(f"{'rule':16} {'best F':>7} {'at':>9} {'merge':>7} {'split':>7}   split where merge >= 0.9")
    for rule, points in found.items():
        parameter, merge, split = max(points, key=harmonic)
        pure = max((s for _, m, s in points if m >= 0.9), default=0.0)
        numbers = f"{harmonic((parameter, merge, split)):7.4f} {parameter:9.4g} {merge:7.4f} {split:7.4f}"
        print(f"{rule:16} {numbers}   {pure:.4f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
