"""Mutex watershed with sets: every link in order of weight, every constraint between voxels."""

from __future__ import annotations

import itertools

import numpy as np
from reference_watershed import components


def mutex_watershed(affinities, offsets, attractive, top=1, strides=(1, 1, 1)):
    shape = affinities.shape[1:]
    index = np.arange(int(np.prod(shape))).reshape(shape)
    links = []
    for c, offset in enumerate(offsets):
        for v in itertools.product(*map(range, shape)):
            w = tuple(np.add(v, offset))
            if not all(0 <= i < n for i, n in zip(w, shape)):
                continue
            if c >= attractive and any(i % s for i, s in zip(v, strides)):
                continue
            a = affinities[(c, *v)]
            weight = a if c < attractive else type(a)(top) - a
            if weight > 0:
                links.append((-float(weight), c, int(index[v]), int(index[w])))
    cluster = {i: {i} for i in range(index.size)}
    forbidden = set()
    for _, c, v, w in sorted(links):
        one, other = cluster[v], cluster[w]
        if one is other:
            continue
        if c >= attractive:
            forbidden.add((v, w))
        elif not any((a in one and b in other) or (b in one and a in other) for a, b in forbidden):
            one |= other
            for i in other:
                cluster[i] = one
    pairs = [(i, j) for i in cluster for j in cluster[i]]
    return components(index.size, pairs, set(cluster)).reshape(shape)
