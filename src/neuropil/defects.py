"""Sections that cannot be trusted, found from the image alone: missing, blurred, wrong in contrast, misaligned.

What is normal differs from stack to stack and drifts within one, but slowly: a section is compared with the sections
around it. Key insight: four numbers of a section tell the four defects apart (how much of it is empty, how sharp it is,
its grey values, how far it lies off its neighbours), and the median of the neighbours, with their own scatter as the
unit, needs no training and no threshold in grey values.

Source: own; the four kinds are those for which Dorkenwald et al. (MICrONS) and Lee et al. (arXiv 1706.00120) mask,
simulate or repair sections.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from neuropil.errors import InputError

Kind = Literal["missing", "blurred", "contrast", "misaligned"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TILE = 32
"""Pixels of the squares that are empty or not."""
_FLAT = 1.0  # grey levels of scatter below which a square is empty
_SEEN = 512  # pixels along an axis at which sections are compared


@dataclass(frozen=True)
class SectionFacts:
    """What is measured of each section of a stack, float64 (z,) but for the shift.

    Attributes
    ----------
    mean, deviation
        Grey levels, of squares that are not empty; nan where half of them or more are, as of `sharpness`.
    empty
        Share of squares of 32 pixels whose grey values do not vary.
    sharpness
        Log of the mean square of second differences along x of pixels over that of means of four: fine detail against
        coarse, whatever the contrast.
    shift
        (z, 2): pixels y, x by which the section lies off the last one before that is not half empty; 0 for the first
        and for those that are.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    empty: NDArray[np.float64]
    sharpness: NDArray[np.float64]
    shift: NDArray[np.float64]


@dataclass(frozen=True)
class Rules:
    """How far from its neighbours a section may be.

    Attributes
    ----------
    reach
        Sections on either side that it is compared with.
    spread
        Standard deviations, estimated from medians, beyond which sharpness or grey values are taken for a defect ...
    detail, grey
        ... if they differ by as much: `detail` of the log of sharpness, `grey` of the neighbours' deviation for the
        mean, or of its log for the deviation.
    shift, jitter
        Pixels off the neighbours beyond which a section is misaligned, if it is also `jitter` times as much as the
        median of all sections.
    empty
        Share of empty squares beyond which it is missing.
    """

    reach: int = 5
    spread: float = 5.0
    detail: float = 0.35
    grey: float = 0.5
    shift: float = 6.0
    jitter: float = 4.0
    empty: float = 0.5


def section_facts(read: Callable[[int], NDArray[np.generic]], depth: int) -> SectionFacts:
    """Measure the sections of a stack, one after the other.

    Parameters
    ----------
    read
        Gives section z, (y, x), any real dtype.
    depth
        Number of sections.

    Returns
    -------
    SectionFacts

    Raises
    ------
    InputError
        If there is no section, or one has not two axes of at least 32 pixels.
    """
    if depth < 1:
        raise InputError(f"depth must be at least 1; got {depth}")
    rows, shifts = [], np.zeros((depth, 2))
    before = None
    for z in range(depth):
        section = np.asarray(read(z), np.float32)
        if section.ndim != 2 or min(section.shape) < TILE:
            raise InputError(f"sections must be (y, x), at least {TILE} pixels along each; got {section.shape}")
        full = ~empty_squares(section)
        where = pixels_of(full, section.shape)
        inside = section if full.all() else section[where]
        if full.mean() <= 0.5:
            rows.append((np.nan, np.nan, 1 - full.mean(), np.nan))
            continue
        rows.append((float(inside.mean()), float(inside.std()), 1 - full.mean(), _sharpness(section)))
        here = _spectrum(section)
        if before is not None:
            shifts[z] = _shift(before, here) * _step(section.shape)
        before = here
    mean, deviation, empty, sharpness = np.array(rows, np.float64).T
    return SectionFacts(mean, deviation, empty, sharpness, shifts)


def find_defects(facts: SectionFacts, rules: Rules | None = None) -> dict[Kind, NDArray[np.bool_]]:
    """Tell which sections have which defect.

    Parameters
    ----------
    facts
        Of a stack of at least three sections, better twice `rules.reach` and more.
    rules
        How far from its neighbours a section may be; the defaults if omitted.

    Returns
    -------
    dict
        For each of `KINDS` a bool (z,). A missing section has no other defect. Where everything from a section on is
        shifted, that section alone is misaligned.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> stack = rng.integers(0, 255, (9, 64, 64)).astype(np.uint8)
    >>> stack[4] = 0
    >>> found = find_defects(section_facts(stack.__getitem__, 9))
    >>> np.flatnonzero(found["missing"]).tolist()
    [4]
    """
    rules = rules or Rules()
    missing = (facts.empty > rules.empty) | np.isnan(facts.mean)
    usual = {name: _usual(getattr(facts, name), missing, rules.reach) for name in ("mean", "deviation", "sharpness")}
    off = {name: getattr(facts, name) - centre for name, (centre, _) in usual.items()}
    known = ~missing
    blurred = known & (off["sharpness"] < -np.maximum(rules.detail, rules.spread * usual["sharpness"][1]))
    wide = usual["deviation"][0]
    ratio = np.abs(np.log(np.maximum(facts.deviation, 1e-6) / np.maximum(wide, 1e-6)))
    scatter = usual["deviation"][1] / np.maximum(wide, 1e-6)
    contrast = known & (
        (np.abs(off["mean"]) > np.maximum(rules.grey * wide, rules.spread * usual["mean"][1]))
        | (ratio > np.maximum(rules.grey, rules.spread * scatter))
    )
    size = np.hypot(*facts.shift.T)
    most = max(rules.shift, rules.jitter * float(np.median(size[1:])) if size.size > 1 else 0.0)
    beyond_gap = np.zeros_like(known)
    beyond_gap[1:] = missing[:-1]
    misaligned = known & (size > np.where(beyond_gap, 2 * most, most))
    # A section that slipped shifts there and back: only the first of the two jumps is its own.
    back = np.zeros_like(misaligned)
    back[1:] = misaligned[:-1] & (np.hypot(*(facts.shift[1:] + facts.shift[:-1]).T) < most)
    for z in np.flatnonzero(back):
        back[z] = not back[z - 1]
    return {"missing": missing, "blurred": blurred, "contrast": contrast, "misaligned": misaligned & ~back}


