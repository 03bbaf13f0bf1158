"""The live view: what a board becomes in lines, what a terminal shows, and what a file gets instead."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuropil import live, progress
from neuropil.live import Board, PlainView, render


def shown(board: Board, now: float, **how: object) -> list[str]:
    return render(board, now, fancy=False, **how)  # type: ignore[arg-type]


def test_a_board_from_its_start_to_its_end() -> None:
    board = Board()
    assert render(board, 0.0) == []
    board.expect([("predict", 8), ("fragments", 12), ("level 1", None)])
    assert shown(board, 5.0) == ["predict    waiting   0/8", "fragments  waiting  0/12", "level 1    waiting"]
    board.tell("predict", 2, 8, "", float("nan"), now=10.0)  # 2 were done before
    board.tell("predict", 4, 8, "1.5 Mvoxel/s, 210 MB", 40.0, now=30.0)
    board.foot = "2 workers hold 0.40 GB, the largest 0.21"
    assert shown(board, 40.0) == [
        "predict    running   4/8  ##########----------  0m30s left  1.5 Mvoxel/s, 210 MB",
        "fragments  waiting  0/12",
        "level 1    waiting",
        "0m30s, 2 workers hold 0.40 GB, the largest 0.21",
    ]
    board.tell("predict", 8, 8, "1 tried again, 0 failed, 1.6 Mvoxel/s, 210 MB", 0.0, now=70.0)
    board.tell("fragments", 12, 12, "", float("nan"), now=71.0)  # done before
    board.tell("convert", 0, 3, "", float("nan"), now=72.0)  # of which nobody knew
    assert shown(board, 72.0, width=60) == [
        "predict    done       8/8                        1m00s",
        "fragments  done     12/12                        0m00s",
        "level 1    waiting",
        "convert    running    0/3  --------------------",
        "1m02s, 2 workers hold 0.40 GB, the largest 0.21",
    ]
    assert "1m00s       1 tried again, 0 failed, 1.6 Mvoxel/s" in shown(board, 72.0)[0]
    board.tell("convert", 3, 3, "", 0.0, now=73.0)
    board.tell("convert", 0, 5, "", float("nan"), now=80.0)  # once more
    assert shown(board, 81.0)[3].startswith("convert    running    0/5")


def test_a_low_terminal_counts_what_it_cannot_show() -> None:
    board = Board()
    board.expect([(f"step {i:02}", 1) for i in range(20)])
    for i in range(9):
        board.tell(f"step {i:02}", int(i < 8), 1, "", 1.0, now=float(i))
    lines = shown(board, 9.0, height=6)
    assert [line.split("  ")[0] for line in lines] == [
        "8 steps are done",
        "step 08",
        "step 09",
        "step 10",
        "9 more wait",
        "0m09s",
    ]
    assert len(shown(board, 9.0, height=21)) == 21
    assert shown(board, 9.0, height=20)[0] == "2 steps are done"


STEP = st.tuples(st.text("abc é", min_size=1, max_size=30), st.integers(0, 9), st.integers(0, 9))


@settings(max_examples=100, deadline=None)
@given(st.lists(STEP, max_size=30), st.lists(STEP, max_size=30), st.integers(1, 90), st.integers(3, 40))
def test_it_never_leaves_its_space(
    expected: list[tuple[str, int, int]], told: list[tuple[str, int, int]], width: int, height: int
) -> None:
    board = Board(foot="x" * 50)
    board.expect([(name, total or None) for name, _, total in expected])
    for now, (name, done, total) in enumerate(told):
        board.tell(name, done, total, "note " * done, float(total or "nan"), now=float(now))
    lines = render(board, 100.0, width, height)
    running = [step.name for step in board.steps.values() if step.state == "running"]
    assert len(lines) <= max(height, len(running) + 3)
    assert all(len(line) <= width and "\n" not in line for line in lines)
    if width > 40:
        assert all(any(line.startswith(name.rstrip()) for line in lines) for name in running)


SCRIPT = """
import logging, sys, time
from neuropil import cli, progress

with cli._progress(quiet=False):
    cli._log_to_stderr(quiet=False)
    progress.expect([("fragments", 3), ("faces", 3)])
    logging.getLogger("neuropil").info("a log line")
    steps = progress.Progress("fragments", 3)
    for _ in range(3):
        time.sleep(0.3)
        steps.advance(1, "2.0 Mvoxel/s")
        progress.foot(lambda: "2 workers hold 0.40 GB")
    if {raises}:
        raise RuntimeError("broken")
"""


def on_a_terminal(script: str, **env: str) -> tuple[int, str]:
    """Run a script with a terminal of 24 lines of 80 characters as its stderr; return its code and all that came."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    known = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen([sys.executable, "-c", script], stderr=theirs, stdout=theirs, env=known | env)
    os.close(theirs)
    told = b""
    while True:
        try:
            if not select.select([ours], [], [], 60)[0] or not (some := os.read(ours, 4096)):
                break
        except OSError:  # the other end is closed
            break
        told += some
    os.close(ours)
    return process.wait(60), told.decode()


def test_a_terminal_shows_all_steps_from_the_start_and_keeps_the_last_picture() -> None:
    code, told = on_a_terminal(SCRIPT.format(raises=False), TERM="xterm", PYTHONIOENCODING="utf-8")
    assert code == 0, told
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", told).replace("\r", "")
    assert plain.index("faces      waiting  0/3") < plain.index("fragments  done")
    assert "a log line\n" in plain
    last = plain[plain.rindex("fragments  ") :].strip().splitlines()
    assert re.fullmatch(r"fragments +done +3/3 +0m\d\ds +2.0 Mvoxel/s", last[0])
    assert last[1].split() == ["faces", "waiting", "0/3"]
    assert last[2].endswith("2 workers hold 0.40 GB")
    assert "\x1b[1A" in told  # it was drawn in place
    assert len(told) < 20_000
    assert told.rstrip().endswith("\x1b[?25h")  # the cursor is back


@pytest.mark.parametrize("where", ["dumb", "file"])
def test_where_nothing_can_be_drawn_there_are_lines(tmp_path: Path, where: str) -> None:
    script = SCRIPT.format(raises=True)
    if where == "dumb":
        code, told = on_a_terminal(script, TERM="dumb")
    else:
        with (tmp_path / "log").open("wb") as file:
            code = subprocess.run([sys.executable, "-c", script], stderr=file, check=False).returncode
        told = (tmp_path / "log").read_text()
    assert code == 1
    assert "\x1b" not in told
    lines = told.replace("\r", "").splitlines()
    assert lines[:2] == ["a log line", "2 steps: fragments (3), faces (3)"]
    assert lines[2:4] == ["fragments: 0/3", "fragments: 3/3  2.0 Mvoxel/s"]
    assert lines[-1] == "RuntimeError: broken"


def test_lines_come_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(live.time, "monotonic", lambda: clock.now)
    tell = PlainView()
    for done in range(0, 101):
        clock.now += 1
        tell("train", done, 100, f"loss {done}", 3 * (100 - done))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train: 0/100, 5m00s left  loss 0"
    assert lines[1] == "train: 20/100, 4m00s left  loss 20"
    assert lines[-1] == "train: 100/100  loss 100"
    assert len(lines) == 6
    assert progress.duration(3 * 3600 + 125) == "3h02m"
