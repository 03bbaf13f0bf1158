from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import TINY, TINY_RECURSIVE, tiny_stack

from neuropil.errors import InputError
from neuropil.networks.architecture import VD2D, Architecture
from neuropil.networks.augmentation import deform, elastic_field, grey, random_flips
from neuropil.networks.sampling import BOUNDARY, UNLABELLED, Sampler, Stack, class_weights


def test_a_patch_is_a_function_of_seed_and_index():
    stacks = [tiny_stack("a"), tiny_stack("b", (6, 50, 40), seed=1)]
    one, two = (Sampler(stacks, TINY, (1, 8, 8), seed=3, grey=0.5, elastic=2) for _ in range(2))
    for index in (0, 7):
        assert np.array_equal(one(index).inputs[0], two(index).inputs[0])
        assert np.array_equal(one(index).target, two(index).target)
    assert not np.array_equal(one(0).inputs[0], one(1).inputs[0])


@pytest.mark.parametrize("elastic", [0.0, 1.5])
def test_target_stays_on_its_image(elastic):
    # The image shows the target, so every patch must too, whatever flips and deformation did.
    rng = np.random.default_rng(0)
    target = (rng.random((3, 60, 60)) < 0.5).repeat(5, 1).repeat(5, 2)[:, :60, :60].astype(np.uint8)
    stack = Stack("shown", target * 200, target)
    sampler = Sampler([stack], TINY, (1, 12, 12), seed=1, elastic=elastic)
    before = [(n - 1) // 2 for n in TINY.field_of_view]
    agreement = []
    for index in range(30):
        sample = sampler(index)
        image = sample.inputs[0][tuple(slice(b, b + p) for b, p in zip(before, sampler.patch))]
        agreement.append(((image > 0) == (sample.target == BOUNDARY)).mean())
    assert np.mean(agreement) == 1.0 if not elastic else np.mean(agreement) > 0.93


def test_stacks_are_drawn_in_proportion_to_their_valid_centres():
    # One stack is all interior, the other all boundary, so a target tells which stack was drawn.
    small = Stack("small", np.zeros((2, 40, 30)), np.zeros((2, 40, 30), np.uint8))
    large = Stack("large", np.zeros((3, 40, 60)), np.ones((3, 40, 60), np.uint8))
    sampler = Sampler([small, large], TINY, (1, 10, 10), seed=0)
    need = [p + f - 1 for p, f in zip((1, 10, 10), TINY.field_of_view)]
    centres = [z * (41 - need[1]) * (x + 1 - need[2]) for z, x in ((2, 30), (3, 60))]
    drawn = np.mean([sampler(index).target.all() for index in range(600)])
    expected = centres[1] / sum(centres)
    assert abs(drawn - expected) < 4 * np.sqrt(expected * (1 - expected) / 600)
    assert abs(expected - 3 / 5) > 0.1  # not the share of sections


def test_shares_decide_where_they_are_given():
    """One stack is all interior, the other all boundary; into the third no patch fits, so its share counts nothing."""
    shapes = ((2, 40, 30), (3, 40, 60), (1, 9, 9))
    stacks = [
        Stack(f"s{index}", np.zeros(shape), np.full(shape, index % 2, np.uint8), share=share)
        for index, (shape, share) in enumerate(zip(shapes, (3, 1, 9)))
    ]
    sampler = Sampler(stacks, TINY, (1, 10, 10), seed=0)
    drawn = np.mean([sampler(index).target.all() for index in range(600)])
    assert abs(drawn - 1 / 4) < 4 * np.sqrt(1 / 4 * 3 / 4 / 600)
    with pytest.raises(InputError, match="either all stacks or none must have a share of the patches; 's1' has none"):
        Sampler([stacks[0], replace(stacks[1], share=None)], TINY, (1, 10, 10), 0)


def test_every_valid_place_is_drawn():
    view = TINY.field_of_view
    image = np.arange(view[1] + 2, dtype=np.float32)[None, :, None].repeat(view[2], 2)
    stack = Stack("rows", image, np.zeros(image.shape, np.uint8))
    sampler = Sampler([stack], TINY, (1, 1, 1), seed=0, flips=False)
    assert len({float(sampler(index).inputs[0][0, 0, 0]) for index in range(60)}) == 3


@given(st.integers(0, 2**32 - 1))
def test_flips_are_the_same_for_all_and_lose_nothing(seed):
    a = np.arange(2 * 5 * 5).reshape(2, 5, 5)
    one, two = random_flips([a, a * 3], rng=np.random.default_rng(seed))
    assert np.array_equal(one * 3, two)
    assert sorted(one.ravel()) == sorted(a.ravel())


def test_all_sixteen_orientations_occur():
    a = np.arange(2 * 3 * 3).reshape(2, 3, 3)
    seen = {random_flips([a], rng=np.random.default_rng(s))[0].tobytes() for s in range(300)}
    assert len(seen) == 16


def test_no_strength_changes_nothing():
    image = np.random.default_rng(0).normal(size=(2, 20, 20)).astype(np.float32)
    assert np.allclose(grey(image, 0.0, rng=np.random.default_rng(0)), np.clip(image, -4, 4), atol=1e-5)
    still = elastic_field((20, 20), 0.0, rng=np.random.default_rng(0))
    assert np.allclose(deform(image, still, order=1), image, atol=1e-6)


def test_patch_weights_balance_the_classes():
    target = np.array([1] * 2 + [0] * 6 + [UNLABELLED] * 4, np.uint8)
    weight = class_weights(target, target, "patch")
    assert weight[target == 1].sum() == pytest.approx(weight[target == 0].sum())
    assert weight[target == UNLABELLED].sum() == 0
    whole = class_weights(target, target, "global")
    assert whole[0] == pytest.approx(8 / 4)
    assert whole[2] == pytest.approx(8 / 12)
    assert class_weights(target, target, "none").tolist() == [1] * 8 + [0] * 4


def test_bad_stacks():
    with pytest.raises(InputError, match=r"needs \(1, 258, 258\).*lacks \(0, 218, 214\)"):
        Sampler([tiny_stack()], VD2D, (1, 150, 150), seed=0)
    with pytest.raises(InputError, match=r"one shape; got \(1, 4, 4\) and \(1, 4, 5\)"):
        Stack("x", np.zeros((1, 4, 4)), np.zeros((1, 4, 5), np.uint8))
    with pytest.raises(InputError, match="section 1 holds NaN"):
        Stack("x", np.array([[[0.0]], [[np.nan]]]), np.zeros((2, 1, 1), np.uint8))
    with pytest.raises(InputError, match="no boundary map"):
        Sampler([tiny_stack()], TINY_RECURSIVE, (1, 8, 8), seed=0)(0)
    blank = Stack("x", np.zeros((1, 40, 40)), np.full((1, 40, 40), UNLABELLED, np.uint8))
    with pytest.raises(InputError, match="no labelled voxel"):
        Sampler([blank], TINY, (1, 8, 8), seed=0)


@pytest.mark.parametrize("size", ["1x2x3", "1x3x3"])
@pytest.mark.parametrize("patch", [(1, 8, 8), (1, 9, 8), (1, 8, 9)])
def test_only_square_inputs_are_transposed(size, patch):
    """What matters is the patch with its field of view: every patch must fit the network."""
    architecture = Architecture("oblong", (f"conv1 {size} 2", "output 1x1x1 2 linear"))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (2, 30, 40), np.uint8)
    sampler = Sampler([Stack("s", image, (image > 128).astype(np.uint8))], architecture, patch, 0)
    for index in range(20):
        sample = sampler(index)
        assert sample.inputs[0].shape == architecture.input_shape(patch)
        assert sample.target.shape == patch
