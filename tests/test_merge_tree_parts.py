"""The merge tree of a volume that is known in parts: that of the whole, edge by edge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuropil.errors import InputError
from neuropil.segmentation.linkage import merge_tree
from neuropil.segmentation.merge_tree_parts import TreeEdges, grow_part
from neuropil.segmentation.region_graph import Edges


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(2, 25), st.integers(1, 9), st.sampled_from([2, 11, 10**6]))
def test_parts_make_the_tree_of_the_whole(data, nodes, parts, levels):
    """Parts know some links each, of one contact perhaps several; few levels make ties."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    m = data.draw(st.integers(0, 80))
    ends, affinity = rng.integers(0, nodes + 1, (2, m)), (rng.integers(0, levels, m) / levels).astype(np.float32)
    near = data.draw(st.booleans())  # most links within a part
    owner = (ends.min(0) * parts // (nodes + 1) + (rng.random(m) < 0.2)) % parts if near else rng.integers(0, parts, m)
    names = np.concatenate([[0], np.sort(rng.choice(2**40, nodes, replace=False)) + 1]).astype(np.uint64)
    known = [TreeEdges.of_labels(names, *ends[:, owner == k], affinity[owner == k]) for k in range(parts)]
    groups, grown = [{k} for k in range(parts)], []
    while True:
        for k, group in enumerate(groups):
            beyond = ends[:, ~np.isin(owner, list(group))]
            frozen = names[np.unique(beyond)]
            tree, known[k] = grow_part(known[k], frozen[frozen > 0])
            grown.append(tree)
            assert known[k].u.size < max(1, np.unique(beyond[beyond > 0]).size)  # a forest of what is frozen
        if len(groups) == 1:
            break
        step = data.draw(st.integers(2, 3))
        chunks = [range(i, min(i + step, len(groups))) for i in range(0, len(groups), step)]
        known = [TreeEdges.joined([known[i] for i in chunk]) for chunk in chunks]
        groups = [set().union(*(groups[i] for i in chunk)) for chunk in chunks]
    found, linked = TreeEdges.joined(grown), affinity > 0
    expected = merge_tree(Edges.of(*ends[:, linked], affinity[linked]), nodes)
    np.testing.assert_array_equal(found.first_u, names[expected.u.astype(int)])
    np.testing.assert_array_equal(found.first_v, names[expected.v.astype(int)])
    np.testing.assert_array_equal(found.affinity, expected.affinity)


def test_edges_without_affinity_are_refused():
    one = np.ones(1, np.uint64)
    with pytest.raises(InputError, match="affinity of edges must be above 0"):
        grow_part(TreeEdges(one, one + one, np.zeros(1, np.float32), one, one), [])
