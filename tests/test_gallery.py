"""The worst merges and splits, and where they are."""

from __future__ import annotations

import numpy as np
import pytest

from neuropil.errors import InputError
from neuropil.metrics.gallery import worst_errors

SIZE = (40, 4, 4)


def rooms() -> np.ndarray:
    """Three rooms side by side, ids 1, 2, 3 of 12, 18 and 36 columns, walls of two columns of background."""
    truth = np.zeros((3, 20, 70), np.uint64)
    truth[:, :, :12], truth[:, :, 14:32], truth[:, :, 34:] = 1, 2, 3
    truth.flags.writeable = False
    return truth


def test_a_merge_is_found_at_its_leak_and_ranked_by_pairs():
    truth = rooms()
    proposal = truth + np.where(truth > 0, 2**41, 0).astype(np.uint64)
    proposal[truth == 2] = 2**41 + 1
    proposal[1, 7, 12:14] = 2**41 + 1  # the leak
    gallery = worst_errors(proposal, truth, SIZE)
    assert gallery.splits == ()
    (merge,) = gallery.merges
    assert (merge.segment, merge.parts, merge.sizes) == (2**41 + 1, (2, 1), (18 * 60, 12 * 60))
    assert merge.pairs == 18 * 60 * 12 * 60
    assert merge.point[:2] == (1, 7)
    assert merge.point[2] in (11, 12, 13, 14)


def test_a_split_is_found_at_the_cut_even_across_a_gap():
    truth = rooms()
    proposal = truth.copy()
    proposal[:, :, 50:] = 9
    proposal[:, :, 48:52] = 0
    gallery = worst_errors(proposal, truth, SIZE)
    assert gallery.merges == ()
    (split,) = gallery.splits
    assert (split.segment, split.parts) == (3, (9, 3))
    assert 46 <= split.point[2] <= 53


def test_parts_that_never_meet_are_shown_midway():
    truth = np.zeros((1, 3, 200), np.uint64)
    truth[:, :, :20], truth[:, :, 150:] = 1, 2
    proposal = np.where(truth > 0, 5, 0)
    (merge,) = worst_errors(proposal, truth, SIZE).merges
    assert abs(merge.point[2] - 84) <= 1


def test_lists_are_ordered_and_cut_to_count():
    truth = rooms()
    truth_of_pairs = truth.copy()
    proposal = truth.copy()
    proposal[:, 10:] += 10 * (proposal[:, 10:] > 0).astype(np.uint64)
    gallery = worst_errors(proposal, truth_of_pairs, SIZE, count=2)
    assert [s.segment for s in gallery.splits] == [3, 2]
    assert gallery.splits[0].pairs == (36 * 30) ** 2
    assert gallery.splits[0].point[1] in (9, 10)


def test_mask_hides_errors_and_perfection_has_none():
    truth = rooms()
    proposal = truth.copy()
    proposal[:, :, 50:] = 9
    hidden = np.zeros(truth.shape, bool)
    hidden[:, :, :45] = True
    for gallery in (worst_errors(proposal, truth, SIZE, hidden), worst_errors(truth, truth, SIZE)):
        assert gallery.merges == gallery.splits == ()


def test_bad_input_is_named():
    with pytest.raises(InputError, match="proposal must have axes z, y, x"):
        worst_errors([1], [1], SIZE)
    with pytest.raises(InputError, match=r"count >= 1; got .* 0"):
        worst_errors(rooms(), rooms(), SIZE, count=0)
    with pytest.raises(InputError, match="voxel_size must be three positive lengths"):
        worst_errors(rooms(), rooms(), (4, 4))
