"""Multicut against all divisions of small graphs."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from neuropil.errors import InputError, MissingExtra
from neuropil.segmentation.contacts import Contacts, region_contacts
from neuropil.segmentation.multicut import cut_costs, multicut


def divisions(n):
    """Yield every division of n things, as lists of group numbers."""
    if n == 0:
        yield []
        return
    for rest in divisions(n - 1):
        for group in range(max(rest, default=-1) + 2):
            yield [*rest, group]


def energy(contacts: Contacts, costs, groups) -> float:
    groups = np.asarray(groups)
    return float(costs[groups[contacts.u.astype(int) - 1] != groups[contacts.v.astype(int) - 1]].sum())


@pytest.mark.parametrize("by_size", [True, False])
@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_as_good_as_the_best_of_all_divisions(by_size, threshold):
    pytest.importorskip("bioimage_cpp")
    gaps = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        fragments = rng.integers(1, 7, (3, 4, 4)).astype(np.uint64)
        contacts = region_contacts(fragments, rng.random((3, 3, 4, 4), np.float32) ** 1.5)
        costs = cut_costs(contacts, threshold=threshold, by_size=by_size)
        lookup = multicut(contacts, 6, threshold=threshold, by_size=by_size)
        best = min(energy(contacts, costs, groups) for groups in divisions(6))
        gaps.append(energy(contacts, costs, lookup[1:]) - best)
        first = [int(np.flatnonzero(lookup == k)[0]) for k in range(1, int(lookup.max()) + 1)]
        assert first == sorted(first)
        assert lookup[0] == 0
    assert min(gaps) > -1e-9
    assert np.mean(np.array(gaps) < 1e-9) > 0.9


def test_fragments_without_contacts_stay_themselves():
    pytest.importorskip("bioimage_cpp")
    contacts = region_contacts(np.array([[[1, 0, 2]]]), np.zeros((3, 1, 1, 3)))
    assert multicut(contacts, 3).tolist() == [0, 1, 2, 3]
    assert multicut(contacts, 0 + 2).tolist() == [0, 1, 2]


def test_bad_input_is_one_sentence(monkeypatch):
    contacts = region_contacts(np.array([[[1, 2]]]), np.full((3, 1, 1, 2), 0.75))
    with pytest.raises(InputError, match="threshold must lie between 0 and 1; got 1"):
        multicut(contacts, 2, threshold=1)
    with pytest.raises(InputError, match=r"fragments 1 \.\.\. 1; got 2"):
        multicut(contacts, 1)
    monkeypatch.setitem(sys.modules, "bioimage_cpp.graph", None)
    with pytest.raises(MissingExtra, match=r"pip install 'neuropil\[multicut\]'"):
        multicut(contacts, 2)
