"""neuropil run: segment a volume of any size in blocks, on all cores or a cluster; the result is that of the whole.

Affinities become fragments, edges, a merge tree and segments, in the same way as by `neuropil segment --method mean`,
and to the same ids, whatever the blocks: plateaus and basins go on across faces, and what a block cannot decide is
decided where its neighbours are known. Stopped at any moment, the same command continues.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuropil.blockwise import Ledger, Pool, SerialPool, dask_pool, run_tasks
from neuropil.config import StageConfig, Triple, dump
from neuropil.errors import ConfigError, InputError, NeuropilError
from neuropil.files import replacing, write_json
from neuropil.geometry import Box
from neuropil.machine import cores
from neuropil.progress import track
from neuropil.segmentation.agglomeration_parts import Merges
from neuropil.segmentation.contacts_blocks import STEPS, BlockContacts
from neuropil.segmentation.linkage import MergeTree, cut
from neuropil.segmentation.splitting import FragmentGraph
from neuropil.segmentation.watershed_blocks import BlockLinks, divide_shared, join_pairs
from neuropil.stages import StageResult, run_steps
from neuropil.stages.affinities import check_affinity_volume
from neuropil.stages.common import placed, refuse_outputs, sidecar, versions
from neuropil.stages.fragment_graph import save_graph
from neuropil.stages.run_steps import Job, chunk_of, group_boxes, levels, load, save_table
from neuropil.volume import Metadata, Volume, create_volume, open_volume
from neuropil.volume.copying import copy_volume

EXAMPLES = [
    "neuropil run --input affinities.zarr --output segmentation.zarr --merge-threshold 0.6",
    "neuropil run pipeline.toml --set run.workers=8 --set run.block=64,512,512",
    "neuropil run --input affinities.zarr --output segmentation.zarr --merge-threshold 0.6 --scheduler tcp://host:8786",
    "neuropil run --input affinities.zarr --output segmentation.zarr --merge-threshold 0.6 --executor serial",
]
POSITIONAL = ()


class Config(StageConfig):
    """Fields of [run]."""

    input: str = Field(description="URI of affinities")
    output: str = Field(description="URI of the segmentation to write (uint64)")
    fragments: str | None = Field(None, description="URI; also write the fragments, which neuropil view corrects by")
    block: Triple = Field((64, 512, 512), description="voxels z,y,x of a block; decides memory, not the result")
    mask: str | None = Field(None, description="URI of a mask (z, y, x), such as `neuropil defects` writes")
    bridge: int = Field(2, ge=0, description="a voxel that is masked in more sections on end loses its links")
    low: float = Field(0.3, description="links at or below this affinity do not count")
    high: float = Field(0.999, description="links at or above this affinity always join")
    size: float = Field(256, ge=0, description="fragments below this many voxels are merged ...")
    size_threshold: float = Field(0.3, description="... with a neighbour linked at this affinity or above")
    dust: float = Field(256, ge=0, description="segments below this many voxels become background")
    merge_threshold: float | None = Field(
        None, ge=0, le=1, description="mean affinity at or above which segments merge"
    )
    executor: Literal["dask", "serial"] = Field(
        "dask", description="processes, or one block after the other in this one"
    )
    workers: int | None = Field(None, gt=0, description="processes; all cores if not given")
    worker_memory: float | None = Field(
        None, gt=0, description="GB at which a worker is started anew; default: its share"
    )
    scheduler: str | None = Field(None, description="address of a running Dask cluster, which sees the same files")
    overwrite: bool = Field(False, description="replace an output that exists")
    fresh: bool = Field(False, description="forget unfinished work at the output")


def run(config: Config) -> StageResult:
    """Run all steps, then copy the segmentation to its place."""
    if not 0 <= config.low < config.high:
        raise ConfigError(f"low and high must satisfy 0 <= low < high; got {config.low}, {config.high}")
    if min(config.block) < 1:
        raise ConfigError(f"block must be three positive extents z,y,x; got {config.block}")
    refuse_outputs([config.output, config.fragments], config.input, overwrite=config.overwrite)
    start = time.monotonic()
    with open_volume(config.input) as volume:
        check_affinity_volume(volume)
        z, y, x = volume.spatial_shape
        place = placed(volume, Box.of_shape((z, y, x)))
        _check_mask(config, (z, y, x))
        unit = _unit(volume)
    ledger = Ledger(sidecar(config.output, "unfinished"), _parameters(config), fresh=config.fresh)
    work = ledger.folder.absolute()
    block = tuple(min(n, extent) for n, extent in zip(config.block, (z, y, x)))
    job = Job(
        str(config.input), work, (z, y, x), block, unit,  # type: ignore[arg-type]
        config.low, config.high, config.size, config.size_threshold, config.mask, config.bridge,
    )  # fmt: skip
    try:
        with _pool(config) as pool:
            ready = time.monotonic()
            segments = _steps(job, config, ledger, pool, place)
            in_blocks = time.monotonic() - ready
    except (NeuropilError, OSError):
        if not ledger.done:  # nothing to continue from
            ledger.remove()
        raise
    outputs = {"segmentation": config.output} | ({} if config.fragments is None else {"fragments": config.fragments})
    for name, uri in outputs.items():
        with open_volume(job.volume(name)) as made:
            copy_volume(made, uri, metadata=Metadata(kind="labels", **place), overwrite=config.overwrite)
    if config.fragments is not None:
        save_graph(config.fragments, _graph(job))
    seconds = time.monotonic() - start
    shutil.copy(work / "tree.npz", sidecar(config.output, "tree.npz"))
    record = {
        "config": dump(config),
        "versions": versions(),
        "seconds": round(seconds, 2),
        "seconds_in_blocks": round(in_blocks, 2),
        "steps": ledger.summary(),
    }
    write_json(sidecar(config.output, "json"), record)
    ledger.remove()
    rate = z * y * x / seconds / 1e6
    text = f"{config.output}: {segments} segments in {(z, y, x)}, {seconds:.1f} s, {rate:.2f} Mvoxel/s"
    return StageResult(text, {"output": config.output, "segments": segments, "shape": (z, y, x), **record})


def _unit(volume: Volume) -> int:
    """Return the steps in which affinities are added up.

    Raises
    ------
    InputError : bytes whose scale is not recorded, which a single block cannot tell
    """
    scale = volume.metadata.scale
    if volume.dtype == np.uint8 and scale is None:
        raise InputError(
            f"{volume.uri} holds bytes and says no scale; record it with neuropil convert --scale 0.00392156862745098"
            " for 0 to 255"
        )
    return 255 if volume.dtype == np.uint8 and np.isclose(scale or 0, 1 / 255) else STEPS


def _check_mask(config: Config, shape: tuple[int, ...]) -> None:
    """Refuse a mask that does not belong to the affinities."""
    if config.mask is not None:
        with open_volume(config.mask) as mask:
            if mask.shape != shape:
                raise InputError(f"mask must have the extent of the affinities, {shape}; {mask.uri} has {mask.shape}")


def _parameters(config: Config) -> dict[str, Any]:
    """Return what decides what lies in the work folder."""
    parameters = dump(config)
    for free in ("output", "fragments", "executor", "workers", "worker_memory", "scheduler", "overwrite", "fresh"):
        parameters.pop(free)
    return parameters


def _pool(config: Config) -> Any:
    if config.executor == "serial":
        return nullcontext(SerialPool())
    memory = None if config.worker_memory is None else config.worker_memory * 1e9
    return dask_pool(config.workers or cores(), memory, config.scheduler)


def _steps(job: Job, config: Config, ledger: Ledger, pool: Pool, place: dict[str, Any]) -> int:
    """Do what is not done yet; return the number of segments."""
    blocks, top = group_boxes(job, 0), levels(job)

    def each(name: str, boxes: list[Box], work: Callable[[Box], None]) -> None:
        run_tasks(ledger, name, boxes, work, pool)

    each("links", blocks, partial(run_steps.links, job))
    _once(job.work / "plateaus.npz", lambda path: _divide(job, blocks, path))
    each("fragments", blocks, partial(run_steps.fragments, job))
    each("faces", blocks, partial(run_steps.faces, job))
    _once(
        job.table("join"), lambda path: save_table(path, *_joined(load(job.file("faces", b))["pairs"] for b in blocks))
    )
    each("edges", blocks, partial(run_steps.edges, job))
    each("linkage", blocks, partial(run_steps.link_block, job))
    for level in range(1, top + 1):
        each(f"linkage {level}", group_boxes(job, level), partial(run_steps.link_group, job, level=level))
    _once(job.table("linkage"), lambda path: _name_linked(job, config.dust, path))
    each("agglomeration", blocks, partial(run_steps.merge_block, job))
    for level in range(1, top + 1):
        each(f"agglomeration {level}", group_boxes(job, level), partial(run_steps.merge_group, job, level=level))
    segments = _cut(job, config.merge_threshold)
    volumes = {"segmentation": "segments"} | ({} if config.fragments is None else {"fragments": "numbers"})
    for name, table in volumes.items():
        if not Path(job.volume(name)).exists():
            size = {"chunk_shape": chunk_of(job.block), "kind": "labels", **place}
            create_volume(job.volume(name), shape=job.shape, dtype=np.uint64, **size).close()
        step = "segmentation" if name == "segmentation" else f"write {name}"
        each(step, blocks, partial(run_steps.write, job, name=name, table=table))
    return segments


def _once(path: Path, make: Callable[[Path], None]) -> None:
    """Make a file of the whole volume unless it is there."""
    if not path.exists():
        make(path)


def _divide(job: Job, blocks: list[Box], path: Path) -> None:
    """Divide the plateaus that blocks share."""
    none = np.empty((0, 0, 0), np.uint8)
    known = [load(job.file("plateaus", block)) for block in blocks]
    places, bits = divide_shared([BlockLinks(none, one["places"], one["shared"]) for one in known], job.shape)
    run_steps.save(path, {"places": places, "bits": bits})


def _joined(pairs: Any) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return ids of pairs and the smallest each is connected with, where that is another."""
    ids, smallest = join_pairs(list(pairs))
    changed = ids != smallest
    return ids[changed], smallest[changed]


