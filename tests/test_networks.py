import gc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_networks import window_by_window
from tiny import TINY
from torch.nn import functional

from neuropil.errors import InputError
from neuropil.networks import layers, spectra
from neuropil.networks.architecture import ARCHITECTURES, VD2D, VD2D3D, Architecture, Conv
from neuropil.networks.fft import convolve_fft
from neuropil.networks.layers import convolve, dropout, max_filter
from neuropil.networks.layout import fold, unfold
from neuropil.networks.network import DenseNetwork, Form


def dense_and_slow(architecture, extra, seed=0):
    network = DenseNetwork(architecture, seed).eval()
    generator = torch.Generator().manual_seed(seed)
    shape = [v + e for v, e in zip(architecture.field_of_view, extra)]
    inputs = [torch.randn(shape, generator=generator) for _ in range(architecture.streams)]
    with torch.no_grad():
        dense = network([one[None, None] for one in inputs])[0]
        return dense, window_by_window(network, inputs)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_dense_equals_window_by_window(name):
    architecture = ARCHITECTURES[name]
    dense, slow = dense_and_slow(architecture, (1 if architecture.field_of_view[0] > 1 else 2, 2, 3))
    assert dense.shape == slow.shape
    assert (dense - slow).abs().max() < 1e-5 * max(1, slow.abs().max())


layer_sizes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))


@st.composite
def architectures(draw):
    lines, name = [], 0
    for block in range(draw(st.integers(1, 2))):
        for _ in range(draw(st.integers(1, 2))):
            size = "x".join(map(str, draw(layer_sizes)))
            lines.append(
                f"c{name} {size} {draw(st.integers(1, 4))} {draw(st.sampled_from(['relu', 'tanh', 'linear']))}"
            )
            name += 1
        size = draw(layer_sizes)
        stride = tuple(draw(st.integers(1, n)) for n in size)
        lines.append(f"pool{block} {'x'.join(map(str, size))} stride {'x'.join(map(str, stride))}")
    join = draw(st.sampled_from([None, "c0", f"c{name - 1}"]))
    return Architecture("random", (*lines, "output 1x1x1 2 linear"), join, draw(st.sampled_from(["msra", "xavier"])))


@settings(max_examples=40)
@given(architectures(), st.integers(0, 99))
def test_any_pooling_net_runs_densely(architecture, seed):
    dense, slow = dense_and_slow(architecture, (1, 2, 1), seed)
    assert dense.shape == slow.shape
    assert (dense - slow).abs().max() < 1e-5 * max(1, slow.abs().max())


@settings(max_examples=40)
@given(architectures(), st.integers(1, 6), st.integers(0, 99))
def test_a_lattice_is_the_dense_output_thinned(architecture, spacing, seed):
    network = DenseNetwork(architecture, seed).eval().double()
    shape = [2, 1, *(v + e for v, e in zip(architecture.field_of_view, (1, 6, 9)))]
    inputs = [torch.randn(shape, dtype=torch.float64) for _ in range(architecture.streams)]
    thinned = network(inputs, spacing)
    dense = network(inputs)[..., ::spacing, ::spacing]
    assert thinned.shape == dense.shape
    outer = torch.randn(dense.shape, dtype=torch.float64)
    gradients = [torch.autograd.grad((one * outer).sum(), list(network.parameters())) for one in (thinned, dense)]
    for ours, theirs in zip((thinned, *gradients[0]), (dense, *gradients[1])):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9 * max(1, float(theirs.detach().abs().max())))


@settings(max_examples=60)
@given(architectures(), st.data(), st.sampled_from([1, 1, 2, 3]), st.integers(0, 99))
def test_forms_change_nothing(architecture, data, spacing, seed):
    """Any choice of fragments a side and of methods, layer by layer: same output, same gradients."""
    plan = []
    for _, (_, high, wide), _ in architecture.on_lattice(spacing):
        common = [parts for parts in range(1, 10) if high % parts == wide % parts == 0]
        plan.append(Form(data.draw(st.sampled_from(common)), data.draw(st.sampled_from(["direct", "direct", "fft"]))))
    network = DenseNetwork(architecture, seed).eval().double()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_weights().items():
        if name.endswith("bias"):  # away from 0, where rounding decides what ReLU passes
            weight.copy_(torch.randn(weight.shape, generator=generator))
    shape = [2, 1, *(v + e for v, e in zip(architecture.field_of_view, (1, 6, 9)))]
    inputs = [torch.randn(shape, dtype=torch.float64) for _ in range(architecture.streams)]
    made, plain = network(inputs, spacing, plan), network(inputs, spacing)
    assert made.shape == plain.shape
    outer = torch.randn(plain.shape, dtype=torch.float64)
    gradients = [torch.autograd.grad((one * outer).sum(), list(network.parameters())) for one in (made, plain)]
    for ours, theirs in zip((made, *gradients[0]), (plain, *gradients[1])):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9 * max(1, float(theirs.detach().abs().max())))


