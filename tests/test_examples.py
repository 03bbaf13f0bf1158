"""The files of examples/: valid, as the paper has it, and run from end to end with a few updates."""

import importlib
import json
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest

from neuropil.cli import main
from neuropil.config import load
from neuropil.networks import packaged
from neuropil.networks.architecture import ARCHITECTURES
from neuropil.networks.checkpoint import Model, load_model, save_model
from neuropil.networks.network import DenseNetwork
from neuropil.networks.recipe import Recipe
from neuropil.stages import STAGES
from neuropil.stages.benchmark_config import SOURCES
from neuropil.stages.train_config import check
from neuropil.synthetic import make_tissue

FILES = sorted((Path(__file__).parent.parent / "examples").glob("*.toml"))
EXAMPLES = [path for path in FILES if "train" in tomllib.loads(path.read_text())]
PAPER, OWN = (next(path for path in EXAMPLES if path.stem == name) for name in ("vd2d3d_vnc", "own_stack"))


def config_of(path, verb):
    return load(importlib.import_module(f"neuropil.stages.{verb}").Config, verb, list(STAGES), path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_table_is_valid_and_train_and_test_sections_are_apart(path):
    verbs = list(tomllib.loads(path.read_text()))
    configs = {verb: config_of(path, verb) for verb in verbs}
    check(configs["train"])
    others = [(stack.image, stack.sections) for stack in configs["train"].validation]
    if configs["predict"].sections is not None:
        others.append((configs["predict"].input, configs["predict"].sections))
    for image, (start, _) in others:
        assert all(stack.sections[1] <= start for stack in configs["train"].stacks if stack.image == image)
    assert all(stack.sections[1] - stack.sections[0] >= 5 for stack in configs["train"].validation)


def test_the_paper_s_schedule():
    config = config_of(PAPER, "train")
    assert {net.name: (net.patch, net.updates) for net in config.networks} == {
        "vd2d": ((1, 150, 150), 60_000),
        "vd2d3d": ((1, 100, 100), 90_000),
        "vd2d_90k": ((1, 150, 150), 90_000),
    }
    assert (config.model, config.use) == (["vd2d_90k", "vd2d3d"], "last")
    assert Recipe(**{**vars(config.recipe), "validate_every": 1000}) == Recipe()  # the defaults are the paper's
    n4 = config_of(PAPER.with_name("n4_vnc.toml"), "train").networks[0]
    assert (n4.architecture, n4.patch, n4.updates) == ("n4", (1, 200, 200), 90_000)


def test_the_paper_s_example_runs(tmp_path, monkeypatch, capsys):
    """All four commands of the file, on synthetic sections under the name of the real ones, one update each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEUROPIL_DATA", str(tmp_path / "data"))
    tissue = make_tissue((20, 112, 116), rng=np.random.default_rng(0), voxel_size=(50.0, 12.0, 12.0))
    (tmp_path / "data" / "vnc").mkdir(parents=True)
    with h5py.File(tmp_path / "data" / "vnc" / "vnc_x000-703.h5", "w") as file:
        file["raw"] = tissue.image
        file["labels"] = np.where(tissue.ids > 0, 255, 0).astype(np.uint8)
        file.attrs["voxel_size_nm_zyx"] = tissue.voxel_size
    small = ["--set", "train.validation=[]", "--set", "train.stacks.vnc.sections=0:5", "--set", "train.device=cpu"]
    for name, updates in (("vd2d", 1), ("vd2d3d", 1), ("vd2d_90k", 2)):
        small += [
            "--set",
            f"train.networks.{name}.updates={updates}",
            "--set",
            f"train.networks.{name}.patch=[1, 4, 4]",
        ]
    assert main(["train", str(PAPER), "--quiet", *small]) == 0, capsys.readouterr().err
    fewer = {"predict": ["--sections", "15:20"], "evaluate": ["--truth-sections", "15:20"], "report": []}
    for verb, flags in fewer.items():
        assert main([verb, str(PAPER), "--quiet", *flags]) == 0, capsys.readouterr().err
    with h5py.File("runs/vnc/test.h5") as file:
        assert file["map"].shape == (5, 112, 116)
    assert Path("runs/vnc/report.html").stat().st_size > 10_000


def test_the_tutorial_s_example_runs(tmp_path, monkeypatch, capsys):
    """Fine-tuning of both networks from a packaged pair, one update each, on the tutorial's practice stack."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "models")
    networks = DenseNetwork(ARCHITECTURES["vd2d"], 1), DenseNetwork(ARCHITECTURES["vd2d3d"], 2)
    save_model(tmp_path / "models" / "vd2d3d-sstem.safetensors", Model(networks, {"licence": "NC"}))
    small = [f"train.networks.{name}.{key}" for name in ("vd2d", "vd2d3d") for key in ("updates=1", "patch=[1, 4, 4]")]
    sets = [word for change in small for word in ("--set", change)]
    for words in (
        ["synthetic", "practice.h5", "--shape", "20,112,116", "--voxel-size", "50,12,12"],
        ["convert", "practice.h5:raw", "image.tif"],
        ["convert", "practice.h5:labels", "labels.tif"],
        ["train", str(OWN), "--device", "cpu", *sets],
        ["predict", str(OWN), "--sections", "13:18"],
        ["segment", str(OWN)],
        ["report", "runs/own"],
    ):
        assert main([*words, "--quiet"]) == 0, capsys.readouterr().err
    model = load_model(Path("runs/own/model.safetensors"))
    assert [part["initialised_from"]["licence"] for part in model.card["parts"]] == ["NC", "NC"]
    with h5py.File("runs/own/segmentation.h5") as file:
        assert file["ids"].shape == (5, 112, 116)


@pytest.mark.parametrize(
    ("name", "shape", "voxel_size", "patch"),
    [("ac4", (24, 128, 128), (30.0, 12.0, 12.0), "[8, 64, 64]"), ("fib25", (64, 64, 72), (10.0,) * 3, "[56, 56, 56]")],
)
def test_the_examples_for_affinities_run(name, shape, voxel_size, patch, tmp_path, monkeypatch, capsys):
    """One update, on synthetic tissue under the name of the real file."""
    path = PAPER.with_name(f"affinities_{name}.toml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEUROPIL_DATA", str(tmp_path / "data"))
    tissue = make_tissue(shape, rng=np.random.default_rng(0), voxel_size=voxel_size)
    file, labels = (tomllib.loads(path.read_text())["train"]["stacks"][0][key] for key in ("image", "labels"))
    data = tmp_path / file.replace("data://", "data/").partition(":")[0]
    data.parent.mkdir(parents=True)
    with h5py.File(data, "w") as made:
        made["raw"], made[labels.rpartition(":")[2]] = tissue.image, tissue.ids
        made.attrs["voxel_size_nm_zyx"] = tissue.voxel_size
    sets = {"stacks.0.sections": "[0, 14]" if name == "ac4" else "[0, 60]", "networks.affinities.updates": 1,
            "networks.affinities.patch": patch, "device": "cpu", "validation": "[]"}  # fmt: skip
    words = [word for key, value in sets.items() for word in ("--set", f"train.{key}={value}")]
    assert main(["train", str(path), "--quiet", *words]) == 0, capsys.readouterr().err
    sections = "14:24" if name == "ac4" else "4:64"
    assert main(["predict", str(path), "--quiet", "--sections", sections]) == 0, capsys.readouterr().err
    with h5py.File(f"runs/affinities_{name}/affinities.h5") as file:
        assert file["affinities"].shape == (12, 10 if name == "ac4" else 60, *shape[1:])


def test_the_benchmark_s_example_runs(tmp_path, monkeypatch, capsys):
    """All of its volumes and methods, on synthetic tissue under the names of the real files."""
    path = PAPER.with_name("benchmark.toml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEUROPIL_DATA", str(tmp_path / "data"))
    tissue = make_tissue((20, 64, 64), rng=np.random.default_rng(0), voxel_size=(10.0,) * 3)
    arrays = {"raw": tissue.image, "train_p1": (tissue.ids == 0).astype(np.float32)}
    volumes = tomllib.loads(path.read_text())["benchmark"]["volumes"]
    for volume in volumes:
        for uri in [volume["truth"], *(one[key] for one in volume["methods"] for key in SOURCES if key in one)]:
            name, _, dataset = uri.removeprefix("data://").rpartition(":")
            (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(tmp_path / "data" / name, "a") as file:
                file.attrs["voxel_size_nm_zyx"] = (40.0, 40.0, 40.0)
                if dataset not in file:
                    file[dataset] = arrays.get(dataset, tissue.ids)
    here = {"sections": "0:20", "rows": "0:64", "columns": "0:64"}
    sets = [word for key, value in here.items() for word in ("--set", f"benchmark.volumes.ac4.{key}={value}")]
    assert main(["benchmark", str(path), "--quiet", "--resamples", "5", *sets]) == 0, capsys.readouterr().err
    found = json.loads(Path("runs/benchmark/results.json").read_text())["volumes"]
    assert [volume["name"] for volume in found] == [volume["name"] for volume in volumes]
    scores = found[0]["methods"][0]["scores"]
    assert (scores["adapted_rand_error"]["value"], scores["nerl"]["value"]) == (0, 1)
