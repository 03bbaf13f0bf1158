"""What is made of filters once and kept while they stay as they are: their transforms."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

T = TypeVar("T")
_kept = WeakIdKeyDictionary()  # type: ignore[no-untyped-call]
"""Of filters, what they were made into last, and what it is of."""


def kept(weight: Tensor, kind: Hashable, make: Callable[[], T]) -> T:
    """Return `make()`; without gradients, what it gave before for the same filters and `kind`."""
    if torch.is_grad_enabled() or weight.is_inference():
        return make()
    of = (weight._version, kind)
    if weight not in _kept or _kept[weight][0] != of:
        _kept[weight] = of, make()
    made: T = _kept[weight][1]
    return made
