"""Variation of information: golden values, laws, and agreement with other programs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference_metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import label_pairs
from test_rand import PROPOSAL, TRUTH, field

from neuropil.errors import InputError
from neuropil.labels import Contingency, contingency, relabel
from neuropil.metrics.information import VariationOfInformation, cremi_score, variation_of_information

quick = settings(max_examples=40, deadline=None)
backgrounds = st.sampled_from(["excluded", "segment", "singletons"])


@pytest.mark.parametrize(
    ("background", "split", "merge"),
    [("segment", 1.155639, 0.344361), ("singletons", 1.155639, 0.344361), ("excluded", 0.857143, 0.393555)],
)
def test_golden_values(background, split, merge):
    result = variation_of_information(contingency(PROPOSAL, TRUTH), background=background)
    assert (result.split, result.merge) == pytest.approx((split, merge), abs=5e-7)
    nats = variation_of_information(contingency(PROPOSAL, TRUTH), background=background, base=math.e)
    assert nats.total == pytest.approx(result.total * math.log(2))
    assert nats.normalized == pytest.approx(result.normalized)


@quick
@given(label_pairs(), backgrounds)
def test_equals_reference_and_its_entropies_are_consistent(volumes, background):
    proposal, truth, mask = volumes
    if not np.any(truth[mask]):
        return
    result = variation_of_information(contingency(proposal, truth, mask), background=background)
    assert (result.split, result.merge) == pytest.approx(
        reference.information(proposal, truth, background, mask), abs=1e-9, nan_ok=True
    )
    if not math.isnan(result.split):
        assert result.proposal_entropy - result.split == pytest.approx(result.truth_entropy - result.merge, abs=1e-9)
        assert -1e-9 <= result.normalized <= 1 + 1e-9
        assert -1e-9 <= result.f <= 1 + 1e-9


@quick
@given(label_pairs())
def test_identity_is_exactly_zero_and_blocks_add_up(volumes):
    proposal, truth, _ = volumes
    if not truth.any():
        return
    same = variation_of_information(contingency(truth, truth))
    assert (same.split, same.merge, same.normalized, same.f) == (0, 0, 0, 1)
    table = Contingency.empty()
    for p, t in zip(proposal, truth):
        table = table.add(contingency(p, t))
    assert variation_of_information(table) == variation_of_information(contingency(proposal, truth))


def test_closed_forms_of_all_one_and_all_singletons():
    truth = np.repeat([1, 2, 3, 4], 8)
    one = variation_of_information(contingency(np.ones(32, int), truth))
    assert (one.split, one.merge) == pytest.approx((0, 2))
    for alone in (np.arange(1, 33), np.zeros(32, int)):
        result = variation_of_information(contingency(alone, truth), background="singletons")
        assert (result.split, result.merge) == pytest.approx((3, 0))
    assert result.proposal_entropy == pytest.approx(5)
    assert result.f == pytest.approx(4 / 7)


def test_agrees_with_other_programs_on_random_fields():
    metrics = pytest.importorskip("skimage.metrics")
    waterz = pytest.importorskip("waterz")
    rng = np.random.default_rng(4)
    proposal, truth = field(rng), field(rng)
    proposal = np.where(rng.random(truth.shape) < 0.6, truth, proposal)
    ours = variation_of_information(contingency(proposal, truth))
    theirs = waterz.evaluate(proposal, truth)
    assert (ours.split, ours.merge) == pytest.approx((theirs["voi_split"], theirs["voi_merge"]), abs=1e-9)
    dense_p, dense_t = (relabel(a).labels.astype(np.int64) for a in (proposal, truth))
    split, merge = metrics.variation_of_information(dense_t, dense_p, ignore_labels=(0,))
    assert (ours.split, ours.merge) == pytest.approx((split, merge), abs=1e-9)


def test_cremi_score_is_the_geometric_mean():
    assert cremi_score(0.25, VariationOfInformation(0.5, 0.5, 2.0, 2.0)) == 0.5


def test_nothing_left_is_nan_and_bad_input_is_named():
    result = variation_of_information(contingency([0], [1]), background="excluded")
    assert math.isnan(result.total)
    assert math.isnan(result.normalized)
    assert math.isnan(result.f)
    with pytest.raises(InputError, match="base must be a number above 1; got 1"):
        variation_of_information(contingency([1], [1]), base=1)
