"""Files that other tools expect beside labels: meshes and properties of segments for Neuroglancer, OME-Zarr's label
groups, webKnossos' agglomerates. Plain JSON and arrays in, files out; what they mean is settled by the caller.

Sources: the specification of precomputed volumes (legacy single-resolution meshes, segment properties), OME-NGFF 0.5,
and webKnossos' agglomerate attachment, version 4.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.files import write_json
from neuropil.volume.base import storage_errors

MESHES, PROPERTIES = "mesh", "segment_properties"


def add_to_precomputed(folder: Path, *, meshes: bool) -> None:
    """Name the folders of meshes and properties in the `info` of a precomputed volume."""
    path = folder / "info"
    info = json.loads(path.read_text())
    if meshes:
        info["mesh"] = MESHES
        (folder / MESHES).mkdir(exist_ok=True)
        write_json(folder / MESHES / "info", {"@type": "neuroglancer_legacy_mesh"})
    write_json(path, info | {"segment_properties": PROPERTIES})


def write_mesh(folder: Path, one: int, vertices_nm: NDArray[np.float32], triangles: NDArray[np.uint32]) -> None:
    """Write the surface of a segment: vertices x, y, z, little-endian."""
    name = f"{one}:0:0"
    with (folder / MESHES / name).open("wb") as file:
        file.write(np.uint32(len(vertices_nm)).astype("<u4").tobytes())
        file.write(np.ascontiguousarray(vertices_nm, "<f4").tobytes())
        file.write(np.ascontiguousarray(triangles, "<u4").tobytes())
    write_json(folder / MESHES / f"{one}:0", {"fragments": [name]})


def write_properties(folder: Path, ids: NDArray[np.uint64], numbers: Mapping[str, tuple[NDArray[Any], str]]) -> None:
    """Write numbers of segments, each with a description; whole ones as uint32, others as float32."""
    properties = []
    for name, (values, description) in numbers.items():
        whole = values.dtype.kind in "ui" and int(values.max(initial=0)) < 1 << 32
        kept = values.astype(np.uint32 if whole else np.float32)
        about = {"id": name, "type": "number", "description": description, "data_type": kept.dtype.name}
        properties.append(about | {"values": kept.tolist()})
    inline = {"ids": [str(one) for one in ids.tolist()], "properties": properties}
    (folder / PROPERTIES).mkdir(exist_ok=True)
    write_json(folder / PROPERTIES / "info", {"@type": "neuroglancer_segment_properties", "inline": inline})


def label_names(image: Path) -> list[str]:
    """Return the names of the labels that an OME-Zarr image has.

    Raises
    ------
    InputError : it is no OME-Zarr 0.5 image
    """
    try:
        known = json.loads((image / "zarr.json").read_text())["attributes"]["ome"]["multiscales"]
    except (OSError, ValueError, KeyError):
        known = []
    if not known:
        raise InputError(
            f"output {image} must be an OME-Zarr 0.5 image, to which labels are added; make it of your image with"
            f" neuropil convert IMAGE {image}"
        )
    path = image / "labels" / "zarr.json"
    return list(json.loads(path.read_text())["attributes"]["ome"]["labels"]) if path.exists() else []


def name_labels(image: Path, names: list[str]) -> None:
    """Write which labels an OME-Zarr image has."""
    (image / "labels").mkdir(exist_ok=True)
    attributes = {"ome": {"version": "0.5", "labels": names}}
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    write_json(image / "labels" / "zarr.json", group)


def mark_as_labels(group: Path, colours: Mapping[int, tuple[int, int, int]], voxels: Mapping[int, int]) -> None:
    """Say in an OME group that it holds labels of the image two folders above: colours and sizes by id."""
    path = group / "zarr.json"
    data = json.loads(path.read_text())
    data["attributes"]["ome"]["image-label"] = {
        "colors": [{"label-value": one, "rgba": [*colour, 255]} for one, colour in colours.items()],
        "properties": [{"label-value": one, "voxels": count} for one, count in voxels.items()],
        "source": {"image": "../../"},
    }
    write_json(path, data)


def write_agglomerates(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a zarr v3 group of an agglomerate attachment, version 4."""
    told = {"voxelytics": {"artifact_schema_version": 4, "artifact_class": "AgglomerateViewArtifact"}}
    folder.mkdir(parents=True)
    write_json(folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": told})
    for name, array in arrays.items():
        with storage_errors(str(folder / name), "write"):
            _write_zarr3(folder / name, array)


def _write_zarr3(path: Path, array: NDArray[Any]) -> None:
    rows = max(1, min(len(array), 1 << 16))
    grid = {"name": "regular", "configuration": {"chunk_shape": [rows, *array.shape[1:]]}}
    blosc = {"cname": "zstd", "clevel": 3, "shuffle": "shuffle", "typesize": array.dtype.itemsize}
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "blosc", "configuration": blosc}]
    metadata = {"shape": list(array.shape), "data_type": array.dtype.name, "chunk_grid": grid, "codecs": codecs}
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path.absolute()}/"}, "metadata": metadata}
    ts.open(spec, create=True).result().write(array).result()
