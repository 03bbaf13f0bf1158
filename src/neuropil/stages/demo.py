"""The whole job on a small stack, twice: with packaged weights, then with networks trained here; a report of both.

First the packaged pair VD2D-VD2D3D predicts sections that it was not trained on, and is scored. Then VD2D and VD2D3D
are trained recursively for a few minutes, and do the same. Real sections of the fly's ventral nerve cord are used where
they are found (NEUROPIL_DATA, or `neuropil data get vnc`), a synthetic stack otherwise. Stopped at any moment, the same
command continues.

With --affinities the other way from image to neurons: a U-Net predicts affinities, fragments are merged, in 3-D, tuned
on some sections and scored on others; on FIB-25 where it is found, synthetic isotropic tissue otherwise.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from neuropil.config import StageConfig, dump
from neuropil.errors import ConfigError, VolumeNotFound
from neuropil.files import write_json
from neuropil.geometry import Box
from neuropil.networks.packaged import weights_path
from neuropil.segmentation.boundary import boundary_from_intensity
from neuropil.stages import StageResult, demo_affinities, evaluate, predict, report, segment, train
from neuropil.stages.common import fingerprint, sidecar, versions, write_volume
from neuropil.synthetic import make_tissue
from neuropil.volume import exists, open_volume

EXAMPLES = [
    "neuropil demo",
    "neuropil demo --data synthetic --output runs/synthetic",
    "neuropil demo --updates 2000",
    "neuropil demo --affinities",
]
POSITIONAL = ()
log = logging.getLogger("neuropil")

BASELINE, PACKAGED, VD2D, PAIR = "intensity-threshold", "vd2d3d-sstem", "VD2D", "VD2D-VD2D3D"
# The test sections lie five sections beyond all others; training and validation lie a field of view apart in y.
VNC = {
    "train": Box((0, 0, 0), (8, 656, 704)),
    "validation": Box((0, 768, 0), (5, 1024, 352)),
    "test": Box((15, 0, 352), (20, 1024, 704)),
}
SYNTHETIC = {
    "train": Box((0, 0, 0), (9, 448, 512)),
    "validation": Box((0, 560, 0), (5, 768, 256)),
    "test": Box((15, 0, 0), (20, 768, 512)),
}
SYNTHETIC_SHAPE = (20, 768, 512)
NOTICE = {
    "vnc": "Drosophila larva ventral nerve cord, ssTEM, 47.5×4.6×4.6 nm; CC BY-NC-SA 3.0; Gerhard et al. 2013,"
    " figshare 856713",
    "synthetic": "synthetic serial sections with perfect truth (neuropil.synthetic), 50×4×4 nm, seed 0",
}


class Config(StageConfig):
    """Fields of [demo]."""

    affinities: bool = Field(False, description="from image to neurons by affinities, in 3-D")
    output: Path = Field(
        Path("runs/demo"), description=f"run folder; with affinities {demo_affinities.OUTPUT} if not given"
    )
    data: Literal["auto", "vnc", "fib25", "synthetic"] = Field(
        "auto", description="vnc, or with affinities fib25, where it is found, else synthetic"
    )
    updates: int = Field(400, gt=0, description="of VD2D; VD2D3D gets half as many; of the U-Net if none is packaged")
    seed: int = Field(0, ge=0, description="of training")
    fresh: bool = Field(False, description="start over")


@dataclass(frozen=True)
class _Part:
    """One crop of the demo's stack, in a file of the run."""

    folder: Path
    name: str

    def uri(self, dataset: str) -> str:
        return f"{self.folder / 'data' / self.name}.h5:{dataset}"


