"""What suggestions are worth: scores kept up to date are those of the voxels; probabilities mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from neuropil.errors import InputError
from neuropil.labels import contingency
from neuropil.metrics.calibration import average_precision, fit_logistic, reliability
from neuropil.metrics.information import variation_of_information
from neuropil.metrics.rand import rand_scores
from neuropil.metrics.suggestions import Scoreboard, Suggestion


@given(st.integers(0, 2**32), st.integers(2, 9))
@settings(max_examples=40)
def test_scores_after_each_suggestion_are_those_of_the_voxels(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    fragments, truth = rng.integers(0, n + 1, (2, 5, 6)), rng.integers(0, 4, (2, 5, 6))
    fragments[0, 0, :n] = np.arange(1, min(n, 6) + 1)[:n] if n <= 6 else fragments[0, 0, :n]
    truth[0, 0, 0] = 1
    segment_of = np.concatenate([[0], rng.integers(1, 3, n)])
    edges = [(a, a + 1) for a in range(1, n) if segment_of[a] == segment_of[a + 1]]
    board = Scoreboard(fragments, truth, segment_of, edges)
    assert len({(segment_of[k], one) for k, one in enumerate(board.segments())}) == len(set(segment_of))
    for _ in range(12):
        u, v = rng.choice(np.arange(1, n + 1), 2, replace=False).tolist()
        one = Suggestion(bool(rng.random() < 0.5), u, v)
        before = (board.vi, board.rand_error)
        was_right = board.right(one)
        assert (board.vi, board.rand_error) == before
        board.accept(one)
        table = contingency(board.segments()[fragments], truth)
        assert board.vi == pytest.approx(variation_of_information(table).total, abs=1e-9)
        assert board.rand_error == pytest.approx(rand_scores(table).error, abs=1e-9)
        assert isinstance(was_right, bool)


def test_a_person_accepts_what_is_right_as_things_then_are() -> None:
    fragments = np.array([[[1, 1, 2, 2, 3, 3, 4, 4]]])
    truth = np.array([[[5, 5, 5, 5, 6, 6, 6, 6]]])
    board = Scoreboard(fragments, truth, [0, 1, 1, 1, 2], [(1, 2), (2, 3)])
    review = board.review(
        [
            Suggestion(True, 1, 2),  # one object
            Suggestion(True, 3, 2),  # the wrong merge
            Suggestion(True, 2, 3),  # cut already
            Suggestion(False, 2, 3),  # two objects
            Suggestion(False, 3, 4),  # the wrong split
            Suggestion(False, 3, 4),  # joined already
        ]
    )
    assert review.right.tolist() == [False, True, False, False, True, False]
    assert review.vi[-1] == 0
    assert review.rand_error[-1] == 0
    assert review.precision(2) == 0.5
    assert review.precision(100) == pytest.approx(1 / 3)
    with pytest.raises(InputError, match="edges must lie within segments"):
        Scoreboard(fragments, truth, [0, 1, 1, 1, 2], [(3, 4)])
    with pytest.raises(InputError, match="truth must have a voxel"):
        Scoreboard(fragments, np.zeros_like(truth), [0, 1, 1, 1, 2], [])


@given(st.integers(0, 2**32), st.floats(0.1, 10))
@settings(max_examples=15)
def test_weights_are_those_of_a_general_minimiser(seed: int, strength: float) -> None:
    rng = np.random.default_rng(seed)
    x, prior = rng.normal(size=(30, 3)), rng.normal(size=4)
    y = rng.random(30) < 0.4
    found = np.array(fit_logistic(x, y, prior, strength=strength))
    ones = np.column_stack([x, np.ones(30)])

    def loss(w: np.ndarray) -> float:
        signs = np.where(y, -1, 1)
        return float(np.log1p(np.exp(signs * (ones @ w))).sum() + strength / 2 * ((w - prior) ** 2).sum())

    best = optimize.minimize(loss, prior, tol=1e-12)
    np.testing.assert_allclose(found, best.x, atol=1e-4)
    assert loss(found) <= best.fun + 1e-9


def test_probabilities_fitted_on_one_half_hold_on_the_other() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8000, 2))
    y = rng.random(8000) < 1 / (1 + np.exp(-(2 * x[:, 0] - x[:, 1] - 1)))
    weights = np.array(fit_logistic(x[:4000], y[:4000], (0, 0, 0)))
    np.testing.assert_allclose(weights, [2, -1, -1], atol=0.2)
    p = 1 / (1 + np.exp(-(x[4000:] @ weights[:2] + weights[2])))
    good, bad = reliability(p, y[4000:]), reliability(np.sqrt(p), y[4000:])
    assert good.error < 0.02 < 0.1 < bad.error
    assert good.brier < good.brier_constant
    assert good.counts.sum() == 4000


def test_small_cases_by_hand() -> None:
    found = reliability([0.05, 0.05, 0.95, 1.0], [False, True, True, True])
    assert found.predicted.tolist() == [0.05, 0.975]
    assert found.observed.tolist() == [0.5, 1.0]
    assert found.error == pytest.approx((2 * 0.45 + 2 * 0.025) / 4)
    assert found.brier_constant == pytest.approx(0.1875)
    assert np.isnan(average_precision([0.5], [False]))
    with pytest.raises(InputError, match="not empty"):
        reliability([], [])
    with pytest.raises(InputError, match="strength > 0"):
        fit_logistic([[1.0]], [True], (0.0, 0.0), strength=0)
