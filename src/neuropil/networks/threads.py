"""Kernels of a network on all of torch's threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch

APART = 2**18  # bytes that are worth a thread of their own


def by_rows(kernel: Callable[..., Any], rows: int, size: int, *arguments: Any) -> list[Any]:
    """Call a kernel on parts of its rows, of `size` bytes in all, one a thread; return what the calls return."""
    threads = max(1, min(torch.get_num_threads(), rows, size // APART))
    edges = [rows * i // threads for i in range(threads + 1)]
    waiting = [_pool().submit(kernel, *arguments, a, b) for a, b in pairwise(edges[1:])]
    return [kernel(*arguments, edges[0], edges[1]), *(one.result() for one in waiting)]


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, torch.get_num_threads() - 1), "neuropil-layers")
