"""One step of a run as data: what is made before its first block, its blocks, and what is done with each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from neuropil.blockwise import Ledger, Pool
from neuropil.geometry import Box
from neuropil.tasks import run_tasks


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes
    ----------
    name : in the ledger
    boxes : returns the blocks; called when `make` is done
    work : of a block; data only
    make : makes what the blocks are written into
    made : whether that is there; if not, blocks that were done are done again
    """

    name: str
    boxes: Callable[[], list[Box]]
    work: Callable[[Box], None]
    make: Callable[[], None] = _nothing
    made: Callable[[], bool] = lambda: True


def do_step(step: Step, ledger: Ledger, pool: Pool) -> None:
    """Do what is not done yet of a step."""
    if not step.made():
        ledger.forget(step.name)
        step.make()
    run_tasks(ledger, step.name, step.boxes(), step.work, pool)
