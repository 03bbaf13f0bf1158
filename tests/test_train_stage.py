"""`neuropil train`: a recursive run from TOML; nothing is done twice, nothing is lost, mistakes are told at once."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import VOXEL_SIZE, command, good, load, process, recipe_toml, sentence, stack, store, tree, untouched

from neuropil.networks.checkpoint import load_model, read_tensors
from neuropil.networks.recipe import RECIPES, Recipe
from neuropil.networks.sampling import BOUNDARY, INTERIOR, UNLABELLED
from neuropil.stages.train_config import NetworkConfig, StackConfig
from neuropil.stages.train_labels import boundary_target


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return stack(tmp_path / "s.h5")


@pytest.fixture
def toml(tmp_path: Path, data: Path) -> Path:
    return recipe_toml(tmp_path, data)


def stamps(folder: Path) -> dict[str, int]:
    """When each file that took work was written."""
    took_work = ("maps", "resume.safetensors", "best.safetensors", "last.safetensors")
    files = [path for path in folder.rglob("*") if path.is_file() and any(word in str(path) for word in took_work)]
    return {str(path): path.stat().st_mtime_ns for path in files}


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = read_tensors(one)[0], read_tensors(other)[0]
    return ours.keys() == theirs.keys() and all((ours[name] == theirs[name]).all() for name in theirs)


def test_a_recursive_run_makes_a_model_that_predict_runs(tmp_path: Path, data: Path, toml: Path) -> None:
    out, run = good("train", toml), tmp_path / "run"
    assert f"model: {run}/model.safetensors" in out
    assert {"flat/maps/a.zarr", "flat/maps/v.zarr", "flat/log.jsonl", "deep/best.safetensors"} <= tree(run)
    model = load_model(run / "model.safetensors")
    assert [net.architecture.streams for net in model.networks] == [1, 2]
    assert tuple(model.card["voxel_size"]) == VOXEL_SIZE
    assert [part["name"] for part in model.card["parts"]] == ["flat", "deep"]
    record = json.loads((run / "run.json").read_text())
    assert record["networks"]["deep"]["updates"] == 12
    assert 0 <= record["networks"]["flat"]["pixel_error"] <= 1
    assert record["config"]["recipe"]["validate_every"] == 6
    assert record["versions"]["torch"]
    good("predict", "--weights", run / "model.safetensors", "--input", f"{data}:raw", "--output", tmp_path / "m.zarr")
    assert load(tmp_path / "m.zarr").shape == (6, 40, 44)
    before, seconds = stamps(run), record["networks"]["flat"]["seconds"]
    again = command("train", toml)
    assert again.code == 0
    assert "flat: done before" in again.err
    assert stamps(run) == before
    assert json.loads((run / "run.json").read_text())["networks"]["flat"]["seconds"] == seconds


def test_validation_on_what_is_learnt_is_warned_of(tmp_path: Path, toml: Path) -> None:
    warning = "validation 'v' and stack 'a' share sections of"
    apart, shared = (
        command("train", toml),
        command("train", toml, "--fresh", "--set", "train.validation.v.sections=3:6"),
    )
    assert (apart.code, shared.code) == (0, 0)
    assert warning not in apart.err
    assert warning in shared.err


def test_what_the_second_network_starts_from(tmp_path: Path, toml: Path) -> None:
    good("train", toml, "--set", "train.networks.deep.recipe.learning_rate=1e-12")
    flat, deep = (read_tensors(tmp_path / f"run/{name}/best.safetensors")[0] for name in ("flat", "deep"))
    np.testing.assert_allclose(deep["0.conv1.weight"], flat["0.conv1.weight"], atol=1e-6)


def test_one_network_alone(tmp_path: Path, toml: Path) -> None:
    run = tmp_path / "run"
    assert "needs 'flat', which is not trained to its end" in sentence("train", toml, "--only", "deep", "--quiet")
    good("train", toml, "--only", "flat")
    assert not (run / "deep").exists() or "resume.safetensors" not in tree(run / "deep")
    assert not (run / "model.safetensors").exists()
    good("train", toml, "--only", "deep")
    assert set(json.loads((run / "run.json").read_text())["networks"]) == {"flat", "deep"}
    good("train", toml)
    good("train", toml, "--output", tmp_path / "straight")
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "straight/model.safetensors").read_bytes()


def test_kill_9_during_the_second_network_loses_nothing(tmp_path: Path, data: Path) -> None:
    toml = recipe_toml(tmp_path, data, updates=20)
    good("train", toml, "--output", tmp_path / "whole")
    often = ["--set", "train.recipe.checkpoint_seconds=0"]
    running, deep = process("train", toml, *often), tmp_path / "run/deep/resume.safetensors"
    while running.poll() is None and not deep.exists():
        time.sleep(0.002)
    running.kill()
    running.communicate()
    assert running.returncode == -signal.SIGKILL, "finished before it was killed"
    assert 0 < read_tensors(deep)[1]["update"] < 20
    again = command("train", toml)
    assert again.code == 0, again.err
    assert "flat: done before" in again.err
    for name in ("flat/best.safetensors", "deep/last.safetensors", "model.safetensors"):
        assert same_weights(tmp_path / "run" / name, tmp_path / "whole" / name), name


def test_fresh_starts_over(tmp_path: Path, toml: Path) -> None:
    good("train", toml)
    before = (tmp_path / "run/model.safetensors").read_bytes()
    assert "was trained with seed = 3, now 4" in sentence("train", toml, "--seed", 4, "--quiet")
    good("train", toml, "--seed", 4, "--fresh")
    assert (tmp_path / "run/model.safetensors").read_bytes() != before
    # a mistake is told before anything is deleted
    with untouched(tmp_path):
        sentence("train", toml, "--fresh", "--set", "train.stacks.a.image=none.h5:raw")


def test_going_on_equals_training_straight_through(tmp_path: Path, toml: Path) -> None:
    text = toml.read_text()
    flat = text[text.index("[[train.networks]]") : text.index('[[train.networks]]\nname = "deep"')]
    longer = flat.replace('"flat"', '"longer"').replace("updates = 12", 'updates = 20\ncontinues = "flat"')
    toml.write_text(text + longer)
    good("train", toml, "--set", "train.model=longer,deep")
    good("train", toml, "--set", "train.model=longer,deep")
    straight = tmp_path / "straight.toml"
    straight.write_text((text.split("[[train.networks]]")[0] + flat).replace("updates = 12", "updates = 20"))
    good("train", straight, "--output", tmp_path / "straight")
    assert same_weights(tmp_path / "run/longer/last.safetensors", tmp_path / "straight/flat/last.safetensors")
    names = [part["name"] for part in load_model(tmp_path / "run/model.safetensors").card["parts"]]
    assert names == ["longer", "deep"]


def test_a_third_recursion(tmp_path: Path, toml: Path) -> None:
    text = toml.read_text()
    deep = text[text.index('[[train.networks]]\nname = "deep"') :]
    toml.write_text(text + deep.replace('name = "deep"', 'name = "deeper"').replace('= "flat"', '= "deep"'))
    good("train", toml)
    assert len(load_model(tmp_path / "run/model.safetensors").networks) == 3


def test_other_images_or_weights_below_are_refused(tmp_path: Path, data: Path, toml: Path) -> None:
    good("train", toml)
    image = load(f"{data}:raw")
    store(f"{data}:raw", 255 - image, overwrite=True)
    assert "was trained with another image of a; choose another output" in sentence("train", toml, "--quiet")
    store(f"{data}:raw", image, overwrite=True)
    good("train", toml)
    os.replace(tmp_path / "run/deep/last.safetensors", tmp_path / "run/flat/best.safetensors")
    assert "was trained with another flat" in sentence("train", toml, "--quiet")


def test_what_is_not_learnt(tmp_path: Path) -> None:
    labels = np.array([[[1, 1, 1, 0, 2, 2, 2**64 - 1, 2**64 - 1, 3, 3, 9]]], np.uint64).repeat(2, 1)
    where: dict[str, str] = {"name": "a", "image": "unused", "labels": "unused"}

    def row(**changes: object) -> list[int]:
        return boundary_target(StackConfig.model_validate(where | changes), labels, labels.shape)[0, 0].tolist()

    b, i, u = BOUNDARY, INTERIOR, UNLABELLED
    assert row() == [i, i, i, b, i, i, u, u, i, i, i]
    assert row(unlabelled=9) == [i, i, i, b, i, i, u, u, i, i, u]
    assert row(interior_above=1) == [b, b, b, b, i, i, u, u, i, i, i]
    # whether 2 and 3 end where their labels end is not known
    assert row(touching_ids=True) == [i, i, b, b, b, u, u, u, u, b, b]
    mask = store(tmp_path / "m.h5:mask", np.array([[[1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]]], np.uint8).repeat(2, 1))
    assert row(mask=mask) == [i, u, i, b, i, i, u, u, i, i, i]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["train.networks.flat.architecture=vd3d"], "must be one of n4, .* a list of layers, or a table; got 'vd3d'"),
        (['train.networks.flat.architecture=["conv1 3x3"]'], r"a layer must read like .*; got 'conv1 3x3'"),
        (["train.networks.deep.maps_from=flt"], "maps_from of network 'deep' must name a network before it; got 'flt'"),
        (["train.networks.flat.initialise_from=deep"], "initialise_from of network 'flat' must name a network before"),
        (["train.networks.deep.initialise_from=none.safetensors"], "weights file none.safetensors does not exist"),
        (["train.networks.flat.maps_from=flat"], "maps_from of network 'flat' must name a network before it"),
        (['train.networks.deep.architecture=["a 1x2x2 6", "output 1x1x1 2 linear"]', "train.networks.deep.join=a"],
         "initialise_from of network 'deep': its first layer has another name or size in 'flat'"),
        (["train.networks.flat.join=conv1"], "network 'flat' needs maps_from for its second input"),
        (["train.networks.deep.join=conv9"], "join of 'deep' must name a convolution; got 'conv9'"),
        (["train.networks.deep.continues=flat"], "architecture of network 'deep' must be that of 'flat'"),
        (["train.networks.deep.name=flat"], "networks must have different names; got flat, flat"),
        (["train.validation.v.name=a"], "stacks and validation must have different names; got a, a"),
        (["train.networks.flat.stacks=[\"b\"]"], "stacks of network 'flat': there is no 'b'"),
        (["train.networks.flat.patch=[0, 16, 16]"], "patch of network 'flat' must be positive"),
        (["train.networks.flat.patch=[1, 60, 60]"], "no stack is large enough: 'flat' needs"),
        (["train.model=deep"], "model must be a network of one input, then networks of two; got deep with 2"),
        (["train.model=flat,deap"], "'deap' names no network; networks are flat, deep"),
        (["train.only=dep"], "'dep' names no network"),
        (["train.device=tpu"], "device must be auto, cpu, cuda"),
        (["train.recipe.learning_rat=1"], "unknown key 'learning_rat' in .train.recipe.; did you mean 'learning_rate'"),
        (["train.recipe=fist"], r"must be one of paper, fast, .*, or a table; did you mean 'fast'\?; got 'fist'"),
        (["train.recipe.base=quick"], "must be one of paper, fast, affinities, or a table"),
        (["train.stacks.a.sections=[0, 9]"], "sections must lie within 0:6"),
        (["train.stacks.a.image=none.h5:raw"], "none.h5 does not exist"),
        (["train.stacks.a.labels=$D:raw_"], "did you mean 'raw'"),
        (["train.stacks.a.labels=$D:other"], r"stack 'a' must have one shape; got \(6, 40, 44\) and \(6, 40, 9\)"),
        (["train.stacks.a.labels=$D:float"], "labels of stack 'a' must be integers"),
        (["train.stacks.a.mask=$D:other"], r"mask of stack 'a' must have the image's shape \(6, 40, 44\)"),
        (["train.stacks.a.image=$D:nan"], "s.h5:nan: the image must be finite; section 1 holds NaN"),
        (["train.stacks.a.image=$D:labels"], "must be an image; its metadata call it labels"),
        (["train.stacks.a.mask=$D:zeros"], "the training stacks hold no labelled voxel"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_anything_is_made(
    tmp_path: Path, data: Path, toml: Path, changes: list[str], words: str
) -> None:
    if "$D" in changes[0]:
        nan = load(f"{data}:raw").astype(np.float32)
        nan[1, 2, 3] = np.nan
        store(f"{data}:nan", nan)
        store(f"{data}:float", nan)
        store(f"{data}:zeros", np.zeros((6, 40, 44), np.uint8))
        store(f"{data}:other", np.ones((6, 40, 9), np.uint8))
    sets = [word for change in changes for word in ("--set", change.replace("$D", str(data)))]
    with untouched(tmp_path):
        text = sentence("train", toml, "--quiet", *sets)
    assert re.search(words, text), text


def test_a_recipe_has_a_name_and_may_be_changed() -> None:
    def recipe(value: Any) -> Recipe:
        made = NetworkConfig.model_validate(
            {"name": "a", "architecture": "vd2d", "patch": (1, 8, 8), "updates": 1, "recipe": value}
        ).recipe
        assert made is not None
        return made

    assert recipe("paper") == Recipe()
    assert recipe("fast") == recipe({"base": "fast"}) == RECIPES["fast"]
    assert recipe({"base": "fast", "grey": 0.5}) == replace(RECIPES["fast"], grey=0.5)
    assert recipe({"momentum": 0.5}) == Recipe(momentum=0.5)


def test_continuing_needs_the_same_recipe_and_more_updates(tmp_path: Path, toml: Path) -> None:
    text = toml.read_text()
    flat = text[text.index("[[train.networks]]") : text.index('[[train.networks]]\nname = "deep"')]
    for old, new, words in (
        ("updates = 12", "updates = 12", "updates of network 'more' must exceed the 12 of 'flat'"),
        ("patch = [1, 16, 16]", "patch = [1, 8, 8]", "patch of network 'more' must be that of 'flat'"),
        ("updates = 12", "updates = 20\nrecipe = {momentum = 0.5}", "recipe of network 'more' must be that of 'flat'"),
    ):
        more = flat.replace('"flat"', '"more"').replace(old, new) + 'continues = "flat"\n'
        toml.write_text(text + more)
        assert words in sentence("train", toml, "--set", "train.model=flat,deep", "--quiet")
    assert not (tmp_path / "run").exists()
