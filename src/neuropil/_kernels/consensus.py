"""Consensus of segmentations: atoms move between clusters, one at a time, as long as agreement grows.

`crowd.annotations` explains the rule. graph = (ids, starts, members): `ids[a, k]` is the object of annotator k that
atom a lies in, numbered over all annotators, -1 for none; members[starts[o] : starts[o + 1]] are the atoms of object o.
state = (clusters, voxels): cluster of each atom, and voxels of each cluster on which each annotator has an opinion.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _agreements(a, graph, sizes, weights, clusters, value, touched):
    """Add up, per cluster, the weighted voxels that lie in an object of atom a; list the clusters; return how many."""
    ids, starts, members = graph
    n = 0
    for k in range(weights.size):
        o = ids[a, k]
        if o < 0:
            continue
        for p in range(starts[o], starts[o + 1]):
            b = members[p]
            c = clusters[b]
            if b == a or c < 0:
                continue
            if value[c] == 0.0:
                touched[n] = c
                n += 1
            value[c] += weights[k] * sizes[b]
    return n


@njit(cache=True, nogil=True)
def _opinions(a, cluster, ids, weights, voxels):
    """Return the weighted voxels of a cluster on which annotators have an opinion who have one on atom a."""
    total = 0.0
    for k in range(weights.size):
        if ids[a, k] >= 0:
            total += weights[k] * voxels[cluster, k]
    return total


@njit(cache=True, nogil=True)
def _add(a, cluster, sign, ids, sizes, voxels):
    for k in range(ids.shape[1]):
        if ids[a, k] >= 0:
            voxels[cluster, k] += sign * sizes[a]


@njit(cache=True, nogil=True)
def sweep(order, graph, sizes, weights, state):
    """Move each atom to the cluster it agrees with most, or into one of its own; return the number of moves."""
    clusters, voxels = state
    ids = graph[0]
    value = np.zeros(clusters.size)
    touched = np.empty(clusters.size, np.int64)
    filled = np.zeros(clusters.size, np.int64)
    for c in clusters:
        filled[c] += 1
    free = np.empty(clusters.size, np.int64)
    n_free = 0
    for c in range(clusters.size):
        if filled[c] == 0:
            free[n_free] = c
            n_free += 1
    moves = 0
    for a in order:
        here = clusters[a]
        n = _agreements(a, graph, sizes, weights, clusters, value, touched)
        _add(a, here, -1.0, ids, sizes, voxels)
        best = -1
        highest = 0.0
        if value[here] > 0.0:
            highest = max(0.0, 2.0 * value[here] - _opinions(a, here, ids, weights, voxels))
            best = here if highest > 0.0 else -1
        for p in range(n):
            c = touched[p]
            gain = 2.0 * value[c] - _opinions(a, c, ids, weights, voxels)
            if gain > highest * (1.0 + 1e-12) + 1e-9:
                best = c
                highest = gain
            value[c] = 0.0
        if best < 0:
            best = here
            if filled[here] > 1:
                n_free -= 1
                best = free[n_free]
        if best != here:
            moves += 1
            filled[here] -= 1
            if filled[here] == 0:
                free[n_free] = here
                n_free += 1
            filled[best] += 1
            clusters[a] = best
        _add(a, best, 1.0, ids, sizes, voxels)
    return moves


@njit(cache=True, nogil=True)
def settle(atoms, graph, sizes, weights, state):
    """Put atoms, whose cluster is -1, where the share of agreement is greatest; -1 stays where there is none."""
    clusters, voxels = state
    value = np.zeros(clusters.size)
    touched = np.empty(clusters.size, np.int64)
    found = np.full(atoms.size, -1)
    for i in range(atoms.size):
        a = atoms[i]
        n = _agreements(a, graph, sizes, weights, clusters, value, touched)
        highest = 0.0
        for p in range(n):
            c = touched[p]
            share = value[c] / _opinions(a, c, graph[0], weights, voxels)
            if share > highest * (1.0 + 1e-12):
                found[i] = c
                highest = share
            value[c] = 0.0
    return found
