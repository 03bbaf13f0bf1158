"""Read, compute and write the blocks of a volume, and remember which are done.

The ledger is a folder beside the output, on a disk or in a bucket. It holds the parameters of the run and one line per
finished block, written after the block's data are stored. So the same command continues after any interruption, and a
command with other parameters is refused by name instead of mixing with old blocks. One process at a time holds it.

`run_blocks` overlaps reading, computing and writing in one process; `neuropil.tasks` gives whole blocks to the
processes of a `Pool`, on this machine or a Dask cluster.
"""

from __future__ import annotations

import hashlib
import json
import logging
import signal
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from neuropil.errors import BlockLost, InputError, NeuropilError, RunMismatch
from neuropil.files import Lines, Place, remove_folder, write_json
from neuropil.geometry import Box
from neuropil.locks import Lock, locked
from neuropil.machine import forget_peak, peak_resident, resident
from neuropil.progress import Progress
from neuropil.reads import noting, told

log = logging.getLogger("neuropil")
_LOST = "its process ended: it was killed, or took more memory than worker_memory allows"
LOCK = "lock.json"
PATIENCE = 20
"""Seconds to wait for a scheduler, and for its first worker."""
STARTS = 3
"""Of the processes of this machine, before they are given up."""
T = TypeVar("T")
U = TypeVar("U")
_OURS = {
    "distributed.scheduler.allowed-failures": 0,  # tries are counted here
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,  # a worker that has one block has nothing to wait for
    "distributed.scheduler.worker-saturation": 1.0,  # what waits goes to whoever is free first
    "distributed.worker.profile.enabled": False,
}


class Ledger:
    """What is done of one run, in `folder`.

    Parameters
    ----------
    folder : made if it is not there
    parameters : JSON-able, whatever decides the result
    fresh : forget what the folder holds
    lock : on the folder, as from `open_ledger`

    Raises
    ------
    RunMismatch : the folder holds blocks made with other parameters
    """

    def __init__(
        self, folder: Place, parameters: dict[str, Any], *, fresh: bool = False, lock: Lock | None = None
    ) -> None:
        self.folder = folder
        self._lines, self._failed, self._lock = Lines(folder / "done.jsonl"), Lines(folder / "failed.jsonl"), lock
        parameters = json.loads(json.dumps(parameters))
        self.digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:12]
        if not fresh and (folder / "parameters.json").exists():
            self._check(parameters)
        else:
            self._start(parameters)
        entries = map(json.loads, self._lines.read())
        self.done = {(entry["step"], Box(tuple(entry["start"]), tuple(entry["stop"]))) for entry in entries}

    def record(self, name: str, box: Box, seconds: float, facts: Mapping[str, Any] | None = None) -> None:
        """Mark one block of the step `name` as done; its data must be stored already. Facts are for people.

        Raises
        ------
        RunLocked : another process has taken the folder over
        """
        if self._lock is not None:
            self._lock.check()
        about = {"step": name, "start": box.start, "stop": box.stop, "state": "done", "seconds": round(seconds, 3)}
        about["parameters"] = self.digest
        self._lines.add(json.dumps(about | dict(facts or {})))
        self.done.add((name, box))

    def summary(self) -> dict[str, dict[str, float]]:
        """Return, for each step, the number of blocks done, their seconds in all, and the peak memory of a process."""
        found: dict[str, dict[str, float]] = {}
        for entry in map(json.loads, self._lines.read()):
            step = found.setdefault(entry["step"], {"blocks": 0, "seconds": 0.0, "peak_mb": 0})
            step["blocks"] += 1
            step["seconds"] = round(step["seconds"] + entry["seconds"], 3)
            step["peak_mb"] = max(step["peak_mb"], entry.get("peak_mb", 0))
        return found

    def fail(self, name: str, box: Box, error: BaseException, tries: int = 1) -> None:
        """Write down why a block failed, for people; on a full disk that cannot be had."""
        about = {"step": name, "start": box.start, "stop": box.stop, "state": "failed", "tries": tries}
        tail = "".join(traceback.format_exception(error))[-4000:]
        with suppress(OSError):
            self._failed.add(json.dumps(about | {"error": repr(error), "tail": tail}))

    def forget(self, name: str) -> None:
        """Take the blocks of one step for not done, because its data are not there."""
        self.done = {(step, box) for step, box in self.done if step != name}

    def remove(self) -> None:
        """Delete the folder; one half deleted is never taken for unfinished work."""
        if self._lock is not None:
            self._lock.stop()
        remove_folder(self.folder, first="parameters.json")

    def _start(self, parameters: dict[str, Any]) -> None:
        remove_folder(self.folder, first="parameters.json", keep=LOCK)
        write_json(self.folder / "parameters.json", parameters)

    def _check(self, parameters: dict[str, Any]) -> None:
        path = self.folder / "parameters.json"
        try:
            before = json.loads(path.read_text())
        except ValueError:
            raise RunMismatch(f"unfinished work in {self.folder} is damaged; start over with --fresh") from None
        for key in sorted({*before, *parameters}):
            if before.get(key) != parameters.get(key):
                raise RunMismatch(
                    f"unfinished work in {self.folder} was made with {key} = {before.get(key)!r}, now"
                    f" {parameters.get(key)!r}; give the old value, or start over with --fresh"
                )


