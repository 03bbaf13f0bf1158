"""What fusion of votes and of annotations is worth, where truth is known: simulated crowds, slips on real labels.

    python benchmarks/crowd/run.py [--quick] [--json FILE] [--picture FILE.svg]

Error is CE, weighted by volume (docs/metrics.md); every method sees the same votes. Methods that learn from labels are
cross-validated by task; the others see none. The picture shows error over votes per segment, with the ceiling: the best
decision that anybody who knew all abilities could take. crowd-kit takes part where it is installed (see peer.py).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import h5py
import numpy as np
import peer
from scipy.stats import spearmanr

from neuropil.crowd.annotations import fuse_annotations
from neuropil.crowd.annotators import Slips, imitate_annotator
from neuropil.crowd.dawid_skene import dawid_skene
from neuropil.crowd.folds import cross_validate
from neuropil.crowd.fusion import SUPERVISED, Method, fuse_votes
from neuropil.crowd.scores import best_threshold, score_consensus, voxel_scores
from neuropil.crowd.sgd import VoteModel, train_votes
from neuropil.crowd.simulate import Crowd, Simulation, simulate_votes
from neuropil.crowd.votes import Votes
from neuropil.errors import VolumeNotFound
from neuropil.metrics.scores import score_segmentation
from neuropil.report.charts import Axes, Series
from neuropil.report.svg import svg_file
from neuropil.synthetic import make_tissue
from neuropil.volume.uri import parse_uri

# without labels, and with; a picture each
DRAWN = {
    "": ("ceiling", "majority", "dawid_skene", "glad", "eyewire", "starburst", "constant"),
    "_labels": ("ceiling", "majority", *SUPERVISED),
}
METHODS = get_args(Method)


def blank(votes: Votes) -> Votes:
    """Return the same votes without any truth."""
    return votes.hide(np.ones(votes.tasks.size, bool))


def decisions(made: Simulation, methods: Sequence[Method] = METHODS, seed: int = 0) -> dict[str, np.ndarray]:
    """Return what each method selects, and what knowing everything would select."""
    votes = made.votes
    found = {"ceiling": made.bayes() >= 0.5}
    for method in methods:
        if method in SUPERVISED:
            found[method] = cross_validate(votes, method, rng=np.random.default_rng(seed)).selected
        else:
            found[method] = fuse_votes(blank(votes), method).selected
    return found


def errors(made: Simulation, methods: Sequence[Method] = METHODS) -> dict[str, float]:
    """Return CE by method."""
    return {name: voxel_scores(made.votes, one).error for name, one in decisions(made, methods).items()}


def mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each entry."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def curve(seeds: int) -> dict[str, list[float]]:
    """Return CE over 1 ... 10 votes per segment, by method."""
    found: dict[str, list[float]] = {}
    for players in range(1, 11):
        made = [simulate_votes(players=players, rng=np.random.default_rng(seed)) for seed in range(seeds)]
        for name, error in mean([errors(one) for one in made]).items():
            found.setdefault(name, []).append(error)
    return found


def gains(crowds: Sequence[Simulation], repeats: int = 1000) -> dict[str, float]:
    """Return by how much CE falls against majority over several crowds, with intervals from resampled tasks, paired.

    `loss_expected` is the rise of CE with both sums replaced by what they are expected to be, given votes and true
    abilities: the luck of the truth that was drawn is not in it, which among equals is all that votes leave open.
    """
    tables: dict[str, list[np.ndarray]] = {}
    expected: dict[str, np.ndarray] = {}
    for made in crowds:
        posterior = made.bayes()
        votes, found = made.votes, decisions(made)
        if peer.installed():
            found |= {
                f"crowdkit_{name}": peer.probability(name, votes, **options) >= 0.5
                for name, options in (("dawid_skene", {}), ("glad", {"silent": True}))
            }
        for name, one in found.items():
            wrong, whole = one != votes.truth, one | (votes.truth == 1)
            sums = [np.bincount(votes.tasks, votes.sizes * part) for part in (wrong, whole)]
            tables.setdefault(name, []).append(np.stack(sums))
            sums = [votes.sizes @ np.where(one, *pair) for pair in ((1 - posterior, posterior), (1.0, posterior))]
            expected[name] = expected.get(name, 0) + np.array(sums)
    pooled = {name: np.concatenate(parts, axis=1) for name, parts in tables.items()}
    count = pooled["majority"].shape[1]
    times = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), repeats)
    ce = {name: (times @ wrong) / (times @ whole) for name, (wrong, whole) in pooled.items()}
    figures = {}
    for name, (wrong, whole) in pooled.items():
        lower, upper = np.quantile(1 - ce[name] / ce["majority"], [0.025, 0.975])
        figures |= {f"error_{name}": float(wrong.sum() / whole.sum())}
        figures |= {f"gain_low_{name}": float(lower), f"gain_high_{name}": float(upper)}
        likely, majority = (np.divide(*expected[one]) for one in (name, "majority"))
        figures |= {f"loss_expected_{name}": float(likely / majority - 1)}
    return figures


def against_majority(seeds: int, tasks: int) -> dict[str, float]:
    """Return gains in the spec's crowd and in two crowds of equals at 5 votes, and how far promises are kept."""
    equal = {
        "equal_symmetric": (Crowd(sensitivity=0.85, specificity=0.85, spread=0, spammers=0), 0.5),
        "equal": (Crowd(spread=0, spammers=0), 0.3),
    }
    figures = {}
    for kind, (crowd, prior) in {"spec": (Crowd(), 0.3), **equal}.items():
        made = [
            simulate_votes(crowd, prior=prior, tasks=tasks, rng=np.random.default_rng(100 + seed))
            for seed in range(seeds)
        ]
        figures |= {f"{kind}_{name}": value for name, value in gains(made).items()}
    votes = simulate_votes(tasks=tasks, rng=np.random.default_rng(100)).votes
    for name in METHODS:
        if name in SUPERVISED:
            probability = cross_validate(votes, name, rng=np.random.default_rng(0)).probability
        else:
            probability = fuse_votes(blank(votes), name).probability
        score = score_consensus(votes, probability)
        figures |= {f"log_loss_{name}": score.log_loss, f"calibration_error_{name}": score.calibration.error}
    return figures


