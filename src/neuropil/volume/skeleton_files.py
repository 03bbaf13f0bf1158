"""Skeletons in files: an npz of all, a folder with one SWC file each, one SWC file, or what others keep them in.

Our npz is a table of nodes: `skeletons` (uint64 n), `vertices_nm` (float64 n, 3; z, y, x), `radii_nm` (float64 n),
`kinds` (uint8 n, as in SWC), `edges` (int64 m, 2; rows of the table), and `voxel_size` (float64 3, nm; of the labels,
may be empty). In a folder the name of a file is the id, `17.swc`. Other programs' files are in `skeleton_foreign`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError, OutputExists, VolumeError, VolumeNotFound
from neuropil.files import replacing, write_text
from neuropil.skeletons.skeleton import Skeleton, nodes_of
from neuropil.skeletons.swc import from_swc, to_swc
from neuropil.volume.skeleton_foreign import NodeTable, from_em_erl, read_axonem, read_groups

_ARRAYS = ("skeletons", "vertices_nm", "radii_nm", "kinds", "edges", "voxel_size")


@dataclass(frozen=True)
class SkeletonFile:
    """What a file says: id to skeleton in ascending order, and the voxel size of the labels, nm, where it tells."""

    skeletons: dict[int, Skeleton]
    voxel_size: tuple[float, ...] | None = None


def read_skeletons(
    path: Path | str, *, unit_nm: float | None = None, voxel_size: Sequence[float] | None = None
) -> SkeletonFile:
    """Read skeletons.

    Parameters
    ----------
    path : file.npz (ours or em_erl's), file.swc, a folder of SWC files named by their ids, file.h5 with a group per
        skeleton, or the file.p of AxonEM
    unit_nm : of SWC files, see `from_swc`
    voxel_size : (z, y, x), nm, of HDF5 files whose vertices are voxels

    Raises
    ------
    VolumeNotFound : nothing there, or no SWC file in the folder
    VolumeError : damaged
    InputError : foreign, or content that is no skeleton; in SWC files with the number of the line
    """
    path = Path(path)
    if path.is_dir():
        files = {_id_of(file): file for file in sorted(path.glob("*.swc"))}
        if not files:
            raise VolumeNotFound(f"{path} holds no .swc file")
        return SkeletonFile({one: _read_swc(files[one], unit_nm) for one in sorted(files)})
    if not path.is_file():
        raise VolumeNotFound(f"there is no file or folder of skeletons at {path}")
    if path.suffix == ".swc":
        return SkeletonFile({int(path.stem) if path.stem.isdecimal() else 1: _read_swc(path, unit_nm)})
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix in (".h5", ".hdf5"):
        return _of_table(read_groups(path, voxel_size), path)
    if path.suffix in (".p", ".pkl", ".pickle"):
        return _of_table(read_axonem(path), path)
    raise InputError(f"cannot tell the format of {path}; known are .npz, .swc, .h5, .p and a folder of .swc files")


def write_skeletons(
    path: Path | str,
    skeletons: Mapping[int, Skeleton],
    *,
    voxel_size: Sequence[float] | None = None,
    overwrite: bool = False,
) -> None:
    """Write skeletons: one npz where the path ends so, else a folder with one SWC file each.

    Parameters
    ----------
    path : file.npz, or a folder that is not there or has none of these files
    skeletons : id to skeleton; SWC takes none with loops
    voxel_size : (z, y, x), nm, of the labels; recorded
    overwrite : replace what is there; in a folder, all its SWC files

    Raises
    ------
    OutputExists : something is there
    InputError : loops
    """
    path = Path(path)
    if path.suffix == ".npz":
        if path.exists() and not overwrite:
            raise OutputExists(f"output {path} exists; give --overwrite to replace it")
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_npz(path, skeletons, voxel_size)
        return
    if path.suffix:
        raise InputError(f"output must be file.npz or a folder for SWC files; got {path}")
    old = sorted(path.glob("*.swc"))
    if old and not overwrite:
        raise OutputExists(f"output {path} holds SWC files; give --overwrite to replace them")
    texts = {f"{one}.swc": to_swc(skeletons[one], voxel_size=voxel_size) for one in sorted(skeletons)}
    path.mkdir(parents=True, exist_ok=True)
    for file in old:
        file.unlink()
    for name, text in texts.items():
        write_text(path / name, text)


def _id_of(file: Path) -> int:
    if not file.stem.isdecimal():
        raise InputError(f"SWC files in a folder must be named by their ids, such as 17.swc; got {file.name}")
    return int(file.stem)


def _read_swc(file: Path, unit_nm: float | None) -> Skeleton:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise VolumeError(f"{file} is no text, so no SWC file") from None
    return from_swc(text, name=str(file), unit_nm=unit_nm)


def _write_npz(path: Path, skeletons: Mapping[int, Skeleton], voxel_size: Sequence[float] | None) -> None:
    nodes = nodes_of(skeletons)
    parts = [skeletons[one] for one in sorted(skeletons)]
    arrays: dict[str, Any] = {
        "skeletons": nodes.skeletons,
        "vertices_nm": nodes.positions_nm,
        "radii_nm": np.concatenate([np.empty(0), *(part.radii_nm for part in parts)]),
        "kinds": np.concatenate([np.empty(0, np.uint8), *(part.kinds for part in parts)]),
        "edges": nodes.edges,
        "voxel_size": np.array(() if voxel_size is None else voxel_size, np.float64),
    }
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _read_npz(path: Path) -> SkeletonFile:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise VolumeError(f"cannot read {path}: {str(error).splitlines()[0][:200]}") from None
    if set(_ARRAYS) <= set(arrays):
        table = tuple(arrays[name] for name in ("skeletons", "vertices_nm", "edges", "radii_nm", "kinds"))
        return SkeletonFile(_taken_apart(table, path), tuple(arrays["voxel_size"].tolist()) or None)
    foreign = from_em_erl(arrays, path)
    if foreign is None:
        wanted = ", ".join(_ARRAYS)
        raise InputError(f"{path} must hold {wanted}, or the arrays of em_erl; it holds {', '.join(arrays)}")
    return _of_table(foreign, path)


def _of_table(nodes: NodeTable, path: Path) -> SkeletonFile:
    n = nodes.ids.size
    table = nodes.ids, nodes.positions_nm, nodes.edges, np.zeros(n), np.zeros(n, np.uint8)
    return SkeletonFile(_taken_apart(table, path), nodes.voxel_size)


def _taken_apart(table: tuple[NDArray[Any], ...], path: Path) -> dict[int, Skeleton]:
    """Return the skeletons of a table of nodes."""
    ids, vertices, edges, radii, kinds = table
    n = ids.size
    if vertices.shape != (n, 3) or radii.shape != (n,) or kinds.shape != (n,) or edges.shape != (len(edges), 2):
        raise InputError(f"{path}: arrays of nodes must have one row per node, edges two columns")
    if edges.size and (edges.min() < 0 or edges.max() >= n or np.any(ids[edges[:, 0]] != ids[edges[:, 1]])):
        raise InputError(f"{path}: edges must join two nodes of one skeleton")
    found, owner = np.unique(ids.astype(np.uint64), return_inverse=True)
    order = np.argsort(owner, kind="stable")
    place = np.empty(n, np.int64)
    starts = np.searchsorted(owner[order], np.arange(found.size + 1))
    place[order] = np.arange(n) - starts[owner[order]]
    by_owner = np.argsort(owner[edges[:, 0]], kind="stable")
    cuts = np.searchsorted(owner[edges[by_owner, 0]], np.arange(found.size + 1))
    skeletons = {}
    for k, one in enumerate(found.tolist()):
        rows, links = order[starts[k] : starts[k + 1]], by_owner[cuts[k] : cuts[k + 1]]
        skeletons[one] = Skeleton.of(vertices[rows], place[edges[links]], radii[rows], kinds[rows])
    return skeletons
