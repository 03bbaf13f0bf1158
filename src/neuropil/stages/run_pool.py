"""Where the blocks of a run are computed, as its configuration says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from neuropil.blockwise import DaskPool, dask_pool
from neuropil.clusters import SlurmJobs, one_thread_each, slurm_pool
from neuropil.config import dump
from neuropil.machine import available_memory, cores
from neuropil.stages.run_config import Config

SHARE = 0.8
"""Of the memory that is free may be taken."""
UNKNOWN = (8, 4e9)
"""Workers, and bytes of each, that are expected of a cluster of which nothing is said."""
READY = ("neuropil.stages.run_ready",)
"""What workers load as they start."""


@contextmanager
def pool_of(config: Config) -> Iterator[DaskPool]:
    """Give the pool of processes."""
    if config.cluster is not None:
        with slurm_pool(SlurmJobs(**dump(config.slurm)), READY) as pool:
            pool.patience = config.block_timeout
            yield pool
        return
    memory = None if config.worker_memory is None else config.worker_memory * 1e9
    with one_thread_each(), dask_pool(config.workers or cores(), memory, config.scheduler, READY) as pool:
        pool.patience = config.block_timeout
        yield pool


def workers_of(config: Config) -> tuple[int, float]:
    """Return how many workers there will be, and the bytes that each may take."""
    said = None if config.worker_memory is None else config.worker_memory * 1e9
    if config.cluster is not None:
        slurm = config.slurm
        return slurm.jobs * slurm.cores, said or SHARE * slurm.memory * 2**30 / slurm.cores
    if config.scheduler is not None:
        return config.workers or UNKNOWN[0], said or UNKNOWN[1]
    workers = 1 if config.executor == "serial" else config.workers or cores()
    return workers, said or SHARE * available_memory() / workers
