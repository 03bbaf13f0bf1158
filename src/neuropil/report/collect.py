"""Read a run folder into `ReportData`: whatever is there is shown, nothing is required but one of the three parts.

    RUN/run.json                  resolved config, versions, timings, seeds, data with licence and citation
    RUN/<network>/log.jsonl       one JSON object per line: losses and validations; best.json beside it is the card
    RUN/evaluation/<model>.json   what `neuropil evaluate --json` wrote; <model>.npz beside it holds the pictures
    RUN/.../OUTPUT.json            what commands noted beside their outputs (`collect_stages`)

A run may be in progress or have been killed: the last line of a log may be cut short, and a resumed training may have
logged some updates twice (the later line counts). A file that is broken in any other way is an error, not a gap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from neuropil.errors import InputError, VolumeError, VolumeNotFound
from neuropil.files import Place
from neuropil.report.collect_pictures import collect_errors, collect_panels, load_pictures
from neuropil.report.collect_stages import collect_stages, collect_sweeps
from neuropil.report.data import (
    Decoder,
    DecoderScores,
    InformationCurve,
    ModelScores,
    PixelError,
    RandCurve,
    ReportData,
    StageTime,
    TrainingLog,
    Validation,
)

BASELINE_WORDS = ("baseline", "intensity", "grey", "gray")
CARDS = ("best.json", "model.json", "last.json")
_AS_FACTS = ("command", "seed", "seeds", "started", "finished")
_SHOWN = (
    "config",
    "versions",
    "hardware",
    "timings",
    "data",
    "title",
    "facts",
    "models",
    "networks",
    "seconds",
    "model",
    *_AS_FACTS,
)


def collect_run(
    run: Path, *, sections: int = 3, crop: int = 512, unfinished: Mapping[str, Place] | None = None
) -> ReportData:
    """Read the run folder `run`.

    Parameters
    ----------
    run : Path
        The folder that `neuropil train`, `evaluate` or `demo` wrote.
    sections : int
        Most sections to show as pictures, spread evenly over those that were kept.
    crop : int, voxels
        Largest side of those pictures, cut from the middle.
    unfinished : by the name of the output
        Work folders that do not lie in the run folder.

    Raises
    ------
    VolumeNotFound : there is no such folder
    InputError : it is no folder, or holds nothing of a run; `sections` is negative or `crop` below 16
    VolumeError : a file in it is broken

    Examples
    --------
    >>> collect_run(Path("no/run"))
    Traceback (most recent call last):
    neuropil.errors.VolumeNotFound: run must be a folder that train, evaluate or demo wrote; no/run is not there
    """
    run = Path(run)
    if sections < 0 or crop < 16:
        raise InputError(f"sections must be at least 0 and crop at least 16; got {sections} and {crop}")
    stages = collect_stages(run, unfinished)
    evaluations, logs = _find(run, stages)
    about = read_json(run / "run.json") if (run / "run.json").is_file() else {}
    scores = {path: read_json(path) for path in evaluations}
    order = [str(name) for name in _sequence(about.get("models"))]
    names = {path: str(one.get("model") or path.stem) for path, one in scores.items()}
    ranked = sorted(scores, key=lambda path: _rank(names[path], scores[path], order))
    models = tuple(model_scores(names[path], scores[path]) for path in ranked)
    pictures = {
        names[path]: load_pictures(path.with_suffix(".npz"), scores[path])
        for path in ranked
        if path.with_suffix(".npz").is_file()
    }
    panels, notes = collect_panels(pictures, sections, crop)
    training = tuple(training_log(folder) for folder in logs)
    return ReportData(
        title=str(about.get("title") or f"neuropil run {run.resolve().name}"),
        run=str(run),
        facts=_facts(about, [scores[path] for path in ranked]),
        models=models,
        panels=panels,
        errors=collect_errors({names[path]: scores[path] for path in ranked}, pictures),
        sweeps=collect_sweeps(run),
        stages=stages,
        training=tuple(sorted(training, key=lambda log: _rank(log.network, {}, order))),
        config=_mapping(about.get("config")),
        versions=_mapping(next((one["versions"] for one in (about, *scores.values()) if one.get("versions")), None)),
        hardware=_mapping(about.get("hardware")),
        timings=_timings(about),
        data_notes=_data_notes(about.get("data") or _mapping(about.get("config")).get("notes")),
        other={key: value for key, value in about.items() if key not in _SHOWN},
        notes=notes,
    )


def model_scores(name: str, content: Mapping[str, Any]) -> ModelScores:
    """Read what `neuropil evaluate --json` wrote for one model.

    >>> model_scores("VD2D", {"components": {"best": {"f": 0.9, "threshold": 0.3}}}).best_f
    0.9
    """
    decoders: dict[Decoder, DecoderScores] = {}
    for decoder in get_args(Decoder):
        scores = _decoder_scores(_mapping(content.get(decoder)))
        if scores is not None:
            decoders[decoder] = scores
    sections = [int(value) for value in _numbers(content.get("sections"))]
    definitions = _mapping(content.get("definitions"))
    return ModelScores(
        model=name,
        baseline=_is_baseline(name, content),
        pixel_error=_pixel_error(_mapping(content.get("pixel_error"))),
        decoders=decoders,
        sections=(sections[0], sections[1]) if len(sections) == 2 else None,
        definitions={str(key): str(value) for key, value in definitions.items()},
        config=_mapping(content.get("config")),
    )


def training_log(folder: Path) -> TrainingLog:
    """Read one network's `log.jsonl` and its model card; either may be absent."""
    lines = _log_lines(folder / "log.jsonl")
    card = next((read_json(folder / name) for name in CARDS if (folder / name).is_file()), {})
    losses = {int(line["update"]): line for line in lines if number(line.get("loss")) is not None}
    checks = {int(line["update"]): _mapping(line["validation"]) for line in lines if "validation" in line}
    updates = tuple(sorted(losses))
    speeds = sorted(speed for line in losses.values() if (speed := number(line.get("pixels_per_second"))) is not None)
    seconds = _seconds(line.get("seconds") for line in lines)
    return TrainingLog(
        network=folder.name,
        update=updates,
        loss=tuple(float(losses[update]["loss"]) for update in updates),
        validations=tuple(
            Validation(
                update=update,
                pixel_error=number(check.get("pixel_error")),
                rand_error=number(check.get("rand_error")),
                threshold=number(check.get("threshold")),
                loss=number(check.get("loss")),
            )
            for update, check in sorted(checks.items())
        ),
        seconds=seconds,
        updates_per_second=updates[-1] / seconds if updates and seconds else None,
        pixels_per_second=speeds[len(speeds) // 2] if speeds else None,
        card=card,
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object; raises VolumeError with one sentence if it does not."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VolumeError(f"{path} is not readable JSON: {error}; run the command that wrote it again") from None
    if not isinstance(content, dict):
        raise VolumeError(f"{path} must hold a JSON object; got {type(content).__name__}")
    return content


def number(value: object) -> float | None:
    """Return a finite number as float, anything else as None.

    >>> number(3), number("3"), number(float("nan")), number(True)
    (3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _find(run: Path, stages: Sequence[StageTime]) -> tuple[list[Path], list[Path]]:
    rule = "run must be a folder that train, evaluate or demo wrote"
    if not run.exists():
        raise VolumeNotFound(f"{rule}; {run} is not there")
    if not run.is_dir():
        raise InputError(f"{rule}; {run} is a file")
    evaluations = sorted((run / "evaluation").glob("*.json"))
    logs = sorted({path.parent for name in ("log.jsonl", *CARDS) for path in run.glob(f"*/{name}")})
    if not evaluations and not logs and not (run / "run.json").is_file() and not stages:
        raise InputError(
            f"{rule}, or that holds outputs of other commands; {run} has no run.json, NETWORK/log.jsonl,"
            " evaluation/MODEL.json or OUTPUT.json"
        )
    return evaluations, logs


def _rank(name: str, content: Mapping[str, Any], order: list[str]) -> tuple[int, bool, str]:
    return (order.index(name) if name in order else len(order), not _is_baseline(name, content), name)


def _is_baseline(name: str, content: Mapping[str, Any]) -> bool:
    stated = content.get("baseline")
    return stated if isinstance(stated, bool) else any(word in name.lower() for word in BASELINE_WORDS)


def _decoder_scores(content: Mapping[str, Any]) -> DecoderScores | None:
    best = _mapping(content.get("best"))
    f = number(best.get("f"))
    if f is None:
        return None
    are, vi, fixed = best.get("are"), _mapping(best.get("vi")), _mapping(content.get("at_fixed"))
    interval = _numbers(best.get("interval"))
    variants = are if isinstance(are, Mapping) else {"neuropil": are}
    sections = [one.get("f") if isinstance(one, Mapping) else one for one in _sequence(content.get("per_section"))]
    return DecoderScores(
        f=f,
        merge=number(best.get("merge")),
        split=number(best.get("split")),
        threshold=number(best.get("threshold")),
        are={str(key): error for key, value in variants.items() if (error := number(value)) is not None},
        vi_split=number(vi.get("split")),
        vi_merge=number(vi.get("merge")),
        f_at_fixed=number(fixed.get("f")),
        fixed_threshold=number(fixed.get("threshold")),
        interval=(interval[0], interval[1]) if len(interval) == 2 else None,
        f_per_section=tuple(_numbers(sections)),
        curve=_curve(_mapping(content.get("curve"))),
        information=_information(_mapping(content.get("information"))),
    )


def _curve(content: Mapping[str, Any]) -> RandCurve | None:
    columns = _columns(content, ("threshold", "merge", "split", "f"))
    return RandCurve(*columns) if columns else None


def _information(content: Mapping[str, Any]) -> InformationCurve | None:
    columns = _columns(content, ("threshold", "split", "merge"))
    return InformationCurve(*columns) if columns else None


def _columns(content: Mapping[str, Any], keys: Sequence[str]) -> list[tuple[float, ...]]:
    """Return columns of one length; none where they are not."""
    columns = [tuple(_or_nan(value) for value in _sequence(content.get(key))) for key in keys]
    return columns if columns[0] and len({len(column) for column in columns}) == 1 else []


def _pixel_error(content: Mapping[str, Any]) -> PixelError | None:
    best = number(content.get("best"))
    if best is None:
        return None
    curve = _mapping(content.get("curve"))
    thresholds, errors = ([_or_nan(value) for value in _sequence(curve.get(key))] for key in ("threshold", "error"))
    same = len(thresholds) == len(errors)
    return PixelError(
        best=best,
        threshold=number(content.get("threshold")),
        at_fixed=number(content.get("at_fixed")),
        fixed_threshold=number(content.get("fixed_threshold")),
        curve_threshold=tuple(thresholds) if same else (),
        curve_error=tuple(errors) if same else (),
    )


def _log_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log that hold an "update", without those that a kill cut short.

    What a cut line held is logged again by the resumed training, on the same line if no line end had been written.
    """
    if not path.is_file():
        return []
    lines = []
    texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for k, text in enumerate(texts):
        try:
            line = json.loads(text) if text.strip() else {}
        except ValueError:
            if text.lstrip().startswith("{"):
                continue
            raise VolumeError(f"{path} line {k + 1} is not JSON: {text[:60]!r}") from None
        if isinstance(line, dict) and isinstance(line.get("update"), int):
            lines.append(line)
    return lines


def _seconds(values: Iterable[object]) -> float | None:
    """Total of clocks that count up and start again at 0 after each resume."""
    total, last, seen = 0.0, 0.0, False
    for value in values:
        now = number(value)
        if now is None:
            continue
        if now < last:
            total += last
        last, seen = now, True
    return total + last if seen else None


def _facts(about: Mapping[str, Any], evaluations: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Collect the lines of the headline: what run.json states under "facts", then what configurations tell."""
    facts = {str(key): str(value) for key, value in _mapping(about.get("facts")).items()}
    config = _mapping(about.get("config"))
    config = _mapping(config.get("train")) or config
    told: dict[str, Any] = {
        "training data": "; ".join(_stack(one) for one in _sequence(config.get("stacks"))),
        "validation data": "; ".join(_stack(one) for one in _sequence(config.get("validation"))),
        "networks": ", ".join(str(_mapping(one).get("name")) for one in _sequence(config.get("networks"))),
        "seed": config.get("seed"),
        **{key: about.get(key) for key in _AS_FACTS if about.get(key) is not None},
    }
    ranges = [_numbers(one.get("sections")) for one in evaluations]
    sizes = [_numbers(one.get("voxel_size")) for one in evaluations]
    told["evaluated on"] = _different(one.get("truth") for one in evaluations)
    told["evaluated sections"] = _different(f"{a:g} to {b - 1:g}" for a, b in (one for one in ranges if len(one) == 2))
    told["voxel size"] = _different(" × ".join(f"{nm:g}" for nm in one) + " nm (z, y, x)" for one in sizes if one)
    for key, value in told.items():
        if value not in (None, ""):
            facts.setdefault(key, value if isinstance(value, str) else json.dumps(value))
    return facts


def _stack(content: object) -> str:
    """Name one training stack: its image and, if not all of it, its sections."""
    stack = _mapping(content)
    sections = _numbers(stack.get("sections"))
    part = f", sections {sections[0]:g} to {sections[1] - 1:g}" if len(sections) == 2 else ""
    return f"{stack.get('image') or stack.get('name') or 'unnamed stack'}{part}"


def _different(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None))


def _timings(about: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return seconds by step: what run.json states, or else the training time of each network."""
    stated = _mapping(about.get("timings"))
    if stated:
        return stated
    networks = _mapping(about.get("networks"))
    times = {f"train {name}": number(_mapping(one).get("seconds")) for name, one in networks.items()}
    times["train, in all"] = number(about.get("seconds"))
    return {name: seconds for name, seconds in times.items() if seconds is not None}


def _data_notes(value: object) -> tuple[Mapping[str, Any], ...]:
    if isinstance(value, Mapping):
        inner = list(value.values())
        if inner and all(isinstance(one, Mapping) for one in inner):
            return tuple({"name": key, **one} for key, one in value.items())
        return (value,)
    if isinstance(value, str):
        return ({"notes": value},)
    return tuple(one if isinstance(one, Mapping) else {"name": str(one)} for one in _sequence(value))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _numbers(value: object) -> list[float]:
    return [one for item in _sequence(value) if (one := number(item)) is not None]


def _or_nan(value: object) -> float:
    one = number(value)
    return math.nan if one is None else one
