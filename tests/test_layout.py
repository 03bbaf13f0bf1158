"""Fragments of sections, and sections from them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuropil.networks import layout

DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.float16]


@given(
    st.integers(1, 3), st.integers(1, 37), st.integers(1, 20), st.integers(1, 20), st.integers(1, 9),
    st.sampled_from(DTYPES), st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_fragments_are_the_voxels_of_one_offset_each(b, c, y, x, step, dtype, last, seed):
    """Whole words a voxel or not, more offsets than voxels, any layout; gradients go the same way back."""
    sections = torch.randn(b, c, y, x, generator=torch.Generator().manual_seed(seed)).to(dtype)
    sections = sections.contiguous(memory_format=torch.channels_last) if last else sections
    made = layout.split(sections.requires_grad_(), step)
    high, wide = -(-y // step), -(-x // step)
    assert made.shape == (step**2 * b, c, high, wide)
    assert made.is_contiguous(memory_format=torch.channels_last)
    parts, expected = made.view(step, step, b, c, high, wide), torch.zeros(step, step, b, c, high, wide, dtype=dtype)
    for down in range(step):
        for along in range(step):
            part = sections[:, :, down::step, along::step]
            expected[down, along, :, :, : part.shape[2], : part.shape[3]] = part
    assert torch.equal(parts, expected)
    whole = layout.merge(made, step, (y, x))
    assert torch.equal(whole, sections)
    outer = torch.randn(made.shape).to(dtype)
    (back,) = torch.autograd.grad((made * outer).sum(), sections, retain_graph=True)
    assert torch.equal(back, layout.merge(outer, step, (y, x)))
    outer = torch.randn(whole.shape).to(dtype)
    (back,) = torch.autograd.grad((whole * outer).sum(), made)
    assert torch.equal(back, layout.split(outer, step))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_a_number_is_moved_bit_by_bit(dtype):
    sections = torch.full((1, 4, 5, 6), torch.nan, dtype=dtype)
    sections[0, 0, 0, 0] = torch.inf
    bits = {torch.float32: torch.int32, torch.bfloat16: torch.int16}[dtype]
    whole = layout.merge(layout.split(sections, 2), 2, (5, 6))
    assert torch.equal(whole.contiguous().view(bits), sections.view(bits))
