"""Locks: one holder at a time; the dead are told from the living, here and elsewhere."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from neuropil import locks
from neuropil.blockwise import open_ledger
from neuropil.errors import RunLocked
from neuropil.files import write_text
from neuropil.geometry import Box
from neuropil.locks import locked


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.1)


def write(place: Path, **said: Any) -> None:
    place.parent.mkdir(exist_ok=True)
    here = {"host": socket.gethostname(), "pid": os.getppid(), "token": "t", "time": time.time()}
    write_text(place, json.dumps(here | said))


def test_it_is_written_anew_and_goes_with_its_folder(tmp_path: Path) -> None:
    place = tmp_path / "work" / "lock.json"
    with locked(place) as lock:
        first = place.read_bytes()
        assert json.loads(first)["pid"] == os.getpid()
        time.sleep(0.3)
        assert place.read_bytes() != first
        lock.check()
    assert not place.parent.exists()


def test_a_living_holder_of_this_machine_is_named(tmp_path: Path) -> None:
    place = tmp_path / "work" / "lock.json"
    write(place)
    before = place.read_bytes()
    with pytest.raises(RunLocked, match=rf"process {os.getppid()} on {socket.gethostname()}; wait for it, or stop"):
        locked(place).__enter__()
    assert place.read_bytes() == before


@pytest.mark.parametrize(
    "said",
    [
        {"pid": 2**22 + 1},  # no such process
        {"time": 0},  # its number was given to another one
        {"pid": os.getpid()},
        {"host": None},
        {"host": ["damaged"]},
    ],
)
def test_the_dead_of_this_machine_are_followed_at_once(tmp_path: Path, said: dict[str, Any]) -> None:
    place = tmp_path / "work" / "lock.json"
    write(place, **said)
    if said.get("host") == ["damaged"]:
        place.write_text("{")
    start = time.monotonic()
    with locked(place):
        assert time.monotonic() - start < 0.3


def test_the_dead_of_another_machine_are_waited_for(tmp_path: Path) -> None:
    place = tmp_path / "work" / "lock.json"
    write(place, host="elsewhere", time=time.time() + 1e6)  # its clock is wrong
    start = time.monotonic()
    with locked(place):
        assert time.monotonic() - start > locks.BEATS * locks.BEAT


def test_the_living_of_another_machine_are_seen_to_live(tmp_path: Path) -> None:
    place, over = tmp_path / "work" / "lock.json", threading.Event()

    def live() -> None:
        for beat in range(100):
            write(place, host="elsewhere", time=beat)
            if over.wait(0.05):
                return

    write(place, host="elsewhere")
    other = threading.Thread(target=live)
    other.start()
    with pytest.raises(RunLocked, match="on elsewhere"):
        locked(place).__enter__()
    over.set()
    other.join()


def test_who_lost_it_writes_nothing_more(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "work", {}) as ledger:
        ledger.record("step", Box((0,), (1,)), 0.0)
        write(tmp_path / "work" / "lock.json", host="elsewhere")
        time.sleep(0.3)
        with pytest.raises(RunLocked, match="another one took over"):
            ledger.record("step", Box((1,), (2,)), 0.0)
    assert "elsewhere" in (tmp_path / "work" / "lock.json").read_text()
    assert len((tmp_path / "work" / "done.jsonl").read_text().splitlines()) == 1
