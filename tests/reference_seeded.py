"""Seeded watershed with sets: every link in order of affinity."""

from __future__ import annotations

import itertools

import numpy as np

OFFSETS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))


def links_of(affinities, per_section=False):
    """Return (affinity, channel, voxel, neighbour) of all links inside the volume."""
    found = []
    for c, v in itertools.product(range(1 if per_section else 0, 3), np.ndindex(affinities.shape[1:])):
        w = tuple(int(i) for i in np.add(v, OFFSETS[c]))
        if min(w) >= 0:
            found.append((float(affinities[(c, *v)]), c, v, w))
    return found


def seeded_watershed(affinities, seeds, low, per_section):
    """Return labels; low is in stored values."""
    clusters = {v: {v} for v in np.ndindex(seeds.shape)}
    seed = {v: {int(seeds[v])} - {0} for v in clusters}  # of the cluster that v stands for
    stands = {v: v for v in clusters}
    for a, _, v, w in sorted(links_of(affinities, per_section), key=lambda link: (-link[0], *link[1:])):
        one, other = stands[v], stands[w]
        if a <= low or one == other or (seed[one] and seed[other]):
            continue
        clusters[one] |= clusters.pop(other)
        seed[one] |= seed[other]
        for u in clusters[one]:
            stands[u] = one
    labels = np.zeros(seeds.shape, np.uint64)
    for one, voxels in clusters.items():
        for v in voxels:
            labels[v] = next(iter(seed[one]), 0)
    return labels


def strengths(affinities, seeds):
    """Return {id: strength of the best path from each voxel to that seed, 0 without one}, by repeated relaxation."""
    links, found = links_of(affinities), {}
    for i in set(seeds.ravel().tolist()) - {0}:
        strength = (seeds == i).astype(float) * 2
        before = None
        while not np.array_equal(before, strength):
            before = strength.copy()
            for a, _, v, w in links:
                strength[v] = max(strength[v], min(a, strength[w]))
                strength[w] = max(strength[w], min(a, strength[v]))
        found[i] = strength
    return found
