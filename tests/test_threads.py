"""Threads of kernels: results in order, calls within calls, errors, children."""

from __future__ import annotations

import os
import threading
import time

import pytest

from neuropil.segmentation.threads import call, run_threads


@pytest.mark.parametrize("threads", [None, 1, 2, 7])
def test_results_come_in_order_of_tasks(threads):
    def work(k: int) -> int:
        time.sleep(0.002 * (k % 3))
        return k * k

    assert run_threads(work, [(k,) for k in range(12)], threads) == [k * k for k in range(12)]
    assert run_threads(work, [], threads) == []


def test_no_more_than_so_many_run_at_once():
    lock, together, now, most = threading.Lock(), threading.Barrier(3), [0], [0]

    def work() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        together.wait(10.0)
        with lock:
            now[0] -= 1

    run_threads(work, [()] * 12, 3)
    assert most == [3]


def test_all_run_side_by_side_by_default():
    barrier = threading.Barrier(5)
    assert sorted(run_threads(barrier.wait, [(10.0,)] * 5)) == list(range(5))


def test_calls_within_calls_do_not_wait_for_each_other():
    def tree(depth: int) -> int:
        return sum(run_threads(tree, [(depth - 1,)] * 3)) if depth else 1

    assert tree(5) == 3**5


def test_an_error_is_raised_when_nothing_runs_any_more():
    running, begun = set(), []

    def work(k: int) -> None:
        begun.append(k)
        if k == 1:
            raise IndexError("the second")
        running.add(k)
        time.sleep(0.05)
        running.remove(k)

    with pytest.raises(IndexError, match="the second"):
        run_threads(work, [(k,) for k in range(50)], 2)
    assert not running
    assert len(begun) < 50
    assert run_threads(call, [(max, 1, 2), (len, "abc")]) == [2, 3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own():
    run_threads(time.sleep, [(0.001,)] * 4)
    child = os.fork()
    if child == 0:
        os._exit(0 if run_threads(max, [(1, 2), (4, 3), (0, 5)]) == [2, 4, 5] else 1)
    deadline = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    if ended == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended == (child, 0)
