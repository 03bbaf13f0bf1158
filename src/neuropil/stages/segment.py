"""Turn a boundary map or affinities into a segmentation.

A boundary map is segmented section by section unless --no-per-section is given; affinities (c, z, y, x) are segmented
in 3-D, whichever end stores their links: their offsets say it. `neuropil tune` finds the thresholds.
"""

from __future__ import annotations

import time
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuropil.config import Sections, Triple
from neuropil.errors import ConfigError, InputError
from neuropil.files import replacing, write_json
from neuropil.geometry import Box
from neuropil.labels import relabel
from neuropil.machine import cores
from neuropil.segmentation.affinities import NEAREST, Affinities, Rule, affinities_from_boundary_map
from neuropil.segmentation.affinity_moves import known_values, with_offsets
from neuropil.segmentation.components import components_of_affinities, components_of_map
from neuropil.segmentation.contacts import region_contacts
from neuropil.segmentation.decoding import Decoder, decode
from neuropil.segmentation.linkage import cut, without_dust
from neuropil.segmentation.seeded import seeded_watershed
from neuropil.segmentation.segment import WatershedSegmentation
from neuropil.segmentation.splitting import FragmentGraph
from neuropil.stages import StageResult
from neuropil.stages.affinities import read_affinities
from neuropil.stages.common import (
    placed,
    read_boundary,
    record_of,
    refuse_outputs,
    section_box,
    sidecar,
    write_volume,
)
from neuropil.stages.fragment_graph import save_graph
from neuropil.stages.methods import Method, MethodConfig
from neuropil.stages.record import made
from neuropil.volume import open_volume

EXAMPLES = [
    "neuropil segment --input boundary.h5:map --output segmentation.h5:ids",
    "neuropil segment --input boundary.h5:map --output ids.zarr --method components --threshold 0.4",
    "neuropil segment --input boundary.h5:map --output ids.tif --merge-threshold 0.5 --fragments fragments.tif",
    "neuropil segment --input affinities.zarr --output ids.zarr --low 0.1 --merge-threshold 0.6",
    "neuropil segment --input affinities.zarr --output ids.zarr --method seeded --seeds nuclei.zarr",
]
POSITIONAL = ()


class Config(MethodConfig):
    """Fields of [segment]."""

    input: str = Field(description="URI of a boundary map, or of affinities")
    output: str = Field(description="URI of the segmentation to write (uint64)")
    fragments: str | None = Field(None, description="URI; also write the fragments, which neuropil view corrects by")
    sections: Sections | None = Field(None, description="only these sections")
    method: Method = Field("watershed", description="decoder; watershed and size are the same")
    seeds: str | None = Field(None, description="URI of labels; method seeded: every voxel goes to one of these")
    per_section: bool = Field(True, description="segment every section by itself")
    threshold: float = Field(
        0.5,
        ge=0,
        le=1,
        description="components: interior is where P(boundary) is below; affinities at or above it join",
    )
    rule: Rule = Field("interior", description="how two voxels of a map make a link")
    low: float = Field(0.3, description="watershed: links at or below this affinity do not count")
    high: float = Field(0.999, description="watershed: links at or above this affinity always join")
    size: float = Field(256, ge=0, description="fragments below this many voxels are merged ...")
    size_threshold: float = Field(0.3, description="... with a neighbour linked at this affinity or above")
    dust: float = Field(
        256, ge=0, description="segments below this many voxels become background; components: none unless given"
    )
    quantile: float = Field(0.75, ge=0, le=1, description="method quantile: of the affinities over a contact")
    strides: Triple = Field((1, 1, 1), description="method mutex: repulsive links are used on this grid only, z,y,x")
    merge_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="fragments are merged at this score or above: the strongest"
        " affinity of their contact, or with other methods its mean or quantile",
    )
    threads: int | None = Field(None, ge=1, description="all cores if not given; the result is the same for any number")
    overwrite: bool = Field(False, description="replace outputs that exist")


