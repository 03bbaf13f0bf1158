"""Seam statistics, and `neuropil verify-seams`."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from small import command, good, sentence, store

from neuropil.errors import InputError
from neuropil.metrics.seams import seams
from neuropil.segmentation.affinities import NEAREST
from neuropil.stages import run_steps
from neuropil.volume import open_volume

HOW = ["--low", 0.2, "--high", 0.9, "--size", 20, "--dust", 8]


def voronoi(shape: tuple[int, int, int], count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = np.zeros(shape, bool)
    points.flat[rng.choice(points.size, count, replace=False)] = True
    _, nearest = ndimage.distance_transform_edt(~points, return_indices=True)
    return np.ravel_multi_index(tuple(nearest), shape).astype(np.uint64) + 1


def test_stitched_blocks_are_seen_and_whole_tissue_is_not():
    """Over many seeds t has a standard deviation of 1 where there is no seam."""
    labels = voronoi((40, 90, 90), 1500)
    for seam in seams(labels, (6, 12, 15)):
        assert abs(seam.t) < 4
    stitched = labels.copy()
    stitched[:, 12:24] += 100_000  # one slab of blocks has ids of its own
    found = {seam.axis: seam for seam in seams(stitched, (6, 12, 15))}
    assert found[1].at_faces > 2 * found[1].elsewhere
    assert abs(found[0].t) < 4
    every = labels + (np.arange(90)[:, None] // 12 * 100_000).astype(np.uint64)
    seam = {seam.axis: seam for seam in seams(every, (6, 12, 15))}[1]
    assert seam.at_faces == 1
    assert seam.t > 100
    assert seams(np.arange(8).reshape(1, 1, 8) // 2, (1, 1, 2))[0].t == math.inf


def test_the_place_of_a_crop_counts():
    stitched = np.arange(40).reshape(1, 1, 40) // 10 + 1
    assert seams(stitched, (1, 1, 10))[0].at_faces == 1
    crop = stitched[:, :, 3:]
    assert seams(crop, (1, 1, 10))[0].at_faces == 0
    assert seams(crop, (1, 1, 10), start=(0, 0, 3))[0].at_faces == 1
    assert seams(np.ones((4, 4, 4)), (4, 4, 4)) == ()
    with pytest.raises(InputError, match="labels must have axes z, y, x"):
        seams(np.ones((4, 4)), (2, 2, 2))


@pytest.fixture
def affinities(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    field = np.stack([ndimage.gaussian_filter(rng.random((8, 30, 32)), 1.2) for _ in range(3)])
    values = (255 * (field - field.min()) / np.ptp(field)).astype(np.uint8)
    return store(f"{tmp_path}/a.zarr", values, kind="affinities", scale=1 / 255, offsets=NEAREST)


def test_a_crop_comes_out_the_same(tmp_path: Path, affinities: str) -> None:
    words = ["verify-seams", "--input", affinities, "--block", "3,11,13", *HOW]
    said = good(*words, "--rows", "4:30", "--json", tmp_path / "v.json")
    assert "all 6656 voxels have the same id" in said
    assert [one["axis"] for one in json.loads((tmp_path / "v.json").read_text())["seams"]] == [0, 1, 2]


@pytest.mark.parametrize("method", ["components", "size"])
def test_other_methods_and_a_boundary_map(tmp_path: Path, affinities: str, method: str) -> None:
    words = ["verify-seams", "--block", "3,11,13", *HOW, "--method", method, "--threshold", 0.6]
    assert "all 7680 voxels have the same id" in good(*words, "--input", affinities)
    with open_volume(affinities) as volume:
        uri = store(f"{tmp_path}/b.zarr", volume.read()[0], kind="boundary", scale=1 / 255)
    assert "all 3840 voxels have the same id" in good(*words, "--input", uri, "--rows", "0:15")


@pytest.mark.skipif("NEUROPIL_DATA" not in os.environ, reason="real data not there")
@pytest.mark.parametrize("method", ["components", "size", "mean"])
def test_a_real_map(method: str) -> None:
    """Floats of a predicted boundary map, gala's example."""
    uri = Path(os.environ["NEUROPIL_DATA"]) / "gala" / "gala_train.h5"
    if not uri.exists():
        pytest.skip("gala's example is not there")
    words = [
        "verify-seams",
        "--input",
        f"{uri}:train_p1",
        "--block",
        "17,33,67",
        "--method",
        method,
        "--no-per-section",
    ]
    assert "all 400000 voxels have the same id" in good(*words, "--threshold", 0.3, "--sections", "20:40")


def test_a_difference_is_found(affinities: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that forgets what links join across faces is caught."""
    monkeypatch.setattr(run_steps, "face_pairs", lambda *_: np.empty((0, 2), np.uint64))
    done = command("verify-seams", "--input", affinities, "--block", "3,11,13", *HOW, "--quiet")
    assert done.code == 2
    assert "voxels differ between blocks of (3, 11, 13) and the whole" in done.err


def test_segmentations_of_others_and_refusals(tmp_path: Path, affinities: str) -> None:
    labels = voronoi((8, 24, 24), 40)
    labels[:, 12:] += np.uint64(10**6)
    theirs = store(f"{tmp_path}/t.zarr", labels, kind="labels")
    assert "planes along y" in good("verify-seams", "--segmentation", theirs, "--block", "8,12,24")
    assert "no face" in good("verify-seams", "--segmentation", theirs, "--block", "8,12,24", "--rows", "0:12")
    assert "either --input or --segmentation" in sentence("verify-seams", "--block", "8,12,24")
    assert "rows must lie within 0:24" in sentence(
        "verify-seams", "--segmentation", theirs, "--block", "8,12,24", "--rows", "0:99"
    )
