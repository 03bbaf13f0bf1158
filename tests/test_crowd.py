"""Fusion of votes: gradients, twins, invariances, and what simulated crowds of known ability ask for."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import reference_crowd as reference
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from strategies import read_only

from neuropil._kernels import crowd as kernel
from neuropil.crowd.cost import cost_curve
from neuropil.crowd.dawid_skene import abilities_from, dawid_skene
from neuropil.crowd.folds import circularity, cross_validate
from neuropil.crowd.fusion import SUPERVISED, Method, fuse_votes
from neuropil.crowd.glad import glad
from neuropil.crowd.scores import best_threshold, calibration, score_consensus, voxel_scores
from neuropil.crowd.sgd import _LIMITS, Form, VoteModel, _line, train_votes
from neuropil.crowd.simulate import Crowd, simulate_votes
from neuropil.crowd.thresholds import share_threshold
from neuropil.crowd.tiers import STARBURST, Record, TierRule, update_tiers, user_records
from neuropil.crowd.votes import Votes
from neuropil.errors import InputError

FORMS, METHODS = get_args(Form), get_args(Method)
rng_of = np.random.default_rng


@st.composite
def crowds(draw: st.DrawFn, voted: bool = False) -> Votes:
    """A few votes, sizes with ties, truth partly known; every segment voted on if asked for. Read-only."""
    rng = rng_of(draw(st.integers(0, 2**32 - 1)))
    users, segments = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    seen = rng.random((users, segments)) < 0.6
    if voted:
        seen[0] = True
    user, segment = np.nonzero(seen)
    votes = Votes.of(
        user,
        segment,
        rng.integers(0, 2, user.size),
        tasks=rng.integers(0, 3, segments),
        sizes=rng.integers(1, 5, segments),
        truth=rng.integers(-1, 2, segments),
        user_count=users,
    )
    for array in (votes.users, votes.segments, votes.values, votes.tasks, votes.sizes, votes.truth):
        read_only(array)
    return votes


def listed(votes: Votes) -> list[tuple[int, int, int]]:
    return list(zip(votes.users.tolist(), votes.segments.tolist(), votes.values.astype(int).tolist()))


def blank(votes: Votes) -> Votes:
    return votes.hide(np.ones(votes.tasks.size, bool))


@given(st.data(), st.sampled_from(FORMS), st.sampled_from(["squared", "log"]))
def test_a_step_of_descent_is_the_gradient(data: st.DataObject, form: Form, kind: str) -> None:
    """One visit moves every parameter by rate times the slope of the loss, as finite differences find it."""
    rng = rng_of(data.draw(st.integers(0, 2**32 - 1)))
    users, y, k = int(rng.integers(1, 5)), float(rng.integers(0, 2)), 1.0
    said = [(u, int(rng.integers(0, 2))) for u in range(users)]
    before = (rng.uniform(0.2, 0.8, users), rng.uniform(0.2, 0.8, users), rng.uniform(0.2, 0.8, 1))
    if form in ("nonnegative", "weighted"):
        k = rng.uniform(1, 3)
    if form not in ("prior", "weighted"):
        before[2][:] = 0
    if form == "weighted":
        before[1][:] = 0
    after = tuple(part.copy() for part in before)
    votes = Votes.of(np.arange(users), np.zeros(users, int), [s for _, s in said], tasks=[0])
    line = _line(votes, VoteModel(form, *before[:2], 0.0, np.ones(users, bool), k))
    arrays = (votes.starts, votes.users, votes.values.astype(float))
    rule = (form != "weighted", form in ("prior", "weighted"), kind == "log", 1e-3)
    pull = (np.zeros(users),) * 4
    kernel.epoch(np.array([0]), arrays, np.array([y]), line, after, _LIMITS[form], rule, pull)
    learnt = {"prior": (0, 1, 2), "weighted": (0, 2)}.get(form, (0, 1))
    for part in learnt:
        for j in range(before[part].size):
            up, down = ([one.copy() for one in before] for _ in range(2))
            up[part][j] += 1e-5
            down[part][j] -= 1e-5
            losses = [reference.loss(form, kind, said, y, (w, t, c[0], k)) for w, t, c in (up, down)]
            slope = (losses[0] - losses[1]) / 2e-5
            assert after[part][j] - before[part][j] == pytest.approx(-1e-3 * slope, abs=1e-9)


def test_a_pull_ends_at_its_target() -> None:
    """However strong, it never goes past it; none leaves the step alone."""
    moved = kernel._moved.py_func
    assert moved(3.0, 0.0, 1e9, 1.0, -np.inf, np.inf) == pytest.approx(1.0)
    assert 1.0 < moved(3.0, 0.0, 5.0, 1.0, -np.inf, np.inf) < 3.0
    assert moved(3.0, 0.5, 0.0, 1.0, -np.inf, np.inf) == 3.5
    assert moved(3.0, 0.5, 0.0, 1.0, 0.0, 1.0) == 1.0


@given(crowds(voted=True), st.sampled_from(FORMS))
def test_models_give_what_their_formula_says(votes: Votes, form: Form) -> None:
    rng = rng_of(0)
    w, theta = rng.uniform(0, 1, (2, votes.user_count))
    if form == "weighted":
        theta[:] = 0
    bias, k = 0.3 if form in ("prior", "weighted") else 0.0, 1.7 if form in ("nonnegative", "weighted") else 1.0
    model = VoteModel(form, w, theta, bias, np.ones(votes.user_count, bool), k)
    expected = [
        reference.output(form, [(u, s) for u, j, s in listed(votes) if i == j], (w, theta, bias, k))
        for i in range(votes.tasks.size)
    ]
    np.testing.assert_allclose(model.probability(votes), expected, rtol=1e-12)


@given(crowds(), st.sampled_from(FORMS))
def test_training_keeps_limits_and_takes_strangers_for_the_crowd(votes: Votes, form: Form) -> None:
    if not votes.labelled[votes.segments].any():
        with pytest.raises(InputError, match="votes must have truth"):
            train_votes(votes, form)
        return
    model = train_votes(votes, form, rate=5.0, epochs=5)
    low, high, theta_low, theta_high = _LIMITS[form]
    assert np.all((model.weights >= low) & (model.weights <= high + 1e-12))
    assert np.all((model.thresholds >= theta_low) & (model.thresholds <= theta_high + 1e-12))
    strangers = np.ones(votes.user_count, bool)
    strangers[votes.users[votes.labelled[votes.segments]]] = False
    assert np.array_equal(model.known, ~strangers)
    assert np.unique(model.weights[strangers]).size <= 1
    assert np.unique(model.thresholds[strangers]).size <= 1
    assert np.array_equal(np.isnan(model.probability(votes)), votes.counts == 0)


def test_training_goes_on_from_a_model() -> None:
    votes = simulate_votes(tasks=20, rng=rng_of(0)).votes
    first = train_votes(votes, "prior", epochs=3)
    again = train_votes(votes, "prior", epochs=2, start=first)
    assert not np.array_equal(first.weights, again.weights)
    assert np.abs(again.weights - first.weights).max() < 0.5 * np.abs(again.weights).max()
    # a user of the first cell alone keeps what it taught
    other = votes.keep(votes.users != votes.users[0])
    kept = train_votes(other, "prior", epochs=2, start=first, l2=1.0)
    assert kept.known[votes.users[0]]
    assert kept.weights[votes.users[0]] == pytest.approx(first.weights[votes.users[0]], abs=0.3)
    with pytest.raises(InputError, match="start must be a logistic model of 200 users; got prior of 200"):
        train_votes(votes, "logistic", start=first)


@given(crowds(voted=True), st.integers(1, 4), st.booleans())
def test_dawid_skene_is_its_twin(votes: Votes, rounds: int, labels: bool) -> None:
    given_ = votes if labels else blank(votes)
    truth = {i: int(y) for i, y in enumerate(given_.truth) if y >= 0}
    expected = reference.dawid_skene(listed(votes), truth, votes.tasks.size, votes.user_count, rounds)
    found = dawid_skene(given_, smoothing="fixed", rounds=rounds, tolerance=-1).probability
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@given(crowds(), st.sampled_from(["dawid_skene", "glad", "majority", "constant", "eyewire", "starburst"]), st.data())
def test_names_do_not_matter(votes: Votes, method: Method, data: st.DataObject) -> None:
    """Renumbering users and segments renumbers the result."""
    if votes.users.size == 0:
        return
    rng = rng_of(data.draw(st.integers(0, 2**32 - 1)))
    user, segment = rng.permutation(votes.user_count), rng.permutation(votes.tasks.size)
    moved = np.empty_like(segment)
    moved[segment] = np.arange(segment.size)
    other = Votes.of(
        user[votes.users], segment[votes.segments], votes.values, tasks=votes.tasks[moved], sizes=votes.sizes[moved],
        truth=votes.truth[moved], user_count=votes.user_count,
    )  # fmt: skip
    here, there = fuse_votes(votes, method), fuse_votes(other, method)
    np.testing.assert_allclose(there.probability[segment], here.probability, atol=1e-9)
    np.testing.assert_allclose(there.weights[user], here.weights, atol=1e-6)


@given(crowds())
def test_scores_are_their_twins(votes: Votes) -> None:
    probability = rng_of(votes.users.size).integers(0, 6, votes.tasks.size) / 5
    if not votes.labelled.any():
        return
    selected = probability >= 0.5
    found = voxel_scores(votes, selected)
    expected = reference.voxel_scores(votes.truth, votes.sizes, selected)
    np.testing.assert_allclose((found.error, found.precision, found.recall, found.f), expected)
    if (votes.truth == 1).any():
        known = votes.labelled
        cut = best_threshold(votes, probability)
        best = reference.best_error(votes.truth[known], votes.sizes[known], probability[known].tolist())
        assert voxel_scores(votes, probability >= cut).error == pytest.approx(best)


def test_golden_thresholds() -> None:
    """Spec values: min(.99, e^(-.16 m) + .2) and min(.99, e^(-.32 m) + .22)."""
    np.testing.assert_allclose(
        share_threshold([1, 2, 5, 10], "eyewire"), [0.99, 0.926149, 0.649329, 0.401897], atol=1e-6
    )
    np.testing.assert_allclose(share_threshold([1, 2, 5], "starburst"), [0.946149, 0.747292, 0.421897], atol=1e-6)
    votes = Votes.of(np.arange(5), np.zeros(5, int), [1, 1, 1, 1, 0], tasks=[0])
    assert [bool(fuse_votes(votes, one).selected[0]) for one in ("majority", "constant", "eyewire")] == [
        True,
        True,
        True,
    ]
    votes = Votes.of(np.arange(5), np.zeros(5, int), [1, 1, 1, 0, 0], tasks=[0])
    assert [bool(fuse_votes(votes, one).selected[0]) for one in ("majority", "constant", "eyewire")] == [
        True,
        True,
        False,
    ]


def test_calibration_of_the_true_model() -> None:
    """Bayes' probabilities come true; majority's shares do not."""
    made = simulate_votes(tasks=1000, segments=20, players=3, rng=rng_of(0))
    assert score_consensus(made.votes, made.bayes()).calibration.error < 0.005
    assert score_consensus(made.votes, fuse_votes(made.votes, "majority").probability).calibration.error > 0.05
    curve = calibration([0.0, 0.05, 1.0], [0, 1, 1])
    assert curve.counts.tolist() == [2] + [0] * 8 + [1]
    assert np.isnan(curve.promised[1])


def test_abilities_are_recovered() -> None:
    """Spec 6.2: Spearman of user ability >= .8, by agreement alone and by weights learnt from truth."""
    made = simulate_votes(Crowd(activity=0), rng=rng_of(1))
    for votes in (made.votes, blank(made.votes)):
        found = dawid_skene(votes).abilities
        assert spearmanr(found.weights, made.abilities.weights).statistic > 0.85
        assert spearmanr(found.sensitivity, made.abilities.sensitivity).statistic > 0.85
    for method in SUPERVISED:
        learnt = fuse_votes(made.votes, method)
        assert spearmanr(learnt.abilities.weights, made.abilities.weights).statistic > 0.85
        assert spearmanr(learnt.weights, made.abilities.weights).statistic > 0.8


def decided(votes: Votes, method: Method) -> np.ndarray:
    """What a method selects without having seen the truth of the task."""
    if method in SUPERVISED:
        return cross_validate(votes, method, rng=rng_of(0)).selected
    return fuse_votes(blank(votes), method).selected


@pytest.mark.parametrize(
    ("spammers", "method"), [(0.1, "glad"), (0.4, "dawid_skene"), *((0.1, one) for one in ("dawid_skene", *SUPERVISED))]
)
def test_beats_majority_near_the_ceiling(spammers: float, method: Method) -> None:
    """Spec 6.2 and 6.3: error at least a tenth below majority's, for any resample of tasks, and near Bayes'."""
    made = simulate_votes(Crowd(spammers=spammers), rng=rng_of(2))
    votes = made.votes
    ours, majority = decided(votes, method), decided(votes, "majority")
    times = rng_of(0).multinomial(250, np.full(250, 1 / 250), 1000)
    errors = []
    for selected in (ours, majority):
        wrong = np.bincount(votes.tasks, votes.sizes * (selected != votes.truth))
        whole = np.bincount(votes.tasks, votes.sizes * (selected | (votes.truth == 1)))
        errors.append((times @ wrong) / (times @ whole))
    assert np.quantile(errors[0] / errors[1], 0.975) < 0.9
    # the constraint of "weighted", that silence is worth the same for all, costs something
    near = 1.7 if method == "weighted" else 1.3
    assert voxel_scores(votes, ours).error < near * voxel_scores(votes, made.bayes() >= 0.5).error


@pytest.mark.parametrize("method", ["dawid_skene", "glad", *SUPERVISED])
def test_equals_are_found_out(method: Method) -> None:
    """Where all players are equal, nothing is lost against majority, which is then the best there is."""
    crowd = Crowd(sensitivity=0.85, specificity=0.85, spread=0, spammers=0)
    for seed in range(2):
        made = simulate_votes(crowd, prior=0.5, tasks=100, rng=rng_of(seed))
        ours, majority = (voxel_scores(made.votes, decided(made.votes, one)) for one in (method, "majority"))
        assert ours.error <= 1.01 * majority.error


@pytest.mark.parametrize("method", SUPERVISED)
def test_descent_mends_what_counting_takes_for_independent(method: Form) -> None:
    """Three who copy one another are one voice: counting hears three, training on truth finds out."""
    rng = rng_of(0)
    truth, task = rng.random(2000) < 0.3, np.repeat(np.arange(100), 20)
    said = [np.where(rng.random(2000) < right, truth, ~truth) for right in (0.75, 0.8, 0.8)]
    values = np.stack([said[0]] * 3 + said[1:], axis=1)
    segments, users = np.indices(values.shape).reshape(2, -1)
    votes = Votes.of(users, segments, values.ravel(), tasks=task, truth=truth)
    known, unseen = votes.hide(task >= 50), votes.hide(task < 50)
    counted, trained = (
        score_consensus(unseen, train_votes(known, method, epochs=epochs).probability(votes)) for epochs in (0, 100)
    )
    assert trained.accuracy > counted.accuracy + 0.01
    assert trained.log_loss < 0.8 * counted.log_loss


@pytest.mark.parametrize("method", METHODS)
def test_adversaries_help_who_knows_them(method: Method) -> None:
    made = simulate_votes(Crowd(spammers=0.2, adversaries=0.1, activity=0), tasks=100, rng=rng_of(4))
    error = voxel_scores(made.votes, fuse_votes(made.votes, method).selected).error
    majority = voxel_scores(made.votes, fuse_votes(made.votes, "majority").selected).error
    if method in ("dawid_skene", "glad", "logistic", "prior", "weighted"):
        assert error < 0.7 * majority


@pytest.mark.parametrize("method", ["dawid_skene", "glad"])
def test_one_vote_each_is_believed(method: Method) -> None:
    """Without a second vote nothing is known of anybody: the answer is the vote, not nothing at all."""
    votes = blank(simulate_votes(players=1, tasks=50, rng=rng_of(0)).votes)
    assert np.array_equal(fuse_votes(votes, method).selected, votes.values)
    constant = Votes.of([0, 1], [0, 1], [0, 0], tasks=[0, 0])
    assert fuse_votes(constant, method).selected.tolist() == [False, False]


def test_ease_is_found() -> None:
    made = simulate_votes(difficulty=0.8, players=10, tasks=100, rng=rng_of(0))
    model = glad(made.votes, ease_spread=0.8)
    assert spearmanr(model.ease, made.ease).statistic > 0.5
    assert spearmanr(model.inside + model.outside, made.abilities.weights).statistic > 0.6


def test_few_votes_say_little() -> None:
    """A user with one right answer is taken for an ordinary one, not for a perfect one."""
    users = np.concatenate([np.repeat(np.arange(1, 5), 50), [0]])
    segments = np.concatenate([np.tile(np.arange(50), 4), [0]])
    truth = np.arange(50) % 2 == 0
    values = np.where(rng_of(0).random(201) < 0.8, truth[segments], ~truth[segments])
    values[-1] = truth[0]
    votes = Votes.of(users, segments, values, tasks=np.zeros(50, int), truth=truth)
    found = abilities_from(votes, truth.astype(float))
    assert abs(found.sensitivity[0] - found.sensitivity[1:].mean()) < 0.05


def test_folds_are_honest() -> None:
    """No segment is judged by a model that saw it or, by task, its task."""
    made = simulate_votes(tasks=30, segments=10, rng=rng_of(0))
    votes = made.votes
    for by in ("task", "segment"):
        held = cross_validate(votes, "logistic", by=by, folds=3, rng=rng_of(0))
        assert not np.isnan(held.probability).all()
        wrong = votes.hide(np.zeros(votes.tasks.size, bool))
        flipped = np.where(votes.tasks == 0, 1 - votes.truth, votes.truth)
        wrong = Votes.of(votes.users, votes.segments, votes.values, tasks=votes.tasks, sizes=votes.sizes, truth=flipped,
                         user_count=votes.user_count)  # fmt: skip
        again = cross_validate(wrong, "logistic", by=by, folds=3, rng=rng_of(0))
        same = np.array_equal(held.probability[votes.tasks == 0], again.probability[votes.tasks == 0], equal_nan=True)
        assert same == (by == "task"), "by segment, the labels of a task's other segments leak into its scores"


def test_circular_truth_is_flagged_and_independent_truth_is_not() -> None:
    for seed in range(3):
        made = simulate_votes(rng=rng_of(seed))
        assert not circularity(made.votes).circular
        consensus = fuse_votes(made.votes, "majority").selected
        votes = made.votes
        made_of_votes = Votes.of(votes.users, votes.segments, votes.values, tasks=votes.tasks, truth=consensus,
                                 user_count=votes.user_count)  # fmt: skip
        told = circularity(made_of_votes)
        assert told.circular
        assert told.agreement == 1
    assert not circularity(simulate_votes(players=15, rng=rng_of(0)).votes).circular, "nearly perfect is not circular"


def test_tiers_follow_the_rule() -> None:
    """Spec 4: promoted from below .5 at .7 / .7; demoted from 1 to .1 below it; others and experts keep theirs."""
    precision, recall = np.array([0.7, 0.7, 0.69, 0.9, 0.5, 0.5]), np.array([0.7, 0.69, 0.9, 0.9, 0.9, 0.5])
    record = Record(precision, recall, np.full(6, 21))
    weights = np.array([0.1, 1.0, 0.1, 0.6, 1.0, 1.0])
    exempt = np.array([False] * 5 + [True])
    assert update_tiers(weights, record, exempt=exempt).tolist() == [1.0, 0.1, 0.1, 0.6, 0.1, 1.0]
    assert update_tiers(weights, record, STARBURST, exempt=exempt).tolist() == [0.1, 0.1, 0.1, 0.6, 0.1, 1.0]
    idle = Record(precision, recall, np.zeros(6, int))
    assert update_tiers(weights, idle).tolist() == weights.tolist()
    busy = Record(np.full(6, 0.9), np.full(6, 0.9), np.array([20, 21, 20, 21, 20, 21]))
    assert update_tiers(np.full(6, 0.1), busy, STARBURST).tolist() == [0.1, 1.0] * 3
    with pytest.raises(InputError, match="one entry per user"):
        update_tiers(np.ones(2), busy, TierRule())


@given(crowds())
def test_records_are_sums_of_voxels(votes: Votes) -> None:
    consensus = votes.truth == 1
    record = user_records(votes, consensus)
    for u in range(votes.user_count):
        mine = [(votes.sizes[i], s, consensus[i], votes.tasks[i]) for v, i, s in listed(votes) if v == u]
        both = sum(size for size, s, y, _ in mine if s and y)
        for found, whole in (
            (record.precision[u], sum(size for size, s, _, _ in mine if s)),
            (record.recall[u], sum(size for size, _, y, _ in mine if y)),
        ):
            assert (np.isnan(found) and not whole) or found == pytest.approx(both / whole)
        assert record.tasks[u] == len({task for *_, task in mine})


def test_more_players_cost_more_and_err_less() -> None:
    made = simulate_votes(players=9, rng=rng_of(3))
    curve = cost_curve(made.votes, most=9, rng=rng_of(0))
    assert curve.votes.tolist() == [float(m) for m in range(1, 10)]
    assert curve.error[-1] < 0.3 * curve.error[0]
    assert 1 < curve.needed(0.95) < 9
    majority = cost_curve(made.votes, "majority", most=9, rng=rng_of(0))
    assert curve.needed(0.95) < majority.needed(0.95)
    supervised = cost_curve(made.votes, "logistic", most=2, folds=2, rng=rng_of(0))
    assert supervised.players.tolist() == [1, 2]
    assert np.isinf(curve.needed(1.0001))


def test_the_simulator_keeps_its_word() -> None:
    made = simulate_votes(Crowd(spread=0, spammers=0), tasks=500, rng=rng_of(0))
    votes, inside = made.votes, made.votes.truth[made.votes.segments] == 1
    assert votes.values[inside].mean() == pytest.approx(0.8, abs=0.01)
    assert votes.values[~inside].mean() == pytest.approx(0.05, abs=0.005)
    assert (votes.truth == 1).mean() == pytest.approx(0.3, abs=0.02)
    assert set(votes.counts) == {5}
    spread = simulate_votes(Crowd(users=5000, spammers=0, adversaries=0.2), tasks=1, players=1, rng=rng_of(0)).abilities
    assert spread.sensitivity[1000:].mean() == pytest.approx(0.8, abs=0.01)
    assert spread.sensitivity[:1000].mean() == pytest.approx(0.2, abs=0.02)
    again = simulate_votes(Crowd(spread=0, spammers=0), tasks=500, rng=rng_of(0))
    assert np.array_equal(again.votes.values, votes.values)


def test_segments_without_votes_and_seeds() -> None:
    votes = Votes.of([0, 1, 0], [0, 0, 1], [1, 1, 1], tasks=[0, 0, 0], truth=[1, 1, 1])
    for method in METHODS:
        found = fuse_votes(votes, method)
        assert np.isnan(found.probability[2]), method
        assert not found.selected[2]
    left = votes.without(np.array([False, True]), np.array([True, False, False]))
    assert left.counts.tolist() == [0, 1, 0]
    assert left.truth.tolist() == [-1, 1, 1]
    assert fuse_votes(left, "majority").selected.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 0], [0, 0], [1, 0]), "user 0 voted twice on 0"),
        (([0], [5], [1]), "segments must be below"),
        (([0], [0], [2]), "values must be 0 or 1"),
        (([-1], [0], [1]), "users must not be negative"),
        (([0.5], [0], [1]), "users must be integers"),
        (([0, 1], [0], [1]), "one shape"),
    ],
)
def test_bad_votes(arguments: tuple[list[float], ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Votes.of(*arguments, tasks=[0])


def test_bad_choices() -> None:
    votes = simulate_votes(tasks=5, rng=rng_of(0)).votes
    for call, message in (
        (lambda: fuse_votes(votes, "loudest"), "method must be one of"),
        (lambda: fuse_votes(blank(votes), "logistic"), "votes must have truth"),
        (lambda: fuse_votes(votes.keep(np.zeros(votes.users.size, bool))), "there must be votes"),
        (lambda: dawid_skene(votes, smoothing="some"), "smoothing must be"),
        (lambda: glad(votes, ease_spread=-1), "no negative spread"),
        (lambda: train_votes(votes, loss="hinge"), "loss must be"),
        (lambda: train_votes(votes, rate=0), "rate must be above 0"),
        (lambda: cross_validate(votes, folds=6, rng=rng_of(0)), "a labelled task for each"),
        (lambda: cross_validate(votes, by="user", rng=rng_of(0)), "by must be"),
        (lambda: circularity(blank(votes)), "votes must have truth"),
        (lambda: cost_curve(blank(votes), rng=rng_of(0)), "some truth known"),
        (lambda: score_consensus(blank(votes), np.zeros(100)), "votes must have truth"),
        (lambda: score_consensus(votes, [0.5]), "one entry per segment"),
        (lambda: calibration([1.5], [1]), r"must lie in \[0, 1\]"),
        (lambda: share_threshold(3, "loud"), "rule must be one of"),
        (lambda: user_records(votes, np.zeros(3, bool)), "consensus must be boolean"),
        (lambda: simulate_votes(players=201, rng=rng_of(0)), "1 ... 200 players"),
        (lambda: simulate_votes(prior=1, rng=rng_of(0)), "prior must lie between"),
        (lambda: simulate_votes(Crowd(spread=1), rng=rng_of(0)), "spread must lie"),
        (lambda: simulate_votes(Crowd(spammers=0.8, adversaries=0.3), rng=rng_of(0)), "shares of the users"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    assert set(SUPERVISED) < set(METHODS)
