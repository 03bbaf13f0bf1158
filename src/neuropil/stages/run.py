"""neuropil run: segment a volume of any size in blocks, on all cores or a cluster; the result is that of the whole.

With weights an image is predicted first, as by `neuropil predict`. Affinities, or a boundary map, become segments in
the same way as by `neuropil segment` with the same method (mean, size or components), and to the same ids, whatever
the blocks: plateaus and basins go on across faces, and what a block cannot decide is decided where its neighbours are
known. Stopped at any moment, the same command continues.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from neuropil import progress
from neuropil.blockwise import Ledger, Pool, SerialPool, open_ledger
from neuropil.config import dump
from neuropil.errors import ConfigError, InputError, NeuropilError
from neuropil.files import Place, write_json, writing
from neuropil.geometry import Box
from neuropil.networks.packaged import weights_path
from neuropil.stages import StageResult
from neuropil.stages.common import (
    claimed,
    fingerprint,
    image_box,
    placed,
    record_of,
    refuse_outputs,
    sidecar,
    work_folder,
)
from neuropil.stages.fragment_graph import save_graph
from neuropil.stages.record import made as made_of
from neuropil.stages.run_config import DECIDES_NOTHING, Config, method_of
from neuropil.stages.run_files import Job
from neuropil.stages.run_fragments import FRAGMENTS, fragments_uri, graph_of, keep_fragments
from neuropil.stages.run_order import method_steps, number_segments
from neuropil.stages.run_output import (
    Output,
    expected_steps,
    hand_over,
    labels_place,
    labels_step,
    output_steps,
)
from neuropil.stages.run_pool import pool_of, workers_of
from neuropil.stages.run_predict import Prediction, plan_prediction, prediction_steps
from neuropil.stages.run_source import LinkSource, check_links
from neuropil.stages.run_step import Step, do_step
from neuropil.tasks import BlockDone
from neuropil.volume import Metadata, open_volume
from neuropil.volume.contents import contents_mark
from neuropil.volume.copying import check_target
from neuropil.volume.uri import parse_uri

EXAMPLES = [
    "neuropil run --input image.zarr --weights affinity-ssem --output segmentation.zarr --merge-threshold 0.6",
    "neuropil run --input affinities.zarr --output segmentation.zarr --merge-threshold 0.6",
    "neuropil run --input boundary.h5:map --output pieces.zarr --method components --threshold 0.4 --dust 100",
    "neuropil run pipeline.toml --set run.workers=8 --set run.block=64,512,512",
    "neuropil run --input affinities.zarr --output segmentation.zarr --merge-threshold 0.6 --scheduler tcp://host:8786",
    "neuropil run --input affinities.zarr --output segmentation.zarr --merge-threshold 0.6 --executor serial",
]
POSITIONAL = ()
__all__ = ["EXAMPLES", "POSITIONAL", "Config", "run"]


def run(config: Config) -> StageResult:
    """Run all steps, then copy the segmentation to its place."""
    with opened(config) as ledger:
        try:
            result = execute(config, _pool(config), ledger)
        except BlockDone as done:
            return StageResult(str(done), {})
        ledger.remove()
    return result


def opened(config: Config) -> AbstractContextManager[Ledger]:
    """Check a configuration, and return the ledger of its work.

    Raises
    ------
    ConfigError, InputError, OutputExists, RunLocked, RunMismatch
    """
    check(config)
    return open_ledger(work_folder(config.output), _parameters(config), fresh=config.fresh)


def check(config: Config) -> None:
    """Refuse what can be seen to be wrong before any work.

    Raises
    ------
    ConfigError, InputError, OutputExists
    """
    if not 0 <= config.low < config.high:
        raise ConfigError(f"low and high must satisfy 0 <= low < high; got {config.low}, {config.high}")
    if min(config.block) < 1:
        raise ConfigError(f"block must be three positive extents z,y,x; got {config.block}")
    if method_of(config) == "components" and config.fragments is not None:
        raise ConfigError("method 'components' makes no fragments; drop fragments, or take another method")
    if config.prediction is not None and config.weights is None:
        raise ConfigError("prediction is what weights make of an image; give weights, or drop prediction")
    if config.cluster is not None and config.scheduler is not None:
        raise ConfigError("cluster starts workers and scheduler says where there are some; give one of them")
    if config.levels:
        from neuropil.volume.pyramid import check_levels

        check_levels(parse_uri(config.output))
    outputs = (config.output, config.prediction, config.fragments)
    for uri in filter(None, outputs):
        check_target(parse_uri(uri))
    ours = claimed(work_folder(config.output))
    refuse_outputs(outputs, config.input, overwrite=config.overwrite, ours=ours)


def execute(config: Config, using: AbstractContextManager[Pool], ledger: Ledger) -> StageResult:
    """Run all steps on a pool; what was made on the way is still there."""
    start = time.monotonic()
    work = ledger.folder.absolute()
    try:
        box, place = part_of(config)
        made = _plan(config, box, work)
        predicted = [] if made is None else prediction_steps(made)
        progress.expect(_expected(config, predicted, _job(config, box, work, config.input), place))
        with using as pool:
            ready = time.monotonic()
            for step in predicted:
                do_step(step, ledger, pool)
            links = config.input if made is None else made.output
            with open_volume(links) as volume:
                check_links(volume)
                said = volume.metadata
            job = _job(config, box, work, links)
            for step in method_steps(job):
                do_step(step, ledger, pool)
            segments = number_segments(job, config.merge_threshold)
            if config.fragments is not None:
                keep_fragments(job, ledger, pool, place)
            outputs = _outputs(config, job, place, said)
            for step in _last_steps(job, outputs):
                do_step(step, ledger, pool)
            in_blocks = time.monotonic() - ready
    except (NeuropilError, OSError):
        if not ledger.done:  # nothing to continue from
            ledger.remove()
        raise
    reports = [hand_over(output, overwrite=config.overwrite) for output in outputs]
    if config.fragments is not None:
        save_graph(config.fragments, graph_of(job))
    seconds = time.monotonic() - start
    _keep_tree(work, sidecar(config.output, "tree.npz"))
    record = record_of("run", config, start) | {
        "voxels": box.size,
        "seconds_in_blocks": round(in_blocks, 2),
        "steps": ledger.summary(),
        **made_of("run", reports[0], [config.input, config.mask]),
    }
    if config.weights is not None:
        record["weights_sha256"] = fingerprint(weights_path(config.weights))
    write_json(sidecar(config.output, "json"), record)
    rate = box.size / seconds / 1e6
    text = f"{config.output}: {segments} segments in {box.shape}, {seconds:.1f} s, {rate:.2f} Mvoxel/s"
    return StageResult(text, {"output": config.output, "segments": segments, "shape": box.shape, **record})


def _keep_tree(work: Place, place: Path) -> None:
    """Put the merge tree beside the output; where the method makes none, that of a replaced output goes."""
    made = work / "tree.npz"
    if made.exists():
        with writing(place) as file:
            file.write(made.read_bytes())
    else:
        place.unlink(missing_ok=True)


def _last_steps(job: Job, outputs: list[Output]) -> Iterator[Step]:
    """Yield the steps that build what is handed over, but for what has its name already."""
    for output in outputs:
        if output.handed_over() is None:
            if output is outputs[0]:
                yield labels_step(job, output)
            yield from output_steps(output)


def part_of(config: Config) -> tuple[Box, dict[str, Any]]:
    """Check the input, and return the part of it that is worked on, with its place.

    Raises
    ------
    InputError : another kind of volume, a box beyond its end, a mask of another extent
    """
    with open_volume(config.input) as volume:
        if config.weights is not None:
            image_box(volume, None)
        else:
            check_links(volume)
        whole = Box.of_shape(volume.spatial_shape)
        box = whole if config.box is None else Box(*zip(*config.box))
        if not whole.contains(box):
            raise InputError(f"box must lie within {whole.stop} of {volume.uri}; got {box.start} to {box.stop}")
        _check_mask(config, whole.shape)
        return box, placed(volume, box)


def _plan(config: Config, box: Box, work: Place) -> Prediction | None:
    """Settle how the image is predicted, if it is one."""
    if config.weights is None:
        return None
    workers, memory = workers_of(config)
    return plan_prediction(config, box, work, workers=workers, memory=memory)


def _expected(config: Config, predicted: list[Step], job: Job, place: dict[str, Any]) -> progress.Steps:
    """Return the steps that are to come, with their numbers of blocks as far as these are known."""
    steps: list[tuple[str, int | None]] = []
    steps += [(step.name, len(step.boxes())) for step in [*predicted, *method_steps(job)]]
    blocks = len(job.boxes(0))
    if config.fragments is not None:
        steps.append((FRAGMENTS, blocks))
    steps.append(("segmentation", blocks))
    for output in _outputs(config, job, place, Metadata()):
        steps += expected_steps(output)
    return steps


def _job(config: Config, box: Box, work: Place, links: str) -> Job:
    """Return what all blocks of the segmentation have in common."""
    origin = box.start if links == config.input else (0, 0, 0)
    block = tuple(map(min, config.block, box.shape))
    return Job(
        LinkSource(links, origin, config.per_section, config.rule), work, labels_place(config.output, work, block)[0],
        box.shape, block, method_of(config),  # type: ignore[arg-type]
        config.threshold, config.low, config.high, config.size, config.size_threshold, config.dust,
        config.mask, box.start, config.bridge,
    )  # fmt: skip


def _outputs(config: Config, job: Job, place: dict[str, Any], predicted: Metadata) -> list[Output]:
    """Return what is handed over at the end; `predicted` is what a prediction says of itself."""
    labels, chunk = Metadata(kind="labels", **place), labels_place(config.output, job.work, job.block)[1]
    outputs = [Output("output", job.output.uri, config.output, labels, job.work, config.levels, chunk, job.block)]
    if config.fragments is not None:
        outputs.append(Output("fragments output", fragments_uri(job), config.fragments, labels, job.work))
    if config.prediction is not None:
        metadata = replace(predicted, **place)
        outputs.append(Output("prediction", job.source.uri, config.prediction, metadata, job.work))
    return outputs


def _check_mask(config: Config, shape: tuple[int, ...]) -> None:
    """Refuse a mask that does not belong to the input."""
    if config.mask is not None:
        with open_volume(config.mask) as mask:
            if mask.shape != shape:
                raise InputError(f"mask must have the extent of the input, {shape}; {mask.uri} has {mask.shape}")


def _parameters(config: Config) -> dict[str, Any]:
    """Return what decides what lies in the work folder."""
    parameters = dump(config)
    for free in DECIDES_NOTHING:
        parameters.pop(free)
    for name in ("input", "mask"):
        if (uri := getattr(config, name)) is not None:
            parameters[f"contents of {name}"] = contents_mark(uri)
    if config.weights is not None:
        parameters["digest of the weights"] = fingerprint(weights_path(config.weights))
    return parameters


def _pool(config: Config) -> Any:
    alone = config.executor == "serial" or config.only is not None
    return nullcontext(SerialPool(config.only)) if alone else pool_of(config)
