"""Blended patches and views: against a slow twin, against a network that knows the truth, and laws of both."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_affinities_of_patches import blended
from torch import nn

from neuropil.errors import InputError
from neuropil.geometry import Box, grid
from neuropil.networks.patches import PatchGrid, PatchPredictor, bump, network_shape, predict_affinities
from neuropil.networks.rsunet import RSUNet, UNetArchitecture
from neuropil.networks.views import View, views

OFFSETS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, -3, 0), (0, 0, -3), (-2, 0, 0))
SMALL = UNetArchitecture("small", (2, 4), pooling=((1, 2, 2),), offsets=OFFSETS)
AXES = st.integers(-2, 2)


class Known(nn.Module):
    """Stands for a network: `answer(image (n, 1, z, y, x)) -> affinities (n, c, z, y, x)`, asked for logits."""

    def __init__(self, answer, offsets=OFFSETS):
        super().__init__()
        self.architecture = UNetArchitecture("known", (1,), offsets=offsets, pooling=())
        self.weight, self.answer = nn.Parameter(torch.zeros(1)), answer

    def folded(self):
        return self

    def forward(self, image):
        return torch.logit(self.answer(image).double(), 1e-12).float()


def truth(labels, offsets):
    """1 where a voxel and the one at its offset are the same; 0 elsewhere and where that leaves the array."""
    result = np.zeros((len(offsets), *labels.shape), np.float32)
    for channel, offset in enumerate(offsets):
        for v in np.ndindex(labels.shape):
            w = tuple(np.add(v, offset))
            if all(0 <= n < extent for n, extent in zip(w, labels.shape)):
                result[channel][v] = labels[v] == labels[w]
    return result


def knowing(offsets):
    def answer(image):
        return torch.from_numpy(np.stack([truth(one[0].numpy(), offsets) for one in image]))

    return Known(answer, offsets)


def random_net(architecture=SMALL):
    """A network whose running statistics are those of its input, so that its answers vary."""
    net, generator = RSUNet(architecture, seed=1), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn((1, 1, 4, 16, 16), generator=generator))
    return net.eval()


def noise(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_bump_of_the_paper():
    assert bump(4)[0] / bump(4)[1] == pytest.approx(8.09e-4, rel=1e-3)
    assert bump(161).max() == 1
    assert (bump(160) >= 1e-5).all()
    np.testing.assert_allclose(bump(7), bump(7)[::-1], rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "patch"), [((5, 13, 21), (4, 8, 8)), ((3, 8, 30), (4, 8, 8)), ((4, 8, 8), (4, 8, 8))]
)
def test_equals_the_slow_twin(shape, patch):
    net, image = random_net(), noise(shape)
    made = predict_affinities(net, image, patch)
    np.testing.assert_allclose(made, blended(net, image, patch), atol=2e-5)
    assert made.std() > 0.05


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_in_constant_out(value):
    net = Known(lambda image: torch.full((len(image), len(OFFSETS), *image.shape[2:]), value))
    made = predict_affinities(net, noise((7, 40, 33)), (4, 16, 8))
    inside = truth(np.ones((7, 40, 33)), OFFSETS) == 1
    assert np.abs(made[inside] - value).max() <= 1e-6
    assert not made[~inside].any()


def test_faces_of_patches_leave_no_seam():
    """Where patches disagree as much as they can, their blend changes slowly, and by nothing at their faces."""
    rng = np.random.default_rng(0)
    net = Known(lambda image: torch.full((1, len(OFFSETS), *image.shape[2:]), float(rng.integers(2))))
    shape, patch = (30, 64, 64), (16, 32, 32)
    made, starts = predict_affinities(net, noise(shape), patch), PatchGrid(shape, patch).starts
    assert made.std() > 0.2
    for channel, offset in enumerate(OFFSETS):
        inner = made[channel][tuple(slice(max(0, -n), None) for n in offset)]
        for axis in range(3):
            step = np.abs(np.diff(inner, axis=axis))
            low = max(0, -offset[axis])  # links of a patch begin so many voxels after its first
            faces = set(starts[axis][1:]) | {s + patch[axis] - low for s in starts[axis][:-1]}
            assert step.take([face - 1 for face in faces], axis).max() <= 1e-3
            assert step.max() > 0.01


@pytest.mark.parametrize(("stored", "views", "shape"), [("float32", 1, (9, 18, 21)), ("uint8", 8, (5, 12, 13))])
def test_any_tiling_gives_the_same_bits(stored, views, shape):
    net, image = random_net(), noise(shape)
    plan = PatchGrid(image.shape, (4, 8, 8))
    whole = tiled(net, image, plan, plan.blocks(shape[1:]), stored, views)
    assert whole.dtype == stored
    columns, slabs = plan.blocks((11, 9)), list(grid(Box.of_shape(image.shape), (3, 30, 30)))
    for blocks in (columns, columns[::-1], columns[1::2] + columns[::2], slabs):
        assert tiled(net, image, plan, blocks, stored, views).tobytes() == whole.tobytes()


def tiled(net, image, plan, blocks, stored="float32", views=1):
    result = np.empty((len(OFFSETS), *image.shape), stored)
    with PatchPredictor(net, plan, stored=stored, views=views) as predictor:
        for block in blocks:
            result[:, *block.slices] = predictor(block, image[plan.region(block).slices])
    return result


def test_a_longer_volume_changes_only_its_end():
    """The grid is anchored at the first voxel."""
    net, image = random_net(), noise((4, 8, 60))
    longer = np.concatenate([image, noise((4, 8, 20), 1)], 2)
    made, more = (predict_affinities(net, one, (4, 8, 8)) for one in (image, longer))
    np.testing.assert_array_equal(made[..., :52], more[..., :52])


def test_patches_are_computed_once_in_a_column():
    plan = PatchGrid((20, 8, 20), (4, 8, 8))
    with PatchPredictor(random_net(), plan) as predictor:
        for block in plan.blocks((8, 20)):
            predictor(block, noise(plan.region(block).shape))
    assert predictor.passed == plan.count == 9 * 4


@settings(max_examples=30, deadline=None)
@given(
    st.sets(st.tuples(AXES, AXES, AXES).filter(any), min_size=1, max_size=5),
    st.sampled_from([1, 8, 16]),
    st.integers(0, 99),
)
def test_perfect_affinities_survive_all_views(offsets, count, seed):
    labels = np.random.default_rng(seed).integers(1, 4, (3, 4, 4)).astype(np.float32)
    made = predict_affinities(knowing(tuple(offsets)), labels, (3, 4, 4), views=count)
    np.testing.assert_allclose(made, truth(labels, tuple(offsets)), atol=1e-6)


@pytest.mark.parametrize("count", [1, 8, 16])
def test_perfect_affinities_survive_patches_and_views(count):
    labels = np.random.default_rng(3).integers(1, 3, (6, 13, 11)).astype(np.float32)
    made = predict_affinities(knowing(OFFSETS), labels, (4, 6, 6), views=count)
    np.testing.assert_allclose(made, truth(labels, OFFSETS), atol=1e-6)


def test_the_average_over_views_turns_with_the_image():
    """Any network's: the affinities of a flipped stack are the flipped affinities, moved along each link."""
    net, image = random_net(), noise((4, 16, 16))
    made = predict_affinities(net, image, (4, 16, 16), views=16)
    assert np.abs(made - predict_affinities(net, image, (4, 16, 16))).max() > 0.02
    flipped = predict_affinities(net, image[:, :, ::-1].copy(), (4, 16, 16), views=16)
    back = flipped[..., ::-1]
    for channel, (_, _, x) in enumerate(OFFSETS):
        expected = np.roll(back[channel], -x, 2)  # {v, v + x}: stored at the other end
        np.testing.assert_allclose(made[channel][..., -x:], expected[..., -x:], atol=1e-5)


