"""Pixel error, its line search, and the precision-recall curve of boundary pixels."""

from __future__ import annotations

import numpy as np
import pytest
import reference_metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from neuropil.errors import InputError
from neuropil.metrics.pixel_error import best_pixel_error, boundary_curve, line_search, pixel_error

quick = settings(max_examples=50, deadline=None)


@st.composite
def maps(draw):
    """Boundary map, truth and mask; often values that lie on a threshold."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.sampled_from([(7,), (3, 5), (2, 4, 6)]))
    dtype = draw(st.sampled_from([np.uint8, np.float16, np.float32, np.float64]))
    if dtype == np.uint8:
        boundary = rng.integers(0, 256, shape).astype(dtype)
    else:
        boundary = (rng.integers(0, 101, shape) / 100).astype(dtype)
    mask = rng.random(shape) < 0.8
    mask.flat[0] = True
    boundary.flags.writeable = draw(st.booleans())
    return boundary, rng.random(shape) < draw(st.floats(0, 1)), mask


@quick
@given(maps(), st.integers(0, 100))
def test_equals_reference_at_one_threshold(volumes, percent):
    boundary, truth, mask = volumes
    result = pixel_error(boundary, truth, percent / 100, mask)
    expected = reference.pixel_outcome(boundary, truth, percent / 100, mask)
    assert (result.true_boundary, result.false_boundary, result.missed_boundary, result.pixels) == expected


@quick
@given(maps())
def test_best_is_what_the_line_search_of_the_slow_twin_finds(volumes):
    boundary, truth, mask = volumes
    errors = [sum(reference.pixel_outcome(boundary, truth, p / 100, mask)[1:3]) / mask.sum() for p in range(101)]
    percent = reference.line_search(errors)
    best = best_pixel_error(boundary, truth, mask)
    assert (best.threshold, best.error) == (percent / 100, errors[percent])
    assert best.boundary_threshold == pytest.approx(1 - best.threshold)


@quick
@given(maps())
def test_curve_is_the_outcome_at_each_threshold(volumes):
    boundary, truth, mask = volumes
    curve = boundary_curve(boundary, truth, mask)
    for k in (0, 37, 50, 100):
        one = pixel_error(boundary, truth, k / 100, mask)
        for name in ("threshold", "precision", "recall", "f", "error", "balanced_error"):
            np.testing.assert_equal(getattr(curve, name)[k], getattr(one, name))
    assert np.nan_to_num(np.diff(curve.recall)).min() >= 0


def test_ties_go_to_the_smallest_threshold():
    assert best_pixel_error(np.array([0.0, 0.0]), np.array([False, False])).threshold == 0
    # p = 0.5 on boundary, 0.9 on interior: any t in (0.5, 0.9] is perfect; 0.55 is found before 0.51 ... 0.54 are tried
    assert best_pixel_error(np.array([0.5, 0.1]), np.array([True, False])).threshold == 0.51


@quick
@given(st.lists(st.integers(0, 6), min_size=101, max_size=101))
def test_line_search_equals_slow_twin(errors):
    assert line_search(errors.__getitem__) == reference.line_search(errors)


def test_line_search_stays_inside_tries_each_once_and_passes_over_nan():
    tried = []

    def error(percent):
        tried.append(percent)
        return np.nan if percent < 5 else percent

    assert line_search(error, (1, *range(10, 91, 10), 99)) == 5
    assert len(tried) == len(set(tried))
    assert min(tried) >= 0
    assert max(tried) <= 100


def test_balanced_error_weighs_rare_boundary_as_much_as_interior():
    truth = np.zeros(100, bool)
    truth[:4] = True
    blind = pixel_error(np.zeros(100), truth, 0.5)
    assert (blind.error, blind.balanced_error) == (0.04, 0.5)
    assert np.isnan(blind.precision)
    assert blind.recall == 0


def test_uint8_maps_mean_value_over_255():
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 256, (4, 20, 20)).astype(np.uint8)
    truth = rng.random(stored.shape) < 0.3
    assert pixel_error(stored, truth, 0.42) == pixel_error(stored / 255, truth, 0.42)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((np.array([0.5, np.nan]), np.array([True, False]), 0.5), r"boundary_map must lie in \[0, 1\]"),
        ((np.array([0.5, 1.5]), np.array([True, False]), 0.5), r"got values from 0.5 to 1.5"),
        ((np.array([1, 2]), np.array([True, False]), 0.5), "boundary_map must be float .* got int64"),
        ((np.array([0.5]), np.array([True, False]), 0.5), r"truth_boundary must be boolean of shape \(1,\)"),
        ((np.array([0.5]), np.array([1]), 0.5), "truth_boundary must be boolean .* got int64"),
        ((np.array([0.5]), np.array([True]), 1.5), r"threshold must lie in \[0, 1\]"),
        ((np.array([0.5]), np.array([True]), 0.5, np.array([False])), "mask must leave a pixel"),
        ((np.array([]), np.array([], bool), 0.5), "mask must leave a pixel"),
    ],
)
def test_bad_input_is_named(args, message):
    with pytest.raises(InputError, match=message):
        pixel_error(*args)


def test_thresholds_of_a_curve_must_ascend():
    with pytest.raises(InputError, match="ascending"):
        boundary_curve(np.array([0.5]), np.array([True]), thresholds=[0.5, 0.2])
