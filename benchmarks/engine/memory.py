"""Peak memory of a process that predicts five tiles, against what was foreseen; called by `run.py --memory` and tests.

    python benchmarks/engine/memory.py NETWORK Z,Y,X PRECISION FOLDER

prints the bound that is foreseen without running, and what the planner measures beforehand in long runs, each over the
peak that the system reports. FOLDER is for the ledger.
"""

import sys
from pathlib import Path

import numpy as np

from neuropil import machine
from neuropil.blockwise import Ledger, run_blocks
from neuropil.geometry import Box, grid
from neuropil.networks import inference, planning
from neuropil.networks.architecture import ARCHITECTURES
from neuropil.networks.network import DenseNetwork

name, extents, precision, folder = sys.argv[1:]
tile = tuple(map(int, extents.split(",")))
network = DenseNetwork(ARCHITECTURES[name])
predictor = inference.Predictor(network, precision=precision)


def empty(shape):
    """Give one input per stream, as it is read."""
    return [inference.apart(np.ones(shape, np.float32)) for _ in range(network.architecture.streams)]


predictor(empty(network.architecture.field_of_view))
before = machine.resident()
blocks = list(grid(Box.of_shape((5 * tile[0], *tile[1:])), tile))
run_blocks(
    Ledger(Path(folder), {}), "step", blocks, lambda box: empty(network.architecture.input_shape(tile)), predictor,
    lambda box, made: None,
)  # fmt: skip
peak = machine.peak_resident()
bound = before + planning.peak_memory(network.architecture, tile, predictor.dtype.itemsize)
machine.release()
measured = before + planning.measured_memory(network, tile, predictor.dtype)
print(bound / peak, measured / peak)
