"""What `neuropil benchmark` computes of one method: a table per block, and every score of it with its resamples.

All scores but the run time are functions of contingency tables, and the tables of blocks add up. So a segmentation of
any size is read block by block and once only, and the bootstrap costs no further look at a voxel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.files import cache_folder
from neuropil.geometry import Box, grid
from neuropil.labels import Contingency, contingency
from neuropil.metrics.blocks import Resampled, block_shape_for, bootstrap_blocks
from neuropil.metrics.information import cremi_score, variation_of_information
from neuropil.metrics.objects import instance_scores
from neuropil.metrics.rand import adapted_rand_error, rand_scores
from neuropil.metrics.run_length import RunLength, run_length
from neuropil.segmentation.affinities import Affinities
from neuropil.segmentation.boundary import boundary_from_intensity
from neuropil.segmentation.decoding import decode
from neuropil.skeletons.skeleton import nodes_of
from neuropil.stages.affinities import read_affinities
from neuropil.stages.benchmark_config import Job, MethodConfig, VolumeConfig
from neuropil.stages.common import CREMI_UNLABELLED, ComputedVolume, image_box, read_boundary
from neuropil.stages.lines import LabelArray, Lines, kept_lines
from neuropil.stages.segment import links_of
from neuropil.volume import Metadata, Volume, open_volume
from neuropil.volume.lookup import labels_at
from neuropil.volume.skeleton_files import read_skeletons

Reader = Callable[[Box], NDArray[Any]]
SCORING = 2
"""To be raised when scores change or are added, so that those of earlier versions are not taken for the new ones."""


@dataclass(frozen=True)
class Scored:
    """Scores of one method on one volume.

    Attributes
    ----------
    resampled : scores of the volume and of resamples of its blocks
    segments, truth_segments : objects of either that have a scored voxel
    blocks : number of blocks with truth
    block_shape : (z, y, x) voxels
    box : (start, stop) in the truth, z, y, x
    seconds : to segment, reading and scoring not counted; None for a segmentation that was there
    """

    resampled: Resampled
    segments: int
    truth_segments: int
    blocks: int
    block_shape: tuple[int, ...]
    box: tuple[tuple[int, ...], tuple[int, ...]]
    seconds: float | None


def scores_of_table(table: Contingency) -> dict[str, float]:
    """Return every score of a table, by name; truth background is left out of all of them.

    >>> scores = scores_of_table(contingency([5, 5, 6, 0], [1, 1, 1, 1]))
    >>> scores["v_merge"], scores["unassigned"], scores["assigned_vi_split"] < scores["vi_split"]
    (1.0, 0.25, True)
    """
    rand, information = rand_scores(table), variation_of_information(table)
    cremi = adapted_rand_error(table, variant="cremi").error
    truth = table.counts[table.truth_ids[table.columns] != 0]
    left_out = (table.truth_ids[table.columns] != 0) & (table.proposal_ids[table.rows] == 0)
    assigned = variation_of_information(table, background="excluded")
    return {
        "adapted_rand_error": rand.error,
        "v_merge": rand.merge,
        "v_split": rand.split,
        "rand_f": rand.f,
        "vi_split": information.split,
        "vi_merge": information.merge,
        "vi": information.total,
        "cremi_score": cremi_score(cremi, information),
        "instance_ap": instance_scores(table, voxels="truth").mean_average_precision,
        "adapted_rand_error_cremi": cremi,
        "adapted_rand_error_skimage": adapted_rand_error(table, variant="skimage").error,
        "unassigned": float(table.counts[left_out].sum() / truth.sum()),
        "assigned_rand_error": rand_scores(table, background="excluded").error,
        "assigned_vi_split": assigned.split,
        "assigned_vi_merge": assigned.merge,
    }


def score_job(job: Job, *, least_blocks: int, resamples: int, seed: int, threads: int) -> Scored:
    """Segment where that is asked for, count overlaps block by block, score, and resample the blocks."""
    with open_volume(job.volume.truth) as truth:
        box = scored_box(job.volume, truth)
        known_size = job.volume.voxel_size or truth.metadata.voxel_size
        if known_size is None and job.volume.skeletons is not None:
            raise InputError(f"volume '{job.volume.name}' needs voxel_size for skeletons; {truth.uri} does not tell it")
        voxel_size = known_size or (1.0, 1.0, 1.0)
        block_shape = job.volume.block_shape or block_shape_for(box.shape, voxel_size, at_least=least_blocks)
        with mask_of(job.volume, truth) as mask, _proposal(job, box, threads) as (read, seconds):
            tables = [
                _table(truth.read(at), read(at), mask.read(at) if mask else None) for at in grid(box, block_shape)
            ]
            lengths = _run_length(job.volume, truth, box, voxel_size, read)
    known = [table for table in tables if np.any(table.truth_ids != 0)]
    if len(known) < 2:
        raise InputError(
            f"volume '{job.volume.name}' must have truth in at least 2 blocks of {tuple(block_shape)}; got {len(known)}"
        )
    whole = Contingency.sum_of(known)
    scored = whole.rows[whole.truth_ids[whole.columns] != 0]
    resampled = bootstrap_blocks(known, scores_of_table, np.random.default_rng(seed), resamples)
    if lengths is not None:
        resampled = resampled.beside(resample_skeletons(lengths, np.random.default_rng(seed), resamples))
    return Scored(
        resampled,
        segments=int(np.count_nonzero(np.unique(whole.proposal_ids[scored]))),
        truth_segments=int(np.count_nonzero(whole.truth_ids)),
        blocks=len(known),
        block_shape=tuple(block_shape),
        box=(box.start, box.stop),
        seconds=seconds,
    )


def _run_length(
    config: VolumeConfig, truth: Volume, box: Box, voxel_size: tuple[float, float, float], read: Reader
) -> RunLength | None:
    """Return the run lengths on the skeletons of a volume, those of its scored part if they are made of the truth."""
    if config.skeletons is None:
        return None
    z, y, x = (start * size for start, size in zip(box.start, voxel_size))
    if config.skeletons == "truth":
        labels = truth.read(box)
        known = LabelArray(np.where(labels == CREMI_UNLABELLED, 0, labels), voxel_size, (z, y, x))
        skeletons, _ = kept_lines(known, Lines(), cache_folder() / "skeletons")
    else:
        skeletons = read_skeletons(config.skeletons, voxel_size=voxel_size).skeletons
    nodes = nodes_of(skeletons)
    proposal = ComputedVolume(box.shape, np.uint64, lambda at: read(at.shift(box.start)).astype(np.uint64))
    proposal.metadata = Metadata(voxel_size=voxel_size, offset=(z, y, x))
    segments = labels_at(proposal, nodes.positions_nm)
    return run_length(
        nodes.positions_nm, nodes.edges, nodes.skeletons, segments, merge_threshold=config.merge_threshold
    )


def resample_skeletons(result: RunLength, rng: np.random.Generator, n: int) -> Resampled:
    """Return run lengths and resamples of the skeletons; two methods with one seed are compared skeleton by skeleton.

    Raises
    ------
    InputError : no skeleton has a length
    """
    long = result.length_nm > 0
    lengths, runs = result.length_nm[long] / 1000, result.run_length_nm[long] / 1000
    if not lengths.size:
        raise InputError("skeletons: none has a length, so there is no run length")
    times = rng.multinomial(lengths.size, np.full(lengths.size, 1 / lengths.size), size=n)
    erl, true = times @ (runs * lengths) / (times @ lengths), times @ lengths**2 / (times @ lengths)
    unknown = np.full(n, np.nan)
    estimate = [result.erl_nm / 1000, result.normalized, result.merges, result.splits]
    samples = np.stack([erl, erl / true, unknown, unknown], 1)
    names = ("erl_um", "nerl", "skeleton_merges", "skeleton_splits")
    return Resampled(names, np.array(estimate, np.float64), samples)


def scored_box(config: VolumeConfig, truth: Volume) -> Box:
    """Return the part of the truth that is scored.

    Raises
    ------
    InputError : the truth does not hold labels, or a range lies beyond its end
    """
    _check_labels(truth)
    start, stop = [0, 0, 0], list(truth.spatial_shape)
    for axis, name in enumerate(("sections", "rows", "columns")):
        given = getattr(config, name)
        if given is not None and given[1] > stop[axis]:
            raise InputError(f"{name} must lie within 0:{stop[axis]} of {truth.uri}; got {given[0]}:{given[1]}")
        start[axis], stop[axis] = given or (0, stop[axis])
    return Box(tuple(start), tuple(stop))


@contextmanager
def mask_of(config: VolumeConfig, truth: Volume) -> Iterator[Volume | None]:
    """Open the mask of a volume, if it has one.

    Raises
    ------
    InputError : it does not have the shape of the truth
    """
    if config.mask is None:
        yield None
        return
    with open_volume(config.mask) as mask:
        if mask.shape != truth.shape:
            raise InputError(f"{mask.uri} must have the shape of the truth, {truth.shape}; got {mask.shape}")
        yield mask


def box_in(volume: Volume, method: MethodConfig, box: Box) -> Box:
    """Return where a box of the truth lies in the volume of a method.

    Raises
    ------
    InputError : the volume does not cover it, or does not hold labels where a segmentation is meant
    """
    if method.segmentation is not None:
        _check_labels(volume)
    whole = Box.of_shape(volume.spatial_shape).shift(method.origin)
    if not whole.contains(box):
        raise InputError(
            f"{volume.uri} must cover the scored box {box.start} to {box.stop}; it covers {whole.start} to {whole.stop}"
        )
    return box.shift([-n for n in method.origin])


@contextmanager
def _proposal(job: Job, box: Box, threads: int) -> Iterator[tuple[Reader, float | None]]:
    """Give what reads the proposal at a box of the truth, and the seconds that it took to segment."""
    with open_volume(job.method.source) as volume:
        here = box_in(volume, job.method, box)
        if job.method.segmentation is not None:
            back = [a - b for a, b in zip(here.start, box.start)]
            yield (lambda at: volume.read(at.shift(back))), None
            return
        links = _links(job.method, volume, here)
    decoder = job.method.decoder(job.threshold)
    decode(_corner(links), decoder, threads=threads)  # compiles what is not compiled yet, so that it is not timed
    start = time.monotonic()
    labels = decode(links, decoder, threads=threads).segmentation
    seconds = time.monotonic() - start
    yield (lambda at: labels[at.shift([-n for n in box.start]).slices]), seconds


def _links(method: MethodConfig, volume: Volume, box: Box) -> Affinities:
    """Read affinities, or make them of a boundary map or an image."""
    if method.affinities is not None:
        return read_affinities(volume, box)
    if method.boundary is not None:
        return links_of(read_boundary(volume, box), method.per_section, method.rule)
    image_box(volume, None)  # refuses what is no image
    return links_of(boundary_from_intensity(volume.read(box)), method.per_section, method.rule)


def _corner(links: Affinities) -> Affinities:
    """Return the first few voxels of affinities."""
    few = (slice(None), slice(8), slice(32), slice(32))
    return replace(links, values=links.values[few], mask=None if links.mask is None else links.mask[few])


def _table(truth: NDArray[Any], proposal: NDArray[Any], mask: NDArray[Any] | None) -> Contingency:
    """Count the overlaps of one block."""
    scored = truth != CREMI_UNLABELLED
    if mask is not None:
        scored &= mask != 0
    return contingency(proposal, truth, None if scored.all() else scored)


def _check_labels(volume: Volume) -> None:
    if len(volume.shape) != 3 or volume.dtype.kind not in "ui":
        raise InputError(f"{volume.uri} must hold integer labels (z, y, x); it holds {volume.dtype} {volume.shape}")
