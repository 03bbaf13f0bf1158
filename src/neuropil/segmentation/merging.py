"""Merging of clusters, best pair first: what the kernels work on is made, and enlarged, here.

What needs no queue merges first, in order of place. The rest goes by score, one range after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuropil._kernels import agglomeration as _kernel
from neuropil._kernels import clusters as _clusters
from neuropil._kernels import near as _near
from neuropil._kernels.moving import move
from neuropil.segmentation.threads import call, run_threads, split

_FEW = 1024  # contacts of a cluster that is not yet left to the queue
_REACH = 1024  # clusters to be visited next, as many as the cache holds, beyond which no chain leads; its longest, too
_RANGE = 1 << 16  # entries of a range of scores
_HALVES = 8  # room for half-edges per edge, to begin with; what is not used takes no memory
_SPARE = 1024  # room of other arrays, to begin with
_TALLIES = 8  # ranges of edges that are counted by themselves, 4 bytes a cluster and range

NO_HISTOGRAMS = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.int64), -1.0)

Fields = tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint64]]  # u, v, entry


class Merged(NamedTuple):
    """Merges, best first, and what is left.

    Attributes
    ----------
    u, v
        uint64 (m,), the smallest fragments of the two clusters, u < v.
    entry
        uint64 (m,), rises; see `scores_of`.
    left
        uint32 (k,), the numbers of the edges that are left, rising.
    rows
        (k, 4), these edges as `edge_rows` has them, between the smallest fragments of their clusters.
    """

    u: NDArray[np.uint64]
    v: NDArray[np.uint64]
    entry: NDArray[np.uint64]
    left: NDArray[np.uint32]
    rows: NDArray[np.float64]


def edge_rows(
    u: NDArray[np.integer[Any]],
    v: NDArray[np.integer[Any]],
    total: NDArray[Any],
    count: NDArray[Any],
    *,
    one: int = 1,
    threads: int = 1,
) -> NDArray[np.float64]:
    """Return edges as kernels want them, (n, 4): sum, number, room for the entry, and both ends, 4 bytes each.

    Sums are whole numbers of steps, `one` of a total of 1.
    """
    flat = _empty_rows(u.size)
    given = u, v, total, count, float(one)
    ends = flat.view(np.uint32)
    run_threads(_clusters.write_rows, [(*given, *part, flat, ends) for part in split(u.size, threads)])
    return flat.reshape(-1, 4)


def _empty_rows(size: int) -> NDArray[np.float64]:
    """Return room for rows of edges, (4 size,), none of which crosses a line of the cache."""
    raw = np.empty(4 * size + 3)
    shift = -raw.ctypes.data % 32 // 8
    return raw[shift : shift + 4 * size]


def scores_of(entry: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return the scores of entries."""
    return (np.uint64(0xFFFFFFFF) - (entry >> np.uint64(32))).astype(np.uint32).view(np.float32)


