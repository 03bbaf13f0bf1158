"""The graph of fragments that lies beside a volume of them, as `….graph.npz`: what proofreading needs to know.

u, v, affinity: contacts of fragments and the mean of their affinities; segments: the segment of each fragment.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from neuropil.errors import InputError, VolumeError, VolumeNotFound
from neuropil.files import replacing
from neuropil.segmentation.splitting import FragmentGraph
from neuropil.stages.common import sidecar


def graph_path(fragments: str) -> Path:
    """Return where the graph of a volume of fragments is.

    >>> graph_path("out/fragments.zarr").name
    'fragments.zarr.graph.npz'
    """
    return sidecar(fragments, "graph.npz")


def save_graph(fragments: str, graph: FragmentGraph) -> None:
    """Write the graph beside the fragments; the file is whole or not there."""
    path = graph_path(fragments)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, u=graph.u, v=graph.v, affinity=graph.affinity, segments=graph.segments)


def load_graph(fragments: str) -> FragmentGraph:
    """Read the graph beside the fragments.

    Raises
    ------
    VolumeNotFound : there is none
    VolumeError, InputError : it is damaged, or no graph
    """
    path = graph_path(fragments)
    if not path.exists():
        raise VolumeNotFound(
            f"there is no {path}, the graph of the fragments; neuropil segment --fragments or neuropil run --fragments"
            " writes both"
        )
    try:
        with np.load(path) as file:
            return FragmentGraph(*(file[name] for name in ("u", "v", "affinity", "segments")))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise VolumeError(f"{path} is not a readable graph of fragments: {error}") from None
