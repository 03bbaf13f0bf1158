"""N4, VD2D and VD2D3D with and without recursion on real sections: the claim of Lee et al. (NIPS 2015), and ablations.

    python benchmarks/paper/run.py [--tissues NAMES] [--recipes NAMES] [--seeds 0,1,2] [--nets NAMES] [--updates N]
    python benchmarks/paper/run.py --table

The first trains, predicts and scores whatever is not yet in results/ (stop it at any time, the same command goes on)
and ends with the table; the second makes table and charts of the results alone. The data (split.toml) must be in
NEUROPIL_DATA. Networks and updates are in fast.toml and paper.toml, which `neuropil train` takes too. Pixel errors are
at the threshold of the validation part, and best over thresholds (the paper's); Rand F is 2-D, pooled over sections,
foreground-restricted, by components and by watershed, at the level of the validation part and best over levels.
"""

import argparse
import json
import logging
import shutil
import statistics
import tomllib
from pathlib import Path

import numpy as np

from neuropil.geometry import Box
from neuropil.networks.checkpoint import load_model
from neuropil.networks.inference import predict
from neuropil.networks.sampling import Stack
from neuropil.report.charts import Axes, Series, line_chart
from neuropil.report.collect import training_log
from neuropil.report.page import document
from neuropil.segmentation.boundary import boundary_from_labels
from neuropil.stages import evaluate, train
from neuropil.stages.common import versions, write_volume
from neuropil.stages.train_config import names_of, needs_of, network_of
from neuropil.volume import open_volume

HERE = Path(__file__).parent
RUNS = Path("runs/paper")
SHUFFLED = "vd2d3d_shuffled"
ORDER = ("n4", "vd2d", "vd2d3d_single", "vd2d3d", SHUFFLED, "vd2d3d_flat")
PAIRS = (("n4", "vd2d"), ("vd2d", "vd2d3d"), *((other, "vd2d3d") for other in ORDER[2:] if other != "vd2d3d"))
TISSUES = tuple(tomllib.loads((HERE / "split.toml").read_text()))
DECODERS = ("components", "watershed")
POINTS = 40  # of a curve that are kept


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tissues", default=",".join(TISSUES))
    parser.add_argument(
        "--recipes", default="fast,weighted,paper", help="weighted is fast with the paper's class weights"
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--nets", help="only these; by default all of the recipe's file")
    parser.add_argument("--updates", type=int, help="of every network, instead of the recipe's")
    parser.add_argument("--precision", default="auto", help="bfloat16 where the processor computes in it")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--table", action="store_true", help="only show what is in results/")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not args.table:
        for tissue in args.tissues.split(","):
            split(tissue)
            for seed in map(int, args.seeds.split(",")):
                for recipe in args.recipes.split(","):
                    run(tissue, recipe, seed, args)
    results = [json.loads(path.read_text()) for path in sorted(args.results.glob("*.json"))]
    text = table(results)
    (args.results / "table.txt").write_text(text + "\n")
    (args.results / "charts.html").write_text(charts(results))
    print(text)


def split(tissue: str) -> None:
    """Write the parts of a stack into files, once; labels are 1 inside of cells, 0 on boundaries."""
    stack = tomllib.loads((HERE / "split.toml").read_text())[tissue]
    folder = RUNS / "data" / tissue
    if (folder / "test.h5").exists():
        return
    kinds = {key: stack[key] for key in ("interior_above", "touching_ids") if key in stack}
    with open_volume(stack["raw"]) as raw, open_volume(stack["labels"]) as labels:
        place = {"voxel_size": raw.metadata.voxel_size}
        for part in ("train", "validation", "test"):
            box = Box(*map(tuple, stack[part]))
            interior = (~boundary_from_labels(labels.read(box), **kinds)).astype(np.uint8)
            write_volume(f"{folder}/{part}.h5:raw", raw.read(box), kind="image", place=place, overwrite=True)
            write_volume(f"{folder}/{part}.h5:labels", interior, kind="labels", place=place, overwrite=True)


def run(tissue: str, recipe: str, seed: int, args) -> None:
    """Train and score each network of a recipe that has no result yet."""
    weighted = recipe == "weighted"
    text = (HERE / f"{'fast' if weighted else recipe}.toml").read_text().replace("/vnc/", f"/{tissue}/")
    content = tomllib.loads(text)["train"] | {"seed": seed}
    if weighted:
        content["recipe"]["rebalance"] = "patch"
    for one in [content, *content["networks"]]:
        if "recipe" in one:
            one["recipe"]["precision"] = args.precision
        if "updates" in one:
            one["updates"] = updates = args.updates or one["updates"]
    content["output"] = f"{RUNS}/{tissue}/{recipe}{updates}/{seed}"
    config = train.Config.model_validate(content)
    for name in args.nets.split(",") if args.nets else names_of(config):
        path = args.results / f"{tissue}-{recipe}{updates}-{name}-{seed}.json"
        if not path.exists():
            wanted = [network_of(config, one) for one in builds_on(config, name)]
            result = one_network(config.model_copy(update={"networks": wanted}), name)
            about = {"tissue": tissue, "network": name, "recipe": recipe, "seed": seed, "precision": args.precision}
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(about | result | {"versions": versions()}) + "\n")


