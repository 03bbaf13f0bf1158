"""What `neuropil run` will take, told beforehand: blocks, memory, time, disk; and what cannot be is refused.

Nothing of it is guessed from formulas. A small part from the middle of the user's own data goes through the whole
pipeline twice, in smaller blocks of two sizes, in a worker like those of the run; from these two every figure is
carried on to blocks of the wanted size. Memory of a step is a constant and so much per voxel; steps that climb go by
the surface of their boxes, since what lies inside is settled. Time per voxel is a constant and a part for surfaces.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from pathlib import Path
from statistics import fmean
from typing import Any

from neuropil.errors import InputError
from neuropil.geometry import Box, grid
from neuropil.machine import available_memory
from neuropil.progress import duration
from neuropil.stages import StageResult
from neuropil.stages.common import sidecar
from neuropil.stages.run import check, execute, opened, part_of
from neuropil.stages.run_config import Config
from neuropil.stages.run_files import chunk_of
from neuropil.stages.run_order import CLIMBING
from neuropil.stages.run_output import ALONE, labels_place
from neuropil.stages.run_pool import SHARE, pool_of, workers_of
from neuropil.volume import open_volume
from neuropil.volume.pyramid import plan_pyramid
from neuropil.volume.uri import parse_uri
from neuropil.volume.volume import backend_of

UNEVEN = 0.25
"""Parts of a volume differ from its middle by about so much."""
SEEN = (32, 192, 192)
"""Voxels z, y, x that a network is tried on at least, for it sees about so much at once."""
LOST = 0.7
"""Share of their speed that several workers keep at least, for they share memory and disk."""


@dataclass(frozen=True)
class Trial:
    """What a part of the data cost, in blocks of one size.

    Attributes
    ----------
    block, shape : voxels z, y, x
    seconds, peaks : per step: for so many voxels; bytes of a block of full size
    largest : voxels of the largest box, per step
    scratch, output : bytes of the work folder, and of what is handed over
    files : in the work folder: of a block, of a larger box, and of the whole
    output_files : of what will be handed over, of the whole
    """

    block: tuple[int, ...]
    shape: tuple[int, ...]
    seconds: dict[str, float]
    peaks: dict[str, float]
    largest: dict[str, int]
    scratch: int
    output: int
    files: tuple[float, float, int]
    output_files: int


@dataclass(frozen=True)
class StepPlan:
    """One step of the run: boxes, bytes of a worker, seconds on all workers, least and most."""

    name: str
    boxes: int
    memory: float
    seconds: tuple[float, float]


def plan_pipeline(config: Config) -> StageResult:
    """Try, carry on, tell; refuse what does not fit.

    Raises
    ------
    InputError : too little memory or disk, too many files
    """
    check(config)
    box, _ = part_of(config)
    small, large = (_trial(config, box, cut) for cut in (4, 2))
    workers, room = workers_of(config)
    steps = plan_steps(small, large, config.block, box.shape, workers)
    voxels, tried = box.size, prod(large.shape)
    output = round(large.output / tried * voxels)
    copied = _copied(config, box.shape) * output
    data = {
        "steps": [vars(step) for step in steps],
        "workers": workers,
        "memory": max(step.memory for step in steps),
        "seconds": [sum(step.seconds[k] for step in steps) for k in (0, 1)],
        "scratch_bytes": round(large.scratch / tried * voxels) + copied,
        "output_bytes": output,
        "files": _files(config, small, box.shape),
        "output_files": small.output_files,
    }
    refuse_what_does_not_fit(config, data, room)
    return StageResult("\n".join(_lines(config, box, data, steps)), data)


def _files(config: Config, trial: Trial, shape: Sequence[int]) -> int:
    """Return how many files there will be in the work folder, chunks of volumes among them."""
    block = tuple(map(min, config.block, shape))
    blocks, *above = counts_of_boxes(shape, block)
    pieces = 0 if config.fragments is None else prod(ceil(n / c) for n, c in zip(shape, chunk_of(block)))
    of_block, of_box, of_whole = trial.files
    return ceil((of_block + _copied(config, shape)) * blocks + of_box * sum(above)) + of_whole + pieces


def _copied(config: Config, shape: Sequence[int]) -> bool:
    """Tell whether labels are written into the work folder first."""
    return labels_place(config.output, Path(), tuple(map(min, config.block, shape)))[1] is None


def counts_of_boxes(shape: Sequence[int], block: Sequence[int]) -> list[int]:
    """Return the number of blocks, and of boxes of each level; one that is a box of the level below is none.

    >>> counts_of_boxes((8, 40, 40), (8, 8, 8))
    [25, 8, 3, 1]
    """
    counts = [prod(ceil(n / b) for n, b in zip(shape, block))]
    size = list(block)
    while any(b < n for b, n in zip(size, shape)):
        last = all((n - 1) % (2 * b) < b for n, b in zip(shape, size))
        size = [2 * b for b in size]
        counts.append(prod(ceil(n / b) for n, b in zip(shape, size)) - last)
    return counts


def plan_steps(small: Trial, large: Trial, block: Sequence[int], shape: Sequence[int], workers: int) -> list[StepPlan]:
    """Carry two trials on to a run.

    Parameters
    ----------
    small, large : trials in blocks of two sizes
    block, shape : voxels z, y, x of a block of the run, and of the volume
    workers : how many there will be
    """
    block = tuple(map(min, block, shape))
    steps, voxels, counts = [], prod(shape), counts_of_boxes(shape, block)
    for name in large.seconds:
        base, number = _parted(name)
        climbing = base in CLIMBING and number > 0
        boxes = [(name, block, number)]
        if climbing and number == 1:
            boxes = [(f"{base} {k}", block, k) for k in range(1, len(counts))]
        elif climbing:
            continue
        for label, size, level in boxes:
            extent = [min(n << level, end) for n, end in zip(size, shape)] if climbing else list(size)
            count = counts[level] if climbing else counts[0]
            memory = _carried(small, large, name, prod(extent), climbing)
            low, high = _per_voxel(small, large, name, prod(block))
            share = 0.5 ** (level - 1) if climbing else 1.0  # half the surface a level up
            at_once = min(workers, count)
            busy = at_once * (LOST if at_once > 1 else 1)
            steps.append(StepPlan(label, count, memory, (low * share * voxels / at_once, high * share * voxels / busy)))
    return steps


def _parted(name: str) -> tuple[str, int]:
    """Return a step's name without its number, and that, 0 if there is none."""
    match = re.fullmatch(r"(.*) (\d+)", name)
    return (match[1], int(match[2])) if match else (name, 0)