@pytest.mark.parametrize("fragments", [(1,), (1,) * 17, (2,) * 16, (1,) * 15 + (3,)])
def test_forms_that_do_not_fit_are_refused(fragments):
    with pytest.raises(InputError, match=r"forms must be 16, their fragments divisors"):
        DenseNetwork(VD2D)([torch.zeros(1, 1, 1, 109, 109)], forms=[Form(parts) for parts in fragments])


@settings(max_examples=40)
@given(
    st.tuples(*[st.integers(1, 4)] * 3), st.tuples(*[st.integers(1, 3)] * 3), st.tuples(*[st.integers(0, 40)] * 3),
    st.integers(0, 9),
)  # fmt: skip
def test_fourier_transforms_convolve(kernel, dilation, extra, seed):
    """Several tiles where the volume is larger than a tile (overlap-save)."""
    generator = torch.Generator().manual_seed(seed)
    extent = [(k - 1) * d + 1 + more for k, d, more in zip(kernel, dilation, extra)]
    volume = torch.randn(2, 3, *extent, generator=generator)
    weight, bias = torch.randn(4, 3, *kernel, generator=generator), torch.randn(4, generator=generator)
    exact = functional.conv3d(volume.double(), weight.double(), bias.double(), dilation=dilation)
    made = convolve_fft(volume, weight, bias, dilation)
    assert made.shape == exact.shape
    assert (made - exact).abs().max() <= 1e-5 * max(1, float(exact.abs().max()))


def test_overlap_save_is_in_play():
    volume, weight = torch.randn(1, 2, 20, 90, 51), torch.randn(3, 2, 2, 3, 2)
    assert (convolve_fft(volume, weight, None, (1, 1, 1)) - functional.conv3d(volume, weight)).abs().max() < 1e-4


@pytest.mark.parametrize("method", ["fft", "winograd"])
def test_spectra_that_are_kept_follow_their_filters(method):
    """Weights of the prediction before, of another prediction, changed in place, loaded, in another tile."""
    network = DenseNetwork(TINY, 3).eval()
    inputs = [torch.randn(1, 1, *(f + 8 for f in TINY.field_of_view))]
    forms = [Form(1, method) if isinstance(layer, Conv) else Form() for layer in TINY.layers]
    other = DenseNetwork(TINY, 4)

    def check() -> None:
        plain = network(inputs)
        largest = 1 if method == "fft" else max(1, plain.abs().max())
        assert (network(inputs, forms=forms) - plain).abs().max() < 1e-5 * largest

    with torch.no_grad():
        check()
        matrices = {id(spectra._kept[one][1]) for one in network.parameters() if one in spectra._kept}
        check()
        assert matrices == {id(spectra._kept[one][1]) for one in network.parameters() if one in spectra._kept} != set()
        for parameter in network.parameters():
            parameter.mul_(0.5)
        check()
        network.load_weights(other.named_weights())
        check()
        inputs = [torch.randn(1, 1, *(f + 3 for f in TINY.field_of_view))]
        check()
    kept, network = len(spectra._kept), other
    gc.collect()
    assert len(spectra._kept) < kept


@pytest.mark.parametrize(("architecture", "spacing"), [(VD2D, 8), (VD2D3D, 4), (ARCHITECTURES["n4"], 16)])
def test_a_lattice_of_the_papers_networks(architecture, spacing):
    network = DenseNetwork(architecture, 1).eval()
    shape = [1, 1, *(v + e for v, e in zip(architecture.field_of_view, (0, 19, 17)))]
    inputs = [torch.randn(shape) for _ in range(architecture.streams)]
    with torch.no_grad():
        thinned, dense = network(inputs, spacing), network(inputs)[..., ::spacing, ::spacing]
    assert thinned.shape == dense.shape
    assert (thinned - dense).abs().max() < 1e-5 * max(1, dense.abs().max())


@settings(max_examples=25)
@given(st.integers(1, 2), layer_sizes, st.sampled_from([(1, 1, 1), (1, 2, 2), (2, 3, 3), (1, 2, 3)]), st.integers(0, 9))
def test_gradients_equal_those_of_the_library(n, size, dilation, seed):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()  # noqa: E731
    volume, weight, bias = draw(n, 3, 6, 9, 10), draw(4, 3, *size), draw(4)
    mine = unfold(max_filter(convolve(fold(volume), n, weight, bias, dilation), n, (2, 2, 2), (1, 1, 2)), n)
    theirs = functional.max_pool3d(functional.conv3d(volume, weight, bias, dilation=dilation), 2, 1, dilation=(1, 1, 2))
    assert torch.allclose(mine, theirs, atol=1e-10)
    outer = draw(*mine.shape).detach()
    for ours, other in zip(
        torch.autograd.grad((mine * outer).sum(), (volume, weight, bias)),
        torch.autograd.grad((theirs * outer).sum(), (volume, weight, bias)),
    ):
        assert torch.allclose(ours, other, atol=1e-9)


