"""From image to neurons by affinities on AC4 and FIB-25: every decoder, views to average, and what training gains by.

    python benchmarks/affinities/run.py [--data ac4,fib25] [--variants NAMES] [--seeds 0] [--updates N] [--views 1,8]
    python benchmarks/affinities/run.py --spoilt [--data ac4] [--variants all,no_defects] [--updates N] [--draws 2]
    python benchmarks/affinities/run.py --table

The first trains what is not trained yet (examples/affinities_*.toml, changed as the variant says; stop it at any time,
the same command goes on), predicts, tunes each decoder on some sections, scores it once on others, writes results/ and
ends with the table; the second scores networks trained with and without simulated defects on sections that have some
(spoilt.py), by mean agglomeration; the third makes the table of the results alone. The data must be in NEUROPIL_DATA.
Scores are of 3-D segmentations: the adapted Rand error 1 - F without truth background, background of the proposal being
one segment per voxel (variant "neuropil"), in brackets that of the best threshold for the tested sections themselves;
and VI in bits. Segmentations of others that come with FIB-25 are scored on the same sections.
"""

import argparse
import json
import logging
import statistics
import tomllib
from pathlib import Path

import spoilt

from neuropil.geometry import Box
from neuropil.networks.checkpoint import load_model
from neuropil.networks.packaged import weights_path
from neuropil.segmentation.affinities import NEAREST
from neuropil.segmentation.decoding import METHODS, Decoder
from neuropil.stages import convert, predict, train
from neuropil.stages.affinities import read_affinities
from neuropil.stages.common import versions
from neuropil.stages.tuning import Crop, check, score_labels, tune
from neuropil.volume import exists, open_volume

HERE = Path(__file__).parent
RUNS = Path("runs/affinities")
EXAMPLES = HERE.parent.parent / "examples"
# Sections to tune on and to test on; neither is trained on, and checkpoints are not chosen by the latter.
SECTIONS = {"ac4": ((80, 90), (90, 100)), "fib25": ((116, 146), (150, 180))}
RIVALS = {"ac4": {}, "fib25": {"its watershed": "oversegmentation", "flood-filling network": "ffn_segmentation"}}
PACKAGED = {"ac4": "affinity-ssem", "fib25": "affinity-fib"}
VARIANTS = ("all", "nearest", "no_defects")
CLEAN = {"misalign": 0, "missing": 0, "out_of_focus": 0, "noise": 0}
GRID = [(low, size, dust) for low in (0.05, 0.2, 0.4) for size in (0, 256) for dust in (0, 256)]


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=",".join(SECTIONS))
    parser.add_argument(
        "--variants", default=",".join(VARIANTS), help="all: 12 links, all of the augmentation; packaged"
    )
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--updates", type=int, help="instead of the example's")
    parser.add_argument("--architecture", help="instead of the example's, for --spoilt: rsunet_tiny learns faster")
    parser.add_argument("--views", default="1,8", help="of each patch, that are averaged")
    parser.add_argument("--spoilt", action="store_true", help="score clean and spoilt sections, not every decoder")
    parser.add_argument("--draws", type=int, default=2, help="of each kind of defect, with --spoilt")
    parser.add_argument("--methods", default="mean,quantile,size,mutex", help=f"some of {', '.join(METHODS)}")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--table", action="store_true", help="only show what is in results/")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args.results.mkdir(exist_ok=True)
    if not args.table:
        for data in args.data.split(","):
            for seed in args.seeds.split(","):
                for variant in args.variants.split(","):
                    (run_spoilt if args.spoilt else run)(data, variant, int(seed), args)
    results = [json.loads(path.read_text()) for path in sorted(args.results.glob("*.json"))]
    text = table([one for one in results if "rows" in one])
    text += "\n\n" + table_of_spoilt([one for one in results if "spoilt" in one])
    (args.results / "table.txt").write_text(text + "\n")
    print(text)


