"""Fields of [benchmark], and the checks of what they say of each other, which need no data.

A benchmark is a list of volumes with truth, and for each of them a list of methods: a segmentation that any program
made, or a map that neuropil segments here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from pydantic import Field

from neuropil.config import Name, Numbers, Sections, StageConfig, Triple, TripleNm
from neuropil.errors import ConfigError
from neuropil.segmentation.affinities import Rule
from neuropil.segmentation.decoding import Decoder, Method

SOURCES = ("segmentation", "affinities", "boundary", "image")


class MethodConfig(StageConfig):
    """One method on one volume, [[benchmark.volumes.methods]]: a segmentation, or what to make one of."""

    name: Name = Field(description="in tables and file names")
    segmentation: str | None = Field(None, description="URI of a segmentation, of this or any other program")
    affinities: str | None = Field(None, description="URI of affinities to segment")
    boundary: str | None = Field(None, description="URI of a boundary map to segment")
    image: str | None = Field(None, description="URI of an image to segment without a network: dark is boundary")
    origin: Triple = Field((0, 0, 0), description="voxel of the truth that is the first voxel of this volume, z,y,x")
    per_section: bool = Field(False, description="segment a map or an image section by section")
    rule: Rule = Field("min", description="how two voxels of a map make a link")
    method: Method = Field("watershed", description="decoder; see neuropil segment")
    low: float = Field(Decoder.low, description="see neuropil segment")
    high: float = Field(Decoder.high, description="see neuropil segment")
    size: float = Field(Decoder.size, ge=0, description="see neuropil segment")
    size_threshold: float = Field(Decoder.size_threshold, description="see neuropil segment")
    dust: float = Field(Decoder.dust, ge=0, description="see neuropil segment")
    quantile: float = Field(Decoder.quantile, ge=0, le=1, description="see neuropil segment")
    strides: Triple = Field(Decoder.strides, description="see neuropil segment")
    thresholds: Numbers | None = Field(None, description="merge thresholds; one row each")

    @property
    def source(self) -> str:
        """URI of what is scored or segmented."""
        return self.segmentation or self.affinities or self.boundary or self.image or ""

    def decoder(self, threshold: float | None) -> Decoder:
        """Return how a map is segmented."""
        given = {one.name: getattr(self, one.name) for one in fields(Decoder) if one.name != "merge_threshold"}
        return replace(Decoder(**given), merge_threshold=threshold)


class VolumeConfig(StageConfig):
    """One volume with truth: [[benchmark.volumes]]."""

    name: Name = Field(description="in tables and file names")
    truth: str = Field(description="URI of true ids; 0 is not scored")
    mask: str | None = Field(None, description="URI, of the truth's shape; voxels where it is 0 are not scored")
    voxel_size: TripleNm | None = Field(None, description="z, y, x in nm, where the truth does not say it")
    sections: Sections | None = Field(None, description="only these sections of the truth")
    rows: Sections | None = Field(None, description="only this range of y")
    columns: Sections | None = Field(None, description="only this range of x")
    skeletons: str | None = Field(
        None, description="also score run length, on these: 'truth' to make them of it, or a file; see evaluate"
    )
    merge_threshold: int = Field(0, ge=0, description="run length: nodes of two skeletons that make a segment a merge")
    block_shape: Triple | None = Field(None, description="of the bootstrap, z,y,x voxels; chosen if not given")
    methods: list[MethodConfig] = Field(
        min_length=1, description="[[benchmark.volumes.methods]]; others are compared with the first"
    )


class Config(StageConfig):
    """Fields of [benchmark]."""

    output: Path = Field(description="folder for results.json, results.csv, report.html and the scores of each method")
    title: str = Field("Benchmark", description="heading of the page")
    volumes: list[VolumeConfig] = Field(min_length=1, description="[[benchmark.volumes]]")
    resamples: int = Field(500, ge=1, description="of the blocks, for the intervals")
    level: float = Field(0.95, gt=0, lt=1, description="coverage of the intervals")
    blocks: int = Field(50, ge=2, description="least number of blocks where a volume names no block_shape")
    seed: int = Field(0, ge=0, description="of the resamples")
    threads: int | None = Field(
        None, ge=1, description="all cores if not given; the scores are the same for any number"
    )
    fresh: bool = Field(False, description="score again what is scored already")


@dataclass(frozen=True)
class Job:
    """One row of the table: a method on a volume, at one merge threshold if it has several."""

    volume: VolumeConfig
    method: MethodConfig
    threshold: float | None

    @property
    def name(self) -> str:
        """The method's name, with the threshold where there are several."""
        many = self.method.thresholds is not None and len(self.method.thresholds) > 1
        return f"{self.method.name} {self.threshold:g}" if many else self.method.name


def jobs_of(config: Config) -> Iterator[Job]:
    """Yield the rows in order."""
    for volume in config.volumes:
        for method in volume.methods:
            thresholds: Sequence[float | None] = method.thresholds or (None,)
            yield from (Job(volume, method, threshold) for threshold in thresholds)


def check(config: Config) -> None:
    """Check what needs no data.

    Raises
    ------
    ConfigError : names that occur twice, a method with no source or several, or parameters that mean nothing to it
    """
    for volume in config.volumes:
        for method in volume.methods:
            _check_method(f"method '{method.name}' of volume '{volume.name}'", method)
    names = [(job.volume.name, job.name) for job in jobs_of(config)]
    twice = next((one for one in names if names.count(one) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"volumes, and methods of a volume, need different names; '{twice[1]}' of '{twice[0]}' is twice"
        )


def _check_method(what: str, method: MethodConfig) -> None:
    sources = [key for key in SOURCES if getattr(method, key) is not None]
    if len(sources) != 1:
        raise ConfigError(f"{what} needs one of {', '.join(SOURCES)}; got {' and '.join(sources) or 'none'}")
    if method.segmentation is not None:
        extra = sorted(method.model_fields_set - {"name", "segmentation", "origin"})
        if extra:
            raise ConfigError(f"{what} is a segmentation already; drop {', '.join(extra)}")
        return
    if method.thresholds is not None and not method.thresholds:
        raise ConfigError(f"{what}: thresholds must list at least one")
    if method.method in ("mean", "quantile") and method.thresholds is None:
        raise ConfigError(f"{what}: decoder '{method.method}' needs thresholds; neuropil tune finds a good one")
    if method.method == "mutex" and method.thresholds is not None:
        raise ConfigError(f"{what}: decoder 'mutex' has no threshold; drop thresholds")
    if not 0 <= method.low < method.high:
        raise ConfigError(f"{what}: low and high must satisfy 0 <= low < high; got {method.low} and {method.high}")
