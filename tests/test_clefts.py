"""Cleft voxels scored by distance, as CREMI."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference_objects as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import label_pairs

from neuropil.errors import InputError
from neuropil.metrics.clefts import CleftScores, cleft_scores

quick = settings(max_examples=40, deadline=None)
SIZE = (40.0, 4.0, 4.0)


def numbers(scores: CleftScores) -> tuple[float, ...]:
    return tuple(vars(scores).values())


@quick
@given(label_pairs(), st.sampled_from([0.0, 4.0, 8.5, 40.0]))
def test_equals_all_voxels_against_all(volumes, tolerance):
    proposal, truth, mask = volumes
    expected = reference.cremi_clefts((proposal > 0) & mask, (truth > 0) & mask, SIZE, tolerance)
    scores = cleft_scores(proposal, truth, SIZE, mask, tolerance_nm=tolerance)
    assert numbers(scores) == pytest.approx(expected, rel=1e-12, nan_ok=True)


@quick
@given(hnp.arrays(np.bool_, (2, 3, 4)))
def test_identity_is_perfect_and_swapping_swaps(cleft):
    other = np.roll(cleft, 1, axis=2)
    if not cleft.any():
        return
    assert numbers(cleft_scores(cleft, cleft, SIZE)) == (0, 0, 0.0, 0.0)
    a, b = cleft_scores(cleft, other, SIZE, tolerance_nm=3), cleft_scores(other, cleft, SIZE, tolerance_nm=3)
    assert (a.false_positives, a.distance_to_truth_nm) == (b.false_negatives, b.distance_to_proposal_nm)
    assert a.score == b.score


def test_golden_values_of_a_shifted_sheet():
    """A sheet three sections too high: 120 nm, within CREMI's 200 nm; six too high, 240 nm, beyond them."""
    truth = np.zeros((10, 8, 8), np.uint64)
    truth[1] = 2**40
    near, far = np.roll(truth, 3, axis=0), np.roll(truth, 6, axis=0)
    assert numbers(cleft_scores(near, truth, SIZE)) == (0, 0, 120.0, 120.0)
    assert cleft_scores(near, truth, SIZE).score == 120.0
    assert numbers(cleft_scores(far, truth, SIZE)) == (64, 64, 240.0, 240.0)


def test_one_side_empty():
    some, none = np.ones((1, 1, 3), bool), np.zeros((1, 1, 3), bool)
    missed, made_up, nothing = (cleft_scores(*pair, SIZE) for pair in ((none, some), (some, none), (none, none)))
    assert (missed.false_negatives, missed.distance_to_proposal_nm) == (3, math.inf)
    assert (made_up.false_positives, made_up.distance_to_truth_nm) == (3, math.inf)
    assert math.isnan(missed.distance_to_truth_nm)
    assert nothing.false_positives == nothing.false_negatives == 0
    assert math.isnan(nothing.score)


def test_bad_input_is_named():
    cleft = np.ones((1, 2, 3), bool)
    with pytest.raises(InputError, match=r"proposal must hold integers or booleans \(z, y, x\); got float64"):
        cleft_scores(cleft * 0.5, cleft, SIZE)
    with pytest.raises(InputError, match=r"truth must hold integers or booleans .* got bool of shape \(2, 3\)"):
        cleft_scores(cleft, cleft[0], SIZE)
    with pytest.raises(InputError, match=r"truth must have the shape of the proposal, \(1, 2, 3\); got \(1, 2, 2\)"):
        cleft_scores(cleft, cleft[..., :2], SIZE)
    with pytest.raises(InputError, match="mask must be boolean"):
        cleft_scores(cleft, cleft, SIZE, np.ones((1, 2, 3)))
    for size, tolerance in (((4, 4), 1), ((4, 0, 4), 1), (SIZE, -1), (SIZE, math.nan)):
        with pytest.raises(InputError, match="voxel_size must be three positive lengths and tolerance_nm >= 0"):
            cleft_scores(cleft, cleft, size, tolerance_nm=tolerance)
