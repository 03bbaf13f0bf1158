"""Skeletons from labels: distances and ways equal their slow twins, tubes give their centre lines, peers agree."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import reference_skeletons as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import labels as label_volumes
from strategies import read_only

from neuropil._kernels import teasar as kernel
from neuropil.errors import InputError
from neuropil.labels import relabel
from neuropil.skeletons.skeleton import SOMA, Skeleton, nodes_of
from neuropil.skeletons.teasar import _MOVES, _radii, _sorted, skeletonize

sizes = st.tuples(*[st.sampled_from([1.0, 3.0, 10.5])] * 3)


@given(label_volumes(), sizes)
@settings(deadline=None)
def test_distances_to_the_surface(labels, size):
    found = _radii(relabel(labels).labels.astype(np.uint32), np.array(size))
    expected = reference.surface_distances(labels, size)
    expected = np.minimum(expected, np.linalg.norm(np.array(labels.shape) * size))
    np.testing.assert_allclose(found[labels > 0], expected[labels > 0], rtol=1e-6)


@given(st.integers(0, 2**32 - 1), sizes)
@settings(deadline=None, max_examples=30)
def test_cheapest_ways(seed, size):
    """From several sources with starts, over costs of many orders of magnitude, with a limit."""
    rng = np.random.default_rng(seed)
    codes = (rng.random((3, 4, 5)) < 0.7).astype(np.uint32)
    codes[0, 0, 0] = 1
    starts, order, rank = _sorted(codes, 2)
    voxels = order[starts[1] :]
    bits = np.empty(voxels.size, np.uint32)
    kernel.find_neighbours(codes, voxels, _MOVES, bits)
    lengths = np.sqrt(((_MOVES * size) ** 2).sum(axis=1))
    graph = kernel.Graph(voxels, bits, rank, _MOVES @ np.array([20, 5, 1]), lengths)
    costs = 10.0 ** rng.uniform(-8, 2, voxels.size)
    keys, n = np.full(voxels.size, np.inf), voxels.size
    seeds = np.unique(rng.integers(0, n, 2))
    keys[seeds] = rng.random(seeds.size)
    places = [tuple(place) for place in np.argwhere(codes)]
    sources = {places[k]: keys[k] for k in seeds}
    expected = reference.way_lengths(codes, size, sources, dict(zip(places, costs)))
    limit = float(rng.choice([1.0, 10.0, np.inf]))
    work = np.empty(n, np.int32), np.full((2, n), -2, np.int32), np.empty(n, np.int32)
    reached = kernel.cheapest(graph, costs, seeds, limit, keys, work)
    for k, place in enumerate(places):
        if expected[place] <= limit:
            assert keys[k] == pytest.approx(expected[place])
        else:
            assert keys[k] == np.inf
    assert sorted(work[2][:reached].tolist()) == np.flatnonzero(keys < np.inf).tolist()
    assert np.all(np.diff(keys[work[2][:reached]]) >= 0)


def tube(shape, points, radius, size=(1, 1, 1)):
    """A volume with a tube of this radius (nm) around a line through points (nm)."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) * size
    found = np.zeros(shape, bool)
    for a, b in itertools.pairwise(np.asarray(points, float)):
        along = np.clip(((grid - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)
        found |= np.linalg.norm(grid - a - along[..., None] * (b - a), axis=-1) <= radius
    return found


def to_line(vertices, points):
    """Distance of each vertex to the line through points."""
    nearest = np.full(len(vertices), np.inf)
    for a, b in itertools.pairwise(np.asarray(points, float)):
        along = np.clip(((vertices - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(vertices - a - along[:, None] * (b - a), axis=1))
    return nearest


@pytest.mark.parametrize("size", [(1, 1, 1), (4, 1, 1)])
def test_a_bent_tube_gives_its_centre_line(size):
    points = [(20, 6, 6), (20, 40, 20), (20, 40, 55)]
    shape = tuple(-(-n // k) for n, k in zip((40, 48, 62), size))
    labels = tube(shape, points, 5, size).astype(np.uint16) * 9
    skeleton = skeletonize(labels, size, scale=1, constant_nm=8, dust=10)[9]
    assert skeleton.is_tree
    assert np.median(to_line(skeleton.vertices_nm, points)) <= 1.5
    for place in [(20, 23, 13), (20, 40, 20), (20, 40, 40), (20, 40, 55)]:
        assert np.linalg.norm(skeleton.vertices_nm - place, axis=1).min() <= 4
    ends = np.flatnonzero(skeleton.degrees == 1)
    assert ends.size == 2


def test_branches_each_get_a_path():
    centre, tips = (15, 30, 30), [(15, 30, 4), (15, 6, 42), (15, 54, 42)]
    labels = np.zeros((31, 61, 61), np.uint8)
    for tip in tips:
        labels |= tube(labels.shape, [centre, tip], 3)
    skeleton = skeletonize(labels, (1, 1, 1), scale=1.5, constant_nm=4, dust=0)[1]
    assert skeleton.is_tree
    assert (skeleton.degrees == 1).sum() == 3
    assert (skeleton.degrees == 3).sum() == 1
    assert np.linalg.norm(skeleton.vertices_nm[skeleton.degrees == 3][0] - centre) <= 4
    for tip in tips:
        assert np.linalg.norm(skeleton.vertices_nm - tip, axis=1).min() <= 4


def test_a_bent_back_spine_is_not_taken_for_covered():
    """Two arms side by side, a wall between: near through the wall, far along the object."""
    labels = np.zeros((3, 9, 40), np.uint8)
    labels[1, 2:4, 2:38] = labels[1, 5:7, 2:38] = labels[1, 2:7, 2:4] = 1
    skeleton = skeletonize(labels, (10, 10, 10), scale=1, constant_nm=60, dust=0)[1]
    for arm in (25, 55):
        assert np.linalg.norm(skeleton.vertices_nm - (10, arm, 350), axis=1).min() <= 20


def test_pieces_dust_and_offset():
    labels = np.zeros((4, 5, 30), np.uint64)
    labels[1, 1, :10] = labels[1, 1, 15:] = 2**60 + 1
    labels[3, 4, 3:6] = 7
    labels[0, 4, 0] = labels[1, 3, 1] = 8  # corners touch
    found = skeletonize(read_only(labels), (40, 4, 4), dust=2, constant_nm=1, offset_nm=(100, 10, 20))
    assert list(found) == [7, 8, 2**60 + 1]
    assert found[2**60 + 1].components()[0] == 2
    assert found[8].is_tree
    assert found[7].vertices_nm.min(axis=0).tolist() == [220, 26, 32]
    assert list(skeletonize(labels, (40, 4, 4), dust=10)) == [2**60 + 1]
    assert skeletonize(np.zeros((2, 2, 2), int), (1, 1, 1)) == {}


def test_a_soma_is_the_root():
    labels = tube((40, 40, 80), [(20, 20, 20), (20, 20, 75)], 3).astype(np.uint8)
    labels |= tube(labels.shape, [(20, 20, 20), (20, 20, 21)], 12)
    skeleton = skeletonize(labels, (10, 10, 10), constant_nm=60, soma_radius_nm=100)[1]
    assert skeleton.kinds[0] == SOMA
    assert (skeleton.kinds == SOMA).sum() == 1
    assert np.linalg.norm(skeleton.vertices_nm[0] - (200, 200, 205)) <= 20
    assert skeletonize(labels, (10, 10, 10), soma_radius_nm=200)[1].kinds.max() == 0


@given(label_volumes(), sizes, st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_every_piece_has_a_tree_of_its_own_voxels(labels, size, dust):
    found = skeletonize(labels, size, constant_nm=2, dust=dust)
    again = skeletonize(labels, size, constant_nm=2, dust=dust)
    for one, skeleton in found.items():
        assert skeleton.is_forest
        voxels = np.rint(skeleton.vertices_nm / size).astype(int)
        assert len({tuple(voxel) for voxel in voxels}) == len(voxels)
        assert (labels[tuple(voxels.T)] == one).all()
        assert np.abs(np.diff(voxels[skeleton.edges], axis=1)).max(initial=0) <= 1
        assert skeleton.edges[:, 0].tolist() == np.minimum(*skeleton.edges.T).tolist()  # the parent comes first
        np.testing.assert_array_equal(skeleton.vertices_nm, again[one].vertices_nm)
    if dust <= 1:
        assert set(found) == set(np.unique(labels).tolist()) - {0}


def cable(labels, size):
    """Neurites of synthetic tissue for comparison with other programs."""
    return sum(one.length_nm for one in skeletonize(labels, size, scale=1.5, constant_nm=100).values())


@pytest.fixture(scope="module")
def branching():
    labels = np.zeros((60, 60, 120), np.uint32)
    labels[tube(labels.shape, [(20, 10, 10), (20, 40, 60), (20, 40, 110)], 5)] = 1
    labels[tube(labels.shape, [(20, 40, 60), (45, 50, 70)], 3)] = 1
    labels[tube(labels.shape, [(45, 8, 8), (45, 12, 110)], 4) & (labels == 0)] = 2
    return labels


def test_as_long_as_bioimage_cpp_finds(branching):
    peer = pytest.importorskip("bioimage_cpp.skeleton")
    theirs = peer.teasar_labels(branching, spacing=(10, 10, 10), scale=1.5, constant=100, invalidation="ball")
    lengths = [np.linalg.norm(v[e[:, 0].astype(int)] - v[e[:, 1].astype(int)], axis=1) for v, e, _ in theirs.values()]
    assert cable(branching, (10, 10, 10)) == pytest.approx(np.concatenate(lengths).sum(), rel=0.1)


def test_as_long_as_kimimaro_finds(branching):
    peer = pytest.importorskip("kimimaro")
    parameters = {"scale": 1.5, "const": 100, "pdrf_scale": 1e5, "pdrf_exponent": 4}
    parameters |= {"soma_detection_threshold": 1e9, "soma_acceptance_threshold": 1e9}
    theirs = peer.skeletonize(branching, parameters, anisotropy=(10, 10, 10), progress=False, fix_borders=False)
    length = sum(float(one.cable_length()) for one in theirs.values())
    assert cable(branching, (10, 10, 10)) == pytest.approx(length, rel=0.1)


def test_refusals():
    labels = np.ones((2, 2, 2), int)
    with pytest.raises(InputError, match=r"axes z, y, x and voxels; got shape \(2, 2\)"):
        skeletonize(labels[0], (1, 1, 1))
    with pytest.raises(InputError, match=r"three positive lengths z, y, x in nm; got \(1, 0, 1\)"):
        skeletonize(labels, (1, 0, 1))
    with pytest.raises(InputError, match="must not be negative; got -1"):
        skeletonize(labels, (1, 1, 1), scale=-1)
    with pytest.raises(InputError, match="labels must be integers"):
        skeletonize(labels / 2, (1, 1, 1))
    with pytest.raises(InputError, match=r"edges must name vertices 0 ... 1; got 0 ... 2"):
        Skeleton.of([[0, 0, 0], [0, 0, 1]], [[0, 2]])
    with pytest.raises(InputError, match=r"an edge must join two vertices; got \[1, 1\]"):
        Skeleton.of([[0, 0, 0], [0, 0, 1]], [[1, 1]])
    with pytest.raises(InputError, match=r"radii_nm \(n,\)"):
        Skeleton.of([[0, 0, 0], [0, 0, 1]], [], [1])
    with pytest.raises(InputError, match="must be finite"):
        Skeleton.of([[0, 0, np.nan]], [])
    assert nodes_of({}).positions_nm.shape == (0, 3)
