"""OME-NGFF and the attributes of other zarr and n5 writers, as plain dictionaries in and beliefs out.

OME-NGFF keeps the place of each resolution level as a `scale`, then a `translation`, one number per axis, with the
unit as a word (`nanometer`, not `nm`). Version 0.4 lies in the attributes of a zarr v2 group, 0.5 under `ome` of a
zarr v3 group. An array outside OME carries funlib's `voxel_size` and `offset`, nm, z y x. n5 stores x, y, z: its
`axes`, `resolution` and `pixelResolution` are in that order, while `transform` names its axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuropil.volume.metadata import Metadata, nanometres, to_json

Beliefs = dict[str, tuple[Any, str]]


@dataclass(frozen=True)
class Level:
    """One array of an OME multiscale group: path inside the group, axis names as stored, and what it says."""

    path: str
    axes: tuple[str, ...]
    beliefs: Beliefs


def multiscales(metadata: Metadata, version: str) -> dict[str, Any]:
    """Return the attributes of an OME group with the one level "0"."""
    known = metadata.voxel_size is not None
    axes: list[dict[str, str]] = []
    for axis in metadata.axes:
        entry = {"name": axis, "type": "channel" if axis == "c" else "space"}
        axes.append(entry | ({"unit": "nanometer"} if known and axis != "c" else {}))
    extra = [1.0] * (len(axes) - 3)
    steps = [{"type": "scale", "scale": extra + list(metadata.voxel_size or (1.0, 1.0, 1.0))}]
    if known:
        steps.append({"type": "translation", "translation": [0.0] * len(extra) + list(metadata.offset)})
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    image: dict[str, Any] = {"name": "volume", "axes": axes, "datasets": datasets}
    own = {"neuropil": to_json(metadata, with_place=not known)}
    if version == "0.4":
        return {"multiscales": [{"version": version, **image}], **own}
    return {"ome": {"version": version, "multiscales": [image]}, **own}


def levels(attributes: Mapping[str, Any]) -> list[Level]:
    """Return the levels of an OME group, finest first; empty where the attributes hold no multiscales."""
    ome = attributes.get("ome", attributes)
    images = ome.get("multiscales") if isinstance(ome, Mapping) else None
    if not images or not images[0].get("datasets"):
        return []
    image = images[0]
    named = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in image.get("axes", ())]
    axes = tuple("t" if axis.get("type") == "time" else str(axis["name"]).lower() for axis in named)
    units = [axis.get("unit") for axis in named]
    version = ome.get("version") or image.get("version") or "0.4"
    outer = image.get("coordinateTransformations", ())
    return [
        Level(level["path"], axes, _place([*level.get("coordinateTransformations", ()), *outer], axes, units, version))
        for level in image["datasets"]
    ]


def _place(
    steps: Sequence[Mapping[str, Any]], axes: tuple[str, ...], units: Sequence[str | None], version: str
) -> Beliefs:
    """Return voxel size and offset after all steps, in order."""
    scale, shift = [1.0] * len(axes), [0.0] * len(axes)
    for step in steps:
        if step.get("type") == "scale" and "scale" in step:
            scale = [a * float(b) for a, b in zip(scale, step["scale"])]
            shift = [a * float(b) for a, b in zip(shift, step["scale"])]
        elif step.get("type") == "translation" and "translation" in step:
            shift = [a + float(b) for a, b in zip(shift, step["translation"])]
    found: Beliefs = {"axes": (axes, f"OME-NGFF {version} axes")}
    if not set("zyx") <= set(axes) or not steps:
        return found
    places = [axes.index(axis) for axis in "zyx"]
    size = tuple(nanometres(scale[i], units[i]) for i in places)
    if all(size):
        found["voxel_size"] = (size, f"OME-NGFF {version} scale, unit {units[places[0]]}")
        found["offset"] = (tuple(nanometres(shift[i], units[i]) for i in places), f"OME-NGFF {version} translation")
    else:
        numbers = ", ".join(f"{scale[i]:g}" for i in places)
        found["voxel_size"] = (None, f"OME-NGFF {version} has scale {numbers} but no unit of length")
    return found


def array_attributes(metadata: Metadata) -> dict[str, Any]:
    """Return the attributes of a zarr array outside OME: funlib's names, and ours."""
    attributes: dict[str, Any] = {"offset": list(metadata.offset), "axis_names": list(metadata.axes)}
    if metadata.voxel_size is not None:
        attributes |= {"voxel_size": list(metadata.voxel_size), "units": ["nm"] * 3}
    return attributes | {"neuropil": to_json(metadata)}


