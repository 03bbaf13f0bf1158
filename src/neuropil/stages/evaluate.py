"""Score a boundary map, or a segmentation, against truth: pixel error, Rand, variation of information, run length.

From a boundary map both decoders are scored over their whole curve (components over the threshold, watershed over the
merge level). In 2-D (the default) truth is the 4-connected pieces of its interior, section by section, and sums are
pooled over sections. With --skeletons a segmentation is scored by its expected run length on skeletons
instead: of a file, or made of the truth. Every score's definition is in docs/metrics.md.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuropil.config import Counts, Name, Numbers, Sections, StageConfig, Triple, TripleNm, dump
from neuropil.errors import ConfigError, InputError
from neuropil.files import replacing, write_json
from neuropil.metrics.gallery import Gallery, worst_errors
from neuropil.metrics.pixel_error import best_pixel_error, boundary_curve, pixel_error
from neuropil.segmentation.boundary import boundary_from_labels
from neuropil.segmentation.components import connected_components
from neuropil.stages import StageResult
from neuropil.stages.common import CREMI_UNLABELLED, read_boundary, record_of, section_box, versions
from neuropil.stages.lines import Lines
from neuropil.stages.panels import labels_at, links_at
from neuropil.stages.run_length import RunLengthTask, score_run_length, table
from neuropil.stages.scoring import Task, Watershed, score_components, score_watershed, scores_of, search_watershed
from neuropil.volume import Volume, open_volume

EXAMPLES = [
    "neuropil evaluate --boundary map.h5:map --truth vnc.h5:labels --interior-above 128 --json scores.json",
    "neuropil evaluate --segmentation ids.h5:ids --truth truth.h5:ids --no-per-section",
    "neuropil evaluate --segmentation ids.zarr --truth truth.h5:ids --skeletons truth --merge-threshold 0,50",
    "neuropil evaluate --segmentation ids.zarr --skeletons axons.npz --intervals 0,20000,40000,150000",
    "neuropil evaluate --boundary map.h5:map --truth ids.h5:ids --image stack.h5:raw --run runs/vnc --model vd2d",
]
POSITIONAL = ()
PICTURES = 3


class Config(StageConfig):
    """Fields of [evaluate]."""

    boundary: str | None = Field(None, description="URI of a boundary map")
    segmentation: str | None = Field(None, description="URI of a segmentation, of this or any other program")
    truth: str | None = Field(None, description="URI of true ids, or of a drawing of the membranes")
    image: str | None = Field(None, description="URI of the image, for the report's pictures")
    affinities: str | None = Field(None, description="URI of what was segmented, for the report's pictures")
    fragments: str | None = Field(None, description="URI of its fragments, likewise")
    mask: str | None = Field(None, description="URI; voxels where it is 0 are not scored")
    sections: Sections | None = Field(None, description="sections of the proposal to score")
    truth_sections: Sections | None = Field(
        None, description="the same sections in truth, image and mask, if numbered otherwise"
    )
    interior_above: int = Field(0, description="a voxel is true boundary where its label is not above this value")
    touching_ids: bool = Field(False, description="also true boundary: voxels beside another id in their section")
    per_section: bool = Field(True, description="score in 2-D, sums pooled over sections; else in 3-D")
    low: float = Field(0.3, description="watershed: low threshold on affinity")
    high: float = Field(0.999, description="watershed: high threshold on affinity")
    size: float = Field(256, ge=0, description="watershed: size of fragments that are merged at once")
    size_threshold: float = Field(0.3, description="watershed: least affinity of those merges")
    dust: float = Field(256, ge=0, description="watershed: smaller segments become background")
    search: bool = Field(
        False, description="first search high, low and size of the watershed (on data that nothing else is scored on)"
    )
    fixed: Numbers | None = Field(
        None,
        description="thresholds chosen on other data: of P(boundary) for pixels and components, of affinity to merge",
    )
    skeletons: str | None = Field(
        None,
        description="score run length: 'truth' (skeletonized once, then kept), .npz, .h5, .p, or SWC files' folder",
    )
    merge_threshold: Counts = Field(
        [0],
        description="run length: a segment merges skeletons of which it covers so many nodes; 0,50 gives two rows",
    )
    intervals: Numbers = Field([], description="run length: also for skeletons between these lengths, nm")
    no_merge_mask: str | None = Field(
        None, description="run length: URI; a segment with voxels where it is not 0 counts as merging"
    )
    margin: Triple = Field((0, 0, 0), description="run length: voxels z,y,x left out at each face of all volumes")
    stride: Triple = Field((1, 1, 1), description="run length: skeletonize one voxel of so many of the truth")
    voxel_size: TripleNm | None = Field(None, description="run length: nm z,y,x, where a volume does not tell it")
    lines: Lines = Field(Lines(), description="how truth is skeletonized, as in [skeletonize]")
    model: Name = Field("model", description="name in tables and file names")
    run: Path | None = Field(None, description="run folder; scores and pictures go into its evaluation folder")


def run(config: Config) -> StageResult:
    """Score one proposal."""
    start = time.monotonic()
    if config.skeletons is not None:
        return _run_length(config)
    if (config.boundary is None) == (config.segmentation is None):
        raise ConfigError("evaluate needs either --boundary or --segmentation")
    if config.truth is None:
        raise ConfigError("evaluate needs --truth, or --skeletons for run length")
    if config.fixed is not None and len(config.fixed) != 3:
        raise ConfigError(f"fixed must hold three thresholds (pixels, components, merge); got {config.fixed}")
    proposal, labels, size, first = _read(config)
    mask = _beside(config, config.mask, proposal.shape)
    scored = None if mask is None else mask != 0
    if (labels == CREMI_UNLABELLED).any():
        scored = (labels != CREMI_UNLABELLED) & (True if scored is None else scored)
    boundary_truth = boundary_from_labels(
        labels, interior_above=config.interior_above, touching_ids=config.touching_ids
    )
    truth = connected_components(~boundary_truth, per_section=True) if config.per_section else labels
    task = Task(proposal, truth, scored, config.per_section)
    scores: dict[str, Any] = {
        "model": config.model,
        "proposal": config.boundary or config.segmentation,
        "truth": config.truth,
        "sections": [first, first + proposal.shape[0]],
        "voxel_size": size,
        "definitions": DEFINITIONS | {"sections": "2-D, pooled" if config.per_section else "3-D"},
    }
    pictures: dict[str, NDArray[Any]] = {"truth": truth}
    if config.segmentation is not None:
        scores["segmentation"] = scores_of(task, proposal)
        pictures["watershed"] = proposal
    else:
        pictures["boundary"] = proposal
        scores["pixel_error"] = _pixels(config, proposal, boundary_truth, scored)
        fixed = config.fixed or (None, None, None)
        watershed = Watershed(config.low, config.high, config.size, config.size_threshold, config.dust)
        if config.search:
            watershed = search_watershed(task, watershed)
        scores["components"], pictures["components"] = score_components(task, fixed[1])
        scores["watershed"], pictures["watershed"] = score_watershed(task, watershed, fixed[2])
    errors = worst_errors(pictures["watershed"], truth, size or (1, 1, 1), scored)
    scores["errors"] = {"decoder": "watershed", **_places(errors, first)}
    scores |= record_of("evaluate", config, start) | {"voxels": proposal.size}
    if config.run is not None:
        _keep(config, scores, pictures, errors, first)
    return StageResult(summary([scores]), scores)


DEFINITIONS = {
    "pixel_error": "(false + missed boundary pixels) / pixels; threshold on P(boundary)",
    "rand": "V_merge = sum n_ij^2 / sum s_i^2, V_split = sum n_ij^2 / sum t_j^2, F harmonic mean; truth background left"
    " out, proposal background as single voxels",
    "vi": "bits; truth background left out, proposal background one segment",
}


def summary(all_scores: list[dict[str, Any]]) -> str:
    """Return the table of one or several models' scores."""
    head = f"{'model':22} {'pixel error':>12} {'Rand F comp.':>13} {'Rand F wshed':>13} {'VI wshed':>9}"
    lines = [head, "-" * len(head)]
    for one in all_scores:
        if "segmentation" in one:
            best_of = one["segmentation"]["best"]
            vi = best_of["vi"]["split"] + best_of["vi"]["merge"]
            lines.append(f"{one['model']:22} {'-':>12} {'-':>13} {best_of['f']:13.4f} {vi:9.3f}")
            continue
        components, watershed = one["components"]["best"], one["watershed"]["best"]
        vi = watershed["vi"]["split"] + watershed["vi"]["merge"]
        error = one["pixel_error"]["best"]
        lines.append(f"{one['model']:22} {error:12.4f} {components['f']:13.4f} {watershed['f']:13.4f} {vi:9.3f}")
        if one["pixel_error"].get("at_fixed") is not None:
            fixed = [
                one["pixel_error"]["at_fixed"],
                one["components"]["at_fixed"]["f"],
                one["watershed"]["at_fixed"]["f"],
            ]
            lines.append(f"{'  thresholds fixed':22} {fixed[0]:12.4f} {fixed[1]:13.4f} {fixed[2]:13.4f}")
    return "\n".join(lines)


