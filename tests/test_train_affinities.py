"""`neuropil train` for affinities: the same run folder, a model that says what it predicts, mistakes told at once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from small import VOXEL_SIZE, command, good, load, sentence, stack, store, untouched

from neuropil.networks.augmentation import EM_AUGMENTATION
from neuropil.networks.checkpoint import load_model
from neuropil.networks.recipe import RECIPES
from neuropil.networks.unet_architecture import architecture_for
from neuropil.segmentation.affinities import LONG_RANGE
from neuropil.stages.train_config import NetworkConfig, unet_of

TABLE = 'architecture = { base = "rsunet_tiny", widths = [4, 6], offsets = [[-1,0,0], [0,-1,0], [0,0,-1], [0,0,-3]] }'


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return stack(tmp_path / "s.h5")


@pytest.fixture
def toml(tmp_path: Path, data: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(f"""
[train]
output = "{tmp_path / "run"}"
seed = 3
recipe = {{ base = "affinities", augmentation = {{ shift = 3 }}, validate_every = 4 }}
[[train.stacks]]
name = "a"
image = "{data}:raw"
labels = "{data}:labels"
sections = [0, 4]
[[train.validation]]
name = "v"
image = "{data}:raw"
labels = "{data}:labels"
sections = [4, 6]
[[train.networks]]
name = "affinities"
{TABLE}
patch = [2, 16, 16]
updates = 8
""")
    return path


def test_a_run_makes_a_model_that_says_what_it_is(tmp_path: Path, data: Path, toml: Path) -> None:
    out, run = good("train", toml), tmp_path / "run"
    assert "rand error" in out
    model = load_model(run / "model.safetensors")
    unet, card = model.unet, model.card
    assert unet is not None
    assert unet.architecture.offsets == ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, -3))
    assert unet.architecture.pooling == ((1, 2, 2),)
    assert (tuple(card["voxel_size"]), card["patch"]) == (VOXEL_SIZE, [2, 16, 16])
    assert card["recipe"]["augmentation"] == vars(EM_AUGMENTATION) | {"shift": 3}
    assert card["data"][0]["image"] == f"{data}:raw"
    record = json.loads((run / "run.json").read_text())["networks"]["affinities"]
    assert 0 <= record["rand_error"] <= 1
    assert record["rand_error"] == card["scores"]["validation"]["rand_error"]
    lines = [json.loads(line) for line in (run / "affinities/log.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines if "validation" in line] == [4, 8]
    again = command("train", toml)
    assert "affinities: done before" in again.err
    good("report", run)
    assert "Validation Rand error" in (run / "report.html").read_text()


def test_what_begins_with_another_s_weights_or_goes_on(tmp_path: Path, toml: Path) -> None:
    good("train", toml)
    text = toml.read_text()
    tuned = tmp_path / "tuned.toml"
    tuned.write_text(text.replace("updates = 8", f'updates = 1\ninitialise_from = "{tmp_path}/run/model.safetensors"'))
    good("train", tuned, "--output", tmp_path / "tuned", "--set", "train.recipe.learning_rate=0")
    one, two = (load_model(tmp_path / run / "model.safetensors") for run in ("run", "tuned"))
    assert (one.unet.output.weight == two.unet.output.weight).all()
    assert two.card["initialised_from"]["weights"] == f"{tmp_path}/run/model.safetensors"
    wider = ["--set", "train.networks.affinities.architecture.widths=[5, 6]", "--output", tmp_path / "wider", "--quiet"]
    assert "they are of another architecture" in sentence("train", tuned, *wider)


def test_batches(tmp_path: Path, toml: Path) -> None:
    batch = ["--set", "train.networks.affinities.batch=3", "--set", "train.networks.affinities.updates=2"]
    good("train", toml, *batch, "--output", tmp_path / "three")
    weights = [load_model(tmp_path / "three/model.safetensors").unet.output.weight]
    good("train", toml, *batch[2:], "--output", tmp_path / "one")
    weights.append(load_model(tmp_path / "one/model.safetensors").unet.output.weight)
    assert not (weights[0] == weights[1]).all()
    changed = ["--set", "train.networks.affinities.batch=2", "--output", tmp_path / "three"]
    assert "batch" in sentence("train", toml, *batch[2:], *changed)


def test_a_mask_and_values_hide_voxels(tmp_path: Path, data: Path, toml: Path) -> None:
    labels = load(f"{data}:labels").astype(np.int64)
    labels[:, :, 30:] = -1
    store(f"{data}:signed", labels)
    sets = ["train.stacks.a.labels", "train.validation.v.labels"]
    words = [word for key in sets for word in ("--set", f"{key}={data}:signed")]
    hidden = [word for key in ("stacks.a", "validation.v") for word in ("--set", f"train.{key}.unlabelled=-1")]
    good("train", toml, *words, *hidden)
    good(
        "train",
        toml,
        "--fresh",
        "--set",
        f"train.stacks.a.mask={data}:mask",
        "--set",
        "train.stacks.a.interior_above=11",
    )
    store(f"{data}:zeros", np.zeros((6, 40, 44), np.uint8))
    mask = ["--set", f"train.stacks.a.mask={data}:zeros", "--quiet"]
    assert "the training stacks hold no labelled voxel" in sentence("train", toml, "--fresh", *mask)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["networks.affinities.architecture=rsunt"], "'rsunt'"),
        (["networks.affinities.architecture.widht=[4]"], "unknown key 'widht' in .*; did you mean 'widths'"),
        (["networks.affinities.architecture.norm=none_"], "'norm' in .*.architecture.: input should be 'batch'"),
        (["networks.affinities.architecture.widths=[4, 0]"], "widths must be positive"),
        (["networks.affinities.architecture.pooling=[]"], "pooling must be 1 triples"),
        (["networks.affinities.patch=[2, 15, 16]"], r"patch must be multiples of \(1, 2, 2\)"),
        (["networks.affinities.patch=[2, 16, 60]"], "no stack is large enough: 'rsunet_tiny' needs"),
        (["networks.affinities.architecture.offsets=[[0, 0, -9]]"], "do not hold all links of offset"),
        (["networks.affinities.join=conv1"], "join of network 'affinities' is for boundary networks"),
        (["networks.affinities.spacing=2"], "spacing of network 'affinities' is for boundary networks; got 2"),
        (["stacks.a.rows=30:41"], "rows of stack 'a' must lie within 0:40; got 30:41"),
        (["stacks.a.columns=[30, 20]"], "must be START:STOP with START below STOP"),
        (["stacks.a.touching_ids=true"], "touching_ids of stack 'a' is for boundary maps; .* recipe.erosion"),
        (["recipe.rebalance=global"], "rebalance must be 'patch' or 'none' for affinities"),
        (["recipe.augmentation.missing=2"], r"missing must be a share in \[0, 1\]; got 2"),
        (["recipe.augmentation.mising=1"], "unknown key 'mising' in .train.recipe.augmentation.; did you mean 'miss"),
        (["networks.affinities.architecture=vd2d"], "recipe.augmentation is for affinities"),
        (["networks.affinities.initialise_from=vd2d-sstem"], "must be a U-Net that predicts affinities; it is 'vd2d'"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_anything_is_made(
    tmp_path: Path, data: Path, toml: Path, changes: list[str], words: str
) -> None:
    sets = [word for change in changes for word in ("--set", f"train.{change}")]
    with untouched(tmp_path):
        text = sentence("train", toml, "--quiet", *sets)
    assert re.search(words, text), text


def test_a_stack_may_be_a_part_of_its_sections(tmp_path: Path, data: Path, toml: Path) -> None:
    parts = {"stacks.a.rows": "0:20", "validation.v.rows": "20:40", "validation.v.sections": "0:4"}
    parts |= {"stacks.a.columns": "4:40"}
    words = [word for key, value in parts.items() for word in ("--set", f"train.{key}={value}")]
    masked = ["--set", f"train.stacks.a.mask={data}:mask"]
    done = command("train", toml, *words, *masked)
    assert (done.code, "share sections" in done.err) == (0, False)
    card = load_model(tmp_path / "run/model.safetensors").card
    assert (card["data"][0]["rows"], card["data"][0]["columns"]) == ([0, 20], [4, 40])
    assert "no stack is large enough" in sentence("train", toml, "--quiet", "--set", "train.stacks.a.rows=0:15")


def test_a_voxel_size_is_needed(tmp_path: Path, toml: Path) -> None:
    store(tmp_path / "bare.h5:raw", np.zeros((6, 40, 44), np.uint8))
    bare = ["--set", f"train.stacks.a.image={tmp_path}/bare.h5:raw", "--quiet"]
    assert "needs a voxel size, which its first stack does not have" in sentence("train", toml, *bare)
    good("train", toml, *bare, "--set", "train.networks.affinities.architecture.voxel_size=[50, 4, 4]")


def test_the_u_net_follows_the_voxel_size() -> None:
    net = {"name": "n", "patch": (16, 32, 32), "updates": 1}
    paper, small = (NetworkConfig(architecture=name, **net) for name in ("rsunet", "rsunet_small"))
    assert unet_of(paper, (30, 6, 6)) == architecture_for((30, 6, 6))
    assert unet_of(paper, (30, 6, 6)).offsets == LONG_RANGE
    assert unet_of(small, (10, 10, 10)) == architecture_for((10, 10, 10), breadth="small")
    changed = NetworkConfig(architecture={"widths": [4, 6, 8], "norm": "group", "first": [3, 3, 3]}, **net)
    with pytest.raises(ValueError, match="widths must be multiples of 4"):
        unet_of(changed, (8, 8, 8))
    assert RECIPES["affinities"].augmentation == EM_AUGMENTATION


def test_one_run_learns_one_kind_of_thing(toml: Path) -> None:
    text = toml.read_text()
    toml.write_text(
        f'{text}\n[[train.networks]]\nname = "flat"\narchitecture = "vd2d"\npatch = [1, 8, 8]\nupdates = 1\n'
    )
    assert "must all predict affinities, or all boundary maps; 'flat' differs" in sentence("train", toml, "--quiet")
    toml.write_text(text + text[text.index("[[train.networks]]") :].replace('"affinities"', '"more"', 1))
    assert "model must be one network that predicts affinities; got affinities, more" in sentence(
        "train", toml, "--quiet", "--set", 'train.model=["affinities", "more"]'
    )
