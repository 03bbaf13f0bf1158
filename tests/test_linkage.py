"""Edges between fragments, size-dependent linkage, dust, merge tree, and all of it in one call."""

from __future__ import annotations

import numpy as np
import pytest
import reference_linkage as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from strategies import affinities, graphs, ids, labels, read_only

from neuropil.errors import InputError
from neuropil.labels import relabel
from neuropil.segmentation.linkage import (
    ConstantSize,
    LinearSize,
    ShiftedSquareSize,
    SquareSize,
    cut,
    fragment_sizes,
    merge_tree,
    remove_dust,
    size_dependent_linkage,
    stepwise_linkage,
)
from neuropil.segmentation.region_graph import Edges, region_edges
from neuropil.segmentation.segment import segment_affinities
from neuropil.segmentation.watershed import watershed

quick = settings(max_examples=50, deadline=None)
RULES = [ConstantSize(15, 0.3), LinearSize(25), SquareSize(40, 0.1), ShiftedSquareSize(3, 30, 0.2)]
rules = st.sampled_from(RULES)


def listed(edges: Edges) -> list[tuple[int, int, float]]:
    return list(zip(edges.u.tolist(), edges.v.tolist(), edges.affinity.tolist(), strict=True))


@quick
@given(st.data(), affinities())
def test_region_edges_equal_reference(data, links):
    fragments = data.draw(labels(links.shape[1:], ids))
    edges = region_edges(fragments, links)
    assert {(u, v): a for u, v, a in listed(edges)} == reference.region_edges(fragments, links)
    assert listed(edges) == sorted(listed(edges), key=lambda edge: (-edge[2], edge[0], edge[1]))
    stored = np.round(links * 255).astype(np.uint8)
    expected = reference.region_edges(fragments, stored)
    assert {(u, v): round(a * 255) for u, v, a in listed(region_edges(fragments, stored))} == expected


def test_many_edges_grow_the_table():
    links = np.random.default_rng(0).random((3, 12, 12, 12), dtype=np.float32)
    fragments = np.random.default_rng(1).integers(1, 2**60, (12, 12, 12)).astype(np.uint64)
    edges = region_edges(fragments, links)
    assert edges.u.size == 3 * 12 * 12 * 11
    assert {(u, v): a for u, v, a in listed(edges)} == reference.region_edges(fragments, links)


@quick
@given(graphs(), rules)
def test_linkage_equals_reference_and_ends_with_no_pair_below_its_size(graph, rule):
    u, v, affinity, sizes = graph
    edges = Edges.of(u, v, affinity)
    lookup = size_dependent_linkage(edges, read_only(sizes), rule)
    limit = lambda a: rule(np.array([a]))[0]  # noqa: E731
    np.testing.assert_array_equal(lookup, reference.linkage(listed(edges), sizes, limit))
    totals = np.bincount(lookup.astype(int), sizes)
    for a, b, w in listed(edges):
        a, b = int(lookup[a]), int(lookup[b])
        assert a == b or min(totals[a], totals[b]) >= limit(w)
    tree = merge_tree(edges, sizes.size - 1)
    on_tree = size_dependent_linkage(Edges(tree.u, tree.v, tree.affinity), sizes, rule)
    np.testing.assert_array_equal(on_tree, lookup)


@quick
@given(graphs(), st.booleans())
def test_steps_equal_reference(graph, restart):
    u, v, affinity, sizes = graph
    edges = Edges.of(u, v, affinity)
    steps = [(10, 0.55), (30, 0.25), (20, 0.05)]
    order = listed(edges)
    limits = {}
    visits = []
    start = 0
    for k, (size, threshold) in enumerate(steps):
        stop = sum(a > threshold for *_, a in order)
        visits += [(a, b, (k, w)) for a, b, w in order[start:stop]]
        limits[k] = size
        start = 0 if restart else max(start, stop)
    expected = reference.linkage(visits, sizes, lambda visit: limits[visit[0]])
    np.testing.assert_array_equal(stepwise_linkage(edges, sizes, steps, restart=restart), expected)


def test_one_step_is_the_constant_rule():
    rng = np.random.default_rng(3)
    edges = Edges.of(rng.integers(1, 200, 900), rng.integers(1, 200, 900), rng.random(900, dtype=np.float32))
    sizes = rng.integers(0, 100, 200)
    by_rule = size_dependent_linkage(edges, sizes, ConstantSize(150, 0.4))
    np.testing.assert_array_equal(stepwise_linkage(edges, sizes, [(150, 0.4)]), by_rule)