@given(st.sampled_from(views(16)), st.tuples(AXES, AXES, AXES), st.tuples(*[st.integers(2, 4)] * 3))
def test_a_view_turns_offsets_as_it_turns_voxels(view: View, offset, place):
    patch = torch.arange(7**3).view(7, 7, 7)
    a, b = (int(patch[tuple(p)]) for p in (place, np.add(place, offset)))
    shown = view.turn(patch)
    from_, to = ((shown == value).nonzero()[0] for value in (a, b))
    assert tuple((to - from_).tolist()) == view.turned(offset)
    assert torch.equal(view.turn_back(shown), patch)


def test_views_are_all_different():
    patch = torch.arange(27).view(3, 3, 3)
    for count in (1, 8, 16):
        assert len({tuple(view.turn(patch).flatten().tolist()) for view in views(count)}) == count
    with pytest.raises(InputError, match="views must be 1, 8 or 16; got 4"):
        views(4)  # type: ignore[arg-type]


@given(st.integers(1, 40), st.integers(1, 20), st.floats(0, 0.9))
def test_the_grid_covers_every_voxel(extent, patch, overlap):
    plan = PatchGrid((extent,) * 3, (patch,) * 3, overlap)
    held = np.zeros(extent, int)
    for start in plan.starts[0]:
        assert 0 <= start <= extent - plan.extent[0]
        held[start : start + plan.extent[0]] += 1
    assert (held > 0).all()
    assert len(set(plan.starts[0])) == len(plan.starts[0])
    for a, b in product(range(0, extent, 3), range(1, extent + 1, 4)):
        if a < b:
            holding = [s for s in plan.starts[0] if set(range(a, b)) & set(range(s, s + plan.extent[0]))]
            assert plan.touching(0, a, b) == holding


