"""Run length: the golden chains, equality with its slow twin and funlib's definition, and what it must obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference_run_length as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ids, read_only

from neuropil.errors import InputError
from neuropil.metrics.run_length import run_length, run_length_interval
from neuropil.metrics.run_length_errors import run_length_errors


def chains(*segments):
    """Skeletons 1, 2 ... of nodes one nm apart, with these segments."""
    positions = [(0, 10 * row, x) for row, line in enumerate(segments) for x in range(len(line))]
    starts = np.cumsum([0, *map(len, segments)]).tolist()
    edges = [(start + x, start + x + 1) for start, line in zip(starts, segments) for x in range(len(line) - 1)]
    skeletons = [row + 1 for row, line in enumerate(segments) for _ in line]
    return positions, edges, skeletons, [one for line in segments for one in line]


@pytest.mark.parametrize(
    ("a", "b", "threshold", "erl", "nerl"),
    [
        ([1] * 6 + [2] * 5, [3] * 6, 0, 4.4, 0.528),
        ([1] * 6 + [2] * 5, [3] * 5 + [1], 0, 2.133, 0.256),
        ([1] * 6 + [2] * 5, [3] * 5 + [1], 2, 3.8, 0.456),
        ([1] * 6 + [0] + [2] * 4, [3] * 6, 0, 3.933, 0.472),
    ],
)
def test_worked_examples(a, b, threshold, erl, nerl):
    result = run_length(*chains(a, b), merge_threshold=threshold)
    assert result.erl_nm == pytest.approx(erl, abs=5e-4)
    assert result.true_erl_nm == pytest.approx(8.333, abs=5e-4)
    assert result.normalized == pytest.approx(nerl, abs=5e-4)


@st.composite
def graphs(draw, background=True):
    """Trees (or forests) of 1 ... 4 skeletons with a segment at each node; ids may be huge."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(2, 24))
    names = np.array(draw(st.lists(ids, min_size=1, max_size=4, unique=True)), np.uint64)
    skeletons = rng.choice(names, n)
    edges = []
    for v in range(1, n):
        same = np.flatnonzero(skeletons[:v] == skeletons[v])
        if same.size and rng.random() < 0.9:
            edges.append((int(rng.choice(same)), v))
    palette = np.array(draw(st.lists(ids, min_size=1, max_size=5, unique=True)), np.uint64)
    palette = palette if background else np.maximum(palette, 1)
    positions = rng.integers(0, 50, (n, 3)).astype(float)
    return positions, np.array(edges, np.int64).reshape(-1, 2), skeletons, rng.choice(palette, n)


def plain(graph):
    return tuple(part.tolist() for part in graph)


@given(graphs(), st.integers(0, 5), st.booleans())
@settings(deadline=None)
def test_equals_its_slow_twin(graph, threshold, forbid):
    graph = tuple(map(read_only, graph))
    no_merge = [int(graph[3][0])] if forbid else []
    result = run_length(*graph, merge_threshold=threshold, no_merge=no_merge)
    erl, true, kinds, merging, merges, splits = reference.run_length(*plain(graph), threshold, no_merge)
    np.testing.assert_allclose([result.erl_nm, result.true_erl_nm], [erl, true], equal_nan=True)
    for kind in ("correct", "split", "merged", "omitted"):
        assert getattr(result, f"{kind}_nm").sum() == pytest.approx(kinds[kind])
    assert result.merging.tolist() == sorted(merging)
    assert (result.merges, result.splits) == (merges, splits)


@given(graphs())
@settings(deadline=None)
def test_equals_funlib_without_a_threshold(graph):
    erl = run_length(*graph).erl_nm
    if not math.isnan(erl):
        assert erl == pytest.approx(reference.funlib(*plain(graph)))


@given(graphs(), st.integers(0, 4), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_names_and_order_do_not_matter(graph, threshold, seed):
    positions, edges, skeletons, segments = graph
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(positions))
    place = np.argsort(order)
    names = np.unique(segments)
    renamed = (rng.permutation(names.size).astype(np.uint64) + np.uint64(1)) * np.uint64(2**41 + 1)
    renamed[names == 0] = 0
    again = renamed[np.searchsorted(names, segments)]
    turned = place[edges][:, ::-1][rng.permutation(len(edges))]
    before = run_length(*graph, merge_threshold=threshold)
    after = run_length(positions[order], turned, skeletons[order], again[order], merge_threshold=threshold)
    assert after.erl_nm == pytest.approx(before.erl_nm, nan_ok=True)
    assert (after.merges, after.splits) == (before.merges, before.splits)


@given(graphs(), st.data())
@settings(deadline=None)
def test_splitting_or_merging_right_segments_never_helps(graph, data):
    positions, edges, skeletons, _ = graph
    perfect = np.unique(skeletons, return_inverse=True)[1].astype(np.uint64) + np.uint64(1)
    best = run_length(positions, edges, skeletons, perfect).erl_nm
    cut = np.array(data.draw(st.lists(st.booleans(), min_size=len(perfect), max_size=len(perfect))))
    assert not run_length(positions, edges, skeletons, perfect + np.uint64(100) * cut).erl_nm > best + 1e-9
    a, b = data.draw(st.sampled_from(perfect.tolist())), data.draw(st.sampled_from(perfect.tolist()))
    joined = np.where(perfect == b, np.uint64(a), perfect)
    assert not run_length(positions, edges, skeletons, joined).erl_nm > best + 1e-9