def copies(seeds: int) -> dict[str, float]:
    """Return CE where three of the five players of each task are accounts of one person, on tasks without labels."""
    rows = []
    for seed in range(seeds):
        rng = np.random.default_rng(500 + seed)
        truth, tasks = rng.random(4000) < 0.3, np.repeat(np.arange(200), 20)
        said = [np.where(rng.random(4000) < right, truth, ~truth) for right in (0.75, 0.8, 0.8)]
        values = np.stack([said[0]] * 3 + said[1:], axis=1)
        segments, users = np.indices(values.shape).reshape(2, -1)
        sizes = np.ceil(rng.lognormal(7.0, 1.2, 4000))
        votes = Votes.of(users, segments, values.ravel(), tasks=tasks, sizes=sizes, truth=truth)
        known, test = votes.hide(tasks >= 100), votes.hide(tasks < 100)
        rows.append({name: voxel_scores(test, fuse_votes(known, name).selected).error for name in METHODS})
    return {f"copies_error_{name}": error for name, error in mean(rows).items()}


def abilities() -> dict[str, float]:
    """Return Spearman's correlation of found with true abilities, everybody playing about equally often."""
    made = simulate_votes(Crowd(activity=0), rng=np.random.default_rng(1))
    true, found = made.abilities, dawid_skene(blank(made.votes)).abilities
    pairs = {
        "dawid_skene_weight": (found.weights, true.weights),
        "dawid_skene_sensitivity": (found.sensitivity, true.sensitivity),
        "dawid_skene_specificity": (found.specificity, true.specificity),
    }
    pairs |= {f"{name}_w": (fuse_votes(made.votes, name).weights, true.weights) for name in SUPERVISED}
    return {f"spearman_{name}": float(spearmanr(*pair).statistic) for name, pair in pairs.items()}


