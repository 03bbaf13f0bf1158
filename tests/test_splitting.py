"""Splits: the division of a segment that severs the weakest links, whatever the graph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_edits import weakest_division
from strategies import read_only

from neuropil.errors import InputError
from neuropil.segmentation.splitting import FragmentGraph, split_off


def graph_of(links: dict[tuple[int, int], float], size: int) -> FragmentGraph:
    pairs = np.array(sorted(links), np.uint64).reshape(-1, 2)
    affinity = np.array([links[pair] for pair in sorted(links)], np.float32)
    table = np.minimum(np.arange(size + 1), 1).astype(np.uint64)
    return FragmentGraph(*(read_only(one) for one in (pairs[:, 0].copy(), pairs[:, 1].copy(), affinity, table)))


@st.composite
def segments(draw: st.DrawFn) -> tuple[dict[tuple[int, int], float], list[int], int, int]:
    """Links with ties among at most 9 fragments, those of one segment, and two of them."""
    n = draw(st.integers(2, 9))
    pairs = [(u, v) for u in range(1, n + 1) for v in range(u + 1, n + 1)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True))
    links = {pair: draw(st.sampled_from([0.125, 0.25, 0.5, 1.0])) for pair in chosen}
    nodes = draw(st.lists(st.integers(1, n), min_size=2, unique=True))
    return links, nodes, nodes[0], nodes[1]


def hangs_together(nodes: set[int], links: dict[tuple[int, int], float], start: int) -> bool:
    reached, front = {start}, [start]
    while front:
        one = front.pop()
        near = {w for pair in links for w in pair if one in pair} & nodes - reached
        reached |= near
        front += near
    return reached == nodes


@given(segments())
def test_no_division_severs_weaker_links(case: tuple[dict[tuple[int, int], float], list[int], int, int]) -> None:
    links, nodes, a, b = case
    away = set(split_off(graph_of(links, 9), nodes, a, b))
    assert b in away
    assert a not in away
    assert away <= set(nodes)
    assert hangs_together(away, links, b)
    within = [(u, v, w) for (u, v), w in links.items() if u in nodes and v in nodes]
    strongest = max([0, *(w for u, v, w in within if (u in away) != (v in away))])
    assert strongest == weakest_division(nodes, within, a, b)


@given(segments())
def test_on_a_tree_the_weakest_link_of_the_way_is_cut(
    case: tuple[dict[tuple[int, int], float], list[int], int, int],
) -> None:
    links, _, a, b = case
    chain = dict(zip(zip(range(1, 9), range(2, 10)), [*links.values(), *[0.375] * 8]))
    low, high = min(a, b), max(a, b)
    away = set(split_off(graph_of(chain, 9), range(1, 10), a, b))
    severed = [pair for pair in chain if (pair[0] in away) != (pair[1] in away)]
    assert len(severed) == 1
    assert low <= severed[0][0] < high
    assert chain[severed[0]] == min(chain[(k, k + 1)] for k in range(low, high))


def test_what_a_person_joined_is_cut_last() -> None:
    graph = graph_of({(1, 2): 0.5, (2, 3): 0.9, (3, 4): 0.5}, 5)
    assert split_off(graph, [1, 2, 3, 4, 5], 1, 5) == (5,)  # hangs on nothing
    assert split_off(graph, [1, 2, 3, 4, 5], 2, 5, joined=[(4, 5)]) == (4, 5)
    assert split_off(graph, [1, 2, 3, 4], 1, 4, joined=[(1, 2), (3, 4)]) == (3, 4)
    assert split_off(graph, [4, 5], 4, 5, joined=[(4, 5), (1, 2)]) == (5,)  # no other way


def test_a_large_segment_is_soon_divided() -> None:
    """Between two halves of a lattice of 22,500 fragments, links are weaker than elsewhere."""
    n = 150
    ids = np.arange(1, n * n + 1, dtype=np.uint64).reshape(n, n)
    across, down = np.stack([ids[:, :-1], ids[:, 1:]], -1).reshape(-1, 2), np.stack([ids[:-1], ids[1:]], -1)
    weak = np.repeat(np.where(np.arange(n - 1) == 74, 0.25, 0.75), n)
    pairs = np.concatenate([across, down.reshape(-1, 2)])
    affinity = np.concatenate([np.full(len(across), 0.75), weak]).astype(np.float32)
    table = np.minimum(np.arange(n * n + 1), 1).astype(np.uint64)
    graph = FragmentGraph(pairs[:, 0].copy(), pairs[:, 1].copy(), affinity, table)
    assert split_off(graph, ids.ravel(), 5, n * n) == tuple(range(75 * n + 1, n * n + 1))


def test_bad_input() -> None:
    graph = graph_of({(1, 2): 1.0}, 3)
    for a, b in ((1, 1), (1, 3), (7, 1)):
        with pytest.raises(InputError, match=f"must be two of the 2 fragments; got {a} and {b}"):
            split_off(graph, [1, 2], a, b)
    with pytest.raises(InputError, match="lists of one length"):
        FragmentGraph(graph.u, graph.v[:0], graph.affinity, graph.segments)
    with pytest.raises(InputError, match=r"must list fragments 0 \.\.\. 2 and begin with 0; got \(2,\)"):
        FragmentGraph(graph.u, graph.v, graph.affinity, graph.segments[:2])
