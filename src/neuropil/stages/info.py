"""neuropil info URI: what neuropil believes about a volume, and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import Field

from neuropil.config import StageConfig
from neuropil.errors import InputError
from neuropil.stages import StageResult
from neuropil.volume import Volume, list_arrays, open_volume
from neuropil.volume.description import Description, describe

EXAMPLES = [
    "neuropil info stack.h5:raw",
    "neuropil info stack.h5                       # lists the datasets",
    "neuropil info sections/                      # a folder of PNG or TIFF sections",
    "neuropil info out.zarr --json out.json",
]
POSITIONAL = ("uri",)

_CREMI_UNLABELLED = 2**64 - 1


class Config(StageConfig):
    """What to look at."""

    uri: str = Field(description="volume: file.h5:dataset, file.tif, folder of sections, x.zarr[/array], data://...")
    max_mb: int = Field(256, gt=0, description="MB of sections to read; larger volumes are judged by a sample")


def run(config: Config) -> StageResult:
    """Describe one volume, or list the arrays of a container."""
    try:
        volume = open_volume(config.uri)
    except InputError:
        # Several arrays and none named: here, listing them is the answer.
        entries = list_arrays(config.uri)
        if len(entries) < 2:
            raise
        lines = [f"{config.uri} holds {len(entries)} arrays; name one to know more:", *(f"  {e}" for e in entries)]
        return StageResult("\n".join(lines), {"uri": config.uri, "arrays": [asdict(e) for e in entries]})
    with volume:
        seen = describe(volume, max_bytes=config.max_mb << 20)
        warnings = _warnings(volume, seen)
        return StageResult(_text(volume, seen, warnings), _data(volume, seen, warnings))


def _data(volume: Volume, seen: Description, warnings: list[str]) -> dict[str, Any]:
    facts = volume.metadata
    return {
        "uri": volume.uri,
        "axes": list(facts.axes),
        "shape": list(volume.shape),
        "dtype": volume.dtype.name,
        "chunk_shape": list(volume.chunk_shape),
        "voxel_size_nm": facts.voxel_size,
        "offset_nm": facts.offset,
        "kind": facts.kind or seen.kind,
        "kind_is_judged": facts.kind is None,
        "scale": facts.scale,
        "offsets": facts.offsets,
        "one_means": facts.one_means,
        "mask": facts.mask,
        "values": asdict(seen),
        "sources": facts.sources,
        "warnings": warnings,
    }


def _text(volume: Volume, seen: Description, warnings: list[str]) -> str:
    facts, said = volume.metadata, volume.metadata.sources
    rows = [
        ("shape", f"{' × '.join(map(str, volume.shape))} ({', '.join(facts.axes)})", said["axes"]),
        ("dtype", volume.dtype.name, f"{_size(volume)} in all"),
        ("voxel size", _nm(facts.voxel_size), said.get("voxel_size", "not recorded")),
        ("offset", _nm(facts.offset), said.get("offset", "not recorded, taken as 0")),
        ("kind", facts.kind or seen.kind, said.get("kind") or f"judged, not recorded: {seen.reason}"),
    ]
    if facts.scale is not None:
        rows.append(("scale", f"{facts.scale:.6g}", f"real value = stored × scale; {said.get('scale', '')}"))
    if facts.offsets is not None:
        rows.append(("offsets", " ".join(map(str, facts.offsets)), said.get("offsets", "")))
    if facts.one_means is not None:
        rows.append(
            ("1 means", f"{facts.one_means} object" + "s" * (facts.one_means == "different"), said["one_means"])
        )
    if facts.mask is not None:
        rows.append(("mask", facts.mask, f"volume beside it, 0 where a link is not known; {said['mask']}"))
    rows += _value_rows(facts.kind or seen.kind, seen)
    sampled = seen.sections < seen.of_sections or seen.cropped
    middle = "the middle of " if seen.cropped else ""
    looked = f"{middle}{seen.sections} of {seen.of_sections} sections" if sampled else "all sections"
    rows.append(("looked at", looked, "a sample; --max-mb reads more" if sampled else "whole volume"))
    wide = max(len(value) for _, value, _ in rows)
    lines = [volume.uri, *(f"  {name:<10} {value:<{min(wide, 40)}}  {why}".rstrip() for name, value, why in rows)]
    return "\n".join(lines + [f"  warning: {warning}" for warning in warnings])


def _value_rows(kind: str, seen: Description) -> list[tuple[str, str, str]]:
    if kind in ("labels", "mask") and seen.ids is not None:
        return [("ids", f"{seen.ids:,}", f"different values other than 0, from {seen.smallest} to {seen.largest}")]
    c = seen.contrast
    spread = " / ".join(f"{v:.4g}" for v in (c.minimum, c.percentile_1, c.median, c.percentile_99, c.maximum))
    rows = [("contrast", spread, "minimum / 1 % / median / 99 % / maximum")]
    return [*rows, ("drift", f"{c.drift:.2f}", "range of section means, in standard deviations")]


def _warnings(volume: Volume, seen: Description) -> list[str]:
    facts, kind, warnings = volume.metadata, volume.metadata.kind or seen.kind, []
    if seen.nan_count:
        warnings.append(f"{seen.nan_count:,} values are NaN or infinite")
    if facts.voxel_size is None:
        warnings.append("the voxel size is not known; `neuropil convert --voxel-size Z,Y,X` records it (nm)")
    if kind == "labels":
        if seen.ids is None:
            warnings.append(
                "labels are stored as real numbers; ids above 2**24 (float32) or 2**53 (float64) are not exact"
            )
        elif seen.ids <= 3:
            warnings.append(f"only {seen.ids} id(s): a mask or classes rather than instances?")
        if seen.largest == _CREMI_UNLABELLED:
            warnings.append("id 2**64-1 is there; CREMI files use it for unlabelled voxels, mask it before use")
        if seen.smallest < 0:
            warnings.append(f"ids go down to {seen.smallest}; negative ids often mean unlabelled, mask them before use")
    if kind in ("image", "boundary") and seen.smallest == seen.largest:
        warnings.append(f"all values are {seen.smallest}")
    if facts.kind == "affinities" and facts.offsets is None:
        warnings.append(
            "affinities without recorded offsets; which voxels each channel links is not known: "
            "`neuropil convert --affinities-from TOOL` or `--offsets` records it"
        )
    return warnings


def _nm(values: tuple[float, ...] | None) -> str:
    return "unknown" if values is None else f"{' × '.join(f'{value:g}' for value in values)} nm"


def _size(volume: Volume) -> str:
    size, unit = float(volume.dtype.itemsize), "B"
    for extent in volume.shape:
        size *= extent
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if size >= 1000:
            size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"
