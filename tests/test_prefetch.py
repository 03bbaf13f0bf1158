"""Prefetching changes nothing."""

from __future__ import annotations

import numpy as np
from numba import njit

from neuropil._kernels.prefetch import prefetch


@njit
def _sum(values, places):
    total = 0
    for i in range(places.size):
        prefetch(values, places[i])
    for i in range(places.size):
        total += values[places[i]]
    return total


def test_reads_are_the_same():
    values, places = np.arange(1000), np.random.default_rng(0).integers(0, 1000, 500)
    assert _sum(values, places) == places.sum()
    np.testing.assert_array_equal(values, np.arange(1000))
