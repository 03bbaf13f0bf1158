"""Laws of the augmentation: labels stay on their image, nothing is invented, and what is left alone stays the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_augmentation import warp as slow_warp
from strategies import read_only

from neuropil.errors import InputError
from neuropil.networks.augmentation import (
    EM_AUGMENTATION,
    NO_AUGMENTATION,
    Augmentation,
    Orientation,
    elastic_field,
    grey,
    random_orientation,
)
from neuropil.networks.defects import GREYS, misalign, missing_sections, out_of_focus, section_noise
from neuropil.networks.warp import random_places, source_extent, warp

seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(st.integers(1, 5), st.integers(4, 9), st.integers(4, 9))


def new(seed):
    return np.random.default_rng(seed)


@st.composite
def patches(draw):
    """Image and labels, closed for writing, with huge ids; no two voxels of the image are alike."""
    shape, rng = draw(shapes), new(draw(seeds))
    image = rng.permutation(np.prod(shape)).reshape(shape).astype(np.float32) + 10
    ids = np.array([0, 1, 2, 2**31, 2**32 - 1], np.uint32)
    return read_only(image), read_only(rng.choice(ids, shape))


def moves(image, labels, seed):
    """Every function that moves labels."""
    places = random_places(image.shape[1:], Augmentation(scale=0.3, shear=0.3), elastic=1.0, rng=new(seed))
    return [
        misalign(image, labels, 1, rng=new(seed)),
        misalign(image, labels, 1, rng=new(seed), slip=True),
        warp(image, labels, places, outside=7),
    ]


def hides(image, labels, seed, most=2):
    """Every function that spoils the image alone."""
    return [
        missing_sections(image, labels, rng=new(seed), sections=most),
        out_of_focus(image, labels, rng=new(seed), sections=most),
        section_noise(image, labels, rng=new(seed)),
    ]


@given(patches(), seeds)
def test_a_function_of_the_seed(patch, seed):
    for made, again in zip([*moves(*patch, seed), *hides(*patch, seed)], [*moves(*patch, seed), *hides(*patch, seed)]):
        assert np.array_equal(made.image, again.image)
        assert np.array_equal(made.labels, again.labels)
        assert made.image.dtype == np.float32
        assert made.labels.dtype == patch[1].dtype


@given(patches(), seeds)
def test_labels_are_those_that_were_there(patch, seed):
    for made in moves(*patch, seed):
        assert set(np.unique(made.labels)) <= {*np.unique(patch[1]), 7}
    for made in hides(*patch, seed):
        assert np.array_equal(made.labels, patch[1])


@given(patches(), seeds, st.integers(1, 5))
def test_what_is_not_spoilt_stays_identical(patch, seed, most):
    image, labels = patch
    for made in hides(image, labels, seed, most)[:2]:
        changed = (made.image != image).any(axis=(1, 2))
        assert changed.sum() <= most
    blank = missing_sections(image, labels, rng=new(seed), sections=most).image
    lost = blank != image
    assert lost.any()
    assert (np.abs(blank[lost]) <= GREYS).all()
    for z in np.flatnonzero(lost.any(axis=(1, 2))):
        assert len(np.unique(blank[z][lost[z]])) == 1


@given(patches(), seeds, st.booleans())
def test_a_misalignment_is_one_shift(patch, seed, slip):
    """The image and its labels (here the image again) move by one shift, from one section on, or that one alone."""
    image, _ = patch
    made = misalign(image, image, 1, rng=new(seed), slip=slip)
    assert np.array_equal(made.image, made.labels)
    assert made.image.shape == (len(image), *(n - 2 for n in image.shape[1:]))
    shifts = []
    for section, whole in zip(made.image, image):
        y, x = (int(i[0]) - 1 for i in np.nonzero(whole == section[0, 0]))
        height, width = section.shape
        assert np.array_equal(section, whole[1 + y : 1 + y + height, 1 + x : 1 + x + width])
        shifts.append((y, x))
    moved = [z for z, shift in enumerate(shifts) if shift != (0, 0)]
    assert len({shifts[z] for z in moved}) <= 1
    assert 0 not in moved
    assert len(moved) <= 1 if slip else moved in ([], list(range(len(image)))[-len(moved) :])


def test_shifts_reach_their_margin_and_no_further():
    rows = np.zeros((3, 21, 21), np.float32)
    rows[1] = np.arange(21 * 21).reshape(21, 21)
    corners = [misalign(rows, rows, 5, rng=new(seed), slip=True).image[1, 0, 0] for seed in range(500)]
    y, x = np.divmod(np.array(corners, int), 21)
    assert (y.min(), y.max(), x.min(), x.max()) == (0, 10, 0, 10)


@given(patches(), seeds, st.sampled_from([(), (1, 2), (0, 1, 2)]))
def test_orientations_are_undone_exactly(patch, seed, axes):
    orientation = random_orientation(rng=new(seed), axes=axes)
    for array in patch:
        turned = orientation.apply(array)
        assert np.array_equal(orientation.undo(turned), array)
        assert np.array_equal(np.sort(turned, None), np.sort(array, None))


@pytest.mark.parametrize(("axes", "count"), [((), 8), ((1, 2), 16), ((0, 1, 2), 48)])
def test_all_orientations_occur(axes, count):
    cube = np.arange(27).reshape(3, 3, 3)
    seen = {random_orientation(rng=new(seed), axes=axes).apply(cube).tobytes() for seed in range(600)}
    assert len(seen) == count


@given(patches(), seeds)
def test_the_warp_is_its_slow_twin(patch, seed):
    image, labels = patch
    places = 8 * new(seed).random((2, 5, 4), np.float32) - 4
    middle = [(n - 1) / 2 for n in image.shape[1:]]
    slow_image, slow_labels = slow_warp(image, labels, places + np.float32(middle)[:, None, None], 7)
    made = warp(image, labels, places, outside=7)
    assert np.allclose(made.image, slow_image, atol=1e-3)
    assert np.array_equal(made.labels, slow_labels)


@given(patches())
def test_no_strength_is_no_warp(patch):
    image, labels = patch
    still = random_places(image.shape[1:], Augmentation(rotation=0, scale=0, shear=0), rng=new(0))
    made = warp(image, labels, still, outside=7)
    assert np.array_equal(made.image, image)
    assert np.array_equal(made.labels, labels)


@given(seeds, st.integers(1, 30), st.integers(1, 30))
def test_a_box_of_the_source_extent_holds_every_place(seed, height, width):
    places = random_places((height, width), EM_AUGMENTATION, elastic=3.0, rng=new(seed))
    extent = source_extent(places)
    image = np.zeros((1, *extent), np.float32)
    assert not warp(image, np.zeros(image.shape, np.uint8), places, outside=1).labels.any()


def test_labels_stay_on_their_image():
    cells = new(0).integers(0, 2, (3, 8, 8)).repeat(12, 1).repeat(12, 2).astype(np.float32)
    for seed in range(20):
        places = random_places((50, 50), EM_AUGMENTATION, elastic=1.0, rng=new(seed))
        made = warp(cells, cells.astype(np.uint8), places)
        assert ((made.image > 0.5) == made.labels).mean() > 0.99


def test_elastic_fields_are_smooth_and_as_wide_as_asked():
    fields = np.stack([elastic_field((96, 64), 2.0, rng=new(seed)) - np.mgrid[:96, :64] for seed in range(200)])
    assert fields[:, :, 0, 0].std() == pytest.approx(2.0, rel=0.15)  # at a control point
    assert np.abs(np.diff(fields, axis=2)).max() < 1


def test_grey_together_varies_all_sections_alike():
    image = np.tile(new(0).normal(size=(1, 9, 9)).astype(np.float32), (4, 1, 1))
    alone, together = (grey(image, 1.0, rng=new(1), together=one) for one in (False, True))
    assert (together == together[0]).all()
    assert not np.allclose(alone, alone[0])


def test_blur_and_noise_are_as_strong_as_asked():
    image = new(0).normal(size=(1, 64, 64)).astype(np.float32)
    labels = np.zeros(image.shape, np.uint8)
    blurred = [out_of_focus(image, labels, rng=new(seed), sections=1).image.std() for seed in range(40)]
    assert min(blurred) < 0.2
    assert max(blurred) <= image.std()
    noisy = [(section_noise(image, labels, rng=new(seed), deviation=2.0).image - image).std() for seed in range(40)]
    assert 1.5 < max(noisy) < 2.1


def test_bad_input_is_told_in_one_sentence():
    image, labels = np.zeros((2, 4, 4), np.float32), np.zeros((2, 4, 4), np.uint8)
    for call, words in (
        (lambda: misalign(image, labels, 2, rng=new(0)), "margin must leave something of 4 x 4 voxels; got 2"),
        (lambda: misalign(image, labels[1:], 1, rng=new(0)), "labels must have the image's shape"),
        (lambda: missing_sections(image.astype(np.uint8), labels, rng=new(0)), "image must be float32"),
        (lambda: missing_sections(image, labels, rng=new(0), sections=0), "sections must be at least 1; got 0"),
        (lambda: section_noise(image, labels, rng=new(0), deviation=-1), "deviation must not be negative; got -1"),
        (lambda: warp(image, labels, np.zeros((2, 3))), r"places must be finite, of shape \(2, y, x\)"),
        (lambda: warp(image, labels[1:], np.zeros((2, 3, 3), np.float32)), "labels of its shape"),
        (lambda: Augmentation(missing=1.5), r"missing must be a share in \[0, 1\]; got 1.5"),
        (lambda: Augmentation(scale=1), r"scale must be a fraction in \[0, 1\); got 1"),
        (lambda: Augmentation(shift=-1), "shift must be finite and not negative; got -1"),
        (lambda: Augmentation(sections=0), "sections must be at least 1; got 0"),
    ):
        with pytest.raises(InputError, match=words):
            call()
    assert Augmentation() == NO_AUGMENTATION
    assert Orientation().apply(image).shape == image.shape