def test_links_longer_than_the_volume():
    net = Known(lambda image: torch.ones(1, 2, *image.shape[2:]), ((-4, 0, 0), (4, 0, 1)))
    assert not predict_affinities(net, noise((3, 8, 8)), (4, 8, 8)).any()


def test_bfloat16_is_near():
    net, image = random_net(), noise((4, 16, 16))
    exact = predict_affinities(net, image, (4, 16, 16))
    assert 0 < np.abs(predict_affinities(net, image, (4, 16, 16), precision="bfloat16") - exact).max() < 0.05


def test_the_input_is_not_modified_and_may_be_read_only():
    image = noise((5, 17, 16))
    image.flags.writeable = False
    predict_affinities(random_net(), image, (4, 8, 8), views=8)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"image": noise((4, 8))}, r"image must have three axes \(z, y, x\), none empty; got shape \(4, 8\)"),
        ({"image": noise((0, 8, 8))}, "none empty"),
        ({"patch": (4, 8, 9)}, r"patch must be multiples of \(1, 2, 2\) for 'small'; got \(4, 8, 9\)"),
        ({"patch": (0, 8, 8)}, "patch must be three positive"),
        ({"overlap": 1.0}, r"overlap must be a share in \[0, 1\); got 1.0"),
        ({"overlap": 0.0}, r"of offset \(-1, 0, 0\): along z they must overlap by at least 1 voxels"),
        ({"patch": (4, 4, 8)}, r"of offset \(0, -3, 0\): along y they must overlap by at least 3 voxels"),
        ({"views": 3}, "views must be 1, 8 or 16"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        predict_affinities(**({"network": random_net(), "image": noise((9, 20, 20)), "patch": (4, 8, 8)} | arguments))


def test_channels_and_oblong_poolings():
    plan = PatchGrid((9, 20, 20), (4, 8, 8))
    with pytest.raises(InputError, match=r"channels must be among 0 to 5; got \[6\]"):
        PatchPredictor(random_net(), plan, channels=[6])
    image = noise(plan.shape)
    part = PatchPredictor(random_net(), plan, channels=[2, 0])
    block = plan.blocks((20, 20))[0]
    made = part(block, image[plan.region(block).slices])
    np.testing.assert_array_equal(made, predict_affinities(random_net(), image, (4, 8, 8))[[2, 0], : block.stop[0]])
    oblong = UNetArchitecture(widths=(2, 4), pooling=((1, 2, 4),), offsets=OFFSETS)
    assert network_shape(oblong, PatchGrid((9, 20, 20), (4, 6, 8))) == (4, 6, 8)
    with pytest.raises(InputError, match=r"patch must be multiples of \(1, 4, 4\)"):
        network_shape(oblong, PatchGrid((9, 20, 20), (4, 6, 8)), 8)


def test_folding_batch_norms_changes_nothing_but_time():
    for norm in ("batch", "instance"):
        net = random_net(UNetArchitecture(widths=(4, 6), pooling=((1, 2, 2),), norm=norm))
        before, image = {k: v.clone() for k, v in net.named_weights().items()}, torch.randn(1, 1, 4, 16, 16)
        with torch.inference_mode():
            torch.testing.assert_close(net.folded()(image), net(image), rtol=1e-3, atol=1e-4)
        assert all(torch.equal(before[k], v) for k, v in net.named_weights().items())
    kinds = {type(module).__name__ for module in random_net().folded().modules()}
    assert "BatchNorm3d" not in kinds
