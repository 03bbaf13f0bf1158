"""Affinities that say what they are, and how they are made from labels or from a boundary map.

``values[c, v]`` is the link between the voxels v and v + offsets[c]; 1 means one object. Which end of a link stores its
value is thus the sign of its offset: (0, 0, -1) stores at the higher end, as waterz and gunpowder do, (0, 0, 1) at the
lower one. Key insight: as long as the offsets travel with the values, no change of place (flip, transpose, crop) and no
tool's convention needs a shift of the data, only a change of the offsets; a shift is made once, by whoever needs links
at one end (`neuropil.segmentation.affinity_moves.with_offsets`).

Sources: Turaga et al., Neural Computation 2010 (affinities); Lee et al., arXiv 1706.00120 (long-range offsets); Lee et
al., NIPS 2015 (affinities of a boundary map: x and y are the interior map, z is 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.errors import InputError
from neuropil.segmentation.components import check_boundary

Offset = tuple[int, int, int]
NEAREST: tuple[Offset, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""Links to the neighbours one back in z, y and x."""
LONG_RANGE: tuple[Offset, ...] = (
    *NEAREST,
    (-2, 0, 0), (0, -3, 0), (0, 0, -3),
    (-3, 0, 0), (0, -9, 0), (0, 0, -9),
    (-4, 0, 0), (0, -27, 0), (0, 0, -27),
)  # fmt: skip
"""The twelve links of arXiv 1706.00120, for sections of about 5 times a pixel's size; the nearest ones come first."""

UNKNOWN_LINK = 255
"""What `link_labels` writes where a link is not known."""

Rule = Literal["interior", "min", "mean"]


@dataclass(frozen=True)
class Affinities:
    """Affinities with what is needed to read them.

    Attributes
    ----------
    values
        (c, z, y, x), float32 in [0, 1], or uint8 where s means s / 255; 1 = same object. Read-only.
    offsets
        One (z, y, x) in voxels per channel: ``values[c, v]`` is the link of v and v + offsets[c].
    mask
        bool (c, z, y, x), False where a link is not known; None: all links are known. Links that leave the volume
        never count, whatever it says.

    Raises
    ------
    InputError
        If shapes do not fit, values lie outside [0, 1] or are NaN, or an offset is 0 or given twice.

    Examples
    --------
    >>> Affinities(np.zeros((3, 1, 2, 2), np.float32)).known[2].tolist()
    [[[False, True], [False, True]]]
    """

    values: NDArray[np.float32] | NDArray[np.uint8]
    offsets: tuple[Offset, ...] = NEAREST
    mask: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "offsets", check_offsets(self.offsets))
        object.__setattr__(self, "values", _checked_values(self.values, len(self.offsets)))
        if self.mask is not None:
            mask = np.asarray(self.mask)
            if mask.dtype != np.bool_ or mask.shape != self.values.shape:
                raise InputError(
                    f"mask must be bool of the affinities' shape {self.values.shape}; got {mask.dtype} {mask.shape}"
                )
            object.__setattr__(self, "mask", mask)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Extent z, y, x in voxels."""
        z, y, x = self.values.shape[1:]
        return (z, y, x)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Links that count, a new bool (c, z, y, x): both ends inside the volume, and not masked."""
        known = np.zeros(self.values.shape, np.bool_)
        for c, offset in enumerate(self.offsets):
            inside = (c, *inside_of(self.shape, offset))
            known[inside] = True if self.mask is None else self.mask[inside]
        return known


class AffinityTargets(NamedTuple):
    """What a network learns: affinities float32 (c, z, y, x), 0 or 1, and mask bool (c, z, y, x), True where known."""

    affinities: NDArray[np.float32]
    mask: NDArray[np.bool_]


def check_offsets(offsets: Sequence[Sequence[int]]) -> tuple[Offset, ...]:
    """Return offsets as a tuple of (z, y, x).

    Raises
    ------
    InputError
        If there is none, one is not three whole numbers, is 0, or is there twice.

    Examples
    --------
    >>> check_offsets([[-1, 0, 0]])
    ((-1, 0, 0),)
    """
    table = np.asarray(offsets)
    if table.ndim != 2 or table.shape[1] != 3 or table.shape[0] == 0 or table.dtype.kind not in "iu":
        raise InputError(f"offsets must list one (z, y, x) of whole numbers per channel; got {offsets!r}")
    rows: tuple[Offset, ...] = tuple((int(z), int(y), int(x)) for z, y, x in table)
    if len(set(rows)) < len(rows) or (0, 0, 0) in rows:
        raise InputError(f"offsets must differ from each other and from (0, 0, 0); got {rows}")
    return rows