def _run_length(config: Config) -> StageResult:
    """Score a segmentation on skeletons."""
    others = ("boundary", "mask", "sections", "truth_sections", "image", "fixed")
    given = [name for name in others if getattr(config, name) is not None]
    if config.segmentation is None or config.skeletons is None or given:
        wrong = f"takes no --{given[0].replace('_', '-')}" if given else "needs --segmentation"
        raise ConfigError(f"evaluate --skeletons {wrong}")
    folder = None if config.run is None else config.run / "run_length"
    task = RunLengthTask(
        segmentation=config.segmentation,
        skeletons=config.skeletons,
        truth=config.truth,
        no_merge_mask=config.no_merge_mask,
        thresholds=config.merge_threshold,
        intervals_nm=config.intervals,
        margin=config.margin,
        stride=config.stride,
        voxel_size=config.voxel_size,
        lines=config.lines,
        folder=folder,
    )
    scores = {"model": config.model, "proposal": config.segmentation, "truth": config.truth, **score_run_length(task)}
    scores |= {"config": dump(config), "versions": versions()}
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{config.model}.json", scores)
    return StageResult(table(scores), scores)


def _read(config: Config) -> tuple[NDArray[Any], NDArray[Any], tuple[float, ...] | None, int]:
    """Return the proposal, the true labels, the voxel size and the number of the first section."""
    with open_volume(config.boundary or config.segmentation or "") as volume:
        box = section_box(volume, config.sections)
        proposal = read_boundary(volume, box) if config.boundary else _labels(volume).read(box)
        size = volume.metadata.voxel_size
    with open_volume(config.truth or "") as volume:
        box = section_box(_labels(volume), config.truth_sections or config.sections)
        if box.shape != proposal.shape:
            raise InputError(f"proposal and truth must have one shape; got {proposal.shape} and {box.shape}")
        return proposal, volume.read(box), size or volume.metadata.voxel_size, box.start[0]


