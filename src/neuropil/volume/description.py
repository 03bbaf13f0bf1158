"""What the values of a volume look like: contrast, ids, NaN, and whether they are an image or labels.

Image and labels cannot be told apart by dtype. They can by what neighbours do: inside an object all labels are equal,
and where two objects meet the id jumps by any amount, while grey values differ a little almost everywhere and boundary
maps, which are flat too, change by small steps. Large volumes are judged by sections spread evenly over them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuropil.geometry import Box
from neuropil.volume.metadata import Kind
from neuropil.volume.volume import Volume

_FLAT = 0.6  # share of equal neighbours above which values are flat; sections of raw EM have about 0.1
_FEW_VALUES = 16
_SMALL_STEP = 0.1  # of the range of values


@dataclass(frozen=True)
class Contrast:
    """Spread of the finite values; `drift` is the range of section means in standard deviations of all values."""

    minimum: float
    percentile_1: float
    median: float
    percentile_99: float
    maximum: float
    drift: float


@dataclass(frozen=True)
class Description:
    """What was seen in the sections that were looked at.

    Attributes
    ----------
    sections : how many sections were read, out of `of_sections`; `cropped` tells that only their middle was read
    contrast : spread of the values as stored
    nan_count : values that are NaN or infinite
    ids : number of different values other than 0, None for values that are not whole numbers
    smallest, largest : exact for whole numbers
    flat : share of voxels equal to their right neighbour, pairs of zeros left out
    kind, reason : the judgement whether this is an image, labels, ..., and why
    """

    sections: int
    of_sections: int
    cropped: bool
    contrast: Contrast
    nan_count: int
    ids: int | None
    smallest: int | float
    largest: int | float
    flat: float
    kind: Kind
    reason: str


def describe(volume: Volume, *, max_bytes: int = 256 << 20) -> Description:
    """Read sections of `volume`, at most `max_bytes` together, and describe their values.

    Parameters
    ----------
    volume : open volume, (z, y, x) or (c, z, y, x)
    max_bytes : sections beyond are left out, evenly; of a section larger than that, the middle is read
    """
    boxes = _sample(volume, max_bytes)
    array = np.concatenate([volume.read(box) for box in boxes], axis=-3)
    cropped = boxes[0].shape[1:] != volume.spatial_shape[1:]
    finite = np.isfinite(array) if array.dtype.kind == "f" else np.ones((), bool)
    values = array[finite] if not finite.all() else array.ravel()
    nan_count = array.size - values.size
    if values.size == 0:
        values = np.zeros(1, array.dtype)
    whole = array.dtype.kind in "uib"
    distinct = np.unique(values) if whole else None
    flat = _flat(array)
    kind, reason = judge_kind(array, distinct, flat)
    return Description(
        sections=len(boxes),
        of_sections=volume.spatial_shape[0],
        cropped=cropped,
        contrast=_contrast(array, values),
        nan_count=nan_count,
        ids=None if distinct is None else int((distinct != 0).sum()),
        smallest=values.min().item(),
        largest=values.max().item(),
        flat=flat,
        kind=kind,
        reason=reason,
    )


def judge_kind(array: np.ndarray, distinct: np.ndarray | None, flat: float) -> tuple[Kind, str]:
    """Return what the values probably are, and why; a judgement, never a fact.

    Parameters
    ----------
    array : (z, y, x) or (c, z, y, x), values as stored
    distinct : the different values of an array of whole numbers, else None
    flat : share of voxels equal to their right neighbour, in [0, 1]

    >>> judge_kind(np.zeros((1, 2, 3), bool), np.array([False]), 1.0)[0]
    'mask'
    """
    if distinct is None:
        finite = array[np.isfinite(array)]
        low, high = (finite.min(), finite.max()) if finite.size else (0, 0)
        if low >= 0 and high <= 1:
            many = array.ndim == 4 and array.shape[0] >= 3
            return ("affinities" if many else "boundary"), f"real values between {low:.3g} and {high:.3g}"
        return "image", "real values outside [0, 1]"
    same = f"{flat:.0%} of voxels equal their right neighbour"
    if array.dtype.kind == "b" or (len(distinct) <= 2 and flat > _FLAT):
        return "mask", f"{len(distinct)} different value(s), {same}"
    if array.dtype.itemsize >= 4:
        return "labels", f"{array.dtype} values, {same}"
    if flat <= _FLAT:
        return "image", f"only {same}"
    step = _median_step(array, int(distinct[-1]) - int(distinct[0]))
    if len(distinct) > _FEW_VALUES and step < _SMALL_STEP:
        return "image", f"{same}, but where values change they change by {step:.0%} of the range, as grey values do"
    return "labels", f"{same}, and where values change they jump by {step:.0%} of the range"


def _flat(array: np.ndarray) -> float:
    """Return the share of equal neighbours; an empty background, which is flat in images too, does not count."""
    left, right = array[..., :-1], array[..., 1:]
    there = (left != 0) | (right != 0)
    return float((left == right)[there].mean()) if there.any() else 1.0


def _median_step(array: np.ndarray, span: int) -> float:
    """Return the median change between unequal neighbours, as a share of the range of values."""
    left, right = array[..., :-1], array[..., 1:]
    change = left != right
    steps = np.abs(left[change].astype(np.int64) - right[change].astype(np.int64))
    return float(np.median(steps)) / max(span, 1) if steps.size else 1.0


def _sample(volume: Volume, max_bytes: int) -> list[Box]:
    """Return boxes of one section each, spread evenly."""
    z, y, x = volume.spatial_shape
    voxel = volume.dtype.itemsize * int(np.prod(volume.shape[:-3]))
    room = max(1, max_bytes // voxel)
    height, width = y, x
    while height * width > room:
        height, width = -(-height // 2), -(-width // 2)
    count = max(1, min(z, room // (height * width)))
    top, left = (y - height) // 2, (x - width) // 2
    places = np.unique(np.linspace(0, z - 1, count).round().astype(int)) if count > 1 else [z // 2]
    return [Box((int(n), top, left), (int(n) + 1, top + height, left + width)) for n in places]


def _contrast(array: np.ndarray, values: np.ndarray) -> Contrast:
    real = values.astype(np.float32, copy=False) if values.dtype.itemsize < 4 else values.astype(np.float64)
    low, first, middle, last, high = (float(v) for v in np.percentile(real, (0, 1, 50, 99, 100)))
    with np.errstate(invalid="ignore"):
        sections = np.moveaxis(array, -3, 0).reshape(array.shape[-3], -1)
        means = np.array([row[np.isfinite(row)].mean() if np.isfinite(row).any() else np.nan for row in sections])
    means, spread = means[np.isfinite(means)], float(real.std())
    drift = float(np.ptp(means)) / spread if spread > 0 and means.size else 0.0
    return Contrast(low, first, middle, last, high, drift)
