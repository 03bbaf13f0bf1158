"""Slow, obvious twins of crowd fusion: loops over segments and votes, definitions written out."""

from __future__ import annotations

import math


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def output(form, said, parameters):
    """o of a segment; said: list of (user, 0 or 1), parameters: (w, theta, c, k)."""
    w, theta, c, k = parameters
    m = len(said)
    if form == "nonnegative":
        return sigmoid(k * sum(w[u] * (s - theta[u]) for u, s in said))
    if form == "weighted":
        return sigmoid(k * (sum(w[u] * s for u, s in said) / m - min(0.99, math.exp(-0.16 * m) + 0.2)) + c)
    return sigmoid(sum(w[u] * s - theta[u] for u, s in said) + (c if form == "prior" else 0))


def loss(form, kind, said, y, parameters):
    """Half the squared error, or the log loss, of one segment."""
    o = output(form, said, parameters)
    return 0.5 * (y - o) ** 2 if kind == "squared" else -math.log(o if y else 1 - o)


def dawid_skene(votes, truth, segments, users, rounds):
    """EM with Beta(2, 1) and Beta(1, 2); votes: list of (user, segment, 0 or 1), truth: dict; returns P(y=1).

    Segments with one vote and no truth are judged and not learnt from; a known prior is kept where all are such.
    """
    q, telling = [], []
    for i in range(segments):
        mine = [s for _, j, s in votes if j == i]
        q.append(truth.get(i, sum(mine) / len(mine)))
        if i in truth or len(mine) > 1:
            telling.append(i)
    prior = sum(q) / segments
    for _ in range(rounds):
        sens, fall = [], []
        for u in range(users):
            mine = [(q[i], s) for v, i, s in votes if v == u and i in telling]
            sens.append((2 + sum(p * s for p, s in mine)) / (3 + sum(p for p, _ in mine)))
            fall.append((1 + sum((1 - p) * s for p, s in mine)) / (3 + sum(1 - p for p, _ in mine)))
        if telling:
            prior = (1 + sum(q[i] for i in telling)) / (2 + len(telling))
        prior = min(max(prior, 1e-6), 1 - 1e-6)
        found = []
        for i in range(segments):
            yes, no = prior, 1 - prior
            for u, j, s in votes:
                if i == j:
                    yes *= sens[u] if s else 1 - sens[u]
                    no *= fall[u] if s else 1 - fall[u]
            found.append(yes / (yes + no))
        q = [truth.get(i, p) for i, p in enumerate(found)]
    return found


def voxel_scores(truth, sizes, selected):
    """CE, precision, recall, F; segments of unknown truth (-1) are left out."""
    tp = fp = fn = 0
    for y, size, chosen in zip(truth, sizes, selected):
        tp += size * (y == 1 and chosen)
        fp += size * (y == 0 and chosen)
        fn += size * (y == 1 and not chosen)

    def ratio(a, b):
        return a / b if b else math.nan

    return ratio(fp + fn, tp + fp + fn), ratio(tp, tp + fp), ratio(tp, tp + fn), ratio(2 * tp, 2 * tp + fp + fn)


def best_error(truth, sizes, probability):
    """Least CE over all thresholds."""
    cuts = [2.0, *sorted(set(probability))]
    return min(voxel_scores(truth, sizes, [p >= cut for p in probability])[0] for cut in cuts)


def most_agreement(ids, sizes, weights):
    """Best agreement of any partition of atoms, by trying all: ids (atoms, annotators), 0 no opinion."""

    def partitions(n):
        if n == 0:
            yield []
            return
        for rest in partitions(n - 1):
            for k in range(max(rest, default=-1) + 2):
                yield [*rest, k]

    return max(agreement(ids, sizes, weights, one) for one in partitions(len(sizes)))


def agreement(ids, sizes, weights, clusters):
    """Sum over pairs of atoms in one cluster of sizes times (weight of "same" minus weight of "different")."""
    total = 0.0
    for a in range(len(sizes)):
        for b in range(a):
            if clusters[a] != clusters[b]:
                continue
            for k, w in enumerate(weights):
                if ids[a][k] and ids[b][k]:
                    total += w * sizes[a] * sizes[b] * (1 if ids[a][k] == ids[b][k] else -1)
    return total
