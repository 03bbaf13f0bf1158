"""Watershed, its tie rules, and percentiles of affinities."""

from __future__ import annotations

import numpy as np
import pytest
import reference_watershed as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from strategies import affinities, read_only

from neuropil._kernels import watershed as _kernel
from neuropil.errors import InputError
from neuropil.labels import contingency, relabel
from neuropil.segmentation import watershed as module
from neuropil.segmentation.region_graph import region_edges
from neuropil.segmentation.watershed import percentile_threshold, watershed

quick = settings(max_examples=50, deadline=None)


def chain(values):
    links = np.zeros((3, 1, 1, len(values) + 1), np.float32)
    links[2, 0, 0, 1:] = values
    return links


def same_partition(a, b) -> bool:
    table = contingency(a, b)
    return table.counts.size == table.proposal_ids.size == table.truth_ids.size and np.array_equal(a == 0, b == 0)


def smooth(shape, seed, sigma=2.0):
    rng = np.random.default_rng(seed)
    links = np.stack([ndimage.gaussian_filter(rng.random(shape), sigma) for _ in range(3)])
    return ((links - links.min()) / np.ptp(links)).astype(np.float32)


@pytest.mark.parametrize("tiebreak", ["index", "cpp", "waterz"])
@pytest.mark.parametrize(
    ("values", "low", "high", "expected"),
    [
        ([0.9, 0.5, 0.5, 0.5, 0.9], 0.0, 1.0, [1, 1, 1, 2, 2, 2]),
        ([0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9], 0.0, 1.0, [1, 1, 1, 1, 2, 2, 2, 2]),
        ([0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9], 0.6, 1.0, [1, 1, 0, 0, 0, 0, 2, 2]),
        ([0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9], 0.0, 0.5, [1] * 8),
        ([0.5] * 7, 0.0, 1.0, [1] * 8),
    ],
)
def test_golden_chains_along_every_axis(values, low, high, expected, tiebreak):
    along_x = chain(values)
    for axis in range(3):
        links = np.moveaxis(along_x, 3, axis + 1)[[2, 0, 1] if axis == 0 else [0, 2, 1] if axis == 1 else [0, 1, 2]]
        assert watershed(links, low=low, high=high, tiebreak=tiebreak).ravel().tolist() == expected


@quick
@given(affinities(), st.sampled_from([0.0, 0.25, 0.4]), st.sampled_from([0.5, 0.75, 1.0, 2.0]))
def test_equals_the_rules_one_after_another(links, low, high):
    expected = reference.watershed(links[0].size, reference.grid_links(links), low, high)
    np.testing.assert_array_equal(watershed(links, low=low, high=high).ravel(), expected)


@quick
@given(affinities(), st.sampled_from(["index", "cpp", "waterz"]), st.integers(2, 5))
def test_threads_change_nothing(links, tiebreak, threads):
    one, several = (watershed(links, low=0.2, high=0.8, tiebreak=tiebreak, threads=n) for n in (1, threads))
    np.testing.assert_array_equal(one, several)


@pytest.mark.parametrize("levels", [4, 32, 0])
@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_threads_change_nothing_in_larger_volumes(levels, sigma):
    links = smooth((40, 30, 33), levels, sigma)
    links = np.round(links * levels) / np.float32(levels) if levels else links
    one = watershed(links, low=0.2, high=0.7)
    for threads in (2, 3, 7, 40):
        np.testing.assert_array_equal(watershed(links, low=0.2, high=0.7, threads=threads), one)


@pytest.mark.parametrize("seed", range(20))
def test_high_before_equals_merging_after(seed):
    rng = np.random.default_rng(seed)
    links = read_only((rng.integers(0, 8, (3, 5, 5, 5)) / 8).astype(np.float32))
    basins = watershed(links, low=0.1, high=2.0)
    edges = region_edges(basins, links)
    strong = edges.affinity >= 0.75
    n = int(basins.max())
    pairs = zip(edges.u[strong].tolist(), edges.v[strong].tolist())
    merged = reference.components(n + 1, pairs, set(range(1, n + 1)))[basins]
    assert same_partition(merged, watershed(links, low=0.1, high=0.75))