def inside_of(shape: Sequence[int], offset: Offset) -> tuple[slice, slice, slice]:
    """Return where v and v + offset both lie inside a volume: slices of v.

    >>> inside_of((4, 5, 6), (-1, 0, 2))
    (slice(1, 4, None), slice(0, 5, None), slice(0, 4, None))
    """
    z, y, x = (slice(min(n, max(0, -d)), max(0, min(n, n - d))) for n, d in zip(shape, offset))
    return (z, y, x)


def affinities_from_labels(
    labels: ArrayLike, offsets: Sequence[Sequence[int]] = NEAREST, *, unlabelled: ArrayLike | None = None
) -> AffinityTargets:
    r"""Return the affinities of a perfect network for these labels, and which of them are known.

    .. math:: a_c(v) = [l(v) = l(v + o_c) \ne 0]

    Parameters
    ----------
    labels
        (z, y, x) integers >= 0, any uint64 ids; 0 is background, which is linked to nothing, not even to itself.
    offsets
        One (z, y, x) in voxels per channel, e.g. `NEAREST` or `LONG_RANGE`.
    unlabelled
        Boolean (z, y, x), True where nobody knows the label: links with such an end are 0 and masked.

    Returns
    -------
    AffinityTargets
        Links that leave the volume are 0 and masked; links to background are 0 and known.

    Raises
    ------
    InputError
        If labels are no integers (z, y, x) >= 0, or offsets or `unlabelled` do not fit.

    Examples
    --------
    >>> affinities, mask = affinities_from_labels([[[1, 1, 0, 2, 2]]], [(0, 0, -1)])
    >>> affinities.tolist(), mask.tolist()
    ([[[[0.0, 1.0, 0.0, 0.0, 1.0]]]], [[[[False, True, True, True, True]]]])
    """
    rows = check_offsets(offsets)
    ids = np.asarray(labels)
    if ids.ndim != 3 or ids.dtype.kind not in "ui":
        raise InputError(f"labels must be integers (z, y, x); got {ids.dtype} of shape {ids.shape}")
    if ids.dtype.kind == "i" and ids.size and int(ids.min()) < 0:
        raise InputError(f"labels must be >= 0, unlabelled voxels are given as unlabelled; got {int(ids.min())}")
    skipped = None if unlabelled is None else np.asarray(unlabelled)
    if skipped is not None and (skipped.dtype != np.bool_ or skipped.shape != ids.shape):
        raise InputError(
            f"unlabelled must be bool of the labels' shape {ids.shape}; got {skipped.dtype} of shape {skipped.shape}"
        )
    made = link_labels(ids, rows, skipped)
    return AffinityTargets((made == 1).astype(np.float32), made != UNKNOWN_LINK)


def link_labels(
    labels: NDArray[Any], offsets: Sequence[Offset], unlabelled: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Return `affinities_from_labels` and its mask as one array: a fifth of the memory, and unchecked.

    Parameters
    ----------
    labels, unlabelled
        (z, y, x), as for `affinities_from_labels`.
    offsets
        (z, y, x) in voxels per channel.

    Returns
    -------
    ndarray of uint8
        (c, z, y, x): 0, 1, or UNKNOWN_LINK where a link leaves the volume or has an unlabelled end.

    Examples
    --------
    >>> link_labels(np.array([[[3, 3, 0, 3]]]), [(0, 0, -1)]).tolist()
    [[[[255, 1, 0, 0]]]]
    """
    made = np.full((len(offsets), *labels.shape), UNKNOWN_LINK, np.uint8)
    for links, (z, y, x) in zip(made, offsets):
        here, there = inside_of(labels.shape, (z, y, x)), inside_of(labels.shape, (-z, -y, -x))  # v, and v + offset
        ids = labels[here]
        links[here] = (ids == labels[there]) & (ids != 0)
        if unlabelled is not None:
            links[here][unlabelled[here] | unlabelled[there]] = UNKNOWN_LINK
    return made


def _checked_values(values: ArrayLike, channels: int) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Return a read-only view, float32 or uint8, of affinities with so many channels."""
    array = np.asarray(values)
    if array.ndim != 4 or array.shape[0] != channels:
        raise InputError(f"affinities must have shape ({channels}, z, y, x), one channel per offset; got {array.shape}")
    if array.dtype != np.uint8:
        if array.dtype.kind != "f":
            raise InputError(f"affinities must be floats in [0, 1] or uint8; got {array.dtype}")
        array = array.astype(np.float32, copy=False)
        if array.size and not (array.min() >= 0 and array.max() <= 1):
            raise InputError(f"affinities must lie in [0, 1] without NaN; got {array.min():g} ... {array.max():g}")
    view = array.view()
    view.flags.writeable = False
    return view


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
