"""Slow, obvious twins of `neuropil.segmentation.suspects` and `neuropil.metrics.suggestions`."""

from __future__ import annotations

import numpy as np


def contacts_of(fragments, affinities):
    """{(u, v): affinities of all links between the two}, with the places of the links."""
    found, places = {}, {}
    for axis in range(3):
        for place in np.ndindex(fragments.shape):
            if place[axis] == 0:
                continue
            before = tuple(p - (k == axis) for k, p in enumerate(place))
            a, b = int(fragments[before]), int(fragments[place])
            if a and b and a != b:
                key = (min(a, b), max(a, b))
                found.setdefault(key, []).append(float(affinities[(axis, *place)]))
                places.setdefault(key, []).append(before)
    return found, places


def side_of(edges, u, v):
    """Fragments that u reaches by the edges without the edge u, v."""
    left = {frozenset(edge) for edge in edges} - {frozenset((u, v))}
    seen, waiting = {u}, [u]
    while waiting:
        node = waiting.pop()
        for edge in [one for one in left if node in one]:
            left.discard(edge)
            (other,) = edge - {node}
            seen.add(other)
            waiting.append(other)
    return seen


def cut_facts(fragments, affinities, edges, u, v, weak_below):
    """Mean and number of links between the sides of a cut, share of weak ones, faces of either side, sizes."""
    contacts, _ = contacts_of(fragments, affinities)
    one = side_of(edges, u, v)
    whole = one | side_of(edges, v, u)
    between = {pair: links for pair, links in contacts.items() if set(pair) <= whole and len(set(pair) & one) == 1}
    links = [value for values in between.values() for value in values]
    weak = sum(len(values) for values in between.values() if np.float32(np.mean(values)) < weak_below)
    faces, sizes = [], []
    for side in (one, whole - one):
        mask = np.isin(fragments, list(side))
        sizes.append(int(mask.sum()))
        faces.append(sum(bool(np.take(mask, place, axis).any()) for axis in range(3) for place in (0, -1)))
    return np.mean(links), len(links), weak / len(links), faces, sizes