def empty_squares(section: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Tell which squares of 32 x 32 pixels hold nothing; what is left over at the far sides belongs to none.

    >>> empty_squares(np.zeros((40, 70))).tolist()
    [[True, True]]
    """
    height, width = (n // TILE for n in section.shape)
    squares = section[: height * TILE, : width * TILE].reshape(height, TILE, width, TILE)
    return np.asarray(squares.std(axis=(1, 3), dtype=np.float64) < _FLAT)


def long_runs(masked: NDArray[np.bool_], most: int) -> NDArray[np.bool_]:
    """Keep the masked voxels that are masked in more than `most` sections on end.

    >>> long_runs(np.array([1, 1, 0, 1, 1, 1, 0], bool).reshape(-1, 1, 1), 2).ravel().tolist()
    [False, False, False, True, True, True, False]
    """
    line = np.ones((most + 1, 1, 1), bool)
    return np.asarray(ndimage.binary_opening(masked, line))


def pixels_of(squares: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the pixels, bool (y, x) of a shape, that lie in the squares which are true.

    >>> pixels_of(np.array([[True, False]]), (40, 70))[[0, 0, 39], [31, 32, 0]].tolist()
    [True, False, False]
    """
    pixels = np.zeros(shape, np.bool_)
    wide = np.kron(squares, np.ones((TILE, TILE), np.bool_))
    pixels[: wide.shape[0], : wide.shape[1]] = wide
    return pixels


def _usual(values: NDArray[np.float64], left_out: NDArray[np.bool_], reach: int) -> tuple[NDArray[np.float64], float]:
    """Return the median of each section's neighbours, and how far sections lie off theirs as a rule.

    Of the neighbours before and those behind, the median that is nearer counts: where a stack changes for good, the
    sections at the change are like one side.
    """
    known = np.where(left_out, np.nan, values)
    sides = np.full((2, reach, values.size), np.nan)
    for step in range(1, min(reach, values.size - 1) + 1):
        sides[0, step - 1, step:] = known[:-step]
        sides[1, step - 1, :-step] = known[step:]
    alone = np.nan_to_num(float(np.nanmedian(known))) if (~left_out).any() else 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of sections without neighbours on a side
        before, behind = np.nanmedian(sides, axis=1)
    nearer = np.where(np.abs(known - before) <= np.abs(known - behind), before, behind)
    one_side = np.where(np.isnan(before), behind, before)
    centre = np.where(np.isnan(nearer), one_side, nearer)
    centre = np.where(np.isnan(centre), alone, centre)
    off = np.abs(known - centre)
    return centre, 1.4826 * float(np.nanmedian(off)) if (~np.isnan(off)).any() else 0.0


def _sharpness(section: NDArray[np.float32]) -> float:
    fine = float(np.mean(np.diff(section, 2, 1) ** 2))
    wide = ndimage.uniform_filter1d(section, 4, axis=1)[:, ::4]
    coarse = float(np.mean(np.diff(wide, 2, 1) ** 2))
    return float(np.log(max(fine, 1e-6) / max(coarse, 1e-6)))


def _step(shape: tuple[int, ...]) -> int:
    """Pixels that become one where sections are compared."""
    return max(1, -(-max(shape) // _SEEN))


def _spectrum(section: NDArray[np.float32]) -> NDArray[np.complex64]:
    """Return the spectrum of a section, smaller, without its slow changes and its edges."""
    step = _step(section.shape)
    height, width = (n // step for n in section.shape)
    small = section[: height * step, : width * step].reshape(height, step, width, step).mean((1, 3))
    band = ndimage.gaussian_filter(small, 1.0) - ndimage.gaussian_filter(small, 8.0)
    window = np.hanning(height)[:, None] * np.hanning(width)[None, :]
    return np.asarray(fft.rfft2((band * window).astype(np.float32)), np.complex64)


def _shift(before: NDArray[np.complex64], here: NDArray[np.complex64]) -> NDArray[np.float64]:
    """Return by how many of its pixels a section lies off the one before: the peak of their phase correlation."""
    if before.shape != here.shape:
        raise InputError(f"sections must have one shape; got spectra {before.shape} and {here.shape}")
    cross = here * np.conj(before)
    cross /= np.sqrt(np.abs(cross)) + 1e-6  # between plain and phase correlation: sections differ in detail
    peaks = fft.irfft2(cross)
    place = np.array(np.unravel_index(int(np.argmax(peaks)), peaks.shape))
    extent = np.array(peaks.shape)
    return np.where(place > extent // 2, place - extent, place).astype(np.float64)