def run(config: Config) -> StageResult:
    """Run the demo."""
    if config.affinities:
        return demo_affinities.run(config)
    if config.data == "fib25":
        raise ConfigError("data 'fib25' is for the demo with --affinities; give auto, vnc or synthetic")
    start = time.monotonic()
    weights = {
        PACKAGED: weights_path(PACKAGED),
        VD2D: config.output / "vd2d" / "best.safetensors",
        PAIR: config.output / "model.safetensors",
    }
    name = _choose(config.data)
    log.info("data: %s", NOTICE[name])
    _write_crops(config, name)
    job = _Job(config, {part: _Part(config.output, part) for part in VNC}, 128 if name == "vnc" else 0, weights)
    scored = [_score(job, model) for model in (BASELINE, PACKAGED)]
    log.info("\nFirst, without any training (%.0f s):\n%s\n", time.monotonic() - start, _table(scored))
    log.info("Now networks are trained on sections of this stack; Ctrl-C stops, the same command goes on.")
    training = _training(config, job.parts, job.above)
    train.run(training)
    scored += [_score(job, model) for model in (VD2D, PAIR)]
    chosen = min(scored[1:], key=lambda one: one.validation)
    _segment(job, chosen.test)
    scores = [one.test for one in scored]
    record = {
        "title": f"neuropil demo: {NOTICE[name]}",
        "models": [one["model"] for one in scores],
        "config": dump(training),
        "versions": versions(),
        "data": [NOTICE[name]],
        "facts": {"seeds": str(config.seed), "updates": f"VD2D {config.updates}, VD2D3D {_updates(config)}"},
        "timings": {"seconds": round(time.monotonic() - start, 1)},
    }
    write_json(config.output / "run.json", record)
    made = report.run(report.Config(run=config.output))
    lines = [
        f"Held-out sections of: {NOTICE[name]}",
        "Best over thresholds on the held-out sections; below it, at the thresholds chosen on validation sections.",
        "",
        _table(scored),
        "",
        f"{config.output / 'segmentation.h5'}:ids is by {chosen.test['model']}, best on the validation sections.",
        f"{PACKAGED} comes with neuropil and never saw the held-out sections; `neuropil models {PACKAGED}` tells more.",
        "So short a training is a first look; the paper's schedule, 90,000 updates, is examples/vd2d3d_vnc.toml.",
        f"{time.monotonic() - start:.0f} s in all. {made.summary}",
    ]
    return StageResult("\n".join(lines), {"data": name, "scores": scores, "report": made.data, **record})


@dataclass(frozen=True)
class _Job:
    """What stays the same for all models: crops, the label up to which truth is boundary, and the models' weights."""

    config: Config
    parts: dict[str, _Part]
    above: int
    weights: dict[str, Path]


@dataclass(frozen=True)
class _Scored:
    """Scores of one model: all of them on the test part, and its pixel error on the validation part."""

    test: dict[str, Any]
    validation: float


def _score(job: _Job, model: str) -> _Scored:
    """Predict and score a model: the validation part chooses the watershed's parameters and the thresholds."""
    _predict(job, "validation", model)
    chosen = _evaluate(job, "validation", model, {}, None)
    decoders = [chosen[decoder]["best"]["threshold"] for decoder in ("components", "watershed")]
    fixed = [chosen["pixel_error"]["threshold"], *decoders]
    _predict(job, "test", model)
    test = _evaluate(job, "test", model, chosen["watershed"]["parameters"], fixed)
    return _Scored(test, chosen["pixel_error"]["best"])


def _table(scored: list[_Scored]) -> str:
    shown = {PACKAGED: f"{PACKAGED} (shipped)"}
    return evaluate.summary([one.test | {"model": shown.get(name := one.test["model"], name)} for one in scored])


def _choose(data: str) -> str:
    """Return "vnc" where it is wanted and on disk."""
    if data == "synthetic":
        return data
    try:
        with open_volume(_vnc("raw")):
            return "vnc"
    except VolumeNotFound as error:
        if data == "vnc":
            raise VolumeNotFound(f"the VNC sections are not here ({error}); run: neuropil data get vnc --yes") from None
        log.info("the real VNC sections are not here; get them with: neuropil data get vnc --yes")
        return "synthetic"


def _vnc(dataset: str) -> str:
    """URI of the VNC stack as `neuropil data get` or a data folder holds it."""
    for file in ("vnc_x000-703.h5", "vnc.h5"):
        uri = f"data://vnc/{file}:{dataset}"
        try:
            with open_volume(uri):
                return uri
        except VolumeNotFound:
            continue
    return uri


