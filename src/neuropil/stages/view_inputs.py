"""What `neuropil view` shows: which volumes, what each is, tables of points, and the file that keeps a view."""

from __future__ import annotations

import json
import logging
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError, VolumeError, VolumeNotFound
from neuropil.files import write_json
from neuropil.view.shown import ROLES, Points, Role, Shown
from neuropil.volume import Volume, list_arrays, open_volume
from neuropil.volume.tables import read_table
from neuropil.volume.uri import parse_uri

log = logging.getLogger("neuropil")
STATE_VERSION = 1
Size = tuple[float, float, float]


@dataclass(frozen=True)
class Named:
    """A volume by its name in the view, with its URI and what it is; role None is told by its metadata."""

    name: str
    uri: str
    role: Role | None = None


def wanted(volumes: list[str], by_role: dict[Role, str | None]) -> list[Named]:
    """Return the volumes to show, images first, each under a name of its own; a container stands for all it holds."""
    named = [Named(role, uri, role) for role, uri in by_role.items() if uri is not None]
    for uri in volumes:
        for one in _arrays_of(uri):
            name, taken = _short(one), {other.name for other in named}
            unique = next(k for k in (name, *(f"{name} {n}" for n in range(2, 99))) if k not in taken)
            named.append(Named(unique, one))
    return named


def shown_of(named: list[Named], open_volumes: ExitStack, voxel_size: Size | None) -> list[Shown]:
    """Open volumes, which stay open, and say what each is; images first, labels last.

    Parameters
    ----------
    named : what to open
    open_volumes : closes them
    voxel_size : nm, of volumes that do not say theirs
    """
    shown = []
    for one in named:
        volume = open_volumes.enter_context(open_volume(one.uri))
        size = volume.metadata.voxel_size or voxel_size
        if size is None:
            log.warning("%s does not tell its voxel size; taken for 1 × 1 × 1 nm, give --voxel-size", one.uri)
        known = volume.metadata
        role = one.role or role_of(volume)
        offsets = known.offsets
        shown.append(Shown(one.name, role, volume, size or (1.0, 1.0, 1.0), known.offset, known.scale, offsets))
    return sorted(shown, key=lambda one: ROLES.index(one.role))


def role_of(volume: Volume) -> Role:
    """Tell what a volume is from its metadata, or else from its axes and dtype."""
    known: dict[str, Role] = {
        "image": "image",
        "boundary": "boundary",
        "affinities": "affinities",
        "mask": "mask",
        "labels": "segmentation",
    }
    if volume.metadata.kind is not None:
        return known[volume.metadata.kind]
    guess: Role = "image"
    if len(volume.shape) == 4:
        guess = "affinities"
    elif volume.dtype.kind in "iu" and volume.dtype.itemsize >= 4:
        guess = "segmentation"
    log.warning("%s does not say what it is; shown as %s", volume.uri, guess)
    return guess


def _arrays_of(uri: str) -> list[str]:
    """Return the URIs of all arrays of a container of which none is named, else the URI itself."""
    place = parse_uri(uri)
    if place.dataset or place.format == "precomputed" or (not place.remote and not place.local.exists()):
        return [uri]
    entries = list_arrays(uri)
    mark = ":" if place.format == "hdf5" else "/"
    return [f"{uri.rstrip('/')}{mark}{entry.name}" for entry in entries] if len(entries) > 1 else [uri]


def _short(uri: str) -> str:
    """Return a short name: of the array in a container, else of the file."""
    place = parse_uri(uri)
    return place.dataset.strip("/").split("/")[-1] or Path(place.path.rstrip("/")).name.split(".")[0]


def read_points(path: str, first: Shown) -> Points:
    """Read places from a table (CSV, Parquet) or JSON, with z, y, x in voxels of the first volume or z_nm, y_nm, x_nm.

    JSON is a list of objects, or an object that holds such a list; `position` and `position_nm` hold three numbers.
    All other columns are told as text.

    Raises
    ------
    InputError : no such columns
    """
    file = Path(path).expanduser()
    rows = _json_rows(file) if file.suffix == ".json" else _table_rows(file)
    offset, size = np.array(first.offset), np.array(first.voxel_size)
    points, texts = np.zeros((len(rows), 3)), []
    for k, row in enumerate(rows):
        place, in_nm, rest = _place_of(row, file)
        points[k] = place if in_nm else offset + place * size
        texts.append(", ".join(f"{key} {_said(value)}" for key, value in rest.items()))
    return Points(file.stem, points, tuple(texts))