def _carried(small: Trial, large: Trial, name: str, voxels: int, climbing: bool) -> float:
    """Return the bytes of a worker for a box of so many voxels."""
    power = 2 / 3 if climbing else 1.0
    a, b = (trial.largest.get(name, 1) ** power for trial in (small, large))
    low, high = (trial.peaks.get(name, 0.0) for trial in (small, large))
    slope = max(0.0, (high - low) / (b - a)) if b != a and low else 0.0
    return float(high + slope * max(0.0, voxels**power - b))


def _per_voxel(small: Trial, large: Trial, name: str, voxels: int) -> tuple[float, float]:
    """Return seconds per voxel, least and most: with surfaces and without, and more or less by how parts differ."""
    rates = [trial.seconds.get(name, 0.0) / prod(trial.shape) for trial in (small, large)]
    lengths = [prod(trial.block) ** (1 / 3) for trial in (small, large)]
    if lengths[0] == lengths[1]:  # a volume of a few voxels
        return rates[1] * (1 - UNEVEN), rates[1] * (1 + UNEVEN)
    limit = (rates[1] * lengths[1] - rates[0] * lengths[0]) / (lengths[1] - lengths[0])
    surface = (rates[0] - rates[1]) / (1 / lengths[0] - 1 / lengths[1])
    carried = max(limit + surface / voxels ** (1 / 3), rates[1] / 3)
    low, high = sorted((carried, rates[1]))
    return low * (1 - UNEVEN), high * (1 + UNEVEN)


