"""Per-section tables, pooling, averages, and the bootstrap over sections."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import label_pairs
from test_labels import assert_same

from neuropil.errors import InputError
from neuropil.labels import Contingency, contingency
from neuropil.metrics.rand import rand_scores
from neuropil.metrics.sections import (
    bootstrap_difference,
    bootstrap_interval,
    mean_over_sections,
    pool,
    section_tables,
    unique_per_section,
)


@settings(max_examples=50, deadline=None)
@given(label_pairs())
def test_pooled_tables_are_the_table_of_ids_unique_to_a_section(volumes):
    proposal, truth, mask = volumes
    a, b = unique_per_section(proposal), unique_per_section(truth)
    assert_same(pool(section_tables(proposal, truth)), contingency(a, b))
    for z in range(a.shape[0]):
        assert np.array_equal(a[z] == 0, proposal[z] == 0)
        assert not set(a[z][a[z] > 0].tolist()) & set(np.delete(a, z, axis=0).ravel().tolist())
        assert len(np.unique(a[z])) == len(np.unique(proposal[z]))
    assert pool(section_tables(proposal, truth, mask)).total == mask.sum()
    assert sum(table.total for table in section_tables(proposal, truth, mask)) == mask.sum()


def test_pool_of_nothing_is_empty():
    assert_same(pool([]), Contingency.empty())


def f(table: Contingency) -> float:
    return rand_scores(table).f


def stack(seed: int, quality: float, sections: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(1, 5, (sections, 6, 6))
    return np.where(rng.random(truth.shape) < quality, truth, rng.integers(1, 5, truth.shape)), truth


def test_mean_leaves_out_sections_without_truth():
    tables = [contingency([1, 2], [1, 1]), contingency([1, 1], [0, 0]), contingency([1, 1], [1, 1])]
    assert mean_over_sections(tables, f) == pytest.approx((f(tables[0]) + 1) / 2)
    with pytest.raises(InputError, match="tables must have a section with truth; got 1 without"):
        mean_over_sections(tables[1:2], f)


@pytest.mark.parametrize("average", ["pooled", "mean"])
def test_interval_holds_the_estimate_and_depends_on_nothing_but_the_rng(average):
    tables = section_tables(*stack(0, 0.8))
    one = bootstrap_interval(tables, f, np.random.default_rng(1), 100, average=average)
    assert one == bootstrap_interval(tables, f, np.random.default_rng(1), 100, average=average)
    expected = f(pool(tables)) if average == "pooled" else mean_over_sections(tables, f)
    assert one.estimate == pytest.approx(expected)
    assert one.low < one.estimate < one.high
    wide = bootstrap_interval(tables, f, np.random.default_rng(1), 100, average=average, level=0.99)
    assert wide.low <= one.low
    assert one.high <= wide.high


def test_interval_covers_the_expectation_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(60):  # the score is the share of voxels that agree, 0.7 in expectation
        truth = np.ones((30, 1, 12), int)
        tables = section_tables(np.where(rng.random(truth.shape) < 0.7, 1, 2), truth)
        interval = bootstrap_interval(tables, lambda t: t.counts[0] / t.total, rng, 200, level=0.9, average="mean")
        covered += interval.low <= 0.7 <= interval.high
    assert 47 <= covered <= 60


def test_paired_difference_is_tighter_than_two_intervals():
    good, truth = stack(2, 0.9)
    worse = np.where(np.random.default_rng(3).random(good.shape) < 0.1, 1, good)
    a, b = section_tables(good, truth), section_tables(worse, truth)
    difference = bootstrap_difference(a, b, f, np.random.default_rng(4), 200)
    assert difference.estimate == pytest.approx(f(pool(a)) - f(pool(b)))
    assert difference.low > 0
    with pytest.raises(InputError, match="second must have the sections of first, 20 with truth; got 19"):
        bootstrap_difference(a, b[1:], f, np.random.default_rng(4), 10)


def test_bad_input_is_named():
    with pytest.raises(InputError, match="proposal must have axes z, y, x"):
        section_tables([[1]], [[1]])
    with pytest.raises(InputError, match="truth must have axes z, y, x and the shape of the proposal"):
        section_tables(np.ones((1, 2, 3), int), np.ones((2, 2, 3), int))
    with pytest.raises(InputError, match="labels must have axes z, y, x"):
        unique_per_section([1, 2])
    one = [contingency([1], [1])]
    with pytest.raises(InputError, match="bootstrap needs 2 sections"):
        bootstrap_interval(one, f, np.random.default_rng(0))
    with pytest.raises(InputError, match="average must be one of pooled, mean"):
        bootstrap_interval(one * 2, f, np.random.default_rng(0), average="median")
