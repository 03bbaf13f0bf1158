"""Affinities from a boundary map, so that methods for affinity graphs serve networks that predict boundaries.

Two voxels belong together as far as no boundary lies between them; a boundary map knows voxels, not links, so a rule
says how two interior probabilities make one affinity. In stacks whose maps are made section by section the links
between sections are 0, and everything downstream works in 2-D.

Source: the 2-D watershed evaluation of Lee et al., NIPS 2015: x and y affinities are the interior map, z is 0.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.errors import InputError
from neuropil.segmentation.components import check_boundary

Rule = Literal["interior", "min", "mean"]


def affinities_from_boundary_map(
    boundary: ArrayLike, *, per_section: bool = True, rule: Rule = "interior"
) -> NDArray[np.float32]:
    r"""Return nearest-neighbour affinities of a boundary map.

    With the interior probability :math:`p = 1 - \mathrm{boundary}` and w = v + offsets[c]:

    .. math:: a_c(v) = p(v), \quad \min(p(v), p(w)) \quad\text{or}\quad (p(v) + p(w)) / 2

    for the rules "interior", "min" and "mean".

    Parameters
    ----------
    boundary
        (z, y, x), probability of boundary: floats in [0, 1], or uint8 where s means s / 255.
    per_section
        Whether all links along z are 0.
    rule
        How two voxels make a link. "interior" is that of the paper; it puts the boundary between a voxel and its
        predecessors, the other two treat both ends alike.

    Returns
    -------
    ndarray of float32
        (3, z, y, x) in [0, 1], links to the offsets (-1,0,0), (0,-1,0), (0,0,-1); those that leave the volume are 0.

    Raises
    ------
    InputError
        If the map is malformed or the rule unknown.

    Examples
    --------
    >>> affinities_from_boundary_map([[[0.0, 0.75, 0.25]]])[2].tolist()
    [[[0.0, 0.25, 0.75]]]
    >>> affinities_from_boundary_map([[[0.0, 0.75, 0.25]]], rule="min")[2].tolist()
    [[[0.0, 0.25, 0.25]]]
    """
    if rule not in ("interior", "min", "mean"):
        raise InputError(f"rule must be one of interior, min, mean; got {rule!r}")
    array = check_boundary(boundary)
    interior = 1 - array if array.dtype == np.float32 else _levels()[array]
    affinities = np.zeros((3, *interior.shape), np.float32)
    for axis in range(1 if per_section else 0, 3):
        ends = np.moveaxis(interior, axis, 0)
        links = np.moveaxis(affinities[axis], axis, 0)[1:]
        if rule == "interior":
            links[...] = ends[1:]
        elif rule == "min":
            np.minimum(ends[1:], ends[:-1], out=links)
        else:
            np.add(ends[1:], ends[:-1], out=links)
            links *= np.float32(0.5)
    return affinities


def _levels() -> NDArray[np.float32]:
    """Return the interior probability of each 8-bit boundary value."""
    return ((255 - np.arange(256)) / 255).astype(np.float32)
