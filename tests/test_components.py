"""Connected components, and affinities of boundary maps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from strategies import labels, read_only, shapes

from neuropil.errors import InputError
from neuropil.labels import contingency
from neuropil.segmentation.affinities import affinities_from_boundary_map
from neuropil.segmentation.components import components_of_map, connected_components, section_components

quick = settings(max_examples=50, deadline=None)
masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))).map(read_only)
maps = hnp.arrays(np.float32, shapes, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])).map(read_only)


def structure(connectivity: int) -> np.ndarray:
    if connectivity in (4, 8):
        cross = ndimage.generate_binary_structure(2, connectivity // 4)
        return np.stack([np.zeros_like(cross), cross, np.zeros_like(cross)])
    return ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])


@quick
@given(masks, st.sampled_from([4, 6, 8, 18, 26]))
def test_components_equal_scipy(mask, connectivity):
    expected = ndimage.label(mask, structure(connectivity))[0]
    result = connected_components(mask, per_section=connectivity in (4, 8), connectivity=connectivity)
    assert result.dtype == np.uint64
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("connectivity", [4, 8, 6, 18, 26])
def test_a_single_voxel_of_any_small_mask_is_one_piece(connectivity):
    """In cc3d 4.1.1, booleans of shape (4, 3) with 8 neighbours give two."""
    for shape in np.ndindex(2, 6, 6):
        for place in np.ndindex(*(n + 1 for n in shape)):
            mask = np.zeros([n + 1 for n in shape], bool)
            mask[place] = True
            result = connected_components(mask, per_section=connectivity in (4, 8), connectivity=connectivity)
            assert np.array_equal(result, mask)


@quick
@given(maps, st.sampled_from([0.0, 0.25, 0.3, 0.5, 1.0]), st.booleans())
def test_interior_is_what_lies_below_the_threshold(boundary, threshold, per_section):
    expected = connected_components(boundary < threshold, per_section=per_section)
    np.testing.assert_array_equal(components_of_map(boundary, threshold, per_section=per_section), expected)


def test_bytes_and_floats_have_the_same_components():
    stored = np.random.default_rng(0).integers(0, 256, (3, 30, 30)).astype(np.uint8)
    for threshold in (0.0, 0.2, 100 / 255, 0.5, 1.0):
        expected = components_of_map((stored / 255).astype(np.float32), threshold)
        np.testing.assert_array_equal(components_of_map(stored, threshold), expected)


@quick
@given(labels())
def test_pieces_of_labels_are_connected_and_of_one_label(volume):
    pieces = section_components(volume)
    assert np.array_equal(pieces == 0, volume == 0)
    count = 0
    for z, section in enumerate(volume):
        for label in np.unique(section[section > 0]):
            expected, n = ndimage.label(section == label)
            here = pieces[z][section == label]
            table = contingency(here, expected[section == label])
            assert table.counts.size == table.proposal_ids.size == n
            count += n
    assert np.unique(pieces[pieces > 0]).size == count == pieces.max(initial=0)


@quick
@given(maps, st.sampled_from(["interior", "min", "mean"]), st.booleans())
def test_affinities_link_voxel_by_voxel(boundary, rule, per_section):
    result = affinities_from_boundary_map(boundary, per_section=per_section, rule=rule)
    combine = {"interior": lambda p, q: p, "min": min, "mean": lambda p, q: (p + q) / 2}[rule]
    assert result.dtype == np.float32
    assert result.shape == (3, *boundary.shape)
    for channel, v in np.ndindex(3, boundary.size):
        here = np.array(np.unravel_index(v, boundary.shape))
        there = here - np.eye(3, dtype=int)[channel]
        inside = there.min() >= 0 and not (per_section and channel == 0)
        expected = combine(1 - boundary[tuple(here)], 1 - boundary[tuple(there)]) if inside else 0
        assert result[channel][tuple(here)] == expected


def test_affinities_of_bytes():
    stored = np.arange(256, dtype=np.uint8).reshape(1, 1, 256)
    expected = affinities_from_boundary_map(stored / 255)
    np.testing.assert_allclose(affinities_from_boundary_map(stored), expected, atol=1e-7)


def test_empty_volumes():
    for shape in ((0, 4, 4), (2, 0, 4), (2, 4, 0)):
        assert connected_components(np.zeros(shape, bool)).shape == shape
        assert components_of_map(np.zeros(shape, np.float32), 0.5).shape == shape
        assert section_components(np.zeros(shape, np.uint8)).shape == shape
        assert affinities_from_boundary_map(np.zeros(shape)).shape == (3, *shape)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: connected_components(np.zeros((2, 2), bool)), r"axes \(z, y, x\); got bool of shape \(2, 2\)"),
        (lambda: connected_components(np.zeros((2, 2, 2))), "mask must be boolean"),
        (lambda: connected_components(np.zeros((2, 2, 2), bool), connectivity=4), r"one of \(6, 18, 26\)"),
        (lambda: section_components(np.zeros((2, 2, 2))), "labels must be integers"),
        (lambda: components_of_map(np.full((1, 2, 2), np.nan), 0.5), "without NaN; got nan"),
        (lambda: components_of_map(np.zeros((1, 2, 2), int), 0.5), "floats in \\[0, 1\\] or uint8; got int64"),
        (lambda: components_of_map(np.zeros((1, 2, 2)), 128), "threshold must lie in \\[0, 1\\]; got 128"),
        (lambda: affinities_from_boundary_map(np.zeros((2, 2))), "boundary must have axes"),
        (lambda: affinities_from_boundary_map(np.zeros((1, 2, 2)), rule="max"), "rule must be one of interior"),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()
