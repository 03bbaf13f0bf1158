"""Atoms, the voxels that no annotation tells apart, and how far annotators agree with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.errors import InputError
from neuropil.labels import relabel

_LEAST, _MOST = 0.55, 0.99  # reliability: a spammer keeps a trace of weight, nobody is infallible


@dataclass(frozen=True)
class Atoms:
    """Sets of voxels that have the same id in every annotation.

    Attributes
    ----------
    codes
        uint64 (z, y, x), the atom of each voxel.
    ids
        int64 (a, k), the object of annotator k that the atom is part of, numbered over all annotators; -1 for none.
    sizes
        float64 (a,), voxels; 0 for atom 0 where it is there only to be background.
    """

    codes: NDArray[np.uint64]
    ids: NDArray[np.int64]
    sizes: NDArray[np.float64]

    def only(self, atoms: NDArray[np.bool_]) -> Atoms:
        """Return some of the atoms, a mask (a,); codes still count all of them."""
        return replace(self, ids=self.ids[atoms], sizes=self.sizes[atoms])


def cut_into_atoms(annotations: Sequence[ArrayLike]) -> Atoms:
    """Find the atoms of several annotations.

    Parameters
    ----------
    annotations
        Labels, integers >= 0, (z, y, x), all of one shape.

    Raises
    ------
    InputError
        If there is none, shapes differ, or labels are no labels.

    Examples
    --------
    >>> atoms = cut_into_atoms([[[[5, 5, 0]]], [[[7, 8, 8]]]])
    >>> atoms.codes.tolist(), atoms.ids.tolist(), atoms.sizes.tolist()
    ([[[2, 3, 1]]], [[-1, -1], [-1, 2], [0, 1], [0, 2]], [0.0, 1.0, 1.0, 1.0])
    """
    if len(annotations) == 0:
        raise InputError("annotations must be at least one; got none")
    codes: NDArray[np.uint64] | None = None
    columns: list[NDArray[np.int64]] = []
    first = 0
    for k, annotation in enumerate(annotations):
        made = relabel(annotation)
        if made.labels.ndim != 3:
            raise InputError(f"annotations must have axes (z, y, x); number {k} has the shape {made.labels.shape}")
        if codes is None:
            codes = np.zeros(made.labels.shape, np.uint64)
        if made.labels.shape != codes.shape:
            raise InputError(
                f"annotations must have one shape; got {codes.shape} and, of number {k}, {made.labels.shape}"
            )
        count = np.uint64(made.ids.size)
        joined = relabel(codes * count + made.labels)
        codes = joined.labels
        before, here = joined.ids // count, (joined.ids % count).astype(np.int64)
        columns = [column[before] for column in columns]
        columns.append(np.where(here > 0, here - 1 + first, -1))
        first += int(count) - 1
    assert codes is not None
    ids = np.stack(columns, axis=1)
    return Atoms(codes, ids, np.bincount(codes.reshape(-1).astype(np.int64), minlength=ids.shape[0]).astype(np.float64))


def reliability(atoms: Atoms) -> NDArray[np.float64]:
    """Estimate how reliable annotators are, from how far they agree with each other.

    The least-squares solution of log F_jk = log r_j + log r_k over all pairs, F the Rand F of two annotations where
    both have an object.

    Returns
    -------
    ndarray of float64
        (k,), in [0.55, 0.99]; two annotators are equally reliable, and one alone is given 0.99.

    Examples
    --------
    >>> good, bad = [[[1, 1, 2, 2, 3, 3]]], [[[1, 2, 1, 2, 1, 2]]]
    >>> reliability(cut_into_atoms([good, good, good, bad])).round(2).tolist()
    [0.99, 0.99, 0.99, 0.55]
    """
    count = atoms.ids.shape[1]
    pairs = [(j, k) for j in range(count) for k in range(j)]
    if not pairs:
        return np.full(count, _MOST)
    rows, right = np.zeros((len(pairs), count)), np.zeros(len(pairs))
    for row, (j, k) in enumerate(pairs):
        rows[row, [j, k]] = 1
        right[row] = np.log(max(_rand_f(atoms, j, k), 1e-6))
    found = np.linalg.lstsq(rows, right, rcond=None)[0]
    return np.asarray(np.clip(np.exp(found), _LEAST, _MOST), np.float64)


def _rand_f(atoms: Atoms, j: int, k: int) -> float:
    """Return 2 sum n_ij^2 / (sum s_i^2 + sum t_j^2) over voxels where both have an object; 0 if there is none."""
    both = (atoms.ids[:, j] >= 0) & (atoms.ids[:, k] >= 0)
    a, b, n = atoms.ids[both, j], atoms.ids[both, k], atoms.sizes[both]
    if n.sum() == 0:
        return 0.0
    _, pair = np.unique(np.stack([a, b]), axis=1, return_inverse=True)
    shared, one, other = (float((np.bincount(of, n) ** 2).sum()) for of in (pair.reshape(-1), a, b))
    return 2 * shared / (one + other)
