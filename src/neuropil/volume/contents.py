"""Tell whether a volume has changed, without reading all of it.

Of files that belong to one volume alone, names, sizes and times of the last change say it. An HDF5 file may hold other
data sets that change, and a bucket has no cheap list of times: there, a few blocks are read.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from neuropil.geometry import Box
from neuropil.volume.uri import parse_uri
from neuropil.volume.volume import open_volume

_SAMPLES = 8


def contents_mark(uri: str | os.PathLike[str]) -> str:
    """Return some letters that are others when the volume has been written anew.

    >>> import tempfile
    >>> from neuropil.volume import create_volume
    >>> uri = tempfile.mkdtemp() + "/stack.h5:raw"
    >>> create_volume(uri, shape=(2, 3, 4), dtype="uint8").close()
    >>> before = contents_mark(uri)
    >>> with open_volume(uri, writable=True) as volume:
    ...     volume.write(None, np.ones((2, 3, 4), np.uint8))
    >>> before == contents_mark(uri)
    False
    """
    place = parse_uri(uri)
    alone = not place.remote and place.format != "hdf5"
    digest = _of_files(Path(place.path, place.dataset)) if alone else _of_samples(uri)
    return digest[:16]


def _of_files(root: Path) -> str:
    found = hashlib.sha256()
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    for path in files:
        state = path.stat()
        found.update(f"{path.relative_to(root)} {state.st_size} {state.st_mtime_ns}\n".encode())
    return found.hexdigest()


def _of_samples(uri: str | os.PathLike[str]) -> str:
    """Read blocks along the diagonal."""
    found = hashlib.sha256()
    with open_volume(uri) as volume:
        found.update(f"{volume.shape} {volume.dtype} {volume.metadata}".encode())
        size = [min(n, 64, extent) for n, extent in zip(volume.chunk_shape, volume.spatial_shape)]
        for k in range(_SAMPLES):
            start = [(extent - n) * k // (_SAMPLES - 1) for n, extent in zip(size, volume.spatial_shape)]
            box = Box(tuple(start), tuple(a + n for a, n in zip(start, size)))
            found.update(np.ascontiguousarray(volume.read(box)).data)
    return found.hexdigest()
