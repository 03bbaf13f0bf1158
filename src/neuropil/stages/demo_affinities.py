"""The part of `neuropil demo` that goes by affinities: image, affinities, fragments, neurons, in three dimensions.

A U-Net predicts affinities, fragments are merged by the mean of their contacts, or the mutex watershed decides; the
parameters are tuned on some sections and scored once on others, beside what plain grey values give, and beside the
segmentations of others that come with the data. The packaged model is used where there is one; without it a tiny U-Net
is trained for some minutes. Stopped at any moment, the same command continues.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuropil.config import dump
from neuropil.errors import ConfigError, VolumeNotFound
from neuropil.files import write_json, write_text
from neuropil.geometry import Box
from neuropil.machine import cores
from neuropil.networks.packaged import packaged_models
from neuropil.progress import Progress
from neuropil.report.affinities import AffinitySection, render_affinities
from neuropil.segmentation.affinities import NEAREST, Affinities, affinities_from_boundary_map
from neuropil.segmentation.affinity_moves import with_offsets
from neuropil.segmentation.boundary import boundary_from_intensity
from neuropil.segmentation.decoding import Decoder, decode
from neuropil.segmentation.segment import WatershedSegmentation
from neuropil.stages import StageResult, predict, train
from neuropil.stages.affinities import read_affinities
from neuropil.stages.common import fingerprint, placed, sidecar, versions, write_volume
from neuropil.stages.tuning import Crop, score_labels, tune
from neuropil.synthetic import make_tissue
from neuropil.volume import exists, open_volume

if TYPE_CHECKING:
    from neuropil.stages.demo import Config

log = logging.getLogger("neuropil")

PACKAGED, GREY = "affinity-fib", "grey values"
OUTPUT = Path("runs/demo_affinities")
Sections = tuple[int, int]
# Sections to train on where there is no packaged model, to tune on, and to test on.
SPLIT: dict[str, tuple[Sections, Sections, Sections]] = {
    "fib25": ((0, 110), (116, 146), (150, 180)),
    "synthetic": ((0, 80), (86, 116), (120, 150)),
}
SYNTHETIC_SHAPE = (150, 160, 160)
PATCH = (32, 32, 32)
OTHERS = {"oversegmentation": "others: watershed", "ffn_segmentation": "others: flood-filling"}
NOTICE = {
    "fib25": "FIB-25, Drosophila medulla, FIB-SEM, 10×10×10 nm; CC-BY; Takemura et al. 2015",
    "synthetic": "synthetic isotropic tissue with perfect truth (neuropil.synthetic), 10×10×10 nm, seed 0",
}
GRIDS = {
    "mean": [
        Decoder("mean", low=low, size=size, dust=dust) for low in (0.05, 0.3) for size in (0, 256) for dust in (0, 256)
    ],
    "mutex": [Decoder("mutex", low=low, dust=dust) for low in (0.05, 0.3) for dust in (0, 256)],
}
PICTURES = 3


@dataclass(frozen=True)
class _Data:
    """A stack: where it is, which sections are for what, and segmentations of it by others."""

    name: str
    image: str
    labels: str
    others: Mapping[str, str] = field(default_factory=dict)

    @property
    def tuned_on(self) -> Sections:
        return SPLIT[self.name][1]

    @property
    def tested_on(self) -> Sections:
        return SPLIT[self.name][2]

    @property
    def predicted(self) -> Sections:
        """One part of the stack that holds both, since patches need the depth."""
        return self.tuned_on[0], self.tested_on[1]

    @property
    def about(self) -> dict[str, str]:
        """What is done on which part."""
        parts = {"tuned on": self.tuned_on, "tested on": self.tested_on}
        return {"data": NOTICE[self.name]} | {key: "sections {}:{}".format(*part) for key, part in parts.items()}


@dataclass(frozen=True)
class _Segmented:
    """One row of the table, with the segmentation of the tested sections and its fragments, if it is ours."""

    row: dict[str, Any]
    segmentation: NDArray[Any]
    fragments: NDArray[Any] | None = None


def run(config: Config) -> StageResult:
    """Run the demo of affinities.

    Raises
    ------
    ConfigError : data for the other demo
    VolumeNotFound : data = "fib25" and it is not here
    """
    start = time.monotonic()
    if config.data == "vnc":
        raise ConfigError("data 'vnc' is for the demo without --affinities; give auto, fib25 or synthetic")
    output = config.output if "output" in config.model_fields_set else OUTPUT
    data = _data(config, output)
    log.info("data: %s", NOTICE[data.name])
    model, weights = _weights(config, data, output)
    uri = _predict(config, data, weights, output)
    made = _segment_all(data, model, uri)
    best = max((one for one in made if one.row["name"].startswith(model)), key=lambda one: one.row["tuned"]["f"])
    segmentation = _write(data, best, output)
    rows = [one.row for one in made]
    about = data.about | {"model": model}
    page = output / "report.html"
    write_text(page, render_affinities("neuropil demo: from image to neurons", rows, _pictures(data, uri, made), about))
    seconds = round(time.monotonic() - start, 1)
    record = {"config": dump(config), "versions": versions(), "about": about, "rows": rows, "seconds": seconds}
    write_json(output / "run.json", record)
    lines = [
        NOTICE[data.name],
        f"Tuned on {about['tuned on']}, scored once on {about['tested on']}, in 3-D.",
        "",
        _table(rows),
        "",
        f"{segmentation} is by {best.row['name']}, best on the sections it was tuned on.",
        *_advice(model, data),
        f"{seconds:.0f} s in all. {page}",
    ]
    return StageResult("\n".join(lines), record)


def _write(data: _Data, best: _Segmented, output: Path) -> str:
    """Write the segmentation of the tested sections where they lie in the stack, and their image; return its URI."""
    uri = f"{output / 'segmentation.h5'}:ids"
    with open_volume(data.image) as volume:
        box = _box(volume.shape, data.tested_on)
        place, image = placed(volume, box), volume.read(box)
    write_volume(f"{output / 'segmentation.h5'}:image", image, kind="image", place=place, overwrite=True)
    write_volume(uri, best.segmentation, kind="labels", place=place, overwrite=True)
    return uri


def _advice(model: str, data: _Data) -> list[str]:
    if model != PACKAGED:
        return ["So short a training is a first look; examples/affinities_fib25.toml is the whole one."]
    told = f"`neuropil models {PACKAGED}` tells how it was trained."
    if data.name == "synthetic":
        return [f"{PACKAGED} has never seen synthetic tissue. {told}"]
    return [f"{PACKAGED} did not learn from these sections. {told}"]


def _data(config: Config, output: Path) -> _Data:
    """Return FIB-25 where it is wanted and on disk, else synthetic tissue, which is made once."""
    if config.data != "synthetic":
        for file in ("fib25_sample2_z000-179.h5", "fib25_sample2.h5"):
            stem = f"data://fib25/{file}"
            if exists(f"{stem}:raw"):
                others = {name: f"{stem}:{dataset}" for dataset, name in OTHERS.items() if _has(f"{stem}:{dataset}")}
                return _Data("fib25", f"{stem}:raw", f"{stem}:neuron_ids", others)
        if config.data == "fib25":
            raise VolumeNotFound("FIB-25 is not here; run: neuropil data get fib25 --yes")
        log.info("FIB-25 is not here; get it with: neuropil data get fib25 --yes")
    stem = f"{output / 'data' / 'stack.h5'}"
    data = _Data("synthetic", f"{stem}:raw", f"{stem}:labels")
    if config.fresh or not exists(data.labels):
        size = (10.0, 10.0, 10.0)
        tissue = make_tissue(
            SYNTHETIC_SHAPE, rng=np.random.default_rng(0), voxel_size=size, jitter_nm=0, membrane=False
        )
        place = {"voxel_size": size}
        write_volume(data.image, tissue.image, kind="image", place=place, overwrite=True)
        write_volume(data.labels, tissue.ids, kind="labels", place=place, overwrite=True)
    return data


def _has(uri: str) -> bool:
    try:
        return exists(uri)
    except VolumeNotFound:
        return False


def _weights(config: Config, data: _Data, output: Path) -> tuple[str, Path]:
    """Return name and weights of the packaged model, or of one that is trained here."""
    if PACKAGED in packaged_models():
        return PACKAGED, packaged_models()[PACKAGED]
    log.info("no packaged model %s: a tiny U-Net is trained; Ctrl-C stops, the same command goes on", PACKAGED)
    train.run(_training(config, data, output / "training"))
    return f"U-Net, {config.updates} updates", output / "training" / "model.safetensors"


def _training(config: Config, data: _Data, folder: Path) -> train.Config:
    """A short schedule of a tiny network with short links; examples/affinities_fib25.toml is the whole one."""
    links = [tuple(-reach * (axis == k) for k in range(3)) for reach in (1, 3, 9) for axis in range(3)]
    network = {
        "name": "affinities",
        "architecture": {"base": "rsunet_tiny", "offsets": links},
        "patch": PATCH,
        "updates": config.updates,
    }
    recipe = {"base": "affinities", "learning_rate": 0.004, "warmup": 10, "erosion": 1, "average": 0.98}
    recipe |= {"elastic": 0.0, "checkpoint_seconds": 20}
    recipe["augmentation"] = {"warp": 0, "misalign": 0, "missing": 0, "out_of_focus": 0, "noise": 0}
    stack = {"name": data.name, "image": data.image, "labels": data.labels, "sections": SPLIT[data.name][0]}
    return train.Config.model_validate(
        {
            "output": folder,
            "seed": config.seed,
            "stacks": [stack],
            "networks": [network],
            "recipe": recipe,
            "fresh": config.fresh,
        }
    )


def _predict(config: Config, data: _Data, weights: Path, output: Path) -> str:
    """Make the affinities of the sections to tune and to test on, unless they are there."""
    uri = f"{output / 'affinities.h5'}:affinities"
    wanted = predict.Config(
        weights=weights, input=data.image, output=uri, sections=data.predicted, overwrite=True, fresh=config.fresh
    )
    record = sidecar(uri, "json")
    if not config.fresh and exists(uri) and record.exists():
        known = json.loads(record.read_text())
        same = all(known["config"][key] == dump(wanted)[key] for key in ("input", "sections"))
        if same and known["weights_sha256"] == fingerprint(weights):
            return uri
    predict.run(wanted)
    return uri


def _segment_all(data: _Data, model: str, uri: str) -> list[_Segmented]:
    """Tune and test each method, with an ETA, and score what others made."""
    progress = Progress("tune and test", 2 * len(GRIDS["mean"]) + len(GRIDS["mutex"]))
    grey = [_grey_crop(data, sections) for sections in (data.tuned_on, data.tested_on)]
    ours = [_crop(data, uri, sections) for sections in (data.tuned_on, data.tested_on)]
    made = [_segmented(f"{GREY}, mean", grey, GRIDS["mean"], progress)]
    made += [_segmented(f"{model}, {method}", ours, grid, progress) for method, grid in GRIDS.items()]
    for name, theirs in data.others.items():
        labels = _read(theirs, data.tested_on)
        made.append(_Segmented({"name": name, "tested": score_labels(labels, ours[1].truth)}, labels))
    return made


def _segmented(name: str, crops: list[Crop], grid: list[Decoder], progress: Progress) -> _Segmented:
    """Find the best parameters on the first crop, then segment the second and score it once."""
    tuned = []
    for decoder in grid:
        tuned.append(tune(crops[0], decoder, "rand", 0.05))
        progress.advance(note=name)
    k = int(np.argmax([one["f"] for one in tuned]))
    chosen = replace(grid[k], merge_threshold=tuned[k]["merge_threshold"])
    result: WatershedSegmentation = decode(crops[1].links, chosen, threads=cores())
    tested = score_labels(result.segmentation, crops[1].truth)
    return _Segmented({"name": name, "tuned": tuned[k], "tested": tested}, result.segmentation, result.fragments)


def _crop(data: _Data, uri: str, sections: Sections) -> Crop:
    first = data.predicted[0]
    with open_volume(uri) as volume:
        box = _box(volume.spatial_shape, (sections[0] - first, sections[1] - first))
        return Crop(read_affinities(volume, box), _read(data.labels, sections), None)


def _grey_crop(data: _Data, sections: Sections) -> Crop:
    """Affinities without a network: dark voxels are boundary."""
    boundary = boundary_from_intensity(_read(data.image, sections))
    links = Affinities(affinities_from_boundary_map(boundary, per_section=False, rule="min"))
    return Crop(links, _read(data.labels, sections), None)


def _pictures(data: _Data, uri: str, made: list[_Segmented]) -> list[AffinitySection]:
    """Return some of the tested sections, from image to segmentations; not the first, whose links along z leave."""
    image, truth = _read(data.image, data.tested_on), _read(data.labels, data.tested_on)
    links = with_offsets(_crop(data, uri, data.tested_on).links, NEAREST).values
    fragments = next(one.fragments for one in made[1:] if one.fragments is not None)
    with open_volume(data.image) as volume:
        size = volume.metadata.voxel_size
    return [
        AffinitySection(
            data.tested_on[0] + z,
            image[z],
            links[:, z],
            truth[z].astype(np.uint64),
            fragments[z],
            {one.row["name"]: one.segmentation[z].astype(np.uint64) for one in made},
            size[2] if size else None,
        )
        for z in np.linspace(1, len(image) - 1, PICTURES).astype(int)
    ]


def _read(uri: str, sections: Sections) -> NDArray[Any]:
    with open_volume(uri) as volume:
        return volume.read(_box(volume.shape, sections))


def _box(shape: tuple[int, ...], sections: Sections) -> Box:
    return Box((sections[0], 0, 0), (sections[1], *shape[-2:]))


def _table(rows: list[dict[str, Any]]) -> str:
    wide = max(len(row["name"]) for row in rows)
    head = f"{'segmentation':{wide}}  Rand error: tuned   tested  VI split  VI merge"
    lines = [head, "-" * len(head)]
    for row in rows:
        tuned = f"{row['tuned']['adapted_rand_error']:.4f}" if "tuned" in row else "-"
        one = row["tested"]
        lines.append(
            f"{row['name']:{wide}}{tuned:>19} {one['adapted_rand_error']:8.4f}"
            f" {one['vi_split']:9.3f} {one['vi_merge']:9.3f}"
        )
    return "\n".join(lines)
