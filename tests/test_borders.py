"""ISBI thinning and the CREMI border mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import label

from neuropil.errors import InputError
from neuropil.labels import contingency
from neuropil.metrics.borders import cremi_truth, thin_borders
from neuropil.metrics.rand import adapted_rand_error


def cells(seed: int, size: int = 400, count: int = 90) -> np.ndarray:
    """Cells with smooth curved walls, ids 1 ... count, no background."""
    rng = np.random.default_rng(seed)
    grid = np.indices((size, size)).astype(float)
    warp = [ndimage.gaussian_filter(rng.standard_normal((size, size)), 12) * 150 for _ in range(2)]
    where = np.stack([g + w for g, w in zip(grid, warp)], axis=-1)
    return cKDTree(rng.random((count, 2)) * size).query(where)[1] + 1


def with_walls(labels: np.ndarray, width: int) -> np.ndarray:
    """Put background on all pixels within width / 2 of another cell."""
    wall = np.zeros(labels.shape, bool)
    wall[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    wall[:-1] |= labels[:-1] != labels[1:]
    return np.where(ndimage.distance_transform_edt(~wall) <= width / 2, 0, labels)


@pytest.mark.parametrize("seed", [1, 2])  # shapes without a neck so thin that a wider border cuts it
def test_widening_borders_by_one_pixel_changes_the_score_by_less_than_a_thousandth(seed):
    truth = with_walls(cells(seed), 3)
    errors_of_proposal = cells(seed)
    errors_of_proposal[errors_of_proposal % 9 == 0] = 1  # some merges
    scores = [
        adapted_rand_error(
            contingency(thin_borders(with_walls(errors_of_proposal, width)), truth), variant="isbi2012"
        ).error
        for width in (3, 4, 5, 6)
    ]
    assert max(scores) - min(scores) < 1e-3
    thick = [adapted_rand_error(contingency(with_walls(errors_of_proposal, width), truth)).error for width in (3, 6)]
    assert thick[1] - thick[0] > 0.04  # what thinning is there to avoid


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 2.5), st.floats(0.05, 1.5))
def test_thinning_neither_joins_nor_loses_segments(seed, blur, width):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal((2, 24, 31)), (0, blur, blur))
    inside = np.abs(field) > width * field.std()
    inside.flags.writeable = False
    thinned = thin_borders(inside)
    for z in range(2):
        before = label(inside[z], connectivity=1)
        table = contingency(thinned[z], before)
        held = (table.proposal_ids[table.rows] > 0) & (table.truth_ids[table.columns] > 0)
        assert np.unique(table.rows[held]).size == held.sum()  # no thinned segment holds two
        assert np.unique(table.columns[held]).size == before.max()  # none lies wholly under a line
    assert not set(np.unique(thinned[0])[1:]) & set(np.unique(thinned[1])[1:])


def test_segments_that_touch_are_kept_apart_by_a_line():
    touching = np.array([[1, 1, 1, 2, 2, 2]] * 5)
    thinned = thin_borders(touching)
    assert thinned[2].tolist() == [1, 1, 0, 2, 2, 2]
    assert thin_borders(touching[None]).shape == (1, 5, 6)


def test_a_thick_membrane_still_ends_at_the_edge_of_the_image():
    proposal = np.ones((40, 60), int)
    proposal[:, 20:39] = 0
    thinned = thin_borders(proposal)
    assert np.unique(thinned).tolist() == [0, 1, 2]
    assert (thinned == 0).sum(axis=1).tolist() == [1] * 40


def test_cremi_masks_pixels_up_to_the_distance_and_scores_id_zero():
    truth = np.zeros((2, 1, 20), np.uint64)
    truth[0, 0, 10:] = 7
    truth[1, 0, :3] = 2**64 - 1
    masked = cremi_truth(truth, (40, 4, 4), distance_nm=8)
    assert masked[0, 0].tolist() == [1] * 7 + [0] * 6 + [8] * 7
    assert masked[1, 0].tolist() == [0] * 6 + [1] * 14
    assert cremi_truth(truth, (40, 4, 4), distance_nm=0)[0, 0].tolist() == [1] * 9 + [0] * 2 + [8] * 9
    assert cremi_truth(np.full((1, 4, 4), 3), (40, 4, 4)).tolist() == np.full((1, 4, 4), 4).tolist()


def test_cremi_distance_is_at_most_25_nm():
    truth = np.ones((1, 31, 31), np.uint64)
    truth[0, 15, 15] = 2
    scored = cremi_truth(truth, (40, 4, 4))[0] > 0
    y, x = np.indices(scored.shape)
    plus = [(15, 15), (14, 15), (16, 15), (15, 14), (15, 16)]
    distance = np.min([np.hypot(y - a, x - b) for a, b in plus], axis=0)
    np.testing.assert_array_equal(scored, distance * 4 > 25)


def test_bad_input_is_named():
    with pytest.raises(InputError, match="segmentation must be integers with axes"):
        thin_borders(np.ones(4, int))
    with pytest.raises(InputError, match=r"segmentation must be integers .* got float64"):
        thin_borders(np.ones((4, 4)))
    with pytest.raises(InputError, match="truth must have axes z, y, x"):
        cremi_truth(np.ones((4, 4), int), (40, 4, 4))
    with pytest.raises(InputError, match=r"distance_nm >= 0; got .* and -1"):
        cremi_truth(np.ones((1, 4, 4), int), (40, 4, 4), distance_nm=-1)
