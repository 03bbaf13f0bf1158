import pytest

from neuropil.errors import InputError
from neuropil.networks.architecture import ARCHITECTURES, N4, VD2D, VD2D3D, Architecture
from neuropil.networks.inference import Predictor
from neuropil.networks.network import DenseNetwork


@pytest.mark.parametrize(
    ("net", "parameters", "view", "stride"),
    [
        (N4, 219_290, (1, 95, 95), (1, 16, 16)),
        (VD2D, 230_714, (1, 109, 109), (1, 16, 16)),
        (VD2D3D, 296_486, (5, 85, 85), (1, 8, 8)),
    ],
)
def test_published_numbers(net, parameters, view, stride):
    assert net.parameter_count == parameters
    assert net.field_of_view == view
    assert net.stride == stride


def test_parameter_count_is_that_of_the_weights():
    from neuropil.networks.network import DenseNetwork

    for net in ARCHITECTURES.values():
        assert sum(p.numel() for p in DenseNetwork(net).parameters()) == net.parameter_count


def test_text_round_trip():
    for net in ARCHITECTURES.values():
        assert Architecture.from_dict(net.to_dict()) == net


def test_tanh_lineage_changes_only_the_layers_before_pooling():
    kinds = {conv.name: conv.activation for conv in ARCHITECTURES["vd2d_tanh"].convs}
    assert [name for name, kind in kinds.items() if kind == "tanh"] == ["conv1c", "conv2b", "conv3b", "conv4b"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("conv1 3x3 24", "output 1x1x1 2 linear"), "a layer must read like"),
        (("conv1 1x3x3 24",), "must be linear"),
        (("a 1x1x1 4", "a 1x1x1 4", "output 1x1x1 2 linear"), "different names"),
        (("a 1x0x1 4", "output 1x1x1 2 linear"), "must be positive"),
    ],
)
def test_bad_descriptions(lines, words):
    with pytest.raises(InputError, match=words):
        Architecture("bad", lines)


def test_a_boundary_network_has_two_maps():
    three = Architecture("three", ("conv1 1x3x3 4", "output 1x1x1 3 linear"))
    with pytest.raises(InputError, match=r"must have 2 maps, interior and boundary; it has 3"):
        three.check_boundary()
    with pytest.raises(InputError, match="must have 2 maps"):
        Predictor(DenseNetwork(three))
    VD2D.check_boundary()
