"""Connected components in blocks, and of affinities: those of the whole volume."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_watershed import components, grid_links
from strategies import affinities, cuts

from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.labels import relabel
from neuropil.segmentation.components import (
    components_of_affinities,
    components_of_map,
    inner_links,
    interior_of,
    strong_links,
)
from neuropil.segmentation.components_blocks import HALO, block_components
from neuropil.segmentation.watershed_blocks import face_pairs, join_pairs

some = settings(max_examples=150, deadline=None)


def in_blocks(bits: np.ndarray, borders: list[list[int]]) -> np.ndarray:
    """Label the blocks of a grid, each from its own links and those around it, and join them."""
    shape, whole = bits.shape, Box.of_shape(bits.shape)
    ids, links = np.zeros(shape, np.uint64), np.zeros(shape, np.uint8)
    for spans in product(*(pairwise(along) for along in borders)):
        block = Box(*zip(*spans))
        region = block.grow((HALO,) * 3).clip(whole)
        made = block_components(bits[region.slices], region, block, shape)
        ids[block.slices], links[block.slices] = made.ids[made.labels], made.bits
    pairs = []
    for axis, along in enumerate(borders):
        for place in along[1:-1]:
            planes = [(np.take(ids, k, axis), np.take(links, k, axis)) for k in (place - 1, place)]
            pairs.append(face_pairs(*planes, axis))
    names = dict(zip(*(table.tolist() for table in join_pairs(pairs))))
    return np.array([names.get(k, k) for k in ids.ravel().tolist()], np.uint64).reshape(shape)


@some
@given(st.data(), st.booleans(), st.sampled_from([0.0, 0.4, 0.6, 1.0]))
def test_blocks_of_a_map_have_the_components_of_the_whole(data, per_section, threshold):
    """Blocks one voxel thin and unequal ones are among them."""
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 8), st.integers(1, 9)))
    boundary = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))).random(shape, np.float32)
    bits = inner_links(interior_of(boundary, threshold), per_section=per_section)
    ids = in_blocks(bits, [data.draw(cuts(n)) for n in shape])
    expected = components_of_map(boundary, threshold, per_section=per_section)
    np.testing.assert_array_equal(relabel(ids).labels, expected)


@some
@given(st.data(), affinities(), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_components_of_affinities_are_what_strong_links_connect(data, links, threshold):
    shape = links.shape[1:]
    pairs = [(v, w) for v, w, a in grid_links(links) if a >= np.float32(threshold)]
    expected = components(links[0].size, pairs, {v for pair in pairs for v in pair}).reshape(shape)
    for threads in (1, 2):
        np.testing.assert_array_equal(components_of_affinities(links, threshold, threads=threads), expected)
    ids = in_blocks(strong_links(links, threshold), [data.draw(cuts(n)) for n in shape])
    np.testing.assert_array_equal(relabel(ids).labels, expected)
    as_bytes = (links * 255).astype(np.uint8)
    exact = components_of_affinities(as_bytes / np.float32(255), threshold)
    np.testing.assert_array_equal(components_of_affinities(as_bytes, threshold), exact)


def test_what_does_not_fit_is_refused():
    assert components_of_affinities(np.zeros((3, 0, 2, 2)), 0.5).shape == (0, 2, 2)
    with pytest.raises(InputError, match=r"threshold must lie in \[0, 1\]; got 2"):
        components_of_affinities(np.zeros((3, 2, 2, 2)), 2)
    block = Box((0, 0, 0), (2, 2, 2))
    with pytest.raises(InputError, match="region must be"):
        block_components(np.zeros((2, 2, 2), np.uint8), block, block, (2, 2, 3))
