"""What blocks cost, and what they survive: `neuropil run` beside `neuropil segment`, on one worker and on two.

    python benchmarks/scale/run.py [--quick] [--measure NAMES] [--repeats N] [--json FILE]

Affinities of synthetic tissue, bytes on disk, mirrored to the wanted size. Whole and blocks are timed by the clock, in
turn, as a user waits for them, but without the start of the interpreter and of the cluster's processes, which a volume
worth the name does not notice (`start_s` says how long that takes). `chunked_overhead` is the time in blocks, one after
the other in this process, over that of the whole in one thread, less 1 (in both, files are read and written by further
threads); `chunked_overhead_cpu` is the same in seconds of the processor, which other work disturbs less.
`scaling_2_workers` compares one worker with two; `cores_one_worker` is what a run with one keeps busy, with the
process that gives it blocks, so that two cores allow no more than twice as much. Both work on half a Gvoxel, unless
`--shape` says otherwise, for on less they load what they need for a good part of the time. `two_runs_at_once` is what
the machine allows: how much more two runs of one process each get done side by side, which share nothing but its
memory. `blocks_a_second` are empty blocks that this process gives to two workers and notes as done.
`memory_slope_mb_per_gvox` is fitted to the peak of a worker over volumes of growing size in blocks of one size,
`driver_slope_mb_per_gvox` to that of this process, which gives them out; the largest, 2 Gvoxel, takes 20 GB of disk.
`kills_survived` counts kill -9 of a worker or of the whole run, at random moments, after which the same command went on
and the output was equal to the byte; `full_disks_survived` a file system that was full in the middle, and larger when
the command was given again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "segmentation"))
from volumes import NEAREST, tissue

from neuropil.blockwise import dask_pool, open_ledger
from neuropil.clusters import one_thread_each
from neuropil.geometry import Box, grid
from neuropil.machine import forget_peak, peak_resident
from neuropil.stages import run, segment
from neuropil.tasks import run_tasks
from neuropil.volume import create_volume, exists, open_volume

HOW = {"low": 0.1, "high": 0.99, "size": 64, "dust": 64, "merge_threshold": 0.5}
WORKED = (256, 1024, 2048), (64, 512, 512)  # with what workers are measured: a minute's work, in the usual blocks
WORDS = [word for key, value in HOW.items() for word in (f"--{key.replace('_', '-')}", str(value))]


def stored(folder: Path, shape: tuple[int, int, int]) -> str:
    """Write affinities of a size; return their URI."""
    uri = f"{folder}/affinities_{'x'.join(map(str, shape))}.zarr"
    if exists(uri):
        return uri
    tile = np.round(255 * tissue(128, NEAREST, np.random.default_rng(0))).astype(np.uint8)
    facts = {"kind": "affinities", "offsets": NEAREST, "scale": 1 / 255, "chunk_shape": (32, 64, 64)}
    places = [np.minimum(np.arange(n) % 256, 255 - np.arange(n) % 256) for n in shape]
    with create_volume(uri, shape=(3, *shape), dtype="uint8", **facts) as volume:
        for first in range(0, shape[0], 32):  # a slab at a time, for the largest do not fit into memory
            z = places[0][first : first + 32]
            box = Box((first, 0, 0), (first + z.size, *shape[1:]))
            volume.write(box, tile[:, z][:, :, places[1]][..., places[2]])
    return uri


def clock(work: Callable[[], object]) -> tuple[float, float]:
    """Return seconds by the clock, and of all threads of this process, which other work does not lengthen as much."""
    start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def in_blocks(uri: str, out: Path, block: tuple[int, int, int], **options: object) -> dict:
    """Segment in blocks; return what the run says of itself."""
    config = run.Config(input=uri, output=str(out), block=block, overwrite=True, fresh=True, **HOW, **options)
    return run.run(config).data


def whole(uri: str, out: Path) -> None:
    segment.run(segment.Config(input=uri, output=str(out), method="mean", threads=1, overwrite=True, **HOW))


def measure_overhead(figures: dict, folder: Path, shape: tuple, block: tuple, repeats: int) -> None:
    uri = stored(folder, shape)
    small = stored(folder, (8, 32, 32))  # compiles what is not compiled yet
    whole(small, folder / "whole.zarr")
    in_blocks(small, folder / "blocks.zarr", (4, 16, 16), executor="serial")
    took = []
    for _ in range(repeats):
        once = clock(lambda: whole(uri, folder / "whole.zarr"))
        parts = clock(lambda: in_blocks(uri, folder / "blocks.zarr", block, executor="serial"))
        took.append((*once, *parts))
    assert equal(folder / "whole.zarr", folder / "blocks.zarr")
    one, one_cpu, many, many_cpu = (statistics.median(column) for column in zip(*took))
    figures |= {
        "mvox": np.prod(shape) / 1e6,
        "whole_s": one,
        "blocks_s": many,
        "whole_cpu_s": one_cpu,
        "blocks_cpu_s": many_cpu,
        "chunked_overhead": many / one - 1,
        "chunked_overhead_cpu": many_cpu / one_cpu - 1,
    }


def measure_workers(figures: dict, folder: Path, shape: tuple, block: tuple, repeats: int) -> None:
    """Time between the first block and the last, so without the start of processes; by turns."""
    uri = stored(folder, shape)
    in_blocks(stored(folder, (8, 32, 32)), folder / "blocks.zarr", (4, 16, 16), workers=1)  # loads what is loaded once
    times: dict[int, list[float]] = {1: [], 2: []}
    cores = []
    for turn in range(repeats):
        for workers in (1, 2) if turn % 2 == 0 else (2, 1):
            before = cpu_seconds()
            start = clock(lambda w=workers: times[w].append(run_seconds(uri, folder, block, w)))
            figures["start_s"] = start[0] - times[workers][-1]
            if workers == 1:
                cores.append((cpu_seconds() - before) / start[0])
    one, two = (statistics.median(times[workers]) for workers in (1, 2))
    figures |= {"one_worker_s": one, "two_workers_s": two, "cores_one_worker": statistics.median(cores)}
    figures["scaling_2_workers"] = one / two
    pairs = [[runs_at_once(uri, folder, block, count) for count in (1, 2)] for _ in range(repeats)]
    figures["two_runs_at_once"] = statistics.median(2 * alone / both for alone, both in pairs)


def runs_at_once(uri: str, folder: Path, block: tuple, count: int) -> float:
    """Return the seconds in blocks of runs of one process each that know nothing of each other, side by side."""
    outs = [folder / f"alone{k}.zarr" for k in range(count)]
    words = ["--block", ",".join(map(str, block)), "--executor", "serial", "--overwrite", "--fresh", "--quiet", *WORDS]
    start = [sys.executable, "-m", "neuropil", "run", "--input", uri]
    processes = [subprocess.Popen([*start, "--output", str(out), *words]) for out in outs]
    if any(process.wait() for process in processes):
        raise SystemExit("a run failed")
    return statistics.mean(json.loads(Path(f"{out}.json").read_text())["seconds_in_blocks"] for out in outs)


def cpu_seconds() -> float:
    """Return the processor's time of this process and of those that it started and that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def run_seconds(uri: str, folder: Path, block: tuple, workers: int) -> float:
    return in_blocks(uri, folder / "blocks.zarr", block, workers=workers)["seconds_in_blocks"]