def run(data: str, variant: str, seed: int, args) -> None:
    """Train one network, then predict and score what has no result yet."""
    config = configured(data, variant, seed, args.updates)
    updates = config.networks[0].updates
    for views in map(int, args.views.split(",")):
        path = args.results / f"{data}-{variant}{updates}-{seed}-{views}.json"
        if path.exists():
            continue
        prepare(config)
        train.run(config)
        uri = f"{config.output}/affinities{views}.h5:affinities"
        stack = config.stacks[0]
        if not Path(f"{config.output}/affinities{views}.h5").exists():
            both = (SECTIONS[data][0][0], SECTIONS[data][1][1])
            weights = config.output / "model.safetensors"
            predict.run(
                predict.Config(weights=weights, input=stack.image, output=uri, sections=both, tta=views)
            )  # fmt: skip
        crops = [crop(data, uri, stack.labels, sections) for sections in SECTIONS[data]]
        rows = [decoded(crops, method) for method in args.methods.split(",")]
        about = {"data": data, "variant": variant, "updates": updates, "seed": seed, "views": views}
        rivals = {name: rival(stack, dataset, data) for name, dataset in RIVALS[data].items()}
        path.write_text(json.dumps(about | {"rows": rows, "rivals": rivals, "versions": versions()}) + "\n")


def run_spoilt(data: str, variant: str, seed: int, args) -> None:
    """Train one network, or take the packaged one, then score clean and spoilt sections, if there is no result yet."""
    config = configured(data, variant, seed, args.updates, args.architecture)
    name = config.output.name if variant != "packaged" else f"{data}-packaged"
    path = args.results / f"{name}-spoilt.json"
    if path.exists():
        return
    prepare(config)
    if variant == "packaged":
        weights = weights_path(PACKAGED[data])
    else:
        train.run(config)
        weights = config.output / "model.safetensors"
    model = load_model(weights)
    scores = spoilt.measure(weights, config.stacks[0], SECTIONS[data], args.draws, best_mean)
    about = {"data": data, "variant": variant, "seed": seed, "draws": args.draws}
    about |= {"network": model.unet.architecture.name, "updates": updates_of(model.card)}
    path.write_text(json.dumps(about | {"spoilt": scores, "versions": versions()}) + "\n")


def updates_of(card: dict) -> int:
    """Return how many updates a card speaks of."""
    return card["updates"] if "updates" in card else card["training"]["updates"]


def configured(
    data: str, variant: str, seed: int, updates: int | None, architecture: str | None = None
) -> train.Config:
    """Return the example's training, as a variant of it."""
    content = tomllib.loads((EXAMPLES / f"affinities_{data}.toml").read_text())["train"]
    network, recipe = content["networks"][0], content["recipe"]
    network["updates"] = updates or network["updates"]
    network["architecture"] = architecture or network["architecture"]
    if variant == "nearest":
        network["architecture"] = {"base": network["architecture"], "offsets": [list(row) for row in NEAREST]}
    if variant == "no_defects":
        recipe["augmentation"] = CLEAN
    name = f"{variant}{network['updates']}" + (f"-{architecture}" if architecture else "")
    content |= {"seed": seed, "output": f"{RUNS}/{data}-{name}-{seed}"}
    return train.Config.model_validate(content)


def prepare(config: train.Config) -> None:
    """Make the stack that AC4's example learns from, pixels of 12 nm, where it is missing."""
    stack = config.stacks[0]
    for uri, kind, dataset in ((stack.image, "image", "raw"), (stack.labels, "labels", "labels")):
        if not uri.startswith("data://") and not exists(uri):
            source = f"data://snemi3d/ac4.h5:{dataset}"
            convert.run(convert.Config(input=source, output=uri, kind=kind, resample=(30, 12, 12)))


def crop(data: str, uri: str, labels: str, sections: tuple[int, int]) -> Crop:
    """Read affinities and truth of some sections."""
    with open_volume(uri) as volume, open_volume(labels) as truth:
        start, stop = (section - SECTIONS[data][0][0] for section in sections)
        links = read_affinities(volume, Box((start, 0, 0), (stop, *volume.spatial_shape[1:])))
        return Crop(links, truth.read(Box((sections[0], 0, 0), (sections[1], *truth.shape[1:]))), None)


