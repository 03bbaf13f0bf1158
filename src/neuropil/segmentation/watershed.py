"""Watershed of an affinity graph: every voxel flows along its strongest link, plateaus are shared out by distance.

The steepest-ascent graph keeps, per voxel, the links that attain its greatest affinity. Key insight: on that graph
watershed is a purely local affair, linear in the number of links, and raising every affinity above `high` to one
maximum beforehand gives the same basins as merging, afterwards, all basins that touch with an affinity of at least
`high`; so `high` costs nothing. Plateaus that are not maximal are divided breadth first from all their exits at once.

Source: Zlateski and Seung, "Image segmentation by size-dependent single linkage clustering of a watershed basin graph",
arXiv 1505.00249. The programs that go by its name break ties in other ways; see `tiebreak`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NoReturn, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import watershed as _kernel
from neuropil._kernels.linkage import number
from neuropil.errors import InputError
from neuropil.segmentation.threads import run_threads, split

Tiebreak = Literal["index", "cpp", "waterz"]
Id = TypeVar("Id", np.uint32, np.uint64)

# Directions 0 -z, 1 -y, 2 -x, 3 +z, 4 +y, 5 +x, listed so that neighbours come in ascending index ("index") or so that
# the last one wins (the other two).
ORDERS = {"index": (0, 1, 2, 5, 4, 3), "cpp": (2, 1, 0, 5, 4, 3), "waterz": (0, 1, 2, 3, 4, 5)}

_MOST = (1 << 31) - 1  # voxels of a slab, whose places kernels keep in four bytes


@overload
def watershed(
    affinities: ArrayLike, *, low: float, high: float, tiebreak: Tiebreak = "index", threads: int = 1
) -> NDArray[np.uint64]: ...


@overload
def watershed(
    affinities: ArrayLike, *, low: float, high: float, tiebreak: Tiebreak = "index", threads: int = 1, dtype: type[Id]
) -> NDArray[Id]: ...


def watershed(
    affinities: ArrayLike,
    *,
    low: float,
    high: float,
    tiebreak: Tiebreak = "index",
    threads: int = 1,
    dtype: type[Any] = np.uint64,
) -> NDArray[Any]:
    r"""Divide a volume into fragments, the basins of the steepest-ascent graph of its affinities.

    1. Links with affinity <= `low` are dropped; voxels without a link are background. Those >= `high` become equal.
    2. Each voxel v keeps the links that attain :math:`m(v) = \max_w a(v, w)`, directed away from it.
    3. A voxel with several ways out (links that do not come back) keeps the one to the neighbour of lowest index.
    4. A plateau (component of mutual links) with a way out is divided by graph distance to its exits, breadth first
       from all exits in ascending index.
    5. Fragments are the weakly connected components that remain.

    Parameters
    ----------
    affinities
        (3, z, y, x): links of a voxel to its neighbours at (-1,0,0), (0,-1,0) and (0,0,-1); 1 = same object. Floats in
        [0, 1], computed as float32, or uint8, where the stored value s means s / 255. Values of links that
        leave the volume are not used.
    low, high
        Affinities, 0 <= low < high; `high` above 1 means no upper threshold. The same scale for float and uint8 input.
    tiebreak
        Which of equal ways out wins. "index" is the rule of the paper, above. "cpp" is that of the first C++
        implementation, where the last of -x, -y, -z, +x, +y, +z wins and exits are settled only as the division
        reaches them; "waterz" is the same with -z, -y, -x, +z, +y, +x. Without ties all three agree.
    threads
        Threads to share the work, >= 1, each with its slab of sections; the result is the same for any number. The
        division of plateaus, much of the work only where values have many ties, is done by one.
    dtype
        numpy.uint64, or numpy.uint32, which takes half of the memory, for volumes of less than 2**31 voxels.

    Returns
    -------
    ndarray of uint64 or uint32
        (z, y, x); 0 is background, fragments are 1 ... n in raster order of their first voxels, each 6-connected.

    Raises
    ------
    InputError
        If the shape, dtype, range or thresholds break the rules above, or a value is NaN.

    Notes
    -----
    Linear in voxels; takes 9 bytes per voxel, or 5, the output included (and with several threads 16 per fragment).

    Examples
    --------
    A chain of six voxels; the plateau in its middle is divided in half:

    >>> chain = np.zeros((3, 1, 1, 6), np.float32)
    >>> chain[2, 0, 0, 1:] = 0.9, 0.5, 0.5, 0.5, 0.9
    >>> watershed(chain, low=0.0, high=1.0).tolist()
    [[[1, 1, 1, 2, 2, 2]]]
    """
    if tiebreak not in ORDERS:
        raise InputError(f"tiebreak must be one of {', '.join(ORDERS)}; got {tiebreak!r}")
    if not 0 <= low < high:
        raise InputError(f"low and high must satisfy 0 <= low < high; got low {low}, high {high}")
    links = as_links(affinities)
    if dtype not in (np.uint32, np.uint64):
        raise InputError(f"dtype must be numpy.uint32 or numpy.uint64; got {dtype}")
    if dtype == np.uint32 and links[0].size > _MOST:
        raise InputError(f"dtype must be numpy.uint64 for 2**31 voxels or more; got {links[0].size} voxels")
    fragments = np.empty(links.shape[1:], dtype)
    if fragments.size == 0:
        return fragments
    height, width = links.shape[2:]
    steps = np.array([-height * width, -width, -1, height * width, width, 1], np.int64)
    order = np.array(ORDERS[tiebreak], np.int64)
    bits = np.empty(fragments.shape, np.uint8)
    slabs = slabs_of(links.shape[1:], threads)
    stored, checked = stored_thresholds(low, high, links.dtype), links.dtype == np.uint8
    if not all(run_threads(_kernel.directions, [(links, *stored, *slab, checked, bits) for slab in slabs], threads)):
        _refuse(links)
    flat, scratch = bits.reshape(-1), fragments.reshape(-1).view(np.int32 if dtype == np.uint32 else np.int64)
    late = tiebreak != "index"
    ends = run_threads(_kernel.corners, [(bits, order, late, *slab, scratch) for slab in slabs], threads)
    count = 0
    for (first, _), end in zip(slabs, ends):  # one queue of those of the slabs
        start = first * height * width
        scratch[count : count + end - start] = scratch[start:end]
        count += end - start
    divide = _kernel.divide_overwriting if late else _kernel.divide
    divide(flat, steps, order, scratch, count)
    label_links(bits, slabs, fragments.reshape(-1), threads)
    return fragments


def label_links(bits: NDArray[np.uint8], slabs: list[tuple[int, int]], out: NDArray[Any], threads: int) -> None:
    """Write what links connect: the pieces of each slab, then, if there are several, what goes on from one to the next.

    Parameters
    ----------
    bits
        (z, y, x): bits 0 ... 5 are links along -z, -y, -x, +z, +y, +x; a voxel with any bit has a label.
    slabs
        As `slabs_of` returns them.
    out
        (z * y * x,), uint64 or uint32, becomes 1 ... n in raster order of first voxels, 0 without bits.
    threads
        To share the work.
    """
    section = bits[0].size
    parts = [out[first * section : last * section] for first, last in slabs]
    labels = [part.view(np.int32)[-part.size :] for part in parts]  # of eight bytes the second half
    counts = run_threads(_kernel.basins, [(bits, *slab, part) for slab, part in zip(slabs, labels)], threads)
    if len(slabs) == 1:
        if out.dtype == np.uint64:
            _kernel.widen(labels[0], out)
        return
    here = np.concatenate([[0], np.cumsum(counts)])
    parents = np.arange(here[-1] + 1)
    for k in range(1, len(parts)):
        faces = labels[k - 1][-section:], labels[k][:section]
        _kernel.borders(bits.reshape(-1), slabs[k][0] * section, *faces, parents, here[k - 1], here[k])
    lookup = np.zeros(parents.size, np.uint64)
    number(parents, lookup)
    lookups = [lookup[first : last + 1].astype(out.dtype) for first, last in pairwise(here)]
    for own in lookups:
        own[0] = 0
    run_threads(_kernel.renumber, list(zip(labels, lookups, parts, strict=True)), threads)


def check_affinities(
    affinities: ArrayLike, *, channels: int = 3, threads: int = 1
) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Return affinities as a contiguous read-only view, float32 or uint8.

    Parameters
    ----------
    affinities
        (channels, z, y, x), floats in [0, 1] or uint8.
    channels
        Number of offsets they are for.
    threads
        Threads that look at the values, >= 1.

    Returns
    -------
    ndarray of float32 or uint8
        (channels, z, y, x); a copy only where the dtype or the layout asks for one.

    Raises
    ------
    InputError
        If there are not four axes and that many channels, or values are of another dtype, outside [0, 1] or NaN.

    Examples
    --------
    >>> check_affinities(np.zeros((3, 1, 1, 2))).dtype
    dtype('float32')
    """
    view = as_links(affinities, channels)
    if view.dtype == np.float32:
        flat = view.reshape(-1)
        if any(run_threads(_kernel.outside_unit, [(flat[a:b],) for a, b in split(flat.size, threads)])):
            _refuse(view)
    return view