@settings(max_examples=40)
@given(
    st.integers(1, 2), st.tuples(*[st.integers(1, 3)] * 3), st.tuples(*[st.integers(1, 2)] * 3), st.integers(1, 3),
    st.sampled_from([torch.float32, torch.bfloat16]), st.integers(0, 9),
)  # fmt: skip
def test_the_first_of_the_largest_wins(n, size, dilation, step, dtype, seed):
    """The compiled max-filter and its gradient, with many ties, against windows laid side by side."""
    dilation = dilation if step == 1 else (dilation[0], 1, 1)
    generator = torch.Generator().manual_seed(seed)
    volume = torch.randint(-3, 3, (n, 3, 7, 10, 11), generator=generator).to(dtype).requires_grad_()
    made = unfold(max_filter(fold(volume), n, size, dilation, step), n)
    extent = [e - (k - 1) * gap for e, k, gap in zip(volume.shape[2:], size, dilation)]
    steps = (1, step, step)
    places = [
        (..., *(slice(i * gap, i * gap + e, s) for i, gap, e, s in zip(window, dilation, extent, steps)))
        for window in np.ndindex(size)
    ]
    windows = np.stack([volume.detach().float().numpy()[place] for place in places])
    assert np.array_equal(made.detach().float().numpy(), windows.max(0))
    outer = torch.randint(-2, 3, made.shape, generator=generator).to(dtype)
    expected = np.zeros(volume.shape, np.float32)
    for k, place in enumerate(places):
        expected[place] += outer.float().numpy() * (windows.argmax(0) == k)
    (gradient,) = torch.autograd.grad(made, volume, outer)
    assert np.array_equal(gradient.float().numpy(), expected)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("size", [(1, 3, 3), (2, 3, 3)])
def test_convolution_with_relu_and_its_gradients(dtype, error, size):
    mine = [torch.randn(s).to(dtype).requires_grad_() for s in ((2, 3, 5, 40, 41), (4, 3, *size), (4,))]
    theirs = [one.detach().double().requires_grad_() for one in mine]
    made = unfold(convolve(fold(mine[0]), 2, mine[1], mine[2], (1, 2, 2), "relu"), 2)
    exact = functional.conv3d(*theirs, dilation=(1, 2, 2)).relu()
    outer = torch.randn(made.shape).to(dtype) * (exact > 0.05)  # where rounding does not decide
    gradients = [torch.autograd.grad(one, ones, outer.to(one.dtype)) for one, ones in ((made, mine), (exact, theirs))]
    for ours, other in zip((made, *gradients[0]), (exact, *gradients[1])):
        assert (ours.double() - other).abs().max() <= error * other.abs().max()


@pytest.mark.parametrize("by_rows", [False, True])
def test_dilated_gradients_of_either_kind(monkeypatch, by_rows):
    monkeypatch.setattr(layers, "_gradient_by_rows", lambda: by_rows)
    monkeypatch.setattr(layers, "LONG_ROWS", 1)
    for size, dilation in (((1, 3, 3), (1, 4, 4)), ((2, 3, 2), (2, 3, 3))):
        volume, weight, bias = torch.randn(2, 3, 5, 21, 22), torch.randn(4, 3, *size), torch.randn(4)
        mine = [one.clone().requires_grad_() for one in (volume, weight, bias)]
        theirs = [one.double().requires_grad_() for one in (volume, weight, bias)]
        unfold(convolve(fold(mine[0]), 2, mine[1], mine[2], dilation), 2).square().sum().backward()
        functional.conv3d(*theirs, dilation=dilation).square().sum().backward()
        for ours, other in zip(mine, theirs):
            assert torch.allclose(ours.grad.double(), other.grad, rtol=1e-4, atol=1e-3)


def test_without_the_librarys_fusion_nothing_changes(monkeypatch):
    image, weight, bias = fold(torch.randn(1, 3, 2, 9, 9)), torch.randn(4, 3, 1, 3, 3), torch.randn(4)
    with torch.no_grad():
        fused = convolve(image, 1, weight, bias, (1, 2, 2), "relu")
        monkeypatch.setattr(layers, "_library_fuses", lambda dtype: False)
        assert torch.allclose(fused, convolve(image, 1, weight, bias, (1, 2, 2), "relu"), atol=1e-6)


