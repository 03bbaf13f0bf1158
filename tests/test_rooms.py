import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TINY, TINY_RECURSIVE

from neuropil.networks import layers, rooms
from neuropil.networks.architecture import N4, VD2D3D, Architecture, Conv
from neuropil.networks.inference import Predictor
from neuropil.networks.layers import convolve
from neuropil.networks.network import DenseNetwork, Form
from neuropil.networks.room_size import room_size
from neuropil.networks.rooms import Gaps, Room, needed

TANH = Architecture("tanh", ("conv1 2x3x3 3 tanh", "pool1 1x2x2", "conv2 1x3x3 4 tanh", "output 1x1x1 2 linear"))


def test_what_is_taken_lies_at_one_end_of_the_smallest_gap_and_then_at_the_other():
    gaps = Gaps(1280)
    first, second = gaps.take(100), gaps.take(256)
    assert (first, second) == ((0, 128), (1024, 1280))
    third = gaps.take(64)
    gaps.give(first)  # gaps of 128 and of 832
    assert gaps.take(128) == (0, 128)
    assert gaps.take(896) is None
    gaps.give(third)  # joins its gap
    assert gaps.take(896) == (128, 1024)


@st.composite
def lives(draw):
    """What is taken and given back in a random order, all at the end."""
    events, held = [], []
    for size in draw(st.lists(st.integers(1, 5000), min_size=1, max_size=30)):
        events.append(size)
        held.append(sum(event >= 0 for event in events) - 1)
        while held and draw(st.booleans()):
            events.append(-held.pop(draw(st.integers(0, len(held) - 1))) - 1)
    return events + [-which - 1 for which in held]


@given(lives())
def test_a_room_of_what_is_needed_holds_all_and_no_two_share_a_byte(events):
    size = needed(events)
    gaps, parts, used = Gaps(size), [], np.zeros(size, int)
    for event in events:
        if event >= 0:
            parts.append(gaps.take(event))
            start, stop = parts[-1]
            assert stop - start >= event
            assert start % rooms.ALIGNED == 0
            used[start:stop] += 1
        else:
            start, stop = parts[-event - 1]
            used[start:stop] -= 1
            gaps.give((start, stop))
        assert used.max(initial=0) <= 1
    assert gaps.take(size) == (0, size)


@st.composite
def cases(draw):
    """A network, a tile and forms of its layers."""
    architecture = draw(st.sampled_from([TINY, TINY_RECURSIVE, TANH]))
    tile = tuple(draw(st.integers(1, most)) for most in (3, 20, 20))
    forms = []
    for place in architecture.places(tile):
        common = math.gcd(place.dilation[1], place.dilation[2])
        parts = draw(st.sampled_from([n for n in range(1, common + 1) if common % n == 0]))
        methods = ["direct", "fft", "winograd"] if isinstance(place.layer, Conv) else ["direct"]
        forms.append(Form(parts, draw(st.sampled_from(methods))))
    return architecture, tile, draw(st.sampled_from([(), tuple(forms)]))


@settings(deadline=None)
@given(cases(), st.sampled_from([64, 2 << 20]))
def test_a_pass_in_a_room_takes_what_was_foreseen_and_makes_the_same(case, part):
    architecture, tile, forms = case
    network = DenseNetwork(architecture, seed=1).eval()
    rng = np.random.default_rng(0)
    inputs = [rng.random(architecture.input_shape(tile), np.float32) for _ in range(architecture.streams)]
    with torch.inference_mode():
        logits = network([torch.from_numpy(one)[None, None] for one in inputs], forms=forms)
    whole = torch.sigmoid(logits[0, 1] - logits[0, 0]).numpy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "PART", part)  # a row at a time, or all
        with Predictor(network, forms=forms) as predictor:
            made = [predictor(inputs) for _ in range(2)]
            assert predictor.room.missed == 0
    np.testing.assert_allclose(made[0], whole, atol=1e-6)
    assert np.array_equal(*made)


@pytest.mark.parametrize(("net", "tile"), [(N4, (1, 24, 16)), (VD2D3D, (2, 9, 12))])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_papers_networks_take_what_was_foreseen(net, tile, precision):
    predictor = Predictor(DenseNetwork(net), precision=precision)
    inputs = [np.ones(net.input_shape(tile), np.float32)] * net.streams
    predictor(inputs)
    assert predictor.room.missed == 0
    live = max(place.maps_in * math.prod(place.shape_in) for place in net.places(tile))
    assert room_size(net, tile, predictor.dtype.itemsize) >= live * predictor.dtype.itemsize


def test_a_room_that_is_too_small_sends_to_the_library():
    room = Room()
    with torch.inference_mode(), room.of(1000):
        made = convolve(torch.ones(1, 1, 20, 30), 1, torch.ones(4, 1, 1, 3, 3), None, (1, 1, 1))
    assert room.missed == 1
    assert made.shape == (1, 4, 18, 28)
    assert (made == 9).all()


def test_training_has_no_room():
    assert rooms.place((1, 2, 3, 4), torch.empty(0)) is None
    with Room().of(4096):
        made = rooms.place((1, 2, 3, 4), torch.empty(0, dtype=torch.bfloat16))
        assert made.is_contiguous(memory_format=torch.channels_last)
        assert made.dtype == torch.bfloat16
        assert rooms.place((1, 2, 3, 4), torch.empty(0, device="meta")) is None
    assert not rooms.in_room()
    for shape in ((2, 3, 4, 5), (2, 3, 4, 5, 6)):
        made = rooms.empty(shape, torch.empty(0))
        assert not made._is_view()  # the result of a step may be changed in place
        assert made.movedim(1, -1).is_contiguous()
