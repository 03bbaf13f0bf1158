"""SWC, the text in which most programs keep neurons: one vertex per line, `id type x y z radius parent`.

Lengths are micrometres here, as most readers take them for, and a comment says so; x, y, z are turned from and to z, y,
x in this file alone. Each tree begins with a root, whose parent is -1, and a parent comes before its children. Cannon
et al. 1998, doi:10.1016/S0165-0270(98)00091-0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csgraph

from neuropil.errors import InputError
from neuropil.skeletons.skeleton import SOMA, Skeleton

_NM_PER_UNIT = {"nm": 1.0, "um": 1000.0, "µm": 1000.0, "micrometer": 1000.0, "mm": 1e6}


def to_swc(skeleton: Skeleton, *, voxel_size: Sequence[float] | None = None) -> str:
    """Write a skeleton as SWC text.

    Parameters
    ----------
    skeleton
        Without loops; several pieces become several trees, those of most vertices first. A soma is the root of its
        tree, else the vertex that comes first.
    voxel_size
        (z, y, x), nm, of the volume the skeleton is from; told in a comment.

    Returns
    -------
    str
        Ending with a line break.

    Raises
    ------
    InputError
        If the skeleton has loops, which SWC cannot hold.

    Examples
    --------
    >>> line = Skeleton.of([[0, 0, 0], [0, 3000, 4000]], [[0, 1]], [500, 500])
    >>> print(to_swc(line), end="")
    # unit: um
    # id type x y z radius parent
    1 0 0.0 0.0 0.0 0.5 -1
    2 0 4.0 3.0 0.0 0.5 1
    """
    if not skeleton.is_forest:
        raise InputError("skeleton must be without loops to be written as SWC; remove_loops removes them")
    order, parents = _topological(skeleton)
    lines = ["# unit: um"]
    if voxel_size is not None:
        lines.append("# voxel_size z y x nm: " + " ".join(str(float(length)) for length in voxel_size))
    lines.append("# id type x y z radius parent")
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(1, order.size + 1)
    rows = np.column_stack([skeleton.vertices_nm[order, ::-1], skeleton.radii_nm[order]]) / _NM_PER_UNIT["um"]
    for k, (vertex, row) in enumerate(zip(order.tolist(), rows.round(9).tolist()), start=1):
        parent = int(place[parents[vertex]]) if parents[vertex] >= 0 else -1
        lines.append(f"{k} {skeleton.kinds[vertex]} {' '.join(map(str, row))} {parent}")
    return "\n".join(lines) + "\n"


def from_swc(text: str, *, name: str = "SWC", unit_nm: float | None = None) -> Skeleton:
    """Read SWC text.

    Parameters
    ----------
    text
        Lines `id type x y z radius parent`, in any order, of one or several trees; `#` begins a comment.
    name
        What errors call the text, for example the file's name.
    unit_nm
        Length of the unit in nm. If omitted, what a comment `# unit: um` says, else micrometres.

    Returns
    -------
    Skeleton
        Vertices in the order of the lines.

    Raises
    ------
    InputError
        With the number of the line: not seven numbers, an id twice, a parent that is not there, a loop.

    Examples
    --------
    >>> from_swc("1 1 0 0 0 5 -1\\n2 3 4 3 0 1 1").length_nm
    5000.0
    """
    rows, numbers, unit = _rows(text, name)
    unit_nm = unit if unit_nm is None else unit_nm
    place: dict[int, int] = {}
    for k, row in enumerate(rows):
        if int(row[0]) in place:
            raise InputError(f"{name}, line {numbers[k]}: id {int(row[0])} is there twice")
        place[int(row[0])] = k
    edges = []
    for k, row in enumerate(rows):
        parent = int(row[6])
        if parent >= 0 and (parent not in place or parent == int(row[0])):
            wrong = "its own parent" if parent == int(row[0]) else f"without its parent, {parent}"
            raise InputError(f"{name}, line {numbers[k]}: vertex {int(row[0])} is {wrong}")
        if parent >= 0:
            edges.append((place[parent], k))
    table = np.array(rows, np.float64).reshape(-1, 7)
    skeleton = Skeleton.of(table[:, 4:1:-1] * unit_nm, edges, table[:, 5] * unit_nm, table[:, 1].clip(0, 255))
    if not skeleton.is_forest:
        raise InputError(f"{name} must hold trees; the parents of some vertices go in a circle")
    return skeleton


def _rows(text: str, name: str) -> tuple[list[list[float]], list[int], float]:
    """Return the numbers of each line of data, the numbers of these lines, and the length of the unit in nm."""
    rows, numbers, unit = [], [], _NM_PER_UNIT["um"]
    for number, line in enumerate(text.splitlines(), start=1):
        data, _, comment = line.partition("#")
        key, colon, value = comment.strip().lower().partition(":")
        if colon and key.strip() in ("unit", "units") and value.strip() in _NM_PER_UNIT:
            unit = _NM_PER_UNIT[value.strip()]
        if not data.strip():
            continue
        try:
            row = [float(word) for word in data.replace(",", " ").split()]
        except ValueError:
            row = []
        if len(row) != 7 or not np.isfinite(row).all() or any(row[k] != int(row[k]) for k in (0, 1, 6)):
            raise InputError(
                f"{name}, line {number}: must be seven numbers, id type x y z radius parent; got {line.strip()[:80]!r}"
            )
        rows.append(row)
        numbers.append(number)
    return rows, numbers, unit


def _topological(skeleton: Skeleton) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the vertices, each after its parent, and each one's parent, -1 for a root."""
    n = len(skeleton.vertices_nm)
    count, piece = skeleton.components()
    sizes = np.bincount(piece, minlength=count)
    root_first = np.lexsort((np.arange(n), skeleton.kinds != SOMA, piece))
    roots = root_first[np.flatnonzero(np.diff(piece[root_first], prepend=-1))]
    ends = np.concatenate([skeleton.edges, skeleton.edges[:, ::-1]]).T
    graph = coo_array((np.ones(ends.shape[1], np.int8), (ends[0], ends[1])), shape=(n, n)).tocsr()
    order, parents = [np.empty(0, np.int64)], np.full(n, -1, np.int64)
    for root in roots[np.argsort(-sizes[piece[roots]], kind="stable")]:
        found, before = csgraph.depth_first_order(graph, root, directed=True)
        order.append(found.astype(np.int64))
        parents[found] = np.maximum(before[found], -1)  # scipy says -9999 for none
    return np.concatenate(order), parents
