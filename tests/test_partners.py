"""Synaptic partners matched one to one, as CREMI."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference_objects as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from neuropil.errors import InputError
from neuropil.metrics.partners import partner_scores, segments_at

quick = settings(max_examples=60, deadline=None)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Proposed and true pairs in a cube of 1000 nm, in few segments with ids beyond 2**40."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m = draw(st.integers(0, 7)), draw(st.integers(0, 7))
    sites = [rng.random((k, 2, 3)) * draw(st.sampled_from([300.0, 1000.0])) for k in (n, m)]
    ids = [rng.integers(1, 3, (k, 2)).astype(np.uint64) + np.uint64(2**41) for k in (n, m)]
    return *sites, *ids


@quick
@given(pairs(), st.sampled_from([1.0, 100.0, 400.0, 2000.0]))
def test_equals_one_square_matrix(data, tolerance):
    scores = partner_scores(*data, tolerance_nm=tolerance)
    matched, cost = reference.cremi_partners(*data, tolerance)
    found = scores.detection
    assert found.true_positives == matched == scores.proposal.size == scores.truth.size
    assert (found.false_positives, found.false_negatives) == (len(data[0]) - matched, len(data[1]) - matched)
    assert scores.distance_nm.sum() == pytest.approx(cost, abs=1e-9)
    assert len(set(scores.proposal.tolist())) == len(set(scores.truth.tolist())) == matched


TRUTH = np.array([[[0, 0, 0], [0, 0, 100]], [[0, 0, 300], [0, 0, 400]]], float)


def f(proposal, segments, tolerance=400.0):
    return partner_scores(proposal, TRUTH, segments, [[1, 2], [1, 2]], tolerance_nm=tolerance).detection.f


def test_golden_values_name_the_error():
    assert f(TRUTH, [[1, 2], [1, 2]]) == 1
    assert f(TRUTH[:1], [[1, 2]]) == 2 / 3  # one missed
    assert f(TRUTH[[0, 1, 1]], [[1, 2]] * 3) == 0.8  # one twice
    assert f(TRUTH[:, ::-1], [[2, 1], [2, 1]]) == 0  # sides exchanged
    assert f(TRUTH, [[1, 2], [1, 3]]) == 0.5  # a wrong partner: one false, one missed
    assert f(TRUTH + [250.0, 0, 0], [[1, 2], [1, 2]], tolerance=249) == 0  # too far
    assert f(TRUTH + [250.0, 0, 0], [[1, 2], [1, 2]], tolerance=250) == 1  # at the tolerance


def test_matches_are_the_nearest_in_total():
    """Each proposal is nearest to the second truth, which only one of them can have."""
    shift = np.array([200.0, -50.0])[:, None, None] * [0, 0, 1]  # the first lies 100 nm off, the second 50
    found = partner_scores(TRUTH + shift, TRUTH, [[1, 2]] * 2, [[1, 2]] * 2)
    assert dict(zip(found.proposal.tolist(), found.truth.tolist())) == {0: 0, 1: 1}
    assert found.distance_nm.tolist() == [200, 50]


def test_nothing_to_match():
    none = np.empty((0, 2, 3))
    assert math.isnan(partner_scores(none, none, [], []).detection.f)
    missed = partner_scores(none, TRUTH, np.empty((0, 2), int), [[1, 2], [3, 4]]).detection
    assert (missed.true_positives, missed.false_positives, missed.false_negatives) == (0, 0, 2)


def test_segments_at_reads_the_voxel_that_holds_the_place():
    labels = np.arange(24, dtype=np.uint64).reshape(2, 3, 4) + np.uint64(2**60)
    places = np.array([[[100.0, 50.0, 50.0], [179.9, 61.9, 65.9]]])
    found = segments_at(labels, places, (40, 4, 4), (100, 50, 50))
    assert (found - np.uint64(2**60)).tolist() == [[0, 23]]
    with pytest.raises(InputError, match=r"places must lie in the segmentation of shape \(2, 3, 4\); 1 do not"):
        segments_at(labels, [[0, 0, 16.0], [0, 0, 0]], (40, 4, 4))
    with pytest.raises(InputError, match=r"segmentation must be \(z, y, x\) and places \(..., 3\)"):
        segments_at(labels[0], places, (40, 4, 4))
    with pytest.raises(InputError, match="voxel_size must be three positive lengths"):
        segments_at(labels, places, (40, 4, 0))


def test_bad_input_is_named():
    ids = [[1, 2], [1, 2]]
    with pytest.raises(InputError, match=r"proposal must be finite, \(pairs, 2, 3\), in nm; got shape \(2, 3\)"):
        partner_scores(TRUTH[0], TRUTH, [[1, 2]], ids)
    with pytest.raises(InputError, match="truth must be finite"):
        partner_scores(TRUTH, TRUTH * np.nan, ids, ids)
    with pytest.raises(
        InputError, match=r"truth_segments must be integers of shape \(2, 2\); got int64 of shape \(1, 2\)"
    ):
        partner_scores(TRUTH, TRUTH, ids, ids[:1])
    with pytest.raises(InputError, match="tolerance_nm must be >= 0; got -1"):
        partner_scores(TRUTH, TRUTH, ids, ids, tolerance_nm=-1)
