"""What a TIFF stack says about itself, and whether all of it is there.

TIFF has no axes and no voxel size of its own. ImageJ, OME and tifffile each put a text into the first page that has;
this file turns those texts into beliefs, and writes ours. A truncated stack is found by walking the chain of page
tables: readers that stop at the first broken link would give a shorter stack and no error.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import numpy as np

from neuropil.errors import InputError, VolumeError
from neuropil.volume.metadata import Metadata, from_json, nanometres, to_json

OME_DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")
JSON_DTYPES = ("uint64", "int64", "float16")


def description(metadata: Metadata, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[bool, dict[str, Any]]:
    """Return whether OME can hold the dtype, and the `metadata` argument of tifffile that records what we know.

    OME knows no 64-bit integers; those stacks carry the same facts as JSON in the first page's description.
    """
    own = {"shape": list(shape), **to_json(metadata, with_place=True)}
    axes = "CZYX"[-len(shape) :]
    if dtype.name in JSON_DTYPES:
        return False, {"axes": axes, "neuropil": own}
    if dtype.name not in OME_DTYPES:
        raise InputError(f"TIFF cannot hold {dtype}; use one of {', '.join(OME_DTYPES + JSON_DTYPES)}")
    text: dict[str, Any] = {"axes": axes, "Description": json.dumps({"neuropil": own})}
    if metadata.voxel_size is not None:
        for axis, length in zip("ZYX", metadata.voxel_size):
            text |= {f"PhysicalSize{axis}": length, f"PhysicalSize{axis}Unit": "nm"}
    return True, text


def own_record(tif: Any) -> Mapping[str, Any]:
    """Return our JSON object of an open tifffile.TiffFile, empty where a stack is not ours."""
    text = tif.pages[0].description
    if tif.is_ome:
        text = next((node.text or "" for node in _ome(tif).iter() if node.tag.endswith("}Description")), "")
    try:
        record = json.loads(text).get("neuropil", {})
    except (ValueError, AttributeError):
        return {}
    if not isinstance(record, dict):
        return {}
    if math.prod(record.get("shape", ())) != math.prod(tif.series[0].shape):
        # Another program has cropped or extended the stack and kept our text.
        record.pop("shape", None)
    return record


def beliefs(tif: Any) -> list[dict[str, tuple[Any, str]]]:
    """Return beliefs of an open tifffile.TiffFile, the surest first."""
    found = [from_json(own_record(tif), "TIFF description 'neuropil'")]
    if tif.is_ome:
        found.insert(0, _ome_size(tif))
    elif tif.is_imagej:
        found.append(_imagej_size(tif))
    return found


def _ome(tif: Any) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(tif.ome_metadata)
    except (ElementTree.ParseError, TypeError):
        return ElementTree.Element("OME")


def _ome_size(tif: Any) -> dict[str, tuple[Any, str]]:
    for pixels in _ome(tif).iter():
        if pixels.tag.endswith("}Pixels") and all(f"PhysicalSize{axis}" in pixels.attrib for axis in "ZYX"):
            names = [f"PhysicalSize{axis}" for axis in "ZYX"]
            size = tuple(nanometres(float(pixels.get(name, "nan")), pixels.get(f"{name}Unit", "µm")) for name in names)
            if all(size):
                return {"voxel_size": (size, "OME metadata 'PhysicalSize'")}
    return {}


def _imagej_size(tif: Any) -> dict[str, tuple[Any, str]]:
    record = tif.imagej_metadata or {}
    unit, spacing, tags = str(record.get("unit", "")), record.get("spacing"), tif.pages[0].tags
    found = [nanometres(spacing, unit) if spacing else None]
    for name in ("YResolution", "XResolution"):
        top, bottom = tags[name].value if name in tags else (0, 1)
        found.append(nanometres(bottom / top, unit) if top else None)
    if all(found):
        return {"voxel_size": (tuple(found), f"ImageJ metadata 'spacing', resolution tags and unit '{unit}'")}
    if any(found):
        parts = ", ".join(f"{axis} {'unknown' if v is None else f'{v:g} nm'}" for axis, v in zip("zyx", found))
        return {"voxel_size": (None, f"ImageJ metadata is not complete: {parts}")}
    return {}


def check_chain(path: str) -> None:
    """Raise VolumeError unless every page table of a TIFF file, and the data of its last page, lie inside the file."""
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        head = stream.read(16)
        if len(head) < 8 or head[:2] not in (b"II", b"MM") or head[2:4] not in (b"*\0", b"\0*", b"+\0", b"\0+"):
            raise VolumeError(f"{path} is not a TIFF file" if head else f"{path} is empty")
        order = "<" if head[:2] == b"II" else ">"
        big = b"+" in head[2:4]
        count_code, entry, link_code = (order + "Q", 20, order + "Q") if big else (order + "H", 12, order + "I")
        (offset,) = struct.unpack_from(link_code, head, 8 if big else 4)
        page, seen = 0, set()
        while offset:
            stream.seek(offset)
            raw = stream.read(struct.calcsize(count_code))
            end = offset + len(raw)
            if len(raw) == struct.calcsize(count_code):
                end += struct.unpack(count_code, raw)[0] * entry
            stream.seek(end)
            link = stream.read(struct.calcsize(link_code))
            if offset in seen or len(link) < struct.calcsize(link_code) or end > size:
                raise VolumeError(f"{path} is truncated: page {page} lies beyond its end ({size} bytes)")
            seen.add(offset)
            (offset,) = struct.unpack(link_code, link)
            page += 1
        if page == 0:
            raise VolumeError(f"{path} is truncated: it has no pages")
