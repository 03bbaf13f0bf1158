"""The U-Net: parameter counts of the paper, shapes, what it may and may not depend on, its description and file."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from neuropil.errors import InputError
from neuropil.networks.checkpoint import Model, load_model, save_model
from neuropil.networks.rsunet import RSUNet, UNetArchitecture, architecture_for
from neuropil.networks.unet_architecture import ISOTROPIC_OFFSETS
from neuropil.segmentation.affinities import LONG_RANGE

SMALL = UNetArchitecture("small", (4, 8, 12), pooling=((1, 2, 2), (1, 2, 2)), offsets=((-1, 0, 0), (0, -1, 0)))


def count(net: torch.nn.Module, *, norms: bool = True) -> int:
    return sum(p.numel() for name, p in net.named_parameters() if norms or "norm" not in name)


@pytest.mark.parametrize(
    ("changes", "millions", "in_all"),
    [
        ({"full_resolution": False}, 1.37, 1_378_800),
        ({}, 1.47, 1_477_920),
        ({"first": (3, 3, 3)}, 1.83, 1_841_376),
    ],
)
def test_parameter_counts_of_the_paper(changes, millions, in_all):
    """Its counts, to two decimals without rounding up, are those of filters and biases; norms add 2 per map."""
    net = RSUNet(replace(UNetArchitecture(), **changes))
    assert int(count(net, norms=False) / 1e4) / 100 == millions
    assert count(net) == net.architecture.parameter_count == in_all


@pytest.mark.parametrize("norm", ["batch", "instance", "group", "none"])
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("levels", [1, 3])
def test_every_variant_keeps_the_size_and_counts_its_parameters(norm, full, levels):
    architecture = replace(
        SMALL, norm=norm, full_resolution=full, widths=SMALL.widths[:levels], pooling=SMALL.pooling[: levels - 1]
    )
    net = RSUNet(architecture)
    assert net(torch.randn(2, 1, 3, 8, 12)).shape == (2, 2, 3, 8, 12)
    assert count(net) == architecture.parameter_count


def test_pooling_is_as_described():
    """One module a scale on the way down and one on the way up, all of z kept."""
    net, depths = RSUNet(UNetArchitecture(widths=(4,) * 5)).eval(), []
    for module in [*net.encoder, *net.decoder]:
        module.register_forward_hook(lambda _, __, out: depths.append(tuple(out.shape[2:])))
    net(torch.zeros(1, 1, 5, 32, 48))
    down = [(5, 32, 48), (5, 16, 24), (5, 8, 12), (5, 4, 6), (5, 2, 3)]
    assert depths == [*down, *reversed(down[:-1])]


def test_sections_shift_with_the_input():
    """Nothing pools along z, so a stack moved by one section gives the same output moved by one."""
    torch.manual_seed(0)
    net = RSUNet(replace(SMALL, widths=(4, 6), pooling=SMALL.pooling[:1])).eval()
    assert net.architecture.field_of_view[0] == 13
    image = torch.randn(1, 1, 18, 8, 8)
    with torch.inference_mode():
        out, moved = net(image[:, :, :-1]), net(image[:, :, 1:])
    torch.testing.assert_close(out[:, :, 7:11], moved[:, :, 6:10], rtol=1e-4, atol=1e-4)
    assert (out[:, :, 6:10] - moved[:, :, 6:10]).abs().max() > 1e-2


@pytest.mark.parametrize(
    "architecture",
    [
        replace(SMALL, widths=(4, 8), pooling=((1, 2, 2),)),
        replace(SMALL, widths=(4, 8), pooling=((2, 2, 2),), first=(3, 3, 3), ends=(3, 3, 3)),
        replace(SMALL, widths=(4,), pooling=()),
    ],
)
def test_nothing_beyond_the_field_of_view_is_seen(architecture):
    torch.manual_seed(1)
    net, view = RSUNet(architecture).eval(), architecture.field_of_view
    shape = [-(-(n + 2) // m) * m for n, m in zip(view, architecture.multiple)]
    image = torch.randn(1, 1, *shape, requires_grad=True)
    middle = [n // 2 for n in shape]
    net(image)[0, :, *middle].sum().backward()
    assert image.grad is not None
    seen = image.grad[0, 0].nonzero()
    assert seen.shape[0] > 1
    for axis in range(3):
        reach = (seen[:, axis] - middle[axis]).abs().max()
        assert reach <= view[axis] // 2
        assert view[axis] == 1 or reach > view[axis] // 5


def test_convolving_before_the_interpolation_changes_nothing():
    torch.manual_seed(2)
    net = RSUNet(SMALL)
    features = torch.randn(1, 8, 3, 4, 5)

    def enlarged(x):
        return torch.nn.functional.interpolate(x, scale_factor=[1.0, 2.0, 2.0], mode="trilinear")

    torch.testing.assert_close(enlarged(net.up[0](features)), net.up[0](enlarged(features)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("first", [(1, 3, 3), (3, 3, 3)])
@pytest.mark.parametrize("depth", [1, 4, 5])
def test_every_way_to_convolve_is_the_same(first, depth):
    """One volume, which is convolved by name or as two halves, a batch, and torch's own convolution in float64."""
    torch.manual_seed(5)
    net = RSUNet(replace(SMALL, first=first)).eval()
    image = torch.randn(1, 1, depth, 8, 8)
    exact = deepcopy(net).double()
    for module in exact.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.__class__ = torch.nn.Conv3d
    expected = exact(image.double())
    expected.square().mean().backward()
    for given in (image, image.expand(2, -1, -1, -1, -1)):
        net.zero_grad()
        made = net(given)
        torch.testing.assert_close(made[0].double(), expected[0], rtol=1e-4, atol=1e-4)
        made.square().mean().backward()
        for ours, theirs in zip(net.parameters(), exact.parameters()):
            scale = float(theirs.grad.abs().max())
            torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-3, atol=1e-3 * scale)
    with torch.inference_mode():
        torch.testing.assert_close(net(image).double(), expected, rtol=1e-4, atol=1e-4)


