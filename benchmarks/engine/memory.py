"""Peak memory of a process that predicts some tiles, against what was foreseen; called by `run.py --memory` and tests.

    python benchmarks/engine/memory.py NETWORK Z,Y,X PRECISION TILES FOLDER

prints what is foreseen over the peak that the system reports, and how many tensors found no place in the room that was
foreseen. FOLDER is for the ledger.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from neuropil import machine
from neuropil.blockwise import Ledger, run_blocks
from neuropil.geometry import Box, grid
from neuropil.networks import inference, planning
from neuropil.networks.architecture import ARCHITECTURES
from neuropil.networks.network import DenseNetwork
from neuropil.networks.tuning import usual_forms

name, extents, precision, tiles, folder = sys.argv[1:]
tile = tuple(map(int, extents.split(",")))
network = DenseNetwork(ARCHITECTURES[name])
forms = usual_forms(network.architecture, torch.device("cpu"), getattr(torch, precision))
predictor = inference.Predictor(network, precision=precision, forms=forms)


def empty(shape):
    """Give one input per stream, as it is read."""
    return [inference.apart(np.ones(shape, np.float32)) for _ in range(network.architecture.streams)]


predictor(empty(network.architecture.field_of_view))
before = machine.resident()
blocks = list(grid(Box.of_shape((int(tiles) * tile[0], *tile[1:])), tile))
run_blocks(
    Ledger(Path(folder), {}), "step", blocks, lambda box: empty(network.architecture.input_shape(tile)), predictor,
    lambda box, made: None,
)  # fmt: skip
peak = machine.peak_resident()
foreseen = before + planning.peak_memory(network.architecture, tile, predictor.dtype.itemsize, predictor.forms)
print(foreseen / peak, predictor.room.missed)
