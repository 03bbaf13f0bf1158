"""Flips, transposes and crops of affinities, and links moved to the other end.

A flip turns the direction of every link along its axis: what was stored at the higher end now lies at the lower one.
Whoever flips the values alone has moved all links by one voxel, which blurs an average over flips and cuts objects one
voxel beside their boundary, without any error. Here the offsets are flipped too, so nothing is lost and nothing has
moved; `with_offsets` then brings links to the channels and ends that a decoder, or an average, needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.segmentation.affinities import Affinities, Offset, check_offsets, inside_of


def flip(affinities: Affinities, axes: Sequence[int]) -> Affinities:
    """Mirror affinities along axes 0 z, 1 y, 2 x.

    Returns
    -------
    Affinities
        Views of the values, without a copy; the offsets' components along the axes change sign.

    Raises
    ------
    InputError
        If an axis is not 0, 1 or 2, or is given twice.

    Examples
    --------
    >>> row = Affinities(np.array([0, 0.5, 1], np.float32).reshape(1, 1, 1, 3), ((0, 0, -1),))
    >>> turned = flip(row, [2])
    >>> turned.values.ravel().tolist(), turned.offsets
    ([1.0, 0.5, 0.0], ((0, 0, 1),))
    """
    if len(set(axes)) < len(axes) or not set(axes) <= {0, 1, 2}:
        raise InputError(f"axes must be different ones of 0 (z), 1 (y), 2 (x); got {axes!r}")
    signs = [-1 if axis in axes else 1 for axis in range(3)]
    places = tuple(axis + 1 for axis in axes)
    offsets = tuple((z * signs[0], y * signs[1], x * signs[2]) for z, y, x in affinities.offsets)
    mask = None if affinities.mask is None else np.flip(affinities.mask, places)
    return Affinities(np.flip(affinities.values, places), offsets, mask)


def transpose(affinities: Affinities, order: Sequence[int]) -> Affinities:
    """Reorder the axes: axis k of the result is axis ``order[k]`` of the input, 0 z, 1 y, 2 x.

    Returns
    -------
    Affinities
        Views of the values, without a copy; the components of the offsets are reordered.

    Raises
    ------
    InputError
        If the order is no permutation of 0, 1, 2.

    Examples
    --------
    >>> transpose(Affinities(np.zeros((3, 2, 4, 5), np.float32)), (0, 2, 1)).offsets
    ((-1, 0, 0), (0, 0, -1), (0, -1, 0))
    """
    if sorted(order) != [0, 1, 2]:
        raise InputError(f"order must be a permutation of 0, 1, 2; got {order!r}")
    a, b, c = order
    places = (0, a + 1, b + 1, c + 1)
    offsets = tuple((row[a], row[b], row[c]) for row in affinities.offsets)
    mask = None if affinities.mask is None else affinities.mask.transpose(places)
    return Affinities(affinities.values.transpose(places), offsets, mask)


def crop(affinities: Affinities, box: Box) -> Affinities:
    """Cut out a box; links that leave it become 0 and count no longer.

    Returns
    -------
    Affinities
        Of the box's shape; a copy.

    Raises
    ------
    InputError
        If the box does not lie inside.

    Examples
    --------
    >>> row = Affinities(np.array([0, 0.5, 1], np.float32).reshape(1, 1, 1, 3), ((0, 0, -1),))
    >>> crop(row, Box((0, 0, 1), (1, 1, 3))).values.tolist()
    [[[[0.0, 1.0]]]]
    """
    if len(box.start) != 3 or not Box.of_shape(affinities.shape).contains(box):
        raise InputError(f"box must lie inside the extent {affinities.shape}; got start {box.start}, stop {box.stop}")
    here = (slice(None), *box.slices)
    values: NDArray[Any] = affinities.values[here].copy()
    clear_leaving(values, affinities.offsets)
    mask = None if affinities.mask is None else affinities.mask[here].copy()
    return Affinities(values, affinities.offsets, mask)


def clear_leaving(values: NDArray[Any], offsets: Sequence[Offset]) -> None:
    """Set links that leave the volume to 0, in place.

    >>> values = np.ones((1, 1, 1, 3))
    >>> clear_leaving(values, [(0, 0, -1)])
    >>> values.tolist()
    [[[[0.0, 1.0, 1.0]]]]
    """
    for channel, offset in zip(values, offsets):
        for axis, step in enumerate(offset):
            along = np.moveaxis(channel, axis, 0)
            along[: max(0, -step)] = 0
            along[max(0, along.shape[0] - max(0, step)) :] = 0


def with_offsets(affinities: Affinities, offsets: Sequence[Sequence[int]]) -> Affinities:
    """Select and reorder channels, and move links to the end that stores them under the wanted offsets.

    The channel o is the one stored under o, or the one under -o moved by o voxels: :math:`a_o(v) = a_{-o}(v + o)`.

    Parameters
    ----------
    affinities
        Any; where they already have these offsets, they come back as they are.
    offsets
        One (z, y, x) per channel of the result, e.g. `neuropil.segmentation.affinities.NEAREST`.

    Returns
    -------
    Affinities
        Links that leave the volume are 0.

    Raises
    ------
    InputError
        If there is no link for one of the offsets.

    Examples
    --------
    >>> row = Affinities(np.array([0.5, 1, 0], np.float32).reshape(1, 1, 1, 3), ((0, 0, 1),))
    >>> with_offsets(row, [(0, 0, -1)]).values.tolist()
    [[[[0.0, 0.5, 1.0]]]]
    """
    wanted = check_offsets(offsets)
    if wanted == affinities.offsets:
        return affinities
    values = np.zeros((len(wanted), *affinities.shape), affinities.values.dtype)
    mask = None if affinities.mask is None else np.zeros(values.shape, np.bool_)
    for c, offset in enumerate(wanted):
        source, place = _stored(affinities, offset)
        inside = inside_of(affinities.shape, offset)
        values[(c, *inside)] = affinities.values[source][place]
        if mask is not None and affinities.mask is not None:
            mask[(c, *inside)] = affinities.mask[source][place]
    return Affinities(values, wanted, mask)


def known_values(affinities: Affinities) -> NDArray[Any]:
    """Return the values with links that are not known at 0, so that they join nothing; a copy only where there are any.

    >>> row = Affinities(np.ones((1, 1, 1, 2), np.float32), ((0, 0, -1),), np.zeros((1, 1, 1, 2), bool))
    >>> known_values(row).tolist()
    [[[[0.0, 0.0]]]]
    """
    if affinities.mask is None or bool(affinities.mask.all()):
        return affinities.values
    return np.where(affinities.mask, affinities.values, affinities.values.dtype.type(0))


def channels_of(offsets: Sequence[Offset], wanted: Sequence[Offset]) -> slice:
    """Return the channels, as few as one slice can, that hold the links of all wanted offsets, at either end.

    Raises
    ------
    InputError
        If there is no link for one of them.

    Examples
    --------
    >>> channels_of([(0, 0, 9), (0, 0, 1), (0, -1, 0), (0, 9, 0)], [(0, -1, 0), (0, 0, -1)])
    slice(1, 3, None)
    """
    found = [_channel(offsets, offset) for offset in wanted]
    return slice(min(found), max(found) + 1)


def _channel(offsets: Sequence[Offset], offset: Offset) -> int:
    """Return the channel that holds the links of an offset, or of that which leads back."""
    z, y, x = offset
    back = (-z, -y, -x)
    for stored in (offset, back):
        if stored in offsets:
            return offsets.index(stored)
    raise InputError(f"affinities have no links {offset} or {back}; theirs are {tuple(offsets)}")


def _stored(affinities: Affinities, offset: Offset) -> tuple[int, tuple[slice, slice, slice]]:
    """Return the channel that holds the links of an offset, and where, in the order of the voxels they leave from."""
    channel = _channel(affinities.offsets, offset)
    return channel, inside_of(affinities.shape, affinities.offsets[channel])


def cut_masked(values: NDArray[Any], masked: NDArray[np.bool_]) -> None:
    """Set nearest links to 0 that have an end where `masked`, (z, y, x), is true, in place.

    `values` are those of the links (-1, 0, 0), (0, -1, 0), (0, 0, -1), (3, z, y, x).

    >>> values = np.ones((3, 1, 1, 4))
    >>> cut_masked(values, np.array([[[False, True, False, False]]]))
    >>> values[2].tolist()
    [[[1.0, 0.0, 0.0, 1.0]]]
    """
    for axis, channel in enumerate(values):
        channel[masked] = 0
        np.moveaxis(channel, axis, 0)[1:][np.moveaxis(masked, axis, 0)[:-1]] = 0
