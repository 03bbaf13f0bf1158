"""Threads for kernels, which let others run: work is cut into as many parts, and the parts go on side by side.

What is cut, and how the parts are put together, never changes a result: every function that takes `threads` gives the
same bits for any number of them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any, TypeVar

from neuropil.errors import InputError

T = TypeVar("T")


def split(size: int, threads: int) -> list[tuple[int, int]]:
    """Cut 0 ... size into at most `threads` ranges (first, last + 1) of about the same length, at least one.

    Raises
    ------
    InputError
        If `threads` is below 1.

    Examples
    --------
    >>> split(5, 2), split(1, 4), split(0, 2)
    ([(0, 2), (2, 5)], [(0, 1)], [(0, 0)])
    """
    if threads < 1:
        raise InputError(f"threads must be at least 1; got {threads}")
    parts = max(1, min(size, threads))
    return [(size * k // parts, size * (k + 1) // parts) for k in range(parts)]


def call(work: Callable[..., T], *arguments: Any) -> T:
    """Call a function: what `run_threads` does where tasks are of several kinds.

    >>> run_threads(call, [(max, 1, 2), (len, "abc")])
    [2, 3]
    """
    return work(*arguments)


def run_threads(work: Callable[..., T], tasks: Sequence[Sequence[Any]], threads: int | None = None) -> list[T]:
    """Call a function with each list of arguments, `threads` at a time (default: all), and return the results in order.

    The caller's thread is one of them. After an error no further task begins; those under way end before it is raised.

    >>> run_threads(max, [(1, 2), (4, 3)])
    [2, 4]
    """
    results: dict[int, T] = {}
    waiting = deque(enumerate(tasks))

    def take() -> None:
        while True:
            try:
                k, task = waiting.popleft()
            except IndexError:
                return
            try:
                results[k] = work(*task)
            except BaseException:
                waiting.clear()
                raise

    others = [_pool().submit(take) for _ in range(min(threads or len(tasks), len(tasks)) - 1)]
    try:
        take()
    finally:
        begun = [one for one in others if not one.cancel()]
        wait(begun)
    for one in begun:
        one.result()
    return [results[k] for k in range(len(tasks))]


@cache
def _pool() -> ThreadPoolExecutor:
    """Return threads that stay: to start some anew for every step would take longer than the steps of a small volume.

    Nobody waits for one that has not begun, so calls within calls cannot block each other however many there are.
    """
    return ThreadPoolExecutor(1024, "neuropil")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not live on in a child
