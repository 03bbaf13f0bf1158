"""Merging of clusters, best pair first: what the kernels work on is made, and enlarged, here.

Clusters that are each other's best merge first, in order of place. The rest goes by score, one range after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuropil._kernels import agglomeration as _kernel
from neuropil._kernels import clusters as _clusters

_FEW = 512  # contacts of a cluster that is not yet left to the queue
_RANGE = 1 << 16  # entries of a range of scores
_HALVES = 8  # room for half-edges per edge, to begin with; what is not used takes no memory
_SPARE = 1024  # room of other arrays, to begin with


class Merged(NamedTuple):
    """Merges in any order, and what is left.

    Attributes
    ----------
    u, v
        uint64 (m,), the smallest fragments of the two clusters, u < v.
    entry
        uint64 (m,): rises from the best merge to the worst; see `scores_of`.
    smallest
        uint32 (n + 1,), the smallest fragment of each cluster. Edges that are left are rows whose ends are not 0.
    """

    u: NDArray[np.uint64]
    v: NDArray[np.uint64]
    entry: NDArray[np.uint64]
    smallest: NDArray[np.uint32]


def edge_rows(
    u: NDArray[np.integer[Any]], v: NDArray[np.integer[Any]], total: NDArray[Any], count: NDArray[Any]
) -> NDArray[np.float64]:
    """Return edges as kernels want them, (n, 4): sum, number, room for the entry, and both ends, 4 bytes each.

    None crosses a line of the cache.
    """
    raw = np.empty(4 * u.size + 3)
    shift = -raw.ctypes.data % 32 // 8
    rows = raw[shift : shift + 4 * u.size].reshape(-1, 4)
    rows[:, 0], rows[:, 1] = total, count
    ends = rows.view(np.uint32)
    ends[:, 6], ends[:, 7] = u, v
    return rows


def scores_of(entry: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return the scores of entries."""
    return (np.uint64(0xFFFFFFFF) - (entry >> np.uint64(32))).astype(np.uint32).view(np.float32)


def merge_rows(
    rows: NDArray[np.float64], histograms: tuple[Any, ...], least: float, frozen: NDArray[np.bool_]
) -> Merged:
    """Merge all clusters whose score is at least `least`, but for those that are frozen; changes all that is given.

    rows are those of `edge_rows`, histograms what the kernel `entry_of` takes. frozen has a place for each cluster.
    """
    flat = rows.reshape(-1)
    graph = flat, flat.view(np.uint64), flat.view(np.uint32), histograms
    size = frozen.size
    nodes = np.empty(4 * size, np.uint32)
    nodes[_clusters.SMALLEST :: 4] = np.arange(size)
    pool = np.empty(_HALVES * (flat.size // 4), np.int32)
    out = tuple(np.empty(min(flat.size // 4, size), np.uint64) for _ in range(3))
    work = _Work(graph, nodes, pool, np.float32(least), out)
    work.merge_near(frozen)
    work.merge_queued(frozen)
    u, v, entry = (field[: work.state[_kernel.MERGES]] for field in out)
    return Merged(u, v, entry, nodes[_clusters.SMALLEST :: 4])


@dataclass
class _Work:
    """Arrays of the kernels, of which some grow."""

    graph: tuple[Any, ...]
    nodes: NDArray[np.uint32]
    pool: NDArray[np.int32]
    least: np.float32
    out: tuple[NDArray[np.uint64], ...]

    def __post_init__(self) -> None:
        self.state = np.zeros(9, np.int64)
        self.heap, self.later = np.empty(_SPARE, np.uint64), np.empty(_SPARE, np.uint64)
        self.scratch = _scratch(max(_FEW, _SPARE))
        self.table = np.empty(0, np.uint64)

    def merge_near(self, frozen: NDArray[np.bool_]) -> None:
        """Merge clusters of few edges that are each other's best, in order of place."""
        firsts = np.empty(frozen.size, np.uint64)
        marks = np.full(frozen.size, -1, np.int32)
        _clusters.write_entries(self.graph, firsts)
        self.state[_kernel.USED] = _clusters.write_lists(self.graph[2], self.nodes, self.pool)
        self.state[_kernel.NODE] = 1
        while not _kernel.merge_near(
            self.least,
            _FEW,
            frozen,
            self.graph,
            (self.nodes, self.pool, firsts, marks),
            self.state,
            self.scratch,
            self.out,
        ):
            self.pool = _longer(self.pool, 3 * _FEW)

    def merge_queued(self, frozen: NDArray[np.bool_]) -> None:
        """Merge what is left by score."""
        order = np.empty(self.graph[0].size // 4, np.uint64)
        order = order[: _kernel.collect(self.graph, order)]
        order.sort()
        self.table = np.empty(2 * order.size + _SPARE, np.uint64)
        self.state[_kernel.PAIRS] = _kernel.fill(self.table, self.graph[2])
        self.state[_kernel.USED] = _clusters.write_lists(self.graph[2], self.nodes, self.pool)
        for first in range(0, order.size, _RANGE):
            last = first + _RANGE
            bound = order[last] if last < order.size else np.uint64(_clusters.NEVER)
            self._merge_range(order[first:last], bound, frozen)

    def _merge_range(self, order: NDArray[np.uint64], bound: np.uint64, frozen: NDArray[np.bool_]) -> None:
        """Merge pairs up to a bound, those included that were put back for later."""
        waiting = self.later[: self.state[_kernel.LATER]]
        now = waiting < bound
        order = np.concatenate((order, waiting[now]))
        order.sort()
        kept = waiting[~now]
        self.later[: kept.size] = kept
        self.state[_kernel.LATER], self.state[_kernel.HEAD] = kept.size, 0
        while not _kernel.merge_queued(
            order,
            bound,
            self.least,
            frozen,
            self.graph,
            (self.nodes, self.pool),
            (self.table, self.heap, self.later),
            self.state,
            self.scratch,
            self.out,
        ):
            self._enlarge(int(self.state[_kernel.SHORT]), int(self.state[_kernel.NEED]))

    def _enlarge(self, short: int, need: int) -> None:
        """Make room where a kernel was short of it."""
        if short == _kernel.POOL:
            self.pool = _longer(self.pool, need)
        elif short == _kernel.TABLE:
            pairs = _kernel.fill(self.table, self.graph[2])  # without what is gone
            if 3 * (pairs + need) > 2 * self.table.size:
                self.table = np.empty(2 * (pairs + need), np.uint64)
                _kernel.fill(self.table, self.graph[2])
            self.state[_kernel.PAIRS] = pairs
        elif short == _kernel.QUEUE:
            self.heap, self.later = _longer(self.heap, need), _longer(self.later, need)
        else:
            self.scratch = _scratch(2 * need)


def _scratch(size: int) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint64]]:
    return np.empty(size, np.uint64), np.empty(size, np.int64), np.empty(size, np.uint64)


def _longer(array: NDArray[Any], more: int) -> NDArray[Any]:
    """Return an array with at least `more` places behind those there are."""
    longer = np.empty(array.size + max(array.size // 2, more), array.dtype)
    longer[: array.size] = array
    return longer
