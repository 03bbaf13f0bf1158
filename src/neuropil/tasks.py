"""Have the processes of a pool compute blocks, a few at a time, so that a million of them burden nobody.

What goes wrong with a block (an error, a process that is killed, too much memory, too much time) costs one of its
tries, at the end of the step, and never the others. A process that hangs is ended from within: a thread of it watches.
"""

from __future__ import annotations

import errno
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir

from neuropil import progress
from neuropil.blockwise import Ledger, Outcome, Pool, timed
from neuropil.errors import BlockLost, BlocksFailed, InputError, NeuropilError, StorageFull, VolumeError
from neuropil.files import Place, write_text
from neuropil.geometry import Box
from neuropil.machine import ends_after, forget_peak, release
from neuropil.progress import Progress

log = logging.getLogger("neuropil")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PASSING = (BlockLost, VolumeError)
"""Errors of neuropil's own that may be gone next time: a bucket is away for a moment."""
ASK = 2.0
"""Seconds after which workers are asked anew what memory they hold."""
AHEAD = 2
"""Blocks that are given away for each that can be computed at once, so that nobody waits for the next one."""
KEPT = 8
"""Blocks of a step after which a process gives back the memory that it kept for the next: by then it is in pieces."""
_done = Counter[str]()
"""Blocks that this process has done of the step it is at."""
_DEATHS = 20
"""Processes that may end under a block before it has begun."""


class BlockDone(Exception):
    """The one block that was asked for is done."""


def run_tasks(
    ledger: Ledger, name: str, blocks: Sequence[Box], work: Callable[[Box], None], pool: Pool, *, tries: int = 3
) -> None:
    """Have every block computed that the ledger does not know as done under the step `name`.

    `work` must be data only (a `functools.partial` of a function of a module), write its own output, and give the same
    when it is done twice. A block that fails, hangs or loses its process is tried again, at the end; the others go on.

    Raises
    ------
    BlockDone : only one block is wanted, and done
    BlocksFailed : blocks that failed `tries` times, or at once with an error of neuropil's own
    StorageFull : at the first block that finds the disk full
    """
    if pool.only is not None:
        _run_alone(ledger, name, blocks, work, pool.only)
        return
    waiting = deque(box for box in blocks if (name, box) not in ledger.done)
    watch = Watch(ledger.folder / "running", pool.patience, name)
    watched = partial(watch, work)
    view = _View(name, blocks, waiting, pool)
    failures: dict[Box, BaseException] = {}
    tried, lost = Counter[Box](), Counter[Box]()
    flying = 0
    while waiting or flying:
        while waiting and flying < AHEAD * pool.size:
            pool.submit(watched, waiting.popleft())
            flying += 1
        made = pool.next()
        box, error = made.box, watch.why(made)
        flying -= 1
        innocent = isinstance(error, BlockLost) and not watch.begun(box) and lost[box] < _DEATHS
        lost[box] += innocent
        tried[box] += not innocent
        if error is not None:
            watch.forget(box)
        if innocent:  # it waited for a process that another block had, or its result did
            waiting.append(box)
        elif error is None:
            ledger.record(name, box, made.seconds, {**made.facts, "tries": tried[box]})
        elif isinstance(error, StorageFull) or getattr(error, "errno", None) in _FULL:
            raise StorageFull(f"the disk is full ({error}); free space and run the same command again") from error
        elif tried[box] < tries and (isinstance(error, _PASSING) or not isinstance(error, NeuropilError)):
            log.warning("%s, block %s: %s; it is tried again", name, box.start, error or type(error).__name__)
            waiting.append(box)
        else:
            failures[box] = error
            ledger.fail(name, box, error, tried[box])
        view.tell(made, error, len(failures))
    if failures:
        raise _failed(ledger, name, len(blocks), failures) from next(iter(failures.values()))


def _failed(ledger: Ledger, name: str, blocks: int, failures: dict[Box, BaseException]) -> BlocksFailed:
    """Say which blocks failed, and what to do."""
    box, error = next(iter(failures.items()))
    only = f"{name}:{','.join(map(str, box.start))}"
    return BlocksFailed(
        f"{len(failures)} of {blocks} blocks of step '{name}' failed, first that from {box.start} to {box.stop}:"
        f" {error or type(error).__name__}; the others are done, the same command tries again (errors in"
        f" {ledger.folder / 'failed.jsonl'}), and with --only '{only}' that block alone, in one process"
    )


