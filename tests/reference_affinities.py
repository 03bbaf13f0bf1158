"""Affinities link by link, and the segmentation they mean: slow and obvious."""

from __future__ import annotations

import itertools

import numpy as np


def affinities_from_labels(labels, offsets, unlabelled):
    """Return affinities and mask."""
    affinities = np.zeros((len(offsets), *labels.shape), np.float32)
    mask = np.zeros(affinities.shape, bool)
    for c, offset in enumerate(offsets):
        for v in np.ndindex(labels.shape):
            w = tuple(a + d for a, d in zip(v, offset))
            if all(0 <= b < n for b, n in zip(w, labels.shape)) and not unlabelled[v] and not unlabelled[w]:
                mask[(c, *v)] = True
                affinities[(c, *v)] = labels[v] == labels[w] != 0
    return affinities, mask


def links(values, offsets):
    """Return every link inside a volume as {unordered pair of voxels: value}."""
    found = {}
    shape = values.shape[1:]
    for (c, offset), v in itertools.product(enumerate(offsets), np.ndindex(shape)):
        w = tuple(a + d for a, d in zip(v, offset))
        if all(0 <= b < n for b, n in zip(w, shape)):
            found[frozenset((v, w))] = values[(c, *v)].item()
    return found
