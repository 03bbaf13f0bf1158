"""The ledger: done blocks are skipped, whatever stopped the run; other parameters are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neuropil import progress
from neuropil.blockwise import Ledger, run_blocks
from neuropil.errors import RunMismatch
from neuropil.geometry import Box, grid

BLOCKS = list(grid(Box.of_shape((1, 4, 6)), (1, 2, 2)))


def work(ledger: Ledger, name: str = "step", fail_at: int | None = None) -> list[Box]:
    called: list[Box] = []

    def task(box: Box) -> None:
        if len(called) == fail_at:
            raise RuntimeError("a block failed")
        called.append(box)

    run_blocks(ledger, name, BLOCKS, task)
    return called


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