@quick
@given(affinities(), st.sampled_from(["index", "cpp", "waterz"]))
def test_basins_are_connected_and_as_many_as_regional_maxima(links, tiebreak):
    fragments = watershed(links, low=0.2, high=0.8, tiebreak=tiebreak)
    n = fragments.size
    usable = [(v, w, min(a, np.float32(0.8))) for v, w, a in reference.grid_links(links) if a > 0.2]
    flat = fragments.ravel().tolist()
    inside = [(v, w) for v, w, _ in usable if flat[v] == flat[w]]
    foreground = {v for link in usable for v in link[:2]}
    np.testing.assert_array_equal(reference.components(n, inside, foreground), flat)
    height = [max((a for v, w, a in usable if i in (v, w)), default=0) for i in range(n)]
    level = reference.components(n, [(v, w) for v, w, a in usable if a == height[v] == height[w]], foreground)
    lower = {level[i] for v, w, a in usable for i, j in ((v, w), (w, v)) if a == height[i] < height[j]}
    assert fragments.max() == len(set(level.tolist()) - {0} - lower)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flip_flips_the_fragments_where_nothing_ties(axis):
    links = smooth((6, 7, 8), 3, 1.0)
    flipped = np.flip(links, axis + 1).copy()
    flipped[axis] = np.roll(flipped[axis], 1, axis)
    a, b = (watershed(x, low=0.2, high=2.0) for x in (links, flipped))
    assert same_partition(np.flip(a, axis), b)


@pytest.mark.parametrize("kind", ["random", "smooth", "ties", "smooth ties"])
def test_agrees_with_waterz(kind, capfd):
    waterz = pytest.importorskip("waterz")
    links = np.random.default_rng(5).random((3, 64, 64, 64), dtype=np.float32) if "smooth" not in kind else None
    links = smooth((64, 64, 64), 5) if links is None else links
    if "ties" in kind:
        links = np.round(links * 16) / np.float32(16)
    peer = next(waterz.agglomerate(links.copy(), [0], aff_threshold_low=0.1, aff_threshold_high=0.9)).copy()
    capfd.readouterr()
    np.testing.assert_array_equal(watershed(links, low=0.1, high=0.9, tiebreak="waterz"), peer)
    for tiebreak in ("index", "cpp"):
        ours = watershed(links, low=0.1, high=0.9, tiebreak=tiebreak)
        assert ours.max() == peer.max()
        if "ties" not in kind:
            np.testing.assert_array_equal(ours, peer)


def test_bytes_give_the_fragments_of_their_values():
    stored = read_only(np.random.default_rng(2).integers(0, 256, (3, 5, 9, 9)).astype(np.uint8))
    for low, high in ((0.0, 1.0), (51 / 255, 204 / 255), (0.1, 0.777)):
        np.testing.assert_array_equal(
            watershed(stored, low=low, high=high), watershed(stored / 255, low=low, high=high)
        )


def test_links_that_leave_the_volume_are_not_used_and_layout_does_not_matter():
    links = smooth((4, 5, 6), 7)
    expected = watershed(links, low=0.1, high=0.9)
    edges = links.copy()
    edges[0, 0], edges[1, :, 0], edges[2, :, :, 0] = 1, 1, 1
    np.testing.assert_array_equal(watershed(edges, low=0.1, high=0.9), expected)
    np.testing.assert_array_equal(watershed(np.asfortranarray(links), low=0.1, high=0.9), expected)
    np.testing.assert_array_equal(relabel(expected).labels, expected)
    assert watershed(np.zeros((3, 0, 4, 4)), low=0.1, high=0.9).shape == (0, 4, 4)


def test_percentile_is_a_bin_from_the_quantile():
    links = smooth((8, 9, 10), 1)
    inside = np.concatenate([links[0, 1:].ravel(), links[1, :, 1:].ravel(), links[2, :, :, 1:].ravel()])
    for q in (0.0, 0.01, 0.2, 0.5, 0.99, 1.0):
        assert abs(percentile_threshold(links, q) - np.quantile(inside, q, method="inverted_cdf")) < 2e-4
    stored = (links * 255).astype(np.uint8)
    inside = np.concatenate([stored[0, 1:].ravel(), stored[1, :, 1:].ravel(), stored[2, :, :, 1:].ravel()])
    assert abs(percentile_threshold(stored, 0.3) * 255 - np.quantile(inside, 0.3, method="inverted_cdf")) <= 1 + 1e-9
    assert percentile_threshold(np.full((3, 1, 1, 3), 0.5), 0.3) == 0.5