@contextmanager
def open_ledger(folder: Place, parameters: dict[str, Any], *, fresh: bool = False) -> Iterator[Ledger]:
    """Give the ledger of a run, which no other process has meanwhile.

    Raises
    ------
    RunLocked : another process is at work in the folder
    RunMismatch : the folder holds blocks made with other parameters
    """
    with locked(folder / LOCK) as lock:
        yield Ledger(folder, parameters, fresh=fresh, lock=lock)


def is_unfinished(folder: Place) -> bool:
    """Tell whether a ledger's folder is there."""
    return (folder / "parameters.json").exists()


def unfinished_blocks(folder: Place) -> int:
    """Return how many blocks a ledger's folder holds as done, without making it anew."""
    return len(Lines(folder / "done.jsonl").read())


def run_blocks(
    ledger: Ledger,
    name: str,
    blocks: Sequence[Box],
    read: Callable[[Box], T],
    compute: Callable[[T], U],
    write: Callable[[Box, U], None],
    progress: Progress | None = None,
) -> int:
    """Read, compute and write every block that the ledger does not know as done under the step `name`.

    Reading and writing have a thread each and are one block ahead of, and one behind, what is computed. `write` must
    have its data on disk when it returns. A `progress` that is given is advanced by whoever computes. Returns the
    number of blocks that were done before.
    """
    todo = [box for box in blocks if (name, box) not in ledger.done]
    skipped = len(blocks) - len(todo)
    if skipped:
        log.info("%s: %d of %d blocks were done before", name, skipped, len(blocks))
    counted = Progress(name, len(blocks), skipped) if progress is None else None

    def finish(box: Box, made: U, start: float) -> None:
        write(box, made)
        ledger.record(name, box, time.monotonic() - start)
        if counted is not None:
            counted.advance()

    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        coming = [reader.submit(read, box) for box in todo[:1]]
        writing: Future[None] | None = None
        for box, following in zip(todo, [*todo[1:], None]):
            given = coming.pop().result()
            if following is not None:
                coming.append(reader.submit(read, following))
            start = time.monotonic()
            made = compute(given)
            del given
            if writing is not None:
                writing.result()
            writing = writer.submit(finish, box, made, start)
            del made
        if writing is not None:
            writing.result()
    return skipped


@dataclass(frozen=True)
class Outcome:
    """How a block went: its seconds, facts for people (host, peak memory), the error if there was one."""

    box: Box
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: BaseException | None = None


class Pool(Protocol):
    """Where blocks are computed.

    Attributes
    ----------
    size : how many at once
    patience : seconds after which a block counts as hung and its process is ended; None where that cannot be
    only : step:z,y,x of the one block that shall be computed; None for all
    """

    size: int
    patience: float | None
    only: str | None

    def submit(self, work: Callable[[Box], None], box: Box) -> None:
        """Have `work(box)` done some time."""

    def next(self) -> Outcome:
        """Wait for one of the submitted blocks."""

    def memory(self) -> list[int]:
        """Bytes that each process holds."""


class SerialPool:
    """Blocks one after the other in this process, for debugging."""

    size = 1
    patience: float | None = None

    def __init__(self, only: str | None = None) -> None:
        self.only = only
        self._waiting: deque[tuple[Callable[[Box], None], Box]] = deque()

    def submit(self, work: Callable[[Box], None], box: Box) -> None:
        """Keep the block until it is asked for."""
        self._waiting.append((work, box))

    def next(self) -> Outcome:
        """Compute the next block."""
        work, box = self._waiting.popleft()
        try:
            return timed(work, box)
        except Exception as error:
            return Outcome(box, error=error)

    def memory(self) -> list[int]:
        """Bytes that this process holds."""
        return [resident()]


