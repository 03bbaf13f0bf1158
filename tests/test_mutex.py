"""Mutex watershed over arbitrary offsets."""

from __future__ import annotations

import numpy as np
import pytest
import reference_mutex as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from strategies import read_only, shapes

from neuropil.errors import InputError
from neuropil.labels import contingency
from neuropil.segmentation.mutex import mutex_watershed

NEAREST = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]
OFFSETS = [*NEAREST, (-2, 0, 0), (0, -3, 0), (0, 0, -3), (1, -2, 2), (0, 4, -1)]


def smooth(n, seed=0, channels=len(OFFSETS)):
    rng = np.random.default_rng(seed)
    links = np.stack([ndimage.gaussian_filter(rng.random((n, n, n)), 1.5) for _ in range(channels)])
    return ((links - links.min()) / np.ptp(links)).astype(np.float32)


def same_partition(a, b) -> bool:
    table = contingency(a, b)
    return table.counts.size == table.proposal_ids.size == table.truth_ids.size


@settings(max_examples=60, deadline=None)
@given(st.data(), shapes, st.sampled_from([3, 16, 255]), st.booleans(), st.sampled_from([(1, 1, 1), (1, 2, 2)]))
def test_equals_reference(data, shape, levels, as_bytes, strides):
    chosen = data.draw(st.lists(st.sampled_from(OFFSETS), min_size=1, max_size=5, unique=True))
    attractive = data.draw(st.integers(1, len(chosen)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    links = rng.integers(0, levels + 1, (len(chosen), *shape)).astype(np.uint8)
    links = read_only(links if as_bytes else (links / levels).astype(np.float32))
    expected = reference.mutex_watershed(links, chosen, attractive, 255 if as_bytes else 1, strides)
    np.testing.assert_array_equal(mutex_watershed(links, chosen, attractive=attractive, strides=strides), expected)


@pytest.mark.parametrize("kind", ["random", "smooth"])
def test_agrees_with_mwatershed_and_bioimage_cpp(kind):
    mwatershed = pytest.importorskip("mwatershed")
    bioimage = pytest.importorskip("bioimage_cpp")
    n = 40  # more links than one batch
    links = smooth(n) if kind == "smooth" else np.random.default_rng(1).random((len(OFFSETS), n, n, n), np.float32)
    ranks = links.reshape(-1).argsort().argsort().reshape(links.shape)
    strengths = ((ranks + 1) / 2**20).astype(np.float32)  # all different, and 1 - strength is exact
    links = strengths.copy()
    links[3:] = 1 - links[3:]
    ours = mutex_watershed(links, OFFSETS)
    assert 100 < ours.max() < n**3 / 2
    assert same_partition(ours, bioimage.segmentation.mutex_watershed(strengths, OFFSETS, 3))
    signed = strengths.astype(np.float64)
    signed[3:] *= -1
    assert same_partition(ours, mwatershed.agglom(signed, OFFSETS))


def test_drawn_links_follow_the_generator():
    links = smooth(16)
    one, same, other = (
        mutex_watershed(links, OFFSETS, strides=(1, 2, 2), rng=np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    whole = mutex_watershed(links, OFFSETS)
    np.testing.assert_array_equal(mutex_watershed(links, OFFSETS, rng=np.random.default_rng(0)), whole)
    assert one.max() < whole.max()  # fewer links repel


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 4)])
def test_constant_volumes(dtype, shape):
    size = int(np.prod(shape))
    one = np.full((len(OFFSETS), *shape), 255 if dtype == np.uint8 else 1, dtype)
    assert mutex_watershed(one, OFFSETS).max() == 1
    assert mutex_watershed(0 * one, OFFSETS).max() == size  # nothing attracts
    assert mutex_watershed(np.zeros((len(OFFSETS), 0, 2, 2), dtype), OFFSETS).shape == (0, 2, 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"offsets": [(0, 0, 0)] * 3}, "offsets must be steps"),
        ({"offsets": NEAREST[:2]}, r"shape \(2, z, y, x\); got \(3, 2, 2, 2\)"),
        ({"attractive": 4}, r"attractive must lie in 1 \.\.\. 3"),
        ({"strides": (0, 1, 1)}, "strides must be three steps"),
        ({"affinities": np.full((3, 2, 2, 2), np.nan)}, "without NaN"),
    ],
)
def test_bad_input_is_one_sentence(options, words):
    options = {"affinities": np.zeros((3, 2, 2, 2)), "offsets": NEAREST, **options}
    with pytest.raises(InputError, match=words):
        mutex_watershed(options.pop("affinities"), options.pop("offsets"), **{"attractive": 1, **options})
