"""benchmarks/affinities/package.py: a finished training becomes a packaged model, with a card that tells all."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from small import good, store

from neuropil.networks import packaged
from neuropil.networks.checkpoint import load_model
from neuropil.networks.packaged import packaged_models, voxel_sizes
from neuropil.synthetic import make_tissue

FOLDER = Path(__file__).parent.parent / "benchmarks/affinities"
TOML = """
[train]
output = "{run}"
recipe = {{ base = "affinities", augmentation = {{ shift = 2 }}, validate_every = 1 }}
[[train.stacks]]
name = "fib25"
image = "{data}:raw"
labels = "{data}:neuron_ids"
sections = "{sections}"
[[train.networks]]
name = "affinities"
patch = [12, 16, 16]
updates = 1
[train.networks.architecture]
base = "rsunet_tiny"
widths = [4, 6]
offsets = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [0, 0, -3]]
"""


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, with held-out sections 20:26 and 26:32."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("run", "package", "spoilt"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("package")
    monkeypatch.setitem(module.bench.SECTIONS, "fib25", ((20, 26), (26, 32)))
    monkeypatch.setitem(module.bench.RIVALS, "fib25", {"its watershed": "oversegmentation"})
    monkeypatch.setattr(module.bench, "GRID", [(0.05, 0, 0)])
    return module


def trained(folder: Path, sections: str) -> Path:
    """Train for one update."""
    data, run = folder / "s.h5", folder / "run"
    tissue = make_tissue((32, 32, 32), rng=np.random.default_rng(0), voxel_size=(10, 10, 10), membrane=False)
    store(f"{data}:raw", tissue.image, voxel_size=(10, 10, 10), kind="image")
    for name in ("neuron_ids", "oversegmentation"):
        store(f"{data}:{name}", tissue.ids, voxel_size=(10, 10, 10), kind="labels")
    toml = folder / "run.toml"
    toml.write_text(TOML.format(run=run, data=data, sections=sections))
    good("train", toml)
    return run


def test_a_training_becomes_a_packaged_model(
    tmp_path: Path, driver: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, folder = trained(tmp_path, "0:18"), tmp_path / "models"
    folder.mkdir()
    words = ["--run", run, "--name", "affinity-fib", "--methods", "mean,mutex", "--folder", folder, "--logs", tmp_path]
    monkeypatch.setattr(sys, "argv", ["package.py", *map(str, words)])
    driver.main()
    monkeypatch.setattr(packaged, "FOLDER", folder)
    model, card = load_model("affinity-fib"), json.loads((folder / "affinity-fib.json").read_text())
    last = load_model(run / "affinities/last.safetensors")
    assert model.unet is not None
    for name, value in last.unet.named_weights().items():
        assert (model.unet.named_weights()[name] == value).all(), name
    assert json.loads(json.dumps(model.card)) == card
    assert str(tmp_path) not in json.dumps(card), "no path of the machine that trained it"
    assert card["tissues"] == ["Drosophila medulla, FIB-SEM (sections 0:18 of fib25)"]
    assert card["training"]["updates"] == 1
    ((part, scores),) = card["scores"].items()
    assert part == "fib25 26:32, tuned on 20:26"
    assert scores["others"]["its watershed"] == {"rand_error": 0, "vi_split": 0, "vi_merge": 0}
    assert scores["mean"].keys() == {"rand_error", "vi_split", "vi_merge", "low", "size", "dust", "merge_threshold"}
    assert 0 < scores["mutex"]["rand_error"] < 1
    listed = " ".join(good("models").split())
    for text in ("affinity-fib", "affinities of 4 offsets", "10×10×10 nm", "CC BY 4.0"):
        assert text in listed
    shown = good("models", "affinity-fib")
    assert "Takemura" in shown
    assert "rand_error" in shown
    good("predict", "--weights", "affinity-fib", "--input", f"{tmp_path}/s.h5:raw", "--output", tmp_path / "a.zarr")


def test_the_stored_table_is_that_of_the_stored_results(driver: ModuleType) -> None:
    results = FOLDER / "results"
    stored = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    assert driver.bench.tables(stored) + "\n" == (results / "table.txt").read_text()
    for name in ("affinity-fib", "affinity-ssem"):
        last = json.loads((results / f"{name}.log.jsonl").read_text().splitlines()[-1])
        assert last["update"] == load_model(name).card["training"]["updates"]


def test_defects_move_labels_with_the_image(driver: ModuleType) -> None:
    """The image tells the label, so that it can be seen whether both moved; what hides leaves the labels."""
    spoilt = driver.bench.spoilt
    side = spoilt.SIDE + 2 * spoilt.MARGIN
    labels = np.random.default_rng(0).integers(1, 200, (10, side, side))
    for kind, spoil in spoilt.KINDS.items():
        made = spoil(labels.astype(np.float32), labels, np.random.default_rng(1))
        assert made.image.shape == made.labels.shape == (10, spoilt.SIDE, spoilt.SIDE)
        moves, hides = kind in ("misaligned", "slipped"), kind in ("missing", "out of focus")
        assert (made.image == made.labels).all() == moves
        assert (made.labels == spoilt.core(labels)).all() == hides


def test_what_learnt_from_the_held_out_sections_is_refused(tmp_path: Path, driver: ModuleType) -> None:
    run = trained(tmp_path, "0:24")
    config = driver.train.Config.model_validate(json.loads((run / "run.json").read_text())["config"])
    with pytest.raises(SystemExit, match="20 and later are held out"):
        driver.score("fib25", run / "affinities/last.safetensors", config, ["mean"], tmp_path)


@pytest.mark.parametrize("name", ["affinity-fib", "affinity-ssem"])
def test_what_is_packaged_is_whole(name: str) -> None:
    """Small, loadable, predicting nearest and far links, with a card that says what one must know before using it."""
    path = packaged_models()[name]
    model = load_model(name)
    assert path.stat().st_size < 8e6
    assert model.unet is not None
    assert {(-1, 0, 0), (0, -1, 0), (0, 0, -1)} < set(model.unet.architecture.offsets)
    assert all(value.isfinite().all() for value in model.unet.named_weights().values())
    for key in ("tissues", "licence", "citation", "training", "scores", "patch"):
        assert model.card.get(key), key
    assert voxel_sizes(model.card)
    text = path.with_suffix(".json").read_text()
    assert json.loads(text) == json.loads(json.dumps(model.card))
    assert '"/' not in text, "no path of the machine that trained it"
