"""`import neuropil` is cheap, and its public names are these."""

from __future__ import annotations

import ast
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import neuropil

# Adding a name here promises to keep it: give it a changelog fragment and a place in the docs. Taking one away or
# renaming it first spends a minor release as a warning.
PUBLIC = {
    # places and data
    "Box", "grid", "open_volume", "create_volume", "make_tissue",
    # arrays
    "Affinities", "affinities_from_boundary_map", "affinities_from_labels", "boundary_from_labels", "watershed",
    "segment_affinities", "connected_components", "components_of_map", "region_edges", "size_dependent_linkage",
    "merge_tree", "cut", "relabel", "apply_lookup",
    # scores
    "contingency", "rand_scores", "adapted_rand_error", "variation_of_information", "pixel_error", "best_pixel_error",
    "components_curve", "merge_tree_curve", "instance_scores", "detection_scores", "cleft_scores", "partner_scores",
    "run_length",
    # skeletons
    "Skeleton", "skeletonize",
    # crowds
    "Votes", "fuse_votes", "fuse_annotations",
    # networks
    "Architecture", "N4", "VD2D", "VD2D3D", "DenseNetwork", "Recipe", "train", "predict", "load_model", "save_model",
    "UNetArchitecture", "architecture_for", "RSUNet", "predict_affinities",
    # errors
    "NeuropilError", "InputError", "ConfigError", "VolumeNotFound", "VolumeError", "OutputExists", "StorageFull",
    "RunMismatch", "MissingExtra",
}  # fmt: skip

FRESH = """
import sys, time
start = time.perf_counter()
import neuropil
seconds = time.perf_counter() - start
import json
print(json.dumps([seconds, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def test_import_is_cheap() -> None:
    runs = [json.loads(subprocess.check_output([sys.executable, "-c", FRESH], text=True)) for _ in range(5)]
    heavy = {
        "numpy",
        "scipy",
        "torch",
        "numba",
        "tensorstore",
        "h5py",
        "tifffile",
        "dask",
        "pydantic",
        "rich",
        "skimage",
    }
    assert not heavy & set(runs[0][1])
    assert statistics.median(seconds for seconds, _ in runs) < 0.2


def test_help_loads_no_heavy_library() -> None:
    program = "import sys; from neuropil.cli import main; main([]); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"'torch'", "'numba'", "'tensorstore'", "'numpy'"} & set(done.stderr.strip("[]\n").split(", "))


def test_public_names() -> None:
    assert set(neuropil.__all__) == PUBLIC, "the public names changed: see the note above the list"
    assert set(dir(neuropil)) >= PUBLIC
    for name in neuropil.__all__:
        assert getattr(neuropil, name).__module__.startswith("neuropil."), name
    stub = ast.parse(Path(neuropil.__file__).with_suffix(".pyi").read_text())
    told = {name.name for node in stub.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert told == PUBLIC, "__init__.pyi must tell type checkers the same names"
    with pytest.raises(AttributeError, match="module 'neuropil' has no attribute 'nothing'"):
        _ = neuropil.nothing


def test_public_names_work() -> None:
    import numpy as np

    boundary = np.array([[[0, 0, 0.9, 0, 0]]], np.float32)
    assert neuropil.components_of_map(boundary, 0.5).tolist() == [[[1, 1, 0, 2, 2]]]
    assert neuropil.VD2D.field_of_view == (1, 109, 109)
    assert issubclass(neuropil.VolumeNotFound, neuropil.NeuropilError)