def crowds(seeds: int) -> dict[str, float]:
    """Return CE at 5 votes for crowds of other kinds."""
    base = Crowd()
    kinds: dict[str, Callable[[int], Simulation]] = {
        "difficulty_0.7": lambda seed: simulate_votes(difficulty=0.7, rng=np.random.default_rng(seed)),
        "adversaries_0.1": lambda seed: simulate_votes(replace(base, adversaries=0.1), rng=np.random.default_rng(seed)),
        "tasks_10": lambda seed: simulate_votes(tasks=10, rng=np.random.default_rng(seed)),
    }  # fmt: skip
    for share in (0.0, 0.2, 0.4):
        kinds[f"spammers_{share:g}"] = lambda seed, share=share: simulate_votes(
            replace(base, spammers=share), rng=np.random.default_rng(seed)
        )
    figures = {}
    for kind, make in kinds.items():
        found = mean([errors(make(200 + seed)) for seed in range(seeds)])
        figures |= {f"{kind}_error_{name}": error for name, error in found.items()}
    return figures


def labels(seeds: int) -> dict[str, float]:
    """Return CE on 100 tasks over the number of other tasks with labels, and with wrong labels among them."""
    figures: dict[str, list[float]] = {}
    for seed in range(seeds):
        made = simulate_votes(tasks=350, rng=np.random.default_rng(300 + seed))
        votes, rng = made.votes, np.random.default_rng(seed)
        test = votes.tasks >= 250
        for tasks, noise in ((0, 0), (5, 0), (20, 0), (50, 0), (250, 0), (250, 0.05), (250, 0.1)):
            wrong = rng.random(test.size) < noise
            noisy = replace(votes, truth=np.where(wrong, 1 - votes.truth, votes.truth).astype(np.int8))
            known = noisy.hide(votes.tasks >= tasks)
            for method in ("dawid_skene", "logistic") if tasks else ("dawid_skene",):
                selected = fuse_votes(known, method).selected
                name = f"labels_{tasks}_noise_{noise:g}_error_{method}"
                figures.setdefault(name, []).append(voxel_scores(votes.hide(~test), selected).error)
    return {name: float(np.mean(row)) for name, row in figures.items()}


def training(seeds: int) -> dict[str, float]:
    """Return CE and log loss of the logistic model by loss, start and pull, and by division into folds."""
    figures: dict[str, list[float]] = {}
    for seed in range(seeds):
        made = simulate_votes(rng=np.random.default_rng(400 + seed))
        votes, rng = made.votes, np.random.default_rng(seed)
        test = rng.random(250)[votes.tasks] < 0.2
        zero, everybody = np.zeros(votes.user_count), np.ones(votes.user_count, bool)
        nothing = VoteModel("logistic", zero, zero, 0.0, everybody)
        for loss in ("log", "squared"):
            for name, start, l2 in (("", None, None), ("_undrawn", None, 0.0), ("_from_nothing", nothing, 0.0)):
                known = votes.hide(test)
                p = train_votes(known, loss=loss, l2=l2, start=start).probability(votes)
                found = score_consensus(votes.hide(~test), p)
                tuned = score_consensus(votes.hide(~test), p, threshold=best_threshold(known, p))
                name = f"logistic_{loss}{name}"
                figures.setdefault(f"{name}_error", []).append(found.voxels.error)
                figures.setdefault(f"{name}_tuned_error", []).append(tuned.voxels.error)
                figures.setdefault(f"{name}_log_loss", []).append(found.log_loss)
        for by in ("task", "segment"):
            held = cross_validate(votes, "logistic", by=by, rng=np.random.default_rng(seed))
            figures.setdefault(f"logistic_by_{by}_error", []).append(voxel_scores(votes, held.selected).error)
    return {name: float(np.mean(row)) for name, row in figures.items()}


def truths(quick: bool) -> dict[str, np.ndarray]:
    """Return true labels: crops of AC4 and FIB-25 where they are found, and synthetic tissue."""
    side = 160 if quick else 256
    found = {"synthetic": make_tissue((12, side, side), rng=np.random.default_rng(0), voxel_size=(50, 12, 12)).ids}
    for name, uri, crop in (
        ("ac4", "data://snemi3d/ac4.h5:labels", (slice(40, 60), slice(100, 100 + side), slice(100, 100 + side))),
        (
            "fib25",
            "data://fib25/fib25_sample2_z000-179.h5:neuron_ids",
            (slice(60, 120), slice(0, side), slice(0, side)),
        ),
    ):
        try:
            place = parse_uri(uri)
        except VolumeNotFound:
            continue
        with h5py.File(place.local) as file:
            found[name] = file[place.dataset][crop].astype(np.uint64)
    return found


