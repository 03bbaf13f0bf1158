"""Carry what a small run costs on to volumes of any size: the tables of docs/scale.md.

    python docs/scale.py                     # from the figures that are kept in docs/scale.json
    python docs/scale.py --measure           # measure them anew, on synthetic tissue, in one process
    python docs/scale.py --benchmark scale.json   # seconds per voxel from benchmarks/scale/run.py --json scale.json
    python docs/scale.py --voxels 1e12 --cores 1000

Blocks and voxels are counted. Edges that a box hands up are in proportion to the area of its faces inside the volume,
which the measured levels confirm or not (the page shows both). Everything else is so much per voxel, block or edge.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from math import ceil, log2, prod
from pathlib import Path

import numpy as np

FIGURES = Path(__file__).with_suffix(".json")
EDGE = 48
"""Bytes of an edge on its way up: two clusters, sum, count, rank; see `PartEdges`."""
WORKING = 4
"""Times that a box holds its edges while it merges: as read, united, in the queue, as written."""
TASKS_A_SECOND = 240
"""That one process hands out with Dask's scheduler in it: `benchmarks/scale/run.py --measure blocks`, empty ones."""
LIMITS = {"memory of the top box": 256e9, "memory of the driver": 256e9, "files": 1e9, "one process at the end": 256e9}
"""Bytes of a large node; files that a file system bears."""


@dataclass(frozen=True)
class Figures:
    """What was measured of one run.

    Attributes
    ----------
    block : voxels z, y, x
    seconds_a_voxel : of a core, of all steps that have blocks
    seconds_an_edge : of a core, of the steps that climb
    left_per_face : edges that a box hands up, per voxel of its faces inside the volume, by level from 0
    edges_per_voxel, segments_per_voxel : found in blocks; known at the end
    scratch_per_voxel, output_per_voxel : bytes
    files_per_block, steps : in the work folder; tasks of a block
    driver_per_block : bytes of the ledger and of lists in the process that starts the run
    """

    block: tuple[int, ...]
    seconds_a_voxel: float
    seconds_an_edge: float
    left_per_face: tuple[float, ...]
    edges_per_voxel: float
    segments_per_voxel: float
    scratch_per_voxel: float
    output_per_voxel: float
    files_per_block: float
    steps: int
    driver_per_block: float


@dataclass(frozen=True)
class Level:
    """One level of the hierarchy: boxes, and edges that come into one."""

    level: int
    boxes: float
    edges: float


@dataclass(frozen=True)
class Projection:
    """What a volume takes, in blocks as large as `block`."""

    voxels: float
    blocks: float
    levels: tuple[Level, ...]
    core_hours: float
    scratch_bytes: float
    output_bytes: float
    files: float
    tasks: float
    top_bytes: float
    driver_bytes: float
    end_bytes: float


