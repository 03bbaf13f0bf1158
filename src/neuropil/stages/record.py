"""What a command writes down of its output and inputs, beside the output, so that `neuropil verify` can check it.

Blocks of an output are digested while they are written, which costs next to nothing. Inputs may be a thousand times
larger than what is worth reading twice, so of each only a sample of blocks is digested: another volume under the same
name is found out, a single changed voxel need not be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from neuropil.geometry import Box
from neuropil.volume import open_volume
from neuropil.volume.copying import CopyReport

SAMPLES, SIDE = 12, 32


def made(command: str, report: CopyReport, inputs: Iterable[str | None]) -> dict[str, Any]:
    """Return what is recorded: the command's name, every block of the output, and what its inputs are.

    Parameters
    ----------
    command : its name
    report : of the copy that wrote the output
    inputs : URIs; None for those that were not given
    """
    contents = {
        "shape": report.shape,
        "dtype": report.dtype,
        "block": report.block,
        "digests": report.digests,
    }
    return {"command": command, "contents": contents, "inputs": [identity(uri) for uri in inputs if uri is not None]}


def identity(uri: str, depth: int | None = None) -> dict[str, Any]:
    """Return what tells a volume from another one: shape, dtype and a digest of a sample of its blocks.

    Blocks are `depth` sections deep; if not given, no deeper than a chunk, so that few sections of a folder are read.

    Raises
    ------
    VolumeNotFound, VolumeError : it is not there, or cannot be read
    """
    with open_volume(uri) as volume:
        depth = min(SIDE, volume.chunk_shape[0]) if depth is None else depth
        digest = hashlib.blake2b(digest_size=16)
        for box in sample(volume.spatial_shape, depth):
            digest.update(np.ascontiguousarray(volume.read(box)).data)
        known = {"uri": uri, "shape": volume.shape, "dtype": volume.dtype.name}
    return known | {"depth": depth, "sample": digest.hexdigest()}


def sample(shape: tuple[int, int, int], depth: int) -> Iterator[Box]:
    """Yield some boxes of a volume, spread over its whole extent; the same ones for the same shape.

    >>> [box.shape for box in sample((9, 40, 20), 4)] == [(4, 32, 20)] * SAMPLES
    True
    """
    size = (depth, SIDE, SIDE)
    room = [max(0, n - side) for n, side in zip(shape, size)]
    for k in range(SAMPLES):
        # Along z in even steps; y and x by multiples of irrational numbers, so that no two boxes lie in line.
        shares = (k / (SAMPLES - 1), k * 0.6180339887 % 1, k * 0.7548776662 % 1)
        start = tuple(int(n * share) for n, share in zip(room, shares))
        yield Box(start, tuple(min(a + side, n) for a, side, n in zip(start, size, shape)))
