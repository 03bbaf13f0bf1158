"""Workers that a batch system starts: SLURM, through dask-jobqueue.

Jobs are handed in when a run begins and taken back when it ends. The run goes on as soon as the first job runs, with
as many as there are. A job that ends, at its walltime or by force, costs the blocks it was at, which others do again.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from neuropil.blockwise import DaskPool
from neuropil.errors import InputError, MissingExtra

log = logging.getLogger("neuropil")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
ENVIRONMENT = {
    **dict.fromkeys(THREADS, "1"),
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
}
"""Of a worker: it computes in one thread, and GNU's C library keeps the memory that a block frees for the next, where
Dask has it given back, page by page."""
QUEUED = 7 * 24 * 3600
"""Seconds to wait for the first job to start."""


@dataclass(frozen=True)
class SlurmJobs:
    """What jobs are asked for.

    Attributes
    ----------
    jobs : how many
    cores : of each; a core is a worker
    memory : GB (2**30 bytes, as SLURM counts) of each
    walltime : HH:MM:SS
    queue, account, interface : partition, who is charged, network; None for the system's own
    directives : further lines of #SBATCH, without that word
    prologue : lines of shell that come before the worker
    """

    jobs: int = 1
    cores: int = 1
    memory: float = 4
    walltime: str = "01:00:00"
    queue: str | None = None
    account: str | None = None
    interface: str | None = None
    directives: Sequence[str] = ()
    prologue: Sequence[str] = ()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Have workers that are started meanwhile compute in one thread each, whatever library computes.

    What workers shall find in their environment Dask writes into that of this process, for good: it is put back.
    """
    import dask
    import distributed  # noqa: F401  # knows what workers get anyway

    key = "distributed.nanny.pre-spawn-environ"
    before = dict(os.environ)
    try:
        os.environ.update(ENVIRONMENT)  # what is there, by the user or another cluster, Dask would prefer
        with dask.config.set({key: {**dask.config.get(key), **ENVIRONMENT}}):
            yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def slurm_cluster(wanted: SlurmJobs, preload: Sequence[str] = ()) -> Any:
    """Return a `dask_jobqueue.SLURMCluster` without jobs; its `job_script()` is what `sbatch` would be given.

    Modules named by `preload` are loaded by workers as they start.

    Raises
    ------
    MissingExtra : dask-jobqueue is not installed
    """
    import dask

    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise MissingExtra(
            "cluster slurm needs dask-jobqueue; install it with pip install 'neuropil[cluster]'"
        ) from None
    words = dask.config.get("jobqueue.slurm.worker-extra-args", [])  # what the user's own configuration says
    return SLURMCluster(
        cores=wanted.cores,
        processes=wanted.cores,
        memory=f"{wanted.memory:g}GiB",
        walltime=wanted.walltime,
        queue=wanted.queue,
        account=wanted.account,
        interface=wanted.interface,
        job_name="neuropil",
        job_extra_directives=list(wanted.directives),
        job_script_prologue=[*(f"export {name}={value}" for name, value in ENVIRONMENT.items()), *wanted.prologue],
        worker_extra_args=[*words, *(word for module in preload for word in ("--preload", module))],
        scheduler_options={"dashboard": False},
    )


@contextmanager
def slurm_pool(wanted: SlurmJobs, preload: Sequence[str] = ()) -> Iterator[DaskPool]:
    """Give a pool of workers that SLURM's jobs are, as `slurm_cluster` has them.

    Raises
    ------
    MissingExtra : dask-jobqueue is not installed
    InputError : SLURM is not there, or refuses the job, or starts none
    """
    import distributed

    with slurm_cluster(wanted, preload) as cluster, distributed.Client(cluster) as client:
        _ask_slurm(cluster.job_script())
        cluster.adapt(minimum_jobs=wanted.jobs, maximum_jobs=wanted.jobs)  # a job that ends is handed in anew
        log.info("%d jobs handed in to SLURM; waiting for the first", wanted.jobs)
        try:
            client.wait_for_workers(1, timeout=QUEUED)
        except TimeoutError:
            raise InputError("cluster slurm: no job started within a week; see squeue") from None
        pool = DaskPool(client)
        pool.size = wanted.jobs * wanted.cores
        yield pool


def _ask_slurm(script: str) -> None:
    """Have SLURM check a job without running it; of one that it refuses later the run would hear nothing."""
    if shutil.which("sbatch") is None:
        raise InputError("cluster slurm: there is no sbatch on this machine; start the run where jobs are handed in")
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        told = subprocess.run(["sbatch", "--test-only", file.name], capture_output=True, text=True, check=False)
    if told.returncode:
        raise InputError(f"cluster slurm: SLURM refuses the job: {told.stderr.strip() or told.stdout.strip()}")