def as_links(affinities: ArrayLike, channels: int = 3) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Return affinities as `check_affinities` does, before it looks at the values."""
    array = np.asarray(affinities)
    if array.ndim != 4 or array.shape[0] != channels:
        raise InputError(f"affinities must have shape ({channels}, z, y, x); got {array.shape}")
    if array.dtype != np.uint8:
        if array.dtype.kind != "f":
            raise InputError(f"affinities must be floats in [0, 1] or uint8; got {array.dtype}")
        array = array.astype(np.float32, copy=False)
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False  # so that kernels are compiled once for writeable and read-only inputs
    return view


def _refuse(links: NDArray[Any]) -> NoReturn:
    raise InputError(
        f"affinities must lie in [0, 1] without NaN; got {float(links.min()):g} ... {float(links.max()):g}"
    )


def slabs_of(shape: Sequence[int], threads: int) -> list[tuple[int, int]]:
    """Cut a volume (z, y, x) into slabs of sections: one per thread, or more, so that each has less than 2**31 voxels.

    Raises
    ------
    InputError
        If one section has 2**31 voxels or more, or `threads` is below 1.

    Examples
    --------
    >>> slabs_of((100, 512, 512), 2), len(slabs_of((4096, 4096, 4096), 2))
    ([(0, 50), (50, 100)], 33)
    """
    depth, section = shape[0], math.prod(shape[1:])
    if section > _MOST:
        raise InputError(f"a section must have less than 2**31 voxels; got {section}")
    most = _MOST // max(section, 1)
    return split(depth, max(threads, -(-depth // most)) if threads > 0 else threads)


def percentile_threshold(affinities: ArrayLike, q: float, *, bins: int = 10_000) -> float:
    r"""Return the affinity below which a fraction `q` of the links lies, for use as `low` or `high`.

    .. math:: T = \min \{e_k : \sum_{j < k} h_j \ge q \sum_j h_j\}

    with the histogram h over equal bins between the least and the greatest affinity, and edges e; 8-bit affinities
    have one bin per value. Links that leave the volume are not counted. Exact to one bin.

    Parameters
    ----------
    affinities
        (3, z, y, x), floats in [0, 1] or uint8, as for `watershed`.
    q
        Fraction of links, in [0, 1].
    bins
        Number of bins of the histogram, >= 1.

    Returns
    -------
    float
        An affinity in [0, 1], also for uint8 input.

    Raises
    ------
    InputError
        If `q` or `bins` is out of range, the affinities are malformed, or no link stays inside the volume.

    Examples
    --------
    >>> chain = np.zeros((3, 1, 1, 101), np.float32)
    >>> chain[2, 0, 0, 1:] = np.linspace(0.01, 1, 100)
    >>> round(percentile_threshold(chain, 0.8), 2)
    0.8
    """
    if not 0 <= q <= 1 or bins < 1:
        raise InputError(f"q must lie in [0, 1] and bins be positive; got q {q}, bins {bins}")
    links = check_affinities(affinities)
    inside = [links[0, 1:], links[1, :, 1:], links[2, :, :, 1:]]
    inside = [part for part in inside if part.size]
    if not inside:
        raise InputError(f"affinities must have a link inside the volume; got shape {links.shape}")
    scale = 255.0 if links.dtype == np.uint8 else 1.0
    low, high = min(float(part.min()) for part in inside), max(float(part.max()) for part in inside)
    if low == high:
        return low / scale
    if scale == 255.0:
        bins = int(high - low) + 1
        high += 1
    counts = sum(np.histogram(part, bins, (low, high))[0] for part in inside)
    edges = np.linspace(low, high, bins + 1)
    reached = np.concatenate([[0], np.cumsum(counts)]) >= q * np.sum(counts)
    return float(edges[int(np.argmax(reached))]) / scale


def stored_thresholds(low: float, high: float, dtype: np.dtype[np.generic]) -> tuple[np.generic, np.generic]:
    """Return thresholds in stored values: s <= low and s >= high select the same links as s / 255 does."""
    if dtype == np.uint8:
        # The slack keeps k / 255 at k; a high above 255 cannot be reached and leaves 255 as it is.
        return np.uint8(min(math.floor(low * 255 + 1e-9), 255)), np.uint8(min(math.ceil(high * 255 - 1e-9), 255))
    return np.float32(min(low, 2.0)), np.float32(min(high, 2.0))
