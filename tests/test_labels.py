"""Dense ids, lookups and contingency tables."""

from __future__ import annotations

import numpy as np
import pytest
import reference_labels as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import label_pairs, labels

from neuropil import labels as module
from neuropil.errors import InputError
from neuropil.labels import Contingency, apply_lookup, contingency, relabel

quick = settings(max_examples=50, deadline=None)


def as_dict(table: Contingency) -> dict[tuple[int, int], int]:
    pairs = zip(table.proposal_ids[table.rows].tolist(), table.truth_ids[table.columns].tolist())
    return dict(zip(pairs, table.counts.tolist(), strict=True))


def assert_same(a: Contingency, b: Contingency) -> None:
    for name in ("proposal_ids", "truth_ids", "rows", "columns", "counts"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype, name
        np.testing.assert_array_equal(x, y, err_msg=name)


@quick
@given(labels())
def test_relabel_equals_reference_and_is_undone_by_its_ids(volume):
    result = relabel(volume)
    np.testing.assert_array_equal(result.labels, reference.relabel(volume))
    np.testing.assert_array_equal(result.ids[result.labels], volume)
    np.testing.assert_array_equal(apply_lookup(volume, np.arange(result.ids.size), ids=result.ids), result.labels)
    np.testing.assert_array_equal(apply_lookup(result.labels, result.ids), volume)


@quick
@given(label_pairs())
def test_contingency_equals_reference(pair):
    proposal, truth, mask = pair
    table = contingency(proposal, truth, mask)
    assert as_dict(table) == reference.contingency(proposal, truth, mask)
    assert table.total == mask.sum()
    np.testing.assert_array_equal(table.proposal_ids, np.unique(proposal[mask]))
    np.testing.assert_array_equal(table.proposal_sizes, np.unique(proposal[mask], return_counts=True)[1])
    np.testing.assert_array_equal(table.truth_sizes, np.unique(truth[mask], return_counts=True)[1])
    assert np.all(np.diff(table.rows * (truth.size + 1) + table.columns) > 0)


@quick
@given(label_pairs(), st.integers(0, 5))
def test_tables_of_blocks_add_up_to_the_table_of_the_volume(pair, cut):
    proposal, truth, mask = pair
    parts = [(proposal[..., s], truth[..., s], mask[..., s]) for s in (slice(cut), slice(cut, None))]
    total = Contingency.empty()
    for part in parts:
        total = total.add(contingency(*part))
    assert_same(total, contingency(proposal, truth, mask))
    assert_same(Contingency.sum_of(contingency(*part) for part in parts), total)
    assert_same(Contingency.sum_of([]), Contingency.empty())


@quick
@given(label_pairs(), st.integers(0, 2**32 - 1))
def test_merging_the_table_equals_merging_the_voxels(pair, seed):
    proposal, truth, mask = pair
    ids = np.unique(np.append(proposal, np.uint64(0)))
    lookup = np.random.default_rng(seed).integers(0, 3, ids.size)
    lookup[0] = 0
    merged = apply_lookup(proposal, lookup, ids=ids)
    expected = contingency(merged, truth, mask)
    assert_same(contingency(proposal, truth, mask).merge_proposal(lookup, ids=ids), expected)


def test_many_ids_grow_the_tables_and_cross_chunks(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 1000)
    rng = np.random.default_rng(0)
    proposal, truth = rng.integers(0, 2**63, 5000), rng.integers(0, 300, 5000)
    assert as_dict(contingency(proposal, truth)) == reference.contingency(proposal, truth, ...)
    result = relabel(proposal)
    np.testing.assert_array_equal(result.ids[1:], np.unique(proposal))
    np.testing.assert_array_equal(result.ids[result.labels], proposal)


@pytest.mark.parametrize("ids", [3, 300, 2**40, 2**64 - 1])
def test_pairs_that_lose_their_place_and_full_lists_are_added_up(monkeypatch, ids):
    """Few places, short lists: every path of the counter, for ids of few and of many bytes."""
    for name, value in {"_CHUNK": 64, "_PLACES": 4, "_LISTED": 100}.items():
        monkeypatch.setattr(module, name, value)
    rng = np.random.default_rng(2)
    proposal, truth = rng.integers(0, ids, (2, 3000), np.uint64, endpoint=True)
    repeated = np.tile(proposal[:40], 75)  # the same pairs come back after they lost their places
    for first, second in ((proposal, truth), (repeated, np.tile(truth[:40], 75)), (np.sort(proposal), truth)):
        table = contingency(first, second)
        assert as_dict(table) == reference.contingency(first, second, ...)
        np.testing.assert_array_equal(table.proposal_ids, np.unique(first))
        np.testing.assert_array_equal(table.truth_ids, np.unique(second))
        assert np.all(np.diff(table.rows) >= 0)


@pytest.mark.parametrize("voxels", [1, 4000])
def test_huge_ids_that_differ_little_are_sorted_as_words(monkeypatch, voxels):
    """What all ids have in common is cut off before sorting, and comes back; one voxel has nothing that differs."""
    monkeypatch.setattr(module, "_PLACES", 4)
    rng = np.random.default_rng(3)
    proposal, truth = (np.uint64(base) + rng.integers(0, 90, voxels, np.uint64) for base in (2**63 + 2**40, 2**50 - 50))
    assert as_dict(contingency(proposal, truth)) == reference.contingency(proposal, truth, ...)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int32, np.uint32, np.int64])
