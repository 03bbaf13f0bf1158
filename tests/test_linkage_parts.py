"""Contacts and size-dependent linkage in blocks: those of the whole volume."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import cuts

from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.segmentation.contacts import region_contacts
from neuropil.segmentation.contacts_blocks import BlockContacts, block_contacts
from neuropil.segmentation.linkage import ConstantSize, LinearSize, size_dependent_linkage
from neuropil.segmentation.linkage_parts import PartLinks, link_part
from neuropil.segmentation.region_graph import region_edges

some = settings(max_examples=150, deadline=None)


@st.composite
def volumes(draw):
    """Dense fragments, affinities (bytes or floats, with ties), and blocks."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(2, 7)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(2, 30))
    fragments = rng.integers(0, count + 1, shape).astype(np.uint64)
    levels = draw(st.sampled_from([3, 17, 255]))
    links = (rng.integers(0, levels + 1, (3, *shape)) * (255 // levels)).astype(np.uint8)
    if draw(st.booleans()):
        links = rng.random((3, *shape), dtype=np.float32)
    borders = [draw(cuts(n)) for n in shape]
    return fragments, links, [Box(*zip(*spans)) for spans in product(*(pairwise(along) for along in borders))]


def contacts_of(fragments: np.ndarray, links: np.ndarray, block: Box) -> BlockContacts:
    before = tuple(int(n > 0) for n in block.start)
    here = block.grow(before, (0, 0, 0)).slices
    return block_contacts(fragments[here], links[(slice(None), *here)], before)


@some
@given(volumes())
def test_contacts_of_blocks_add_up(volume):
    fragments, links, blocks = volume
    found = BlockContacts.united([contacts_of(fragments, links, block) for block in blocks])
    whole = region_contacts(fragments, links)
    for name in ("u", "v", "count", "largest"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    np.testing.assert_array_equal(found.total, whole.steps)
    one = contacts_of(fragments, links, Box.of_shape(fragments.shape))
    for name, value in vars(found).items():
        np.testing.assert_array_equal(value, getattr(one, name))


@some
@given(st.data(), volumes(), st.sampled_from([ConstantSize(6, 0.3), ConstantSize(30, 0.0), LinearSize(12)]))
def test_linkage_in_parts_is_that_of_the_whole(data, volume, rule):
    fragments, links, blocks = volume
    sizes = np.bincount(fragments.ravel().astype(int))
    edges = region_edges(fragments, links)
    expected = size_dependent_linkage(edges, sizes, rule)
    owner = np.zeros(fragments.shape, int)
    known, groups = [], []
    for k, block in enumerate(blocks):
        owner[block.slices] = k
        contacts = contacts_of(fragments, links, block)
        ids, counts = np.unique(fragments[block.slices], return_counts=True)
        ends = np.unique(np.concatenate([ids, contacts.u, contacts.v]))
        ends = ends[ends > 0]
        own = np.zeros(ends.size, np.int64)
        own[np.searchsorted(ends, ids[ids > 0])] = counts[ids > 0]
        names = np.concatenate([[np.uint64(0)], ends, ends])  # labels that share a name
        real = contacts.largest > 0
        twins = ends.size * data.draw(st.integers(0, 1))
        u, v = (np.searchsorted(ends, end[real]) + 1 for end in (contacts.u, contacts.v))
        affinity = contacts.largest[real]
        voxels = np.concatenate([[0], own // 2, own - own // 2])
        known.append(PartLinks.of(names, voxels, u + twins, v, affinity))
        groups.append({k})
    smallest = np.arange(sizes.size, dtype=np.uint64)
    while True:
        for k, group in enumerate(groups):
            inside = np.isin(owner, list(group))
            beyond = set(smallest[np.unique(fragments[~inside]).astype(int)].tolist())
            beyond |= touching(fragments, inside, smallest)
            ids, now, _, _, known[k] = link_part(known[k], sorted(beyond), rule)
            assert known[k].u.size <= max(known[k].ids.size - 1, 0)  # a forest
            lookup = np.arange(sizes.size, dtype=np.uint64)
            lookup[ids.astype(int)] = now
            smallest = lookup[smallest.astype(int)]
        if len(groups) == 1:
            break
        step = data.draw(st.integers(2, 3))
        chunks = [range(i, min(i + step, len(groups))) for i in range(0, len(groups), step)]
        known = [PartLinks.united([known[i] for i in chunk]) for chunk in chunks]
        groups = [set().union(*(groups[i] for i in chunk)) for chunk in chunks]
    assert known[0].u.size == 0
    np.testing.assert_array_equal(np.unique(smallest, return_inverse=True)[1], expected)


def touching(fragments: np.ndarray, inside: np.ndarray, smallest: np.ndarray) -> set[int]:
    """Clusters with a voxel inside beside one that is not."""
    found = set()
    for axis in range(3):
        here, there = np.moveaxis(inside, axis, 0)[1:], np.moveaxis(inside, axis, 0)[:-1]
        a, b = np.moveaxis(fragments, axis, 0)[1:], np.moveaxis(fragments, axis, 0)[:-1]
        found |= set(smallest[np.concatenate([a[here & ~there], b[there & ~here]]).astype(int)].tolist())
    return found


def test_what_does_not_fit_is_refused():
    links = np.zeros((3, 2, 2, 2), np.uint8)
    with pytest.raises(InputError, match="fragments must have the affinities' extent"):
        block_contacts(np.zeros((2, 2, 3), int), links, (0, 0, 0))
    with pytest.raises(InputError, match="fragments must have the affinities' extent"):
        block_contacts(np.zeros((2, 2, 2), int), links, (2, 0, 0))
    one, at = np.ones(1, np.uint64), np.ones(1, int)
    with pytest.raises(InputError, match="must have the ids and sizes"):
        link_part(PartLinks(at - 1, at, np.float32([1]), one, one + 1, one, at, at, one), [], ConstantSize(9, 0))
