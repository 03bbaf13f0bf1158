"""Where a segmentation is probably wrong: sums over trees as done one by one, and planted errors come first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_suspects import contacts_of, cut_facts

from neuropil.errors import InputError
from neuropil.segmentation.shapes import Shapes
from neuropil.segmentation.suspects import CUT_FEATURES, JOIN_FEATURES, contact_voxel, find_suspects, parts_of
from neuropil.segmentation.suspicion import DEFAULT, Suspicion, ranked
from neuropil.synthetic import make_tissue

CUT, JOIN = ({name: k for k, name in enumerate(names)} for names in (CUT_FEATURES, JOIN_FEATURES))


@pytest.fixture(scope="module")
def planted():
    """Tissue in pieces, with good affinities; one wrong merge and one wrong split."""
    rng = np.random.default_rng(3)
    tissue = make_tissue((12, 96, 96), rng=rng, voxel_size=(40, 8, 8))
    truth = tissue.ids.astype(np.int64)
    z, y, x = np.indices(truth.shape)
    pieces = np.where(truth > 0, truth * 1000 + (z // 4) * 100 + (y // 24) * 10 + x // 24, 0)
    links = np.zeros((3, *truth.shape), np.float32)
    for axis in range(3):
        here, there = ([slice(None)] * 3 for _ in range(2))
        here[axis], there[axis] = slice(1, None), slice(None, -1)
        same = (truth[tuple(here)] == truth[tuple(there)]) & (truth[tuple(here)] > 0)
        links[(axis, *here)] = np.where(same, 0.93, 0.07) + rng.normal(0, 0.04, same.shape)
    links = links.clip(0, 1)
    contacts, _ = contacts_of(truth[::3, ::3, ::3], links[:, ::3, ::3, ::3])
    sizes = dict(zip(*np.unique(truth, return_counts=True)))
    a, b = max((pair for pair in contacts if min(sizes[k] for k in pair) > 1500), key=lambda p: len(contacts[p]))
    whole = [one for one, n in sizes.items() if one not in (0, a, b) and n > 3000 and np.ptp(z[truth == one]) == 11]
    c = whole[0]
    wrong = truth.copy()
    wrong[wrong == b] = a
    wrong[(truth == c) & (z >= 8)] = truth.max() + 1
    return truth, wrong, pieces, links, (a, b), c


def test_planted_errors_come_first(planted) -> None:
    truth, wrong, pieces, links, merged, divided = planted
    parts = parts_of(wrong, pieces)
    search = find_suspects(parts, links)
    known = search.suspects
    objects = {int(one): int(truth[parts.fragments == one][0]) for one in np.unique(parts.fragments)[1:]}

    def planted_at(order: str) -> list[int]:
        """Ranks of the planted merge and the planted split."""
        places = {}
        for rank, k in enumerate(ranked(known, DEFAULT.probability(known), order=order).tolist()):
            ends = {objects[int(known.u[k])], objects[int(known.v[k])]}
            if ends == (set(merged) if known.cut[k] else {divided}):
                places.setdefault(bool(known.cut[k]), rank)
        return [places[True], places[False]]

    assert sorted(planted_at("probability")) == [0, 1]
    assert planted_at("gain")[0] == 0  # a merge of two long ones gains more than the split of one
    assert planted_at("gain")[1] < 5
    k = int(ranked(known, DEFAULT.probability(known))[0])
    side = search.side(k)[parts.fragments]
    whole = parts.segment_of[parts.fragments] == known.segments[k, 0]
    assert (truth[side & whole] == objects[int(known.u[k])]).mean() > 0.99
    assert known.sizes[k].tolist() == [int((side & whole).sum()), int((whole & ~side).sum())]


def test_nothing_planted_nothing_probable(planted) -> None:
    truth, wrong, pieces, links, *_ = planted
    right, planted_too = (
        DEFAULT.probability(found.suspects) * found.suspects.gain
        for found in (find_suspects(parts_of(one, pieces), links) for one in (truth, wrong))
    )
    assert right.max() < planted_too.max() / 5


@st.composite
def volumes(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.tuples(st.integers(1, 3), st.integers(2, 4), st.integers(2, 5)))
    fragments = rng.integers(0, draw(st.integers(2, 9)), shape)
    segmentation = np.where(fragments > 0, fragments % draw(st.integers(1, 3)) + 1, 0)
    if not segmentation.any():
        segmentation[:] = fragments[:] = 1
    return segmentation, fragments, rng.random((3, *shape)).astype(np.float32)


@given(volumes())
@settings(max_examples=40)
def test_sums_over_trees_are_those_of_each_cut_alone(volume) -> None:
    segmentation, fragments, links = volume
    parts = parts_of(segmentation, fragments)
    search = find_suspects(parts, links, threshold=0.5, least=1)
    known = search.suspects
    edges = search.edges.tolist()
    assert known.cut.sum() == len(edges)
    for k in np.flatnonzero(known.cut).tolist():
        mean, count, weak, faces, sizes = cut_facts(
            parts.fragments, links, edges, int(known.u[k]), int(known.v[k]), np.float32(0.5)
        )
        row = known.features[k]
        assert row[CUT["log_count"]] == pytest.approx(np.log10(count + 1))
        assert 1 / (1 + np.exp(-row[CUT["mean"]])) == pytest.approx(np.clip(mean, 0.01, 0.99), abs=1e-6)
        assert row[CUT["weak"]] == pytest.approx(weak)
        assert row[CUT["faces"]] == min(*faces, 2)
        assert known.sizes[k].tolist() == sizes
        side = np.flatnonzero(search.side(k))
        assert int(np.isin(parts.fragments, side).sum()) == sizes[0]


@given(volumes())
@settings(max_examples=40)
def test_joins_are_pairs_of_segments_in_contact(volume) -> None:
    segmentation, fragments, links = volume
    parts = parts_of(segmentation, fragments)
    known = find_suspects(parts, links, least=1).suspects
    known = known.take(~known.cut)
    contacts, _ = contacts_of(segmentation, links)
    found = {}
    for row, pair in zip(known.features, known.segments):
        a, b = sorted(int(parts.segment_ids[one]) for one in pair)
        found[a, b] = row
    assert set(found) == set(contacts)
    around = {}
    for pair, values in contacts.items():
        for one in pair:
            around[one] = around.get(one, 0) + len(values)
    sizes = dict(zip(*(a.tolist() for a in np.unique(segmentation, return_counts=True))))
    for (a, b), values in contacts.items():
        row, small = found[a, b], a if sizes[a] <= sizes[b] else b
        assert row[JOIN["log_count"]] == pytest.approx(np.log10(len(values) + 1))
        assert row[JOIN["share"]] == pytest.approx(len(values) / around[small])
        assert row[JOIN["largest"]] == pytest.approx(max(values))


def test_a_hole_and_an_end_in_the_middle_speak_for_a_join() -> None:
    labels = np.ones((5, 9, 9), np.uint64)
    labels[2, 3:6, 3:6] = 2
    known = find_suspects(parts_of(labels, labels), np.full((3, 5, 9, 9), 0.4, np.float32), least=1).suspects
    assert known.features[0, [JOIN["share"], JOIN["ends"]]].tolist() == [1.0, 1.0]
    two = np.ones((4, 8, 8), np.uint64)
    two[2:] = 2
    known = find_suspects(parts_of(two, two), np.full((3, 4, 8, 8), 0.4, np.float32), least=1).suspects
    assert known.features[0, JOIN["overlap"]] == 1.0
    side = np.ones((4, 8, 8), np.uint64)
    side[:, :, 4:] = 2
    known = find_suspects(parts_of(side, side), np.full((3, 4, 8, 8), 0.4, np.float32), least=1).suspects
    assert known.features[0, JOIN["overlap"]] == 0.0


def test_a_jump_of_area_is_told() -> None:
    labels = np.zeros((8, 40, 40), np.uint64)
    labels[:4, :10, :10] = 1
    labels[4:, :20, :20] = 2
    whole = (labels > 0).astype(np.uint64)
    known = find_suspects(parts_of(whole, labels), np.full((3, 8, 40, 40), 0.6, np.float32), least=1).suspects
    assert known.cut.tolist() == [True]
    assert known.features[0, CUT["jump"]] == pytest.approx(2)  # from 100 to 400 voxels
    assert Shapes.of(labels, np.array([0, 1, 1])).areas[1].tolist() == [100] * 4 + [400] * 4


def test_cuts_at_the_same_place_are_listed_once() -> None:
    labels = np.zeros((1, 4, 100), np.uint64)
    for k, start in enumerate((0, 45, 50, 55)):
        labels[:, :, start:] = k + 1
    whole = np.ones_like(labels)
    search = find_suspects(parts_of(whole, labels), np.full((3, 1, 4, 100), 0.5, np.float32), least=1)
    assert search.suspects.cut.tolist() == [True] * 3
    probability = np.array([0.5, 0.9, 0.6])
    assert len(ranked(search.suspects, probability)) == 1
    assert len(ranked(search.suspects, probability, alike=1.0)) == 3
    apart = labels.copy()
    apart[:, :, 10:90] = 2  # the ends of one middle
    apart[:, :, 90:] = 3
    apart[:, :, :10] = 1
    search = find_suspects(parts_of(whole, apart), np.full((3, 1, 4, 100), 0.5, np.float32), least=1)
    assert len(ranked(search.suspects, np.array([0.5, 0.5]))) == 2


def test_order_by_probability_alone(planted) -> None:
    _, wrong, pieces, links, *_ = planted
    known = find_suspects(parts_of(wrong, pieces), links).suspects
    p = DEFAULT.probability(known)
    order = ranked(known, p, order="probability")
    assert (np.diff(p[order]) <= 0).all()


def test_the_voxel_of_a_contact() -> None:
    labels = np.ones((3, 6, 6), np.uint64)
    labels[:, 3:] = 2
    assert contact_voxel(labels, 1, 2, (1.2, 2.0, 4.4), (40, 4, 4), (0, 3, 0, 6, 0, 6)) == (1, 2, 4)
    assert contact_voxel(labels, 2, 1, (1.2, 2.0, 4.4), (40, 4, 4), (0, 3, 0, 6, 0, 6)) == (1, 3, 4)


def test_fragments_are_cut_by_segments_and_completed() -> None:
    parts = parts_of([[[7, 7, 2**50, 0, 7]]], [[[3, 9, 9, 9, 0]]])
    assert parts.segment_ids.tolist() == [0, 7, 2**50]
    assert parts.segment_ids[parts.segment_of[parts.fragments]].tolist() == [[[7, 7, 2**50, 0, 7]]]
    assert len(np.unique(parts.fragments)) == 5
    assert parts.fragment_ids[parts.fragments].tolist() == [[[3, 9, 9, 0, 0]]]


def test_bad_input_is_refused() -> None:
    ones = np.ones((1, 2, 3), np.uint64)
    with pytest.raises(InputError, match="fragments must have the shape"):
        parts_of(ones, ones[:, :1])
    with pytest.raises(InputError, match="threshold must lie between 0 and 1"):
        find_suspects(parts_of(ones, ones), np.zeros((3, 1, 2, 3)), threshold=1.0)
    with pytest.raises(InputError, match="weights must number 9"):
        Suspicion((1.0,), DEFAULT.cut)