def test_the_seed_makes_the_weights():
    one, same, other = (RSUNet(SMALL, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters()))
    assert not torch.equal(one.embed.weight, other.embed.weight)
    convs = [module for module in one.modules() if isinstance(module, torch.nn.Conv3d)]
    unit = torch.cat([(conv.weight * (conv.weight[0].numel() / 2) ** 0.5).flatten() for conv in convs]).detach()
    assert 0.95 < unit.std() < 1.05


@pytest.mark.parametrize("shape", [(1, 1, 3, 8, 10), (1, 2, 3, 8, 8), (1, 1, 0, 8, 8), (1, 3, 8, 8)])
def test_a_shape_that_does_not_fit_is_refused(shape):
    with pytest.raises(InputError, match=r"'small' takes images .* multiples of \(1, 4, 4\); got"):
        RSUNet(SMALL)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"widths": ()}, "widths must be positive"),
        ({"widths": (3, 0, 2)}, "widths must be positive"),
        ({"pooling": ((1, 2, 2),)}, "pooling must be 2 triples"),
        ({"pooling": ((1, 2), (1, 2))}, "pooling must hold triples"),
        ({"norm": "layer"}, "norm must be one of batch, instance, group, none; got 'layer'"),
        ({"norm": "group", "widths": (4, 6, 8)}, "multiples of 4"),
        ({"first": (2, 3, 3)}, "first must be odd"),
        ({"offsets": ()}, "offsets must be different"),
        ({"offsets": ((0, 0, 0),)}, "offsets must be different"),
        ({"offsets": ((0, 0, 1), (0, 0, 1))}, "offsets must be different"),
    ],
)
def test_descriptions_that_are_no_network(changes, said):
    with pytest.raises(InputError, match=said):
        replace(SMALL, **changes)


def test_the_voxel_size_chooses_the_network():
    paper = architecture_for((30, 6, 6))
    assert paper == UNetArchitecture()
    assert paper.offsets == LONG_RANGE
    cube = architecture_for((8, 8, 8), breadth="small", norm="group")
    assert (cube.first, cube.multiple, cube.offsets, cube.norm) == ((3, 3, 3), (8, 8, 8), ISOTROPIC_OFFSETS, "group")
    between = architecture_for((16, 8, 8), breadth="tiny", offsets=[(0, 0, -1)])
    assert (between.pooling, between.first) == (((1, 2, 2), (2, 2, 2)), (1, 3, 3))
    assert between.offsets == ((0, 0, -1),)
    assert paper.parameter_count > architecture_for((30, 6, 6), breadth="small").parameter_count
    for bad in ((8, 8), (0, 8, 8), (float("nan"), 1, 1)):
        with pytest.raises(InputError, match="voxel_size must be three positive"):
            architecture_for(bad)
    with pytest.raises(InputError, match="breadth must be one of"):
        architecture_for((8, 8, 8), breadth="huge")  # type: ignore[arg-type]


def test_a_file_holds_a_unet(tmp_path: Path):
    net = RSUNet(SMALL, seed=3)
    net(torch.randn(1, 1, 3, 8, 8))  # moves the running statistics
    path = tmp_path / "unet.safetensors"
    save_model(path, Model((net,), {"patch": [3, 16, 16], "voxel_size": [30, 6, 6]}))
    model = load_model(path)
    again, image = model.unet, torch.randn(1, 1, 3, 8, 8)
    assert again is not None
    assert again.architecture == SMALL
    with torch.inference_mode():
        assert torch.equal(again(image), net.eval()(image))
    assert model.name == "small"
    card = json.loads(path.with_suffix(".json").read_text())
    assert (card["outputs"], card["patch"]) == ("affinities", [3, 16, 16])
    with pytest.raises(InputError, match="'small' is a U-Net that predicts affinities; a boundary network is needed"):
        _ = model.chain


def test_instance_norm_is_batch_norm_by_the_patch_itself():
    """So the statistics of the training and those of each patch can be compared with one set of weights."""
    net, image = RSUNet(SMALL, seed=4), torch.randn(1, 1, 3, 16, 16)
    own = RSUNet(replace(SMALL, norm="instance"))
    own.load_weights(net.named_weights())
    with torch.inference_mode():
        by_patch = own.eval()(image)
        torch.testing.assert_close(by_patch, net.train()(image), rtol=1e-3, atol=1e-4)
        assert (by_patch - net.eval()(image)).abs().max() > 0.1


def test_weights_of_another_network_are_refused():
    net = RSUNet(SMALL)
    with pytest.raises(InputError, match="must have shape"):
        net.load_weights(RSUNet(replace(SMALL, widths=(4, 8, 16))).named_weights())
    with pytest.raises(InputError, match="lack 'encoder"):
        net.load_weights(RSUNet(replace(SMALL, widths=(4, 8), pooling=SMALL.pooling[:1])).named_weights())
    with pytest.raises(InputError, match="has no field lines"):
        UNetArchitecture.from_dict({"lines": []})
