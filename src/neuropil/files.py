"""Small files that are whole or not there, on a disk or in a bucket.

A `Place` is a file or folder as `pathlib.Path` has it; `neuropil.volume.objects.ObjectPath` is one in a bucket. On a
disk a file is written beside its place and renamed; an object of a bucket is whole by nature.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol, Self

SEGMENT = 256
"""Lines of one object: it is written anew with every line."""


class Place(Protocol):
    """What local files and objects of a bucket have in common."""

    @property
    def name(self) -> str: ...
    @property
    def parent(self) -> Self: ...
    def __truediv__(self, name: str, /) -> Self: ...
    def with_suffix(self, suffix: str, /) -> Self: ...
    def absolute(self) -> Self: ...
    def exists(self) -> bool: ...
    def read_bytes(self) -> bytes: ...
    def read_text(self) -> str: ...
    def unlink(self, missing_ok: bool = False) -> None: ...


class Bucket(Place, Protocol):
    """What only objects of a bucket have."""

    def write_bytes(self, data: bytes, /) -> object: ...
    def swap(self, before: bytes | None, after: bytes, /) -> bool: ...
    def names(self) -> list[str]: ...
    def clear(self, keep: str = "", /) -> None: ...


def cache_folder() -> Path:
    """Return the folder for what can be made or fetched again: $XDG_CACHE_HOME/neuropil, else ~/.cache/neuropil."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "neuropil"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; what is there when the block ends takes the place of `path`, and nothing if it fails."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def writing(place: Place) -> Iterator[IO[bytes]]:
    """Give an open file; what was written is at `place`, whole, when the block ends, and nothing if it fails."""
    if isinstance(place, Path):
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as part, part.open("wb") as file:
            yield file
    else:
        buffer = io.BytesIO()
        yield buffer
        _bucket(place).write_bytes(buffer.getvalue())


def write_text(place: Place, text: str) -> None:
    """Write a text file, UTF-8."""
    with writing(place) as file:
        file.write(text.encode())


def write_json(place: Place, data: Any) -> None:
    """Write a JSON file; NaN and infinities, which JSON does not have, become null, and paths become text."""
    write_text(place, json.dumps(_without_nan(data), indent=1, default=str) + "\n")


def swap(place: Place, before: bytes | None, after: bytes) -> bool:
    """Write a file if it holds `before`, or if it is not there for None; tell whether it was written.

    On a disk nobody can come between where it was not there. S3 is asked first and then told, so of two who begin
    within milliseconds both may be told that they wrote it; who looks again knows.
    """
    if not isinstance(place, Path):
        return _bucket(place).swap(before, after)
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        if before is not None and place.read_bytes() != before:
            return False
        part.write_bytes(after)
        if before is None:
            _give_name(part, place)
        else:
            os.replace(part, place)
    except (FileExistsError, FileNotFoundError):
        return False
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
    return True


def remove_folder(place: Place, first: str, keep: str = "") -> None:
    """Delete a folder with all that is in it, the file `first` first; the file `keep` stays, if one is named."""
    (place / first).unlink(missing_ok=True)
    if not isinstance(place, Path):
        _bucket(place).clear(keep)
    elif place.exists():
        for path in list(place.iterdir()):
            if path.name != keep:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not keep:
            place.rmdir()


class Lines:
    """A list of lines that grows, and of which each line is kept as soon as `add` returns; one process writes.

    On a disk it is a file, in a bucket a folder of objects with some lines each.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._last: tuple[int, bytes] | None = None  # the object that lines are added to

    def add(self, line: str) -> None:
        """Keep one more line."""
        text = line.encode() + b"\n"
        if isinstance(self._place, Path):
            if self._last is None and self._place.exists():
                os.truncate(self._place, len(self._whole()))  # a line that was being written when a process died
            self._last = (0, b"")
            with self._place.open("ab") as file:
                file.write(text)
            return
        if self._last is None:
            names = _bucket(self._place).names()
            self._last = (len(names) - 1, (self._place / names[-1]).read_bytes()) if names else (0, b"")
        number, known = self._last
        if known.count(b"\n") >= SEGMENT:
            number, known = number + 1, b""
        _bucket(self._place / f"{number:06}").write_bytes(known + text)
        self._last = number, known + text

    def read(self) -> list[str]:
        """Return the lines, but for a last one that was being written when a process died."""
        return self._whole().decode().splitlines()

    def _whole(self) -> bytes:
        if not isinstance(self._place, Path):
            return b"".join((self._place / name).read_bytes() for name in _bucket(self._place).names())
        text = self._place.read_bytes() if self._place.exists() else b""
        return text[: text.rfind(b"\n") + 1]


def _give_name(part: Path, place: Path) -> None:
    """Give a file a name that nothing has."""
    try:
        os.link(part, place)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if place.exists():
            raise FileExistsError from None
        os.replace(part, place)


def _bucket(place: Any) -> Bucket:
    """Say to the type checker that what is no local path lies in a bucket."""
    bucket: Bucket = place
    return bucket


def _without_nan(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _without_nan(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_without_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
