"""Score the run of examples/sstem.toml on held-out sections of each tissue, and write the packaged models.

    neuropil train examples/sstem.toml
    python benchmarks/paper/package.py [--run runs/sstem]

The models go to src/neuropil/models with cards that hold the scores: best over thresholds, or levels, on sections that
are in no training set. The data must be in NEUROPIL_DATA.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

import neuropil
from neuropil.geometry import Box
from neuropil.networks.checkpoint import Model, load_model, save_model
from neuropil.networks.inference import predict
from neuropil.networks.sampling import Stack
from neuropil.report.collect import training_log
from neuropil.stages import evaluate
from neuropil.stages.common import write_volume
from neuropil.volume import open_volume

MODELS = {"vd2d-sstem": ["vd2d"], "vd2d3d-sstem": ["vd2d", "vd2d3d"], "vd2d2d-sstem": ["vd2d", "vd2d2d"]}
VNC, ISBI, AC4 = "data://vnc/vnc_x000-703.h5", "data://isbi2012/isbi2012_z00-19.h5", "data://snemi3d/ac4.h5"
HELD_OUT = {
    "vnc 15:20": (f"{VNC}:raw", f"{VNC}:labels", (15, 20), {"interior_above": 128}),
    "isbi2012 15:20": (f"{ISBI}:raw", f"{ISBI}:membrane_labels", (15, 20), {}),
    "ac4 85:90": (f"{AC4}:raw", f"{AC4}:labels", (85, 90), {"touching_ids": True}),
}
TISSUES = {
    "vnc": "Drosophila larva, ventral nerve cord, ssTEM",
    "isbi2012": "Drosophila larva, ventral nerve cord, ssTEM",
    "ac4": "mouse somatosensory cortex, ssSEM",
}
CARD = {
    "licence": "for non-commercial use, as the data: vnc CC BY-NC-SA 3.0; isbi2012 free for non-commercial image"
    " segmentation software; ac4 without a licence file",
    "citation": [
        "Gerhard et al. 2013, figshare 856713 (vnc)",
        "Cardona et al. 2010, PLoS Biol 8(10) e1000502 (isbi2012)",
        "Kasthuri et al. 2015, Cell 162(3) 648 (ac4)",
        "Lee et al. 2015, NIPS (the networks and their recursive training)",
    ],
}


def main() -> None:
    """Score and write the models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/sstem"))
    args = parser.parse_args()
    record = json.loads((args.run / "run.json").read_text())
    folder = Path(neuropil.__file__).parent / "models"
    for name, nets in MODELS.items():
        models = [load_model(args.run / net / "last.safetensors") for net in nets]
        networks = [model.networks[0] for model in models]
        scores = {part: score(args.run, name, networks, *held) for part, held in HELD_OUT.items()}
        training = {
            "config": "examples/sstem.toml",
            "recipe": record["config"]["recipe"],
            "updates": {net: record["networks"][net]["updates"] for net in nets},
            "seconds": {net: round(training_log(args.run / net).seconds or 0) for net in nets},
            "seed": record["config"]["seed"],
        }
        card = learnt_from(models[-1].card) | CARD | {"scores": scores, "training": training}
        save_model(folder / f"{name}.safetensors", Model(tuple(networks), card))
        print(name, json.dumps(scores, indent=1))
    for net in record["networks"]:
        shutil.copyfile(args.run / net / "log.jsonl", Path(__file__).parent / "results" / f"sstem-{net}.log.jsonl")


def learnt_from(card: dict) -> dict:
    """Say which sections of which tissue a network learnt from, and their voxel sizes."""
    parts = [(one["name"], "{}:{}".format(*one["sections"])) for one in card["data"]]
    return {
        "tissues": [f"{TISSUES[name]} (sections {sections} of {name})" for name, sections in parts],
        "voxel_sizes": card["voxel_sizes"],
    }


def score(run: Path, name: str, networks, raw: str, labels: str, sections: tuple[int, int], truth: dict) -> dict:
    """Predict a part by a chain of networks and score it in 2-D."""
    with open_volume(raw) as volume:
        box = Box((sections[0], 0, 0), (sections[1], *volume.shape[1:]))
        image, place = volume.read(box), {"voxel_size": volume.metadata.voxel_size}
    made = None
    for network in networks:
        stack = Stack(name, image, np.zeros(image.shape, np.uint8), made)
        made = predict(network, stack.inputs(network.architecture.streams))
    uri = f"{run}/held_out/{name}-{raw.split('/')[2]}.h5:map"
    write_volume(uri, made, kind="boundary", place=place, overwrite=True)
    config = evaluate.Config(boundary=uri, truth=labels, truth_sections=sections, model=name, **truth)
    found = evaluate.run(config).data
    return {
        "pixel_error": round(found["pixel_error"]["best"], 4),
        "threshold": round(found["pixel_error"]["threshold"], 3),
        **{f"rand_f_{decoder}": round(found[decoder]["best"]["f"], 4) for decoder in ("components", "watershed")},
        "vi_watershed": round(sum(found["watershed"]["best"]["vi"].values()), 4),
    }


if __name__ == "__main__":
    main()
