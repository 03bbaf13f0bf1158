"""Patches of affinities: right whatever was done to them, and never more than is known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import labels

from neuropil.errors import InputError
from neuropil.networks.affinity_sampling import UNKNOWN, AffinitySampler, LabelledStack, erode_borders, pieces
from neuropil.networks.augmentation import EM_AUGMENTATION, Augmentation
from neuropil.networks.sampling import UNLABELLED
from neuropil.networks.unet_architecture import UNetArchitecture
from neuropil.segmentation.affinities import affinities_from_labels, link_labels

SMALL = UNetArchitecture("small", (4, 6), offsets=((-1, 0, 0), (0, -1, 0), (0, 0, -1), (2, 0, 0), (0, -3, 1)),
                         pooling=((1, 2, 2),))  # fmt: skip
MOVING = Augmentation(warp=0.0, misalign=1.0, shift=3, slip=0.5)
SHAPE = (6, 40, 44)


def columns(name="columns", shape=SHAPE, seed=0, cell=8):
    """Columns of one grey and one id each, some of them background; the image tells the id."""
    rng = np.random.default_rng(seed)
    y, x = (-(-n // cell) for n in shape[1:])
    ids = np.where(rng.random((y, x)) < 0.2, 0, 2**40 + np.arange(y * x).reshape(y, x)).astype(np.uint64)
    labels = np.broadcast_to(ids.repeat(cell, 0).repeat(cell, 1)[: shape[1], : shape[2]], shape)
    return LabelledStack(name, np.maximum(labels % 2**40 + 1, 0) * (labels > 0), labels)


def linked(image, offset, background):
    """Affinities read off an image that tells the id."""
    moved = np.full(image.shape, np.nan)
    inside, there = (
        tuple(slice(max(0, s * d), n + min(0, s * d)) for n, d in zip(image.shape, offset)) for s in (-1, 1)
    )
    moved[inside] = image[there]
    return (np.abs(moved - image) < 1e-6) & ~np.isclose(image, background), ~np.isnan(moved)


def test_a_patch_is_a_function_of_seed_and_index():
    stacks = [columns("a"), columns("b", (7, 50, 40), seed=1)]
    one, two = (
        AffinitySampler(stacks, SMALL, (4, 16, 16), 3, EM_AUGMENTATION, grey=0.5, elastic=2, erosion=1) for _ in (0, 1)
    )
    for index in (0, 7):
        assert np.array_equal(one(index).image, two(index).image)
        assert np.array_equal(one(index).target, two(index).target)
    assert not np.array_equal(one(0).image, one(1).image)


def test_a_batch_is_patches_one_after_another():
    one, three = (AffinitySampler([columns()], SMALL, (4, 16, 16), 3, EM_AUGMENTATION, batch=n) for n in (1, 3))
    made = three(2)
    assert made.image.shape == (3, 4, 16, 16)
    assert made.target.shape == (3, 5, 4, 16, 16)
    for k in range(3):
        np.testing.assert_array_equal(made.image[k], one(6 + k).image)
        np.testing.assert_array_equal(made.target[k], one(6 + k).target)
    assert three.labelled == (12, 16, 16)
    with pytest.raises(InputError, match="batch must be at least 1; got 0"):
        replace(one, batch=0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_targets_are_the_links_of_what_the_image_shows(seed, isotropic):
    stack = columns()
    sampler = AffinitySampler([stack], SMALL, (4, 16, 16), seed, MOVING, isotropic=isotropic)
    sample = sampler(0)
    background = (0 - stack.statistics.mean[0]) / stack.statistics.deviation[0]
    assert sample.target.shape == (5, 4, 16, 16)
    for channel, offset in enumerate(SMALL.offsets):
        links, inside = linked(sample.image, offset, background)
        assert np.array_equal(sample.target[channel] != UNLABELLED, inside)
        assert np.array_equal(sample.target[channel][inside] == 1, links[inside])


def test_warped_targets_stay_on_their_image():
    stack = columns(cell=16, shape=(4, 120, 120))
    ranges = replace(EM_AUGMENTATION, missing=0, out_of_focus=0, noise=0, warp=1.0, misalign=0.0)
    sampler = AffinitySampler([stack], SMALL, (4, 48, 48), 0, ranges, elastic=1.0)
    background = (0 - stack.statistics.mean[0]) / stack.statistics.deviation[0]
    agreement = []
    for index in range(10):
        sample = sampler(index)
        assert (sample.target[0, 1:] != UNLABELLED).all()  # the box was large enough
        links, inside = linked(sample.image, SMALL.offsets[0], background)
        agreement.append((links == (sample.target[0] == 1))[inside].mean())
    assert np.mean(agreement) > 0.98


def test_pieces_that_join_outside_the_patch_are_two():
    labels = np.ones((1, 30, 8), np.uint8)
    labels[:, :29, 4] = 0  # a U: its arms join in the last row
    stack = LabelledStack("u", labels.astype(np.float32), labels)
    across = replace(SMALL, offsets=((0, 0, -4),))
    whole, cut = (AffinitySampler([stack], across, (1, n, 8), 0, flips=False)(1) for n in (30, 20))
    assert (whole.target[0, :, :, 5:] == 1).all()
    assert (cut.target[0, :, :, 5:8] == 0).all()


def test_what_is_unlabelled_or_outside_is_not_learnt():
    stack = columns()
    hidden = np.zeros(SHAPE, bool)
    hidden[:, :, 20:] = True
    half = LabelledStack("half", stack.image, stack.labels, hidden)
    target = AffinitySampler([half], SMALL, SHAPE, 0, flips=False)(0).target
    assert (target[..., 20:] == UNLABELLED).all()
    assert (target[1, :, 1:, :20] != UNLABELLED).all()
    assert (target[4, :, 3:, 19] == UNLABELLED).all()  # its other end is
    wide = Augmentation(misalign=1.0, shift=9)
    target = AffinitySampler([columns()], SMALL, SHAPE, 0, wide, flips=False)(2).target
    assert (target == UNLABELLED).mean() > (
        AffinitySampler([columns()], SMALL, SHAPE, 0)(2).target == UNLABELLED
    ).mean()
    assert (target != UNLABELLED).any()


@pytest.mark.parametrize("isotropic", [False, True])
def test_erosion_parts_objects_that_touch(isotropic):
    labels = np.array([1, 2])[:, None, None].repeat(3, 0).repeat(6, 1).repeat(6, 2)
    axes = (0, 1, 2) if isotropic else (1, 2)
    eroded, unlabelled = erode_borders(labels, np.zeros(labels.shape, bool), 1, axes=axes)
    assert not unlabelled.any()
    assert (eroded[[2, 3]] == 0).all() == isotropic
    assert np.array_equal(eroded[[0, 1, 4, 5]], labels[[0, 1, 4, 5]])


@given(st.integers(0, 2**32 - 1), st.integers(0, 2))
def test_erosion_invents_nothing(seed, steps):
    rng = np.random.default_rng(seed)
    labels, unlabelled = rng.integers(0, 3, (3, 6, 7)), rng.random((3, 6, 7)) < 0.1
    eroded, hidden = erode_borders(labels, unlabelled, steps)
    assert ((eroded == labels) | (eroded == 0)).all()
    assert (hidden >= unlabelled).all()
    if not steps:
        assert np.array_equal(eroded, labels)


@given(labels(elements=st.integers(0, 3)), st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_targets_are_affinities_from_labels(ids, seed, count):
    rng = np.random.default_rng(seed)
    offsets = [(z, y, x) for z, y, x in np.unique(rng.integers(-4, 5, (count, 3)), axis=0).tolist() if z or y or x]
    unlabelled = rng.random(ids.shape) < 0.2
    affinities, known = affinities_from_labels(ids, offsets or [(0, 0, 1)], unlabelled=unlabelled)
    made = link_labels(ids, offsets or [(0, 0, 1)], unlabelled)
    assert np.array_equal(made, np.where(known, affinities, UNLABELLED))


@given(st.integers(0, 2**32 - 1))
def test_pieces_split_ids_and_never_join_them(seed):
    labels = np.random.default_rng(seed).choice(np.array([0, 1, 5, UNKNOWN], np.uint32), (3, 4, 5))
    made = pieces(labels)
    for one in np.unique(made):
        assert len(np.unique(labels[made == one])) == 1
    assert np.array_equal(made == 0, labels == 0)
    assert np.array_equal(made == UNKNOWN, labels == UNKNOWN)


def test_bad_stacks_and_patches():
    image, labels = np.zeros((3, 8, 8)), np.ones((3, 8, 8), int)
    stack = LabelledStack("s", image, labels)
    for call, words in (
        (lambda: LabelledStack("s", image, labels[1:]), "image and labels of stack 's' must have one shape"),
        (lambda: LabelledStack("s", image, labels, labels[1:] > 0), "image and unlabelled of stack 's'"),
        (lambda: LabelledStack("s", image, -labels), "labels of stack 's' must be integers >= 0"),
        (lambda: LabelledStack("s", image, labels * 1.0), "must be integers >= 0; got float64"),
        (lambda: LabelledStack("s", image * np.nan, labels), "must be finite"),
        (
            lambda: AffinitySampler([stack], SMALL, (2, 8, 7), 0),
            r"multiples of \(1, 2, 2\) for 'small'; got \(2, 8, 7\)",
        ),
        (lambda: AffinitySampler([stack], SMALL, (2, 8, 8), 0), r"longer than every offset; .* the offset \(2, 0, 0\)"),
        (lambda: AffinitySampler([stack], SMALL, (4, 8, 8), 0), r"needs \(4, 8, 8\) voxels.*lacks \(1, 0, 0\)"),
        (lambda: AffinitySampler([LabelledStack("s", image, labels, labels > 0)], SMALL, (3, 8, 8), 0), "no labelled"),
    ):
        with pytest.raises(InputError, match=words):
            call()