def test_extremes():
    a, b = [1] * 6, [2] * 9
    assert run_length(*chains(a, b)).normalized == 1
    assert run_length(*chains([0] * 6, [0] * 9)).erl_nm == 0
    assert run_length(*chains([7] * 6, [7] * 9)).erl_nm == 0
    assert run_length(*chains([7] * 6, [7] * 9, [7] * 2), merge_threshold=5).erl_nm == 0  # the short one gains nothing
    assert run_length(*chains([7] * 6, [7] * 9), no_merge=[7]).merging.tolist() == [7]
    assert math.isnan(run_length(np.empty((0, 3)), [], [], []).erl_nm)


def test_length_intervals_and_bootstrap():
    result = run_length(*chains([1] * 3, [2] * 6, [3] * 4 + [0] * 4))
    short, long = result.between(0, 4), result.between(4, 100)
    assert (short.erl_nm, short.skeletons.tolist()) == (2, [1])
    assert long.erl_nm == pytest.approx((25 + 9) / 12)
    erl, nerl = run_length_interval(result, np.random.default_rng(0), 300)
    assert erl.low < erl.estimate == result.erl_nm < erl.high
    assert nerl.low < nerl.estimate == result.normalized <= nerl.high <= 1
    again = run_length_interval(result, np.random.default_rng(0), 300)
    assert again == (erl, nerl)
    with pytest.raises(InputError, match="needs 2 skeletons"):
        run_length_interval(short, np.random.default_rng(0))


def test_errors_are_placed_and_priced():
    nodes = chains([1] * 6 + [2] * 5, [3] * 5 + [2], [4] * 3)
    errors = run_length_errors(*nodes, run_length(*nodes))
    (merge,) = errors.merges
    assert (merge.whole, merge.parts, merge.nodes) == (2, (1, 2), (5, 1))
    assert merge.point_nm == (0, 5, 5.5)  # node 6 of skeleton 1, node 5 of skeleton 2
    assert merge.cost_nm == pytest.approx(16 / 17)
    assert [split.whole for split in errors.splits] == [1, 2]
    assert errors.splits[0].point_nm == (0, 0, 5.5)
    thresholded = run_length_errors(*nodes, run_length(*nodes, merge_threshold=2))
    assert thresholded.merges == ()
    assert [split.parts for split in thresholded.splits] == [(1, 2), (3, 2)]  # a piece is a piece, however small
    assert len(run_length_errors(*nodes, run_length(*nodes), count=1).splits) == 1


@given(graphs())
@settings(deadline=None)
def test_repairing_merges_gains_what_they_cost(graph):
    """Giving each skeleton its own part of every merging segment gains the sum of the costs of all merges."""
    positions, edges, skeletons, segments = graph
    result = run_length(*graph)
    errors = run_length_errors(*graph, result)
    assert sum(len(merge.parts) - 1 for merge in errors.merges) == result.merges
    assert sum(len(split.parts) - 1 for split in errors.splits) == result.splits
    pairs = np.unique(np.stack([segments, skeletons], axis=1), axis=0, return_inverse=True)[1]
    repaired = np.where(segments == 0, 0, pairs.ravel() + 1)
    gained = run_length(positions, edges, skeletons, repaired).erl_nm
    if not math.isnan(gained):
        assert gained - result.erl_nm == pytest.approx(sum(merge.cost_nm for merge in errors.merges))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({0: [[0, 0, np.nan]] * 4}, "positions_nm must be finite"),
        ({1: [[0, 4]]}, r"edges must name nodes 0 ... 3; got 0 ... 4"),
        ({1: [[0.5, 1]]}, "edges must be integers"),
        ({1: [[0, 3]]}, "both ends of an edge must be of one skeleton; edge 0 joins two"),
        ({2: [1, 1, 2]}, "skeletons must be one integer >= 0 per node"),
        ({3: [1, 1, -2, 2]}, "segments must be one integer >= 0 per node"),
    ],
)
def test_refusals(changed, message):
    arguments = dict(enumerate(([[0, 0, x] for x in range(4)], [[0, 1], [2, 3]], [1, 1, 2, 2], [5, 5, 6, 6]))) | changed
    with pytest.raises(InputError, match=message):
        run_length(*arguments.values())
    with pytest.raises(InputError, match="merge_threshold must not be negative"):
        run_length([[0, 0, 0]], [], [1], [1], merge_threshold=-1)


def test_a_million_nodes_take_seconds():
    """Loose, since machines differ: the benchmark has the figure."""
    import time

    n = 10**6
    rng = np.random.default_rng(0)
    skeletons = np.sort(rng.integers(0, 3000, n))
    inside = np.flatnonzero(skeletons[1:] == skeletons[:-1])
    start = time.process_time()
    result = run_length(rng.random((n, 3)), np.stack([inside, inside + 1], 1), skeletons, rng.integers(0, 9999, n))
    assert time.process_time() - start < 10
    assert result.nodes == n
