"""Fuse the votes of many players into one consensus, and say what each player's vote is worth.

Votes are a table (.csv or .parquet) with columns user, task, segment, vote (1 selected, 0 shown and not selected) and
perhaps timestamp; --segments names a table with columns segment, task and perhaps size (voxels), label (1, 0, or -1
for not known) and seed. Writes the consensus, and beside it .users.csv, .json and .html. Where labels are known, the
method is cross-validated by task and its cost curve drawn; --no-score leaves that out.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuropil.config import Names, StageConfig, dump
from neuropil.crowd.cost import CostCurve, cost_curve
from neuropil.crowd.folds import circularity, cross_validate
from neuropil.crowd.fusion import Fusion, Method, fuse_votes
from neuropil.crowd.scores import CrowdScores, score_consensus
from neuropil.crowd.simulate import Crowd, simulate_votes
from neuropil.crowd.tiers import TierRule, update_tiers, user_records
from neuropil.errors import ConfigError, OutputExists
from neuropil.files import write_json, write_text
from neuropil.progress import track
from neuropil.report.crowd import render_crowd
from neuropil.stages import StageResult
from neuropil.stages.common import versions
from neuropil.stages.crowd_tables import NamedVotes, read_votes
from neuropil.volume.tables import write_table

EXAMPLES = [
    "neuropil crowd --simulate 250 --output votes.csv",
    "neuropil crowd votes.csv --segments votes.segments.csv --output consensus.csv",
    "neuropil crowd votes.parquet --segments segments.parquet --method logistic --output consensus.parquet",
    "neuropil crowd votes.csv --output consensus.csv --super-users grim,reaper",
]
POSITIONAL = ("votes",)


class Config(StageConfig):
    """Fields of [crowd]."""

    votes: Path | None = Field(None, description="table of votes: user, task, segment, vote[, timestamp]")
    segments: Path | None = Field(None, description="table of segments: segment, task[, size, label, seed]")
    output: Path = Field(description="table to write, .csv or .parquet")
    method: Method = Field("dawid_skene", description="how votes are fused")
    compare: bool = Field(True, description="where labels are known, also score majority and eyewire's threshold")
    score: bool = Field(True, description="where labels are known, cross-validate and draw the cost curve")
    folds: int = Field(5, ge=2, description="parts of the cross-validation")
    most: int = Field(10, ge=1, description="most players per task of the cost curve")
    tune: bool = Field(False, description="choose the threshold on known labels; else 0.5")
    super_users: Names = Field([], description="users whose votes are left out, a,b: they override others")
    precision: float = Field(0.7, ge=0, le=1, description="voxel precision that a full vote asks for")
    recall: float = Field(0.7, ge=0, le=1, description="voxel recall that a full vote asks for")
    tasks: int = Field(0, ge=0, description="more tasks than this must be played for a full vote")
    simulate: int | None = Field(
        None, ge=1, description="write a table of simulated votes on so many tasks, in place of fusing"
    )
    seed: int = Field(0, ge=0, description="of the division into folds, the draw of the cost curve, and the simulation")
    overwrite: bool = Field(False, description="replace outputs that exist")


def run(config: Config) -> StageResult:
    """Fuse, or simulate."""
    if (config.votes is None) == (config.simulate is None):
        raise ConfigError("crowd needs either a table of votes or --simulate")
    if not config.output.absolute().parent.is_dir():
        raise ConfigError(f"output {config.output} must lie in a folder that exists")
    if config.simulate is not None:
        return _simulate(config, config.simulate)
    table, page = config.output, config.output.with_suffix(".html")
    users_table, record_file = table.with_suffix(".users.csv"), table.with_suffix(".json")
    _refuse(config, [table, users_table, record_file, page])
    named = read_votes(config.votes or Path(), config.segments, config.super_users)
    fusion = fuse_votes(named.votes, config.method, tune=config.tune)
    selected = fusion.selected | named.seeds
    users = _users(config, named, fusion, selected)
    scores, curves = _scores(config, named) if config.score else ({}, {})
    notes = _notes(config, named) if config.score else []
    about = _about(config, named, fusion, selected)
    data: dict[str, Any] = about | {"notes": notes, "scores": {name: _flat(one) for name, one in scores.items()}}
    data |= {"cost": {name: _listed(asdict(one)) for name, one in curves.items()}}
    data |= {"config": dump(config), "versions": versions()}
    write_table(table, _consensus(named, fusion, selected))
    write_table(users_table, users)
    write_json(record_file, data)
    write_text(page, render_crowd(f"Consensus of {config.votes}", about, scores, curves, _listed(users), notes))
    lines = [f"{table}: {about['selected']} of {about['segments']} segments selected, {about['users']} users"]
    lines += [_line(name, one) for name, one in scores.items()]
    return StageResult("\n".join([*lines, *notes, f"users: {users_table}", f"report: {page}"]), data)


def _refuse(config: Config, outputs: list[Path]) -> None:
    sources = {path.resolve() for path in (config.votes, config.segments) if path is not None}
    for path in outputs:
        if path.resolve() in sources:
            raise ConfigError(f"output {path} is an input; give another name")
        if path.exists() and not config.overwrite:
            raise OutputExists(f"output {path} exists; give --overwrite to replace it")


def _simulate(config: Config, tasks: int) -> StageResult:
    """Write votes and segments of a simulated crowd."""
    outputs = [config.output, config.output.with_suffix(f".segments{config.output.suffix}")]
    _refuse(config, outputs)
    votes = simulate_votes(Crowd(), tasks=tasks, rng=np.random.default_rng(config.seed)).votes
    segment = np.arange(votes.tasks.size)
    write_table(
        outputs[0],
        {
            "user": np.array([f"player{u:03}" for u in votes.users.tolist()]),
            "task": votes.tasks[votes.segments],
            "segment": votes.segments,
            "vote": votes.values.astype(np.int64),
        },
    )
    truth = votes.truth.astype(np.int64)
    write_table(outputs[1], {"segment": segment, "task": votes.tasks, "size": votes.sizes, "label": truth})
    text = f"{outputs[0]}: {votes.users.size} votes on {segment.size} segments; truth in {outputs[1]}"
    return StageResult(text, {"votes": str(outputs[0]), "segments": str(outputs[1])})


def _about(config: Config, named: NamedVotes, fusion: Fusion, selected: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "votes": named.votes.users.size,
        "users": named.users.size,
        "segments": named.segments.size,
        "tasks": np.unique(named.tasks).size,
        "labelled": int(named.votes.labelled.sum()),
        "selected": int(selected.sum()),
        "method": config.method,
        "threshold": fusion.threshold,
    }


def _consensus(named: NamedVotes, fusion: Fusion, selected: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    votes = named.votes
    return {
        "segment": named.segments,
        "task": named.tasks,
        "size": votes.sizes,
        "probability": np.where(named.seeds, 1.0, fusion.probability),
        "selected": selected.astype(np.int64),
        "votes": votes.counts,
        "votes_for": votes.sum_over_segments(votes.values.astype(np.float64)).astype(np.int64),
    }


def _users(config: Config, named: NamedVotes, fusion: Fusion, selected: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """Return the table of users: weights and abilities by the fusion, and tiers by EyeWire's rule, all starting low."""
    record = user_records(named.votes, selected)
    rule = TierRule(config.precision, config.recall, config.tasks)
    exempt = np.isin(named.users, config.super_users)
    tier = update_tiers(np.where(exempt, np.nan, 0.1), record, rule, exempt=exempt)
    return {
        "user": named.users,
        "votes": np.bincount(named.votes.users, minlength=named.users.size),
        "tasks": record.tasks,
        "weight": fusion.weights,
        "sensitivity": fusion.abilities.sensitivity,
        "specificity": fusion.abilities.specificity,
        "voxel_precision": record.precision,
        "voxel_recall": record.recall,
        "tier": tier,
    }