class DaskPool:
    """Blocks on the workers of a Dask cluster; a worker that dies is started anew by Dask, and its block is lost.

    Parameters
    ----------
    client : a `distributed.Client`
    """

    def __init__(self, client: Any) -> None:
        from distributed import as_completed

        self.patience: float | None = None
        self.only: str | None = None
        self._client, self._done = client, as_completed()
        self._boxes: dict[tuple[str, int], Box] = {}
        # Of a group of many tasks, what no worker is free for waits at the scheduler; the group lives while it has one.
        self._group, self._count = f"blocks-{uuid4().hex}", 0
        self._first, self._last = client.submit(int, key=(self._group, 0)), None
        self.size = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))

    def submit(self, work: Callable[[Box], None], box: Box) -> None:
        """Hand the block, data only, to the scheduler."""
        self._count += 1
        future = self._client.submit(timed, work, box, key=(self._group, self._count))
        self._last = None  # is forgotten now, for the scheduler hears of one thing at a time
        self._boxes[future.key] = box
        self._done.add(future)

    def next(self) -> Outcome:
        """Wait for any block."""
        self._last = future = next(self._done)
        box = self._boxes.pop(future.key)
        try:  # also the process that has a result may end, before that is fetched
            made: Outcome = future.result()
            return made
        except Exception as error:
            lost = type(error).__name__ == "KilledWorker"
            return Outcome(box, error=BlockLost(_LOST) if lost else error)

    def memory(self) -> list[int]:
        """Bytes that each worker said last that it holds; none while the scheduler is away."""
        with suppress(OSError, TimeoutError):
            workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
            return [int(worker.get("metrics", {}).get("memory", 0)) for worker in workers]
        return []


@contextmanager
def dask_pool(
    workers: int, memory: float | None = None, scheduler: str | None = None, preload: Sequence[str] = ()
) -> Iterator[DaskPool]:
    """Give a pool of processes of this machine, or of the Dask cluster at an address.

    Parameters
    ----------
    workers : processes, one thread each; those of a given cluster are what they are
    memory : bytes that a worker may take before it is started anew
    scheduler : such as tcp://host:8786
    preload : modules that processes of this machine load as they start

    Raises
    ------
    InputError : no scheduler answers there, or it has no workers
    NeuropilError : processes of this machine do not start
    """
    import distributed

    if scheduler is not None:
        try:
            client = distributed.Client(scheduler, timeout=PATIENCE)
        except (OSError, ValueError) as error:
            raise InputError(f"scheduler: no Dask scheduler answers at {scheduler} ({error})") from None
        with client:
            try:
                client.wait_for_workers(1, timeout=PATIENCE)
            except TimeoutError:
                raise InputError(f"scheduler: the cluster at {scheduler} has no workers; start some") from None
            if "dashboard" in client.scheduler_info()["services"]:
                log.info("dashboard: %s", client.dashboard_link)
            yield DaskPool(client)
        return
    cluster = _started(workers, memory, preload)
    with cluster, distributed.Client(cluster) as client:
        if find_spec("bokeh"):
            log.info("dashboard: %s", client.dashboard_link)
        yield DaskPool(client)


def _started(workers: int, memory: float | None, preload: Sequence[str]) -> Any:
    """Start the processes of this machine; begin again where one is killed before it has started.

    Raises
    ------
    NeuropilError : they do not start
    """
    import dask
    import distributed

    failure: RuntimeError | None = None
    for _ in range(STARTS):
        # What the user stops is this process, which then ends the others.
        with _deaf_to_interrupts(), dask.config.set(_OURS):
            try:
                return distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    memory_limit="auto" if memory is None else int(memory),
                    dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                    preload=list(preload),
                )
            except RuntimeError as error:
                failure = error
                log.warning("a worker ended before it had started")
    raise NeuropilError(
        f"workers do not start, tried {STARTS} times ({failure}); give fewer with --workers, or --executor serial"
    ) from failure


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let processes that are started meanwhile take no notice of Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def timed(work: Callable[[Box], None], box: Box) -> Outcome:
    """Compute a block; note the peak memory of the process meanwhile, and what was read."""
    forget_peak()
    start = time.monotonic()
    with noting() as seen:
        try:
            work(box)
        except Exception as error:
            error.add_note(f"It had read {told(seen) or 'nothing'}.")
            raise
    facts = {"host": socket.gethostname(), "peak_mb": round(peak_resident() / 1e6), "inputs": told(seen)}
    return Outcome(box, time.monotonic() - start, facts)
