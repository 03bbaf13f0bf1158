import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuropil.networks.muon import Muon, orthogonal


@given(st.integers(1, 30), st.integers(1, 60), st.integers(0, 99), st.floats(1e-6, 1e6))
def test_orthogonal_keeps_the_directions_and_evens_their_lengths(rows, columns, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    made = orthogonal(matrix * scale)
    # in the basis of the matrix's own directions the result is diagonal
    inside = u.T @ made @ v.T
    assert torch.allclose(inside, torch.diag(inside.diag()), atol=1e-8)
    lengths = inside.diag()[s > 0.05 * s.max()]
    assert lengths.min() > 0.6
    assert lengths.max() < 1.3


def test_zero_gradient_moves_nothing():
    weight = torch.nn.Parameter(torch.ones(3, 4, 1, 2, 2))
    weight.grad = torch.zeros_like(weight)
    Muon([weight], 0.1).step()
    assert torch.equal(weight, torch.ones_like(weight))


def test_biases_move_as_by_adamw():
    ours, theirs = (torch.nn.Parameter(torch.arange(5.0)) for _ in range(2))
    mine, library = Muon([ours], 0.01, 0.9, 0.1), torch.optim.AdamW([theirs], 0.01, (0.9, 0.999), weight_decay=0.1)
    for step in range(5):
        for one, optimizer in ((ours, mine), (theirs, library)):
            one.grad = torch.sin(one.detach() * step)
            optimizer.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_filters_move_by_the_size_of_adamws_steps():
    weight = torch.nn.Parameter(torch.zeros(36, 24, 1, 3, 3))
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * 1e-4
    Muon([weight], 0.01).step()
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.2 * 0.01, rel=0.3)
    assert np.sign(weight.detach().numpy() * weight.grad.numpy()).mean() < -0.5