@quick
@given(graphs(), st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]))
def test_a_cut_of_the_tree_is_single_linkage_of_the_edges(graph, threshold):
    u, v, affinity, sizes = graph
    edges = Edges.of(u, v, affinity)
    tree = merge_tree(edges, sizes.size - 1)
    expected = reference.linkage([e for e in listed(edges) if e[2] >= np.float32(threshold)], sizes + 1, lambda _: 1e9)
    lookup = cut(tree, threshold)
    np.testing.assert_array_equal(lookup, expected)
    joined = int((tree.affinity >= np.float32(threshold)).sum())
    assert lookup.max() == tree.size - joined
    assert np.all(np.diff(tree.affinity) <= 0)
    assert np.all(tree.u < tree.v)


@quick
@given(graphs(), st.integers(0, 60))
def test_dust_goes_and_the_rest_is_consecutive(graph, dust):
    u, v, affinity, sizes = graph
    lookup = size_dependent_linkage(Edges.of(u, v, affinity), sizes, ConstantSize(10, 0.5))
    kept = remove_dust(lookup, sizes, dust)
    totals = np.bincount(lookup.astype(int), sizes)
    for segment in range(1, int(lookup.max()) + 1):
        new = set(kept[lookup == segment].tolist())
        assert len(new) == 1
        assert (new == {0}) == (totals[segment] < dust)
    np.testing.assert_array_equal(relabel(kept).labels, kept)


@pytest.mark.parametrize("dtype", [">u4", ">i8", "<u2", "u1", "i8"])
def test_sizes_of_labels_as_any_file_keeps_them(dtype):
    labels = np.array([[0, 1, 1, 3], [3, 3, 1, 0]], dtype)
    labels.flags.writeable = False
    assert fragment_sizes(labels[:, ::2]).tolist() == [1, 2, 0, 1]


def test_one_call_equals_the_steps_and_leaves_its_input():
    rng = np.random.default_rng(8)
    links = np.stack([ndimage.gaussian_filter(rng.random((6, 40, 40)), 1.5) for _ in range(3)])
    links = read_only(((links - links.min()) / np.ptp(links)).astype(np.float32))
    result = segment_affinities(links, low=0.2, high=0.95, size=60, size_threshold=0.4, dust=60, merge_threshold=0.6)
    basins = watershed(links, low=0.2, high=0.95)
    sizes = fragment_sizes(basins)
    lookup = remove_dust(size_dependent_linkage(region_edges(basins, links), sizes, ConstantSize(60, 0.4)), sizes, 60)
    np.testing.assert_array_equal(result.fragments, lookup[basins])
    tree = merge_tree(region_edges(result.fragments, links), int(result.fragments.max()))
    for name in ("u", "v", "affinity", "size"):
        np.testing.assert_array_equal(getattr(result.tree, name), getattr(tree, name), err_msg=name)
    np.testing.assert_array_equal(result.segmentation, result.cut(0.6))
    assert np.unique(result.fragments, return_counts=True)[1][1:].min() >= 60
    assert 1 < result.segmentation.max() < result.fragments.max() < basins.max()
    uncut = segment_affinities(links, low=0.2, high=0.95, size=60, size_threshold=0.4, dust=60)
    np.testing.assert_array_equal(uncut.segmentation, result.fragments)


def test_links_of_zero_along_z_keep_sections_apart():
    rng = np.random.default_rng(4)
    links = rng.random((3, 4, 20, 20), dtype=np.float32)
    links[0] = 0
    result = segment_affinities(links, low=0.1, high=0.9, size=20, dust=0, merge_threshold=0.0)
    sections = [set(np.unique(section).tolist()) - {0} for section in result.segmentation]
    assert sum(map(len, sections)) == len(set.union(*sections))
    one = segment_affinities(links[:, 1:2], low=0.1, high=0.9, size=20, dust=0)
    np.testing.assert_array_equal(relabel(result.fragments[1]).labels, one.fragments[0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Edges.of([1], [2, 3], [0.5]), "lists of one length"),
        (lambda: region_edges(np.ones((1, 1, 2), int), np.zeros((3, 1, 1, 3))), r"integers of shape \(1, 1, 3\)"),
        (lambda: merge_tree(Edges.of([1], [4], [0.5]), 3), "nodes 1 ... 3; got 4"),
        (lambda: size_dependent_linkage(Edges.of([1], [4], [0.5]), [0, 1], ConstantSize(1, 0)), "nodes 1 ... 1; got 4"),
        (lambda: size_dependent_linkage(Edges.of([1, 1], [2, 3], [0.5, 0.7]), [0] * 4, np.negative), "non-decreasing"),
        (lambda: remove_dust([0, 1], [0], 1), "one entry per fragment"),
        (lambda: stepwise_linkage(Edges.of([1], [2], [0.5]), [0, 1, 1], [(1, 2, 3)]), "pairs of size and threshold"),
        (lambda: fragment_sizes([2**60]), "dense ids"),
        (lambda: fragment_sizes([0.5]), "must be integers"),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()
