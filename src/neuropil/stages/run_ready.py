"""What a worker of `neuropil run` loads as it starts, so that its first block does not wait: Dask imports this module.

Nothing is compiled here: a kernel that is not in the cache yet is compiled by the first block that needs it.
"""

from __future__ import annotations

from neuropil._kernels import load_numba
from neuropil.stages import run_order, run_output  # noqa: F401  # all that steps are made of


def dask_setup(worker: object) -> None:
    """Load what numba loads with its first kernel."""
    load_numba()