def measure_blocks(figures: dict, folder: Path, count: int) -> None:
    """Give out blocks in which nothing is done: what the scheduler and this process take for each."""
    boxes = list(grid(Box.of_shape((1, 1, count)), (1, 1, 1)))
    with one_thread_each(), dask_pool(2) as pool:
        for name in ("first", "again"):  # the second time all is loaded
            with open_ledger(folder / name, {}) as ledger:
                took = clock(lambda name=name, ledger=ledger: run_tasks(ledger, name, boxes, repr, pool))[0]
    figures["blocks_a_second"] = count / took


def measure_memory(figures: dict, folder: Path, shapes: list[tuple], block: tuple) -> None:
    """Fit the peaks of workers, and of this process, which gives them their blocks."""
    peaks, driver, sizes = [], [], [np.prod(shape) / 1e9 for shape in shapes]
    for shape, size in zip(shapes, sizes):
        with ProcessPoolExecutor(1, get_context("spawn")) as other:  # what it takes to write it is not the driver's
            uri = other.submit(stored, folder, shape).result()
        forget_peak()
        data = in_blocks(uri, folder / "blocks.zarr", block, workers=2)
        driver.append(peak_resident() / 1e6)
        peaks.append(max(step["peak_mb"] for step in data["steps"].values()))
        figures |= {f"worker_peak_mb_{size:.3f}_gvox": peaks[-1], f"driver_peak_mb_{size:.3f}_gvox": driver[-1]}
        figures[f"seconds_{size:.3f}_gvox"] = data["seconds"]
        shutil.rmtree(uri)  # the next one needs the room
    figures["memory_slope_mb_per_gvox"] = float(np.polyfit(sizes, peaks, 1)[0])
    figures["driver_slope_mb_per_gvox"] = float(np.polyfit(sizes, driver, 1)[0])


