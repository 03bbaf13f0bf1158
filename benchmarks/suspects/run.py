"""What a list of suspects is worth on real data: precision, score gained, and whether probabilities hold.

    python benchmarks/suspects/run.py [--quick] [--json FILE] [--keep FOLDER] [--fit]

Affinities by the packaged models, on sections they were not trained on (NEUROPIL_DATA): AC4 76:100 at 12 nm (trained on
0:75) and FIB-25 112:180 (trained on 0:110). They are segmented by means, at the thresholds of the models' cards. One
crop of each (AC4 76:88, FIB-25 112:146) is for fitting, the other (AC4 90:100, FIB-25 150:180) for the figures: a
person is imitated who looks at suggestions in order and accepts the right ones. `..._default` are the weights that come
with neuropil, fitted on both fitting crops together; `..._fitted` those, fitted further on the fitting crop of the same
tissue. Peers, in the same run and on the same candidates: the smallest margin between mean affinity and threshold
(`margin`), and the greatest gain if right (`size`). --fit prints the weights fitted on both fitting crops.
--keep keeps affinities in a folder for the next run. --quick takes half of AC4's rows.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuropil.cli import main as neuropil
from neuropil.machine import cores
from neuropil.metrics.calibration import average_precision, fit_logistic, reliability
from neuropil.metrics.suggestions import Scoreboard, Suggestion
from neuropil.segmentation.affinities import NEAREST, Affinities
from neuropil.segmentation.affinity_moves import known_values, with_offsets
from neuropil.segmentation.decoding import Decoder, decode
from neuropil.segmentation.suspects import Suspects, find_suspects, parts_of
from neuropil.segmentation.suspicion import DEFAULT, Suspicion, ranked
from neuropil.stages.affinities import read_affinities
from neuropil.volume import create_volume, open_volume

AT = (10, 20, 50, 100)


@dataclass(frozen=True)
class Stack:
    """Where a stack is, its sections, the model, its threshold, and the two crops in sections of the part."""

    file: str
    labels: str
    sections: str
    resample: tuple[str, ...]
    model: str
    threshold: float
    fit: tuple[int, int]
    test: tuple[int, int]


STACKS = {
    "fib25": Stack(
        "data://fib25/fib25_sample2_z000-179.h5", "neuron_ids", "112:180", (), "affinity-fib", 0.2896, (0, 34), (38, 68)
    ),
    "ac4": Stack(
        "data://snemi3d/ac4.h5",
        "labels",
        "76:100",
        ("--resample", "30,12,12"),
        "affinity-ssem",
        0.2535,
        (0, 12),
        (14, 24),
    ),
}


@dataclass(frozen=True)
class Crop:
    """Candidates of a crop, which of them are right, and the segmentation to be corrected."""

    suspects: Suspects
    right: np.ndarray
    board: Scoreboard

    def review(self, order: np.ndarray):
        known = self.suspects
        some = [Suggestion(bool(known.cut[k]), int(known.u[k]), int(known.v[k])) for k in order[: max(AT)]]
        return copy.deepcopy(self.board).review(some)


def prepare(name: str, stack: Stack, folder: Path, rows: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return nearest affinities and truth of a stack's part."""
    for dataset, kind in (("raw", "image"), (stack.labels, "labels")):
        path = folder / f"{name}_{kind}.zarr"
        if not path.exists():
            part = folder / f"{name}_{kind}_all.zarr"
            words = ["--sections", stack.sections, "--kind", kind, *stack.resample, "--quiet", "--overwrite"]
            assert neuropil(["convert", f"{stack.file}:{dataset}", str(part), *words]) == 0
            with open_volume(str(part)) as volume:
                array, size = volume.read()[:, :rows], volume.metadata.voxel_size
            about = {"voxel_size": size, "kind": kind}
            with create_volume(str(path), shape=array.shape, dtype=array.dtype, **about) as volume:
                volume.write(None, array)
    path = folder / f"{name}_affinities.zarr"
    if not path.exists():
        words = ["--weights", stack.model, "--input", str(folder / f"{name}_image.zarr"), "--output", str(path)]
        assert neuropil(["predict", *words, "--channels", "nearest"]) == 0
    with open_volume(str(path)) as volume, open_volume(str(folder / f"{name}_labels.zarr")) as truth:
        return known_values(with_offsets(read_affinities(volume), NEAREST)), truth.read()