def _write_crops(config: Config, name: str) -> None:
    """Write the training, validation and test crops into the run folder, once."""
    marker = config.output / "data" / "crops.json"
    if marker.exists() and json.loads(marker.read_text())["data"] == name and not config.fresh:
        return
    marker.unlink(missing_ok=True)
    shutil.rmtree(config.output / "maps", ignore_errors=True)
    crops = VNC if name == "vnc" else SYNTHETIC
    if name == "vnc":
        with open_volume(_vnc("raw")) as raw, open_volume(_vnc("labels")) as labels:
            stack, size = {"raw": raw.read(), "labels": labels.read()}, raw.metadata.voxel_size
    else:
        size = (50.0, 4.0, 4.0)
        tissue = make_tissue(SYNTHETIC_SHAPE, rng=np.random.default_rng(0), voxel_size=size)
        stack = {"raw": tissue.image, "labels": tissue.ids}
    for part, box in crops.items():
        for dataset, kind in (("raw", "image"), ("labels", "labels")):
            uri = _Part(config.output, part).uri(dataset)
            place = {"voxel_size": size}
            write_volume(uri, stack[dataset][box.slices], kind=kind, place=place, overwrite=True)  # type: ignore[arg-type]
    write_json(marker, {"data": name})


def _updates(config: Config) -> int:
    return max(1, config.updates // 2)


def _training(config: Config, parts: dict[str, _Part], above: int) -> train.Config:
    """A short schedule with a fast recipe; examples/vd2d3d_vnc.toml is the paper's."""

    def stack(part: str) -> dict[str, Any]:
        one = parts[part]
        return {"name": part, "image": one.uri("raw"), "labels": one.uri("labels"), "interior_above": above}

    recipe = {"optimizer": "muon", "learning_rate": 0.005, "schedule": "cosine", "warmup": 10, "grey": 0.3}
    recipe |= {"validate_every": 1000, "checkpoint_seconds": 20, "rebalance": "patch"}
    vd2d = {
        "name": "vd2d",
        "architecture": "vd2d",
        "patch": (1, 256, 256),
        "spacing": 8,
        "updates": config.updates,
    }
    vd2d3d = {
        "name": "vd2d3d",
        "architecture": "vd2d3d",
        "patch": (1, 192, 192),
        "spacing": 4,
        "updates": _updates(config),
        "maps_from": "vd2d",
        "initialise_from": "vd2d",
    }
    return train.Config.model_validate(
        {
            "output": config.output,
            "seed": config.seed,
            "stacks": [stack("train")],
            "validation": [stack("validation")],
            "networks": [vd2d, vd2d3d],
            "model": ["vd2d", "vd2d3d"],
            "recipe": recipe,
            "fresh": config.fresh,
        }
    )


def _map(job: _Job, part: str, model: str) -> str:
    return f"{job.config.output / 'maps' / f'{part}-{model}'}.h5:map"


def _predict(job: _Job, part: str, model: str) -> None:
    """Make a model's boundary map of a part, unless it is there."""
    uri, image = _map(job, part, model), job.parts[part].uri("raw")
    if model == BASELINE:
        with open_volume(image) as volume:
            place, made = {"voxel_size": volume.metadata.voxel_size}, boundary_from_intensity(volume.read())
        write_volume(uri, made, kind="boundary", place=place, overwrite=True)
        return
    weights, record = job.weights[model], sidecar(uri, "json")
    if exists(uri) and record.exists() and json.loads(record.read_text())["weights_sha256"] == fingerprint(weights):
        return
    predict.run(predict.Config(weights=weights, input=image, output=uri, dtype="float32", overwrite=True))


def _evaluate(
    job: _Job, part: str, model: str, watershed: dict[str, float], fixed: list[float] | None
) -> dict[str, Any]:
    """Score one map; what nothing is fixed for is searched, and what is fixed goes into the report."""
    scores = evaluate.run(
        evaluate.Config(
            boundary=_map(job, part, model),
            truth=job.parts[part].uri("labels"),
            image=job.parts[part].uri("raw"),
            interior_above=job.above,
            model=model,
            search=fixed is None,
            fixed=fixed,
            run=None if fixed is None else job.config.output,
            **watershed,
        )
    )
    return scores.data


def _segment(job: _Job, scores: dict[str, Any]) -> None:
    """Write the final segmentation of the test part, merged at the level chosen on the validation part."""
    segment.run(
        segment.Config(
            input=_map(job, "test", scores["model"]),
            output=f"{job.config.output / 'segmentation.h5'}:ids",
            merge_threshold=scores["watershed"]["at_fixed"]["threshold"],
            **scores["watershed"]["parameters"],
            overwrite=True,
        )
    )
