"""Score segmentations of any origin on several volumes: one table with intervals, as text, CSV, JSON and a page.

The .toml lists volumes with truth, and methods for each: a segmentation that any program made, or affinities, a
boundary map or an image that neuropil segments and times. Intervals are by bootstrap over blocks; the methods of a
volume are compared with its first on the same blocks. A finished method is not scored again unless its files or
parameters changed, so the same command goes on after a stop and takes up new methods.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil import __version__
from neuropil.config import dump
from neuropil.errors import ConfigError
from neuropil.files import write_json, write_text
from neuropil.machine import cores
from neuropil.metrics.blocks import Resampled
from neuropil.progress import Progress
from neuropil.report.benchmark import COUNTS, render_benchmark, shown_scores
from neuropil.stages import StageResult
from neuropil.stages.benchmark_config import Config, Job, check, jobs_of
from neuropil.stages.benchmark_scores import SCORING, Scored, box_in, mask_of, score_job, scored_box
from neuropil.stages.common import versions
from neuropil.volume import open_volume
from neuropil.volume.tables import write_table
from neuropil.volume.uri import parse_uri

EXAMPLES = [
    "neuropil benchmark examples/benchmark.toml",
    "neuropil benchmark examples/benchmark.toml --resamples 2000 --output runs/benchmark2000",
    "neuropil benchmark examples/benchmark.toml --set benchmark.volumes.fib25.sections=0:90 --json scores.json",
]
POSITIONAL = ()
__all__ = ["EXAMPLES", "POSITIONAL", "Config", "run"]


def run(config: Config) -> StageResult:
    """Score what is not scored yet, then write all results anew."""
    check(config)
    if config.output.exists() and not config.output.is_dir():
        raise ConfigError(f"output must be a folder; {config.output} is a file")
    jobs = list(jobs_of(config))
    _look(jobs)
    progress = Progress("benchmark", len(jobs))
    rows = []
    for job in jobs:
        rows.append(_Row(job, _scored(job, config, config.output / "scores" / job.volume.name / f"{job.name}.json")))
        progress.advance(note=f"{job.volume.name}, {job.name}")
    volumes = [_volume(config, [row for row in rows if row.job.volume is volume]) for volume in config.volumes]
    about = {"level": config.level, "config": dump(config), "versions": versions()}
    write_json(config.output / "results.json", {"volumes": volumes, **about})
    write_table(config.output / "results.csv", _columns(volumes))
    write_text(config.output / "report.html", render_benchmark(config.title, volumes, about))
    text = "\n\n".join(_table(volume) for volume in volumes)
    return StageResult(f"{text}\n\n{config.output / 'report.html'}", {"volumes": volumes, **about})


@dataclass(frozen=True)
class _Row:
    job: Job
    scored: Scored


def _look(jobs: Sequence[Job]) -> None:
    """Open every file before hours of work, not after."""
    for job in jobs:
        with open_volume(job.volume.truth) as truth, open_volume(job.method.source) as volume:
            box_in(volume, job.method, scored_box(job.volume, truth))
            with mask_of(job.volume, truth):
                pass


def _scored(job: Job, config: Config, path: Path) -> Scored:
    """Return the scores that are kept at a path, or score and keep them."""
    key = _key(job, config)
    if path.exists() and not config.fresh:
        kept = json.loads(path.read_text())
        if kept.pop("key") == key:
            return _unpacked(kept)
    scored = score_job(
        job,
        least_blocks=config.blocks,
        resamples=config.resamples,
        seed=config.seed,
        threads=config.threads or cores(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"key": key, **_packed(scored)})
    return scored


def _key(job: Job, config: Config) -> str:
    """Return what changes whenever the scores could."""
    said = {
        "version": [__version__, SCORING],
        "volume": dump(job.volume) | {"methods": None, "name": None},
        "method": dump(job.method) | {"thresholds": None, "name": None},
        "threshold": job.threshold,
        "bootstrap": [config.resamples, config.blocks, config.seed],
        "files": [_identity(uri) for uri in _files(job)],
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _files(job: Job) -> list[str]:
    """Return the URIs of all that a score depends on."""
    skeletons = None if job.volume.skeletons == "truth" else job.volume.skeletons
    return [uri for uri in (job.volume.truth, job.volume.mask, skeletons, job.method.source) if uri is not None]


def _identity(uri: str) -> list[Any]:
    """Return what tells whether a local file, or a folder with all in it, changed; a bucket is known by its address."""
    place = parse_uri(uri)
    if place.remote:
        return [uri]
    path = place.local.resolve()
    stats = [one.stat() for one in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return [
        str(path),
        len(stats),
        sum(one.st_size for one in stats),
        max((one.st_mtime_ns for one in stats), default=0),
    ]


def _packed(scored: Scored) -> dict[str, Any]:
    resampled = scored.resampled
    return vars(scored) | {
        "resampled": {
            "names": resampled.names,
            "estimate": resampled.estimate.tolist(),
            "samples": resampled.samples.tolist(),
        }
    }


def _unpacked(kept: Mapping[str, Any]) -> Scored:
    found = kept["resampled"]
    arrays = (np.array(found[key], np.float64) for key in ("estimate", "samples"))  # None becomes nan
    return Scored(**(dict(kept) | {"resampled": Resampled(tuple(found["names"]), *arrays)}))


def _volume(config: Config, rows: Sequence[_Row]) -> dict[str, Any]:
    """Collect what is told of one volume."""
    first = rows[0]
    return {
        "name": first.job.volume.name,
        "truth": first.job.volume.truth,
        "box": first.scored.box,
        "blocks": first.scored.blocks,
        "block_shape": first.scored.block_shape,
        "truth_segments": first.scored.truth_segments,
        "methods": [
            {
                "name": row.job.name,
                "source": row.job.method.source,
                "threshold": row.job.threshold,
                "segments": row.scored.segments,
                "seconds": row.scored.seconds,
                "scores": _with_intervals(row.scored.resampled, config.level),
                "minus_first": _with_intervals(row.scored.resampled.minus(first.scored.resampled), config.level),
            }
            for row in rows
        ],
    }


def _with_intervals(resampled: Resampled, level: float) -> dict[str, dict[str, float | None]]:
    numbers = {name: (one.estimate, one.low, one.high) for name, one in resampled.intervals(level).items()}
    return {
        name: {key: x if math.isfinite(x) else None for key, x in zip(("value", "low", "high"), found)}
        for name, found in numbers.items()
    }


def _columns(volumes: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[np.str_]]:
    """Return one row per volume and method, every number with its interval; what is not known is empty."""
    lines = []
    for volume in volumes:
        for method in volume["methods"]:
            line = {"volume": volume["name"], "method": method["name"], "source": method["source"]}
            line |= {key: method[key] for key in ("threshold", "segments", "seconds")}
            for prefix, scores in (("", method["scores"]), ("minus_first_", method["minus_first"])):
                for name, found in scores.items():
                    line |= {prefix + name: found["value"]}
                    line |= {f"{prefix}{name}_{end}": found[end] for end in ("low", "high")}
            lines.append({key: _cell(value) for key, value in line.items()})
    names = dict.fromkeys(name for line in lines for name in line)  # not all volumes have skeletons
    return {name: np.array([line.get(name, "") for line in lines]) for name in names}


def _cell(value: Any) -> str:
    return "" if value is None else str(round(value, 6) if isinstance(value, float) else value)


def _table(volume: Mapping[str, Any]) -> str:
    """Return the printed table of one volume."""
    methods = volume["methods"]
    wide = max(len(one["name"]) for one in methods)
    known = shown_scores(methods)
    shown = [(key, max(len(name), 6)) for key, name, _ in known]
    head = f"{volume['name']:{wide}}" + "".join(f"  {name:>6}" for _, name, _ in known)
    head += f"  {'segments':>8}  {'seconds':>7}  Rand error, interval; against the first"
    lines = [head, "-" * len(head)]
    for one in methods:
        line = f"{one['name']:{wide}}" + "".join(
            f"  {_number(one['scores'][key]['value'], 0 if key in COUNTS else 3):>{n}}" for key, n in shown
        )
        line += f"  {one['segments']:8}  {_number(one['seconds'], 1):>7}"
        error, difference = one["scores"]["adapted_rand_error"], one["minus_first"]["adapted_rand_error"]
        line += f"  {_number(error['low'])} to {_number(error['high'])}"
        if one is not methods[0]:
            line += f"; {_number(difference['low'], sign='+')} to {_number(difference['high'], sign='+')}"
        lines.append(line)
    return "\n".join(lines)


def _number(value: float | None, digits: int = 3, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.{digits}f}"
