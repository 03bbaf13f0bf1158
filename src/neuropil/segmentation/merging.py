"""Merging of clusters, best pair first: what the kernels work on is made, and enlarged, here.

Clusters that are each other's best merge first, in order of place. The rest goes by score, one range after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuropil._kernels import agglomeration as _kernel
from neuropil._kernels import clusters as _clusters
from neuropil.segmentation.threads import run_threads, split

_FEW = 512  # contacts of a cluster that is not yet left to the queue
_RANGE = 1 << 16  # entries of a range of scores
_HALVES = 8  # room for half-edges per edge, to begin with; what is not used takes no memory
_SPARE = 1024  # room of other arrays, to begin with

NO_HISTOGRAMS = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.int64), -1.0)


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
    u: NDArray[np.integer[Any]], v: NDArray[np.integer[Any]], total: NDArray[Any], count: NDArray[Any], threads: int = 1
) -> NDArray[np.float64]:
    """Return edges as kernels want them, (n, 4): sum, number, room for the entry, and both ends, 4 bytes each.

    None crosses a line of the cache.
    """
    raw = np.empty(4 * u.size + 3)
    shift = -raw.ctypes.data % 32 // 8
    flat = raw[shift : shift + 4 * u.size]
    ends = flat.view(np.uint32)
    run_threads(_clusters.write_rows, [(u, v, total, count, *part, flat, ends) for part in split(u.size, threads)])
    return flat.reshape(-1, 4)


def scores_of(entry: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return the scores of entries."""
    return (np.uint64(0xFFFFFFFF) - (entry >> np.uint64(32))).astype(np.uint32).view(np.float32)


