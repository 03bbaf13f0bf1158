"""neuropil convert INPUT OUTPUT: copy a volume into another format, or record what its file does not say.

Affinities of other tools are taken over with --affinities-from, which knows the order of their axes and channels, which
voxel stores a link, and what 1 means. "gunpowder" serves lsd and bootstrapper, "affogato" elf and torch-em, "banis"
NISB, "ptc" PyTorch Connectomics in either affinity mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from numpy.typing import NDArray
from pydantic import Field

from neuropil.config import Offsets, Sections, StageConfig, TripleNm
from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.segmentation.affinity_conventions import CONVENTIONS, Tool, tool_offsets
from neuropil.stages import StageResult
from neuropil.stages.affinities import beside, mask_name
from neuropil.stages.common import ComputedVolume, refuse_outputs
from neuropil.volume import Metadata, Volume, open_volume
from neuropil.volume.copying import copy_volume
from neuropil.volume.metadata import Kind
from neuropil.volume.resampled import ResampledVolume

EXAMPLES = [
    "neuropil convert sections/ stack.zarr --voxel-size 40,4,4 --kind image",
    "neuropil convert stack.h5:raw stack.ome.tif --sections 0:100 --verify",
    "neuropil convert ac4.h5:raw half.h5:raw --resample 30,12,12",
    "neuropil convert segmentation.zarr precomputed://segmentation --kind labels",
    "neuropil convert theirs.h5:affs ours.zarr --affinities-from deepem",
    "neuropil convert theirs.h5:affs ours.zarr --affinities-from affogato --offsets=-1,0,0/0,-1,0/0,0,-1/0,-9,0",
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
        source, metadata = volume, _metadata(volume.metadata, config)
        if config.affinities_from is not None or config.offsets is not None:
            source, metadata = _affinities(volume, config)
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


def _affinities(volume: Volume, config: Config) -> tuple[Volume, Metadata]:
    """Return affinities with axes z, y, x and what the output shall say of them; no value is changed."""
    said = volume.metadata
    tool: Tool = config.affinities_from or "gunpowder"  # offsets alone mean p, p + offset, as listed
    rule = CONVENTIONS[tool]
    if config.kind not in (None, "affinities") or said.kind not in (None, "affinities") or len(volume.shape) != 4:
        kind = config.kind or said.kind or "unnamed"
        raise InputError(
            f"{config.input} must hold affinities (c, z, y, x) to be given offsets; it is {kind} {volume.shape}"
        )
    if said.offsets is not None:
        raise InputError(f"{config.input} says its offsets already, {said.offsets}; drop affinities_from and offsets")
    # Where a file names its axes, its reader has turned them already.
    turned = rule.axes == "xyz" and said.sources.get("axes", "").startswith("guess")
    source = _turned(volume, config) if turned else volume
    links = tool_offsets(tool, volume.shape[0], config.offsets)
    metadata = replace(_metadata(source.metadata, config), kind="affinities", offsets=links, one_means=rule.one_means)
    return source, metadata


def _turned(volume: Volume, config: Config) -> Volume:
    """Return a volume stored as (c, x, y, z) with axes c, z, y, x."""
    refuse_outputs([config.output], config.input, overwrite=config.overwrite)
    said = volume.metadata
    size = None if said.voxel_size is None else said.voxel_size[::-1]
    shape = (volume.shape[0], *volume.spatial_shape[::-1])

    def read(box: Box) -> NDArray[Any]:
        return volume.read(Box(box.start[::-1], box.stop[::-1])).transpose(0, 3, 2, 1)

    turned = ComputedVolume(shape, volume.dtype, read)
    turned.metadata = replace(said, voxel_size=size, offset=said.offset[::-1])
    return turned


def _copy_mask(volume: Volume, metadata: Metadata, config: Config, options: dict[str, Any]) -> Metadata:
    """Copy the mask of affinities beside the output; return metadata that name it there."""
    name = mask_name(config.output)
    place = beside(config.output, name)
    refuse_outputs([config.output, place], config.input, overwrite=config.overwrite)
    with open_volume(beside(volume.uri, metadata.mask or "")) as mask:
        copy_volume(mask, place, metadata=replace(_metadata(mask.metadata, config), kind="mask", scale=None), **options)
    return replace(metadata, mask=name)
