"""Connected components: of a mask, of a thresholded boundary map, of strong links, and of labels section by section.

The simplest segmentation of a boundary map is its interior cut into connected pieces, in 2-D within each section. Truth
scored in 2-D needs the same treatment, since one neurite may show as several pieces in a section.

Source: the 2-D evaluation of Lee et al., "Recursive training of 2D-3D convolutional networks for neuronal boundary
detection", NIPS 2015. Labelling is done by connected-components-3d (Silversmith 2021).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import cc3d
import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.errors import InputError
from neuropil.labels import relabel
from neuropil.segmentation.watershed import check_affinities, label_links, slabs_of, stored_thresholds

Connectivity = Literal[4, 6, 8, 18, 26]


def connected_components(
    mask: ArrayLike, *, per_section: bool = False, connectivity: Connectivity | None = None
) -> NDArray[np.uint64]:
    """Label the connected pieces of a mask.

    Parameters
    ----------
    mask
        Boolean, (z, y, x).
    per_section
        Whether pieces end at the section; their ids are unique over the volume all the same.
    connectivity
        Neighbours of a voxel: 4 (the default) or 8 per section, 6 (the default), 18 or 26 otherwise.

    Returns
    -------
    ndarray of uint64
        (z, y, x); 0 where the mask is false, 1 ... n in raster order of the first voxels of the pieces.

    Raises
    ------
    InputError
        If the mask is not boolean with three axes, or the connectivity is not one of those above.

    Examples
    --------
    >>> mask = np.ones((2, 1, 3), bool)
    >>> mask[:, :, 1] = False
    >>> connected_components(mask).tolist()
    [[[1, 0, 2]], [[1, 0, 2]]]
    >>> connected_components(mask, per_section=True).tolist()
    [[[1, 0, 2]], [[3, 0, 4]]]
    """
    array = np.asarray(mask)
    if array.ndim != 3 or array.dtype != np.bool_:
        raise InputError(f"mask must be boolean with axes (z, y, x); got {array.dtype} of shape {array.shape}")
    return _components(array, per_section, connectivity)


def components_of_map(
    boundary: ArrayLike, threshold: float, *, per_section: bool = True, connectivity: Connectivity | None = None
) -> NDArray[np.uint64]:
    """Label the connected pieces of the interior of a boundary map: voxels with a probability below `threshold`.

    A voxel at exactly the threshold is boundary; in terms of the interior probability p = 1 - boundary, the interior
    is p > 1 - `threshold`.

    Parameters
    ----------
    boundary
        (z, y, x), probability of boundary: floats in [0, 1], or uint8 where s means s / 255.
    threshold
        Probability of boundary, in [0, 1].
    per_section, connectivity
        As for `connected_components`.

    Returns
    -------
    ndarray of uint64
        (z, y, x); 0 on boundary, 1 ... n in raster order.

    Raises
    ------
    InputError
        If the map or the threshold is malformed or out of range.

    Examples
    --------
    >>> components_of_map([[[0.1, 0.5, 0.2]]], 0.5).tolist()
    [[[1, 0, 2]]]
    """
    return _components(interior_of(boundary, threshold), per_section, connectivity)


def interior_of(boundary: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """Tell where a boundary map lies below a threshold; parameters and errors as for `components_of_map`."""
    array = check_boundary(boundary)
    _check_threshold(threshold)
    return array < (threshold * 255 if array.dtype == np.uint8 else np.float32(threshold))


def components_of_affinities(affinities: ArrayLike, threshold: float, *, threads: int = 1) -> NDArray[np.uint64]:
    """Label the pieces that links with an affinity >= `threshold` connect; voxels without such a link are background.

    Parameters
    ----------
    affinities
        (3, z, y, x), as for `neuropil.segmentation.watershed.watershed`.
    threshold
        Affinity, in [0, 1].
    threads
        Threads to share the work, >= 1; the result is the same for any number.

    Returns
    -------
    ndarray of uint64
        (z, y, x); 1 ... n in raster order of the first voxels of the pieces.

    Raises
    ------
    InputError
        If the affinities or the threshold are malformed or out of range.

    Examples
    --------
    >>> chain = np.zeros((3, 1, 1, 5), np.float32)
    >>> chain[2, 0, 0, 1:] = 0.5, 0.2, 0.2, 0.9
    >>> components_of_affinities(chain, 0.5).tolist()
    [[[1, 1, 0, 2, 2]]]
    """
    bits = strong_links(affinities, threshold)
    labels = np.empty(bits.shape, np.uint64)
    if labels.size:
        label_links(bits, slabs_of(bits.shape, threads), labels.reshape(-1), threads)
    return labels


def strong_links(affinities: ArrayLike, threshold: float) -> NDArray[np.uint8]:
    """Return the links with an affinity >= `threshold`, as bits for `neuropil.segmentation.watershed.label_links`.

    Parameters and errors are those of `components_of_affinities`.
    """
    values = check_affinities(affinities)
    _check_threshold(threshold)
    return link_bits(channel >= stored_thresholds(0, threshold, values.dtype)[1] for channel in values)


def inner_links(mask: NDArray[np.bool_], *, per_section: bool = False) -> NDArray[np.uint8]:
    """Return the links between neighbours in a mask, as bits; a voxel without such neighbours has a bit of its own."""
    bits = link_bits(_with_one_before(mask, axis, cut=per_section and axis == 0) for axis in range(3))
    bits |= mask.view(np.uint8) << np.uint8(6)
    return bits


def link_bits(linked: Iterable[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """Return links as bits 0 ... 5, along -z, -y, -x, +z, +y, +x, from whether voxels are linked to those before them.

    >>> link_bits(np.ones((3, 1, 1, 3), bool)).tolist()
    [[[32, 36, 4]]]
    """
    bits = np.zeros(0, np.uint8)
    for axis, channel in enumerate(linked):
        bits = bits if bits.size else np.zeros(channel.shape, np.uint8)
        along, links = np.moveaxis(bits, axis, 0), np.moveaxis(channel.view(np.uint8), axis, 0)[1:]
        along[1:] |= links << np.uint8(axis)
        along[:-1] |= links << np.uint8(axis + 3)
    return bits


def _with_one_before(mask: NDArray[np.bool_], axis: int, *, cut: bool) -> NDArray[np.bool_]:
    linked = np.zeros_like(mask)
    along, inside = np.moveaxis(linked, axis, 0), np.moveaxis(mask, axis, 0)
    if not cut:
        np.logical_and(inside[1:], inside[:-1], out=along[1:])
    return linked


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold must lie in [0, 1]; got {threshold}")


def section_components(labels: ArrayLike, *, connectivity: Literal[4, 8] = 4) -> NDArray[np.uint64]:
    """Give every connected piece of every label in every section an id of its own.

    Pieces of different labels stay apart even where they touch. For truth as pieces of labels > 0, whatever the label,
    call ``connected_components(labels > 0, per_section=True)``.

    Parameters
    ----------
    labels
        Integers >= 0, (z, y, x); any uint64 ids, 0 is background.
    connectivity
        Neighbours of a pixel within its section.

    Returns
    -------
    ndarray of uint64
        (z, y, x); 0 stays 0, pieces are 1 ... n in raster order.

    Raises
    ------
    InputError
        If labels are not integers with three axes, or the connectivity is not one of those above.

    Examples
    --------
    >>> section_components([[[5, 5, 9, 5]], [[5, 5, 9, 9]]]).tolist()
    [[[1, 1, 2, 3]], [[4, 4, 5, 5]]]
    """
    array = np.asarray(labels)
    if array.ndim != 3 or array.dtype.kind not in "bui":
        raise InputError(f"labels must be integers with axes (z, y, x); got {array.dtype} of shape {array.shape}")
    return _components(relabel(array).labels.astype(np.uint32), True, connectivity)  # cc3d takes no id above 2**63


def check_boundary(boundary: ArrayLike) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Return a boundary map as float32 or uint8, a copy only where another float dtype asks for one.

    Parameters
    ----------
    boundary
        (z, y, x), floats in [0, 1] or uint8.

    Raises
    ------
    InputError
        If there are not three axes, or values are of another dtype, outside [0, 1] or NaN.

    Examples
    --------
    >>> check_boundary(np.zeros((1, 2, 2))).dtype
    dtype('float32')
    """
    array = np.asarray(boundary)
    if array.ndim != 3:
        raise InputError(f"boundary must have axes (z, y, x); got shape {array.shape}")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise InputError(f"boundary must be floats in [0, 1] or uint8; got {array.dtype}")
    array = array.astype(np.float32, copy=False)
    if array.size:
        smallest, largest = float(array.min()), float(array.max())
        if not (smallest >= 0 and largest <= 1):
            raise InputError(f"boundary must lie in [0, 1] without NaN; got {smallest:g} ... {largest:g}")
    return array