def test_any_integer_dtype_and_layout_gives_the_same_table(dtype):
    rng = np.random.default_rng(1)
    proposal, truth = rng.integers(0, 2, (2, 4, 5, 6))
    expected = contingency(proposal.astype(np.uint64), truth.astype(np.uint64))
    assert_same(contingency(proposal.astype(dtype), np.asfortranarray(truth.astype(dtype))), expected)
    assert_same(contingency(proposal.T.astype(dtype), truth.astype(dtype).T), expected)


def test_empty_volumes():
    empty = np.zeros((0, 3, 3), np.uint64)
    assert contingency(empty, empty).total == 0
    assert relabel(empty).ids.tolist() == [0]
    assert apply_lookup(empty, [0]).shape == empty.shape


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: relabel([0.5]), "labels must be integers; got float64"),
        (lambda: relabel([-1]), "labels must not be negative; got -1"),
        (lambda: apply_lookup([3], [0, 1]), "lookup of 2 entries; label 3 is not"),
        (lambda: apply_lookup([3], [0, 1], ids=[0, 2]), "label 3 is not"),
        (lambda: apply_lookup([0], [1, 1]), "lookup\\[0\\] must be 0"),
        (lambda: apply_lookup([0], [4], ids=[0]), "background must stay 0"),
        (lambda: apply_lookup([1], [4, 5], ids=[1, 1]), "ids must be unique; got 1 repeated"),
        (lambda: apply_lookup([1], [4, 5], ids=[1]), "ids must have the shape of the lookup"),
        (lambda: apply_lookup([1], [[0, 5]]), "lookup must have one axis"),
        (lambda: contingency([1, 2], [1]), "truth must have the shape of the proposal, \\(2,\\); got \\(1,\\)"),
        (lambda: contingency([1, 2], [1, 2], [1, 0]), "mask must be boolean"),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_lookup_in_place_and_into_another_array():
    labels = np.array([[0, 1, 2], [2, 2, 0]], np.uint64)
    expected = apply_lookup(labels, [0, 5, 6])
    out = np.empty((2, 3), np.uint64)
    assert apply_lookup(labels, [0, 5, 6], out=out) is out
    np.testing.assert_array_equal(out, expected)
    apply_lookup(labels, [0, 5, 6], out=labels)
    np.testing.assert_array_equal(labels, expected)
    for wrong in (np.empty((3, 2), np.uint64), np.empty((2, 3)), np.empty((3, 2), np.uint64).T):
        with pytest.raises(InputError, match=r"out must be contiguous, uint64, of shape \(2, 3\)"):
            apply_lookup(labels, [0, 5, 6], out=wrong)
