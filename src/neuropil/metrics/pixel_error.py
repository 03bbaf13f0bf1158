"""Pixel error of a boundary map: the share of pixels on the wrong side of a threshold, and the search for the best one.

With interior probability p = 1 - boundary map, a pixel is called boundary where p < t; the error is
(false boundary + missed boundary) / pixels. Every figure at every threshold follows from one histogram of p with the
thresholds as its edges, taken apart for true boundary and true interior, so that the pixels are read once.
The line search is that of the VD2D3D paper's evaluation (Lee et al. 2015, arXiv:1508.04843): 0, 0.1 ... 1, then
0.05 to either side of the best, then 0.01 ... 0.04 to either side. Membrane is rare, hence also the balanced error.

A threshold here is on the interior probability, as in the paper. On the boundary map it is 1 - t:
boundary where ``boundary_map > 1 - t``; results name it `boundary_threshold`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import pixel_error as _kernel
from neuropil.errors import InputError
from neuropil.labels import frozen
from neuropil.metrics.overlap import ratio

_CELLS = 1024


@dataclass(frozen=True)
class PixelError:
    """Outcome of thresholding a boundary map at one threshold.

    Attributes
    ----------
    threshold
        Interior probability below which a pixel is called boundary.
    true_boundary, false_boundary, missed_boundary
        Pixels called boundary rightly and wrongly, and boundary pixels called interior.
    pixels
        Pixels compared.
    """

    threshold: float
    true_boundary: int
    false_boundary: int
    missed_boundary: int
    pixels: int

    @property
    def error(self) -> float:
        """(false + missed) / pixels, in [0, 1]."""
        return (self.false_boundary + self.missed_boundary) / self.pixels

    @property
    def boundary_threshold(self) -> float:
        """The same threshold on the boundary map: boundary where it is above this."""
        return round(1.0 - self.threshold, 12)

    @property
    def precision(self) -> float:
        """Share of called boundary that is boundary; nan if none is called."""
        return ratio(self.true_boundary, self.true_boundary + self.false_boundary)

    @property
    def recall(self) -> float:
        """Share of true boundary that is called so; nan if there is none."""
        return ratio(self.true_boundary, self.true_boundary + self.missed_boundary)

    @property
    def f(self) -> float:
        """Harmonic mean of precision and recall; nan without any boundary, true or called."""
        return ratio(2 * self.true_boundary, 2 * self.true_boundary + self.false_boundary + self.missed_boundary)

    @property
    def balanced_error(self) -> float:
        """Mean of the error rates on true boundary and on true interior; nan unless there are both."""
        boundary = self.true_boundary + self.missed_boundary
        return 0.5 * (ratio(self.missed_boundary, boundary) + ratio(self.false_boundary, self.pixels - boundary))


@dataclass(frozen=True)
class BoundaryCurve:
    """Precision and recall of boundary pixels over thresholds; arrays of one length, nan where undefined.

    Attributes
    ----------
    threshold
        Interior probability below which a pixel is called boundary, ascending.
    precision, recall, f, error, balanced_error
        As in `PixelError`.
    """

    threshold: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f: NDArray[np.float64]
    error: NDArray[np.float64]
    balanced_error: NDArray[np.float64]


def pixel_error(
    boundary_map: ArrayLike, truth_boundary: ArrayLike, threshold: float, mask: ArrayLike | None = None
) -> PixelError:
    """Compare a boundary map, cut at one threshold, with true boundary.

    Parameters
    ----------
    boundary_map
        Probability of boundary, any shape: float in [0, 1], or uint8 that stands for value / 255.
    truth_boundary
        Boolean of the same shape, true on boundary.
    threshold
        Interior probability t in [0, 1]; boundary is where ``1 - boundary_map < t``.
    mask
        Boolean of the same shape; only pixels where it is true are compared. All of them if omitted.

    Returns
    -------
    PixelError

    Raises
    ------
    InputError
        If shapes or types do not fit, the map leaves [0, 1] or holds NaN, or no pixel is compared.

    Examples
    --------
    >>> result = pixel_error([0.9, 0.6, 0.2, 0.1], [True, False, False, True], 0.5)
    >>> result.error, result.precision, result.recall
    (0.5, 0.5, 0.5)
    """
    return _outcomes(boundary_map, truth_boundary, np.array([threshold], np.float64), mask)[0]


def best_pixel_error(boundary_map: ArrayLike, truth_boundary: ArrayLike, mask: ArrayLike | None = None) -> PixelError:
    """Find the threshold of lowest pixel error by the paper's line search; of equals, the smallest threshold.

    A threshold chosen on the pixels that are scored flatters the score. Report this number as the paper does, and
    beside it `pixel_error` at a threshold chosen on training sections.

    Parameters
    ----------
    boundary_map, truth_boundary, mask
        As in `pixel_error`.

    Returns
    -------
    PixelError
        At the best of the thresholds tried, all multiples of 0.01 in [0, 1].

    Raises
    ------
    InputError
        As `pixel_error`.

    Examples
    --------
    >>> best = best_pixel_error([0.9, 0.62, 0.2, 0.1], [True, True, False, False])
    >>> best.error, best.threshold, best.boundary_threshold
    (0.0, 0.39, 0.61)
    """
    outcomes = _outcomes(boundary_map, truth_boundary, np.arange(101) / 100, mask)
    return outcomes[line_search(lambda percent: outcomes[percent].error)]


def boundary_curve(
    boundary_map: ArrayLike,
    truth_boundary: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    thresholds: ArrayLike | None = None,
) -> BoundaryCurve:
    """Compute precision, recall and errors of boundary pixels over thresholds, reading the pixels once.

    Parameters
    ----------
    boundary_map, truth_boundary, mask
        As in `pixel_error`.
    thresholds
        Interior probabilities in [0, 1], ascending; 0, 0.01 ... 1 if omitted.

    Returns
    -------
    BoundaryCurve

    Raises
    ------
    InputError
        As `pixel_error`, or if thresholds are not ascending in [0, 1].

    Examples
    --------
    >>> curve = boundary_curve([0.9, 0.6, 0.2, 0.1], [True, False, False, True], thresholds=[0.2, 0.5])
    >>> curve.precision.tolist(), curve.recall.tolist()
    ([1.0, 0.5], [0.5, 0.5])
    """
    edges = np.arange(101) / 100 if thresholds is None else np.asarray(thresholds, np.float64)
    outcomes = _outcomes(boundary_map, truth_boundary, edges, mask)

    def column(of: Callable[[PixelError], float]) -> NDArray[np.float64]:
        return np.array([of(o) for o in outcomes], np.float64)

    return BoundaryCurve(
        threshold=edges.copy(),
        precision=column(lambda o: o.precision),
        recall=column(lambda o: o.recall),
        f=column(lambda o: o.f),
        error=column(lambda o: o.error),
        balanced_error=column(lambda o: o.balanced_error),
    )


def line_search(error: Callable[[int], float], start: tuple[int, ...] = tuple(range(0, 101, 10))) -> int:
    """Find the threshold of lowest error on three ever finer grids around the best so far.

    Parameters
    ----------
    error
        Gives the error, to be minimised, at a threshold in percent, 0 ... 100; called once for each threshold tried.
        Errors that are nan never win.
    start
        First grid, percent. The second is the best plus or minus 5, the third that plus or minus 1 ... 4.

    Returns
    -------
    int
        Percent; of equal errors the smallest threshold.

    Examples
    --------
    >>> line_search(lambda percent: abs(percent - 33))
    33
    """
    tried: dict[int, float] = {}

    def best() -> int:
        return min(tried, key=lambda p: (np.isnan(tried[p]), tried[p], p))

    for steps in (None, (-5, 5), (-4, -3, -2, -1, 1, 2, 3, 4)):
        candidates = start if steps is None else tuple(best() + step for step in steps)
        tried.update({p: float(error(p)) for p in candidates if 0 <= p <= 100 and p not in tried})
    return best()


def _outcomes(
    boundary_map: ArrayLike, truth_boundary: ArrayLike, edges: NDArray[np.float64], mask: ArrayLike | None
) -> list[PixelError]:
    """Return the outcome at each threshold in `edges`."""
    values, scale = _checked_map(boundary_map)
    truth = _checked_flags(truth_boundary, "truth_boundary", values.shape)
    inside = np.empty(0, bool) if mask is None else _checked_flags(mask, "mask", values.shape)
    if edges.ndim != 1 or edges.size == 0 or not (edges[0] >= 0 and edges[-1] <= 1 and np.all(np.diff(edges) >= 0)):
        raise InputError(f"threshold must lie in [0, 1], several in ascending order; got {edges.tolist()}")
    first_edge = np.searchsorted(edges, np.arange(_CELLS + 1) / _CELLS, side="right")
    counts = _kernel.count_by_edge(values.reshape(-1), scale, truth, inside, edges, first_edge)
    pixels = int(counts.sum())
    if pixels == 0:
        raise InputError("mask must leave a pixel to compare; got none")
    interior, boundary = counts.cumsum(axis=1)  # column k: pixels with p below edge k
    true_boundary = int(boundary[-1])
    return [
        PixelError(float(t), int(boundary[k]), int(interior[k]), true_boundary - int(boundary[k]), pixels)
        for k, t in enumerate(edges)
    ]


def _checked_map(boundary_map: ArrayLike) -> tuple[NDArray[np.float32 | np.float64 | np.uint8], float]:
    """Return the map, contiguous and read-only, and what its values are to be multiplied by."""
    values = np.asarray(boundary_map)
    if values.dtype not in (np.uint8, np.float16, np.float32, np.float64):
        raise InputError(f"boundary_map must be float in [0, 1] or uint8 (value / 255); got {values.dtype}")
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    if values.size and not (values.min() >= 0 and (values.dtype == np.uint8 or values.max() <= 1)):
        raise InputError(f"boundary_map must lie in [0, 1]; got values from {values.min()} to {values.max()}")
    return frozen(np.ascontiguousarray(values)), 1 / 255 if values.dtype == np.uint8 else 1.0


def _checked_flags(flags: ArrayLike, name: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    array = np.asarray(flags)
    if array.dtype != np.bool_ or array.shape != shape:
        raise InputError(f"{name} must be boolean of shape {shape}; got {array.dtype} of shape {array.shape}")
    return frozen(np.ascontiguousarray(array).reshape(-1))
