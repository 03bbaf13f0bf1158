"""Lists of pairs of ids, in which a pair may occur several times, brought into groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def group_pairs(
    u: NDArray[np.uint64], v: NDArray[np.uint64], *within: NDArray[np.generic]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the order that sorts pairs by u, then v, then the keys `within`, and where in it each new pair starts.

    >>> order, starts = group_pairs(np.array([2, 1, 2]), np.array([3, 5, 3]))
    >>> order.tolist(), starts.tolist()
    ([1, 0, 2], [0, 1])
    """
    order = np.lexsort((*reversed(within), v, u))
    a, b = u[order], v[order]
    new = np.ones(order.size, np.bool_)
    new[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    return order, np.flatnonzero(new)
