"""Clean-up of skeletons: branches, loops, gaps, dust, ticks, even distances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference_skeletons as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from neuropil.errors import InputError
from neuropil.skeletons.branches import branches
from neuropil.skeletons.cleanup import clean, join_pieces, remove_dust, remove_loops, remove_ticks, resample
from neuropil.skeletons.skeleton import Skeleton


@st.composite
def skeletons(draw, loops=True):
    """Graphs of up to 25 vertices at different places: trees, several of them, perhaps with further edges."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 25))
    edges = {(int(rng.integers(max(0, v - 4), v)), v) for v in range(1, n) if rng.random() < 0.9}
    for _ in range(draw(st.integers(0, 4)) if loops and n > 2 else 0):
        u, v = sorted(rng.choice(n, 2, replace=False).tolist())
        edges.add((u, v))
    positions = rng.permutation(40)[:n, None] * [1.0, 7.0, 3.0] + rng.random((n, 3))
    order = list(edges)
    return Skeleton.of(
        positions, [order[k] for k in rng.permutation(len(order))], rng.random(n) * 9, rng.integers(0, 4, n)
    )


@given(skeletons())
@settings(deadline=None)
def test_branches_hold_every_edge_once(skeleton):
    found = branches(skeleton)
    assert sorted(np.concatenate([np.empty(0, int), *(b.edges for b in found)]).tolist()) == list(
        range(len(skeleton.edges))
    )
    for branch in found:
        pairs = np.sort(np.stack([branch.vertices[:-1], branch.vertices[1:]], axis=1), axis=1)
        np.testing.assert_array_equal(pairs, np.sort(skeleton.edges[branch.edges], axis=1))
        assert (skeleton.degrees[branch.vertices[1:-1]] == 2).all()
        ends = branch.vertices[[0, -1]]
        assert (skeleton.degrees[ends] != 2).all() or ends[0] == ends[1]


@given(skeletons())
@settings(deadline=None)
def test_loops_go_and_nothing_comes_apart(skeleton):
    made = remove_loops(skeleton)
    assert made.is_forest
    assert made.components()[0] == skeleton.components()[0]
    if skeleton.is_forest:
        np.testing.assert_array_equal(made.edges, skeleton.edges)
    missing = {tuple(edge) for edge in skeleton.edges.tolist()} - {tuple(edge) for edge in made.edges.tolist()}
    for edge in missing:  # none is shorter than the longest edge on the way round
        alone = remove_loops(Skeleton.of(skeleton.vertices_nm, [*made.edges.tolist(), edge]))
        assert alone.length_nm == pytest.approx(made.length_nm)


def test_a_thick_vertex_reaches_beyond_a_thin_one():
    """Vertex 2 is nearest to vertex 1, which is thin, and within the radius of vertex 0."""
    two = Skeleton.of([[0, 0, 0], [0, 0, 40], [0, 0, 55]], [[0, 1]], [50, 1, 6])
    assert join_pieces(two).edges.tolist() == [[0, 1], [0, 2]]


@given(skeletons(loops=False), st.floats(0, 60))
@settings(deadline=None)
def test_joining_joins_what_is_near_and_no_more(skeleton, gap):
    made = join_pieces(skeleton, gap_nm=gap)
    assert made.is_forest
    assert made.edges[: len(skeleton.edges)].tolist() == skeleton.edges.tolist()
    new = made.edges[len(skeleton.edges) :]
    for u, v in new.tolist():
        distance = math.dist(made.vertices_nm[u], made.vertices_nm[v])
        assert distance <= max(gap, made.radii_nm[u] + made.radii_nm[v])
    _, piece = made.components()
    far = np.linalg.norm(made.vertices_nm[:, None] - made.vertices_nm, axis=-1)
    far -= np.maximum(gap, made.radii_nm[:, None] + made.radii_nm)
    assert (far[piece[:, None] != piece] > 0).all()


@given(skeletons(loops=False), st.floats(0, 60))
@settings(deadline=None)
def test_ticks_go_one_at_a_time(skeleton, tick):
    made = remove_ticks(skeleton, tick)
    expected = reference.lengths_after_ticks(skeleton.edges.tolist(), skeleton.vertices_nm.tolist(), tick)
    assert made.length_nm == pytest.approx(expected)
    assert made.components()[0] == skeleton.components()[0]


@given(skeletons(), st.floats(0.5, 50))
@settings(deadline=None)
def test_resampling_keeps_ends_and_steps(skeleton, spacing):
    made = resample(skeleton, spacing)
    assert made.edge_lengths_nm.max(initial=0) <= spacing + 1e-9
    assert made.length_nm <= skeleton.length_nm + 1e-6
    assert made.components()[0] == skeleton.components()[0]
    assert made.is_forest == skeleton.is_forest
    kept = {tuple(place) for place in made.vertices_nm.tolist()}
    assert {tuple(place) for place in skeleton.vertices_nm[skeleton.degrees != 2].tolist()} <= kept
    assert made.radii_nm.max() <= skeleton.radii_nm.max() + 1e-9


def test_dust_and_the_usual_order():
    line = [[0, 0, x] for x in range(0, 100, 10)]
    edges = [[k, k + 1] for k in range(9) if k != 4]
    two = Skeleton.of([*line, [0, 5, 20], [90, 90, 90]], [*edges, [2, 10]], [6] * 12)
    assert two.components()[0] == 3
    made = clean(two, dust_nm=10, tick_nm=6)
    assert made.is_tree
    assert (made.length_nm, len(made.vertices_nm)) == (90, 10)
    assert remove_dust(two, 41).length_nm == 45  # the tick counts
    assert len(remove_dust(two, 1000).vertices_nm) == 0


def test_refusals():
    line = Skeleton.of([[0, 0, 0], [0, 0, 1]], [[0, 1]])
    for function, name in ((remove_dust, "dust_nm"), (remove_ticks, "tick_nm")):
        with pytest.raises(InputError, match=f"{name} must not be negative; got -1"):
            function(line, -1)
    with pytest.raises(InputError, match="gap_nm must not be negative; got nan"):
        join_pieces(line, gap_nm=math.nan)
    with pytest.raises(InputError, match="spacing_nm must be positive; got 0"):
        resample(line, 0)