def _labels(volume: Volume) -> Volume:
    if len(volume.shape) != 3 or volume.dtype.kind not in "ui":
        raise InputError(f"{volume.uri} must hold integer labels (z, y, x); it holds {volume.dtype} {volume.shape}")
    return volume


def _beside(config: Config, uri: str | None, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """Read image or mask where the truth is."""
    if uri is None:
        return None
    with open_volume(uri) as volume:
        box = section_box(volume, config.truth_sections or config.sections)
        if box.shape != shape:
            raise InputError(f"{uri} must have the shape of the proposal, {shape}; got {box.shape}")
        return volume.read(box)


def _pixels(config: Config, boundary: NDArray[Any], truth: NDArray[np.bool_], mask: Any) -> dict[str, Any]:
    found, curve = best_pixel_error(boundary, truth, mask), boundary_curve(boundary, truth, mask)
    result = {
        "best": found.error,
        "threshold": found.boundary_threshold,
        "curve": {"threshold": (1 - curve.threshold).tolist(), "error": curve.error.tolist()},
        "boundary_pixels": {"precision": curve.precision.tolist(), "recall": curve.recall.tolist()},
    }
    if config.fixed is not None:
        result |= {"fixed_threshold": config.fixed[0]}
        result |= {"at_fixed": pixel_error(boundary, truth, 1 - config.fixed[0], mask).error}
    return result


def _places(errors: Gallery, first: int) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for kind in ("merges", "splits"):
        found[kind] = [
            {"z": one.point[0] + first, "y": one.point[1], "x": one.point[2], **asdict(one)}
            for one in getattr(errors, kind)
        ]
    return found


def _keep(
    config: Config, scores: dict[str, Any], pictures: dict[str, NDArray[Any]], errors: Gallery, first: int
) -> None:
    """Write scores and a few sections' pictures into the run folder, for the report."""
    folder = (config.run or Path()) / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{config.model}.json", scores)
    image = _beside(config, config.image, pictures["truth"].shape)
    if image is None:
        return
    depth = image.shape[0]
    worst = [one.point[0] for kind in (errors.merges, errors.splits) for one in kind[:1]]
    shown = sorted({*worst, *np.linspace(0, depth - 1, min(depth, PICTURES)).astype(int).tolist()})
    if "boundary" in pictures and pictures["boundary"].dtype != np.uint8:
        pictures = pictures | {"boundary": np.rint(pictures["boundary"] * 255).astype(np.uint8)}
    kept = {name: array[shown] for name, array in {**pictures, "image": image}.items()}
    kept |= _made_from(config, shown, image.shape[1:])
    kept["z"] = np.array(shown) + first
    if scores["voxel_size"]:
        kept["voxel_size"] = np.array(scores["voxel_size"])
    with replacing(folder / f"{config.model}.npz") as part, part.open("wb") as file:
        np.savez_compressed(file, **kept)  # type: ignore[arg-type]  # keywords are names of arrays


def _made_from(config: Config, shown: list[int], plane: tuple[int, ...]) -> dict[str, NDArray[Any]]:
    """Read what the proposal was made from, in the sections that are shown."""
    sections = [z + (config.sections[0] if config.sections else 0) for z in shown]
    found: dict[str, NDArray[Any]] = {}
    if config.affinities is not None:
        found["affinities"] = links_at(config.affinities, sections, plane)
    if config.fragments is not None:
        found["fragments"] = labels_at(config.fragments, sections, plane)
    return found