class _View:
    """What people see of a step: blocks, voxels a second, memory, failures."""

    def __init__(self, name: str, blocks: Sequence[Box], waiting: Sequence[Box], pool: Pool) -> None:
        self._progress, self._pool, self._asked = Progress(name, len(blocks), len(blocks) - len(waiting)), pool, 0.0
        self._start, self._voxels, self._peak, self._again = time.monotonic(), 0, 0, 0

    def tell(self, made: Outcome, error: BaseException | None, failed: int) -> None:
        """Count a block."""
        self._again += error is not None
        self._voxels += made.box.size if error is None else 0
        self._peak = max(self._peak, made.facts.get("peak_mb", 0))
        rate = self._voxels / 1e6 / max(time.monotonic() - self._start, 1e-3)
        note = f"{rate:.1f} Mvoxel/s, {self._peak} MB"
        if self._again:
            note = f"{self._again - failed} tried again, {failed} failed, {note}"
        self._progress.advance(int(error is None), note)
        if time.monotonic() - self._asked > ASK:
            self._asked = time.monotonic()
            progress.foot(self._memory)

    def _memory(self) -> str:
        held = [size / 1e9 for size in self._pool.memory()]
        return f"{len(held)} workers hold {sum(held):.2f} GB, the largest {max(held):.2f}" if held else ""


def _run_alone(ledger: Ledger, name: str, blocks: Sequence[Box], work: Callable[[Box], None], only: str) -> None:
    """Go past a step that is done, or compute the one block of it that `only`, step:z,y,x, names.

    Raises
    ------
    BlockDone : it is computed
    InputError : the step is not done and another is meant, or there is no such block
    """
    step, _, start = only.rpartition(":")
    undone = [box for box in blocks if (name, box) not in ledger.done]
    if name != step:
        if undone:
            raise InputError(f"only: '{only}' comes later, {len(undone)} blocks of step '{name}' are not done")
        return
    for box in blocks:
        if ",".join(map(str, box.start)) == start:
            made = timed(work, box)
            ledger.record(name, box, made.seconds, made.facts)
            raise BlockDone(f"step '{name}', block from {box.start} to {box.stop}: done in {made.seconds:.1f} s")
    raise InputError(f"only: step '{name}' has no block at {start}; the first is at {blocks[0].start}")


@dataclass(frozen=True)
class Watch:
    """Tells whether a block had begun when its process ended, and where it was if it hung; data only.

    A process leaves its last words in a local file. That is in the work folder, where there is one, and in the folder
    for temporary files, where only processes of that machine find it, if work is kept in a bucket.

    Attributes
    ----------
    folder : of the marks of blocks that are computed
    patience : seconds after which a block counts as hung and its process is ended; None: never
    step : that the blocks are of; what a process kept from another one is given back first, and is not in their peak
    """

    folder: Place
    patience: float | None
    step: str = ""

    def __call__(self, work: Callable[[Box], None], box: Box) -> None:
        """Do a block."""
        if _done[self.step] % KEPT == 0:
            for step in _done.keys() - {self.step}:
                del _done[step]
            release()
            forget_peak()
        _done[self.step] += 1
        mark = self._mark(box)
        if isinstance(mark, Path):
            with ends_after(self.patience, mark):
                work(box)
            return
        write_text(mark, "")
        with ends_after(self.patience, self._words(box)):
            work(box)
        mark.unlink(missing_ok=True)

    def begun(self, box: Box) -> bool:
        """Tell whether it was begun and never ended."""
        return self._mark(box).exists()

    def forget(self, box: Box) -> None:
        """Take it for not begun."""
        self._mark(box).unlink(missing_ok=True)
        self._words(box).unlink(missing_ok=True)

    def why(self, made: Outcome) -> BaseException | None:
        """Return why a block failed; where its process ended because it hung, where it was."""
        words = self._words(made.box)
        if not isinstance(made.error, BlockLost) or self.patience is None or not words.exists():
            return made.error
        lines = [line.strip() for line in words.read_text().splitlines() if line.strip().startswith("File")]
        if not lines:  # it was killed before its time was over
            return made.error
        return BlockLost(f"it took longer than block_timeout, {self.patience:g} s, and was at {lines[0]}")

    def _mark(self, box: Box) -> Place:
        return self.folder / f"{'_'.join(map(str, box.start))}.txt"

    def _words(self, box: Box) -> Path:
        mark = self._mark(box)
        if isinstance(mark, Path):
            return mark
        return Path(gettempdir(), f"neuropil-{sha256(str(mark).encode()).hexdigest()[:16]}.txt")
