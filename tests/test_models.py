"""Packaged models: found by name wherever weights are asked for, told about, and continued by fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small import good, load, pair, recipe_toml, sentence, stack, untouched

from neuropil.networks import packaged
from neuropil.networks.checkpoint import load_model, read_tensors
from neuropil.networks.packaged import packaged_models, read_card, voxel_sizes, weights_path

NAMES = ["vd2d-sstem", "vd2d3d-sstem"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packaged models that holds one small recursive pair, `tiny-pair`."""
    folder = tmp_path / "models"
    pair(folder / "tiny-pair.safetensors", card={"tissues": ["cells"], "licence": "CC BY 4.0", "scores": {"f": 0.5}})
    monkeypatch.setattr(packaged, "FOLDER", folder)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_what_is_packaged_is_whole(name: str) -> None:
    """Small, loadable, with a card that says what one must know before using it."""
    path = packaged_models()[name]
    assert path.stat().st_size < 8e6
    model = load_model(name)
    assert [net.architecture.name for net in model.networks] == {
        "vd2d-sstem": ["vd2d"],
        "vd2d3d-sstem": ["vd2d", "vd2d3d"],
    }[name]
    assert all(value.isfinite().all() for net in model.networks for value in net.named_weights().values())
    for key in ("tissues", "licence", "citation", "training", "scores"):
        assert model.card.get(key), key
    assert voxel_sizes(model.card)
    text = path.with_suffix(".json").read_text()
    assert json.loads(text) == json.loads(json.dumps(model.card))
    assert '"/' not in text, "no path of the machine that trained it"


def test_names_and_paths(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert weights_path("tiny-pair") == own / "tiny-pair.safetensors"
    assert weights_path(Path("tiny-pair")) == own / "tiny-pair.safetensors"
    for path in ("tiny-pair.safetensors", "./x/tiny-pair", "/none"):  # paths, whether there is something or not
        assert weights_path(path) == Path(path)
    (tmp_path / "tiny-pair").write_bytes(b"")
    assert weights_path("tiny-pair") == Path("tiny-pair"), "a file comes first"


def test_predict_and_plan_take_a_name(own: Path, tmp_path: Path) -> None:
    data = stack(tmp_path / "s.h5")
    job = ["predict", "--input", f"{data}:raw", "--weights"]
    good(*job, "tiny-pair", "--output", tmp_path / "a.zarr")
    good(*job, own / "tiny-pair.safetensors", "--output", tmp_path / "b.zarr")
    np.testing.assert_array_equal(load(tmp_path / "a.zarr"), load(tmp_path / "b.zarr"))
    assert "tiny_recursive" in good("plan", "--weights", "tiny-pair", "--shape", "1,8,8")
    with untouched(tmp_path):
        text = sentence(*job, "tiny-par", "--output", tmp_path / "c.zarr")
    assert text == (
        "'tiny-par' is neither a weights file nor a packaged model; did you mean 'tiny-pair'? packaged are tiny-pair"
    )


def test_the_list_and_a_card(own: Path, tmp_path: Path) -> None:
    listed = good("models", "--json", tmp_path / "all.json")
    for words in ("tiny-pair", "tiny: field of view 1×7×7", "50×4×4 nm", "cells", "CC BY 4.0"):
        assert words in listed
    (one,) = json.loads((tmp_path / "all.json").read_text())["models"]
    assert (one["name"], one["voxel_sizes"], one["licence"]) == ("tiny-pair", [[50.0, 4.0, 4.0]], "CC BY 4.0")
    assert one["networks"][0]["parameters"] == load_model("tiny-pair").networks[0].architecture.parameter_count
    shown = good("models", "tiny-pair", "--json", tmp_path / "one.json")
    assert "  scores\n    f           0.5\n" in shown
    assert json.loads((tmp_path / "one.json").read_text())["card"]["tissues"] == ["cells"]
    assert good("models", own / "tiny-pair.safetensors").splitlines()[1:] == shown.splitlines()[1:]


def test_bad_names(own: Path, tmp_path: Path) -> None:
    (tmp_path / "words.safetensors").write_bytes(b"words")
    assert "did you mean 'tiny-pair'?" in sentence("models", "tiny-pear")
    assert "none.safetensors does not exist" in sentence("models", "none.safetensors")
    assert "is not a readable safetensors file" in sentence("models", tmp_path / "words.safetensors")
    (own / "tiny-pair.safetensors").unlink()
    assert "packaged are none here" in sentence("models", "tiny-pair")


def test_fine_tuning_goes_on_from_all_weights_of_both_networks(own: Path, tmp_path: Path) -> None:
    """With next to no learning rate a run from the pair ends as the pair, its last layers and join included."""
    toml = recipe_toml(tmp_path, stack(tmp_path / "s.h5"), updates=2)
    text = toml.read_text().replace('"flat"\narchitecture', '"flat"\ninitialise_from = "tiny-pair"\narchitecture')
    toml.write_text(text.replace('initialise_from = "flat"', 'initialise_from = "tiny-pair"'))
    good("train", toml, "--set", "train.recipe.learning_rate=1e-12")
    before, after = read_tensors(own / "tiny-pair.safetensors")[0], read_tensors(tmp_path / "run/model.safetensors")[0]
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, atol=1e-6, err_msg=name)
    origins = read_card(tmp_path / "run/model.safetensors")["initialised_from"]
    assert [(one["network"], one["weights"], one["licence"]) for one in origins] == [
        ("flat", "tiny-pair", "CC BY 4.0"),
        ("deep", "tiny-pair", "CC BY 4.0"),
    ]
    assert "licence     CC BY 4.0" in good("models", tmp_path / "run/model.safetensors")


def test_fine_tuning_from_an_unknown_model_is_refused(own: Path, tmp_path: Path) -> None:
    toml = recipe_toml(tmp_path, stack(tmp_path / "s.h5"))
    with untouched(tmp_path):
        text = sentence("train", toml, "--set", "train.networks.deep.initialise_from=tiny-pare", "--quiet")
    assert "'tiny-pare' is neither a weights file nor a packaged model; did you mean 'tiny-pair'?" in text