def _scores(config: Config, named: NamedVotes) -> tuple[dict[str, CrowdScores], dict[str, CostCurve]]:
    """Cross-validate the method and what it is compared with; nothing where too few tasks have labels."""
    votes = named.votes
    if _labelled_tasks(named) < config.folds:
        return {}, {}
    methods: list[Method] = [config.method]
    methods += [one for one in ("majority", "eyewire") if config.compare and one != config.method]
    scores: dict[str, CrowdScores] = {}
    curves: dict[str, CostCurve] = {}
    for method in track(methods, "score", len(methods)):
        for by in ("task", "segment") if method == config.method else ("task",):
            rng = np.random.default_rng(config.seed)
            held = cross_validate(votes, method, folds=config.folds, by=by, tune=config.tune, rng=rng)
            name = method if by == "task" else f"{method}, folds of segments"
            scores[name] = score_consensus(votes, held.probability, threshold=held.threshold)
        rng = np.random.default_rng(config.seed)
        curves[method] = cost_curve(votes, method, most=config.most, folds=config.folds, rng=rng)
    return scores, curves


def _labelled_tasks(named: NamedVotes) -> int:
    return np.unique(named.votes.tasks[named.votes.labelled]).size


def _notes(config: Config, named: NamedVotes) -> list[str]:
    """Return what a reader of the scores, or of their absence, must know."""
    votes = named.votes
    if not (votes.labelled & (votes.counts > 0)).any():
        return ["no labels: abilities are inferred from agreement, nothing is scored"]
    found, told = [], circularity(votes)
    if _labelled_tasks(named) < config.folds:
        found.append(
            f"labels in {_labelled_tasks(named)} tasks are too few for {config.folds} folds: nothing is scored"
        )
    if told.circular:
        found.append(
            f"labels look as if they were made of these votes: they agree with '{told.rule}' on {told.agreement:.1%} "
            f"of segments, where {told.expected:.1%} were to be expected; scores then measure nothing"
        )
    return found


def _flat(one: CrowdScores) -> dict[str, Any]:
    flat: dict[str, Any] = _listed(asdict(one))
    flat["calibration"]["error"] = one.calibration.error
    return flat


def _line(name: str, one: CrowdScores) -> str:
    voxels = one.voxels
    return (
        f"{name:34} error {voxels.error:.4f}  F {voxels.f:.4f}  precision {voxels.precision:.4f}"
        f"  recall {voxels.recall:.4f}  log loss {one.log_loss:.3f}"
    )


def _listed(data: Any) -> Any:
    """Return data with arrays as lists."""
    if isinstance(data, dict):
        return {key: _listed(value) for key, value in data.items()}
    return data.tolist() if isinstance(data, np.ndarray | np.generic) else data