def merge_rows(
    rows: NDArray[np.float64],
    histograms: tuple[Any, ...],
    least: float,
    frozen: NDArray[np.bool_],
    *,
    parts: Sequence[NDArray[np.uint32]] = (),
    threads: int = 1,
) -> Merged:
    """Merge all clusters whose score is at least `least`, but for those that are frozen; changes all that is given.

    Parameters
    ----------
    rows
        Those of `edge_rows`.
    histograms
        What the kernel `entry_of` takes.
    least
        Score below which nothing is merged.
    frozen
        (n + 1,), a place for each cluster.
    parts
        Clusters in order of place, each in one part; none stands for one with all. Clusters of different parts merge
        side by side, unless they have edges to another part.
    threads
        To share the work.
    """
    work = _Work(rows.reshape(-1), histograms, np.float32(least), frozen.size, threads)
    parts = parts or [np.arange(1, frozen.size, dtype=np.uint32)]
    held = work.start(frozen, parts)
    workers = [_Worker(part, rows.size // 4) for part in parts]
    work.merge_near(workers, held)
    if len(parts) > 1:
        workers.append(_Worker(np.flatnonzero(held & ~frozen).astype(np.uint32), rows.size // 4))
        work.merge_near(workers[-1:], frozen)
    work.merge_queued(workers[-1], frozen)
    done = zip(*(worker.merges() for worker in workers), strict=True)
    u, v, entry = (fields[0] if len(fields) == 1 else np.concatenate(fields) for fields in done)
    return Merged(u, v, entry, work.nodes[_clusters.SMALLEST :: 4])


class _Worker:
    """What one thread has of its own."""

    def __init__(self, visits: NDArray[np.uint32], edges: int) -> None:
        self.visits = visits
        self.state = np.zeros(10, np.int64)
        self.scratch = _scratch(max(_FEW, _SPARE))
        self.out = tuple(np.empty(edges, np.uint64) for _ in range(3))

    def merges(self) -> list[NDArray[np.uint64]]:
        """Return the clusters that merged, and the entries."""
        return [field[: self.state[_kernel.MERGES]] for field in self.out]


class _Work:
    """Edges and clusters, which threads share, and the queue."""

    def __init__(
        self, flat: NDArray[np.float64], histograms: tuple[Any, ...], least: np.float32, size: int, threads: int
    ) -> None:
        self.graph = flat, flat.view(np.uint64), flat.view(np.uint32), histograms
        self.least, self.threads = least, threads
        self.nodes = np.empty(4 * size, np.uint32)
        self.nodes[_clusters.SMALLEST :: 4] = np.arange(size)
        self.pool = np.empty(_HALVES * (flat.size // 4), np.int32)
        self.firsts = np.empty(size, np.uint64)
        self.marks = np.full(size, -1, np.int32)
        self.heap, self.later = np.empty(_SPARE, np.uint64), np.empty(_SPARE, np.uint64)

    def start(self, frozen: NDArray[np.bool_], parts: Sequence[NDArray[np.uint32]]) -> NDArray[np.bool_]:
        """Write entries and lists; return which clusters are frozen or have edges to another part."""
        held = frozen.copy()
        side = np.zeros(frozen.size if len(parts) > 1 else 0, np.uint16)
        for k, part in enumerate(parts[1:], 1):
            side[part] = k
        edges = split(self.graph[0].size // 4, self.threads)
        run_threads(_clusters.write_entries, [(self.graph, *part, side, held) for part in edges])
        self.used = self._write_lists(self.firsts, self.threads)
        return held

    def _write_lists(self, firsts: NDArray[np.uint64], threads: int) -> int:
        """Write the lists of all clusters; return where they end."""
        parts = split(self.nodes.size // 4, threads)
        counts = run_threads(_clusters.count_halves, [(self.graph[2], *part, self.nodes) for part in parts])
        starts = [0, *np.cumsum(counts).tolist()]
        tasks = [(self.graph, *part, start, self.nodes, self.pool, firsts) for part, start in zip(parts, starts)]
        run_threads(_clusters.write_lists, tasks)
        return int(starts[-1])

    def merge_near(self, workers: list[_Worker], frozen: NDArray[np.bool_]) -> None:
        """Merge clusters of few edges that are each other's best, in order of place."""
        self._share(workers)
        while workers:
            lists = self.nodes, self.pool, self.firsts, self.marks
            shared = self.least, _FEW
            tasks = [
                (*shared, worker.visits, frozen, self.graph, lists, worker.state, worker.scratch, worker.out)
                for worker in workers
            ]
            done = run_threads(_kernel.merge_near, tasks)
            self.used = self.pool.size
            workers = [worker for worker, ended in zip(workers, done) if not ended]
            if workers:
                self.pool = _longer(self.pool, 3 * _FEW * len(workers))
                self._share(workers)

    def _share(self, workers: list[_Worker]) -> None:
        """Give each worker some of what is free of the pool."""
        for worker, (first, last) in zip(workers, split(self.pool.size - self.used, len(workers))):
            worker.state[_kernel.USED], worker.state[_kernel.LIMIT] = self.used + first, self.used + last

    def merge_queued(self, worker: _Worker, frozen: NDArray[np.bool_]) -> None:
        """Merge what is left by score."""
        order = np.empty(self.graph[0].size // 4, np.uint64)
        order = order[: _kernel.collect(self.graph, order)]
        self.table = np.empty(2 * order.size + _SPARE, np.uint64)
        nothing = np.empty(0, np.uint64)
        tasks = [(_kernel.fill, self.table, self.graph[2]), (self._write_lists, nothing, 1), (order.sort,)]
        pairs, self.used, _ = run_threads(_call, tasks, self.threads)
        self._share([worker])
        worker.state[_kernel.PAIRS] = pairs
        for first in range(0, order.size, _RANGE):
            last = first + _RANGE
            bound = order[last] if last < order.size else np.uint64(_clusters.NEVER)
            self._merge_range(order[first:last], bound, worker, frozen)

    def _merge_range(
        self, order: NDArray[np.uint64], bound: np.uint64, worker: _Worker, frozen: NDArray[np.bool_]
    ) -> None:
        """Merge pairs up to a bound, those included that were put back for later."""
        state = worker.state
        waiting = self.later[: state[_kernel.LATER]]
        now = waiting < bound
        order = np.concatenate((order, waiting[now]))
        order.sort()
        kept = waiting[~now]
        self.later[: kept.size] = kept
        state[_kernel.LATER], state[_kernel.HEAD] = kept.size, 0
        while not _kernel.merge_queued(
            order,
            bound,
            self.least,
            frozen,
            self.graph,
            (self.nodes, self.pool),
            (self.table, self.heap, self.later),
            state,
            worker.scratch,
            worker.out,
        ):
            self._enlarge(int(state[_kernel.SHORT]), int(state[_kernel.NEED]), worker)

    def _enlarge(self, short: int, need: int, worker: _Worker) -> None:
        """Make room where a kernel was short of it."""
        if short == _kernel.POOL:
            self.pool = _longer(self.pool, need)
            worker.state[_kernel.LIMIT] = self.pool.size
        elif short == _kernel.TABLE:
            pairs = _kernel.fill(self.table, self.graph[2])  # without what is gone
            if 3 * (pairs + need) > 2 * self.table.size:
                self.table = np.empty(2 * (pairs + need), np.uint64)
                _kernel.fill(self.table, self.graph[2])
            worker.state[_kernel.PAIRS] = pairs
        elif short == _kernel.QUEUE:
            self.heap, self.later = _longer(self.heap, need), _longer(self.later, need)
        else:
            worker.scratch = _scratch(2 * need)


def _call(work: Callable[..., Any], *arguments: Any) -> Any:
    return work(*arguments)


def _scratch(size: int) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint64]]:
    return np.empty(size, np.uint64), np.empty(size, np.int64), np.empty(size, np.uint64)


def _longer(array: NDArray[Any], more: int) -> NDArray[Any]:
    """Return an array with at least `more` places behind those there are."""
    longer = np.empty(array.size + max(array.size // 2, more), array.dtype)
    longer[: array.size] = array
    return longer
