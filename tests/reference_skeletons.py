"""Slow, obvious twins of skeletons: distances to the surface by trying all voxels, geodesic distances by relaxation."""

from __future__ import annotations

import itertools
import math

import numpy as np

MOVES = [move for move in itertools.product((-1, 0, 1), repeat=3) if any(move)]


def surface_distances(labels, voxel_size):
    """Distance of each voxel to the nearest of another label; infinite if there is none."""
    found = np.full(labels.shape, math.inf)
    places = list(np.ndindex(labels.shape))
    for v in places:
        for w in places:
            if labels[v] != labels[w]:
                found[v] = min(found[v], math.dist(np.multiply(v, voxel_size), np.multiply(w, voxel_size)))
    return found


def way_lengths(mask, voxel_size, sources, costs):
    """Least sum of length * mean cost along 26-neighbours from sources (voxel -> start), relaxed until all rests."""
    found = {tuple(v): math.inf for v in np.argwhere(mask)} | dict(sources)
    changed = True
    while changed:
        changed = False
        for v in found:
            for move in MOVES:
                w = tuple(np.add(v, move))
                if w in found:
                    step = math.hypot(*np.multiply(move, voxel_size)) * (costs[v] + costs[w]) / 2
                    if found[v] + step < found[w]:
                        found[w], changed = found[v] + step, True
    return found


def lengths_after_ticks(edges, positions, threshold):
    """Total length after ticks are removed one at a time, the shortest in the whole graph first."""
    edges = {tuple(sorted(edge)) for edge in edges}
    while True:
        around = {}
        for u, v in edges:
            around.setdefault(u, []).append(v)
            around.setdefault(v, []).append(u)
        ticks = []
        for leaf in (v for v, others in around.items() if len(others) == 1):
            chain = [leaf, around[leaf][0]]
            while len(around[chain[-1]]) == 2:
                chain.append(next(v for v in around[chain[-1]] if v != chain[-2]))
            length = sum(math.dist(positions[a], positions[b]) for a, b in itertools.pairwise(chain))
            if len(around[chain[-1]]) > 2 and length < threshold:
                ticks.append((length, chain))
        if not ticks:
            return sum(math.dist(positions[u], positions[v]) for u, v in edges)
        edges -= {tuple(sorted(pair)) for pair in itertools.pairwise(min(ticks)[1])}
