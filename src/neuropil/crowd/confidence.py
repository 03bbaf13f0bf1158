"""How sure a fused annotation is of each voxel: the weighted share of annotators who agree with it there.

An annotator agrees about a voxel if they put it into the object that the fused one is for them (either is the greatest
part of the other), and if they draw a border to each of its six neighbours where the fused annotation has one, and
nowhere else. The least of these seven shares counts. So a merge that one annotator made lowers confidence where the
fused border runs, a split along the plane of the split, a shifted border in the strip between both; not in the inside
of large objects, where there is nothing wrong to learn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuropil.crowd.agreement import Atoms


def voxel_confidence(
    atoms: Atoms, labels: NDArray[np.int64], weights: NDArray[np.float64], *, unknown: bool = False
) -> NDArray[np.float32]:
    """Return the confidence of each voxel.

    Parameters
    ----------
    atoms
        Atoms of the annotations.
    labels
        int64 (a,), fused label of each atom, 0 is background.
    weights
        float64 (k,), of annotators, adding up to 1.
    unknown
        Whether background of an annotator is no opinion.

    Returns
    -------
    ndarray of float32
        (z, y, x), in [0, 1]; 0 where nobody has an opinion.

    Examples
    --------
    >>> from neuropil.crowd.agreement import cut_into_atoms
    >>> atoms = cut_into_atoms([[[[1, 1, 1, 1]]], [[[1, 1, 2, 2]]], [[[1, 1, 2, 2]]]])
    >>> voxel_confidence(atoms, np.array([0, 1, 2]), np.full(3, 1 / 3)).round(2).tolist()
    [[[1.0, 0.6700000166893005, 0.6700000166893005, 1.0]]]
    """
    opinion = atoms.ids >= 0 if unknown else np.ones(atoms.ids.shape, bool)
    agree = np.stack([_same_object(objects, labels, atoms.sizes) for objects in atoms.ids.T], axis=1)
    confidence = _share(agree, opinion, weights)[atoms.codes].astype(np.float32)
    for axis in range(3):
        # views along the axis, so that one code serves all three
        codes, out = np.moveaxis(atoms.codes, axis, 0), np.moveaxis(confidence, axis, 0)
        z, y, x = np.nonzero(codes[1:] != codes[:-1])
        if z.size == 0:
            continue
        u, v = codes[z, y, x].astype(np.int64), codes[z + 1, y, x].astype(np.int64)
        pairs, entry = np.unique(u * labels.size + v, return_inverse=True)
        share = _link_share(atoms.ids, labels, (pairs // labels.size, pairs % labels.size), weights, unknown=unknown)
        of_link = share[entry].astype(np.float32)
        for here in (z, z + 1):  # no voxel is listed twice in one of the two
            out[here, y, x] = np.minimum(out[here, y, x], of_link)
    return confidence


def _share(agree: NDArray[np.bool_], opinion: NDArray[np.bool_], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weighted share of opinions that agree; 0 where there is none."""
    heard = opinion @ weights
    return np.asarray((agree & opinion) @ weights / np.maximum(heard, 1e-12))


def _same_object(
    objects: NDArray[np.int64], labels: NDArray[np.int64], sizes: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Tell for each atom whether an annotator's object and the fused one are the greatest part of each other."""
    both = (objects >= 0) & (labels > 0)
    agree = (objects < 0) & (labels == 0)
    pairs, entry = np.unique(np.stack([objects[both], labels[both]]), axis=1, return_inverse=True)
    shared = np.bincount(entry.reshape(-1), sizes[both])
    is_greatest = np.zeros(shared.size, bool)
    for side in pairs:
        order = np.lexsort((-shared, side))
        first = np.concatenate([[True], np.diff(side[order]) != 0])[: order.size]
        is_greatest[order[first]] = True
    agree[both] = is_greatest[entry.reshape(-1)]
    return np.asarray(agree)


def _link_share(
    ids: NDArray[np.int64],
    labels: NDArray[np.int64],
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
    weights: NDArray[np.float64],
    *,
    unknown: bool,
) -> NDArray[np.float64]:
    """Return the share of annotators who agree whether two touching atoms are one object, for each pair."""
    u, v = pairs
    fused = (labels[u] == labels[v]) & (labels[u] > 0)
    told = (ids[u] == ids[v]) & (ids[u] >= 0)
    opinion = (ids[u] >= 0) & (ids[v] >= 0) if unknown else np.ones(told.shape, bool)
    share = _share(told == fused[:, None], opinion, weights)
    return np.where(opinion.any(axis=1), share, 1.0)  # nobody disagrees about a link that nobody saw
