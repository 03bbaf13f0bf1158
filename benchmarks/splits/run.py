"""Where a split cuts: errors, not seconds, of ways to separate two clicked fragments of a wrongly merged segment.

    python benchmarks/splits/run.py [--quick] [--json FILE]

Synthetic tissue with perfect truth, its boundary map with smooth errors, segmented by mean affinity at a threshold that
merges too much. In every segment that holds several true objects two of these are drawn, and in each a voxel, whose
fragment is clicked. A click is right by the mean, over the two objects, of the share of their voxels inside the segment
that end on their side. Ours severs the weakest link of the maximum spanning forest; the peer is a minimum cut of the
affinities summed over contacts, by SciPy's maximum flow.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from neuropil.labels import contingency
from neuropil.segmentation.affinities import affinities_from_boundary_map
from neuropil.segmentation.agglomeration import agglomerate
from neuropil.segmentation.contacts import Contacts, region_contacts
from neuropil.segmentation.linkage import cut
from neuropil.segmentation.segment import segment_affinities
from neuropil.segmentation.splitting import FragmentGraph, split_off
from neuropil.synthetic import boundary_map_from_truth, make_tissue

CLICKS, LEAST = 6, 500  # pairs of clicks per segment; voxels of an object within it
THRESHOLDS = (0.45, 0.5)


def tissue(seed: int, shape: tuple[int, int, int]) -> tuple[NDArray[np.float32], NDArray[np.uint64]]:
    """Return affinities with smooth errors, and truth."""
    rng = np.random.default_rng(seed)
    made = make_tissue(shape, rng=rng, voxel_size=(8, 8, 8))
    boundary = boundary_map_from_truth(made.ids, rng=rng)
    holes = ndimage.gaussian_filter(rng.standard_normal(shape), 3)
    specks = np.abs(ndimage.gaussian_filter(rng.standard_normal(shape), 1.5))
    spoilt = (boundary * (0.62 + 0.2 * holes / holes.std()) + 1.2 * specks).clip(0, 1).astype(np.float32)
    return affinities_from_boundary_map(spoilt, per_section=False), made.ids


def minimum_cut(contacts: Contacts, fragments: NDArray[np.intp], a: int, b: int) -> set[int]:
    """Return what a minimum cut of summed affinities leaves with b."""
    within = np.isin(contacts.u, fragments) & np.isin(contacts.v, fragments)
    u, v = (np.searchsorted(fragments, end[within]) for end in (contacts.u, contacts.v))
    total = contacts.total[within]
    steps = np.maximum(1, np.rint(total * ((1 << 30) / max(total.sum(), 1e-9)))).astype(np.int32)
    size = (fragments.size,) * 2
    both = csr_array((np.concatenate([steps, steps]), (np.concatenate([u, v]), np.concatenate([v, u]))), shape=size)
    start, goal = np.searchsorted(fragments, [a, b])
    left = csr_array(both - maximum_flow(both, int(start), int(goal)).flow)
    left.eliminate_zeros()
    near = np.zeros(fragments.size, bool)
    near[breadth_first_order(left, start, return_predecessors=False)] = True
    return set(fragments[~near].tolist())


def clicks(seed: int, threshold: float, shape: tuple[int, int, int]) -> list[tuple[float, float]]:
    """Return how right ours and the peer are, for each pair of clicks."""
    links, truth = tissue(seed, shape)
    made = segment_affinities(links, high=0.97, size=40, dust=40)
    contacts = region_contacts(made.fragments, links)
    segments = cut(agglomerate(contacts, made.tree.size), threshold)
    graph = FragmentGraph(contacts.u, contacts.v, contacts.mean, segments)
    shared = np.zeros((made.tree.size + 1, int(truth.max()) + 1))
    table = contingency(made.fragments, truth)
    shared[table.proposal_ids[table.rows].astype(int), table.truth_ids[table.columns].astype(int)] = table.counts
    shared[:, 0] = shared[0] = 0
    rng, found = np.random.default_rng(seed), []
    for segment in range(1, int(segments.max()) + 1):
        fragments = np.flatnonzero(segments == segment)
        objects = np.flatnonzero(shared[fragments].sum(axis=0) >= LEAST)
        for _ in range(CLICKS if objects.size > 1 else 0):
            sides = rng.choice(objects, 2, replace=False)
            parts = [shared[fragments, side] / shared[fragments, side].sum() for side in sides]
            a, b = (int(rng.choice(fragments, p=part)) for part in parts)
            if a == b:  # one fragment holds both: no division can be right
                continue
            away = [set(split_off(graph, fragments, a, b)), minimum_cut(contacts, fragments, a, b)]
            gone = [np.isin(fragments, list(one)) for one in away]
            ours, theirs = ((parts[0][~one].sum() + parts[1][one].sum()) / 2 for one in gone)
            found.append((float(ours), float(theirs)))
    return found


def main() -> None:
    """Print a table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    shape, seeds = ((36, 160, 200), 2) if arguments.quick else ((48, 240, 300), 5)
    figures: dict[str, float] = {}
    print(f"{'threshold':>9} {'clicks':>6}   {'ours':>6} {'> 0.95':>6}   {'min cut':>7} {'> 0.95':>6}")
    for threshold in THRESHOLDS:
        right = np.array([pair for seed in range(seeds) for pair in clicks(seed, threshold, shape)]).reshape(-1, 2)
        mean, good = right.mean(axis=0), (right > 0.95).mean(axis=0)
        print(
            f"{threshold:9} {len(right):6}   {mean[0]:6.3f} {good[0]:6.2f}   {mean[1]:7.3f} {good[1]:6.2f}", flush=True
        )
        figures |= {f"ours_{threshold}": mean[0], f"minimum_cut_{threshold}": mean[1]}
        figures |= {f"ours_good_{threshold}": good[0], f"minimum_cut_good_{threshold}": good[1]}
    if arguments.json:
        arguments.json.write_text(json.dumps({key: float(value) for key, value in figures.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
