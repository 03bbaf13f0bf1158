"""Find the parameters of `neuropil segment` on a crop with truth, and score them on a second crop.

Every combination of the listed parameters is segmented once, and its merge tree scored at every threshold. The best is
written as a [segment] table, with scores (.json) and curves (.html) beside it. A threshold that is only good in a
narrow range will hardly hold elsewhere: prefer a wide range to a slightly higher peak.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuropil.config import Names, Numbers, Sections, StageConfig, Triple
from neuropil.errors import ConfigError, InputError, OutputExists
from neuropil.files import write_json, write_text
from neuropil.geometry import Box
from neuropil.progress import track
from neuropil.report.markup import toml
from neuropil.report.tuning import render_tuning
from neuropil.segmentation.affinities import Rule
from neuropil.segmentation.components import section_components
from neuropil.segmentation.decoding import METHODS, Decoder
from neuropil.stages import StageResult
from neuropil.stages.affinities import read_affinities
from neuropil.stages.common import CREMI_UNLABELLED, read_boundary, record_of, section_box
from neuropil.stages.segment import links_of
from neuropil.stages.tuning import Crop, Score, check, tune
from neuropil.volume import Volume, open_volume

EXAMPLES = [
    "neuropil tune --input affs.zarr --truth ids.h5:ids --sections 0:20 --check-sections 20:40 --output found.toml",
    "neuropil tune --input map.h5:map --truth ids.h5:ids --low 0.1,0.3 --size 0,256,1000 --output found.toml",
]
POSITIONAL = ()
LISTED = ("low", "high", "size", "size_threshold", "dust", "quantile")
ABOUT = ("truth", "sections", "check_input", "check_truth", "check_sections", "score", "tolerance")
SHOWN = 8
"""Most lines of the printed table."""


class Config(StageConfig):
    """Fields of [tune]."""

    input: str = Field(description="URI of a boundary map, or of affinities")
    truth: str = Field(description="URI of true ids; 0 is not scored")
    sections: Sections | None = Field(None, description="sections of the input to tune on")
    check_input: str | None = Field(None, description="URI of the second crop's map or affinities, if another volume")
    check_truth: str | None = Field(None, description="URI of the second crop's true ids, if another volume")
    check_sections: Sections | None = Field(None, description="sections of the second crop, scored but not tuned on")
    truth_start: int = Field(0, ge=0, description="section of the truth that is section 0 of the input")
    output: Path = Field(description="TOML file to write, for neuropil segment")
    methods: Names = Field(["watershed"], description=f"some of {', '.join(METHODS)}")
    low: Numbers = Field([0.3], description="values to try; see neuropil segment")
    high: Numbers = Field([0.999], description="values to try")
    size: Numbers = Field([256], description="values to try")
    size_threshold: Numbers = Field([0.3], description="values to try")
    dust: Numbers = Field([256], description="values to try")
    quantile: Numbers = Field([0.75], description="values to try, with method quantile")
    thresholds: Numbers = Field(
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], description="values to try with method multicut; others try all"
    )
    strides: Triple = Field((1, 1, 1), description="method mutex: repulsive links are used on this grid only, z,y,x")
    score: Score = Field("rand", description="what is best: rand (highest Rand F) or vi (lowest VI)")
    tolerance: float = Field(0.05, ge=0, lt=1, description="share of the best score that a nearly as good one may lose")
    per_section: bool = Field(True, description="segment and score a boundary map section by section")
    rule: Rule = Field("interior", description="how two voxels of a map make a link")
    overwrite: bool = Field(False, description="replace outputs that exist")


def run(config: Config) -> StageResult:
    """Tune on one crop, score on the other."""
    start = time.monotonic()
    decoders = _decoders(config)
    _refuse(config)
    crop, second = _crop(config, config.input, config.truth, config.sections), None
    if _has_second(config):
        second = _crop(
            config, config.check_input or config.input, config.check_truth or config.truth, config.check_sections
        )
    rows = [
        {"name": _name(one, decoders), **tune(crop, one, config.score, config.tolerance, config.thresholds)}
        for one in track(decoders, "tune", len(decoders))
    ]
    rows.sort(key=lambda row: row["vi"] if config.score == "vi" else -row["f"])
    for row in track(rows if second else [], "check", len(rows)):
        row["check"] = check(second, _decoder(row))  # type: ignore[arg-type]  # tested in the line above
    found = _meant(rows[0])
    if _is_map(config.input):
        found |= {"per_section": config.per_section, "rule": config.rule}
    text = _table(config, rows)
    comment = "".join(f"# {line}\n" for line in text.splitlines())
    write_text(config.output, f"{comment}\n[segment]\n{toml(found)}\n")
    record = record_of("tune", config, start)
    about = {key: value for key, value in record["config"].items() if key in ABOUT and value is not None}
    write_json(config.output.with_suffix(".json"), {"found": found, "rows": rows, **record})
    write_text(config.output.with_suffix(".html"), render_tuning(f"Thresholds for {config.input}", rows, about))
    return StageResult(f"{text}\nwrote {config.output}", {"found": found, "rows": rows, **record})


def _decoders(config: Config) -> list[Decoder]:
    """Return every combination of the listed parameters."""
    lists: dict[str, list[Any]] = {"method": config.methods} | {name: getattr(config, name) for name in LISTED}
    for name, values in lists.items():
        if not values or len(set(values)) < len(values):
            raise ConfigError(f"{name} must list different values, at least one; got {values}")
    for method in config.methods:
        if method not in METHODS:
            raise ConfigError(f"methods must be some of {', '.join(METHODS)}; got '{method}'")
    if not config.thresholds or not all(0 < one < 1 for one in config.thresholds):
        raise ConfigError(f"thresholds must lie between 0 and 1, at least one; got {config.thresholds}")
    made = [
        Decoder(**dict(zip(lists, values)), strides=config.strides) for values in itertools.product(*lists.values())
    ]
    # A quantile means nothing to other methods, so they are tried once.
    usual = Decoder.quantile
    return list(dict.fromkeys(one if one.method == "quantile" else replace(one, quantile=usual) for one in made))


def _refuse(config: Config) -> None:
    if config.output.suffix != ".toml":
        raise ConfigError(f"output must be a .toml file; got {config.output}")
    for suffix in (".toml", ".json", ".html"):
        if config.output.with_suffix(suffix).exists() and not config.overwrite:
            raise OutputExists(f"output {config.output.with_suffix(suffix)} exists; give --overwrite to replace it")
    if not config.output.absolute().parent.is_dir():
        raise ConfigError(f"output {config.output} must lie in a folder that exists")
    if _has_second(config) and config.check_input in (None, config.input):
        a, b = config.sections, config.check_sections
        if a is None or b is None or (a[0] < b[1] and b[0] < a[1]):
            raise ConfigError(
                f"the second crop must not be tuned on: sections and check_sections must not overlap; got {a} and {b}"
            )


def _has_second(config: Config) -> bool:
    return (config.check_input, config.check_truth, config.check_sections) != (None, None, None)


def _crop(config: Config, uri: str, truth_uri: str, sections: tuple[int, int] | None) -> Crop:
    """Read a map or affinities, and their truth."""
    with open_volume(uri) as volume:
        box = section_box(volume, sections)
        source = read_affinities(volume, box) if len(volume.shape) == 4 else read_boundary(volume, box)
        flat = len(volume.shape) == 3 and config.per_section
    with open_volume(truth_uri) as volume:
        labels = _truth(volume, box.shift((config.truth_start, 0, 0)))
    unlabelled = labels == CREMI_UNLABELLED
    mask = ~unlabelled if unlabelled.any() else None
    truth = section_components(labels) if flat else labels
    return Crop(links_of(source, flat, config.rule), truth, mask)


def _is_map(uri: str) -> bool:
    with open_volume(uri) as volume:
        return len(volume.shape) == 3


def _truth(volume: Volume, box: Box) -> NDArray[Any]:
    if len(volume.shape) != 3 or volume.dtype.kind not in "ui":
        raise InputError(f"{volume.uri} must hold integer labels (z, y, x); it holds {volume.dtype} {volume.shape}")
    if not Box.of_shape(volume.spatial_shape).contains(box) or volume.shape[1:] != box.shape[1:]:
        raise InputError(
            f"truth must cover the input's sections {box.start[0]}:{box.stop[0]} of {box.shape[1:]} voxels; "
            f"{volume.uri} has the shape {volume.shape}"
        )
    labels = volume.read(box)
    if not np.any(labels):
        raise InputError(f"{volume.uri} has no labels in sections {box.start[0]}:{box.stop[0]}")
    return labels


def _decoder(row: dict[str, Any]) -> Decoder:
    return Decoder(**{field.name: row[field.name] for field in fields(Decoder)})


def _meant(row: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a row that mean something to its method."""
    others = {"quantile": "quantile", "strides": "mutex"}
    found = {field.name: row[field.name] for field in fields(Decoder)}
    found = {key: value for key, value in found.items() if others.get(key, row["method"]) == row["method"]}
    if row["method"] == "mutex":
        del found["merge_threshold"]
    return found