def run(config: Config) -> StageResult:
    """Segment a volume in memory."""
    if config.fragments is not None and config.method == "components":
        raise ConfigError("fragments are what method 'watershed' makes; drop fragments, or the method 'components'")
    if config.fragments is not None and config.method in ("mutex", "multicut", "seeded"):
        raise ConfigError(f"method '{config.method}' leaves no merge tree; drop fragments")
    if config.method in ("mean", "quantile") and config.merge_threshold is None:
        raise ConfigError(f"method '{config.method}' needs merge_threshold; neuropil tune finds a good one")
    if (config.method == "seeded") != (config.seeds is not None):
        raise ConfigError("method 'seeded' and seeds go together; give both or neither")
    refuse_outputs([config.output, config.fragments], config.input, overwrite=config.overwrite)
    start = time.monotonic()
    with open_volume(config.input) as volume:
        box = section_box(volume, config.sections)
        place = placed(volume, box)
        source = read_affinities(volume, box) if len(volume.shape) == 4 else read_boundary(volume, box)
    if config.method == "components":
        labels = without_dust(_components(source, config), config.dust)
    elif config.seeds is not None:
        links = known_values(with_offsets(links_of(source, config.per_section, config.rule), NEAREST))
        labels = seeded_watershed(links, _read_seeds(config.seeds, links.shape[1:], box), low=config.low)
    else:
        affinities = links_of(source, config.per_section, config.rule)
        result = decode(affinities, decoder_of(config), threads=config.threads or cores())
        labels = result.segmentation
        if config.fragments is not None:
            _write_fragments(config, config.fragments, result, affinities, place)
    report = write_volume(config.output, labels, kind="labels", place=place, overwrite=config.overwrite)
    record = record_of("segment", config, start) | {"voxels": labels.size}
    record |= made("segment", report, [config.input, config.seeds])
    write_json(sidecar(config.output, "json"), record)
    count = relabel(labels).ids.size - 1  # seeds have any ids
    text = f"{config.output}: {count} segments in {labels.shape}, {100 * np.mean(labels == 0):.1f} % background"
    return StageResult(text, {"output": config.output, "segments": count, "shape": labels.shape, **record})


def _read_seeds(uri: str, shape: tuple[int, ...], box: Box) -> NDArray[Any]:
    """Read the seeds of the part that is segmented, or those of the whole input."""
    with open_volume(uri) as volume:
        if volume.shape == shape:
            return volume.read()
        if len(volume.shape) != 3 or not Box.of_shape(volume.shape).contains(box):
            raise InputError(f"seeds must have the shape of the input; {uri} has {volume.shape}")
        return volume.read(box)


def _components(source: Affinities | NDArray[Any], config: Config) -> NDArray[np.uint64]:
    """Label connected components."""
    if not isinstance(source, Affinities):
        return components_of_map(source, config.threshold, per_section=config.per_section)
    links = known_values(with_offsets(source, NEAREST))
    return components_of_affinities(links, config.threshold, threads=config.threads or cores())


def links_of(source: Affinities | NDArray[Any], per_section: bool, rule: Rule = "interior") -> Affinities:
    """Return affinities as they are, or those of a boundary map."""
    if isinstance(source, Affinities):
        return source
    return Affinities(affinities_from_boundary_map(source, per_section=per_section, rule=rule))


def decoder_of(config: Config) -> Decoder:
    """Return the decoder that a configuration describes."""
    return Decoder(**{field.name: getattr(config, field.name) for field in fields(Decoder)})


def _write_fragments(
    config: Config, uri: str, result: WatershedSegmentation, affinities: Affinities, place: dict[str, Any]
) -> None:
    """Write the fragments, and beside them their merge tree and the graph that corrections need."""
    write_volume(uri, result.fragments, kind="labels", place=place, overwrite=config.overwrite)
    tree = result.tree
    with replacing(sidecar(uri, "tree.npz")) as part, part.open("wb") as file:
        np.savez(file, u=tree.u, v=tree.v, affinity=tree.affinity)
    nearest = known_values(with_offsets(affinities, NEAREST))
    contacts = region_contacts(result.fragments, nearest, threads=config.threads or cores())
    threshold = config.merge_threshold
    segments = np.arange(tree.size + 1, dtype=np.uint64) if threshold is None else cut(tree, threshold)
    save_graph(uri, FragmentGraph(contacts.u.astype(np.uint64), contacts.v.astype(np.uint64), contacts.mean, segments))