@pytest.mark.parametrize(
    ("links", "options", "words"),
    [
        (np.zeros((2, 1, 1, 2)), {}, r"shape \(3, z, y, x\); got \(2, 1, 1, 2\)"),
        (np.zeros((3, 1, 1, 2), int), {}, "floats in \\[0, 1\\] or uint8; got int64"),
        (np.full((3, 1, 1, 2), np.nan), {}, "without NaN; got nan"),
        (np.full((3, 1, 1, 2), 1.5), {}, "must lie in \\[0, 1\\]"),
        (np.zeros((3, 1, 1, 2)), {"low": 0.9, "high": 0.1}, "low < high; got low 0.9, high 0.1"),
        (np.zeros((3, 1, 1, 2)), {"threads": 0}, "threads must be at least 1; got 0"),
        (np.zeros((3, 1, 1, 2)), {"tiebreak": "first"}, "tiebreak must be one of index, cpp, waterz; got 'first'"),
    ],
)
def test_bad_input_is_one_sentence(links, options, words):
    with pytest.raises(InputError, match=words):
        watershed(links, **{"low": 0.1, "high": 0.9, **options})


def test_bad_percentiles():
    with pytest.raises(InputError, match="q must lie"):
        percentile_threshold(np.zeros((3, 2, 2, 2)), 80)
    with pytest.raises(InputError, match="a link inside the volume"):
        percentile_threshold(np.zeros((3, 1, 1, 1)), 0.5)


def test_large_volumes_are_cut_into_slabs(monkeypatch):
    links = np.round(smooth((9, 12, 10), 1) * 20) / 20
    whole = watershed(links, low=0.1, high=0.9)
    monkeypatch.setattr(module, "_MOST", 250)  # two sections
    assert len(module.slabs_of(links.shape[1:], 1)) == 5
    for threads in (1, 2):
        assert np.array_equal(watershed(links, low=0.1, high=0.9, threads=threads), whole)
    with pytest.raises(InputError, match=r"less than 2\*\*31 voxels; got 300"):
        module.slabs_of((1, 20, 15), 1)


@pytest.mark.parametrize("width", [1, 2, 7, 8, 9, 15, 16, 17, 31, 33])
def test_rows_of_any_width(width):
    """Rows are looked at in words of eight voxels."""
    links = np.round(np.random.default_rng(width).random((3, 3, 4, width), np.float32) * 4) / 4
    expected = reference.watershed(links[0].size, reference.grid_links(links), 0.2, 0.9)
    np.testing.assert_array_equal(watershed(links, low=0.2, high=0.9).ravel(), expected)


def test_positions_of_voxels_have_64_bits():
    """So that volumes of 2**32 voxels and more are safe; the arrays that hold positions, by place of the argument."""
    watershed(smooth((4, 4, 4), 0), low=0.1, high=0.9)
    for kernel, places in ((_kernel.corners, (1, 5)), (_kernel.divide, (1, 2, 3))):
        widths = [[signature[k].dtype.bitwidth for k in places] for signature in kernel.signatures]
        assert [64] * len(places) in widths
        assert all(row[:-1] == [64] * (len(places) - 1) for row in widths)  # 32 are for small volumes' queues


def test_fragments_of_32_bits(monkeypatch):
    links = np.round(smooth((9, 12, 10), 1) * 20) / 20
    for tiebreak in ("index", "waterz"):
        whole = watershed(links, low=0.1, high=0.9, tiebreak=tiebreak)
        for threads in (1, 3):
            small = watershed(links, low=0.1, high=0.9, tiebreak=tiebreak, threads=threads, dtype=np.uint32)
            assert small.dtype == np.uint32
            assert np.array_equal(small, whole)
    with pytest.raises(InputError, match=r"dtype must be numpy.uint32 or numpy.uint64; got <class 'numpy.int64'>"):
        watershed(links, low=0.1, high=0.9, dtype=np.int64)
    monkeypatch.setattr(module, "_MOST", 250)
    with pytest.raises(InputError, match=r"numpy.uint64 for 2\*\*31 voxels or more; got 1080 voxels"):
        watershed(links, low=0.1, high=0.9, dtype=np.uint32)
