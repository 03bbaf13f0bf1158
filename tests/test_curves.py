"""Curves over thresholds: every level of a merge tree in one pass against cutting and scoring again."""

from __future__ import annotations

import numpy as np
import pytest
import reference_metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from neuropil.errors import InputError
from neuropil.labels import contingency
from neuropil.metrics.curves import Curve, best, components_curve, merge_tree_curve, merge_tree_information
from neuropil.metrics.rand import rand_scores
from neuropil.metrics.sections import mean_over_sections, pool, section_tables, unique_per_section

quick = settings(max_examples=50, deadline=None)
backgrounds = st.sampled_from(["excluded", "segment", "singletons"])


@st.composite
def trees(draw):
    """Fragments and truth with background, edges (cycles, ties, ids without a voxel), huge ids."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 14))
    names = np.concatenate([[0], rng.permutation(n + 3) + 1 + draw(st.sampled_from([0, 2**41]))]).astype(np.uint64)
    shape = draw(st.sampled_from([(30,), (3, 4, 5)]))
    fragments, truth = names[rng.integers(0, n + 1, shape)], rng.integers(0, 5, shape).astype(np.uint64)
    truth.flat[0] = 1
    edges = draw(st.integers(0, 20))
    u, v = names[rng.integers(1, n + 4, (2, edges))]
    score = rng.integers(0, draw(st.sampled_from([3, 1000])), edges).astype(np.float32) / 1000
    return fragments, u, v, score, truth


@quick
@given(trees(), backgrounds)
def test_every_level_equals_cutting_the_tree_and_scoring_again(tree, background):
    fragments, u, v, score, truth = tree
    table = contingency(fragments, truth)
    curve = merge_tree_curve(table, u, v, score, background=background)
    information = merge_tree_information(table, u, v, score, background=background)
    levels = reference.merge_levels(score)
    np.testing.assert_array_equal(curve.threshold[1:], levels[1:])
    np.testing.assert_array_equal(information.threshold, curve.threshold)
    for k, threshold in enumerate(levels):
        merged = reference.cut(fragments, u, v, score, threshold)
        expected = reference.rand(merged, truth, background)
        assert (curve.merge[k], curve.split[k], curve.f[k]) == pytest.approx(expected, rel=1e-12, nan_ok=True)
        expected = reference.information(merged, truth, background)
        assert (information.split[k], information.merge[k]) == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_thresholds_descend_and_the_first_merges_nothing():
    curve = merge_tree_curve(contingency([1, 2, 3], [1, 1, 1]), [1, 2], [2, 3], np.float32([1.0, 0.25]))
    assert curve.threshold[0] > 1.0
    assert curve.threshold[1:].tolist() == [1.0, 0.25]
    assert curve.split.tolist() == pytest.approx([3 / 9, 5 / 9, 1])


def test_no_edges_is_one_point():
    table = contingency([1, 2], [1, 1])
    assert merge_tree_curve(table, [], [], []).f.tolist() == [rand_scores(table).f]


def test_large_tree_equals_cutting_at_some_levels():
    rng = np.random.default_rng(1)
    fragments = np.kron(rng.integers(1, 3000, (16, 16, 16)), np.ones((3, 3, 3), int)).astype(np.uint64)
    truth = np.kron(rng.integers(0, 60, (6, 6, 6)), np.ones((8, 8, 8), int)).astype(np.uint64)
    u, v = rng.integers(1, 3000, (2, 2500))
    score = rng.random(2500)
    table = contingency(fragments, truth)
    curve = merge_tree_curve(table, u, v, score)
    for k in (0, 1, 700, 2500):
        expected = rand_scores(contingency(reference.cut(fragments, u, v, score, curve.threshold[k]), truth))
        assert (curve.merge[k], curve.split[k], curve.f[k]) == pytest.approx(
            (expected.merge, expected.split, expected.f), rel=1e-10
        )


def test_components_curve_scores_each_labelling_whole_pooled_and_averaged():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 4, (3, 6, 6))
    labelings = [(t, rng.integers(0, 5, truth.shape)) for t in (0.1, 0.5, 0.9)]
    whole = components_curve(iter(labelings), truth)
    pooled = components_curve(labelings, truth, sections="pooled")
    mean = components_curve(labelings, truth, sections="mean")
    assert whole.threshold.tolist() == [0.1, 0.5, 0.9]
    for k, (_, labels) in enumerate(labelings):
        assert whole.f[k] == rand_scores(contingency(labels, truth)).f
        renamed = contingency(unique_per_section(labels), unique_per_section(truth))
        assert pooled.f[k] == pytest.approx(rand_scores(renamed).f)
        tables = section_tables(labels, truth)
        assert mean.f[k] == pytest.approx(mean_over_sections(tables, lambda table: rand_scores(table).f))
        assert pool(tables).total == truth.size


def test_pooled_merge_tree_counts_against_truth_unique_to_a_section():
    truth = np.ones((2, 1, 4), np.uint64)
    fragments = np.array([[[1, 1, 2, 2]], [[3, 3, 4, 4]]], np.uint64)
    curve = merge_tree_curve(contingency(fragments, unique_per_section(truth)), [1, 3], [2, 4], [0.5, 0.5])
    assert curve.f[-1] == 1


def test_best_is_the_first_of_equals_and_passes_over_nan():
    f = np.array([np.nan, 0.4, 0.7, 0.7])
    point = best(Curve(np.array([0.9, 0.8, 0.7, 0.6]), f / 2, f * 2, f))
    assert (point.threshold, point.merge, point.split, point.f, point.index) == (0.7, 0.35, 1.4, 0.7, 2)
    with pytest.raises(InputError, match="curve must have a point with a score; got 0"):
        best(components_curve([], [1]))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (([1], [2], [np.nan]), "tree_affinity must have one axis and no NaN"),
        (([1], [2], [[0.5]]), r"tree_affinity must have one axis and no NaN; got shape \(1, 1\)"),
        (([1, 2], [2], [0.5]), r"tree_u must be ids > 0, one per entry of tree_affinity \(1\)"),
        (([1], [0], [0.5]), "tree_v must be ids > 0.*least 0"),
        (([1.0], [2], [0.5]), "tree_u must be ids > 0.*float64"),
    ],
)
def test_bad_trees_are_named(tree, message):
    with pytest.raises(InputError, match=message):
        merge_tree_curve(contingency([1, 2], [1, 1]), *tree)


def test_unknown_way_of_taking_sections_is_named():
    with pytest.raises(InputError, match="sections must be one of whole, pooled, mean"):
        components_curve([], [1], sections="each")
