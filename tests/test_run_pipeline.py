"""`neuropil run` from an image on: what `predict` and then `segment` make of the whole, whatever happens on the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from small import OFFSET, VOXEL_SIZE, Stopping, command, good, load, pair, sentence, stack, store, untouched

from neuropil.networks.checkpoint import Model, save_model
from neuropil.networks.rsunet import RSUNet, UNetArchitecture
from neuropil.networks.sampling import SectionStatistics, byte_counts
from neuropil.volume import open_volume

SHAPE = (14, 40, 44)
OFFSETS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, -3, 0))
HOW = ["--low", 0.1, "--high", 0.95, "--size", 10, "--size-threshold", 0.2, "--dust", 5, "--merge-threshold", 0.5]
BLOCK = ["--block", "7,20,22", "--executor", "serial"]


def unet(path: Path) -> Path:
    net = RSUNet(UNetArchitecture("small", (2, 4), pooling=((1, 2, 2),), offsets=OFFSETS), seed=1)
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(1, 1, 4, 16, 16, generator=torch.Generator().manual_seed(0)))
    save_model(path, Model((net.eval(),), {"voxel_size": list(VOXEL_SIZE), "patch": [4, 16, 16]}))
    return path


@pytest.fixture
def image(tmp_path: Path) -> str:
    return f"{stack(tmp_path / 's.h5', SHAPE)}:raw"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return unet(tmp_path / "unet.safetensors")


@pytest.fixture
def whole(tmp_path: Path, image: str, weights: Path) -> np.ndarray:
    """What the two commands make, one after the other."""
    return in_two(tmp_path, image, weights)


def in_two(tmp_path: Path, image: str, weights: Path, *predict: object) -> np.ndarray:
    good("predict", "--input", image, "--weights", weights, "--output", f"{tmp_path}/a.zarr", *predict, "--overwrite")
    how = ["--output", f"{tmp_path}/whole.zarr", "--method", "mean", *HOW, "--overwrite"]
    good("segment", "--input", f"{tmp_path}/a.zarr", *how)
    labels = load(f"{tmp_path}/whole.zarr")
    assert len(np.unique(labels)) > 10
    return labels


@pytest.mark.parametrize("block", ["14,40,44", "7,20,22", "5,13,44", "1,40,17", "64,512,512"])
def test_a_unet_in_blocks(tmp_path: Path, image: str, weights: Path, whole: np.ndarray, block: str) -> None:
    out, kept = f"{tmp_path}/ids.zarr", f"{tmp_path}/kept.h5:affinities"
    words = ["run", "--input", image, "--weights", weights, "--output", out, *HOW, "--prediction", kept]
    good(*words, "--channels", "all", "--block", block, "--executor", "serial")
    np.testing.assert_array_equal(load(kept), load(f"{tmp_path}/a.zarr"))
    np.testing.assert_array_equal(load(out), whole)
    with open_volume(out) as volume, open_volume(kept) as affinities:
        said = affinities.metadata
        assert (volume.metadata.voxel_size, volume.metadata.offset) == (VOXEL_SIZE, OFFSET)
        assert (said.offsets, said.one_means, said.offset) == (OFFSETS, "same", OFFSET)
    assert not (tmp_path / "ids.zarr.unfinished").exists()


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "block", [pytest.param("14,40,44", marks=SLOW), "5,13,44", pytest.param("1,40,17", marks=SLOW)]
)
def test_a_chain_of_boundary_networks_in_blocks(tmp_path: Path, image: str, block: str) -> None:
    weights = pair(tmp_path / "pair.safetensors")
    tile = ["--tile", "2,9,10", "--tta", "8"]
    whole = in_two(tmp_path, image, weights, *tile)
    out, kept = f"{tmp_path}/ids.zarr", f"{tmp_path}/kept.zarr"
    words = ["run", "--input", image, "--weights", weights, "--output", out, *HOW, "--prediction", kept, *tile]
    good(*words, "--block", block, "--executor", "serial")
    np.testing.assert_array_equal(load(kept), load(f"{tmp_path}/a.zarr"))
    np.testing.assert_array_equal(load(out), whole)


def test_a_boundary_map_and_its_options(tmp_path: Path, image: str) -> None:
    weights, uri = pair(tmp_path / "pair.safetensors"), f"{tmp_path}/map.zarr"
    good("predict", "--input", image, "--weights", weights, "--output", uri)
    for number, more in enumerate([["--rule", "mean"], ["--no-per-section"]]):
        one, two = f"{tmp_path}/{number}.zarr", f"{tmp_path}/{number}b.zarr"
        good("segment", "--input", uri, "--output", one, "--method", "mean", *HOW, *more)
        good("run", "--input", uri, "--output", two, *HOW, *more, *BLOCK)
        np.testing.assert_array_equal(load(two), load(one))


@pytest.mark.parametrize("dtype", [np.uint8, pytest.param(np.uint16, marks=SLOW)])
def test_a_box_is_as_if_there_were_nothing_else(tmp_path: Path, image: str, weights: Path, dtype: type) -> None:
    grey, mask = load(image).astype(dtype) * dtype(3), np.zeros(SHAPE, np.uint8)
    mask[5:9] = 1
    facts = {"voxel_size": VOXEL_SIZE, "offset": OFFSET}
    wide = store(f"{tmp_path}/wide.zarr", grey, kind="image", **facts)
    crop = store(f"{tmp_path}/crop.zarr", grey[2:13, 3:40, 1:30], kind="image")
    masks = store(f"{tmp_path}/m.zarr", mask, kind="mask"), store(f"{tmp_path}/n.zarr", mask[2:13, 3:40, 1:30])
    words = ["run", "--weights", weights, *HOW, *BLOCK]
    good(*words, "--input", crop, "--output", f"{tmp_path}/1.zarr", "--mask", masks[1])
    box = ["--box", "2:13,3:40,1:30"]
    good(*words, "--input", wide, "--output", f"{tmp_path}/2.zarr", "--mask", masks[0], *box)
    labels = load(f"{tmp_path}/2.zarr")
    np.testing.assert_array_equal(labels, load(f"{tmp_path}/1.zarr"))
    assert (labels[3:7] == 0).all()
    assert labels.any()
    with open_volume(f"{tmp_path}/2.zarr") as volume:
        assert volume.metadata.offset == tuple(o + n * s for o, n, s in zip(OFFSET, (2, 3, 1), VOXEL_SIZE))
    # of affinities too
    good("predict", "--input", wide, "--weights", weights, "--output", f"{tmp_path}/a.zarr", "--channels", "nearest")
    affinities = load(f"{tmp_path}/a.zarr")[:, 2:13, 3:40, 1:30]
    told = {"kind": "affinities", "offsets": OFFSETS[:3], "scale": 1 / 255}
    cut = store(f"{tmp_path}/cut.zarr", affinities, **told)
    good("segment", "--method", "mean", "--input", cut, "--output", f"{tmp_path}/3.zarr", *HOW)
    good("run", "--input", f"{tmp_path}/a.zarr", "--output", f"{tmp_path}/4.zarr", *HOW, *BLOCK, *box)
    np.testing.assert_array_equal(load(f"{tmp_path}/4.zarr"), load(f"{tmp_path}/3.zarr"))


def test_stopped_anywhere_and_continued(
    tmp_path: Path, image: str, weights: Path, whole: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pipeline.toml").write_text(f"""
