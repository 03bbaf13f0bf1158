"""One process at a time: a lock is a small file that says whose it is, written anew every few seconds.

The lock of a process that died is taken over: at once on its own machine, where the system knows; from another one when
nobody wrote it for some beats, as told by waiting, so that clocks need not agree. A holder that finds another's name in
it has lost it.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from neuropil.errors import RunLocked
from neuropil.files import Place, swap

BEAT = 10.0
"""Seconds between two writings."""
BEATS = 3
"""After so many without one, its holder is dead."""


class Lock:
    """A lock that is held; see `locked`."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._mine = {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid4().hex}
        self._text = self._now()
        self._over = threading.Event()
        self._lost = False
        self._take()
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Make sure that it is still held.

        Raises
        ------
        RunLocked : somebody has taken it, while this process stood still
        """
        if self._lost:
            raise RunLocked(f"while this run stood still, another one took over ({self._place})")

    def stop(self) -> None:
        """Write it no more."""
        self._over.set()
        self._thread.join()

    def release(self) -> None:
        """Give it up, and its folder where nothing else is in it."""
        self.stop()
        if not self._lost and self._known() == self._text:
            self._place.unlink(missing_ok=True)
        if isinstance(self._place, Path):
            with suppress(OSError):
                self._place.parent.rmdir()

    def _take(self) -> None:
        if isinstance(self._place, Path):
            self._place.parent.mkdir(parents=True, exist_ok=True)
        seen, since = self._known(), time.monotonic()
        while True:
            found = self._known()
            silent = time.monotonic() - since > BEATS * BEAT
            if found is None or _is_dead(found) or (silent and found == seen):
                if swap(self._place, found, self._text):
                    return
                continue  # somebody else was faster
            holder = _holder(found)
            if found != seen or holder["host"] == socket.gethostname():
                raise RunLocked(
                    f"another run is at work on this output: process {holder['pid']} on {holder['host']}; wait for it,"
                    f" or stop it ({self._place})"
                )
            time.sleep(BEAT / 4)

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with suppress(OSError):  # storage that is away for a moment
                text = self._now()
                if not swap(self._place, self._text, text):
                    self._lost = True
                    return
                self._text = text

    def _now(self) -> bytes:
        return json.dumps(self._mine | {"time": time.time()}).encode()

    def _known(self) -> bytes | None:
        try:
            return self._place.read_bytes()
        except FileNotFoundError:
            return None


@contextmanager
def locked(place: Place) -> Iterator[Lock]:
    """Hold the lock at `place` meanwhile.

    Raises
    ------
    RunLocked : another process holds it, and lives
    """
    lock = Lock(place)
    try:
        yield lock
    finally:
        lock.release()


def _holder(text: bytes) -> dict[str, Any]:
    """Return what a lock says; one that is damaged says that it is old, and of nowhere."""
    try:
        said: dict[str, Any] = json.loads(text)
        return {"host": said["host"], "pid": int(said["pid"]), "time": float(said["time"])}
    except (ValueError, KeyError, TypeError):
        return {"host": "", "pid": 0, "time": 0.0}


def _is_dead(text: bytes) -> bool:
    """Tell what can be told at once: the holder was a process of this machine, and is not any more."""
    holder = _holder(text)
    if not holder["host"]:
        return True
    if holder["host"] != socket.gethostname():
        return False
    if holder["pid"] == os.getpid() or time.time() - holder["time"] > BEATS * BEAT:  # a number that was given anew
        return True
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
