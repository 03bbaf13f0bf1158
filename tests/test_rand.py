"""Rand scores: golden values of every named variant, laws, and agreement with other programs."""

from __future__ import annotations

import numpy as np
import pytest
import reference_metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import label_pairs

from neuropil.errors import InputError
from neuropil.labels import Contingency, contingency, relabel
from neuropil.metrics.overlap import overlap
from neuropil.metrics.rand import adapted_rand_error, rand_scores
from neuropil.metrics.scores import score_segmentation

quick = settings(max_examples=40, deadline=None)
backgrounds = st.sampled_from(["excluded", "segment", "singletons"])

TRUTH = np.array([1, 1, 1, 1, 2, 2, 2, 2, 0, 0], np.uint64)
PROPOSAL = np.array([5, 5, 5, 6, 6, 6, 7, 0, 5, 6], np.uint64)


def field(rng: np.random.Generator, shape=(64, 64, 64), ids: int = 60) -> np.ndarray:
    """Blocky random labels with zeros and ids far above 2**40."""
    coarse = rng.integers(0, ids, tuple(n // 4 for n in shape)).astype(np.uint64)
    coarse[coarse > 0] += np.uint64(2**41)
    labels = np.kron(coarse, np.ones((4, 4, 4), np.uint64))
    labels[rng.random(shape) < 0.1] = 0
    return labels


@pytest.mark.parametrize(
    ("variant", "error", "merge", "split"),
    [
        ("neuropil", 0.384615, 0.8, 0.5),
        ("em_data", 0.384615, 0.8, 0.5),
        ("segascorus", 0.384615, 0.8, 0.5),
        ("funlib", 0.384615, 0.8, 0.5),
        ("waterz", 0.384615, 0.8, 0.5),
        ("isbi2012", 1 - 30 / 44, 15 / 19, 15 / 25),
        ("cremi", 0.409002, 0.790576, 0.471875),
        ("snemi3d", 0.409002, 0.790576, 0.471875),
        ("skimage", 0.555556, 0.666667, 0.333333),
    ],
)
def test_golden_values_of_every_variant(variant, error, merge, split):
    result = adapted_rand_error(contingency(PROPOSAL, TRUTH), variant=variant)
    assert (result.error, result.merge, result.split) == pytest.approx((error, merge, split), abs=5e-7)


def test_golden_values_tell_singletons_from_a_segment():
    table = contingency([0, 0, 0, 0, 1], [1, 1, 2, 2, 2])
    assert rand_scores(table, background="segment").merge == 9 / 17
    assert rand_scores(table, background="singletons").merge == 1.0
    assert rand_scores(table, background="singletons").split == 5 / 13
    assert rand_scores(table, background="excluded").split == 1.0
    assert rand_scores(contingency([1, 1], [0, 3]), truth_background="segment").merge == 0.5


@quick
@given(label_pairs(), backgrounds)
def test_equals_reference(volumes, background):
    proposal, truth, mask = volumes
    if not np.any(truth[mask]):
        with pytest.raises(InputError, match="truth must have a voxel"):
            rand_scores(contingency(proposal, truth, mask))
        return
    result = rand_scores(contingency(proposal, truth, mask), background=background)
    expected = reference.rand(proposal, truth, background, mask)
    assert (result.merge, result.split, result.f) == pytest.approx(expected, rel=1e-12, nan_ok=True)


@quick
@given(label_pairs(), st.integers(0, 2**32 - 1))
def test_relabelling_either_side_changes_nothing(volumes, seed):
    proposal, truth, _ = volumes
    if not truth.any():
        return
    rng = np.random.default_rng(seed)

    def renamed(labels):
        dense = relabel(labels)
        return np.concatenate([[0], rng.permutation(dense.ids.size - 1) + 1 + 2**50]).astype(np.uint64)[dense.labels]

    a = rand_scores(contingency(proposal, truth))
    b = rand_scores(contingency(renamed(proposal), renamed(truth)))
    assert (a.merge, a.split, a.f) == pytest.approx((b.merge, b.split, b.f), rel=1e-12)


@quick
@given(label_pairs())
def test_identity_is_perfect_and_blocks_add_up(volumes):
    proposal, truth, _ = volumes
    if not truth.any():
        return
    for background in ("excluded", "segment", "singletons"):
        assert rand_scores(contingency(truth, truth), background=background).error == 0
    table = Contingency.empty()
    for p, t in zip(proposal, truth):
        table = table.add(contingency(p, t))
    assert rand_scores(table) == rand_scores(contingency(proposal, truth))


def test_splitting_a_true_segment_lowers_split_only_and_merging_lowers_merge_only():
    truth = np.repeat(np.arange(1, 5, dtype=np.uint64), 10)
    split = truth.copy()
    split[3:10] = 9
    merged = np.where(truth == 2, 1, truth)
    assert rand_scores(contingency(split, truth)).merge == 1
    assert rand_scores(contingency(split, truth)).split < 1
    assert rand_scores(contingency(merged, truth)).split == 1
    assert rand_scores(contingency(merged, truth)).merge < 1


def test_closed_forms_of_all_one_and_all_singletons():
    sizes = np.array([3, 5, 12])
    truth = np.repeat([1, 2, 3], sizes)
    n, squares = sizes.sum(), (sizes**2).sum()
    one = rand_scores(contingency(np.ones(n, int), truth))
    assert (one.merge, one.split, one.f) == pytest.approx((squares / n**2, 1, 2 * squares / (n**2 + squares)))
    for alone in (np.arange(1, n + 1), np.zeros(n, int)):  # each voxel its own id, or background: the same thing
        result = rand_scores(contingency(alone, truth))
        assert (result.merge, result.split, result.f) == pytest.approx((1, n / squares, 2 * n / (n + squares)))


def test_agrees_with_other_programs_on_random_fields():
    metrics = pytest.importorskip("skimage.metrics")
    waterz = pytest.importorskip("waterz")
    rng = np.random.default_rng(3)
    for _ in range(2):
        proposal, truth = field(rng), field(rng)
        proposal = np.where(rng.random(truth.shape) < 0.6, truth, proposal)
        table = contingency(proposal, truth)
        dense_p, dense_t = relabel(proposal).labels.astype(np.int64), relabel(truth).labels.astype(np.int64)

        error, precision, recall = metrics.adapted_rand_error(dense_t, dense_p)
        ours = adapted_rand_error(table, variant="skimage")
        assert (ours.error, ours.split, ours.merge) == pytest.approx((error, precision, recall), abs=1e-9)

        theirs = waterz.evaluate(proposal, truth)
        ours = adapted_rand_error(table, variant="waterz")
        assert (ours.split, ours.merge) == pytest.approx((theirs["rand_split"], theirs["rand_merge"]), abs=1e-9)

        expected = reference.cremi_rand_error(dense_p, dense_t)
        assert adapted_rand_error(table, variant="cremi").error == pytest.approx(expected, abs=1e-9)


def test_scores_in_one_call_are_those_of_the_parts():
    scores = score_segmentation(PROPOSAL, TRUTH)
    assert scores.rand == rand_scores(contingency(PROPOSAL, TRUTH))
    assert scores.information.total == pytest.approx(1.5)


def test_nothing_left_of_the_proposal_is_nan_not_an_error():
    scores = rand_scores(contingency([0, 0], [1, 1]), background="excluded")
    assert np.isnan([scores.merge, scores.split, scores.f, scores.error]).all()


def test_bad_input_is_named():
    table = contingency([1], [1])
    with pytest.raises(InputError, match=r"background must be one of excluded, segment, singletons; got 'none'"):
        rand_scores(table, background="none")
    with pytest.raises(InputError, match="truth_background must be one of"):
        overlap(table, truth_background="singletons")
    with pytest.raises(InputError, match=r"variant must be one of neuropil, .*; got 'isbi2013'"):
        adapted_rand_error(table, variant="isbi2013")
    with pytest.raises(InputError, match="all 2 compared voxels are background"):
        rand_scores(contingency([1, 1], [0, 0]))
