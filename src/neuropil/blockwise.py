"""Read, compute and write the blocks of a volume, and remember which are done.

The ledger is a folder beside the output. It holds the parameters of the run and one line per finished block, written
after the block's data are on disk. So the same command continues after any interruption, and a command with other
parameters is refused by name instead of mixing with old blocks.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from neuropil.errors import RunMismatch
from neuropil.files import write_json
from neuropil.geometry import Box
from neuropil.progress import Progress

log = logging.getLogger("neuropil")
T = TypeVar("T")
U = TypeVar("U")


class Ledger:
    """What is done of one run, in `folder`.

    Parameters
    ----------
    folder : made if it is not there
    parameters : JSON-able, whatever decides the result
    fresh : forget what the folder holds

    Raises
    ------
    RunMismatch : the folder holds blocks made with other parameters
    """

    def __init__(self, folder: Path, parameters: dict[str, Any], *, fresh: bool = False) -> None:
        self.folder = folder
        self._path = folder / "done.jsonl"
        if fresh:
            self.remove()
        parameters = json.loads(json.dumps(parameters))
        if (folder / "parameters.json").exists():
            self._check(parameters)
        else:
            self._start(parameters)
        self.done = self._read()

    def record(self, name: str, box: Box, seconds: float) -> None:
        """Mark one block of the step `name` as done; its data must be on disk already."""
        line = json.dumps({"step": name, "start": box.start, "stop": box.stop, "seconds": round(seconds, 3)})
        with self._path.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.done.add((name, box))

    def forget(self, name: str) -> None:
        """Take the blocks of one step for not done, because its data are not there."""
        self.done = {(step, box) for step, box in self.done if step != name}

    def remove(self) -> None:
        """Delete the folder; it is renamed first, so that one half deleted is never taken for unfinished work."""
        if self.folder.exists():
            gone = self.folder.with_name(f".{self.folder.name}.removed")
            shutil.rmtree(gone, ignore_errors=True)
            os.replace(self.folder, gone)
            shutil.rmtree(gone)

    def _start(self, parameters: dict[str, Any]) -> None:
        self.remove()
        self.folder.mkdir(parents=True)
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

    def _read(self) -> set[tuple[str, Box]]:
        """Read what is done; a last line that was being written when the process died is cut off."""
        if not self._path.exists():
            return set()
        text = self._path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            os.truncate(self._path, len(whole))
        entries = [json.loads(line) for line in whole.splitlines()]
        return {(entry["step"], Box(tuple(entry["start"]), tuple(entry["stop"]))) for entry in entries}


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