def array_beliefs(attributes: Mapping[str, Any]) -> Beliefs:
    """Return voxel size and offset from funlib's attributes: nm, z y x, without the channel."""
    found: Beliefs = {}
    for name, field in (("voxel_size", "voxel_size"), ("resolution", "voxel_size"), ("offset", "offset")):
        values: Any = attributes.get(name)
        if field not in found and _numbers(values):
            factor = _unit_factor(attributes.get("units"))
            found[field] = (tuple(float(v) * factor for v in values[-3:]), f"array attribute '{name}' (z, y, x)")
    return found


def n5_attributes(metadata: Metadata) -> dict[str, Any]:
    """Return n5 attributes beside the array's own: x, y, z where n5 tools expect it, else with the axes named."""
    axes = list(reversed(metadata.axes))
    attributes: dict[str, Any] = {"axes": axes, "neuropil": to_json(metadata, with_place=metadata.voxel_size is None)}
    if metadata.voxel_size is None:
        return attributes
    size = list(metadata.voxel_size)
    extra = [""] * (len(axes) - 3)
    return attributes | {
        "units": ["nm"] * 3 + extra,
        "resolution": size[::-1] + [1.0] * len(extra),
        "pixelResolution": {"dimensions": size[::-1], "unit": "nm"},
        "transform": {
            "axes": ["z", "y", "x"], "ordering": "C", "scale": size, "translate": list(metadata.offset),
            "units": ["nm"] * 3,
        },
    }  # fmt: skip


def n5_beliefs(attributes: Mapping[str, Any]) -> Beliefs:
    """Return voxel size and offset from n5 attributes, those that name their axes first."""
    transform: Any = attributes.get("transform")
    pixel: Any = attributes.get("pixelResolution")
    values: Any = attributes.get("resolution")
    found: Beliefs = {}
    if isinstance(transform, Mapping) and set("zyx") <= set(transform.get("axes", ())):
        places = [list(transform["axes"]).index(axis) for axis in "zyx"]
        units = transform.get("units") or ["nm"] * len(transform["axes"])
        for name, field in (("scale", "voxel_size"), ("translate", "offset")):
            if _numbers(transform.get(name)):
                nm = [nanometres(transform[name][i], units[i]) for i in places]
                if None not in nm:
                    found[field] = (tuple(nm), f"n5 attribute 'transform.{name}', axes named")
    if "voxel_size" not in found and isinstance(pixel, Mapping) and _numbers(pixel.get("dimensions")):
        size = [nanometres(value, pixel.get("unit", "um")) for value in pixel["dimensions"][:3]]
        if None not in size:
            found["voxel_size"] = (tuple(size[::-1]), "n5 attribute 'pixelResolution' (stored x, y, z)")
    if "voxel_size" not in found and _numbers(values):
        note = "n5 attribute 'resolution', taken as x, y, z as n5 has it; some Python writers store z, y, x"
        found["voxel_size"] = (tuple(float(v) for v in values[:3][::-1]), note)
    return found


def _numbers(values: Any) -> bool:
    return isinstance(values, Sequence) and len(values) >= 3 and all(isinstance(v, int | float) for v in values)


def _unit_factor(units: Any) -> float:
    """Return nm per unit of funlib's `units`; nm where none are given."""
    if isinstance(units, Sequence) and units and isinstance(units[-1], str):
        return nanometres(1.0, units[-1]) or 1.0
    return 1.0