def test_zeroed_recursive_stream_is_the_single_network():
    pair, single = DenseNetwork(VD2D3D, 1), DenseNetwork(ARCHITECTURES["vd2d3d_single"], 2)
    weights = pair.named_weights()
    weights["conv1c.recursive.weight"].zero_()
    single.load_weights(weights)
    image, recursive_map = torch.randn(2, 1, 1, 5, 86, 87)
    with torch.no_grad():
        both, alone = pair.eval()([image, recursive_map]), single.eval()([image])
    assert (both - alone).abs().max() < 1e-6


def test_vd2d3d_takes_over_the_layers_before_the_third_pooling():
    shared = DenseNetwork(VD2D3D).shared_with(DenseNetwork(VD2D).named_weights())
    names = ["conv1a", "conv1b", "conv1c", "conv2a", "conv2b", "conv3a", "conv3b"]
    assert shared == [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]


def test_a_network_that_takes_over_begins_with_the_others_features():
    source, heir = DenseNetwork(VD2D, 1), DenseNetwork(VD2D3D, 2)
    heir.take_over(source.named_weights())
    image = torch.randn(1, 1, 5, 86, 87)
    with torch.no_grad():
        maps = [heir.eval()([image, torch.rand(image.shape)]) for _ in range(2)]
    assert torch.equal(*maps)  # the recursive input does not speak yet
    assert torch.equal(heir.named_weights()["conv3b.weight"], source.named_weights()["conv3b.weight"])
    heir([image, torch.rand(image.shape)]).sum().backward()
    assert heir.weights["conv1c:recursive:weight"].grad.abs().max() > 0  # but it learns to


def test_a_recursive_network_takes_over_the_recursive_stream_too():
    source, heir = DenseNetwork(VD2D3D, 1), DenseNetwork(VD2D3D, 2)
    heir.take_over(source.named_weights())
    assert all(torch.equal(one, source.named_weights()[name]) for name, one in heir.named_weights().items())


def test_initialisation_spread():
    weight = DenseNetwork(VD2D, 3).named_weights()["conv4b.weight"]
    assert weight.std().item() == pytest.approx(np.sqrt(2 / (60 * 9)), rel=0.02)
    uniform = DenseNetwork(ARCHITECTURES["n4"], 3).named_weights()["conv2.weight"]
    assert uniform.abs().max().item() == pytest.approx(np.sqrt(6 / (2 * 48 * 25)), rel=0.01)


def test_dropout_keeps_the_mean_and_the_layout():
    torch.manual_seed(0)
    ones = torch.ones(1, 64, 50, 50).contiguous(memory_format=torch.channels_last)
    out = dropout(ones, 0.5, True)
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert out.mean().item() == pytest.approx(1, abs=0.02)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(dropout(ones, 0.5, False), ones)


@pytest.mark.parametrize("rate", [0.3, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_and_its_gradient_are_one_factor(dtype, rate):
    """Where a value was kept it is divided by 1 - rate, and so is its gradient; more than a chunk, in two threads."""
    torch.manual_seed(0)
    values = torch.randn(3, 7, 211, 200).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    out = dropout(values, rate, True)
    outer = torch.randn_like(values)
    (gradient,) = torch.autograd.grad(out, values, outer)
    kept = out != 0
    assert kept.float().mean().item() == pytest.approx(1 - round(rate * 256) / 256, abs=0.003)
    for made, source in ((out, values), (gradient, outer)):
        expected = torch.where(kept, source.detach().double() / (1 - rate), 0)
        torch.testing.assert_close(made.detach(), expected.to(dtype), rtol=1e-6, atol=0)
        assert made.is_contiguous(memory_format=torch.channels_last)


def test_wrong_weights_are_refused():
    with pytest.raises(InputError, match="another architecture"):
        DenseNetwork(VD2D3D).load_weights(DenseNetwork(VD2D).named_weights())
    with pytest.raises(InputError, match="takes 2 inputs; got 1"):
        DenseNetwork(VD2D3D)([torch.zeros(1, 1, 5, 85, 85)])


@pytest.mark.parametrize(("maps", "kernel"), [(3, (1, 3, 3)), (16, (1, 3, 3)), (3, (2, 2, 2)), (16, (2, 3, 3))])
def test_gradients_of_bfloat16_filters_are_right_where_the_library_is_not_trusted(monkeypatch, maps, kernel):
    monkeypatch.setattr(layers, "_half_is_safe", lambda: False)
    torch.manual_seed(0)
    image, filters = torch.randn(1, maps, 4, 19, 21), torch.randn(maps, maps, *kernel)
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        weight = filters.to(torch.bfloat16).to(dtype).requires_grad_()
        sections = fold(image.to(torch.bfloat16).to(dtype))
        convolve(sections, 1, weight, None, (1, 2, 2)).sum().backward()
        found.append(weight.grad.float())
    assert torch.allclose(*found, rtol=0.02, atol=0.02 * float(found[1].abs().max()))
