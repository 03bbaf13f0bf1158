"""Region graph and size-dependent single linkage, voxel by voxel and set by set."""

from __future__ import annotations

import numpy as np
from reference_watershed import components, grid_links


def region_edges(fragments, affinities):
    """Return {(u, v): greatest affinity} over the contacts of fragments u < v."""
    flat, best = fragments.ravel().tolist(), {}
    for v, w, a in grid_links(affinities):
        pair = tuple(sorted((flat[v], flat[w])))
        if pair[0] != pair[1] and pair[0] != 0 and a > 0:
            best[pair] = max(a, best.get(pair, 0))
    return best


def linkage(edges, sizes, limit):
    """Merge sets of nodes along (u, v, affinity) in the order given while the smaller is below limit(affinity)."""
    cluster = {i: {i} for i in range(1, len(sizes))}
    for u, v, a in edges:
        one, other = cluster[u], cluster[v]
        if one is not other and min(sum(sizes[i] for i in c) for c in (one, other)) < limit(a):
            one |= other
            for i in other:
                cluster[i] = one
    pairs = [(i, j) for i in cluster for j in cluster[i]]
    return components(len(sizes), pairs, set(cluster)).astype(np.uint64)
