"""Public data sets: where they are, what they are, under which terms; found on disk or fetched.

The registry is plain data. A set's folder is the same everywhere, `<root>/<folder>/<file>`, where a root is a folder of
NEUROPIL_DATA or the user's cache. Checksums are those that others have published for these addresses; where none is
known it says None, and the checksum of what arrived is written beside the file for later comparison.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError, VolumeError
from neuropil.progress import track
from neuropil.volume.catalogue import DATASETS, Dataset, RemoteFile, Stack
from neuropil.volume.download import fetch, file_sha256, remote_size, unpack
from neuropil.volume.uri import data_folders

__all__ = ["Dataset", "RemoteFile", "find", "get", "get_dataset", "list_datasets", "terms"]

log = logging.getLogger("neuropil")


def list_datasets() -> tuple[Dataset, ...]:
    """Return all public data sets that neuropil knows.

    >>> "vnc" in [dataset.name for dataset in list_datasets()]
    True
    """
    return DATASETS


def get_dataset(name: str) -> Dataset:
    """Return the entry called `name`.

    Raises
    ------
    InputError : no such set, with the nearest name

    >>> get_dataset("vnc").voxel_size_nm
    (47.5, 4.6, 4.6)
    """
    for dataset in DATASETS:
        if dataset.name == name:
            return dataset
    names = [dataset.name for dataset in DATASETS]
    near = difflib.get_close_matches(name, names, 1, 0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise InputError(f"name must be one of {', '.join(names)}; got '{name}'{hint}")


def find(name: str) -> Path | None:
    """Return the file of data set `name` in the first data folder that has it, or None.

    A file prepared by `get` is preferred to other files of the set, such as crops.
    """
    return _find(get_dataset(name), data_folders())


def terms(dataset: Dataset, *, ask_server: bool = False) -> str:
    """Return what a user should know before the download: addresses, size, checksum, licence, citation.

    `ask_server` asks for sizes that are not in the registry (one HEAD request per file, 5 s at most each).
    """
    lines = [f"{dataset.name}: {dataset.title}"]
    for file in dataset.files:
        size = file.megabytes
        if size is None and ask_server:
            bytes_ = remote_size(file.url)
            size = None if bytes_ is None else bytes_ / 1e6
        lines.append(f"  address   {file.url}")
        lines.append(f"  size      {'not stated by the server' if size is None else f'{size:,.0f} MB'}")
        lines.append(f"  SHA-256   {file.sha256 or 'none published: what arrives cannot be verified, only recorded'}")
    lines += [f"  licence   {dataset.licence}", f"  cite      {dataset.citation}", f"  page      {dataset.page}"]
    return "\n".join(lines)


def get(name: str, folder: str | os.PathLike[str] | None = None, *, accept: bool) -> Path:
    """Return the file of data set `name`; download, verify and prepare it first where it is not on disk.

    Parameters
    ----------
    name : of the registry, see `list_datasets`
    folder : root to look in and download to; omitted, all data folders are looked in and the user's cache is
        downloaded to
    accept : the caller has read and accepts the set's `terms`; without, nothing is downloaded

    Raises
    ------
    InputError : unknown name, or terms not accepted
    VolumeNotFound, VolumeError, StorageFull : see `neuropil.volume.download.fetch`
    """
    dataset = get_dataset(name)
    root = data_folders()[-1] if folder is None else Path(folder).expanduser()
    present = _find(dataset, data_folders() if folder is None else [root])
    if present is not None:
        return present
    if not accept:
        raise InputError(f"accept must be True to download {name}: read its licence first (neuropil data get {name})")
    target = root / dataset.folder / dataset.file
    target.parent.mkdir(parents=True, exist_ok=True)
    fetched = [_fetch(file, target.parent) for file in dataset.files]
    if not dataset.prepare:
        return target
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=target.parent) as scratch:
        made = Path(scratch) / dataset.file
        _PREPARE[dataset.prepare](dataset, fetched, made, Path(scratch))
        _sign(dataset, made)
        os.replace(made, target)
    for path in fetched:
        path.unlink()
        path.with_name(path.name + ".sha256").unlink(missing_ok=True)
    return target


def _find(dataset: Dataset, folders: list[Path]) -> Path | None:
    for folder in folders:
        for pattern in (dataset.file, *dataset.also):
            for path in sorted((folder / dataset.folder).glob(pattern)):
                if path.is_file():
                    return path
    return None


def _fetch(file: RemoteFile, folder: Path) -> Path:
    """The downloaded file; one that is there already (from an earlier run, or put there by hand) is only verified."""
    path = folder / file.name
    record = path.with_name(path.name + ".sha256")
    if path.exists():
        known = file.sha256 or (record.read_text().split()[0] if record.exists() else None)
        if known is not None and file_sha256(path) != known:
            raise VolumeError(f"{path} does not have the SHA-256 {known}; remove it and run the same command again")
        return path
    found = fetch(file.url, path, sha256=file.sha256)
    if file.sha256 is None:
        log.warning(
            "%s cannot be verified: no checksum is published; its SHA-256 is %s (recorded in %s)", path, found, record
        )
        record.write_text(f"{found}  {path.name}\n")
    return path


def _sign(dataset: Dataset, path: Path) -> None:
    """Write where the data come from and under which terms into the file itself."""
    with h5py.File(path, "r+") as file:
        file.attrs["axes"] = "zyx"
        file.attrs["source"] = " ".join(part.url for part in dataset.files)
        file.attrs["licence"] = dataset.licence
        file.attrs["citation"] = dataset.citation
        file.attrs["voxel_size_nm_zyx"] = np.array(dataset.voxel_size_nm)


def _prepare_stacks(dataset: Dataset, fetched: list[Path], made: Path, scratch: Path) -> None:
    """Folders of images in an archive become datasets of one HDF5 file."""
    unpack(fetched[0], scratch / "archive")
    shapes = {}
    with h5py.File(made, "w") as file:
        for stack in dataset.stacks:
            data = _read_stack(stack, scratch / "archive", dataset.name)
            shapes[stack.dataset] = data.shape
            file.create_dataset(stack.dataset, data=data, compression="gzip", chunks=(1, *data.shape[1:]))
            file[stack.dataset].attrs["kind"] = stack.meaning
            wanted = shapes[stack.like or stack.dataset]
            if data.shape != wanted:
                raise VolumeError(
                    f"{stack.dataset} of {dataset.name} must have the shape {wanted} of {stack.like}; got {data.shape}"
                )
    shutil.rmtree(scratch / "archive")


def _read_stack(stack: Stack, folder: Path, name: str) -> NDArray[np.uint8]:
    """Images whose path matches, in the order of the numbers in their names, as (z, y, x) uint8."""
    import imageio.v3 as imageio

    files = sorted(folder.glob(stack.pattern), key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)])
    if not files:
        raise VolumeError(f"the archive of {name} must hold {stack.pattern}; it does not, so its layout has changed")
    sections: list[NDArray[np.uint8]] = []
    for path in track(files, f"prepare {name} {stack.dataset}", len(files)):
        image = np.asarray(imageio.imread(path))
        image = image[..., 0] if image.ndim == 3 and image.shape[-1] in (3, 4) else np.squeeze(image)
        if image.ndim != 2 or image.dtype != np.uint8 or (sections and image.shape != sections[0].shape):
            raise VolumeError(
                f"{path.name} of {name} must be an 8-bit grey image like the others; got {image.dtype} {image.shape}"
            )
        sections.append(image)
    return np.stack(sections)


def _prepare_merged(dataset: Dataset, fetched: list[Path], made: Path, scratch: Path) -> None:
    """Several HDF5 files, each with one dataset, become one file; the stacks' patterns name the dataset in each."""
    with h5py.File(made, "w") as target:
        for stack, path in zip(dataset.stacks, fetched):
            with h5py.File(path, "r") as source:
                if stack.pattern not in source:
                    raise VolumeError(
                        f"{path.name} of {dataset.name} must hold '{stack.pattern}'; it holds {', '.join(source)}"
                    )
                data = source[stack.pattern][()]
                if "transforms" in source:  # table (fragment, body) of the neuroproof examples
                    data = _apply_table(data, source["transforms"][()])
            target.create_dataset(stack.dataset, data=data, compression="gzip")
            target[stack.dataset].attrs["kind"] = stack.meaning


def _apply_table(ids: NDArray[np.integer], table: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Ids replaced by what the two-column table says; ids that it lacks become 0."""
    order = np.argsort(table[:, 0])
    keys, values = table[order, 0], table[order, 1].astype(np.uint64)
    unique, inverse = np.unique(ids, return_inverse=True)
    at = np.minimum(np.searchsorted(keys, unique), len(keys) - 1)
    return np.where(keys[at] == unique, values[at], np.uint64(0))[inverse].reshape(ids.shape)


_PREPARE: dict[str, Callable[[Dataset, list[Path], Path, Path], None]] = {
    "stacks": _prepare_stacks,
    "merged": _prepare_merged,
}
