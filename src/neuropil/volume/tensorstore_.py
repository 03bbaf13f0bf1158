"""zarr v2 and v3 (OME-NGFF 0.4 and 0.5), n5 and neuroglancer precomputed, local or in buckets, through tensorstore.

n5 and precomputed lie as x, y, z on disk; everything is turned to (c,) z, y, x here, once, by axis name. A new
`x.zarr` is an OME-NGFF 0.5 group whose level "0" is a sharded zarr v3 array: few files, and small chunks inside them
to read. `x.zarr/name` is a plain array with funlib's attributes. `zarr2://x.zarr` makes zarr v2 with OME-NGFF 0.4.

Writes need not be aligned, but only blocks aligned to `chunk_shape` avoid reading a chunk back to change part of it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import tensorstore as ts

from neuropil.errors import InputError, VolumeError, VolumeNotFound
from neuropil.geometry import Box
from neuropil.volume import ome, tensorstore_specs
from neuropil.volume.base import Entry, VolumeBase, choose_array, refuse_axes, storage_errors
from neuropil.volume.metadata import Metadata, believe, from_json, to_json
from neuropil.volume.uri import Location

DRIVERS = {"zarr3": "zarr3", "zarr2": "zarr", "n5": "n5", "precomputed": "neuroglancer_precomputed"}
_PROBES = {
    "zarr": ("zarr3", "zarr2"), "zarr2": ("zarr2",), "zarr3": ("zarr3",), "n5": ("n5",),
    "precomputed": ("precomputed",),
    "auto": ("zarr3", "zarr2", "n5", "precomputed"),
}  # fmt: skip
_RETRIES = {"max_retries": 3, "initial_delay": "100ms", "max_delay": "2s"}
# A process that is told to compute in one thread, as a worker is, packs and unpacks chunks in one, too.
_THREADS = {"data_copy_concurrency": {"limit": int(os.environ.get("NUMBA_NUM_THREADS") or 0) or "shared"}}
CONTEXT = ts.Context(
    {"http_request_retries": _RETRIES, "gcs_request_retries": _RETRIES, "s3_request_retries": _RETRIES, **_THREADS}
)


@dataclass(frozen=True)
class Node:
    """An array or group found in a store."""

    kind: str
    is_array: bool
    attributes: Mapping[str, Any]


class TensorStoreVolume(VolumeBase):
    """An array opened by tensorstore, turned to (c,) z, y, x with its origin at 0."""

    def __init__(self, uri: str, store: Any, metadata: Metadata, writable: bool) -> None:
        self._store = store
        chunks = store.chunk_layout.write_chunk.shape or store.shape
        size = [n or extent for n, extent in zip(chunks[-3:], store.shape[-3:])]
        super().__init__(uri, store.shape, store.dtype.numpy_dtype, metadata, size, writable)

    def _read(self, box: Box) -> np.ndarray:
        array: np.ndarray = self._store[(..., *box.slices)].read(order="C").result()
        return array

    def _read_channels(self, box: Box, channels: slice) -> np.ndarray:
        array: np.ndarray = self._store[channels][(..., *box.slices)].read(order="C").result()
        return array

    def _write(self, box: Box, array: np.ndarray) -> None:
        self._store[(..., *box.slices)].write(array).result()


def open_volume(location: Location, *, writable: bool = False) -> TensorStoreVolume:
    """Open an array, the finest level of an OME group, or the only array of a container."""
    with storage_errors(location.uri, "open"):
        root = root_of(location)
        node, dataset = probe(root, location.format, location.dataset), location.dataset
        level: ome.Level | None = None
        if node is not None and not node.is_array and ome.levels(node.attributes):
            level = ome.levels(node.attributes)[0]
            dataset = joined(dataset, level.path)
        elif node is None or not node.is_array:
            dataset = _only_array(location, node)
        group, node = node, probe(root, location.format, dataset)
        if node is None or not node.is_array:
            raise VolumeError(f"{location.uri} is damaged: its metadata name the array '{dataset}', which is not there")
        level, own = _around(root, location, dataset, level, group, node)
        spec = {"driver": DRIVERS[node.kind], "kvstore": kvstore_of(location, dataset)}
        store = ts.open(spec, open=True, read=True, write=writable, context=CONTEXT).result()
        return _turned(location.uri, store, node, level, own, writable)


def create_volume(
    location: Location,
    *,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    metadata: Metadata,
    chunk_shape: Sequence[int] | None,
) -> TensorStoreVolume:
    """Make an array of zeros, with the groups above it."""
    made = {"zarr": "zarr3", "auto": "zarr3"}.get(location.format, location.format)
    array = tensorstore_specs.array_spec(made, location, shape, dtype, metadata, chunk_shape)
    with storage_errors(location.uri, "create"):
        _clear(location)
        root = root_of(location)
        dataset = location.dataset
        if made in ("zarr2", "zarr3"):
            _write_groups(root, made, dataset, metadata)
            if not dataset:
                dataset = "0"
            elif made == "zarr2":
                put_json(root, joined(dataset, ".zattrs"), ome.array_attributes(metadata))
        elif made == "n5" and dataset:
            put_json(root, "attributes.json", {"n5": "4.0.0"})
        ts.open({**array, "kvstore": kvstore_of(location, dataset)}, create=True, context=CONTEXT).result()
        if made == "precomputed":
            put_json(root, "neuropil.json", to_json(metadata))
        return open_volume(location, writable=True)


def exists(location: Location) -> bool:
    """Tell whether something is stored there."""
    if not location.remote:
        path = os.path.join(location.path, location.dataset)
        return os.path.isfile(path) or (os.path.isdir(path) and bool(os.listdir(path)))
    with storage_errors(location.uri, "open"):
        return probe(root_of(location), location.format, location.dataset) is not None


def list_arrays(location: Location) -> list[Entry]:
    """Return the arrays of a local container; an OME group counts as one array."""
    if location.remote or location.format == "precomputed":
        return []
    root, entries = root_of(location), []
    for folder, inner, _ in os.walk(location.path):
        name = os.path.relpath(folder, location.path).replace(os.sep, "/").removeprefix(".").strip("/")
        node = probe(root, location.format, name)
        scales = ome.levels(node.attributes) if node is not None and not node.is_array else []
        if node is not None and (node.is_array or scales):
            inner.clear()
            path = joined(name, scales[0].path) if scales else name
            spec = {"driver": DRIVERS[node.kind], "kvstore": kvstore_of(location, path)}
            store = ts.open(spec, open=True, read=True, context=CONTEXT).result()
            shape = store.shape[::-1] if node.kind == "n5" else store.shape
            if store.rank in (3, 4) or scales:
                entries.append(Entry(name, tuple(shape), store.dtype.name))
    return sorted(entries, key=lambda entry: entry.name)


def kvstore_of(location: Location, dataset: str = "") -> dict[str, Any]:
    path = joined(location.path, dataset) + "/"
    scheme, _, rest = path.partition("://")
    if not location.remote:
        return {"driver": "file", "path": os.path.abspath(path) + "/"}
    if scheme in ("http", "https"):
        return {"driver": "http", "base_url": path}
    name, _, inner = rest.partition("/")
    return {**_bucket_spec(scheme, name), "path": inner}


def _bucket_spec(scheme: str, name: str) -> dict[str, Any]:
    """Return the spec of a bucket; that of S3 may be on a server of one's own, as Amazon's tools are told, too."""
    if scheme in ("http", "https"):
        return {"driver": "http", "base_url": f"{scheme}://{name}"}
    if scheme == "gs":
        return {"driver": "gcs", "bucket": name}
    spec: dict[str, Any] = {"driver": "s3", "bucket": name}
    told = {"endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "aws_region": ("AWS_REGION", "AWS_DEFAULT_REGION")}
    for field, variables in told.items():
        if values := [os.environ[one] for one in variables if os.environ.get(one)]:
            spec[field] = values[0]
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        spec["aws_credentials"] = {"type": "environment"}  # else files are looked for first, and missed on stderr
    return spec


@lru_cache
def bucket(scheme: str, name: str) -> Any:
    """Return the `tensorstore.KvStore` of a whole bucket."""
    return ts.KvStore.open(_bucket_spec(scheme, name), context=CONTEXT).result()


def root_of(location: Location) -> Any:
    if not location.remote and os.path.isfile(location.path):
        raise VolumeError(f"{location.path} is a file where a folder (zarr, n5 or precomputed) was expected")
    return ts.KvStore.open(kvstore_of(location), context=CONTEXT).result()


def joined(*parts: str) -> str:
    return "/".join(part.rstrip("/") for part in parts if part)


def get_json(root: Any, key: str) -> dict[str, Any] | None:
    found = root.read(key).result()
    if found.state != "value":
        return None
    try:
        data = json.loads(found.value)
    except ValueError as error:
        raise VolumeError(f"{root.url}{key} is damaged: it is not JSON") from error
    return data if isinstance(data, dict) else None


def put_json(root: Any, key: str, data: Mapping[str, Any]) -> None:
    root.write(key, json.dumps(data, indent=1).encode()).result()


def probe(root: Any, kind: str, dataset: str) -> Node | None:
    """Return what lies at `dataset`, or None."""
    for one in _PROBES[kind]:
        if one == "zarr3" and (data := get_json(root, joined(dataset, "zarr.json"))):
            return Node(one, data.get("node_type") == "array", data.get("attributes") or {})
        if one == "zarr2":
            attributes = get_json(root, joined(dataset, ".zattrs"))
            if get_json(root, joined(dataset, ".zarray")):
                return Node(one, True, attributes or {})
            if attributes or get_json(root, joined(dataset, ".zgroup")):
                return Node(one, False, attributes or {})
        if one == "n5" and (data := get_json(root, joined(dataset, "attributes.json"))):
            return Node(one, "dimensions" in data and "dataType" in data, data)
        if one == "precomputed" and (data := get_json(root, joined(dataset, "info"))) and "scales" in data:
            return Node(one, True, data)
    return None


def _only_array(location: Location, node: Node | None) -> str:
    """Return the one array of a container, or raise with the list of what is there."""
    if location.remote:
        if node is None:
            raise VolumeNotFound(f"nothing neuropil can read at {location.uri}")
        raise InputError(f"{location.uri} is a group; name the array in it as {location.uri}/NAME")
    if not os.path.exists(location.path):
        raise VolumeNotFound(f"{location.path} does not exist")
    if location.format == "precomputed":
        raise VolumeError(f"{location.path} is not a precomputed volume: it has no valid 'info'")
    entries = list_arrays(location)
    if node is not None and location.dataset:
        # A group was named: choose among the arrays in it.
        entries = [entry for entry in entries if entry.name.startswith(location.dataset + "/")]
        return _finest(location, choose_array(joined(location.path, location.dataset), "", entries, "array"))
    return _finest(location, choose_array(location.path, location.dataset, entries, "array"))


def _finest(location: Location, name: str) -> str:
    node = probe(root_of(location), location.format, name)
    scales = ome.levels(node.attributes) if node is not None and not node.is_array else []
    return joined(name, scales[0].path) if scales else name


def _around(
    root: Any, location: Location, dataset: str, level: ome.Level | None, group: Node | None, node: Node
) -> tuple[ome.Level | None, dict[str, tuple[Any, str]]]:
    """Return the OME level of the array, if it is one, and our own record, from the array or the group above it."""
    parent, _, name = dataset.rpartition("/")
    if level is None and dataset and node.kind in ("zarr2", "zarr3"):
        group = probe(root, location.format, parent)
        scales = ome.levels(group.attributes) if group is not None and not group.is_array else []
        level = next((one for one in scales if one.path.strip("/") == name), None)
    if node.kind == "precomputed":
        return None, from_json(get_json(root, "neuropil.json"), "'neuropil.json'")
    own = from_json(node.attributes.get("neuropil"), "array attribute 'neuropil'")
    if level is not None and group is not None:
        own = {**from_json(group.attributes.get("neuropil"), "group attribute 'neuropil'"), **own}
    return level, own


def _turned(
    uri: str, store: Any, node: Node, level: ome.Level | None, own: Mapping[str, tuple[Any, str]], writable: bool
) -> TensorStoreVolume:
    """Return the volume with axes (c,) z, y, x and its beliefs."""
    names, why = _axis_names(uri, store, node, level)
    keep_channel = store.rank == 4 and "c" in own.get("axes", ((), ""))[0]
    drop = [
        i for i, name in enumerate(names) if store.shape[i] == 1 and (name == "t" or (name == "c" and not keep_channel))
    ]
    left = [name for i, name in enumerate(names) if i not in drop]
    if sorted(left) not in (sorted("zyx"), sorted("czyx")):
        shape = dict(zip(names, store.shape))
        raise InputError(
            f"{uri} must have the axes z, y, x (and c); it has {', '.join(f'{k} {v}' for k, v in shape.items())}"
        )
    beliefs: dict[str, tuple[Any, str]] = {}
    if node.kind == "precomputed":
        beliefs = tensorstore_specs.precomputed_beliefs(node.attributes)
    elif node.kind == "n5":
        beliefs = {
            **ome.array_beliefs({k: v for k, v in node.attributes.items() if k == "voxel_size"}),
            **ome.n5_beliefs(node.attributes),
        }
    elif level is not None:
        beliefs = {key: value for key, value in level.beliefs.items() if key != "axes"}
    else:
        beliefs = ome.array_beliefs(node.attributes)
    store = store[tuple(store.domain[i].inclusive_min if i in drop else slice(None) for i in range(store.rank))]
    axes = tuple(axis for axis in "czyx" if axis in left)
    store = store.transpose([left.index(axis) for axis in axes])[ts.d[:].translate_to[0]]
    refuse_axes(uri, store.shape)
    own = {key: value for key, value in own.items() if key != "axes"}
    return TensorStoreVolume(uri, store, believe(store.rank, own, beliefs, {"axes": (axes, why)}), writable)


def _axis_names(uri: str, store: Any, node: Node, level: ome.Level | None) -> tuple[tuple[str, ...], str]:
    """Return the names of the axes as tensorstore presents them, and why they are believed."""
    if node.kind == "precomputed":
        return ("x", "y", "z", "c"), "precomputed is always x, y, z, channel; turned to z, y, x"
    if level is not None and len(level.axes) == store.rank:
        return level.axes, level.beliefs["axes"][1]
    named = node.attributes.get("axes") if node.kind == "n5" else node.attributes.get("axis_names")
    labels = tuple(str(label).lower() for label in (named or store.domain.labels))
    labels = tuple("c" if label.startswith(("c", "^")) and label != "c" else label for label in labels)
    if len(labels) == store.rank and sorted(labels) in (sorted("zyx"), sorted("czyx"), sorted("tczyx")):
        return labels, f"axis names in the array's metadata: {', '.join(labels)}"
    if store.rank not in (3, 4):
        refuse_axes(uri, store.shape)
    names = ("c", "z", "y", "x")[-store.rank :]
    if node.kind == "n5":
        return names[::-1], "n5 is x, y, z by convention; turned to z, y, x"
    return names, f"guess: {store.rank} axes are taken as {', '.join(names)}; nothing in the array says otherwise"


def check_replaceable(location: Location) -> None:
    """Raise InputError where writing to `location` would remove something else than one volume."""
    path = os.path.join(location.path, location.dataset)
    if location.remote or not os.path.lexists(path):
        return
    if not os.path.isdir(path):
        raise InputError(f"{path} is a file where {location.format} needs a folder; remove it or choose another name")
    if os.listdir(path) and probe(root_of(location), location.format, location.dataset) is None:
        raise InputError(f"{path} is a folder of something else and is not replaced; remove it or choose another name")
    others = [entry.name for entry in list_arrays(location) if _below(entry.name, location.dataset)]
    if others:
        raise InputError(
            f"{path} holds the arrays {', '.join(others[:10])}, which writing there would remove; name one of them"
        )


def _below(name: str, dataset: str) -> bool:
    """Tell whether an array lies inside the group `dataset` (and is not that group or array itself)."""
    return name != dataset and (not dataset or name.startswith(dataset + "/"))


def _clear(location: Location) -> None:
    """Remove what is to be replaced."""
    if location.remote:
        root_of(location).delete_range(ts.KvStore.KeyRange(*_prefix_range(location.dataset))).result()
        return
    check_replaceable(location)
    shutil.rmtree(os.path.join(location.path, location.dataset), ignore_errors=True)


def _prefix_range(dataset: str) -> tuple[str, str]:
    return (f"{dataset}/", f"{dataset}0") if dataset else ("", "")


def _write_groups(root: Any, kind: str, dataset: str, metadata: Metadata) -> None:
    """Write the OME group of a whole container, or the plain groups above a named array that are not there yet."""
    if not dataset:
        if kind == "zarr3":
            attributes = ome.multiscales(metadata, "0.5")
            put_json(root, "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes})
        else:
            put_json(root, ".zgroup", {"zarr_format": 2})
            put_json(root, ".zattrs", ome.multiscales(metadata, "0.4"))
        return
    parts = dataset.split("/")[:-1]
    for depth in range(len(parts) + 1):
        above = "/".join(parts[:depth])
        if probe(root, kind, above) is None:
            key, group = ("zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": {}})
            if kind == "zarr2":
                key, group = ".zgroup", {"zarr_format": 2}
            put_json(root, joined(above, key), group)
