"""Score a finished training of affinities on held-out sections, and write it as a packaged model.

    neuropil train examples/affinities_fib25.toml
    python benchmarks/affinities/package.py --run runs/affinities_fib25 --name affinity-fib

The model goes to src/neuropil/models, with a card that holds data, licence, citation, training and scores: each decoder
is tuned on some sections and scored once on others, as run.py does it, neither being in the training set. The weights
are those after the last update, which no validation chose; the log of the training goes to results/. The data must be
in NEUROPIL_DATA.
"""

import argparse
import json
import shutil
from pathlib import Path

import run as bench

import neuropil
from neuropil.networks.checkpoint import Model, load_model, save_model
from neuropil.stages import predict, train

MODELS = {"affinity-ssem": "ac4", "affinity-fib": "fib25"}
ABOUT = {
    "ac4": {
        "tissue": "mouse somatosensory cortex, ssSEM",
        "licence": "for non-commercial use: ac4 comes without a licence file",
        "citation": ["Kasthuri et al. 2015, Cell 162(3) 648 (ac4)"],
        "trained_by": "examples/affinities_ac4.toml",
    },
    "fib25": {
        "tissue": "Drosophila medulla, FIB-SEM",
        "licence": "CC BY 4.0, as the data: FIB-25, Takemura et al. 2015, by way of neuroproof_examples",
        "citation": ["Takemura et al. 2015, PNAS 112(44) 13711 (fib25)"],
        "trained_by": "examples/affinities_fib25.toml",
    },
}
NETWORK = "Lee et al. 2017, arXiv:1706.00120 (the network and its training)"
METHODS = ("mean", "quantile", "size", "mutex")


def main() -> None:
    """Score and write one model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of the training")
    parser.add_argument("--name", choices=MODELS, required=True)
    parser.add_argument("--use", choices=("last", "best"), default="last", help="weights to package")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--folder", type=Path, default=Path(neuropil.__file__).parent / "models")
    parser.add_argument("--logs", type=Path, default=Path(__file__).parent / "results", help="keeps the training's log")
    args = parser.parse_args()
    record = json.loads((args.run / "run.json").read_text())
    config = train.Config.model_validate(record["config"])
    weights = args.run / config.networks[0].name / f"{args.use}.safetensors"
    scores = score(MODELS[args.name], weights, config, args.methods.split(","), args.run)
    model = load_model(weights)
    card = card_of(MODELS[args.name], model.card, record, args.use) | {"scores": scores}
    save_model(args.folder / f"{args.name}.safetensors", Model(model.networks, card))
    shutil.copyfile(weights.parent / "log.jsonl", args.logs / f"{args.name}.log.jsonl")
    print(args.name, json.dumps(scores, indent=1))


def score(data: str, weights: Path, config: train.Config, methods: list[str], folder: Path) -> dict:
    """Predict the held-out sections, tune each decoder on the first part, score it once on the second."""
    stack, (tuned, tested) = config.stacks[0], bench.SECTIONS[data]
    for one in config.stacks:
        if one.sections is None or one.sections[1] > tuned[0]:
            raise SystemExit(f"{one.name}: sections {one.sections} were trained on; {tuned[0]} and later are held out")
    bench.prepare(config)
    uri = f"{folder}/held_out.h5:affinities"
    sections = (tuned[0], tested[1])
    predict.run(predict.Config(weights=weights, input=stack.image, output=uri, sections=sections, overwrite=True))
    crops = [bench.crop(data, uri, stack.labels, part) for part in (tuned, tested)]
    scores = {method: numbers(bench.decoded(crops, method)) for method in methods}
    others = {name: rounded(bench.rival(stack, dataset, data)) for name, dataset in bench.RIVALS[data].items()}
    part = f"{data} {tested[0]}:{tested[1]}, tuned on {tuned[0]}:{tuned[1]}"
    return {part: scores | ({"others": others} if others else {})}


def numbers(row: dict) -> dict:
    """Scores of one decoder, and its parameters."""
    parameters = ("low", "size", "dust") if row["tuned"]["method"] != "mutex" else ("low", "dust")
    found = {key: row["tuned"][key] for key in parameters}
    if row["tuned"]["method"] != "mutex":
        found["merge_threshold"] = round(row["tuned"]["merge_threshold"], 4)
    return rounded(row["tested"]) | found


def rounded(tested: dict) -> dict:
    """Adapted Rand error and VI (bits), as a card has them."""
    return {
        "rand_error": round(1 - tested["f"], 4),
        "vi_split": round(tested["vi_split"], 3),
        "vi_merge": round(tested["vi_merge"], 3),
    }


def card_of(data: str, card: dict, record: dict, use: str) -> dict:
    """What one must know of a model before using it: data, licence, citation, how it was trained."""
    about, name = ABOUT[data], card["name"]
    sections = ", ".join("{}:{}".format(*one["sections"]) for one in card["data"])
    training = {
        "config": about["trained_by"],
        "updates": record["networks"][name]["updates"],
        "seconds": round(record["networks"][name]["seconds"]),
        "seed": record["config"]["seed"],
        "weights": f"{use}, moving average" if card["recipe"]["average"] else use,
        "recipe": card["recipe"],
    }
    return {
        "tissues": [f"{about['tissue']} (sections {sections} of {data})"],
        "voxel_sizes": card["voxel_sizes"],
        "patch": card["patch"],
        "licence": about["licence"],
        "citation": [*about["citation"], NETWORK],
        "training": training,
    }


if __name__ == "__main__":
    main()
