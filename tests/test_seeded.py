"""Seeded watershed."""

from __future__ import annotations

import numpy as np
import pytest
import reference_seeded as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import watershed as flood
from strategies import affinities, read_only

from neuropil.errors import InputError
from neuropil.segmentation.seeded import seeded_watershed


def draw_seeds(shape, seed, fraction=0.2):
    rng = np.random.default_rng(seed)
    ids = np.array([1, 2, 2**63 + 5], np.uint64)[rng.integers(0, 3, shape)]
    return read_only(np.where(rng.random(shape) < fraction, ids, np.uint64(0)))


@settings(max_examples=60, deadline=None)
@given(
    affinities(levels=8), st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([0, 0.25, 0.5, 1]), st.booleans()
)
def test_equals_reference(links, seed, as_bytes, low, per_section):
    seeds = draw_seeds(links.shape[1:], seed)
    links = read_only(np.round(links * 255).astype(np.uint8)) if as_bytes else links
    stored = np.floor(low * 255) if as_bytes else low
    expected = reference.seeded_watershed(links, seeds, stored, per_section)
    np.testing.assert_array_equal(seeded_watershed(links, seeds, low=low, per_section=per_section), expected)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_flooding_where_one_seed_is_best(seed):
    rng = np.random.default_rng(seed)
    heights = ndimage.gaussian_filter(rng.random((7, 8, 9)), 1).ravel().argsort().argsort().reshape(7, 8, 9) / 512
    links = np.zeros((3, *heights.shape), np.float32)
    for axis in range(3):
        here = tuple(slice(1, None) if k == axis else slice(None) for k in range(3))
        there = tuple(slice(None, -1) if k == axis else slice(None) for k in range(3))
        links[axis][here] = 1 - np.maximum(heights[here], heights[there])
    seeds = np.zeros(heights.shape, np.int64)
    seeds.ravel()[heights.ravel().argsort()[:200:40]] = range(1, 6)
    best = np.sort(np.stack(list(reference.strengths(links, seeds).values())), 0)
    clear = best[-1] > best[-2]
    ours = seeded_watershed(links, seeds)
    np.testing.assert_array_equal(ours[clear], flood(heights, seeds)[clear])
    assert clear.sum() > 30
    assert ours.min() > 0


def test_more_links_than_a_batch_and_strongest_paths():
    rng = np.random.default_rng(0)
    links = np.stack([ndimage.gaussian_filter(rng.random((40, 40, 40), dtype=np.float32), 1) for _ in range(3)])
    seeds = np.zeros((40, 40, 40), np.uint64)
    seeds[::8, ::8, ::8] = np.arange(1, 126).reshape(5, 5, 5)
    labels = seeded_watershed(links, seeds)
    assert set(np.unique(labels).tolist()) == set(range(1, 126))
    for i in (1, 60, 125):
        assert ndimage.label(labels == i)[1] == 1  # with one voxel per seed each is connected
    np.testing.assert_array_equal(labels[seeds > 0], seeds[seeds > 0])
    bytes_ = np.round(links * 255).astype(np.uint8)
    as_floats = (bytes_ / 255).astype(np.float32)
    np.testing.assert_array_equal(seeded_watershed(bytes_, seeds), seeded_watershed(as_floats, seeds))


def test_constant_and_empty_volumes():
    seeds = np.zeros((2, 3, 4), np.uint8)
    seeds[1, 1, 1] = 9
    assert np.all(seeded_watershed(np.ones((3, 2, 3, 4)), seeds) == 9)
    sections = seeded_watershed(np.ones((3, 2, 3, 4)), seeds, per_section=True)
    assert np.all(sections[0] == 0)
    assert np.all(sections[1] == 9)
    np.testing.assert_array_equal(seeded_watershed(np.zeros((3, 2, 3, 4)), seeds), seeds)
    assert np.all(seeded_watershed(np.ones((3, 2, 3, 4)), 0 * seeds) == 0)
    assert seeded_watershed(np.zeros((3, 0, 2, 2)), np.zeros((0, 2, 2), int)).shape == (0, 2, 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": np.zeros((1, 1, 3), int)}, r"seeds must be integers >= 0 of shape \(1, 1, 2\); got int64 of shape"),
        ({"seeds": np.full((1, 1, 2), -1)}, "seeds must be integers >= 0"),
        ({"low": 2}, r"low must lie in \[0, 1\]; got 2"),
        ({"affinities": np.full((3, 1, 1, 2), np.nan)}, "without NaN"),
    ],
)
def test_bad_input_is_one_sentence(change, words):
    options = {"affinities": np.zeros((3, 1, 1, 2)), "seeds": np.zeros((1, 1, 2), int), **change}
    with pytest.raises(InputError, match=words):
        seeded_watershed(options.pop("affinities"), options.pop("seeds"), **options)
