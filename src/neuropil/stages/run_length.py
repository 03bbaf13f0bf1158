"""Expected run length of a segmentation on skeletons: what `neuropil evaluate --skeletons` does.

Skeletons come from a file, or from dense truth; then they are made once and kept. The segmentation is read only where
nodes are, block by block, so it may be of any size.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import ConfigError
from neuropil.files import cache_folder
from neuropil.metrics.run_length import RunLength, run_length, run_length_interval
from neuropil.metrics.run_length_errors import RunLengthError, run_length_errors
from neuropil.skeletons.skeleton import Skeleton, SkeletonNodes, nodes_of
from neuropil.stages.lines import Lines, kept_lines, read_labels
from neuropil.volume import open_volume
from neuropil.volume.lookup import labels_at, overlap_with_mask
from neuropil.volume.metadata import Length
from neuropil.volume.skeleton_files import read_skeletons
from neuropil.volume.thinned import ThinnedVolume

LISTED = 20  # merges and splits that are written; the table shows fewer
SHOWN = 3
DEFINITION = (
    "ERL = sum over skeletons of (sum over segments of correct length^2) / sum of lengths; a segment that covers at"
    " least T nodes of two skeletons is worth nothing; NERL = ERL / ERL of a perfect segmentation; intervals: 95 %,"
    " bootstrap over skeletons"
)


@dataclass(frozen=True)
class RunLengthTask:
    """What is scored and how.

    Attributes
    ----------
    segmentation : URI
    skeletons : "truth", or a path
    truth : URI of dense labels, where the skeletons are theirs
    no_merge_mask : URI or None; segments with more than T voxels where it is not 0 count as merging
    thresholds : T, one row of scores each
    intervals_nm : edges of length intervals, ascending
    margin, stride : of truth that is skeletonized; the margin is that of the segmentation and mask, too
    voxel_size : nm, where a volume does not tell its own
    lines : how skeletons are made of truth
    folder : where they are kept; the user's cache if None
    """

    segmentation: str
    skeletons: str
    truth: str | None
    no_merge_mask: str | None
    thresholds: Sequence[int]
    intervals_nm: Sequence[float]
    margin: tuple[int, int, int]
    stride: tuple[int, int, int]
    voxel_size: Length | None
    lines: Lines
    folder: Path | None


def score_run_length(task: RunLengthTask) -> dict[str, Any]:
    """Return run lengths, errors and facts, JSON-able.

    Raises
    ------
    ConfigError, InputError : inputs that do not fit
    """
    if not task.thresholds or min(task.thresholds) < 0:
        raise ConfigError(f"merge_threshold must be one or more numbers >= 0; got {list(task.thresholds)}")
    if any(low >= high for low, high in itertools.pairwise(task.intervals_nm)):
        raise ConfigError(f"intervals must be ascending lengths in nm; got {list(task.intervals_nm)}")
    with open_volume(task.segmentation) as volume:
        proposal = ThinnedVolume(volume, margin=task.margin, voxel_size=task.voxel_size)
        skeletons, origin = _skeletons(task, proposal.metadata.voxel_size)
        nodes = nodes_of(skeletons)
        segments = labels_at(proposal, nodes.positions_nm)
        size, inside = proposal.metadata.voxel_size, _masked(task, proposal)
    rows = []
    for threshold in task.thresholds:
        no_merge = [one for one, voxels in inside.items() if voxels > threshold]
        rows.append(_row(nodes, segments, threshold, no_merge, task.intervals_nm))
    return {
        "skeletons": origin | {"count": len(skeletons), "nodes": len(segments)},
        "voxel_size": size,
        "nodes_on_background": int(np.count_nonzero(segments == 0)),
        "definitions": {"run_length": DEFINITION},
        "run_length": rows,
    }


def table(scores: dict[str, Any]) -> str:
    """Return the scores as lines for people."""
    about = scores["skeletons"]
    size = " x ".join(f"{length:g}" for length in scores["voxel_size"])
    head = f"{'model':22} {'T':>4} {'ERL um':>9} {'true um':>9} {'NERL':>6} {'95 %':>13} {'merges':>7} {'splits':>7}"
    head += f" {'omitted':>8}"
    lines = [f"{about['count']} skeletons ({about['from']}), {about['nodes']} nodes, segmentation {size} nm", "", head]
    lines.append("-" * len(head))
    for row in scores["run_length"]:
        lines.append(f"{scores['model']:22} {row['merge_threshold']:4d} {_numbers(row)}")
        lines += [
            f"  {part['low_nm']:g} to {part['high_nm']:g} nm".ljust(27) + f" {_numbers(part)}"
            for part in row["intervals"]
        ]
    errors = scores["run_length"][0]["errors"]
    if errors["merges"] or errors["splits"]:
        lines.append(f"dearest errors at T = {scores['run_length'][0]['merge_threshold']}:")
    for kind, whole, parts in (("merges", "segment", "skeletons"), ("splits", "skeleton", "segments")):
        for error in errors[kind][:SHOWN]:
            z, y, x = (round(length) for length in error["point_nm"])
            named = ", ".join(map(str, error["parts"][:2])) + (", ..." if len(error["parts"]) > 2 else "")
            lines.append(
                f"{kind[:-1]}: {whole} {error['whole']} has {len(error['parts'])} {parts} ({named}), costs"
                f" {error['cost_nm'] / 1000:.3f} um, near z y x {z} {y} {x} nm"
            )
    return "\n".join(lines)


def _numbers(row: dict[str, Any]) -> str:
    if row["erl_um"] is None:
        return "no skeleton of that length"
    interval = row.get("nerl_interval")
    sure = f"{interval[0]:.3f}-{interval[1]:.3f}" if interval else "-"
    counts = f" {row['merges']:7d} {row['splits']:7d}" if "merges" in row else " " * 16
    omitted = f" {100 * row['omitted_um'] / row['length_um']:6.1f} %"
    return f"{row['erl_um']:9.3f} {row['true_erl_um']:9.3f} {row['nerl']:6.3f} {sure:>13}{counts}{omitted}"


def _skeletons(task: RunLengthTask, size: Sequence[float] | None) -> tuple[dict[int, Skeleton], dict[str, Any]]:
    """Return the skeletons and where they are from; those in voxels have the voxel size of the segmentation."""
    if task.skeletons != "truth":
        return read_skeletons(task.skeletons, voxel_size=size).skeletons, {"from": task.skeletons}
    if task.truth is None:
        raise ConfigError("evaluate --skeletons truth needs --truth, the labels to skeletonize")
    with open_volume(task.truth) as volume:
        thinned = ThinnedVolume(volume, margin=task.margin, stride=task.stride, voxel_size=task.voxel_size)
        labels = read_labels(thinned)
    skeletons, path = kept_lines(labels, task.lines, task.folder or cache_folder() / "skeletons")
    return skeletons, {"from": "truth", "file": str(path), "voxel_size": labels.voxel_size}


def _masked(task: RunLengthTask, proposal: ThinnedVolume) -> dict[int, int]:
    """Return the number of voxels inside the mask of each segment that has any."""
    if task.no_merge_mask is None:
        return {}
    with open_volume(task.no_merge_mask) as mask:
        overlap = overlap_with_mask(proposal, ThinnedVolume(mask, margin=task.margin))
    return dict(zip(overlap.proposal_ids.tolist(), overlap.proposal_sizes.tolist()))


def _row(
    nodes: SkeletonNodes,
    segments: NDArray[np.uint64],
    threshold: int,
    no_merge: Sequence[int],
    intervals_nm: Sequence[float],
) -> dict[str, Any]:
    """Return everything at one merge threshold."""
    given = nodes.positions_nm, nodes.edges, nodes.skeletons, segments
    result = run_length(*given, merge_threshold=threshold, no_merge=no_merge)
    errors = run_length_errors(*given, result, count=LISTED)
    parts = [
        {"low_nm": low, "high_nm": high} | _summary(result.between(low, high))
        for low, high in itertools.pairwise(intervals_nm)
    ]
    return {
        "merge_threshold": threshold,
        **_summary(result),
        "merges": result.merges,
        "splits": result.splits,
        "merging_segments": int(result.merging.size),
        "no_merge_segments": len(no_merge),
        "intervals": parts,
        "errors": {"merges": _listed(errors.merges), "splits": _listed(errors.splits)},
        "per_skeleton": {
            "id": result.skeletons.tolist(),
            "length_um": (result.length_nm / 1000).tolist(),
            "run_length_um": (result.run_length_nm / 1000).tolist(),
        },
    }


def _summary(result: RunLength) -> dict[str, Any]:
    """Return the sums of a set of skeletons, in um."""
    sums = {
        f"{name}_um": float(getattr(result, f"{name}_nm").sum()) / 1000
        for name in ("length", "correct", "split", "merged", "omitted")
    }
    long = int(np.count_nonzero(result.length_nm))
    if not long:
        return {"skeletons": 0, "erl_um": None, "true_erl_um": None, "nerl": None, **sums}
    found: dict[str, Any] = {"skeletons": long, "erl_um": result.erl_nm / 1000}
    found |= {"true_erl_um": result.true_erl_nm / 1000, "nerl": result.normalized, **sums}
    if long > 1:
        erl, nerl = run_length_interval(result, np.random.default_rng(0))
        found["erl_interval_um"] = [erl.low / 1000, erl.high / 1000]
        found["nerl_interval"] = [nerl.low, nerl.high]
    return found


def _listed(errors: Sequence[RunLengthError]) -> list[dict[str, Any]]:
    return [asdict(error) for error in errors]
