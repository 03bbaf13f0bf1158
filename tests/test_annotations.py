"""Fusion of whole annotations: the objective by brute force, invariances, and annotators with known slips."""

from __future__ import annotations

import numpy as np
import pytest
import reference_crowd as reference
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import ids, read_only

from neuropil.crowd.agreement import cut_into_atoms, reliability
from neuropil.crowd.annotations import _partition, fuse_annotations
from neuropil.crowd.annotators import Slips, imitate_annotator
from neuropil.errors import InputError
from neuropil.labels import relabel
from neuropil.metrics.scores import score_segmentation
from neuropil.synthetic import make_tissue

rng_of = np.random.default_rng


@st.composite
def annotations(draw: st.DrawFn, least: int = 1) -> list[np.ndarray]:
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 4)))
    return [read_only(draw(hnp.arrays(np.uint64, shape, elements=ids))) for _ in range(draw(st.integers(least, 4)))]


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two labellings are equal up to ids."""
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist()))
    return len({x for x, _ in pairs}) == len(pairs) == len({y for _, y in pairs}) and ((a == 0) == (b == 0)).all()


@given(annotations())
def test_atoms_are_the_intersections(given_: list[np.ndarray]) -> None:
    atoms = cut_into_atoms(given_)
    tuples = list(zip(*(one.ravel().tolist() for one in given_)))
    codes = atoms.codes.ravel().tolist()
    assert len(set(zip(codes, tuples))) == len(set(tuples)) == len(set(codes))
    assert atoms.sizes.sum() == len(codes)
    for k, one in enumerate(given_):
        assert same(atoms.ids[atoms.codes.astype(int), k] + 1, one)


@given(annotations(least=2), st.data())
def test_partition_is_nearly_the_best_there_is(given_: list[np.ndarray], data: st.DataObject) -> None:
    """Never worse than any annotator or than keeping apart, and no atom would gain by moving (before slivers go)."""
    atoms = cut_into_atoms(given_)
    atoms = atoms.only((atoms.ids >= 0).any(axis=1))
    assume(0 < atoms.sizes.size <= 6)
    weights = data.draw(st.sampled_from([np.ones(len(given_)), np.arange(1.0, len(given_) + 1)]))
    weights = weights / weights.sum()
    listed = (np.where(atoms.ids >= 0, atoms.ids + 1, 0).tolist(), atoms.sizes.tolist(), weights.tolist())
    clusters = _partition(atoms, weights)
    found, best = reference.agreement(*listed, clusters.tolist()), reference.most_agreement(*listed)
    assert best >= found - 1e-9
    assert found >= 0.8 * best - 0.4 * atoms.sizes.sum() - 1e-9  # slivers may cost a little


def test_the_sweep_finds_the_best_partition_of_clear_objects() -> None:
    """Five annotators with slips of their own on two objects: exactly the best of all partitions."""
    a, b, n = [1] * 6, [2] * 6, 12
    given_ = [[a + b], [a[:5] + [2] + b], [[1] * n], [a + [2, 2, 2, 3, 3, 3]], [a + b]]
    atoms = cut_into_atoms([np.array([one], np.uint64) for one in given_])
    inside = atoms.only(np.arange(atoms.sizes.size) > 0)
    weights = np.full(5, 0.2)
    listed = ((inside.ids + 1).tolist(), inside.sizes.tolist(), weights.tolist())
    assert reference.agreement(*listed, _partition(inside, weights).tolist()) == pytest.approx(
        reference.most_agreement(*listed)
    )


@given(annotations())
def test_agreeing_annotators_are_believed(given_: list[np.ndarray]) -> None:
    for background in ("opinion", "unknown"):
        fused = fuse_annotations([given_[0]] * 3, background=background)
        assert same(fused.labels, given_[0])
        painted = np.ones_like(given_[0], bool) if background == "opinion" else given_[0] > 0
        assert (fused.confidence[painted] == pytest.approx(1)) or not painted.any()


@given(annotations(least=2))
def test_results_are_whole_and_ids_do_not_matter(given_: list[np.ndarray]) -> None:
    fused = fuse_annotations(given_)
    assert fused.labels.dtype == np.uint64
    assert np.array_equal(np.unique(np.append(fused.labels, 0)), np.arange(int(fused.labels.max()) + 1))
    assert fused.confidence.dtype == np.float32
    assert fused.confidence.min() >= 0
    assert fused.confidence.max() <= 1 + 1e-6
    assert fused.weights.sum() == pytest.approx(1)
    dense = fuse_annotations([relabel(one).labels for one in given_])
    assert np.array_equal(dense.labels, fused.labels)
    unknown = fuse_annotations(given_, background="unknown")
    assert np.array_equal(unknown.labels == 0, np.all([one == 0 for one in given_], axis=0))


def test_one_annotator_is_copied_and_background_is_voted_on() -> None:
    one = np.array([[[5, 5, 0, 9]]], np.uint64)
    assert same(fuse_annotations([one]).labels, one)
    half = fuse_annotations([one, np.zeros_like(one), np.full_like(one, 3)], weights=[1, 1, 1])
    assert half.labels.tolist() == [[[1, 1, 0, 2]]]
    assert fuse_annotations([one, np.zeros_like(one)], background="unknown").labels.tolist() == [[[1, 1, 0, 2]]]


def test_shifted_borders_do_not_join() -> None:
    """Everybody draws the border elsewhere: links at each of the borders have a majority, and yet nothing joins."""
    given_ = [np.where(np.arange(20) < border, 1, 2)[None, None] for border in (8, 9, 10, 11, 12)]
    fused = fuse_annotations(given_)
    assert fused.labels.ravel().tolist() == [1] * 10 + [2] * 10
    assert fused.confidence.ravel()[[0, 19]].tolist() == [1.0, 1.0]
    assert fused.confidence.ravel()[9:11].max() < 0.75
    assert not fused.mask()[0, 0, 9:11].any()
    assert fused.mask()[0, 0, :6].all()


def test_confidence_is_low_where_a_merge_was_made() -> None:
    right = np.repeat([1, 2], 10)[None, None]
    fused = fuse_annotations([right, right, np.ones_like(right)], weights=[1, 1, 1])
    assert same(fused.labels, right)
    assert fused.confidence.ravel().round(2).tolist() == [1.0] * 9 + [pytest.approx(0.67)] * 2 + [1.0] * 9


def test_reliability_needs_no_truth() -> None:
    """People of known care are ranked by it, a spammer comes last and weighs next to nothing."""
    truth = make_tissue((6, 96, 96), rng=rng_of(0), membrane=False, voxel_size=(50, 12, 12)).ids
    rng = rng_of(1)
    care = [Slips(0, 0, 0.3), Slips(0.1, 0.2, 1.0), Slips(0.4, 0.8, 3.0), Slips(0.02, 0.02, 0.5)]
    given_ = [imitate_annotator(truth, one, rng=rng) for one in care]
    given_.append(rng.integers(1, 40, truth.shape).astype(np.uint64))
    found = reliability(cut_into_atoms(given_))
    assert found.argmin() == 4
    assert found[2] < min(found[0], found[1], found[3])
    assert fuse_annotations(given_).weights[4] < 0.05


def test_fused_is_better_than_the_best_annotator() -> None:
    """Three of ordinary care, or two and one careless: VI and Rand error below those of the best of them."""
    truth = make_tissue((8, 128, 128), rng=rng_of(3), membrane=False, voxel_size=(50, 12, 12)).ids
    for seed in range(3):
        for third in (Slips(), Slips(0.3, 0.5, 3.0)):
            rng = rng_of(seed)
            given_ = [imitate_annotator(truth, one, rng=rng) for one in (Slips(), Slips(), third)]
            scores = [score_segmentation(one, truth) for one in [*given_, fuse_annotations(given_).labels]]
            assert scores[-1].information.total < min(one.information.total for one in scores[:-1])
            assert scores[-1].rand.error < 1.05 * min(one.rand.error for one in scores[:-1])


def test_mask_is_right_more_often() -> None:
    """Where annotators agree, links of the fused annotation are truer than elsewhere."""
    truth = make_tissue((6, 96, 96), rng=rng_of(5), membrane=False, voxel_size=(50, 12, 12)).ids
    rng = rng_of(0)
    fused = fuse_annotations([imitate_annotator(truth, rng=rng) for _ in range(3)])
    wrong = (fused.labels[..., 1:] == fused.labels[..., :-1]) != (truth[..., 1:] == truth[..., :-1])
    mask = fused.mask()[..., 1:]
    assert 0.5 < mask.mean() < 0.95
    assert wrong[mask].mean() < 0.1 * wrong[~mask].mean()


def test_imitated_annotators_slip_as_told() -> None:
    truth = make_tissue((4, 96, 96), rng=rng_of(0), membrane=False, voxel_size=(50, 12, 12)).ids
    assert same(imitate_annotator(truth, Slips(0, 0, 0), rng=rng_of(0)), truth)
    score = lambda slips: score_segmentation(imitate_annotator(truth, slips, rng=rng_of(0)), truth).information  # noqa: E731
    merged, split, shifted = score(Slips(0.3, 0, 0)), score(Slips(0, 0.5, 0)), score(Slips(0, 0, 2.0))
    assert merged.merge > 0.1 > merged.split == 0
    assert split.split > 0.1 > split.merge == 0
    assert min(shifted.split, shifted.merge) > 0.05


@pytest.mark.parametrize(
    ("given_", "options", "message"),
    [
        ([], {}, "at least one"),
        ([np.ones((2, 2), int)], {}, "axes"),
        ([np.ones((1, 2, 2), int), np.ones((1, 2, 3), int)], {}, "one shape"),
        ([np.ones((1, 2, 2))], {}, "must be integers"),
        ([np.ones((1, 2, 2), int)], {"weights": [1, 2]}, "weights must be positive numbers"),
        ([np.ones((1, 2, 2), int)], {"weights": [-1]}, "weights must be positive numbers"),
        ([np.ones((1, 2, 2), int)], {"background": "none"}, "background must be one of"),
    ],
)
def test_bad_annotations(given_: list[np.ndarray], options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fuse_annotations(given_, **options)


def test_bad_slips() -> None:
    with pytest.raises(InputError, match="slips must not be negative"):
        imitate_annotator(np.ones((1, 2, 2), int), Slips(shift=-1), rng=rng_of(0))
    with pytest.raises(InputError, match="axes"):
        imitate_annotator(np.ones((2, 2), int), rng=rng_of(0))
