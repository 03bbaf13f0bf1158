"""Lists of ids and of pairs of ids, which may be any uint64: found in each other, sorted, brought into groups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil._kernels import ids as _kernel
from neuropil.labels import frozen


def order_of_pairs(u: NDArray[np.uint64], v: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the order that sorts pairs by u, then v, equal ones in the order they have.

    Ids that fit 32 bits share one number, which sorts far faster, and the faster the more of it is sorted already.

    >>> order_of_pairs(np.array([2, 1, 2], np.uint64), np.array([3, 5, 2], np.uint64)).tolist()
    [1, 2, 0]
    """
    if max(u.max(initial=0), v.max(initial=0)) >> 32:
        return np.lexsort((v, u))
    return np.argsort((u.astype(np.uint64) << np.uint64(32)) | v.astype(np.uint64), kind="stable")


def group_pairs(
    u: NDArray[np.uint64], v: NDArray[np.uint64], *within: NDArray[np.generic]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the order that sorts pairs by u, then v, then the keys `within`, and where in it each new pair starts.

    >>> order, starts = group_pairs(np.array([2, 1, 2]), np.array([3, 5, 3]))
    >>> order.tolist(), starts.tolist()
    ([1, 0, 2], [0, 1])
    """
    order = np.lexsort((*reversed(within), v, u)) if within else order_of_pairs(u, v)
    a, b = u[order], v[order]
    new = np.ones(order.size, np.bool_)
    new[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    return order, np.flatnonzero(new)


def falling(score: NDArray[np.float32]) -> NDArray[np.intp]:
    """Sort by falling score, equal ones in the order they have: bits of a float and a position in one number.

    >>> falling(np.array([0.25, 0.5, 0.25, 1], np.float32)).tolist()
    [3, 1, 0, 2]
    """
    bits = (score + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
    rising = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    keys = np.sort(((np.uint64(0xFFFFFFFF) - rising) << np.uint64(32)) | np.arange(score.size, dtype=np.uint64))
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.intp)


def find_ids(ids: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return where ids, ascending, (n,), has each of those wanted, (m,); n for those it has not.

    Those wanted may have any order; the nearer each is to the one before, the faster.

    >>> find_ids(np.array([2, 5, 9], np.uint64), np.array([9, 3, 2, 10], np.uint64)).tolist()
    [2, 3, 0, 3]
    """
    at = np.empty(wanted.size, np.intp)
    _kernel.find_ids(frozen(np.asarray(ids)), frozen(np.ascontiguousarray(wanted)), at)
    return at


def stacked(rows: Iterable[Iterable[NDArray[Any]]]) -> list[NDArray[Any]]:
    """Put the arrays of each column one behind the other, and let go of a column when that is done.

    So rows that come from a generator are never there twice.

    >>> [column.tolist() for column in stacked(([np.arange(n), np.ones(n)] for n in (1, 2)))]
    [[0, 0, 1], [1.0, 1.0, 1.0]]
    """
    columns = [list(column) for column in zip(*rows, strict=True)]
    whole = []
    while columns:
        whole.append(np.concatenate(columns.pop(0)))
    return whole