class Merging:
    """Merges of clusters: edges and clusters, which threads share, and the queue.

    Parameters
    ----------
    rows
        Edges, those of `edge_rows`, which are changed, and put behind each other where others are gone.
    histograms
        What the kernel `entry_of` takes; changed, too.
    least
        Score below which nothing is merged.
    threads
        To share the work.
    """

    def __init__(
        self, rows: NDArray[np.float64], histograms: tuple[Any, ...], least: float, *, threads: int = 1
    ) -> None:
        flat = rows.reshape(-1)
        self.graph = flat, flat.view(np.uint64), flat.view(np.uint32), histograms
        self.least, self.threads = np.float32(least), threads

    def run(self, frozen: NDArray[np.bool_], parts: Sequence[NDArray[np.uint32]] = ()) -> Merged:
        """Merge all clusters whose score is high enough, but for those that are frozen; can be done once.

        Parameters
        ----------
        frozen
            (n + 1,), a place for each cluster; changed.
        parts
            Clusters in order of place, each in one part; none stands for one with all. Clusters of different parts
            merge side by side, unless both have edges to another part.
        """
        parts = parts or [np.arange(1, frozen.size, dtype=np.uint32)]
        held, known = self._start(frozen, parts), not frozen.any()
        workers = [_Worker(part, frozen.size, _scratch_near(frozen.size)) for part in parts]
        self._merge_near(workers, held, known)
        if len(parts) > 1:
            rest = np.flatnonzero(held & ~frozen).astype(np.uint32)
            workers.append(_Worker(rest, frozen.size, _scratch_near(frozen.size)))
            self._merge_near(workers[-1:], frozen, known)
        near, edges = [one.merges() for one in workers], self.graph[0].size // 4
        del workers
        which, order = self._pack()
        worker = _Worker(parts[0][:0], frozen.size, _scratch(_SPARE))
        tasks = [(self._merge_queued, order, worker, frozen[:0] if known else frozen), (_sorted, near, edges)]
        _, merges = run_threads(call, tasks, self.threads)
        queued = worker.merges()
        u, v, entry = (np.empty(merges[2].size + queued[2].size, np.uint64) for _ in range(3))
        names = np.arange(frozen.size, dtype=np.uint32)
        _clusters.replay(merges, queued, which, names, (u, v, entry))
        return Merged(u, v, entry, *self._left(which, names))

    def _start(self, frozen: NDArray[np.bool_], parts: Sequence[NDArray[np.uint32]]) -> NDArray[np.bool_]:
        """Write entries and lists; return which clusters are frozen or have edges to another part."""
        size, edges = frozen.size, split(self.graph[0].size // 4, self.threads)
        self.nodes = np.empty(4 * size, np.uint32)
        self.nodes[_clusters.NAME :: 4] = np.arange(size)
        self.pool = _pool(self.graph[0].size // 4)
        self.best = np.full(_clusters.BEST * size, _clusters.NEVER)
        held = frozen.copy()
        side = np.zeros(size if len(parts) > 1 else 0, np.uint16)
        for k, part in enumerate(parts[1:], 1):
            side[part] = k
        self._write_lists(self.threads)
        given = side, self.nodes, _FEW, held
        run_threads(_clusters.write_entries, [(self.graph, *part, *given) for part in edges])
        lists = self.nodes, self.pool, self.best
        run_threads(_clusters.write_best, [(self.graph, *part, *lists) for part in split(size, self.threads)])
        return held

    def _write_lists(self, threads: int) -> None:
        """Write the lists of all clusters."""
        ends = self.graph[2]
        parts = split(ends.size // 8, min(threads, _TALLIES))
        counts = np.zeros((len(parts), self.nodes.size // 4), np.uint32)
        run_threads(_clusters.count_halves, [(ends, *part, row) for part, row in zip(parts, counts)])
        self.free = _clusters.place_lists(counts, self.nodes), self.pool.size
        run_threads(_clusters.write_lists, [(ends, *part, row, self.pool) for part, row in zip(parts, counts)])

    def _merge_near(self, workers: list[_Worker], held: NDArray[np.bool_], known: bool) -> None:
        """Merge clusters of few edges that need no queue, in order of place."""
        self._share(workers)
        while workers:
            turns = np.zeros(held.size, np.uint32)
            for one in workers:
                turns[one.visits] = np.arange(one.visits.size, dtype=np.uint32)
            given = held, known, self.graph, (self.nodes, self.pool, self.best, turns)
            tasks = [(self.least, _FEW, _REACH, one.visits, *given, one.state, one.scratch, one.out) for one in workers]
            done = run_threads(_near.merge_near, tasks, self.threads)
            self.free = max((one.free() for one in workers), key=_span)
            workers = [worker for worker, ended in zip(workers, done) if not ended]
            if workers:
                used = self.pool.size
                self.pool = _longer(self.pool, 3 * _FEW * len(workers))
                self.free = used, self.pool.size
                self._share(workers)

    def _share(self, workers: list[_Worker]) -> None:
        """Give each worker some of what is free of the pool."""
        start, stop = self.free
        for worker, (first, last) in zip(workers, split(stop - start, len(workers))):
            worker.state[_near.USED], worker.state[_near.LIMIT] = start + first, start + last

    def _pack(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """Keep the edges that are left alone, in order; return the numbers they had, and their entries."""
        self.best = np.empty(0, np.uint64)
        flat, queued, ends, (heads, *histograms) = self.graph
        parts = split(queued.size // 4, self.threads)
        counts = run_threads(_clusters.count_edges, [(ends, *part) for part in parts])
        starts = [0, *np.cumsum(counts).tolist()]
        which, order = np.empty(starts[-1], np.uint32), np.empty(starts[-1], np.uint64)
        tasks = [(self.graph, *part, start, which, order) for part, start in zip(parts, starts)]
        run_threads(_clusters.pack, tasks)
        for (first, _), start, count in zip(parts, starts, counts):
            move(queued, 4 * first, 4 * start, 4 * count)
        if heads.size:
            heads = heads[which]
        flat = flat[: 4 * starts[-1]]
        self.graph = flat, flat.view(np.uint64), flat.view(np.uint32), (heads, *histograms)
        return which, order

    def _left(
        self, which: NDArray[np.uint32], names: NDArray[np.uint32]
    ) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
        """Return the edges that are left at the end; names are as `replay` leaves them."""
        kept = np.flatnonzero(self.graph[2].reshape(-1, 8)[:, 6])
        rows = self.graph[0].reshape(-1, 4)[kept]
        ends = rows.view(np.uint32)[:, 6:]
        _clusters.rename(ends, self.nodes, names)
        return which[kept], rows

    def _merge_queued(self, order: NDArray[np.uint64], worker: _Worker, frozen: NDArray[np.bool_]) -> None:
        """Merge what is left by score; order has the entries of all edges."""
        self.table = np.empty(2 * order.size + _SPARE, np.uint64)
        self.heap, self.later = np.empty(_SPARE, np.uint64), np.empty(_SPARE, np.uint64)
        tasks = [(_kernel.fill, self.table, self.graph[2]), (self._write_lists, 1), (order.sort,)]
        pairs, *_ = run_threads(call, tasks, self.threads)
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
            worker.state[_near.LIMIT] = self.pool.size
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


class _Worker:
    """What one thread has of its own."""

    def __init__(self, visits: NDArray[np.uint32], most: int, scratch: tuple[NDArray[Any], ...]) -> None:
        self.visits, self.scratch = visits, scratch
        self.state = np.zeros(11, np.int64)
        self.out = np.empty(most, np.uint32), np.empty(most, np.uint32), np.empty(most, np.uint64)

    def free(self) -> tuple[int, int]:
        """Return which part of the pool is left of what it was given."""
        return int(self.state[_near.USED]), int(self.state[_near.LIMIT])

    def merges(self) -> Fields:
        """Return the clusters that merged, and the entries."""
        u, v, entry = self.out
        n = self.state[_near.MERGES]
        return u[:n], v[:n], entry[:n]


def _sorted(merges: list[Fields], edges: int) -> Fields:
    """Return merges by entry, best first."""
    u, v = (np.concatenate([one[k] for one in merges]) for k in (0, 1))
    entry = np.concatenate([one[2] for one in merges])
    falling = np.sort(entry)  # numbers alone are sorted much faster than places
    out = np.empty_like(u), np.empty_like(v), falling
    _clusters.reorder(u, v, entry, np.empty(edges, np.uint32), out)
    return out


def _span(part: tuple[int, int]) -> int:
    return part[1] - part[0]


def _scratch_near(clusters: int) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.int32]]:
    marks = np.zeros(clusters, np.int32)  # takes memory only where it is written to
    return np.empty(_FEW, np.int64), np.empty(_REACH, np.uint32), marks


def _scratch(size: int) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint64]]:
    return np.empty(size, np.uint64), np.empty(size, np.int64), np.empty(size, np.uint64)


def _pool(edges: int) -> NDArray[np.int32]:
    """Return room for lists of half-edges, whose places have 32 bits."""
    return np.empty(min(_HALVES * edges, (1 << 32) - 1), np.int32)


def _longer(array: NDArray[Any], more: int) -> NDArray[Any]:
    """Return an array with at least `more` places behind those there are."""
    longer = np.empty(array.size + max(array.size // 2, more), array.dtype)
    longer[: array.size] = array
    return longer
