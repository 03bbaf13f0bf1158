"""Contingency tables and lookups, one voxel at a time."""

from __future__ import annotations

from collections import Counter

import numpy as np


def contingency(proposal, truth, mask):
    """Return {(proposal id, truth id): voxels}."""
    return Counter(zip(proposal[mask].tolist(), truth[mask].tolist()))


def relabel(labels):
    """Return the labels with consecutive ids in ascending order."""
    ids = sorted(set(labels.ravel().tolist()) | {0})
    return np.vectorize({old: new for new, old in enumerate(ids)}.get, otypes=[np.uint64])(labels)
