"""Tables of blocks, and the bootstrap over them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import label_pairs
from test_labels import assert_same

from neuropil.errors import InputError
from neuropil.geometry import Box, grid
from neuropil.labels import Contingency, contingency
from neuropil.metrics.blocks import Resampled, block_shape_for, block_tables, bootstrap_blocks
from neuropil.metrics.information import variation_of_information
from neuropil.metrics.rand import rand_scores

quick = settings(max_examples=40, deadline=None)
SHAPE = (8, 16, 16)


def scores(table: Contingency) -> dict[str, float]:
    return {"f": rand_scores(table).f, "vi": variation_of_information(table).total}


def volume(seed: int, quality: float) -> tuple[np.ndarray, np.ndarray]:
    """Neurites along z that go through all blocks, with voxels of another id here and there."""
    rng = np.random.default_rng(seed)
    columns = 1 + np.arange(16)[:, None] // 4 * 4 + np.arange(16) // 4
    truth = np.broadcast_to(columns, SHAPE).astype(np.uint64) + np.uint64(2**40)
    return np.where(rng.random(SHAPE) < quality, truth, rng.integers(1, 5, SHAPE).astype(np.uint64)), truth


@quick
@given(label_pairs(), st.tuples(*[st.integers(1, 3)] * 3))
def test_tables_of_blocks_add_up_to_that_of_the_volume(volumes, shape):
    proposal, truth, mask = volumes
    tables = block_tables(proposal, truth, shape, mask)
    assert len(tables) == len(list(grid(Box.of_shape(truth.shape), shape)))
    total = Contingency.empty()
    for table in tables:
        total = total.add(table)
    assert_same(total, contingency(proposal, truth, mask))


@quick
@given(label_pairs(), st.integers(0, 2**32 - 1))
def test_a_resample_is_the_score_of_the_drawn_blocks_put_together(volumes, seed):
    proposal, truth, _ = volumes
    tables = [table for table in block_tables(proposal, truth, (1, 2, 2)) if np.any(table.truth_ids != 0)]
    if len(tables) < 2:
        return
    found: list[Contingency] = []
    bootstrap_blocks(tables, lambda table: {"kept": float(found.append(table) or 0)}, np.random.default_rng(seed), 3)
    draws = np.random.default_rng(seed).multinomial(len(tables), [1 / len(tables)] * len(tables), size=3)
    for times, table in zip([np.ones(len(tables), int), *draws], found):
        expected = Contingency.empty()
        for one in itertools.chain(*([table] * k for table, k in zip(tables, times.tolist()))):
            expected = expected.add(one)
        assert_same(table, expected)


def test_the_estimate_is_the_score_of_the_volume_and_lies_in_its_interval():
    proposal, truth = volume(0, 0.8)
    tables = block_tables(proposal, truth, (2, 4, 4))
    assert len(tables) == 64
    found = bootstrap_blocks(tables, scores, np.random.default_rng(1), 200)
    whole = scores(contingency(proposal, truth))
    assert found.estimate.tolist() == list(whole.values())
    wide, narrow = found.intervals(0.99), found.intervals(0.9)
    for name, value in whole.items():
        assert wide[name].low <= narrow[name].low < value < narrow[name].high <= wide[name].high
    again = bootstrap_blocks(tables, scores, np.random.default_rng(1), 200)
    np.testing.assert_array_equal(again.samples, found.samples)


def test_the_interval_covers_the_expectation_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    truth, covered = np.ones((8, 8, 8), np.uint8), 0
    for _ in range(60):  # errors come in blocks of 8 voxels, and the score is the share of voxels that agree
        wrong = np.kron(rng.random((4, 4, 4)) < 0.3, np.ones((2, 2, 2), bool))
        tables = block_tables(np.where(wrong, 2, 1), truth, (2, 2, 2))
        share = lambda t: {"share": t.counts[t.proposal_ids[t.rows] == 1].sum() / t.total}  # noqa: E731
        interval = bootstrap_blocks(tables, share, rng, 100).intervals(0.9)["share"]
        covered += interval.low <= 0.7 <= interval.high
    assert 46 <= covered <= 60


def test_paired_differences_are_tighter_than_two_intervals():
    good, truth = volume(2, 0.9)
    worse = np.where(np.random.default_rng(3).random(SHAPE) < 0.03, np.uint64(1), good)
    a, b = (
        bootstrap_blocks(block_tables(x, truth, (2, 4, 4)), scores, np.random.default_rng(4), 200)
        for x in (good, worse)
    )
    difference = a.minus(b).intervals()["f"]
    assert difference.estimate == a.estimate[0] - b.estimate[0] > 0
    assert difference.low > 0
    alone = [x.intervals()["f"] for x in (a, b)]
    assert difference.high - difference.low < min(x.high - x.low for x in alone)
    assert alone[0].low < alone[1].high  # one by one they could not be told apart
    with pytest.raises(InputError, match=r"other must have the scores .* of 200 resamples; got .* of 10"):
        a.minus(Resampled(b.names, b.estimate, b.samples[:10]))


@quick
@given(st.tuples(*[st.integers(1, 200)] * 3), st.tuples(*[st.sampled_from([1.0, 4.0, 40.0])] * 3), st.integers(1, 80))
def test_blocks_are_as_many_as_asked_for(shape, voxel_size, at_least):
    block = block_shape_for(shape, voxel_size, at_least=at_least)
    count = len(list(grid(Box.of_shape(shape), block)))
    assert count >= min(at_least, int(np.prod(shape)))
    assert all(1 <= side <= n for side, n in zip(block, shape))


def test_nan_samples_are_left_out():
    found = Resampled(("a", "b"), np.array([1.0, np.nan]), np.array([[1.0, np.nan], [np.nan, np.nan], [3.0, np.nan]]))
    assert (found.intervals(0.5)["a"].low, found.intervals(0.5)["a"].high) == (0.5, 1.5)  # 1.5, 2.5 about a mean of 2
    assert np.isnan(found.intervals()["b"].low)


def test_bad_input_is_named():
    tables = [contingency([1], [1])]
    with pytest.raises(InputError, match="bootstrap needs 2 blocks with truth and n >= 1; got 1 and 10"):
        bootstrap_blocks([*tables, contingency([1], [0])], scores, np.random.default_rng(0), 10)
    with pytest.raises(InputError, match="proposal must have axes z, y, x"):
        block_tables([[1]], [[1]], (1, 1, 1))
    with pytest.raises(InputError, match="block_shape must have one positive extent per axis"):
        block_tables([[[1]]], [[[1]]], (1, 0, 1))
    with pytest.raises(InputError, match="shape and voxel_size must be three positive numbers"):
        block_shape_for((4, 4, 4), at_least=0)
    with pytest.raises(InputError, match=r"level must be in \(0, 1\); got 1"):
        Resampled(("a",), np.zeros(1), np.zeros((1, 1))).intervals(1)