def _trial(config: Config, box: Box, cut: int) -> Trial:
    """Run a part from the middle, in blocks that are `cut` times shorter along each axis."""
    block = tuple(max(1, min(n, end) // cut) for n, end in zip(config.block, box.shape))
    least = (1, 1, 1) if config.weights is None else SEEN
    wanted = [max(n // 4 * 4 // k, m) for n, k, m in zip(config.block, (1, 2, 2), least)]
    shape = tuple(min(max(1, n), end) for n, end in zip(wanted, box.shape))
    start = [a + (end - n) // 2 for a, end, n in zip(box.start, box.shape, shape)]
    ranges = tuple((a, a + n) for a, n in zip(start, shape))
    with tempfile.TemporaryDirectory(prefix=".plan-", dir=_folder(config)) as name:
        # What has to end in another format costs about what zarr does.
        output, kept = f"{name}/output.zarr", None if config.prediction is None else f"{name}/prediction.zarr"
        pieces = None if config.fragments is None else f"{name}/fragments.zarr"
        change = {"output": output, "prediction": kept, "fragments": pieces, "box": ranges, "block": block}
        here = {"cluster": None, "scheduler": None, "workers": 1, "worker_memory": None}
        tried = config.model_copy(update=change | here)
        with opened(tried) as ledger:
            execute(tried, pool_of(tried), ledger)
        work = sidecar(output, "unfinished")
        entries = [json.loads(line) for line in (work / "done.jsonl").read_text().splitlines()]
        scratch, files = _on_disk(work), _per_box(work, Box.of_shape(shape), block, entries)
        pairs = ((config.output, output), (config.fragments, pieces), (config.prediction, kept))
        made = [(target, one) for target, one in pairs if target is not None and one is not None]
        output_bytes = sum(_on_disk(Path(one)) for _, one in made)
        output_files = sum(_files_of(config, target, one, box.shape, f"{name}/empty") for target, one in made)
    found: dict[str, list[tuple[float, int]]] = {}
    held: dict[str, list[tuple[int, float]]] = {}
    for entry in entries:
        step, size = entry["step"], prod(b - a for a, b in zip(entry["start"], entry["stop"]))
        found.setdefault(step, []).append((entry["seconds"] / size, size))
        held.setdefault(step, []).append((size, entry.get("peak_mb", 0) * 1e6))
    seconds = {step: _usual(known) for step, known in found.items()}
    # Of blocks of full size the one with least: the first one also holds what a worker loads once.
    peaks = {step: min(peak for size, peak in known if size == max(known)[0]) for step, known in held.items()}
    largest = {step: max(size for _, size in known) for step, known in found.items()}
    return Trial(block, shape, seconds, peaks, largest, scratch, output_bytes, files, output_files)


def _usual(known: list[tuple[float, int]]) -> float:
    """Return the seconds of blocks, given per voxel, but for what a worker loads at its first one, the slowest."""
    rates = sorted(rate for rate, _ in known)
    return fmean(rates[: max(1, len(rates) - 1)]) * sum(size for _, size in known)


def _on_disk(folder: Path) -> int:
    """Return the bytes of the files below a folder, but for metadata, which do not grow."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".json")


def _per_box(
    folder: Path, whole: Box, block: Sequence[int], entries: Sequence[dict[str, Any]]
) -> tuple[float, float, int]:
    """Return the files in a work folder for a block, chunks of blocks included, for a box of several, for the whole."""
    boxes = list(grid(whole, block))
    names = {"_".join(map(str, facts)) for box in boxes for facts in (box.start, (*box.start, *box.shape))}
    paths = [path for path in folder.rglob("*") if path.is_file() and path.parent != folder]
    within = [path.relative_to(folder).parts for path in paths if path.suffix != ".json"]
    chunks = sum(parts[0].endswith(".zarr") and parts[0] != "fragments.zarr" for parts in within)
    files = [parts[-1].partition(".")[0] for parts in within if not parts[0].endswith(".zarr")]
    own = sum(name in names for name in files)
    levels = [_parted(entry["step"]) for entry in entries]
    above = {(*e["start"], *e["stop"]) for e, (base, number) in zip(entries, levels) if base in CLIMBING and number}
    single = sum(path.is_file() and path.suffix != ".json" for path in folder.iterdir())
    return (own + chunks) / len(boxes), (len(files) - own) / max(1, len(above)), single


def _files_of(config: Config, target: str, made: str, shape: tuple[int, ...], empty: str) -> int:
    """Return how many files a volume will have at its place, like one that was made, but of the whole shape.

    An empty one is made there, whose chunks tell.
    """
    place, labels = parse_uri(target), target == config.output
    if place.format in ALONE:
        return shape[0] if place.format == "sections" else 1
    place = replace(place, path=empty, dataset="")
    chunk = labels_place(target, Path(), tuple(map(min, config.block, shape)))[1] if labels else None
    with open_volume(made) as like:
        facts = {"shape": (*like.shape[:-3], *shape), "dtype": like.dtype, "metadata": like.metadata}
    with backend_of(place).create_volume(place, chunk_shape=chunk, **facts) as volume:
        chunk = volume.chunk_shape
    factors = plan_pyramid(place, config.levels).factors if labels and config.levels else ()
    shutil.rmtree(empty)
    files = int(prod(ceil(n / c) for n, c in zip(shape, chunk)))
    for factor in factors:
        shape = tuple(ceil(n / f) for n, f in zip(shape, factor))
        files += prod(ceil(n / c) for n, c in zip(shape, chunk))
    return files


def _folder(config: Config) -> Path:
    """Return the folder, which exists, that the output and the work folder will be in; here if that is a bucket."""
    folder = sidecar(config.output, "unfinished").absolute().parent
    while not folder.exists():
        folder = folder.parent
    return folder


def refuse_what_does_not_fit(config: Config, data: dict[str, Any], room: float) -> None:
    """Compare with what there is.

    Parameters
    ----------
    config : of the run
    data : of the plan
    room : bytes that a worker may take

    Raises
    ------
    InputError : names what is too little, and what to turn
    """
    need, workers = data["memory"], data["workers"]
    if need > room:
        here = config.cluster is None and config.scheduler is None
        fewer = int(SHARE * available_memory() // need) if here and config.worker_memory is None else 0
        turn = f"--workers {fewer}" if fewer else "a smaller --block, or more memory for each worker"
        raise InputError(
            f"a worker would need {need / 1e9:.2f} GB and may take {room / 1e9:.2f} GB ({workers} workers); give {turn}"
        )
    if parse_uri(config.output).remote:  # a bucket has room
        return
    disk = os.statvfs(_folder(config))
    wanted = data["scratch_bytes"] + data["output_bytes"]
    free = disk.f_bavail * disk.f_frsize
    if wanted > free:
        raise InputError(
            f"the run would write {wanted / 1e9:.1f} GB beside {config.output}, where {free / 1e9:.1f} GB are free;"
            " give an --output on a larger disk, or run --box after --box"
        )
    files = data["files"] + data["output_files"]
    if disk.f_files and files > disk.f_favail:
        raise InputError(
            f"the run would write {files} files beside {config.output}, where {disk.f_favail} more can be;"
            " give a larger --block, or an --output on another disk"
        )


def _lines(config: Config, box: Box, data: dict[str, Any], steps: Sequence[StepPlan]) -> list[str]:
    """Say it as a table."""
    block, workers = tuple(map(min, config.block, box.shape)), data["workers"]
    lines = [f"{config.input}: {box.shape}, blocks of {block}, {workers} workers", ""]
    lines.append(f"{'step':20} {'blocks':>8} {'GB a worker':>12} {'time':>20}")
    for step in steps:
        low, high = map(duration, step.seconds)
        lines.append(f"{step.name:20} {step.boxes:8} {step.memory / 1e9:12.2f} {low + ' to ' + high:>20}")
    low, high = map(duration, data["seconds"])
    return [
        *lines,
        f"{'in all':20} {'':8} {data['memory'] / 1e9:12.2f} {low + ' to ' + high:>20}",
        "",
        f"on the way {data['scratch_bytes'] / 1e9:.2f} GB in about {data['files']} files;"
        f" output {data['output_bytes'] / 1e9:.2f} GB in about {data['output_files']}",
    ]
