import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TINY_RECURSIVE

from neuropil import machine
from neuropil.errors import InputError
from neuropil.geometry import Box, grid
from neuropil.networks import inference, planning
from neuropil.networks.architecture import VD2D, VD2D3D
from neuropil.networks.network import DenseNetwork

RNG = np.random.default_rng(0)
NETWORK = DenseNetwork(TINY_RECURSIVE, 5)
INPUTS = [RNG.normal(size=(5, 23, 31)).astype(np.float32) for _ in range(2)]
SOURCES = [lambda box, one=one: one[box.slices] for one in INPUTS]


def one_pass(network, inputs):
    """The whole stack at once, from a padded copy."""
    view = network.architecture.field_of_view
    frame = [((n - 1) // 2, n - 1 - (n - 1) // 2) for n in view]
    tensors = [torch.from_numpy(np.pad(one, frame, mode="reflect"))[None, None] for one in inputs]
    with torch.no_grad():
        return torch.softmax(network.eval()(tensors), 1)[0, 1].numpy()


@settings(max_examples=15)
@given(st.integers(1, 5), st.integers(4, 23), st.integers(4, 31))
def test_tiling_changes_nothing(z, y, x):
    whole = one_pass(NETWORK, INPUTS)
    tiled, predictor = np.full(whole.shape, np.nan, np.float32), inference.Predictor(NETWORK)
    for box in grid(Box.of_shape(whole.shape), (z, y, x)):
        tiled[box.slices] = predictor(inference.read_halo(TINY_RECURSIVE, SOURCES, whole.shape, box))
    assert np.abs(tiled - whole).max() < 1e-5
    assert np.abs(inference.predict(NETWORK, INPUTS) - whole).max() < 1e-5


def test_tiling_changes_nothing_for_vd2d():
    network, image = DenseNetwork(VD2D, 1), RNG.normal(size=(1, 130, 150)).astype(np.float32)
    whole = one_pass(network, [image])
    tight = inference.predict(network, [image], max_memory=planning.peak_memory(VD2D, (1, 96, 96)))
    assert np.abs(tight - whole).max() < 1e-5


def test_augmented_prediction_turns_with_the_image():
    turned = [np.ascontiguousarray(np.flip(one.swapaxes(1, 2), 1)) for one in INPUTS]
    plain = inference.predict(NETWORK, INPUTS, augment=True)
    assert np.abs(np.flip(plain.swapaxes(1, 2), 1) - inference.predict(NETWORK, turned, augment=True)).max() < 1e-5
    assert np.abs(plain - inference.predict(NETWORK, INPUTS)).max() > 1e-4


@given(st.integers(1, 7), st.integers(-30, 0), st.integers(1, 40))
def test_mirror_is_numpys_reflection(extent, start, stop):
    padded = np.pad(np.arange(extent), (-start, max(0, stop - extent)), mode="reflect")
    assert np.array_equal(inference.mirror(np.arange(start, stop), extent), padded[: stop - start])


def test_a_stack_below_the_field_of_view_says_what_it_lacks():
    with pytest.raises(InputError, match=r"it needs 2 more in z, 5 more in x"):
        inference.check_extent(VD2D3D, (3, 100, 80))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_near_and_says_where_it_is_slow(monkeypatch, caplog, precision):
    inputs = [one[:, :16, :20] for one in INPUTS]
    exact = inference.Predictor(NETWORK)(inputs)
    monkeypatch.setattr(machine, "has_bfloat16", lambda: False)
    near = inference.Predictor(NETWORK, precision=precision)(inputs)
    assert 0 < np.abs(near - exact).max() < 0.05
    planning.warn_if_slow(torch.device("cpu"), precision)
    assert f"does not compute in {precision}: right, but many times slower" in caplog.text


@pytest.mark.parametrize(("flags", "told"), [({"avx512_bf16"}, 1), ({"avx512_bf16", "amx_bf16"}, 0), ({"bf16"}, 0)])
def test_bfloat16_without_amx_is_said_to_save_memory_alone(monkeypatch, caplog, flags, told):
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset(flags))
    with caplog.at_level("INFO", "neuropil"):
        planning.warn_if_slow(torch.device("cpu"), "bfloat16")
        planning.warn_if_slow(torch.device("cpu"), "float32")
    assert len(caplog.records) == told


def test_what_lies_apart_is_an_equal_array_of_its_own():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    copy = inference.apart(array[:, ::-1])
    assert (copy == array[:, ::-1]).all()
    assert copy.dtype == array.dtype
    assert copy.flags.writeable
    assert inference.apart(np.zeros((0, 3))).shape == (0, 3)
