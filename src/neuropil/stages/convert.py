"""neuropil convert INPUT OUTPUT: copy a volume into another format, or record what its file does not say."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from neuropil.config import Sections, StageConfig, TripleNm
from neuropil.stages import StageResult
from neuropil.volume import Metadata, Volume, open_volume
from neuropil.volume.copying import copy_volume
from neuropil.volume.metadata import Kind

EXAMPLES = [
    "neuropil convert sections/ stack.zarr --voxel-size 40,4,4 --kind image",
    "neuropil convert stack.h5:raw stack.ome.tif --sections 0:100 --verify",
    "neuropil convert segmentation.zarr precomputed://segmentation --kind labels",
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
    dtype: Dtype | None = Field(None, description="stored type; refused where a value would change")
    sections: Sections | None = Field(None, description="only these sections, START:STOP")
    overwrite: bool = Field(False, description="replace an output that is there")
    verify: bool = Field(False, description="read the output back and compare checksums")


def run(config: Config) -> StageResult:
    """Copy block by block; the output appears under its name when it is complete."""
    with open_volume(config.input) as source:
        metadata = _metadata(source, config)
        report = copy_volume(
            source,
            config.output,
            metadata=metadata,
            dtype=config.dtype,
            sections=config.sections,
            overwrite=config.overwrite,
            verify=config.verify,
        )
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
            "verified": report.verified,
        },
    )


def _metadata(source: Volume, config: Config) -> Metadata:
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
    metadata = replace(source.metadata, **given)  # type: ignore[arg-type]  # one field each, checked by Config
    if config.sections is None or config.offset is not None or metadata.voxel_size is None:
        return metadata
    z, y, x = metadata.offset
    return replace(metadata, offset=(z + config.sections[0] * metadata.voxel_size[0], y, x))