def annotations(seeds: int, quick: bool) -> dict[str, float]:
    """Return scores of fused annotations and of the best annotator, and wrong links inside and outside the mask."""
    careful, careless = Slips(), Slips(merges=0.3, splits=0.5, shift=3.0)
    groups = {
        "2": [careful] * 2,
        "3": [careful] * 3,
        "5": [careful] * 5,
        "2_and_1_careless": [careful] * 2 + [careless],
        "2_and_3_careless": [careful] * 2 + [careless] * 3,
        "1_and_2_careless": [careful] + [careless] * 2,
    }
    figures: dict[str, float] = {}
    for data, truth in truths(quick).items():
        for group, members in groups.items():
            rows = []
            for seed in range(seeds):
                rng = np.random.default_rng(seed)
                drawn = [imitate_annotator(truth, one, rng=rng) for one in members]
                fused = fuse_annotations(drawn)
                scores = [score_segmentation(one, truth) for one in (*drawn, fused.labels)]
                vi, rand = [one.information.total for one in scores], [one.rand.error for one in scores]
                mask = fused.mask()[..., 1:]
                wrong = (fused.labels[..., 1:] == fused.labels[..., :-1]) != (truth[..., 1:] == truth[..., :-1])
                rows.append(
                    {
                        "best_vi": min(vi[:-1]), "vi": vi[-1],
                        "best_rand_error": min(rand[:-1]), "rand_error": rand[-1],
                        "vi_over_best": vi[-1] / min(vi[:-1]), "rand_error_over_best": rand[-1] / min(rand[:-1]),
                        "masked_share": float(mask.mean()), "wrong_links_in_mask": float(wrong[mask].mean()),
                        "wrong_links_elsewhere": float(wrong[~mask].mean()),
                    }
                )  # fmt: skip
            figures |= {f"annotations_{data}_{group}_{name}": value for name, value in mean(rows).items()}
            figures[f"annotations_{data}_{group}_worst_vi_over_best"] = max(row["vi_over_best"] for row in rows)
    return figures


def draw(path: Path, found: dict[str, list[float]]) -> None:
    """Write the pictures of error over votes per segment: FILE.svg, of methods without labels, and FILE_labels.svg."""
    x = tuple(float(m) for m in range(1, 11))
    axes = Axes("votes per segment", "volume-weighted error", (1, 10), (0, 0.5))
    for end, names in DRAWN.items():
        series = [
            Series("ceiling (Bayes)" if name == "ceiling" else name, x, tuple(found[name]), style=k)
            for k, name in enumerate(names)
        ]
        title = f"Error over votes per segment, simulated crowd, methods with{'' if end else 'out'} labels"
        picture = path.with_name(f"{path.stem}{end}{path.suffix}")
        picture.write_text(svg_file(title, series, axes), encoding="utf-8")


def over_votes(seeds: int, options: argparse.Namespace) -> dict[str, float]:
    """Return the curve as figures, and draw it if asked."""
    lines = curve(seeds)
    if options.picture:
        draw(options.picture, lines)
    return {f"votes_{m}_error_{name}": row[m - 1] for name, row in lines.items() for m in range(1, 11)}


PARTS: dict[str, Callable[[int, argparse.Namespace], dict[str, float]]] = {
    "votes": over_votes,
    "majority": lambda seeds, options: against_majority(seeds, 100 if options.quick else 250),
    "abilities": lambda seeds, options: abilities(),
    "crowds": lambda seeds, options: crowds(seeds),
    "copies": lambda seeds, options: copies(seeds),
    "labels": lambda seeds, options: labels(seeds),
    "training": lambda seeds, options: training(seeds),
    "annotations": lambda seeds, options: annotations(2 if options.quick else 3, options.quick),
}


def main() -> None:
    """Run all and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer seeds and smaller crops, within three minutes")
    parser.add_argument("--measure", default=",".join(PARTS), help="parts to run, of " + ", ".join(PARTS))
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--picture", type=Path, help="draw error over votes per segment")
    options = parser.parse_args()
    seeds = 1 if options.quick else 3
    figures: dict[str, float] = {}
    for part in options.measure.split(","):
        figures |= PARTS[part](seeds, options)
    for name, value in figures.items():
        print(f"{name:66s} {value:12.4g}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
