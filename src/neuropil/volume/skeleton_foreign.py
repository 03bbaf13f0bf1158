"""Skeletons as the programs of the AxonEM challenge and of the zebra-finch benchmark (j0126) keep them.

- em_erl's npz: by name `skeleton_id`, `node_skeleton_index`, `node_coords_zyx` (nm), `edge_u`, `edge_v`; in older files
  arrays without names: ids, lengths, nodes (number of the skeleton, z, y, x in nm), then the edges of each skeleton.
- HDF5, one group per skeleton named by its id, with `vertices` (n, 3; z, y, x) and `edges` (m, 2): whole numbers are
  voxels, real ones nm.
- the pickle of AxonEM (`..._skel_stats.p`): a graph and then the voxel size. A pickle can run anything, so this one is
  read by a reader that makes arrays and the graph's two containers, and refuses every other name.

Source: PytorchConnectomics/em_erl and PytorchConnectomics/AxonEM-challenge.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError, VolumeError

_NAMED = ("skeleton_id", "node_skeleton_index", "node_coords_zyx", "edge_u", "edge_v")
_UNNAMED = ("arr_0", "arr_1", "arr_2")
_DAMAGE = (
    AttributeError,
    EOFError,
    ImportError,
    InputError,
    LookupError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)  # what reading a damaged or foreign pickle raises


@dataclass(frozen=True)
class NodeTable:
    """Nodes of many skeletons: id (n,) and z, y, x in nm (n, 3) of each, and edges (m, 2) between rows."""

    ids: NDArray[np.uint64]
    positions_nm: NDArray[np.float64]
    edges: NDArray[np.int64]
    voxel_size: tuple[float, ...] | None = None

    @classmethod
    def of(cls, path: Path, ids: Any, positions: Any, edges: Any, voxel_size: Any = None) -> NodeTable:
        """Check shapes and convert."""
        nodes, links = np.asarray(positions, np.float64), np.asarray(edges, np.int64).reshape(-1, 2)
        if nodes.ndim != 2 or nodes.shape != (len(ids), 3):
            raise InputError(f"{path}: each node must have z, y, x and a skeleton; got {nodes.shape} and {len(ids)}")
        size = None if voxel_size is None else tuple(float(one) for one in np.ravel(voxel_size))
        if size is not None and (len(size) != 3 or min(size) <= 0):
            raise InputError(f"{path}: the voxel size must be three lengths in nm, z, y, x; got {size}")
        return cls(np.asarray(ids).astype(np.uint64), nodes, links, size)


def from_em_erl(arrays: Mapping[str, NDArray[Any]], path: Path) -> NodeTable | None:
    """Return the nodes in the arrays of em_erl's npz; None if they are none."""
    if set(_NAMED) <= set(arrays):
        ids, owner, positions, u, v = (arrays[name] for name in _NAMED)
        edges: Any = np.stack([u, v], axis=1) if u.shape == v.shape else None
    elif set(_UNNAMED) <= set(arrays):
        ids, nodes = arrays["arr_0"], arrays["arr_2"]
        if nodes.ndim != 2 or nodes.shape[1] != 4:
            raise InputError(f"{path}: nodes must be (n, 4), number of the skeleton, z, y, x; got {nodes.shape}")
        owner, positions = nodes[:, 0].astype(np.int64), nodes[:, 1:]
        parts = [arrays[f"arr_{k}"][:, :2] for k in range(3, len(arrays)) if arrays[f"arr_{k}"].size]
        edges = np.concatenate([np.empty((0, 2)), *parts])
    else:
        return None
    if edges is None or (owner.size and int(owner.max()) >= ids.size):
        raise InputError(f"{path}: edges must have two ends each, and nodes belong to one of {ids.size} skeletons")
    return NodeTable.of(path, ids[owner], positions, edges)