def crop(links: np.ndarray, truth: np.ndarray, sections: tuple[int, int], threshold: float) -> Crop:
    """Segment a crop, search it, and tell which suggestions are right."""
    links = np.ascontiguousarray(links[:, slice(*sections)])
    links[0, 0] = 0
    how = Decoder("mean", low=0.05, dust=0, merge_threshold=threshold)
    made = decode(Affinities(links, NEAREST), how, threads=cores())
    parts = parts_of(made.segmentation, made.fragments)
    search = find_suspects(parts, links, threshold=threshold, threads=cores())
    board = Scoreboard(parts.fragments, truth[slice(*sections)], parts.segment_of, search.edges)
    known = search.suspects
    some = [Suggestion(bool(c), int(u), int(v)) for c, u, v in zip(known.cut, known.u, known.v)]
    return Crop(known, np.array([board.right(one) for one in some]), board)


def fitted(crops: list[Crop], prior: Suspicion) -> Suspicion:
    """Fit weights to some crops."""
    weights = {}
    for cut, name in ((False, "join"), (True, "cut")):
        x = np.concatenate([one.suspects.features[one.suspects.cut == cut] for one in crops])
        y = np.concatenate([one.right[one.suspects.cut == cut] for one in crops])
        weights[name] = fit_logistic(x, y, getattr(prior, name))
    return Suspicion(**weights)


def figures_of(tag: str, one: Crop, order: np.ndarray) -> dict[str, float]:
    review = one.review(order)
    found = {f"{tag}_precision_at_{k}": review.precision(k) for k in AT}
    found |= {f"{tag}_vi_after_{k}": review.vi[min(k, len(review.vi) - 1)] for k in (0, *AT)}
    return found | {f"{tag}_are_after_{k}": review.rand_error[min(k, len(review.vi) - 1)] for k in (0, *AT)}


def told(tag: str, one: Crop, weights: Suspicion) -> dict[str, float]:
    known, p = one.suspects, weights.probability(one.suspects)
    found = figures_of(tag, one, ranked(known, p))
    likely = one.review(ranked(known, p, order="probability"))
    found |= {f"{tag}_likely_precision_at_{k}": likely.precision(k) for k in AT}
    shown = reliability(p, one.right)
    found |= {f"{tag}_calibration_error": shown.error, f"{tag}_brier": shown.brier}
    found[f"{tag}_brier_constant"] = shown.brier_constant
    for cut, name in ((False, "joins"), (True, "cuts")):
        which = known.cut == cut
        found[f"{tag}_{name}_average_precision"] = average_precision(p[which], one.right[which])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="half of AC4's rows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep affinities here for the next run")
    parser.add_argument("--fit", action="store_true", help="print weights fitted on both fitting crops")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    fits: dict[str, Crop] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name, stack in STACKS.items():
            links, truth = prepare(name, stack, folder, 256 if options.quick else None)
            fits[name] = crop(links, truth, stack.fit, stack.threshold)
            test = crop(links, truth, stack.test, stack.threshold)
            known = test.suspects
            figures[f"{name}_candidates"], figures[f"{name}_right"] = known.cut.size, int(test.right.sum())
            figures |= told(f"{name}_default", test, DEFAULT)
            figures |= told(f"{name}_fitted", test, fitted([fits[name]], DEFAULT))
            figures |= figures_of(f"{name}_margin", test, np.argsort(np.abs(known.features[:, 0]), kind="stable"))
            figures |= figures_of(f"{name}_size", test, np.argsort(-known.gain, kind="stable"))
    if options.fit:
        both = fitted(list(fits.values()), DEFAULT)
        print(f"join {np.round(both.join, 2).tolist()}\ncut {np.round(both.cut, 2).tolist()}")
    for key, value in figures.items():
        print(f"{key:42s} {value:8.3f}")
    if options.json:
        options.json.write_text(json.dumps({key: float(value) for key, value in figures.items()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