def _components(array: NDArray[np.generic], per_section: bool, connectivity: Connectivity | None) -> NDArray[np.uint64]:
    """Label the pieces of equal values, section by section or in the whole."""
    allowed: tuple[Connectivity, ...] = (4, 8) if per_section else (6, 18, 26)
    neighbours: Connectivity = allowed[0] if connectivity is None else connectivity
    if neighbours not in allowed:
        raise InputError(f"connectivity must be one of {allowed} when per_section is {per_section}; got {connectivity}")
    out = np.zeros(array.shape, np.uint64)
    if array.size == 0:
        return out
    if array.dtype == np.bool_:
        array = array.view(np.uint8)  # of booleans cc3d 4.1 labels a voxel too many in some shapes
    n = 0
    for part, labels in zip(array, out) if per_section else ((array, out),):
        pieces, count = cc3d.connected_components(_writeable(part), connectivity=neighbours, return_N=True)
        ids = np.zeros(count + 1, np.uint64)
        ids[_by_first_voxel(pieces, count, neighbours)] = np.arange(n + 1, n + count + 1)
        labels[...] = ids[pieces]
        n += count
    return out


def _by_first_voxel(pieces: NDArray[np.unsignedinteger], count: int, connectivity: Connectivity) -> NDArray[np.intp]:
    """Return the ids 1 ... count in raster order of their first voxels; cc3d has that order for faces only."""
    if connectivity in (4, 6):
        return np.arange(1, count + 1)
    first = np.zeros(count + 1, np.intp)
    first[pieces.reshape(-1)[::-1]] = np.arange(pieces.size)[::-1]  # the last one written is the first voxel
    return 1 + np.argsort(first[1:])


def _writeable(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return a contiguous array that cc3d takes: it writes nothing, but refuses arrays closed for writing."""
    return np.require(array, requirements=["C", "W"])