def project(figures: Figures, voxels: float, block: Sequence[int]) -> Projection:
    """Carry figures on to a volume that is as many blocks long as high and wide.

    Parameters
    ----------
    figures : of a run in blocks of any size
    voxels : of the volume
    block : voxels z, y, x of its blocks
    """
    blocks = max(1.0, voxels / prod(block))
    side, rho = blocks ** (1 / 3), figures.left_per_face[-1]
    area = sum(prod(block) // n for n in block)  # of one face along each axis
    levels = [Level(0, blocks, figures.edges_per_voxel * prod(block))]
    for level in range(1, ceil(log2(side) - 1e-9) + 1):
        # eight parts (fewer at the end) hand up what lies at their faces, of which the volume's own have none
        long = min(2.0**level, side)
        inside = 1 - long / 2 / side
        parts = (long / 2 ** (level - 1)) ** 3
        levels.append(Level(level, (side / long) ** 3, parts * rho * 2 * area * 4 ** (level - 1) * inside))
    climbing = sum(one.boxes * one.edges for one in levels[1:])
    seconds = figures.seconds_a_voxel * voxels + figures.seconds_an_edge * climbing
    return Projection(
        voxels, blocks, tuple(levels), seconds / 3600,
        figures.scratch_per_voxel * voxels, figures.output_per_voxel * voxels, figures.files_per_block * blocks,
        figures.steps * blocks, WORKING * EDGE * levels[-1].edges, figures.driver_per_block * blocks,
        8 * WORKING * figures.segments_per_voxel * voxels,
    )  # fmt: skip


def breaks(figures: Figures, block: Sequence[int]) -> dict[str, float]:
    """Return the voxels at which each limit is met, the first one first."""
    found = {}
    for name, limit in LIMITS.items():
        low, high = 1e6, 1e21
        while high / low > 1.01:
            middle = (low * high) ** 0.5
            low, high = (low, middle) if taken(project(figures, middle, block))[name] > limit else (middle, high)
        found[name] = low
    return dict(sorted(found.items(), key=lambda item: item[1]))


def taken(one: Projection) -> dict[str, float]:
    """Return what is held against each limit."""
    values = (one.top_bytes, one.driver_bytes, one.files, one.end_bytes)
    return dict(zip(LIMITS, values))


def measure(shape: tuple[int, int, int], block: tuple[int, int, int]) -> Figures:
    """Run on synthetic tissue, mirrored to a size, and read what lies in the work folder."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks" / "segmentation"))
    from volumes import NEAREST, tissue

    from neuropil.blockwise import Ledger, SerialPool
    from neuropil.geometry import Box, grid
    from neuropil.stages.run import Config, execute, opened
    from neuropil.volume import create_volume

    links = np.round(255 * tissue(128, NEAREST, np.random.default_rng(0))).astype(np.uint8)
    with tempfile.TemporaryDirectory() as name:
        uri = f"{name}/affinities.zarr"
        facts = {"kind": "affinities", "offsets": NEAREST, "scale": 1 / 255}
        with create_volume(uri, shape=(3, *shape), dtype="uint8", **facts) as volume:
            wide = [(0, 0)] + [(0, max(0, n - 128)) for n in shape]
            volume.write(None, np.pad(links, wide, mode="symmetric")[:, : shape[0], : shape[1], : shape[2]])
        how = {"low": 0.1, "high": 0.99, "size": 64, "dust": 64, "merge_threshold": 0.5}
        config = Config(input=uri, output=f"{name}/ids.zarr", block=block, **how)
        for _ in range(2):  # the first time compiled code is loaded
            start = time.process_time()
            anew = config.model_copy(update={"overwrite": True, "fresh": True})
            with opened(anew) as ledger:
                execute(anew, nullcontext(SerialPool()), ledger)
            taken_seconds = time.process_time() - start  # other work on the machine does not count
        steps, work = ledger.summary(), Path(f"{name}/ids.zarr.unfinished")
        climbing = [step for step in steps if step[-1].isdigit() and not step.startswith("level")]
        whole, top = Box.of_shape(shape), max(ceil(n / b) for n, b in zip(shape, block))
        left, came = [], 0
        for level in range(ceil(log2(top)) + 1):
            edges = area = 0
            for box in grid(whole, tuple(n << level for n in block)):
                file = work / "agglomeration" / f"{'_'.join(map(str, (*box.start, *box.shape)))}.npz"
                with np.load(file) as known:
                    edges += known["left_u"].size
                inner = [(box.start[k] > 0) + (box.stop[k] < shape[k]) for k in range(3)]
                area += sum(n * box.size // box.shape[k] for k, n in enumerate(inner))
            if area:
                left.append(edges / area)
                came += edges
        sizes = [path.stat().st_size for path in work.rglob("*") if path.is_file()]
        first = [np.load(path)["u"].size for path in (work / "contacts").glob("*.npz")]
        faces = [np.load(path)["u"].size for path in (work / "faces").glob("*.npz")]
        tracemalloc.start()
        fresh = Ledger(work, json.loads((work / "parameters.json").read_text()))
        kept = tracemalloc.get_traced_memory()[0] / len(fresh.done)
        tracemalloc.stop()
        blocks, voxels = steps["fragments"]["blocks"], prod(shape)
        own = [step for step in steps if step not in climbing]
        shares = [sum(steps[step]["seconds"] for step in part) for part in (own, climbing)]
        own_seconds, climbing_seconds = (taken_seconds * share / sum(shares) for share in shares)
        ends = [np.load(path)["final"].size for path in (work / "linkage").glob("*.npz")]
        output = sum(path.stat().st_size for path in Path(f"{name}/ids.zarr").rglob("*") if path.is_file())
    return Figures(
        block,
        own_seconds / voxels,
        climbing_seconds / came,
        tuple(left),
        (sum(first) + sum(faces)) / voxels,
        sum(ends) / voxels,
        sum(sizes) / voxels,
        output / voxels,
        len(sizes) / blocks,
        len(own),
        kept * len(own),
    )


def table(figures: Figures, voxels: Sequence[float], block: Sequence[int], cores: int) -> list[str]:
    """Write the tables of the page."""
    lines = ["| voxels | blocks | levels | core-hours | days on " + f"{cores} cores | scratch TB | output TB |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for count in voxels:
        one = project(figures, count, block)
        lines.append(
            f"| {count:.0e} | {one.blocks:.2g} | {len(one.levels) - 1} | {one.core_hours:.2g} |"
            f" {one.core_hours / cores / 24:.2g} | {one.scratch_bytes / 1e12:.2g} | {one.output_bytes / 1e12:.2g} |"
        )
    most = project(figures, voxels[-1], block)
    lines += ["", f"| level, of {voxels[-1]:.0e} voxels | boxes | edges into one | GB |", "|---|---|---|---|"]
    for level in most.levels:
        size = WORKING * EDGE * level.edges / 1e9
        lines.append(f"| {level.level} | {level.boxes:.2g} | {level.edges:.2g} | {size:.2g} |")
    lines += ["", f"| what | at {voxels[-1]:.0e} voxels | limit | met at voxels |", "|---|---|---|---|"]
    held = taken(most)
    for name, count in breaks(figures, block).items():
        lines.append(f"| {name} | {held[name]:.2g} | {LIMITS[name]:.2g} | {count:.1e} |")
    hours = figures.seconds_an_edge * most.levels[-1].edges / 3600
    lines.append(f"| hours of the top box, in one process | {hours:.2g} | | |")
    lines.append(f"| days of the scheduler | {most.tasks / TASKS_A_SECOND / 86400:.2g} | | |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="?", type=Path, default=FIGURES, help="JSON of figures")
    parser.add_argument("--measure", action="store_true", help="measure, and write the JSON")
    parser.add_argument("--benchmark", type=Path, help="figures of benchmarks/scale, whose blocks are of the real size")
    parser.add_argument("--shape", default="64,256,256", help="voxels z,y,x that are measured")
    parser.add_argument("--tried", default="16,64,64", help="voxels z,y,x of the blocks that are measured")
    parser.add_argument("--block", default="64,512,512", help="voxels z,y,x of the blocks that are meant")
    parser.add_argument("--voxels", default="1e9,1e12,1e15", help="of the volumes")
    parser.add_argument("--cores", type=int, default=10_000)
    options = parser.parse_args()
    shape, tried, block = (tuple(map(int, text.split(","))) for text in (options.shape, options.tried, options.block))
    if options.measure:
        options.figures.write_text(json.dumps(asdict(measure(shape, tried)), indent=1) + "\n")
    figures = Figures(**json.loads(options.figures.read_text()))
    if options.benchmark:
        timed = json.loads(options.benchmark.read_text())
        figures = replace(figures, seconds_a_voxel=timed["blocks_s"] / timed["mvox"] / 1e6)
        options.figures.write_text(json.dumps(asdict(figures), indent=1) + "\n")
    print("\n".join(table(figures, [float(text) for text in options.voxels.split(",")], block, options.cores)))


if __name__ == "__main__":
    main()
