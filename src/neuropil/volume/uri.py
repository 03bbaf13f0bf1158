"""Names of volumes: one line of text that says file, format and array inside.

A URI is a path or address, with the format told by its suffix or scheme and the array after a colon (HDF5) or a slash
(zarr, n5, HDF5). `~` and `$VARS` are expanded. `data://` names a public data set in a folder of NEUROPIL_DATA or in
the user's cache. A range of sections is never part of a URI.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neuropil.errors import InputError, VolumeNotFound
from neuropil.files import cache_folder

Format = Literal["hdf5", "tiff", "sections", "zarr", "zarr2", "zarr3", "n5", "precomputed", "auto"]

_SCHEMES: dict[str, Format] = {
    "zarr": "zarr", "zarr2": "zarr2", "zarr3": "zarr3", "n5": "n5", "precomputed": "precomputed",
}  # fmt: skip
_BUCKETS = ("gs", "s3", "http", "https")
_HDF5 = re.compile(r"\.(?:h5|hdf5|hdf)(?=[:/]|$)", re.IGNORECASE)
_FOLDERS: tuple[tuple[re.Pattern[str], Format], ...] = (
    (re.compile(r"\.zarr(?=[:/]|$)", re.IGNORECASE), "zarr"),
    (re.compile(r"\.n5(?=[:/]|$)", re.IGNORECASE), "n5"),
)
_MARKS: tuple[tuple[str, Format], ...] = (
    ("zarr.json", "zarr"), (".zarray", "zarr"), (".zgroup", "zarr"), ("attributes.json", "n5"), ("info", "precomputed"),
)  # fmt: skip


@dataclass(frozen=True)
class Location:
    """Where a volume lies: `path` is a local path, or an address for buckets; `dataset` the array inside, or ""."""

    uri: str
    format: Format
    path: str
    dataset: str = ""

    @property
    def remote(self) -> bool:
        """Whether the volume lies in a bucket or on a web server."""
        return self.path.split("://")[0] in _BUCKETS and "://" in self.path

    @property
    def local(self) -> Path:
        """The local path, of a volume that is not remote."""
        return Path(self.path)


def data_folders() -> list[Path]:
    """Return the folders that may hold public data sets: those of NEUROPIL_DATA, then the user's cache.

    Returns
    -------
    list of Path, most preferred first; NEUROPIL_DATA may list several, separated as in PATH. They need not exist.

    >>> data_folders()[-1].name
    'data'
    """
    named = [Path(part).expanduser() for part in os.environ.get("NEUROPIL_DATA", "").split(os.pathsep) if part]
    return [*named, cache_folder() / "data"]


def parse_uri(uri: str | os.PathLike[str]) -> Location:
    """Return where and in which format `uri` lies; nothing is opened, though a folder is looked at to tell its format.

    Raises
    ------
    InputError : empty, an unknown scheme, or a file whose suffix names no format
    VolumeNotFound : a data:// set that is in none of the data folders

    >>> parse_uri("stack.h5:raw").dataset, parse_uri("out.zarr/labels").format
    ('raw', 'zarr')
    """
    text = os.fspath(uri)
    if not text.strip():
        raise InputError("a volume's URI must not be empty")
    given, text = text, os.path.expandvars(text)
    scheme, has_scheme, rest = text.partition("://")
    if not has_scheme:
        return _parse_local(given, os.path.expanduser(text))
    if scheme == "file":
        return _parse_local(given, rest)
    if scheme == "data":
        return _parse_local(given, _find_data(given, rest))
    if scheme in _SCHEMES:
        inner = os.path.expanduser(rest) if "://" not in rest else rest
        return _split_folder(given, inner, _SCHEMES[scheme])
    if scheme in _BUCKETS:
        return _split_folder(given, text, "auto")
    known = ", ".join(f"{name}://" for name in ("data", "file", *_SCHEMES, *_BUCKETS))
    raise InputError(f"unknown scheme '{scheme}://' in {given}; known are {known}")


def _split_folder(uri: str, path: str, by_scheme: Format) -> Location:
    """Split `x.zarr/array` (or x.n5/array); without such a suffix the whole path is the array."""
    for pattern, by_suffix in _FOLDERS:
        match = pattern.search(path)
        if match:
            dataset = path[match.end() + 1 :].strip("/")
            return Location(uri, by_suffix if by_scheme == "auto" else by_scheme, path[: match.end()], dataset)
    return Location(uri, by_scheme, path.rstrip("/"))


def _parse_local(uri: str, path: str) -> Location:
    for match in _HDF5.finditer(path):
        if match.end() == len(path) or not os.path.isdir(path[: match.end()]):
            return Location(uri, "hdf5", path[: match.end()], path[match.end() + 1 :].strip("/"))
    folder = _split_folder(uri, path, "auto")
    if folder.format != "auto":
        return folder
    suffix = os.path.splitext(path)[1].lower()
    if suffix in (".tif", ".tiff") and not os.path.isdir(path):
        return Location(uri, "tiff", path)
    if suffix in (".png", ".jpg", ".jpeg", ".bmp") and not os.path.isdir(path):
        raise InputError(
            f"{path} is a single image of 2 axes where a volume (z, y, x) is needed; "
            "put the sections in a folder and give the folder"
        )
    if os.path.isdir(path):
        marked = [told for name, told in _MARKS if os.path.exists(os.path.join(path, name))]
        return Location(uri, marked[0] if marked else "sections", path.rstrip("/") or "/")
    if os.path.isfile(path) or suffix.strip(".").isalpha():
        absent = "" if os.path.exists(path) else " (there is no such file)"
        raise InputError(
            f"cannot tell the format of {path}{absent}; known are file.h5:dataset, file.tif, "
            "a folder of PNG or TIFF sections, x.zarr, x.n5, zarr://, n5:// and precomputed://"
        )
    return Location(uri, "sections", path.rstrip("/"))


def _find_data(uri: str, rest: str) -> str:
    """Return the path below the first data folder that has the file."""
    match = _HDF5.search(rest)
    file = rest[: match.end()] if match else rest
    for folder in data_folders():
        if (folder / file).exists():
            return str(folder / rest)
    places = " or ".join(str(folder) for folder in data_folders())
    raise VolumeNotFound(f"{uri} is not in {places}; `neuropil data list` shows what can be fetched")