def read_groups(path: Path, voxel_size: Sequence[float] | None) -> NodeTable:
    """Read one HDF5 group per skeleton; `voxel_size` (z, y, x; nm) turns voxels into nm."""
    ids: list[NDArray[np.uint64]] = []
    positions: list[NDArray[np.float64]] = []
    edges: list[NDArray[np.int64]] = []
    rows = 0
    try:
        with h5py.File(path, "r") as file:
            for name in sorted(file, key=lambda one: (len(one), one)):
                group = file[name]
                if not (name.isdecimal() and isinstance(group, h5py.Group) and {"vertices", "edges"} <= set(group)):
                    raise InputError(
                        f"{path} must hold one group per skeleton, named by its id, with vertices and edges; it holds"
                        f" {name!r}"
                    )
                vertices, links = group["vertices"][()], np.asarray(group["edges"][()], np.int64).reshape(-1, 2)
                positions.append(_in_nm(vertices, voxel_size, path))
                ids.append(np.full(len(vertices), int(name), np.uint64))
                edges.append(links + rows)
                rows += len(vertices)
    except OSError as error:
        raise VolumeError(f"cannot read {path}: {str(error).splitlines()[0][:200]}") from None
    if not ids:
        raise InputError(f"{path} must hold one group per skeleton, named by its id; it is empty")
    return NodeTable.of(path, np.concatenate(ids), np.concatenate(positions), np.concatenate(edges), voxel_size)


def _in_nm(vertices: NDArray[Any], voxel_size: Sequence[float] | None, path: Path) -> NDArray[np.float64]:
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise InputError(f"{path}: vertices must be (n, 3), z, y, x; got {vertices.shape}")
    if vertices.dtype.kind == "f":
        return vertices.astype(np.float64)
    if voxel_size is None:
        raise InputError(
            f"{path} holds whole numbers, so voxels, and tells no voxel size; give --voxel-size z,y,x in nm"
        )
    return vertices * np.asarray(voxel_size, np.float64)


class _Graph:
    """Stands for the graph of AxonEM, `NetworkXGraphLite`: whatever its state says."""


class _Links(dict[Any, Any]):
    """Stands for SciPy's dictionary of keys: (row, column) to length."""


class _Reader(pickle.Unpickler):
    """Makes numbers, arrays and the two containers above; names no other class and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name in the pickle stands for."""
        if name == "NetworkXGraphLite" or name.endswith("ViewerLite"):
            return _Graph
        if module.startswith("scipy.sparse") and name in ("dok_matrix", "dok_array"):
            return _Links
        plain = {("numpy", "ndarray"), ("numpy", "dtype"), ("builtins", "dict"), ("copyreg", "_reconstructor")}
        arrays = ("numpy.core.multiarray", "numpy._core.multiarray")
        if (module, name) in plain or (module in arrays and name in ("_reconstruct", "scalar")):
            return super().find_class(module, name)
        raise InputError(f"names {module}.{name}")


def read_axonem(path: Path) -> NodeTable:
    """Read the pickle of AxonEM, without running what may be in it."""
    try:
        with path.open("rb") as file:
            graph, size = _Reader(file).load(), _Reader(file).load()
        names = list(graph.node_attributes)
        nodes, links = np.asarray(graph._nodes), graph._edges
        columns = [names.index(one) for one in ("skeleton_id", "z", "y", "x")]
        if nodes.ndim != 2 or nodes.shape[1] != len(names):
            raise InputError(f"has nodes of shape {nodes.shape}, for {', '.join(names)}")
        edges = np.array(list(links or getattr(links, "_dict", ())), np.int64)
    except _DAMAGE as error:
        raise InputError(
            f"{path} is a pickle, which can run code when it is read, and not the skeletons of AxonEM, the only one"
            f" that is: {str(error)[:200]}; save its skeletons as npz or SWC"
        ) from None
    table = nodes[:, columns]
    return NodeTable.of(path, table[:, 0], table[:, 1:], edges, size)