def builds_on(config: train.Config, name: str) -> list[str]:
    """Names of the networks that one builds on, and its own."""
    found = [other for need in needs_of(config, network_of(config, name)) for other in builds_on(config, need)]
    return [*dict.fromkeys(found), name]


def one_network(config: train.Config, name: str) -> dict:
    """Train one network with those it builds on, and score it: validation chooses, test is scored once."""
    if name == SHUFFLED:
        config = with_shuffled_maps(config)
    train.run(config)
    scores: dict = {}
    parts = parts_of(config)
    fixed, watershed = None, {}
    for part in ("validation", "test"):
        uri = f"{config.output}/maps/{part}-{name}.h5:map"
        write_volume(uri, boundary_map(config, name, part), kind="boundary", place={}, overwrite=True)
        one = evaluate.run(
            evaluate.Config(
                boundary=uri, truth=f"{parts}/{part}.h5:labels", model=name, search=fixed is None, fixed=fixed,
                **watershed,
            )
        ).data  # fmt: skip
        watershed = one["watershed"]["parameters"]
        scores[part] = kept(one)
        fixed = [one["pixel_error"]["threshold"], *(one[d]["best"]["threshold"] for d in DECODERS)]
    log = training_log(config.output / name)
    learning = [[one.update, round(one.pixel_error, 5)] for one in log.validations]
    return {"updates": network_of(config, name).updates, "seconds": log.seconds, **scores, "learning": learning}


def parts_of(config: train.Config) -> Path:
    """Folder of the tissue's parts."""
    return Path(config.stacks[0].image).parent


def with_shuffled_maps(config: train.Config) -> train.Config:
    """Give the run a folder of its own, whose maps are in another order than the sections they are of."""
    output = config.output.with_name(f"{config.output.name}-shuffled")
    for name in names_of(config)[:-1]:
        if (output / name).exists():
            continue
        shutil.copytree(config.output / name, output / name)
        for path in (output / name / "maps").glob("*.zarr"):
            with open_volume(str(path)) as volume:
                maps = volume.read()
            write_volume(
                str(path), maps[other_order(len(maps), config.seed)], kind="boundary", place={}, overwrite=True
            )
    return config.model_copy(update={"output": output})


def other_order(depth: int, seed: int) -> np.ndarray:
    """Return a random order in which nothing stays in its place."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(depth)
        if (order != np.arange(depth)).all():
            return order


def boundary_map(config: train.Config, name: str, part: str) -> np.ndarray:
    """Predict a part by a network and those whose maps it sees."""
    with open_volume(f"{parts_of(config)}/{part}.h5:raw") as raw:
        image = raw.read()
    source = network_of(config, name).maps_from
    maps = boundary_map(config, source, part) if source else None
    if name == SHUFFLED:
        maps = maps[other_order(len(maps), config.seed)]
    network = load_model(config.output / name / "last.safetensors").networks[0]
    return predict(
        network, Stack(part, image, np.zeros(image.shape, np.uint8), maps).inputs(network.architecture.streams)
    )


def kept(scores: dict) -> dict:
    """What is kept of `neuropil evaluate`'s scores: best, at fixed thresholds, and thinned curves."""
    pixels = scores["pixel_error"]
    result: dict = {"pixel_error": pixels["best"], "pixel_error_fixed": pixels.get("at_fixed")}
    result["pixel_curve"] = thinned(pixels["boundary_pixels"]["recall"], pixels["boundary_pixels"]["precision"])
    for decoder in DECODERS:
        one = scores[decoder]
        result[decoder] = {
            "f": one["best"]["f"],
            "f_fixed": one["at_fixed"]["f"] if one.get("at_fixed") else None,
            "vi": sum(one["best"]["vi"].values()),
            "curve": thinned(one["curve"]["split"], one["curve"]["merge"]),
        }
    result["watershed"]["parameters"] = scores["watershed"]["parameters"]
    return result


def thinned(x: list[float], y: list[float]) -> list[list[float]]:
    """Return a few points of a curve."""
    index = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).round().astype(int))
    return [[round(float(x[i]), 4), round(float(y[i]), 4)] for i in index]


COLUMNS = {
    "pixel error": lambda test: test["pixel_error_fixed"],
    "best": lambda test: test["pixel_error"],
    "F comp.": lambda test: test["components"]["f_fixed"],
    "best F comp.": lambda test: test["components"]["f"],
    "F wshed": lambda test: test["watershed"]["f_fixed"],
    "best F wshed": lambda test: test["watershed"]["f"],
    "VI wshed": lambda test: test["watershed"]["vi"],
}


