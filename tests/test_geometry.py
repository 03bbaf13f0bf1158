"""Boxes against sets of voxels; the grid tiles without gap or overlap."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuropil.errors import InputError
from neuropil.geometry import Box, grid

ends = st.tuples(st.integers(-4, 6), st.integers(-4, 6)).map(sorted)
boxes = st.lists(ends, min_size=2, max_size=2).map(lambda axes: Box(*(tuple(end) for end in zip(*axes))))


def voxels(box: Box) -> set[tuple[int, ...]]:
    return set(itertools.product(*(range(a, b) for a, b in zip(box.start, box.stop))))


@given(boxes, boxes)
def test_boxes_are_sets_of_voxels(a: Box, b: Box) -> None:
    assert a.size == len(voxels(a)) == np.prod(a.shape)
    assert voxels(a.clip(b)) == voxels(a) & voxels(b)
    if voxels(b):
        assert a.contains(b) == (voxels(b) <= voxels(a))
    assert voxels(a.shift((2, -1))) == {(y + 2, x - 1) for y, x in voxels(a)}
    assert a.shift((2, -1)).shift((-2, 1)) == a
    assert a.clip(a) == a


@given(boxes)
def test_a_halo_grows_and_shrinks(box: Box) -> None:
    grown = box.grow((1, 2), (3, 0))
    assert grown.shape == (box.shape[0] + 4, box.shape[1] + 2)
    assert grown.contains(box)
    assert grown.grow((-1, -2), (-3, 0)) == box
    assert box.grow((1, 2)) == box.grow((1, 2), (1, 2))


@given(boxes, st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_a_grid_covers_every_voxel_once(box: Box, block_shape: tuple[int, int]) -> None:
    blocks = list(grid(box, block_shape))
    assert sum(block.size for block in blocks) == box.size
    assert set().union(*map(voxels, blocks)) == voxels(box)
    assert [block.start for block in blocks] == sorted(block.start for block in blocks)
    assert all(n <= most for block in blocks for n, most in zip(block.shape, block_shape))


def test_slices_cut_an_array() -> None:
    array = np.arange(24).reshape(2, 3, 4)
    assert array[Box((0, 1, 2), (2, 3, 3)).slices].tolist() == [[[6], [10]], [[18], [22]]]
    assert Box.of_shape(array.shape).shape == array.shape
    assert Box.of_shape(np.array([2, 3])) == Box((0, 0), (2, 3))


def test_bad_boxes_and_grids() -> None:
    with pytest.raises(InputError, match=r"start \(0, 3\), stop \(2, 2\)"):
        Box((0, 3), (2, 2))
    with pytest.raises(InputError, match="must not lie beyond"):
        Box((0, 0), (2, 2, 2))
    for bad in ((1,), (1, 0), (2, -1)):
        with pytest.raises(InputError, match="one positive extent per axis"):
            list(grid(Box.of_shape((4, 4)), bad))
