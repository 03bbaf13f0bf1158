"""Lists of ids and of pairs of ids, which may be any uint64: found in each other, brought into groups."""

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


def find_ids(ids: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return where ids, ascending, (n,), has each of those wanted; n for those it has not.

    >>> find_ids(np.array([2, 5, 9], np.uint64), np.array([9, 3, 2, 10], np.uint64)).tolist()
    [2, 3, 0, 3]
    """
    at = np.searchsorted(ids, wanted)
    found = at < ids.size
    found[found] = ids[at[found]] == wanted[found]
    return np.where(found, at, ids.size)