[run]
input = "{image}"
weights = "{weights}"
output = "{tmp_path}/ids.zarr"
block = [7, 20, 22]
executor = "serial"
""")
    words = ["run", tmp_path / "pipeline.toml", *HOW]
    for after in (1, 9, 3, 11):
        with monkeypatch.context() as patch:
            Stopping.left = after
            patch.setattr("neuropil.stages.run.SerialPool", Stopping)
            assert command(*words, "--quiet").code == 130
    work = tmp_path / "ids.zarr.unfinished"
    assert len((work / "done.jsonl").read_text().splitlines()) == 24
    with untouched(tmp_path):
        assert "was made with patch = None, now [4, 8, 8]" in sentence(*words, "--patch", "4,8,8")
        assert "was made with box = None, now" in sentence(*words, "--box", "0:14,0:40,0:20")
        kept = weights.read_bytes()
        unet_of_other_weights(weights)
        assert "digest of the weights" in sentence(*words)
        weights.write_bytes(kept)
    good(*words)
    np.testing.assert_array_equal(load(f"{tmp_path}/ids.zarr"), whole)
    steps = json.loads((tmp_path / "ids.zarr.json").read_text())["steps"]
    assert steps["sections"]["blocks"] == 8


def unet_of_other_weights(path: Path) -> None:
    net = RSUNet(UNetArchitecture("small", (2, 4), pooling=((1, 2, 2),), offsets=OFFSETS), seed=2)
    save_model(path, Model((net.eval(),), {"patch": [4, 16, 16]}))


def test_processes_with_one_thread_each(tmp_path: Path, image: str, weights: Path, whole: np.ndarray) -> None:
    """Two processes of a Dask cluster; precomputed output; bytes counted from several blocks."""
    out = f"precomputed://{tmp_path}/ids"
    words = ["run", "--input", image, "--weights", weights, "--output", out, *HOW, "--block", "7,20,44"]
    before = dict(os.environ)
    good(*words, "--workers", "2")
    np.testing.assert_array_equal(load(out), whole)
    assert dict(os.environ) == before


def test_sections_are_measured_the_same_however_they_are_cut() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 50, 41), np.uint8)
    image[2] = 7
    statistics = SectionStatistics.of(image.__getitem__, 3)
    np.testing.assert_allclose(statistics.mean, image.mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(statistics.deviation[:2], image.std((1, 2))[:2], rtol=1e-6)
    assert statistics.deviation[2] == 1
    parts = SectionStatistics.of_counts(byte_counts(image[:, :17]) + byte_counts(image[:, 17:]))
    np.testing.assert_array_equal(parts.mean, statistics.mean)
    np.testing.assert_array_equal(parts.deviation, statistics.deviation)


def test_refusals_leave_nothing(tmp_path: Path, image: str, weights: Path) -> None:
    labels = store(f"{tmp_path}/ids.zarr", np.zeros(SHAPE, np.uint64), kind="labels")
    words = ["run", "--output", f"{tmp_path}/o.zarr", *HOW, *BLOCK]
    chain = pair(tmp_path / "pair.safetensors")
    with untouched(tmp_path):
        assert "must be an image" in sentence(*words, "--input", labels, "--weights", weights)
        assert "must be a boundary map" in sentence(*words, "--input", image)
        assert "patch must be multiples" in sentence(*words, "--input", image, "--weights", weights, "--patch", "3,3,3")
        assert "are for U-Nets" in sentence(*words, "--input", image, "--weights", chain, "--patch", "4,8,8")
        assert "box must lie within (14, 40, 44)" in sentence(
            *words, "--input", image, "--weights", weights, "--box", "0:15,0:4,0:4"
        )
        assert "three ranges" in sentence(*words, "--input", image, "--box", "0:15")
        assert "give weights, or drop prediction" in sentence(*words, "--input", image, "--prediction", "a.zarr")
        little = ["--input", image, "--weights", weights, "--worker-memory", "0.01"]
        assert "give a smaller block, fewer workers or more worker_memory" in sentence(*words, *little)
