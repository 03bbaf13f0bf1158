"""Minimal filtering against plain sums in double precision."""

import os
import subprocess
import sys
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from neuropil._kernels import winograd as kernels
from neuropil.networks import winograd
from neuropil.networks.architecture import VD2D, VD2D3D, Conv
from neuropil.networks.layers import convolve
from neuropil.networks.network import DenseNetwork, Form
from neuropil.networks.winograd import bytes_of_tiles, convolve_winograd

EXACT = 1e-5  # of the largest value, in float32


def drawn(seed, *shape):
    """Random numbers with channels last."""
    values = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))
    return values.permute(0, 4, 1, 2, 3)


def apart(made, exact):
    """Largest difference as a share of the largest value."""
    made, exact = made.detach(), exact.detach()
    return float((made - exact).abs().max()) / max(1e-30, float(exact.abs().max()))


@pytest.mark.parametrize("size", kernels.SIZES)
@pytest.mark.parametrize("tile", kernels.POINTS)
def test_the_matrices_correlate(tile, size):
    of_filter, of_tile, of_result = kernels.matrices(tile, size)
    filters, values = np.random.default_rng(0).standard_normal((2, tile))
    exact = np.correlate(values, filters[:size], "valid")
    assert np.allclose(of_result @ ((of_filter @ filters[:size]) * (of_tile @ values)), exact, rtol=1e-11)


def test_the_tile_wastes_least():
    assert winograd._tile((1, 1, 150, 150, 200), 3, (1, 16, 16)) == 7  # 2 tiles of 5 for 9 or 10 voxels, else 3 of 4
    assert winograd._tile((1, 1, 64, 64, 200), 3, (1, 16, 16)) == 6  # 4 voxels an offset: one tile of either


@settings(max_examples=60)
@given(
    st.integers(1, 2), st.integers(1, 40), st.integers(1, 70), st.integers(1, 3), st.sampled_from(kernels.SIZES),
    st.tuples(*[st.integers(1, 3)] * 3), st.tuples(st.integers(0, 2), st.integers(0, 15), st.integers(0, 15)),
    st.tuples(*[st.integers(0, 2)] * 3), st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_it_is_the_convolution_and_its_gradients(n, fan, maps, depth, size, dilation, more, margin, relu, seed):
    """Any maps, whole vectors or not; results of part of a tile; several sections; offsets without a voxel."""
    margin = tuple(min(one, (k - 1) * gap) for one, k, gap in zip(margin, (depth, size, size), dilation))
    kernel = (depth, size, size)
    extent = [(k - 1) * gap + 1 + extra for k, gap, extra in zip(kernel, dilation, more)]
    volume = drawn(seed, n, *extent, fan).requires_grad_()
    weight = (drawn(seed, maps, *kernel, fan) / np.sqrt(fan * prod(kernel))).contiguous().requires_grad_()
    bias = drawn(seed, 1, 1, 1, 1, maps).flatten().requires_grad_()
    made = convolve_winograd(volume, weight, bias, dilation, relu, margin)
    exact = functional.conv3d(volume.double(), weight.double(), bias.double(), dilation=dilation, padding=margin)
    exact = exact.relu() if relu else exact
    assert made.shape == exact.shape
    assert apart(made, exact) < EXACT
    outer = drawn(seed + 1, n, *exact.shape[2:], maps).double()
    outer *= exact.detach().abs() > 1e-3  # where rounding does not decide what ReLU passes
    exact = torch.autograd.grad(exact, (volume, weight, bias), outer)
    made = torch.autograd.grad(made, (volume, weight, bias), outer.float())
    for ours, theirs in zip(made, exact):
        assert apart(ours, theirs) < EXACT


@pytest.mark.parametrize(("architecture", "more"), [(VD2D, (0, 30, 21)), (VD2D3D, (1, 9, 12))])
def test_networks_are_the_same(architecture, more):
    network = DenseNetwork(architecture, 3).eval()
    shape = [1, 1, *(v + e for v, e in zip(architecture.field_of_view, more))]
    inputs = [torch.randn(shape, generator=torch.Generator().manual_seed(0)) for _ in range(architecture.streams)]
    forms = [Form(1, "winograd") if isinstance(layer, Conv) else Form() for layer in architecture.layers]
    made, plain = network(inputs, forms=forms), network(inputs)
    assert apart(made, plain) < EXACT
    weights = list(network.parameters())
    ours, theirs = (torch.autograd.grad(one.square().mean(), weights) for one in (made, plain))
    assert max(map(apart, ours, theirs)) < 5e-3  # a voxel more or less where ReLU or maximum are near a tie


def test_threads_do_not_change_a_bit():
    volume, weight = drawn(0, 2, 4, 70, 61, 24), drawn(1, 33, 2, 3, 3, 24).contiguous()
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            made.append(convolve_winograd(volume, weight, None, (1, 2, 2), False))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


def test_what_is_not_a_number_stays_near():
    """It spreads over the tiles that read it, and no further; numbers elsewhere are as they were."""
    volume, weight = drawn(0, 1, 1, 40, 40, 16), drawn(1, 16, 1, 3, 3, 16).contiguous()
    clean = convolve_winograd(volume, weight, None, (1, 1, 1), True)
    volume[0, 3, 0, 20, 20] = torch.nan
    spoilt = convolve_winograd(volume, weight, None, (1, 1, 1), True)
    assert spoilt[0, :, 0, 18:21, 18:21].isnan().all()
    assert torch.equal(spoilt[:, :, :, :12], clean[:, :, :, :12])
    assert torch.equal(spoilt[:, :, :, 28:], clean[:, :, :, 28:])


def test_a_double_or_a_filter_of_one_voxel_is_convolved_directly():
    for dtype, size in ((torch.float64, 3), (torch.float32, 1), (torch.float32, 6)):
        sections, weight = torch.randn(1, 9, 12, 12).to(dtype), torch.randn(9, 9, 1, size, size).to(dtype)
        plain, made = (convolve(sections, 1, weight, None, (1, 1, 1), "relu", how) for how in ("direct", "winograd"))
        assert torch.equal(plain, made)


def test_memory_is_foreseen():
    for fan, maps, kernel in ((24, 24, (1, 3, 3)), (60, 200, (1, 3, 3)), (120, 100, (2, 3, 3))):
        wide, long = kernels._wide(fan, kernel[0]), kernels._padded(maps)
        work, spectra = bytes_of_tiles(fan, maps, kernel)
        together = kernels.MADE if spectra < kernels.LARGE else kernels.SUMMED
        rooms = kernels._room(7, together, 7, wide), kernels._room(7, together, 5, long)
        taken = sum(room.nbytes for room in rooms)
        taken += sum(kernels._line(7, together, one).nbytes for one in (wide, long))
        assert taken <= work / torch.get_num_threads() <= 2 * taken


@pytest.mark.slow
def test_processors_with_short_vectors():
    """The same tests compiled for AVX2."""
    code = (
        "import llvmlite.binding as b; real = b.get_host_cpu_features;"
        "b.get_host_cpu_features = lambda: {**real(), 'avx512f': False};"
        "import sys, pytest; from neuropil._kernels import vectors; assert vectors.LANES == 8;"
        f"sys.exit(pytest.main(['-q', '-n', '0', '-p', 'no:cacheprovider', '-m', 'not slow', {__file__!r}]))"
    )
    environment = os.environ | {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+sse4.2,-avx512f"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
