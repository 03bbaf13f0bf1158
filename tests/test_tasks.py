"""Blocks on processes: what fails, hangs or dies costs its own tries, and is named; the others are done."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from neuropil import tasks
from neuropil.blockwise import Ledger, SerialPool, dask_pool
from neuropil.clusters import ENVIRONMENT, one_thread_each
from neuropil.errors import BlocksFailed, InputError, StorageFull
from neuropil.geometry import Box, grid
from neuropil.stages.run_pool import READY
from neuropil.tasks import BlockDone, run_tasks

BLOCKS = list(grid(Box.of_shape((1, 1, 6)), (1, 1, 1)))


def trouble(folder: Path, box: Box) -> None:
    """Hang once, die always, raise once, raise always, or do it."""
    x = box.start[2]
    first = not (folder / f"seen{x}").exists()
    (folder / f"seen{x}").touch()
    if x == 0 and first:
        time.sleep(1000)
    if x == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if (x == 2 and first) or x == 3:
        raise ValueError("no good")
    (folder / f"made{x}").touch()


def there(box: Box) -> None:
    assert "neuropil.stages.run_steps" in sys.modules


def test_workers_have_loaded_the_steps_when_they_start() -> None:
    for preload, error in ((READY, type(None)), ((), AssertionError)):
        with dask_pool(1, preload=preload) as pool:
            pool.submit(there, BLOCKS[0])
            assert isinstance(pool.next().error, error)


def test_what_hangs_dies_or_fails_is_tried_again_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(tmp_path / "ledger", {"a": 1})
    with one_thread_each(), dask_pool(2) as pool, caplog.at_level(logging.WARNING, "neuropil"):
        pool.patience = 6
        with pytest.raises(BlocksFailed, match="2 of 6 blocks of step 'step' failed") as told:
            run_tasks(ledger, "step", BLOCKS, partial(trouble, tmp_path), pool, tries=2)
    assert "with --only 'step:0,0," in str(told.value)
    assert "block (0, 0, 0): it took longer than block_timeout, 6 s, and was at File" in caplog.text
    assert "in trouble" in caplog.text
    assert sorted(path.name for path in tmp_path.glob("made*")) == ["made0", "made2", "made4", "made5"]
    done = [json.loads(line) for line in (ledger.folder / "done.jsonl").read_text().splitlines()]
    assert {line["start"][2]: line["tries"] for line in done} == {0: 2, 2: 2, 4: 1, 5: 1}
    assert {line["state"] for line in done} == {"done"}
    assert {line["parameters"] for line in done} == {ledger.digest}
    failed = [json.loads(line) for line in (ledger.folder / "failed.jsonl").read_text().splitlines()]
    assert {line["start"][2]: line["tries"] for line in failed} == {1: 2, 3: 2}
    assert {"its process ended" in line["error"] for line in failed if line["start"][2] == 1} == {True}
    assert not list((ledger.folder / "running").iterdir())


def test_a_full_disk_stops_at_once_and_the_rest_is_done_later(tmp_path: Path) -> None:
    full, done = [True], []

    def work(box: Box) -> None:
        if full[0] and box == BLOCKS[2]:
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(box)

    with pytest.raises(StorageFull, match=r"the disk is full .*; free space and run the same command again"):
        run_tasks(Ledger(tmp_path, {}), "step", BLOCKS, work, SerialPool())
    assert done == BLOCKS[:2]
    full[0] = False
    run_tasks(Ledger(tmp_path, {}), "step", BLOCKS, work, SerialPool())
    assert done == BLOCKS


def test_one_block_alone(tmp_path: Path) -> None:
    done: list[Box] = []
    ledger = Ledger(tmp_path, {})
    alone = SerialPool("b c:0,0,4")
    with pytest.raises(InputError, match="'b c:0,0,4' comes later, 6 blocks of step 'a' are not done"):
        run_tasks(ledger, "a", BLOCKS, done.append, alone)
    run_tasks(ledger, "a", BLOCKS, done.append, SerialPool())
    run_tasks(ledger, "a", BLOCKS, done.append, alone)
    assert len(done) == 6
    for _ in range(2):  # done or not
        with pytest.raises(BlockDone, match=r"step 'b c', block from \(0, 0, 4\) to \(1, 1, 5\): done in"):
            run_tasks(ledger, "b c", BLOCKS, done.append, alone)
    assert done[6:] == [BLOCKS[4]] * 2
    with pytest.raises(InputError, match="step 'b c' has no block at 0,0,9; the first is at"):
        run_tasks(ledger, "b c", BLOCKS, done.append, SerialPool("b c:0,0,9"))


class Noted(SerialPool):
    """A pool that says how many blocks were given to it at once."""

    most = 0

    def submit(self, work: Callable[[Box], None], box: Box) -> None:
        super().submit(work, box)
        self.most = max(self.most, len(self._waiting))


def test_a_block_waits_for_each_worker_and_no_more(tmp_path: Path) -> None:
    done: list[Box] = []
    pool = Noted()
    pool.size = 2
    run_tasks(Ledger(tmp_path, {}), "step", BLOCKS, done.append, pool)
    assert done == BLOCKS
    assert pool.most == 4


def surroundings(folder: Path, box: Box) -> None:
    """Note in which process a block was computed, and what that was told."""
    time.sleep(0.05)
    told = {name: os.environ.get(name) for name in ENVIRONMENT}
    (folder / f"{box.start[2]}.json").write_text(json.dumps({"pid": os.getpid(), **told}))


def test_workers_share_blocks_and_know_that_they_have_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the user, or a cluster from before, has in the environment."""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    (tmp_path / "seen").mkdir()
    before = dict(os.environ)
    with one_thread_each(), dask_pool(2) as pool:
        for step in "abc":
            run_tasks(Ledger(tmp_path / "ledger", {}), step, BLOCKS, partial(surroundings, tmp_path / "seen"), pool)
            seen = [json.loads(path.read_text()) for path in (tmp_path / "seen").iterdir()]
            assert {tuple(one.items())[1:] for one in seen} == {tuple(ENVIRONMENT.items())}
            assert len({one["pid"] for one in seen}) == 2
    assert dict(os.environ) == before


def test_what_is_kept_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first block of a step, so that peaks are those of steps, and now and then."""
    monkeypatch.setattr(tasks, "KEPT", 4)
    given: list[int] = []
    done: list[Box] = []
    monkeypatch.setattr(tasks, "release", lambda: given.append(len(done)))
    for step in ("a step", "another"):
        run_tasks(Ledger(tmp_path, {}), step, BLOCKS, done.append, SerialPool())
    assert given == [0, 4, 6, 10]