def _name(one: Decoder, decoders: list[Decoder]) -> str:
    """Return the method and what distinguishes it from the others."""
    differ = [
        f"{field.name} {getattr(one, field.name):g}"
        for field in fields(Decoder)
        if field.name not in ("method", "quantile") and len({getattr(other, field.name) for other in decoders}) > 1
    ]
    method = f"quantile {one.quantile:g}" if one.method == "quantile" else one.method
    return ", ".join([method, *differ])


def _table(config: Config, rows: list[dict[str, Any]]) -> str:
    """Return the printed table, the best first."""
    wide = max(len(row["name"]) for row in rows)
    lines = [f"{'parameters':{wide}}  threshold  nearly as good   F       VI      second crop: F       VI"]
    for row in rows[:SHOWN]:
        low, high = row["flat"]
        threshold, good = f"{row['merge_threshold']:9.4f}", f"{low:.3f} to {high:.3f}"
        if row["method"] == "mutex":
            threshold, good = f"{'none':>9}", " " * len(good)
        line = f"{row['name']:{wide}}  {threshold}  {good}"
        line += f"  {row['f']:.4f}  {row['vi']:.4f}"
        if "check" in row:
            line += f"{row['check']['f']:21.4f}  {row['check']['vi']:.4f}"
        lines.append(line)
    if len(rows) > SHOWN:
        lines.append(f"... {len(rows) - SHOWN} more in {config.output.with_suffix('.json')}")
    if "check" not in rows[0]:
        lines.append("not scored on a second crop: give --check-sections, or --check-input and --check-truth")
    return "\n".join(lines)
