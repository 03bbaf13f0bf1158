"""Watershed in blocks: the basins of the whole volume."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from strategies import cuts

from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.labels import relabel
from neuropil.segmentation.watershed import watershed
from neuropil.segmentation.watershed_blocks import (
    HALO,
    Plateaus,
    block_fragments,
    divide_shared,
    face_pairs,
    inner_pairs,
    join_pairs,
    settle,
)

THRESHOLDS = [(0.0, 1.0), (0.3, 0.6), (0.1, 2)]
some = settings(max_examples=200, deadline=None)


def in_blocks(
    affinities: np.ndarray, borders: list[list[int]], low: float, high: float, step: Callable[[], int] = lambda: 2
) -> np.ndarray:
    """Run all steps over a grid of blocks; `step` says how many boxes become one, level after level."""
    shape = affinities.shape[1:]
    whole = Box.of_shape(shape)
    boxes, made = list(boxes_of(borders)), {}
    for block in boxes:
        region = block.grow((HALO,) * 3).clip(whole)
        part = affinities[(slice(None), *region.slices)]
        made[block] = block_fragments(part, region, block, shape, low=low, high=high)
    left, settled = {box: made[box].open for box in boxes}, []
    above = borders
    while len(boxes) > 1:
        above = [[*along[: -1 : step()], along[-1]] for along in above]
        boxes = list(boxes_of(above))
        parts = {box: [left[one] for one in left if box.contains(one)] for box in boxes}
        divided = {box: divide_shared(parts[box], box, shape) for box in boxes}
        settled += [one.settled for one in divided.values()]
        left = {box: one.left for box, one in divided.items()}
    assert all(one.places.size == 0 for one in left.values())
    every = Plateaus.united(settled)
    ids, bits, pairs = np.zeros(shape, np.uint64), np.zeros(shape, np.uint8), []
    for block, known in made.items():
        at = np.stack(np.unravel_index(every.places, shape), 1)
        inside = ((at >= block.start) & (at < block.stop)).all(1)
        own = Plateaus(every.places[inside], every.bits[inside])
        ids[block.slices] = known.ids[known.labels]
        bits[block.slices] = settle(known.bits, block, shape, own)
        pairs.append(known.ids[inner_pairs(known.labels, own, block, shape)])
    for axis, along in enumerate(borders):
        for place in along[1:-1]:
            planes = [(np.take(ids, k, axis), np.take(bits, k, axis)) for k in (place - 1, place)]
            pairs.append(face_pairs(*planes, axis))
    old, new = join_pairs(pairs)
    names = dict(zip(old.tolist(), new.tolist()))
    return np.array([names.get(k, k) for k in ids.ravel().tolist()], np.uint64).reshape(shape)


def boxes_of(borders: list[list[int]]) -> Iterator[Box]:
    return (Box(*zip(*spans)) for spans in product(*(pairwise(along) for along in borders)))


@some
@given(
    st.data(), st.sampled_from([1, 2, 4, 9, 255]), st.booleans(), st.sampled_from([(0.0, 1.0), (0.3, 0.6), (0.1, 2)])
)
def test_blocks_make_the_basins_of_the_whole(data, levels, as_bytes, thresholds):
    """Few levels make plateaus that cross faces; blocks one voxel thin and unequal ones are among them."""
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 8), st.integers(1, 9)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    steps = rng.integers(0, levels + 1, (3, *shape))
    links = (steps * (255 // levels)).astype(np.uint8) if as_bytes else (steps / levels).astype(np.float32)
    low, high = thresholds
    borders = [data.draw(cuts(n)) for n in shape]
    ids = in_blocks(links, borders, low, high, lambda: data.draw(st.integers(2, 3)))
    np.testing.assert_array_equal(relabel(ids).labels, watershed(links, low=low, high=high))
    if ids.any():
        first = [np.flatnonzero(ids == k)[0] + 1 for k in np.unique(ids[ids > 0])]
        assert first == np.unique(ids[ids > 0]).tolist()


def test_wide_plateaus_and_a_smooth_map():
    rng = np.random.default_rng(0)
    smooth = np.stack([ndimage.gaussian_filter(rng.random((20, 24, 28)), 1.5) for _ in range(3)])
    smooth = (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)
    borders = [[0, 7, 8, 20], [0, 11, 24], [0, 9, 18, 28]]
    for links, low in ((smooth, 0.1), (smooth // 32 * 32, 0.1), (np.full_like(smooth, 100), 0.0)):
        ids = in_blocks(links, borders, low, 0.9)
        np.testing.assert_array_equal(relabel(ids).labels, watershed(links, low=low, high=0.9))


def test_what_does_not_fit_is_refused():
    links, block = np.zeros((3, 4, 4, 4), np.float32), Box((0, 0, 0), (2, 2, 2))
    with pytest.raises(InputError, match="region must be"):
        block_fragments(links, block, block, (8, 8, 8), low=0, high=1)
    region = Box.of_shape((4, 4, 4))
    with pytest.raises(InputError, match=r"affinities must have shape \(3, 4, 4, 4\)"):
        block_fragments(links[:, 1:], region, block, (8, 8, 8), low=0, high=1)
    with pytest.raises(InputError, match="0 <= low < high"):
        block_fragments(links, region, block, (8, 8, 8), low=1, high=1)
