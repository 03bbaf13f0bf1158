"""neuropil convert INPUT OUTPUT: copy a volume into another format, or record what its file does not say.

Affinities of other tools are taken over with --affinities-from, which knows the order of their axes and channels, which
voxel stores a link, and what 1 means. "gunpowder" serves lsd and bootstrapper, "affogato" elf and torch-em, "banis"
NISB, "ptc" PyTorch Connectomics in either affinity mode. --affinities-to writes ours as such a tool takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from neuropil.config import Offsets, Sections, StageConfig, TripleNm, dump
from neuropil.errors import InputError
from neuropil.files import write_json
from neuropil.geometry import Box
from neuropil.segmentation.affinity_conventions import CONVENTIONS, Tool
from neuropil.stages import StageResult
from neuropil.stages.affinities import beside, mask_name
from neuropil.stages.common import refuse_outputs, sidecar, versions
from neuropil.stages.convert_affinities import exported, imported
from neuropil.stages.record import made
from neuropil.volume import Metadata, Volume, open_volume
from neuropil.volume.copying import copy_volume
from neuropil.volume.metadata import Kind
from neuropil.volume.resampled import ResampledVolume
from neuropil.volume.uri import parse_uri

EXAMPLES = [
    "neuropil convert sections/ stack.zarr --voxel-size 40,4,4 --kind image",
    "neuropil convert stack.h5:raw stack.ome.tif --sections 0:100 --verify",
    "neuropil convert ac4.h5:raw half.h5:raw --resample 30,12,12",
    "neuropil convert segmentation.zarr precomputed://segmentation --kind labels",
    "neuropil convert theirs.h5:affs ours.zarr --affinities-from deepem",
    "neuropil convert theirs.h5:affs ours.zarr --affinities-from affogato --offsets=-1,0,0/0,-1,0/0,0,-1/0,-9,0",
    "neuropil convert affinities.zarr for_waterz.h5:affs --affinities-to waterz",
]
POSITIONAL = ("input", "output")

Dtype = Literal[
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"
]


class Config(StageConfig):
    """What to copy, where to, and what to record; what is not given is taken over from the input."""

    input: str = Field(description="volume to read")
    output: str = Field(description="volume to write; the suffix or scheme settles the format")
    voxel_size: TripleNm | None = Field(None, description="z,y,x in nm, replaces what the input says")
    offset: TripleNm | None = Field(None, description="z,y,x in nm, replaces what the input says")
    kind: Kind | None = Field(None, description="image, labels, boundary, affinities or mask")
    scale: float | None = Field(None, gt=0, description="real value = stored value × scale; values are not changed")
    affinities_from: Tool | None = Field(None, description="the input holds affinities as this tool stores them")
    affinities_to: Tool | None = Field(None, description="write affinities as this tool takes them")
    offsets: Offsets | None = Field(
        None, description="z,y,x/z,y,x/...: voxels that channel c of affinities links, as the tool lists them"
    )
    dtype: Dtype | None = Field(None, description="stored type; refused where a value would change")
    sections: Sections | None = Field(None, description="only these sections, START:STOP")
    resample: TripleNm | None = Field(
        None, description="z,y,x in nm: another voxel size in y and x; means of images, nearest voxels of labels"
    )
    overwrite: bool = Field(False, description="replace an output that is there")
    verify: bool = Field(False, description="read the output back and compare checksums")


def run(config: Config) -> StageResult:
    """Copy block by block; the output appears under its name when it is complete."""
    with open_volume(config.input) as volume:
        source: Volume = volume
        if config.affinities_from or config.affinities_to or config.offsets is not None:
            source = _affinities(volume, config)
        metadata = _metadata(source.metadata, config)
        if config.affinities_from and source.dtype == np.uint8 and metadata.scale is None:
            metadata = replace(metadata, scale=_scale_of_bytes(source))
        options: dict[str, Any] = {
            "sections": config.sections,
            "overwrite": config.overwrite,
            "verify": config.verify,
        }
        if config.resample is not None:
            source, metadata = _resampled(source, metadata, config.resample)
        if metadata.mask is not None:
            metadata = _copy_mask(volume, metadata, config, options)
        report = copy_volume(source, config.output, metadata=metadata, dtype=config.dtype, **options)
    record = {"config": dump(config), "versions": versions(), **made("convert", report, [config.input])}
    if not parse_uri(config.output).remote:
        write_json(sidecar(config.output, "json"), record)
    checked = ", read back and equal" if report.verified else ""
    size = "unknown" if metadata.voxel_size is None else " × ".join(f"{v:g}" for v in metadata.voxel_size) + " nm"
    shape = " × ".join(map(str, report.shape))
    summary = f"wrote {config.output}: {shape} {report.dtype}, voxel size {size}{checked}"
    return StageResult(
        summary,
        {
            "output": config.output,
            "shape": list(report.shape),
            "dtype": report.dtype,
            "voxel_size_nm": metadata.voxel_size,
            "offset_nm": metadata.offset,
            "kind": metadata.kind,
            "offsets": metadata.offsets,
            "verified": report.verified,
        },
    )


def _metadata(said: Metadata, config: Config) -> Metadata:
    """Return what the output shall say: the input's beliefs, the given fields over them, moved to the first section."""
    given = {
        name: value
        for name, value in (
            ("voxel_size", config.voxel_size),
            ("offset", config.offset),
            ("kind", config.kind),
            ("scale", config.scale),
        )
        if value is not None
    }
    metadata = replace(said, **given)  # type: ignore[arg-type]  # one field each, checked by Config
    if config.sections is None or config.offset is not None or metadata.voxel_size is None:
        return metadata
    z, y, x = metadata.offset
    return replace(metadata, offset=(z + config.sections[0] * metadata.voxel_size[0], y, x))


