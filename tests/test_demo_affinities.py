"""`neuropil demo --affinities`: with a packaged model and without, on what is here; nothing is done twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small import command, good, load, sentence, store
from test_report import parse

from neuropil.errors import ConfigError
from neuropil.labels import contingency
from neuropil.metrics.rand import adapted_rand_error
from neuropil.networks import packaged
from neuropil.networks.checkpoint import Model, save_model
from neuropil.networks.rsunet import RSUNet
from neuropil.networks.unet_architecture import UNetArchitecture
from neuropil.segmentation.decoding import Decoder
from neuropil.stages import demo, demo_affinities

OFFSETS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (-3, 0, 0), (0, -3, 0), (0, 0, -3))
TINY = UNetArchitecture("tiny_unet", (4, 6), "batch", OFFSETS, (3, 3, 3), ((2, 2, 2),), True, (3, 3, 3))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's own job on a stack that takes seconds, and an empty folder of packaged models."""
    split = ((0, 40), (40, 50), (50, 60))
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "models")
    monkeypatch.setattr(demo_affinities, "SYNTHETIC_SHAPE", (60, 40, 40))
    monkeypatch.setattr(demo_affinities, "PATCH", (20, 20, 20))
    monkeypatch.setattr(demo_affinities, "SPLIT", {"synthetic": split, "fib25": split})
    grids = {method: [Decoder(method, low=0.05, size=50, dust=0)] for method in ("mean", "mutex")}
    monkeypatch.setattr(demo_affinities, "GRIDS", grids)
    monkeypatch.setenv("NEUROPIL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def package(folder: Path, seed: int = 0) -> None:
    card = {"voxel_size": [10, 10, 10], "patch": [16, 16, 16], "licence": "CC-BY"}
    save_model(folder / "models" / "affinity-fib.safetensors", Model((RSUNet(TINY, seed),), card))


def test_with_the_packaged_model_nothing_is_trained_and_nothing_done_twice(small: Path) -> None:
    package(small)
    run, scores = small / "run", small / "scores.json"
    out = good("demo", "--affinities", "--data", "synthetic", "--output", run, "--json", scores)
    names = ["grey values, mean", "affinity-fib, mean", "affinity-fib, mutex"]
    record = json.loads(scores.read_text())
    assert [row["name"] for row in record["rows"]] == names
    assert not (run / "training").exists()
    page = (run / "report.html").read_text()
    parse(page)
    assert all(name in page and name in out for name in names)
    assert page.count("<img") == 3 * (4 + len(names))
    # What is written is what was scored.
    labels, truth = load(run / "segmentation.h5:ids"), load(run / "data/stack.h5:labels")[50:60]
    assert (load(run / "segmentation.h5:image") == load(run / "data/stack.h5:raw")[50:60]).all()
    errors = {row["tested"]["adapted_rand_error"] for row in record["rows"] if row["name"].startswith("affinity")}
    assert adapted_rand_error(contingency(labels, truth)).error in errors
    before = (run / "affinities.h5").stat().st_mtime_ns
    good("demo", "--affinities", "--data", "synthetic", "--output", run, "--json", scores)
    assert (run / "affinities.h5").stat().st_mtime_ns == before
    assert json.loads(scores.read_text())["rows"] == record["rows"]
    package(small, seed=1)
    good("demo", "--affinities", "--data", "synthetic", "--output", run)
    assert (run / "affinities.h5").stat().st_mtime_ns > before, "another model makes other affinities"


def test_without_it_a_tiny_network_is_trained_and_stays_trained(small: Path) -> None:
    words = ["demo", "--affinities", "--updates", 2, "--output", small / "run"]
    first = command(*words)
    assert first.code == 0, first.err
    assert "FIB-25 is not here" in first.err
    assert "no packaged model affinity-fib" in first.err
    assert "U-Net, 2 updates, mean" in first.out
    weights = small / "run/training/model.safetensors"
    before = weights.read_bytes()
    again = command(*words)
    assert "affinities: done before" in again.err
    assert weights.read_bytes() == before
    assert again.out.splitlines()[:8] == first.out.splitlines()[:8]


def test_real_sections_come_first_and_others_are_scored_beside(small: Path) -> None:
    package(small)
    stem = small / "data/fib25/fib25_sample2_z000-179.h5"
    stem.parent.mkdir(parents=True)
    rng = np.random.default_rng(0)
    z, y, x = np.indices((60, 40, 40))
    truth = 1 + (z // 20) * 100 + (y // 10) * 10 + x // 10
    store(f"{stem}:raw", rng.integers(0, 255, truth.shape, np.uint8), voxel_size=(10, 10, 10), kind="image")
    store(f"{stem}:neuron_ids", truth.astype(np.uint32), kind="labels")
    store(f"{stem}:ffn_segmentation", truth.astype(np.uint8), kind="labels")
    good("demo", "--affinities", "--output", small / "run", "--json", small / "scores.json")
    record = json.loads((small / "scores.json").read_text())
    assert record["about"]["data"].startswith("FIB-25")
    *_, others = record["rows"]
    folded = contingency(truth[50:].astype(np.uint8), truth[50:])
    assert others["name"] == "others: flood-filling"
    assert others["tested"]["adapted_rand_error"] == pytest.approx(adapted_rand_error(folded).error)
    assert "tuned" not in others


def test_what_does_not_fit_is_refused(small: Path) -> None:
    text = sentence("demo", "--affinities", "--data", "fib25", "--output", small / "run", "--quiet")
    assert text == "FIB-25 is not here; run: neuropil data get fib25 --yes"
    assert "is for the demo without --affinities" in sentence("demo", "--affinities", "--data", "vnc", "--quiet")
    with pytest.raises(ConfigError, match="is for the demo with --affinities"):
        demo.run(demo.Config(data="fib25"))
    assert not (small / "run").exists()


def test_the_parts_keep_their_distance() -> None:
    for (_, trained), tuned, tested in demo_affinities.SPLIT.values():
        assert trained + 4 <= tuned[0]
        assert tuned[1] + 4 <= tested[0]
    assert demo_affinities.SPLIT["synthetic"][2][1] <= demo_affinities.SYNTHETIC_SHAPE[0]
