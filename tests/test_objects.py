"""Objects matched one to one: detection scores and average precision of instances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference_objects as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import label_pairs

from neuropil.errors import InputError
from neuropil.labels import Contingency, contingency, relabel
from neuropil.metrics.objects import DetectionScores, detection_scores, instance_scores, one_to_one

quick = settings(max_examples=40, deadline=None)


def counts(scores: DetectionScores) -> tuple[int, int, int]:
    return scores.true_positives, scores.false_positives, scores.false_negatives


@quick
@given(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=9), st.integers(0, 2**32 - 1))
def test_one_to_one_has_the_greatest_sum(pairs, seed):
    rows, columns = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
    weights = np.random.default_rng(seed).integers(1, 5, rows.size).astype(float)
    chosen = one_to_one(rows, columns, weights)
    assert len(set(rows[chosen].tolist())) == len(set(columns[chosen].tolist())) == chosen.size
    assert weights[chosen].sum() == reference.best_sum(rows.tolist(), columns.tolist(), weights.tolist())


@quick
@given(label_pairs(), st.sampled_from([0.1, 1 / 3, 0.5, 0.75, 1.0]), st.booleans())
def test_instances_equal_reference(volumes, threshold, only_truth):
    proposal, truth, _ = volumes
    scores = instance_scores(contingency(proposal, truth), [threshold], voxels="truth" if only_truth else "all")
    assert counts(scores.detection[0]) == reference.instances(proposal, truth, threshold, only_truth)


@quick
@given(label_pairs(), st.integers(1, 4))
def test_detection_is_that_of_funlib(volumes, least):
    """Where a pair shares fewer voxels than asked for, funlib may spend an object on it; the rest must be the same."""
    proposal, truth, _ = volumes
    a, b = relabel(proposal).labels, relabel(truth).labels
    ours = counts(detection_scores(contingency(proposal, truth), min_overlap=least))
    theirs = reference.funlib_detection(b, a, least)
    assert ours == theirs if least == 1 else ours[0] >= theirs[0]
    assert ours[0] + ours[1] == theirs[0] + theirs[1]
    assert ours[0] + ours[2] == theirs[0] + theirs[2]


def test_what_each_error_counts_as():
    truth = np.repeat([1, 2, 3, 0], 10)
    split = np.where(np.arange(40) < 5, 9, truth)  # one half of object 1
    assert counts(detection_scores(contingency(split, truth))) == (3, 1, 0)
    merged = np.where(truth == 2, 1, truth)
    assert counts(detection_scores(contingency(merged, truth))) == (2, 0, 1)
    made_up = np.where(truth == 0, 8, truth)
    assert counts(detection_scores(contingency(made_up, truth))) == (3, 1, 0)
    assert counts(detection_scores(contingency(made_up, truth), min_size=11)) == (0, 0, 0)
    small = np.where(np.arange(40) == 39, 8, truth)
    assert counts(detection_scores(contingency(small, truth), min_size=2)) == (3, 0, 0)
    assert counts(detection_scores(contingency(split, truth), min_overlap=6)) == (2, 2, 1)


def test_golden_values_of_average_precision():
    """IoU 2/3, 1 and nothing: AP is 2/3 up to 0.65, 1/4 beyond."""
    scores = instance_scores(contingency([1, 1, 1, 2, 2], [7, 7, 8, 9, 9]))
    assert [round(one.average_precision, 6) for one in scores.detection] == [0.666667] * 4 + [0.25] * 6
    assert scores.mean_average_precision == pytest.approx((4 * 2 / 3 + 6 / 4) / 10)
    assert (scores.detection[0].precision, scores.detection[0].recall) == (1, 2 / 3)
    assert scores.detection[0].f == 0.8


def test_halves_of_an_object_match_once_at_one_half():
    table = contingency([1, 1, 1, 1], [7, 7, 8, 8])
    assert counts(instance_scores(table, [0.5]).detection[0]) == (1, 0, 1)


def test_truth_background_costs_nothing_where_only_truth_counts():
    table = contingency([1, 1, 1, 2], [7, 0, 0, 0])
    assert counts(instance_scores(table, [0.5]).detection[0]) == (0, 2, 1)
    assert counts(instance_scores(table, [0.5], voxels="truth").detection[0]) == (1, 0, 0)


@quick
@given(label_pairs())
def test_identity_is_perfect_and_order_does_not_matter(volumes):
    _, truth, _ = volumes
    objects = len(np.unique(truth[truth > 0]))
    scores = instance_scores(contingency(truth, truth))
    assert counts(detection_scores(contingency(truth, truth))) == (objects, 0, 0)
    assert all(counts(one) == (objects, 0, 0) for one in scores.detection)
    flipped = instance_scores(contingency(truth[..., ::-1], truth[..., ::-1]))
    assert flipped == scores


def test_no_objects_is_nan_not_an_error():
    nothing = detection_scores(Contingency.empty())
    assert counts(nothing) == (0, 0, 0)
    assert all(math.isnan(x) for x in (nothing.precision, nothing.recall, nothing.f, nothing.average_precision))
    assert counts(detection_scores(contingency([0, 0], [0, 4]))) == (0, 0, 1)


def test_bad_input_is_named():
    table = contingency([1], [1])
    with pytest.raises(InputError, match="min_overlap and min_size must be at least 1; got 0 and 1"):
        detection_scores(table, min_overlap=0)
    for thresholds in ([], [0.0], [0.5, 1.1], [0.7, 0.5]):
        with pytest.raises(InputError, match=r"thresholds must ascend in \(0, 1\]"):
            instance_scores(table, thresholds)
    with pytest.raises(InputError, match="voxels must be one of all, truth; got 'some'"):
        instance_scores(table, voxels="some")