def _resampled(volume: Volume, metadata: Metadata, wanted: Sequence[float]) -> tuple[Volume, Metadata]:
    """Return the volume at another pixel size, and what the output shall say of it."""
    size, kind = metadata.voxel_size, metadata.kind
    if kind is None or kind == "affinities":
        rule = "affinities link voxels of their own grid" if kind else "say with --kind whether it is image or labels"
        raise InputError(f"resample: {rule}; {volume.uri} is {kind or 'unnamed'}")
    if size is None:
        raise InputError(f"resample: {volume.uri} does not say its voxel size; give it with --voxel-size Z,Y,X")
    if abs(wanted[0] - size[0]) > 1e-6 * size[0]:
        raise InputError(f"resample must leave z as it is, {size[0]:g} nm; got {wanted[0]:g} nm")
    nearest = kind in ("labels", "mask")
    changed = ResampledVolume(volume, size, wanted, dtype=volume.dtype, nearest=nearest)
    return changed, replace(metadata, voxel_size=changed.metadata.voxel_size)


def _affinities(volume: Volume, config: Config) -> Volume:
    """Return the affinities of another tool as ours, or ours as another tool's."""
    if config.kind not in (None, "affinities"):
        raise InputError(f"kind must be affinities where offsets or tools of affinities are given; got {config.kind}")
    if config.affinities_to is not None and config.affinities_from is not None:
        raise InputError("affinities_from and affinities_to are two steps; convert into ours first, then into theirs")
    refuse_outputs([config.output], config.input, overwrite=config.overwrite)
    if config.affinities_to is not None:
        if CONVENTIONS[config.affinities_to].axes == "xyz":
            _check_turned(config)
        return exported(volume, config.affinities_to, config.offsets)
    return imported(volume, config.affinities_from or "gunpowder", config.offsets)  # offsets alone mean p, p + offset


def _scale_of_bytes(volume: Volume) -> float | None:
    """Return what every tool means by affinities in bytes, 1/255; nothing where 0 and 1 alone leave it open."""
    height, width = volume.spatial_shape[1:]
    sections = (volume.read(Box((z, 0, 0), (z + 1, height, width))) for z in range(volume.spatial_shape[0]))
    return 1 / 255 if any(section.max() > 1 for section in sections) else None


def _check_turned(config: Config) -> None:
    """Refuse what does not go with an array that is not stored with axes c, z, y, x."""
    if parse_uri(config.output).format != "hdf5":
        raise InputError(
            f"{config.affinities_to} has axes x, y, z, which only HDF5 takes as they are; got {config.output}"
        )
    if config.sections is not None:
        raise InputError(
            f"sections cannot be cut from axes x, y, z, as {config.affinities_to} has them; cut them first"
        )


def _copy_mask(volume: Volume, metadata: Metadata, config: Config, options: dict[str, Any]) -> Metadata:
    """Copy the mask of affinities beside the output; return metadata that name it there."""
    name = mask_name(config.output)
    place = beside(config.output, name)
    refuse_outputs([config.output, place], config.input, overwrite=config.overwrite)
    with open_volume(beside(volume.uri, metadata.mask or "")) as mask:
        copy_volume(mask, place, metadata=replace(_metadata(mask.metadata, config), kind="mask", scale=None), **options)
    return replace(metadata, mask=name)
