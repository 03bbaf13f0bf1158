"""The rules of the watershed, one after another, on any graph whose vertices are ordered."""

from __future__ import annotations

from collections import defaultdict, deque

import numpy as np


def grid_links(affinities):
    """Yield (v, w, affinity) for every link inside the volume, vertices in raster order."""
    index = np.arange(affinities[0].size).reshape(affinities.shape[1:])
    for axis in range(3):
        back, here = np.moveaxis(index, axis, 0)[:-1], np.moveaxis(index, axis, 0)[1:]
        links = np.moveaxis(affinities[axis], axis, 0)[1:]
        yield from zip(back.ravel().tolist(), here.ravel().tolist(), links.ravel().tolist())


def watershed(n, links, low, high):
    """Return the fragment of each of n vertices."""
    weight = defaultdict(dict)
    for v, w, a in links:
        if a > low:
            weight[v][w] = weight[w][v] = min(a, high)
    to = {v: {w for w, a in weight[v].items() if a == max(weight[v].values())} for v in range(n)}
    for v in range(n):
        ways_out = sorted(w for w in to[v] if v not in to[w])
        to[v] -= set(ways_out[1:])
    queue = deque(v for v in range(n) if any(v not in to[w] for w in to[v]))
    seen = set(queue)
    while queue:
        u = queue.popleft()
        for v in sorted(w for w in to[u] if u in to[w]):
            to[u].discard(v)
            if v in seen:
                to[v].discard(u)
            else:
                seen.add(v)
                queue.append(v)
    return components(n, [(v, w) for v in range(n) for w in to[v]], {v for v in range(n) if weight[v]})


def components(n, pairs, foreground):
    """Return consecutive ids of the connected components of the foreground, in order of their first vertices."""
    neighbours = defaultdict(set)
    for v, w in pairs:
        neighbours[v].add(w)
        neighbours[w].add(v)
    ids, count = [0] * n, 0
    for v in range(n):
        if v in foreground and ids[v] == 0:
            count += 1
            ids[v], stack = count, [v]
            while stack:
                for w in neighbours[stack.pop()]:
                    if ids[w] == 0:
                        ids[w] = count
                        stack.append(w)
    return np.array(ids, np.uint64)
