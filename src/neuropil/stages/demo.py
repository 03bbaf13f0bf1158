"""The whole job on a small stack: train VD2D and VD2D3D recursively, predict held-out sections, segment, score, report.

Runs on real sections of the fly's ventral nerve cord where they are found (NEUROPIL_DATA, or `neuropil data get
vnc`), on a synthetic stack otherwise. A few minutes on two cores; stopped at any moment, the same command continues.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from neuropil.config import StageConfig, dump
from neuropil.errors import VolumeNotFound
from neuropil.files import write_json
from neuropil.geometry import Box
from neuropil.segmentation.boundary import boundary_from_intensity
from neuropil.stages import StageResult, evaluate, predict, report, segment, train
from neuropil.stages.common import fingerprint, sidecar, versions, write_volume
from neuropil.synthetic import make_tissue
from neuropil.volume import exists, open_volume

EXAMPLES = ["neuropil demo", "neuropil demo --data synthetic --output runs/synthetic", "neuropil demo --updates 2000"]
POSITIONAL = ()
log = logging.getLogger("neuropil")

BASELINE, VD2D, PAIR = "intensity-threshold", "VD2D", "VD2D-VD2D3D"
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

    output: Path = Field(Path("runs/demo"), description="run folder")
    data: Literal["auto", "vnc", "synthetic"] = Field("auto", description="vnc where it is found, else synthetic")
    updates: int = Field(400, gt=0, description="of VD2D; VD2D3D gets half as many")
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
    start = time.monotonic()
    name = _choose(config.data)
    log.info("data: %s", NOTICE[name])
    _write_crops(config, name)
    parts = {part: _Part(config.output, part) for part in VNC}
    above = 128 if name == "vnc" else 0
    training = _training(config, parts, above)
    train.run(training)
    scores: list[dict[str, Any]] = []
    validated: dict[str, float] = {}
    for model in (BASELINE, VD2D, PAIR):
        fixed: list[float] | None = None
        watershed: dict[str, float] = {}
        for part in ("validation", "test"):
            _predict(config, parts[part], model)
            one = _evaluate(config, parts[part], model, above, watershed, fixed)
            watershed = one["watershed"]["parameters"]
            validated.setdefault(model, one["pixel_error"]["best"])
            fixed = [
                one["pixel_error"]["threshold"],
                *(one[d]["best"]["threshold"] for d in ("components", "watershed")),
            ]
        scores.append(one)
    chosen = min((VD2D, PAIR), key=lambda model: validated[model])
    _segment(config, parts["test"], next(one for one in scores if one["model"] == chosen))
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
        evaluate.summary(scores),
        "",
        f"{config.output / 'segmentation.h5'}:ids is by {chosen}, which did better on the validation sections.",
        "So short a training is a first look; the paper's schedule, 90,000 updates, is examples/vd2d3d_vnc.toml.",
        f"{time.monotonic() - start:.0f} s in all. {made.summary}",
    ]
    return StageResult("\n".join(lines), {"data": name, "scores": scores, "report": made.data, **record})


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


def _map(config: Config, part: _Part, model: str) -> str:
    return f"{config.output / 'maps' / f'{part.name}-{model}'}.h5:map"


def _predict(config: Config, part: _Part, model: str) -> None:
    """Make a model's boundary map of a part, unless it is there."""
    uri = _map(config, part, model)
    if model == BASELINE:
        with open_volume(part.uri("raw")) as volume:
            place, image = {"voxel_size": volume.metadata.voxel_size}, volume.read()
        write_volume(uri, boundary_from_intensity(image), kind="boundary", place=place, overwrite=True)
        return
    weights = config.output / ("vd2d/best.safetensors" if model == VD2D else "model.safetensors")
    record = sidecar(uri, "json")
    if exists(uri) and record.exists() and json.loads(record.read_text())["weights_sha256"] == fingerprint(weights):
        return
    predict.run(predict.Config(weights=weights, input=part.uri("raw"), output=uri, dtype="float32", overwrite=True))


def _evaluate(
    config: Config, part: _Part, model: str, above: int, watershed: dict[str, float], fixed: list[float] | None
) -> dict[str, Any]:
    """Score one map: the validation part chooses parameters and thresholds, the test part goes into the report."""
    scores = evaluate.run(
        evaluate.Config(
            boundary=_map(config, part, model),
            truth=part.uri("labels"),
            image=part.uri("raw"),
            interior_above=above,
            model=model,
            search=fixed is None,
            fixed=fixed,
            run=None if fixed is None else config.output,
            **watershed,
        )
    )
    return scores.data


def _segment(config: Config, part: _Part, scores: dict[str, Any]) -> None:
    """Write the final segmentation of the test part, merged at the level chosen on the validation part."""
    segment.run(
        segment.Config(
            input=_map(config, part, scores["model"]),
            output=f"{config.output / 'segmentation.h5'}:ids",
            merge_threshold=scores["watershed"]["at_fixed"]["threshold"],
            **scores["watershed"]["parameters"],
            overwrite=True,
        )
    )
