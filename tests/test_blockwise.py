"""The ledger: done blocks are skipped, whatever stopped the run; other parameters are refused by name."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import distributed
import pytest

from neuropil import progress
from neuropil.blockwise import DaskPool, Ledger, dask_pool, run_blocks
from neuropil.errors import NeuropilError, RunMismatch
from neuropil.geometry import Box, grid

BLOCKS = list(grid(Box.of_shape((1, 4, 6)), (1, 2, 2)))


def work(ledger: Ledger, name: str = "step", fail_at: int | None = None) -> list[Box]:
    called: list[Box] = []

    def compute(box: Box) -> tuple[Box, int]:
        if len(called) == fail_at:
            raise RuntimeError("a block failed")
        called.append(box)
        return box, len(called)

    def write(box: Box, made: tuple[Box, int]) -> None:
        assert made == (box, called.index(box) + 1)

    run_blocks(ledger, name, BLOCKS, lambda box: box, compute, write)
    return called


@pytest.mark.parametrize("where", ["read", "write"])
def test_a_block_that_cannot_be_read_or_written_stops_the_run(tmp_path: Path, where: str) -> None:
    def fail(wanted: str, box: Box) -> Box:
        if where == wanted and box == BLOCKS[3]:
            raise OSError("disk on fire")
        return box

    with pytest.raises(OSError, match="disk on fire"):
        run_blocks(
            Ledger(tmp_path, {}), "step", BLOCKS, lambda box: fail("read", box), lambda box: box,
            lambda box, made: fail("write", made) and None,
        )  # fmt: skip
    assert work(Ledger(tmp_path, {})) == BLOCKS[3:]


def test_reading_and_writing_go_on_beside_the_computing(tmp_path: Path) -> None:
    """One block ahead and one behind, never more: each step waits for what must be under way meanwhile."""
    log: list[tuple[str, int]] = []
    begun = {(name, index): threading.Event() for name in ("read", "write") for index in range(len(BLOCKS))}

    def begin(name: str, box: Box) -> Box:
        log.append((name, BLOCKS.index(box)))
        begun[log[-1]].set()
        return box

    def compute(box: Box) -> Box:
        index = BLOCKS.index(box)
        log.append(("compute", index))
        assert index + 1 == len(BLOCKS) or begun["read", index + 1].wait(60)
        assert index == 0 or begun["write", index - 1].wait(60)
        return box

    ledger = Ledger(tmp_path, {})
    run_blocks(
        ledger, "step", BLOCKS, lambda box: begin("read", box), compute, lambda box, made: begin("write", box) and None
    )
    for index in range(len(BLOCKS) - 2):
        assert log.index(("read", index + 2)) > log.index(("compute", index))
        assert log.index(("compute", index + 2)) > log.index(("write", index))


def test_done_blocks_are_skipped(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", {"a": 1})
    assert work(ledger) == BLOCKS
    assert work(ledger) == []
    again = Ledger(tmp_path / "ledger", {"a": 1})
    assert work(again) == []
    assert work(again, "another step") == BLOCKS
    again.forget("step")
    assert work(again) == BLOCKS


def test_a_failing_block_is_not_done(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a block failed"):
        work(Ledger(tmp_path, {}), fail_at=2)
    assert work(Ledger(tmp_path, {})) == BLOCKS[2:]


@pytest.mark.parametrize(
    "torn", ["", "{", '{"step": "step", "sta', '{"step": "step", "start": [0, 0, 0], "stop": [1, 2, 2]}']
)
def test_a_torn_last_line_is_cut_off(tmp_path: Path, torn: str) -> None:
    with pytest.raises(RuntimeError):
        work(Ledger(tmp_path, {}), fail_at=2)
    path = tmp_path / "done.jsonl"
    whole = path.read_text()
    path.write_text(whole + torn)
    assert work(Ledger(tmp_path, {})) == BLOCKS[2:]
    assert path.read_text().startswith(whole)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == ["step"] * len(BLOCKS)


def test_other_parameters_are_refused_by_name(tmp_path: Path) -> None:
    work(Ledger(tmp_path, {"size": (1, 2), "weights": "x"}))
    Ledger(tmp_path, {"weights": "x", "size": [1, 2]})  # the same, as JSON
    for now, words in (
        ({"size": [1, 3], "weights": "x"}, r"size = \[1, 2\], now \[1, 3\]"),
        ({"size": [1, 2]}, "weights = 'x', now None"),
        ({"size": [1, 2], "weights": "x", "new": 1}, "new = None, now 1"),
    ):
        with pytest.raises(RunMismatch, match=words):
            Ledger(tmp_path, now)
    (tmp_path / "parameters.json").write_text("{")
    with pytest.raises(RunMismatch, match="damaged; start over with --fresh"):
        Ledger(tmp_path, {})


def test_fresh_forgets(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    work(Ledger(folder, {"a": 1}))
    (folder / "map.npy").write_text("old")
    ledger = Ledger(folder, {"a": 2}, fresh=True)
    assert not (folder / "map.npy").exists()
    assert work(ledger) == BLOCKS
    ledger.remove()
    ledger.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_parameters_is_no_unfinished_work(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    work(Ledger(folder, {"a": 1}))
    (folder / "map.npy").write_text("old")
    (folder / "parameters.json").unlink()
    assert work(Ledger(folder, {"a": 2})) == BLOCKS
    assert not (folder / "map.npy").exists()


def test_progress_counts_what_was_done_before(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        work(Ledger(tmp_path, {}), fail_at=4)
    seen: list[tuple[str, int, int]] = []
    with progress.show(lambda description, done, total, note, eta: seen.append((description, done, total))):
        work(Ledger(tmp_path, {}))
    assert seen == [("step", 4, 6), ("step", 5, 6), ("step", 6, 6)]
    work(Ledger(tmp_path, {}))  # nobody looks
    assert len(seen) == 3


@pytest.mark.parametrize("failures", [2, 3])
def test_workers_that_do_not_start(monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    """One that is killed while it starts is no reason to give up; the third time it is."""
    starts: list[int] = []
    kept = distributed.LocalCluster

    def cluster(**options: Any) -> Any:
        starts.append(1)
        if len(starts) <= failures:
            raise RuntimeError("Nanny failed to start.")
        return kept(**options)

    monkeypatch.setattr(distributed, "LocalCluster", cluster)
    if failures == 3:
        with pytest.raises(NeuropilError, match="workers do not start, tried 3 times"), dask_pool(1):
            pass
    else:
        with dask_pool(1) as pool:
            assert isinstance(pool, DaskPool)
    assert len(starts) == 3