def decoded(crops: list[Crop], method: str) -> dict:
    """Tune a decoder on the first crop and score it on the second."""
    row, chosen = tuned(crops[0], method)
    return {"tuned": row, "tested": check(crops[1], chosen)}


def tuned(crop: Crop, method: str) -> tuple[dict, Decoder]:
    """Return the scores of the best decoder for a crop, and that decoder."""
    grid = GRID if method != "mutex" else [(low, 0, dust) for low, size, dust in GRID if size == 0]
    tried = [Decoder(method=method, low=low, size=size, dust=dust) for low, size, dust in grid]
    rows = [tune(crop, one, "rand", 0.05) for one in tried]
    best = max(range(len(rows)), key=lambda k: rows[k]["f"])
    row = {key: value for key, value in rows[best].items() if key != "curve"}
    return row, Decoder(**{**vars(tried[best]), "merge_threshold": row["merge_threshold"]})


def best_mean(crop: Crop) -> Decoder:
    """Return the best mean agglomeration for a crop."""
    return tuned(crop, "mean")[1]


def rival(stack, dataset: str, data: str) -> dict:
    """Score another program's segmentation on the tested sections."""
    start, stop = SECTIONS[data][1]
    with open_volume(stack.labels) as truth, open_volume(stack.labels.rpartition(":")[0] + f":{dataset}") as theirs:
        box = Box((start, 0, 0), (stop, *truth.shape[1:]))
        return score_labels(theirs.read(box), truth.read(box))


def table(results: list[dict]) -> str:
    """One line per network, views and decoder, means over seeds; then what others made of the same sections."""
    head = f"{'data':6} {'variant':11} {'updates':>7} {'seeds':>5} {'views':>5} {'decoder':22}"
    lines = [f"{head} {'Rand error':>10} {'(best)':>8} {'VI split':>8} {'VI merge':>8}"]
    groups: dict[tuple, list[dict]] = {}
    for one in results:
        for row in one["rows"]:
            key = (one["data"], one["variant"], one["updates"], one["views"], row["tuned"]["method"])
            groups.setdefault(key, []).append(row["tested"])
    for (data, variant, updates, views, method), tested in groups.items():
        mean = {key: statistics.mean(one[key] for one in tested) for key in ("f", "best_f", "vi_split", "vi_merge")}
        best = f"({1 - mean['best_f']:.4f})" if method != "mutex" else ""
        lines.append(
            f"{data:6} {variant:11} {updates:7} {len(tested):5} {views:5} {method:22} {1 - mean['f']:10.4f} {best:>8}"
            f" {mean['vi_split']:8.3f} {mean['vi_merge']:8.3f}"
        )
    rivals = {(one["data"], name): row for one in results for name, row in one["rivals"].items()}
    for (data, name), row in rivals.items():
        lines.append(
            f"{data:6} {'others':11} {'':7} {'':5} {'':5} {name:22} {1 - row['f']:10.4f} {'':8}"
            f" {row['vi_split']:8.3f} {row['vi_merge']:8.3f}"
        )
    return "\n".join(lines)


def table_of_spoilt(results: list[dict]) -> str:
    """One line per network: Rand error (VI) of clean sections, and of the same ones with each kind of defect."""
    kinds = ("clean", *spoilt.KINDS)
    head = f"{'data':6} {'network':12} {'variant':11} {'updates':>7} {'seeds':>5} " + " ".join(
        f"{kind:>14}" for kind in kinds
    )
    groups: dict[tuple, list[dict]] = {}
    for one in results:
        groups.setdefault((one["data"], one["network"], one["variant"], one["updates"]), []).append(one["spoilt"])
    lines = ["sections with defects: Rand error (VI), mean agglomeration tuned on clean sections", head]
    for (data, network, variant, updates), rows in groups.items():
        cells = []
        for kind in kinds:
            error = statistics.mean(row[kind]["rand_error"] for row in rows)
            vi = statistics.mean(row[kind]["vi_split"] + row[kind]["vi_merge"] for row in rows)
            cells.append(f"{f'{error:.4f} ({vi:.2f})':>14}")
        lines.append(f"{data:6} {network:12} {variant:11} {updates:7} {len(rows):5} " + " ".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
