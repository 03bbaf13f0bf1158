"""Read what commands noted beside their outputs in a run folder: time, memory, steps, and what `tune` found.

    RUN/.../OUTPUT.json                   of predict, segment, run and others: command, seconds, peak_mb, voxels, steps
    RUN/.../OUTPUT.unfinished/done.jsonl  of a command that is running or was stopped: one line per finished block
    RUN/.../FOUND.json                    of tune: rows

Files of the folder and of the folders in it are looked at; JSON of other programs is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuropil.errors import VolumeError
from neuropil.files import Lines, Place
from neuropil.report.data import StageTime, Sweep

_ABOUT = ("input", "truth", "sections", "score", "check_input", "check_sections")


def collect_stages(run: Path, unfinished: Mapping[str, Place] | None = None) -> tuple[StageTime, ...]:
    """Return what the commands of a run took, in the order in which they ended, then those that have not.

    Parameters
    ----------
    run : folder of outputs
    unfinished : work folders that lie elsewhere, by the name of the output

    >>> collect_stages(Path("no/run"))
    ()
    """
    done = [_stage(run, path, record) for path, record in _records(run)]
    near = sorted(path.parent for path in _near(run, "*.unfinished/done.jsonl"))
    folders = {folder.relative_to(run).with_suffix("").as_posix(): folder for folder in near}
    return (*done, *(_unfinished(name, folder) for name, folder in (folders | dict(unfinished or {})).items()))


def collect_sweeps(run: Path) -> tuple[Sweep, ...]:
    """Return the sweeps of `neuropil tune` whose output lies in a run."""
    return tuple(
        Sweep(
            path.relative_to(run).with_suffix("").as_posix(),
            tuple(record["rows"]),
            {key: record["config"][key] for key in _ABOUT if record["config"].get(key) is not None},
        )
        for path, record in _records(run)
        if record["command"] == "tune" and record.get("rows")
    )


def _near(run: Path, pattern: str) -> list[Path]:
    return [*run.glob(pattern), *run.glob(f"*/{pattern}")]


def _records(run: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return what commands left, the oldest first."""
    found: list[tuple[Path, dict[str, Any]]] = []
    for path in sorted(_near(run, "*.json"), key=lambda path: path.stat().st_mtime):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise VolumeError(f"{path} is not readable JSON: {error}; run the command that wrote it again") from None
        if isinstance(content, dict) and isinstance(content.get("command"), str) and "seconds" in content:
            found.append((path, {"config": {}} | content))
    return found


def _stage(run: Path, path: Path, record: Mapping[str, Any]) -> StageTime:
    return StageTime(
        name=f"{record['command']} {path.relative_to(run).with_suffix('').as_posix()}",
        seconds=float(record["seconds"]),
        peak_mb=record.get("peak_mb") or None,
        voxels=record.get("voxels"),
        steps=tuple(_step(name, one) for name, one in (record.get("steps") or {}).items()),
    )


def _step(name: str, told: Mapping[str, Any]) -> StageTime:
    return StageTime(name, float(told["seconds"]), told.get("peak_mb") or None, blocks=int(told["blocks"]))


def _unfinished(name: str, folder: Place) -> StageTime:
    """Add up the blocks of a ledger."""
    steps: dict[str, dict[str, Any]] = {}
    for block in map(json.loads, Lines(folder / "done.jsonl").read()):
        step = steps.setdefault(block["step"], {"blocks": 0, "seconds": 0.0, "peak_mb": 0})
        step["blocks"] += 1
        step["seconds"] += block["seconds"]
        step["peak_mb"] = max(step["peak_mb"], block.get("peak_mb", 0))
    made = tuple(_step(step, one) for step, one in steps.items())
    return StageTime(name, sum(one.seconds for one in made), steps=made, unfinished=True)
