"""The log of edits beside a segmentation, `….edits.jsonl`: one line of JSON per edit, only ever appended to.

The first line says what is edited. A line that was cut off while it was written, which can only be the last, is left
out and overwritten. Whoever writes holds a lock, so that two views cannot write into one log.
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from neuropil.errors import InputError, VolumeError
from neuropil.segmentation.edits import Edit, Edits
from neuropil.segmentation.splitting import FragmentGraph
from neuropil.stages.common import sidecar

try:
    import fcntl
except ImportError:  # not there on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("neuropil")
VERSION = 1


def log_path(segmentation: str, given: str | None) -> Path:
    """Return where the log of a segmentation is: beside it, unless told."""
    return sidecar(segmentation, "edits.jsonl") if given is None else Path(given).expanduser()


def table_of(graph: FragmentGraph | None) -> dict[str, Any]:
    """Return what a log's first line says: the table fragment -> segment that its edits change, by its digest."""
    if graph is None:
        return {"edits": VERSION, "fragments": None, "table": None}
    digest = hashlib.sha256(np.ascontiguousarray(graph.segments, "<u8").tobytes()).hexdigest()
    return {"edits": VERSION, "fragments": graph.segments.size - 1, "table": digest}


def read_log(path: Path, graph: FragmentGraph | None) -> list[Edit]:
    """Return the edits of a log; none where there is no log.

    Raises
    ------
    InputError : it belongs to other fragments
    VolumeError : a line other than the last is damaged
    """
    return [] if not path.exists() else _read(path, path.read_bytes(), graph)[0]


@contextlib.contextmanager
def open_log(path: Path, graph: FragmentGraph | None) -> Iterator[LogWriter]:
    """Open a log to write to, and make it where there is none; nobody else can until it is closed.

    Raises
    ------
    InputError : another view writes to it, or it belongs to other fragments
    VolumeError : a line other than the last is damaged
    """
    with path.open("a+b", buffering=0) as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(f"{path} is open in another view; close that one, or give another --log") from None
        file.seek(0)
        edits, whole = _read(path, file.read(), graph)
        file.truncate(whole)
        writer = LogWriter(file, edits)
        if whole == 0:
            writer.write(table_of(graph))
        yield writer


class LogWriter:
    """A log that is open, and the edits that it held when it was opened."""

    def __init__(self, file: Any, edits: Sequence[Edit]) -> None:
        self._file, self.edits = file, list(edits)

    def append(self, edit: Edit, *, user: str | None = None, places_nm: Sequence[Sequence[float]] = ()) -> None:
        """Write an edit; it is on disk when this returns."""
        entry: dict[str, Any] = {"op": edit.op}
        if edit.op in ("merge", "split"):
            entry |= {"a": edit.a, "b": edit.b}
        if edit.op == "split":
            entry["away"] = list(edit.away)
        if len(places_nm):
            entry["places_nm"] = [[round(float(p), 3) for p in place] for place in places_nm]
        self.write(entry | {"time": datetime.now(UTC).isoformat(timespec="seconds"), "user": user or _user()})

    def write(self, entry: dict[str, Any]) -> None:
        """Write one line; what a full disk leaves of it is taken away again."""
        end = self._file.seek(0, os.SEEK_END)
        try:
            line = json.dumps(entry).encode() + b"\n"
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)
            os.fsync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise


def _read(path: Path, content: bytes, graph: FragmentGraph | None) -> tuple[list[Edit], int]:
    """Return the edits, and how many bytes of the content are whole lines."""
    lines = content.split(b"\n")
    cut_off = len(lines.pop())
    edits: list[Edit] = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            if number == 1:
                _check_table(path, entry, graph)
            else:
                edits.append(_edit(entry))
        except InputError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) and number > 1:
                cut_off += len(line) + 1
                break
            raise VolumeError(f"{path} line {number} is not an entry of a log of edits: {error}") from None
    if cut_off:
        log.warning("%s: the last line was cut off while it was written, and is left out", path)
    return edits, len(content) - cut_off


def _check_table(path: Path, entry: Any, graph: FragmentGraph | None) -> None:
    if not isinstance(entry, dict) or entry.get("edits") != VERSION:
        raise VolumeError(f"{path} is not a log of edits: it must begin with {json.dumps({'edits': VERSION})} ...")
    if entry.get("table") != table_of(graph)["table"]:
        theirs, ours = (f"{n} fragments" if n else "segments without fragments" for n in _counts(entry, graph))
        raise InputError(f"{path} is the log of another segmentation ({theirs}, here {ours}); give another --log")


def _counts(entry: dict[str, Any], graph: FragmentGraph | None) -> tuple[Any, Any]:
    return entry.get("fragments"), table_of(graph)["fragments"]


def _edit(entry: dict[str, Any]) -> Edit:
    try:
        away = tuple(int(one) for one in entry.get("away", ()))
        return Edit(entry["op"], int(entry.get("a", 0)), int(entry.get("b", 0)), away)
    except InputError as error:
        raise ValueError(str(error)) from None


def edits_of(path: Path, graph: FragmentGraph | None, done: Sequence[Edit]) -> Edits:
    """Return the table after a log.

    Raises
    ------
    InputError : an entry cannot be done, which names it
    """
    edits = Edits(None if graph is None else graph.segments)
    for number, edit in enumerate(done, start=2):
        try:
            edits.do(edit)
        except InputError as error:
            raise InputError(f"{path} line {number}: {error}") from None
    return edits


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in containers
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"
