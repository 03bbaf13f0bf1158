"""Run a function over the blocks of a volume, one after the other, and remember which are done.

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
from pathlib import Path
from typing import Any

from neuropil.errors import RunMismatch
from neuropil.files import write_json
from neuropil.geometry import Box
from neuropil.progress import Progress

log = logging.getLogger("neuropil")


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


def run_blocks(ledger: Ledger, name: str, blocks: Sequence[Box], task: Callable[[Box], None]) -> int:
    """Call `task` for every block that the ledger does not know as done under the step `name`.

    `task` must have its data on disk when it returns. Returns the number of blocks that were done before.
    """
    todo = [box for box in blocks if (name, box) not in ledger.done]
    skipped = len(blocks) - len(todo)
    if skipped:
        log.info("%s: %d of %d blocks were done before", name, skipped, len(blocks))
    progress = Progress(name, len(blocks), skipped)
    for box in todo:
        start = time.monotonic()
        task(box)
        ledger.record(name, box, time.monotonic() - start)
        progress.advance()
    return skipped
