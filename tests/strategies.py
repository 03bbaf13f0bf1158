"""Hypothesis strategies for small volumes: labels with huge ids, affinities with ties, read-only arrays."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))
#: Ids that break code which indexes by id, casts to signed or to float, or takes a great id for background.
ids = st.sampled_from([0, 1, 2, 3, 7, 2**32, 2**40 + 1, 2**53 + 1, 2**63, 2**64 - 1])


def read_only(array: np.ndarray) -> np.ndarray:
    """Return the array, closed for writing, so that code which changes its input fails."""
    array.flags.writeable = False
    return array


def labels(shape: tuple[int, ...] | st.SearchStrategy = shapes, elements: st.SearchStrategy = ids) -> st.SearchStrategy:
    """Volumes of uint64 labels, read-only."""
    return hnp.arrays(np.uint64, shape, elements=elements).map(read_only)


@st.composite
def cuts(draw: st.DrawFn, extent: int) -> list[int]:
    """Where an axis is cut into at most five blocks of any length, its ends included."""
    inner = draw(st.lists(st.integers(1, extent - 1), unique=True, max_size=4)) if extent > 1 else []
    return [0, *sorted(inner), extent]


@st.composite
def label_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two volumes of labels and a mask of the same shape."""
    shape = draw(shapes)
    return draw(labels(shape)), draw(labels(shape)), draw(hnp.arrays(np.bool_, shape))


@st.composite
def affinities(draw: st.DrawFn, levels: int = 4) -> np.ndarray:
    """Affinities (3, z, y, x), float32, of few levels (ties, plateaus) or of random values (none), read-only."""
    shape = (3, *draw(shapes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        return read_only((rng.integers(0, levels + 1, shape) / levels).astype(np.float32))
    return read_only(rng.random(shape, dtype=np.float32))


@st.composite
def graphs(draw: st.DrawFn, nodes: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Edges u, v of 1 ... n, their affinities with ties, and the sizes of background and nodes."""
    n = draw(st.integers(1, nodes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    m = draw(st.integers(0, 30))
    u, v = rng.integers(1, n + 1, (2, m))
    return u, v, (rng.integers(0, 11, m) / 10).astype(np.float32), rng.integers(0, 30, n + 1)
