"""Edits of a segmentation, with sets of fragments that carry names, everything replayed from the beginning."""

from __future__ import annotations


def replay(segments, log):
    """Return {fragment: segment} after a log of (op, a, b, away)."""
    standing, undone = [], []
    for entry in log:
        if entry[0] == "undo":
            undone.append(standing.pop())
        elif entry[0] == "redo":
            standing.append(undone.pop())
        else:
            standing.append(entry)
            undone = []
    names = {fragment: segment for fragment, segment in enumerate(segments) if segment}
    new = max([0, *segments])
    for op, a, b, away in standing:
        if op == "merge":
            old = names[b]
            names = {fragment: names[a] if name == old else name for fragment, name in names.items()}
        else:
            new += 1
            names |= dict.fromkeys(away, new)
    return names


def weakest_division(nodes, links, a, b):
    """Of all divisions of nodes, a in one part and b in the other: the least that the strongest severed link can be."""
    others = [node for node in nodes if node not in (a, b)]
    best = float("inf")
    for bits in range(1 << len(others)):
        side = {a} | {node for k, node in enumerate(others) if bits >> k & 1}
        best = min(best, max([0, *(w for u, v, w in links if (u in side) != (v in side))]))
    return best
