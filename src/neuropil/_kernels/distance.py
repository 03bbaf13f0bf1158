"""Squared distance of every voxel of every label to the nearest voxel that is not of its label, in three passes.

Key insight: along one axis a label comes in runs, and nothing beyond the ends of a run can be nearer than these ends.
So each pass takes the lower envelope of parabolas (Felzenszwalb and Huttenlocher 2012, doi:10.4086/toc.2012.v008a019)
run by run, for all labels at once. The faces of the volume are no ends: what lies beyond them is not known.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def along_x(codes, squared, size):
    """Write the squared distance along x to the end of each run; infinite where a run has none."""
    for z in range(codes.shape[0]):
        for y in range(codes.shape[1]):
            _ends(codes[z, y], squared[z, y], size)


@njit(cache=True, nogil=True)
def along_y(codes, squared, size):
    """Lower the squared distances by what lies in the same column along y."""
    work = np.empty((3, codes.shape[1] + 1))
    for z in range(codes.shape[0]):
        for x in range(codes.shape[2]):
            _lower(codes[z, :, x], squared[z, :, x], size, work)


@njit(cache=True, nogil=True)
def along_z(codes, squared, size):
    """Lower the squared distances by what lies in the same column along z."""
    work = np.empty((3, codes.shape[0] + 1))
    for y in range(codes.shape[1]):
        for x in range(codes.shape[2]):
            _lower(codes[:, y, x], squared[:, y, x], size, work)


@njit(cache=True, nogil=True)
def _to_end(i, start, stop, length, size):
    """Return the squared distance of place i to the nearer end of its run."""
    least = np.inf
    if start > 0:
        least = float(i - start + 1)
    if stop < length and stop - i < least:
        least = float(stop - i)
    return (least * size) ** 2


@njit(cache=True, nogil=True)
def _run_end(codes, start):
    stop = start + 1
    while stop < codes.size and codes[stop] == codes[start]:
        stop += 1
    return stop


@njit(cache=True, nogil=True)
def _ends(codes, squared, size):
    start = 0
    while start < codes.size:
        stop = _run_end(codes, start)
        for i in range(start, stop):
            squared[i] = _to_end(i, start, stop, codes.size, size)
        start = stop


@njit(cache=True, nogil=True)
def _lower(codes, squared, size, work):
    start = 0
    while start < codes.size:
        stop = _run_end(codes, start)
        if codes[start] != 0:
            _envelope(squared[start:stop], size, work)
            for i in range(start, stop):
                squared[i] = min(squared[i], _to_end(i, start, stop, codes.size, size))
        start = stop


@njit(cache=True, nogil=True)
def _envelope(values, size, work):
    """Replace values by the least of (size * (i - j))**2 + values[j]; work has places, heights and crossings."""
    place, height, crossing = work[0], work[1], work[2]
    last = -1
    for j in range(values.size):
        if values[j] == np.inf:
            continue
        at = 0.0
        while last >= 0:
            # where the parabola of j goes below the last one kept
            at = (j + place[last]) / 2 + (values[j] - height[last]) / (2 * size * size * (j - place[last]))
            if at > crossing[last]:
                break
            last -= 1
        last += 1
        place[last], height[last] = j, values[j]
        crossing[last] = -np.inf if last == 0 else at
    if last < 0:
        return
    k = 0
    for i in range(values.size):
        while k < last and crossing[k + 1] < i:
            k += 1
        values[i] = (size * (i - place[k])) ** 2 + height[k]