def _table_rows(file: Path) -> list[dict[str, Any]]:
    table = read_table(file)
    return [dict(zip(table, values)) for values in zip(*(column.tolist() for column in table.values()))]


def _json_rows(file: Path) -> list[dict[str, Any]]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise VolumeNotFound(f"there is no file {file} of points") from None
    except (OSError, ValueError) as error:
        raise VolumeError(f"{file} is not readable as JSON: {error}") from None
    lists = [data] if isinstance(data, list) else list(data.values()) if isinstance(data, dict) else []
    for rows in lists:
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows) and (rows or rows is data):
            return rows
    raise InputError(f"{file} must hold a list of points; got {type(data).__name__}")


def _place_of(row: dict[str, Any], file: Path) -> tuple[NDArray[np.float64], bool, dict[str, Any]]:
    """Return a point's three numbers, whether they are nm, and what else its row says."""
    for keys, in_nm in ((("z_nm", "y_nm", "x_nm"), True), (("z", "y", "x"), False)):
        if all(key in row for key in keys):
            rest = {key: value for key, value in row.items() if key not in keys}
            return _three([row[key] for key in keys], file), in_nm, rest
    for key, in_nm in (("position_nm", True), ("position", False), ("point", False)):
        if key in row:
            return _three(row[key], file), in_nm, {other: value for other, value in row.items() if other != key}
    raise InputError(f"{file} must have columns z, y, x (voxels) or z_nm, y_nm, x_nm; it has {', '.join(row)}")


def _three(values: Any, file: Path) -> NDArray[np.float64]:
    try:
        place = np.array([float(value) for value in values])
    except (TypeError, ValueError):
        place = np.empty(0)
    if place.shape != (3,) or not np.isfinite(place).all():
        raise InputError(f"{file} must give three numbers z, y, x for each point; got {values!r}")
    return place


def _said(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def save_view(path: Path, named: list[Named], points: list[str], state: dict[str, Any]) -> None:
    """Write a view that `neuropil view --state` opens; local paths are kept from where the file lies."""
    folder = path.absolute().parent
    volumes = [{"name": one.name, "role": one.role, "uri": _from(one.uri, folder)} for one in named]
    kept = [os.path.relpath(Path(one).expanduser().absolute(), folder) for one in points]
    write_json(path, {"neuropil_view": STATE_VERSION, "volumes": volumes, "points": kept, "state": state})


def load_view(path: Path) -> tuple[list[Named], list[str], dict[str, Any]]:
    """Read a view: its volumes, files of points, and what is seen of them.

    Raises
    ------
    VolumeNotFound : there is no such file
    InputError : it is no view
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["neuropil_view"] != STATE_VERSION:
            raise ValueError(f"its version is {data['neuropil_view']}, not {STATE_VERSION}")
        folder = path.absolute().parent
        named = [Named(str(one["name"]), _to(str(one["uri"]), folder), one["role"]) for one in data["volumes"]]
        points = [str(folder / one) for one in data["points"]]
        state = data["state"]
        if not isinstance(state, dict) or any(one.role not in (None, *ROLES) for one in named):
            raise ValueError("it tells no state, or a role that is not known")
    except FileNotFoundError:
        raise VolumeNotFound(f"there is no state file {path}; --save-state writes one") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a view that neuropil saved: {error}") from None
    return named, points, state


def _is_local_path(uri: str) -> bool:
    return "://" not in uri


def _from(uri: str, folder: Path) -> str:
    return os.path.relpath(Path(uri).expanduser().absolute(), folder) if _is_local_path(uri) else uri


def _to(uri: str, folder: Path) -> str:
    return os.path.normpath(folder / uri) if _is_local_path(uri) else uri
