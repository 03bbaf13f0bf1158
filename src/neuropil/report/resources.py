"""The part of the page that says what a run cost: time, memory and speed of each command and of its steps."""

from __future__ import annotations

from collections.abc import Sequence

from neuropil.report.data import ReportData, StageTime
from neuropil.report.markup import count, duration, missing, plain, table, text


def resources_part(data: ReportData) -> str:
    """Return one table of commands and steps, with bars of time and memory; training logs count as commands too."""
    trained = [StageTime(f"train {log.network}", log.seconds) for log in data.training if log.seconds is not None]
    stages = [*trained, *data.stages]
    parts = []
    if stages:
        parts.append(_table(stages))
    if data.timings:
        rows = [[text(key), text(_time(value))] for key, value in data.timings.items()]
        parts.append(table("As noted in run.json", ["step", "time"], rows))
    return "".join(parts) or missing(
        "No command left its time in this folder.", "neuropil predict --output RUN/map.h5:map"
    )


def _table(stages: Sequence[StageTime]) -> str:
    """Return the table; bars compare commands with commands, and steps with the steps of their command."""
    slowest = max(one.seconds for one in stages)
    largest = max((step.peak_mb or 0 for one in stages for step in (one, *one.steps)), default=0)
    rows = []
    for one in stages:
        rows.append(_row(one, slowest, largest))
        longest = max((step.seconds for step in one.steps), default=0.0)
        rows += [_row(step, longest, largest, inner=True) for step in one.steps]
    caption = (
        "What each command took, the oldest first; of its steps, the seconds of all blocks in all processes. Memory is"
        " the most that one process held"
    )
    return table(caption, ["command", "time", "", "memory", "", "Mvoxel/s", "blocks"], rows)


def _row(one: StageTime, slowest: float, largest: float, *, inner: bool = False) -> list[str]:
    name = f'<span class="step">{text(one.name)}</span>' if inner else text(one.name)
    rate = None if one.voxels is None or not one.seconds else f"{one.voxels / one.seconds / 1e6:.3g}"
    return [
        name + (" <small>not finished</small>" if one.unfinished else ""),
        text(duration(one.seconds)),
        _bar(one.seconds, slowest),
        text(None if one.peak_mb is None else _size(one.peak_mb)),
        _bar(one.peak_mb or 0, largest),
        text(rate),
        text(None if one.blocks is None else count(one.blocks)),
    ]


def _bar(value: float, most: float) -> str:
    return f'<span class="meter"><i style="width:{100 * value / most:.1f}%"></i></span>' if most and value else ""


def _size(megabytes: float) -> str:
    return f"{megabytes / 1000:.2f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


def _time(value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return duration(float(value)) if is_number else plain(value)  # type: ignore[arg-type]