def table(results: list[dict]) -> str:
    """Mean and standard deviation over seeds on the test sections, and differences of pairs with the same seed."""
    head = f"{'tissue':8} {'recipe':8} {'updates':>7}"
    lines = [f"{head} {'network':18} {'seeds':>5} " + " ".join(f"{key:>15}" for key in COLUMNS)]
    for key, name in groups(results):
        seeds = of(results, key, name)
        cells = [spread([column(one["test"]) for one in seeds.values()]) for column in COLUMNS.values()]
        lines.append(f"{start(key)} {name:18} {len(seeds):5} " + " ".join(f"{cell:>15}" for cell in cells))
    lines += ["", "second minus first, same seeds:"]
    for key in dict.fromkeys(key for key, _ in groups(results)):
        for first, second in PAIRS:
            a, b = of(results, key, first), of(results, key, second)
            if both := sorted(a.keys() & b.keys()):
                apart = [
                    spread([column(b[seed]["test"]) - column(a[seed]["test"]) for seed in both], "+")
                    for column in COLUMNS.values()
                ]
                pair = f"{second} - {first}"
                lines.append(f"{start(key)} {pair:26} {len(both):5} " + " ".join(f"{cell:>15}" for cell in apart))
    return "\n".join([*lines, *sooner(results)])


def sooner(results: list[dict]) -> list[str]:
    """Say when the fast recipe reaches the validation error with which the paper's ends, all else alike."""
    said = []
    for key, name in groups(results):
        tissue, recipe, updates = key
        for seed, slow in of(results, key, name).items() if recipe == "paper" else ():
            end = slow["learning"][-1][1]
            for other, _ in (one for one in groups(results) if one[0][:2] == (tissue, "fast") and one[1] == name):
                if fast := of(results, other, name).get(seed):
                    there = next((update for update, error in fast["learning"] if error <= end), None)
                    said.append(
                        f"{tissue}, {name}, seed {seed}: paper ends at {end:.4f} after {updates} updates;"
                        f" fast, of {other[2]}, is there at {there}"
                    )
    return ["", "pixel error on validation:", *said] if said else []


Key = tuple[str, str, int]  # tissue, recipe, updates


def key_of(one: dict) -> Key:
    """Tissue, recipe and updates of a result."""
    return one["tissue"], one["recipe"], one["updates"]


def start(key: Key) -> str:
    """Give the first columns of a line."""
    return f"{key[0]:8} {key[1]:8} {key[2]:7}"


def groups(results: list[dict]) -> list[tuple[Key, str]]:
    """Key and network of each line, in the order of the claim."""
    found = {(key_of(one), one["network"]) for one in results}
    return sorted(found, key=lambda one: (TISSUES.index(one[0][0]), *one[0][1:], ORDER.index(one[1])))


def of(results: list[dict], key: Key, name: str) -> dict[int, dict]:
    """Return the results of one line by seed."""
    return {one["seed"]: one for one in results if (key_of(one), one["network"]) == (key, name)}


def spread(values: list[float], sign: str = "") -> str:
    """Mean ± standard deviation."""
    deviation = f" ±{statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.4f}{deviation}"


def charts(results: list[dict]) -> str:
    """Learning curves and precision-recall curves of the first seed, as one page."""
    first = [one for one in results if one["seed"] == min(one["seed"] for one in results)]
    first.sort(key=lambda one: ORDER.index(one["network"]))
    by_key = {key: [one for one in first if key_of(one) == key] for key, _ in groups(first)}
    parts = []
    for tissue in dict.fromkeys(key[0] for key in by_key):
        learning = {
            f"{one['network']}, {key[1]}": one["learning"] for key, many in by_key.items() if key[0] == tissue
            for one in many if one["network"] in ("n4", "vd2d", "vd2d3d")
        }  # fmt: skip
        last = max(point[0] for points in learning.values() for point in points)
        axes = Axes("updates", "validation pixel error", (0, last), (0.05, 0.3))
        parts.append(line_chart(f"Learning, {tissue}", lines(learning), axes))
    for title, x, y, curve in (
        ("Boundary pixels", "recall", "precision", lambda one: one["test"]["pixel_curve"]),
        ("Components", "Rand split score", "Rand merge score", lambda one: one["test"]["components"]["curve"]),
        ("Watershed", "Rand split score", "Rand merge score", lambda one: one["test"]["watershed"]["curve"]),
    ):
        for (tissue, recipe, updates), many in by_key.items():
            curves = {one["network"]: curve(one) for one in many}
            axes = Axes(x, y, (0.6, 1), (0.6, 1))
            parts.append(line_chart(f"{title}, {tissue}, {recipe}, {updates} updates", lines(curves), axes))
    return document("N4, VD2D, VD2D3D", f"<main>{''.join(parts)}</main>")


def lines(curves: dict[str, list]) -> list[Series]:
    """One line a curve."""
    return [
        Series(name, *(tuple(column) for column in zip(*points)), style=index % 6 + 1)
        for index, (name, points) in enumerate(curves.items())
    ]


if __name__ == "__main__":
    main()