def _everywhere(job: Job, step: str, names: Sequence[str]) -> list[dict[str, NDArray[Any]]]:
    """Return some of what a step knows of all boxes of all levels."""
    boxes = [box for level in range(levels(job) + 1) for box in group_boxes(job, level)]
    return [load(job.file(step, box), names) for box in boxes]


def _name_linked(job: Job, dust: float, path: Path) -> None:
    """Write the table fragment -> segment after linkage, 0 for dust; and the list of segments."""
    known = _everywhere(job, "linkage", ("old", "new", "final", "final_sizes"))
    ids, smallest = _joined(np.stack([one["old"], one["new"]], 1) for one in known)
    nodes = np.concatenate([one["final"] for one in known])
    small = nodes[np.concatenate([one["final_sizes"] for one in known]) < dust]
    smallest[np.isin(smallest, small)] = 0
    run_steps.save(job.work / "nodes.npz", {"ids": np.setdiff1d(nodes, small)})
    save_table(path, np.concatenate([ids, small]), np.concatenate([smallest, np.zeros_like(small)]))


def _cut(job: Job, threshold: float | None) -> int:
    """Write the merge tree and the table segment -> label; return the number of labels."""
    nodes = load(job.work / "nodes.npz")["ids"]
    names = tuple(Merges.__dataclass_fields__)
    merges = Merges.joined([Merges(**one) for one in _everywhere(job, "agglomeration", names)])
    u, v = (np.searchsorted(nodes, end).astype(np.uint64) + np.uint64(1) for end in (merges.u, merges.v))
    tree = MergeTree(u, v, (merges.score / np.float32(job.unit)).astype(np.float32), nodes.size)
    with replacing(job.work / "tree.npz") as part, part.open("wb") as file:
        np.savez(file, u=tree.u, v=tree.v, affinity=tree.affinity)
    labels = cut(tree, 2.0 if threshold is None else threshold)[1:]
    save_table(job.table("segments"), nodes, labels)
    save_table(job.table("numbers"), nodes, np.arange(1, nodes.size + 1, dtype=np.uint64))
    return int(labels.max(initial=0))


def _graph(job: Job) -> FragmentGraph:
    """Return which of the fragments that are written touch, and the segment of each."""
    blocks = group_boxes(job, 0)
    parts = [run_steps.linked_contacts(job, block) for block in track(blocks, "graph", len(blocks))]
    known = BlockContacts.united(parts)
    u, v = (run_steps.rename(end, job.table("numbers")) for end in (known.u, known.v))
    labels = np.load(job.table("segments"))[1]
    segments = np.concatenate([np.zeros(1, np.uint64), labels])
    mean = known.total / np.maximum(known.count, 1) / job.unit
    return FragmentGraph(u, v, mean.astype(np.float32), segments)