def measure_kills(figures: dict, folder: Path, shape: tuple, block: tuple, kills: int) -> None:
    """Kill workers and the run itself so many times, over as many runs as end meanwhile; each must equal a calm one."""
    uri, rng = stored(folder, shape), random.Random(0)
    in_blocks(uri, folder / "calm.zarr", block, workers=2)
    out = folder / "killed.zarr"
    words = [sys.executable, "-m", "neuropil", "run", "--input", uri, "--output", str(out), "--workers", "2", *WORDS]
    words += ["--block", ",".join(map(str, block)), "--quiet", "--overwrite"]
    start = time.monotonic()
    subprocess.run(words, check=True)
    usual = time.monotonic() - start
    done = ended = 0
    while done < kills or not ended:
        process = subprocess.Popen(words, start_new_session=True, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and done < kills:
            time.sleep(rng.random() * usual)
            if process.poll() is not None:
                break
            children = [one for one in psutil.Process(process.pid).children(recursive=True) if "spawn" in cmdline(one)]
            if rng.random() < 0.5 and children:
                rng.choice(children).kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            done, ended = done + 1, 0
        error = process.communicate()[1]
        if process.returncode > 0:
            raise SystemExit(f"a run that was killed did not go on: {error}")
        if process.returncode == 0:  # the next one begins anew
            assert equal(folder / "calm.zarr", out), "the output differs after kills"
            ended += 1
    figures |= {"kills_survived": done}


def measure_full(figures: dict, folder: Path, shape: tuple, block: tuple) -> None:
    """Let the disk of output and work be full in the middle, once: a file system in memory, then a larger one."""
    uri = stored(folder, shape)
    in_blocks(uri, folder / "calm.zarr", block, workers=2)
    disk = folder / "disk"
    disk.mkdir()
    size = int(np.prod(shape)) * 3
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        print("full: skipped, a file system cannot be mounted here")
        return
    try:
        out = disk / "ids.zarr"
        words = [
            sys.executable,
            "-m",
            "neuropil",
            "run",
            "--input",
            uri,
            "--output",
            str(out),
            "--workers",
            "2",
            *WORDS,
        ]
        words += ["--block", ",".join(map(str, block)), "--quiet"]
        first = subprocess.run(words, capture_output=True, text=True)
        assert first.returncode == 2, (first.returncode, first.stderr)
        assert "the disk is full" in first.stderr, first.stderr
        assert not out.exists()
        subprocess.run(["mount", "-o", f"remount,size={20 * size}", str(disk)], check=True)
        subprocess.run(words, check=True)
        figures["full_disks_survived"] = float(equal(folder / "calm.zarr", out))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def cmdline(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def equal(a: Path, b: Path) -> bool:
    with open_volume(str(a)) as one, open_volume(str(b)) as two:
        return np.array_equal(one.read(), two.read())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller volumes, fewer repeats")
    parser.add_argument("--measure", default="overhead,workers,blocks,memory,kills,full", help="some of these")
    parser.add_argument("--repeats", type=int, help="of what is timed; 1 if quick, else 3")
    parser.add_argument("--shape", help="z,y,x of what is timed")
    parser.add_argument("--kills", type=int, help="3 if quick, else 20")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    figures: dict[str, float] = {}
    quick = options.quick
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape, block = ((64, 256, 256), (32, 128, 128)) if quick else ((100, 1024, 1024), (50, 512, 512))
        sizes = [(64, 256, 256), (64, 512, 512)] if quick else [(100, 1024, 1024), (256, 1024, 2048), (512, 2048, 2048)]
        shape = tuple(map(int, options.shape.split(","))) if options.shape else shape
        repeats, small = options.repeats or (1 if quick else 3), quick or options.shape
        works = {
            "overhead": lambda: measure_overhead(figures, folder, shape, block, repeats),
            "workers": lambda: measure_workers(figures, folder, *((shape, block) if small else WORKED), repeats),
            "blocks": lambda: measure_blocks(figures, folder, 200 if quick else 2000),
            "memory": lambda: measure_memory(figures, folder, sizes, block),
            "kills": lambda: measure_kills(
                figures, folder, sizes[0] if quick else shape, block, options.kills or (3 if quick else 20)
            ),
        }
        works["full"] = lambda: measure_full(figures, folder, sizes[0], block)
        for name in options.measure.split(","):
            works[name]()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for key, value in figures.items():
        print(f"{key:34s} {value:10.3f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
