"""neuropil suspects: where a segmentation is probably wrong, worst first, with pictures and places to open in a viewer.

Works on any segmentation and its affinities. Candidates are all joins of two segments in contact and all cuts of a
segment at an edge of its merge tree; they are ranked by the gain to be expected. With --truth the list is scored, and
the weights that make probabilities are fitted to it, for use on other data with --calibration. Writes a folder:
suspects.html, suspects.csv (which `neuropil view --points` shows), suspects.json, pictures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuropil.config import Counts, Sections, StageConfig, dump
from neuropil.errors import ConfigError, InputError, OutputExists
from neuropil.machine import cores
from neuropil.metrics.calibration import Reliability, fit_logistic, reliability
from neuropil.metrics.suggestions import Review, Scoreboard, Suggestion
from neuropil.segmentation.suspects import Search, Suspects, find_suspects
from neuropil.segmentation.suspicion import DEFAULT, Order, Suspicion, ranked
from neuropil.stages import StageResult
from neuropil.stages.common import sidecar, versions
from neuropil.stages.suspects_input import Given, read_given
from neuropil.stages.suspects_output import Found, write_folder

EXAMPLES = [
    "neuropil suspects --segmentation ids.zarr --affinities affinities.zarr --image raw.zarr --output look",
    "neuropil suspects --segmentation ids.zarr --affinities affinities.zarr --truth truth.h5:ids --output look",
    "neuropil suspects --segmentation ids.zarr --affinities a.zarr --calibration look/calibration.json --output next",
]
POSITIONAL = ()


class Config(StageConfig):
    """Fields of [suspects]."""

    segmentation: str = Field(description="URI of the segmentation, all of it or the same sections")
    affinities: str = Field(description="URI of the affinities it was made of")
    fragments: str | None = Field(None, description="URI of its fragments; made by watershed if not given")
    image: str | None = Field(None, description="URI of the image, for pictures")
    truth: str | None = Field(None, description="URI of true labels: score the list and fit probabilities")
    output: Path = Field(description="folder to write")
    sections: Sections | None = Field(None, description="only these sections")
    merge_threshold: float | None = Field(
        None, gt=0, lt=1, description="mean affinity the segmentation was cut at; as recorded beside it, else 0.5"
    )
    low: float = Field(0.05, description="watershed of the fragments: links at or below this affinity do not count")
    high: float = Field(0.999, description="... and links at or above this always join")
    size: float = Field(256, ge=0, description="fragments below this many voxels are merged ...")
    size_threshold: float = Field(0.3, description="... with a neighbour linked at this affinity or above")
    least: int = Field(100, ge=1, description="voxels; suggestions with a smaller side are left out")
    count: int = Field(100, ge=1, description="longest list wanted")
    order: Order = Field("gain", description="gain: probability times what is gained; probability: by that alone")
    precision_at: Counts = Field([10, 20, 50, 100], description="with truth: precision of the first so many")
    calibration: Path | None = Field(None, description="weights that another call with --truth wrote")
    overwrite: bool = Field(False, description="replace the folder")


def run(config: Config) -> StageResult:
    """Search, rank, score, write."""
    if config.output.exists() and not config.overwrite:
        raise OutputExists(f"output {config.output} exists; give --overwrite to replace it")
    if config.output.exists() and not (config.output / "suspects.json").is_file():
        raise InputError(f"{config.output} is something else than a list of suspects; give another --output")
    suspicion = DEFAULT if config.calibration is None else read_calibration(config.calibration)
    threshold = config.merge_threshold or recorded_threshold(config.segmentation)
    given = read_given(config)
    search = find_suspects(given.parts, given.links, threshold=threshold, least=config.least, threads=cores())
    probability = suspicion.probability(search.suspects)
    chosen = ranked(search.suspects, probability, order=config.order)[: config.count]
    scored = None if given.truth is None else _score(given, search, probability, chosen)
    found = Found(search, probability, chosen, None if scored is None else (scored.review, scored.reliability))
    data: dict[str, Any] = {
        "candidates": {"joins": int((~search.suspects.cut).sum()), "cuts": int(search.suspects.cut.sum())},
        "config": dump(config),
        "merge_threshold": threshold,
        "versions": versions(),
    }
    if scored is not None:
        data |= _scores(config, scored)
        data["calibration"] = vars(fitted(search.suspects, scored.right, suspicion))
    data["suspects"] = write_folder(config, given, found, data)
    return StageResult(_summary(config, data), data)


def read_calibration(path: Path) -> Suspicion:
    """Read weights.

    Raises
    ------
    InputError : no such file, or no weights in it
    """
    try:
        data = json.loads(path.read_text())
        return Suspicion(tuple(map(float, data["join"])), tuple(map(float, data["cut"])))
    except FileNotFoundError:
        raise InputError(f"calibration {path} does not exist") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"calibration {path} must be what neuropil suspects --truth wrote: {error}") from None


def recorded_threshold(uri: str) -> float:
    """Return the threshold that a segmentation was made with, as recorded beside it; 0.5 where nothing is."""
    try:
        value = json.loads(sidecar(uri, "json").read_text())["config"]["merge_threshold"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0.5
    return float(value) if value is not None and 0 < value < 1 else 0.5


class _Scored:
    """What the truth says of all candidates, and of those on the list one after the other."""

    def __init__(self, right: NDArray[np.bool_], review: Review, found: Reliability) -> None:
        self.right, self.review, self.reliability = right, review, found


def _score(given: Given, search: Search, probability: NDArray[np.float64], chosen: NDArray[np.intp]) -> _Scored:
    assert given.truth is not None
    board = Scoreboard(given.parts.fragments, given.truth, given.parts.segment_of, search.edges)
    known = search.suspects
    all_ = [Suggestion(bool(c), int(u), int(v)) for c, u, v in zip(known.cut, known.u, known.v)]
    if not all_:
        raise ConfigError("there is no suggestion to score; a lower --least gives more")
    right = np.array([board.right(one) for one in all_])
    return _Scored(right, board.review(all_[k] for k in chosen), reliability(probability, right))


def fitted(suspects: Suspects, right: NDArray[np.bool_], prior: Suspicion) -> Suspicion:
    """Return weights fitted to what is right, near the ones known before."""
    weights = {}
    for cut, name in ((False, "join"), (True, "cut")):
        some = suspects.cut == cut
        weights[name] = fit_logistic(suspects.features[some], right[some], getattr(prior, name))
    return Suspicion(**weights)


def _scores(config: Config, scored: _Scored) -> dict[str, Any]:
    review, found = scored.review, scored.reliability
    return {
        "precision": {str(k): review.precision(k) for k in config.precision_at if k <= review.right.size},
        "vi": review.vi.tolist(),
        "rand_error": review.rand_error.tolist(),
        "reliability": {name: np.asarray(value).tolist() for name, value in vars(found).items()},
    }


def _summary(config: Config, data: dict[str, Any]) -> str:
    n = len(data["suspects"])
    lines = [
        f"{config.output}/suspects.html: {n} suspects of {data['candidates']['joins']} joins and"
        f" {data['candidates']['cuts']} cuts"
    ]
    if "vi" in data:
        at = ", ".join(f"{100 * value:.0f} % of the first {k}" for k, value in data["precision"].items())
        lines.append(f"right: {at or f'{100 * data_right(data):.0f} % of {n}'}")
        lines.append(
            f"VI {data['vi'][0]:.3f} -> {data['vi'][-1]:.3f}, adapted Rand error {data['rand_error'][0]:.4f} ->"
            f" {data['rand_error'][-1]:.4f} once the right ones are accepted"
        )
        lines.append(f"weights fitted to this truth: {config.output}/calibration.json")
    return "\n".join(lines)


def data_right(data: dict[str, Any]) -> float:
    """Return the share of the list that is right."""
    return float(np.mean([one["right"] for one in data["suspects"]]))
