"""Histogram of interior probability, apart for true boundary and true interior; called by `metrics.pixel_error`."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def count_by_edge(boundary_map, scale, truth_boundary, mask, edges, first_edge):
    """Count pixels by how many `edges` lie at or below their interior probability 1 - scale * boundary_map.

    All arrays are flat; an empty `mask` means every pixel. `first_edge[c]` is the number of edges at or below
    c / (len(first_edge) - 1): where the scan for a pixel of that cell starts. Returns counts (2, edges + 1); row 1 is
    true boundary.
    """
    counts = np.zeros((2, edges.size + 1), np.int64)
    cells = first_edge.size - 1
    masked = mask.size > 0
    for i in range(boundary_map.size):
        if masked and not mask[i]:
            continue
        interior = 1.0 - boundary_map[i] * scale
        k = first_edge[int(interior * cells)]
        while k < edges.size and edges[k] <= interior:
            k += 1
        counts[1 if truth_boundary[i] else 0, k] += 1
    return counts
