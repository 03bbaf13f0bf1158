"""Agglomeration in parts: the same merges to the bit, however the volume is cut."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import cuts

from neuropil.segmentation import merging
from neuropil.segmentation.agglomeration import agglomerate
from neuropil.segmentation.agglomeration_parts import Merges, PartEdges, agglomerate_part, unite
from neuropil.segmentation.contacts import STEPS, region_contacts

some = settings(max_examples=150, deadline=None)


def links_of(fragments: np.ndarray, affinities: np.ndarray) -> list[tuple[tuple[int, int, int], int, int, int]]:
    """Every link between two fragments: the voxel that stores it, the pair, and its affinity in 255ths."""
    found = []
    for axis, step in enumerate(np.eye(3, dtype=int)):
        for place in product(*(range(step[k], n) for k, n in enumerate(fragments.shape))):
            a, b = sorted((int(fragments[place]), int(fragments[tuple(np.subtract(place, step))])))
            if 0 < a < b:
                found.append((place, a, b, int(affinities[(axis, *place)])))
    return found


def edges_of(links: list) -> PartEdges:
    sums: dict[tuple[int, int], list[int]] = {}
    for _, a, b, value in links:
        sums.setdefault((a, b), []).append(value)
    pairs = sorted(sums)
    return PartEdges.of(
        [a for a, _ in pairs], [b for _, b in pairs], [sum(sums[p]) for p in pairs], [len(sums[p]) for p in pairs]
    )


@some
@given(st.data(), st.integers(2, 40), st.sampled_from([3, 40, 255]), st.sampled_from([0, 3, 128]))
def test_parts_make_the_merges_of_the_whole(data, fragments, levels, few):
    """Random blocks, thin ones too, united in random groups; values with few levels make many ties."""
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(2, 7)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    ids = rng.choice(np.arange(1, 1000), fragments, replace=False)
    labels = ids[rng.integers(0, fragments, shape)].astype(np.uint64)
    values = (rng.integers(0, levels + 1, (3, *shape)) * (255 // levels)).astype(np.uint8)
    links = links_of(labels, values)
    whole, rest = agglomerate_part(edges_of(links), [])
    assert rest.u.size == 0
    borders = [data.draw(cuts(n)) for n in shape]
    owner = np.zeros(shape, int)
    blocks = list(product(*(pairwise(along) for along in borders)))
    for k, spans in enumerate(blocks):
        owner[tuple(slice(*span) for span in spans)] = k
    groups = [{k} for k in range(len(blocks))]
    known = [edges_of([link for link in links if owner[link[0]] == k]) for k in range(len(blocks))]
    parts = []
    before, merging._FEW = merging._FEW, few
    try:
        while True:
            for k, group in enumerate(groups):
                beyond = {x for place, a, b, _ in links if owner[place] not in group for x in (a, b)}
                merges, known[k] = agglomerate_part(known[k], representatives(parts, beyond))
                parts.append(merges)
            if len(groups) == 1:
                break
            size = data.draw(st.integers(2, 3))
            chunks = [range(i, min(i + size, len(groups))) for i in range(0, len(groups), size)]
            known = [unite([known[i] for i in chunk]) for chunk in chunks]
            groups = [set().union(*(groups[i] for i in chunk)) for chunk in chunks]
    finally:
        merging._FEW = before
    assert known[0].u.size == 0
    joined, expected = Merges.joined(parts), Merges.joined([whole])
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(joined, name), value, err_msg=name)


def representatives(parts: list[Merges], fragments: set[int]) -> list[int]:
    """Name the clusters that hold some fragments by their smallest ones."""
    smallest: dict[int, int] = {}

    def find(x: int) -> int:
        while smallest.get(x, x) != x:
            x = smallest[x]
        return x

    for part in parts:
        for a, b in zip(part.u.tolist(), part.v.tolist()):
            x, y = sorted((find(a), find(b)))
            smallest[y] = x
    return [find(x) for x in fragments]


@pytest.mark.parametrize("kind", ["bytes", "few", "floats"])
def test_the_whole_is_the_usual_agglomeration(kind):
    """To the bit, for all affinities: both add up whole steps, so blocks, whose sums are these, have its merges."""
    rng = np.random.default_rng(0)
    links = rng.integers(0, 256, (3, 12, 14, 16)).astype(np.uint8)
    links = {"bytes": links, "few": links // 85 * 85, "floats": rng.random(links.shape, dtype=np.float32)}[kind]
    fragments = rng.integers(0, 300, links.shape[1:]).astype(np.uint64)
    contacts = region_contacts(fragments, links)
    tree = agglomerate(contacts, 299)
    edges = PartEdges.of(contacts.u, contacts.v, contacts.steps, contacts.count)
    merges = Merges.joined([agglomerate_part(edges, []).merges])
    np.testing.assert_array_equal(merges.u, tree.u)
    np.testing.assert_array_equal(merges.v, tree.v)
    np.testing.assert_array_equal(merges.score / np.float32(STEPS), tree.affinity)


def test_what_is_frozen_never_merges():
    edges = PartEdges.of([1, 1, 2], [2, 3, 4], [250, 10, 9], [1, 1, 1])
    merges, left = agglomerate_part(edges, [1, 2**50])
    assert merges.u.size == 0
    np.testing.assert_array_equal(left.total, edges.total)
    merges, left = agglomerate_part(edges, [], least=9.5)
    assert (merges.score.tolist(), left.u.tolist(), left.v.tolist()) == ([250, 10], [1], [4])
