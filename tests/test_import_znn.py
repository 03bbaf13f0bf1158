"""`neuropil import-znn`: ZNN's networks give the same numbers here, and what cannot be taken over is refused."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import reference_znn as znn
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, signal
from small import command, good, load, recipe_toml, sentence, stack, store, untouched

from neuropil.errors import VolumeNotFound
from neuropil.networks.architecture import N4, VD2D, Architecture
from neuropil.networks.checkpoint import load_model
from neuropil.networks.znn import architecture_of, parse_description
from neuropil.volume.uri import parse_uri
from neuropil.volume.znn import read_network

Groups = dict[str, dict[str, Any]]


def logits(path: Path, image: np.ndarray) -> np.ndarray:
    (network,) = load_model(path).networks
    with torch.inference_mode():
        return network([torch.from_numpy(image)[None, None]])[0].numpy()


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 3)] * 3), st.tuples(*[st.integers(1, 2)] * 3))
def test_the_twin_convolves(seed: int, size: tuple[int, ...], sparse: tuple[int, ...]) -> None:
    """What the twin computes is the mathematicians' convolution with the filter pulled apart."""
    rng = np.random.default_rng(seed)
    image, filters = rng.normal(size=(6, 7, 8)), rng.normal(size=size)
    apart = np.zeros([(k - 1) * s + 1 for k, s in zip(size, sparse)])
    apart[tuple(slice(None, None, s) for s in sparse)] = filters
    np.testing.assert_allclose(
        znn.convolve(image, filters, sparse), signal.convolve(image, apart, mode="valid", method="direct"), atol=1e-9
    )


@st.composite
def networks(draw: st.DrawFn) -> Groups:
    """Chains of one to three convolutions, poolings, dropouts; edges named at random, so that no order is by name."""
    sizes = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3))
    nodes = st.sampled_from([znn.RELU, znn.LINEAR, znn.TANH, None])
    others = st.one_of(st.tuples(sizes, sizes), st.sampled_from([0.5, 0.75]))
    layers: list[Any] = []
    for _ in range(draw(st.integers(0, 2))):
        layers.append((draw(sizes), draw(st.integers(1, 3)), draw(nodes)))
        layers += draw(st.lists(others, max_size=2))
    layers.append((draw(sizes), 2, draw(st.sampled_from([znn.LINEAR, None]))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = [f"e-{i}" for i in rng.permutation(len(layers))]
    return znn.network(layers, rng, names, draw(st.sampled_from([np.float32, np.float64])))


@given(networks(), st.sampled_from(["", "processing/znn/train/network"]))
def test_imported_networks_give_what_znn_gives(groups: Groups, place: str) -> None:
    view = architecture_of(parse_description(znn.describe(groups)), "any").field_of_view
    image = np.random.default_rng(1).normal(size=[v + 2 for v in view]).astype(np.float32)
    with TemporaryDirectory() as folder:
        net, model = Path(folder, "net.h5"), Path(folder, "net.safetensors")
        znn.save(net, groups, place)
        good("import-znn", net, model)
        np.testing.assert_allclose(logits(model, image), znn.forward(groups, image), rtol=1e-4, atol=1e-5)


def test_layers_may_come_from_a_description(tmp_path: Path) -> None:
    """Then only the weights of the saved network count."""
    groups, (net, spec, model) = znn.small(), [tmp_path / f"net.{suffix}" for suffix in ("h5", "znn", "safetensors")]
    znn.save(net, {name: {**fields, "type": "unknown"} for name, fields in groups.items()})
    spec.write_text(znn.describe(groups))
    good("import-znn", net, model, "--spec", spec)
    image = np.random.default_rng(1).normal(size=(4, 9, 9)).astype(np.float32)
    np.testing.assert_allclose(logits(model, image), znn.forward(groups, image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", [N4, VD2D], ids=lambda one: one.name)
def test_a_description_alone_is_printed_for_train(tmp_path: Path, architecture: Architecture) -> None:
    (tmp_path / "net.znn").write_text(znn.described(architecture))
    done = command("import-znn", tmp_path / "net.znn", "--json", tmp_path / "net.json")
    (table,) = tomllib.loads(done.out)["train"]["networks"]
    assert table == {"name": "net", "architecture": list(architecture.lines)}
    told = json.loads((tmp_path / "net.json").read_text())
    assert (told["parameters"], told["field_of_view"]) == (
        architecture.parameter_count,
        list(architecture.field_of_view),
    )


def test_the_card_and_what_is_there_already(tmp_path: Path) -> None:
    net, model = tmp_path / "net.h5", tmp_path / "net.safetensors"
    znn.save(net, znn.small(), updates=1500)
    words = ("import-znn", net, model, "--voxel-size", "40,7,7", "--notes", "trained by us")
    assert "1,500 updates" in good(*words)
    card = json.loads(model.with_suffix(".json").read_text())
    assert (card["updates"], card["voxel_size"], card["notes"]) == (1500, [40, 7, 7], "trained by us")
    assert card["source"]["file"] == "net.h5"
    assert "net.safetensors exists; give --overwrite" in sentence(*words)
    good(*words, "--overwrite")
    model.unlink()
    assert "net.json exists; give --overwrite" in sentence(*words)


def test_predict_takes_it(tmp_path: Path) -> None:
    znn.save(tmp_path / "net.h5", znn.small())
    good("import-znn", tmp_path / "net.h5", tmp_path / "net.safetensors")
    image = np.random.default_rng(1).integers(0, 255, (3, 20, 20), dtype=np.uint8)
    store(tmp_path / "s.h5:raw", image, kind="image")
    words = ("--weights", tmp_path / "net.safetensors", "--input", f"{tmp_path}/s.h5:raw", "--dtype", "float32")
    good("predict", *words, "--output", f"{tmp_path}/map.h5:map")
    standard = (image - image.mean((1, 2), keepdims=True)) / image.std((1, 2), keepdims=True)
    interior, boundary = znn.forward(znn.small(), standard)
    made = load(f"{tmp_path}/map.h5:map")
    z, y, x = ((n - m) // 2 for n, m in zip(image.shape, boundary.shape))
    inner = made[z : z + boundary.shape[0], y : y + boundary.shape[1], x : x + boundary.shape[2]]
    np.testing.assert_allclose(inner, 1 / (1 + np.exp(interior - boundary)), atol=1e-5)


def test_training_may_begin_with_it(tmp_path: Path) -> None:
    layers = [((1, 3, 3), 3, znn.RELU), ((1, 2, 2), (1, 2, 2)), ((1, 2, 2), 2, znn.LINEAR)]
    groups = znn.network(layers, np.random.default_rng(0), "abc")
    znn.save(tmp_path / "net.h5", groups)
    good("import-znn", tmp_path / "net.h5", tmp_path / "net.safetensors")
    run = recipe_toml(tmp_path, stack(tmp_path / "s.h5"), updates=1)
    run.write_text(run.read_text().rpartition("[[train.networks]]")[0])  # the flat network alone
    where, model = "train.networks.flat", tmp_path / "net.safetensors"
    lines = json.dumps(load_model(model).networks[0].architecture.lines)
    sets = ["train.recipe.learning_rate=1e-9", f"{where}.architecture={lines}", f"{where}.initialise_from={model}"]
    good("train", run, *(word for one in sets for word in ("--set", one)))
    image = np.random.default_rng(1).normal(size=(1, 9, 9)).astype(np.float32)
    made = logits(tmp_path / "run" / "flat" / "last.safetensors", image)
    np.testing.assert_allclose(made, znn.forward(groups, image), rtol=1e-4, atol=1e-5)


def altered(name: str, **fields: Any) -> Groups:
    """The small network with some fields of a group replaced, or left out where None."""
    groups = znn.small()
    groups[name] = {key: value for key, value in {**groups[name], **fields}.items() if value is not None}
    return groups


def without(name: str) -> Groups:
    return {key: value for key, value in znn.small().items() if key != name}


NAN = np.full((1, 3, 1, 2, 3), np.nan, np.float32)
BAD_GROUPS = [
    (altered("first", filters=None), "must hold filters of 'first'"),
    (altered("nfirst", biases=None), "must hold biases of 'nfirst'"),
    (altered("first", filters=np.zeros((3, 1, 1, 2, 3), np.float32)), r"shape \(1, 3, 1, 2, 3\); got float32 \(3, 1"),
    (altered("first", filters=np.zeros((1, 3, 1, 2, 3), np.int64)), "must be real numbers.* got int64"),
    (altered("nfirst", biases=np.zeros(4, np.float32)), r"biases of 'nfirst'.* shape \(3,\); got float32 \(4,\)"),
    (altered("first", filters=NAN), "filters of 'first' must be finite"),
    (altered("first", type=None), "edges 'first' must have the field 'type'"),
    (altered("first", size=None), "edges 'first' must have the field 'size'"),
    (altered("first", size=(4, 4)), "size of 'first' must be 3 numbers"),
    (altered("first", size="1,x,4"), "size of 'first' must be 3 numbers.* got '1,x,4'"),
    (altered("first", size=(1, 0, 4)), "size of 'first' must be positive integers"),
    (altered("first", size=(1, np.nan, 4)), "size of 'first' must be positive integers"),
    (altered("nfirst", size=(10**12,)), "filters of 'first' must be real numbers of shape"),
    (altered("first", stride=(1, 2, 2)), "stride of convolution 'first' must be 1,1,1"),
    (altered("first", type="maxout"), "'first' must be a conv, or a max_filter or dropout.* it is a maxout"),
    (altered("npooling", type="transfer"), "into nodes of type sum; it is a max_filter into nodes of type transfer"),
    (
        altered("nfirst", function="logistics"),
        "function rectify_linear, linear, tanh; they are transfer with logistics",
    ),
    (altered("nfirst", function="tanh"), "function_args of tanh nodes 'nfirst' must be 1.7159,0.6666; they are 1,1"),
    (altered("nfirst", sparse="1,2,2"), "sparse"),
    (altered("nlast", function="rectify_linear"), "last convolution of 'net' must be linear"),
    (altered("nlast", size=(3,)), "must have 2 maps, interior and boundary; it has 3"),
    (altered("image", type="sum"), "one input, the image, of size 1; it has none"),
    (altered("image", size=(2,)), "one input, the image, of size 1; it has image of size"),
    (altered("npooling", type="input"), "it has image of size .* and npooling"),
    (altered("pooling", output="nowhere"), "'pooling' must lead to nodes that are described; it leads to 'nowhere'"),
    (altered("last", output="image"), "'last' must lead to nodes that are described; it leads to 'image'"),
    (altered("pooling", input="nowhere"), "must be reached from 'image'; not reached are"),
    (altered("last", input="nfirst"), "one chain of edges; it branches into"),
    (altered("last", output="nfirst"), "one chain of edges; it branches into"),
    (without("image"), "one input, the image, of size 1; it has none"),
    (without("nfirst"), "'first' must lead to nodes that are described; it leads to 'nfirst'"),
]


@pytest.mark.parametrize(("groups", "words"), BAD_GROUPS, ids=[words for _, words in BAD_GROUPS])
def test_what_cannot_be_taken_over(tmp_path: Path, groups: Groups, words: str) -> None:
    znn.save(tmp_path / "net.h5", groups)
    with untouched(tmp_path):
        text = sentence("import-znn", tmp_path / "net.h5", tmp_path / "net.safetensors")
    assert re.search(words, text), text
    assert "net.h5: " in text


BAD_LINES = [
    ("none.h5 new.safetensors", "none.h5 does not exist"),
    ("none.znn", "none.znn: no such file"),
    ("words.h5 new.safetensors", "words.h5 is not an HDF5 file"),
    ("cut.h5 new.safetensors", "cut.h5 is truncated or damaged"),
    ("other.h5 new.safetensors", "other.h5 holds no network of ZNN"),
    (". new.safetensors", "is not an HDF5 file"),
    ("net.h5", "must be a file whose name ends in .safetensors; got none"),
    ("net.h5 new.h5", "must be a file whose name ends in .safetensors; got new.h5"),
    ("net.h5 new.safetensors --spec none.znn", "none.znn: no such file"),
    ("net.h5 new.safetensors --spec words.h5", "words.h5: line 1 must be 'nodes NAME'"),
    ("net.h5 new.safetensors --spec twice.znn", "twice.znn: names of nodes and edges must differ; line 3 uses 'a'"),
    ("net.h5 new.safetensors --spec lone.znn", "lone.znn: line 2 must be"),
    ("net.h5 new.safetensors --spec empty.znn", "empty.znn: the network must have one input"),
    ("net.h5 new.safetensors --voxel-size 40,0,7", "voxel_size must be positive"),
    ("net.h5 new.safetensors --name a/b", "must be a name for files"),
    ("net.h5 net.h5/new.safetensors", "net.h5"),
    ("net.znn new.safetensors", "describes a network without weights; .* as --spec"),
    ("net.znn --spec net.znn", "describes a network without weights"),
]


@pytest.mark.parametrize(("line", "words"), BAD_LINES, ids=[line for line, _ in BAD_LINES])
def test_bad_words_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    znn.save("net.h5", znn.small())
    Path("net.znn").write_text(znn.describe(znn.small()))
    Path("words.h5").write_text("these are words, not an HDF5 file")
    Path("cut.h5").write_bytes(Path("net.h5").read_bytes()[:3000])
    store("other.h5:raw", np.zeros((2, 3, 4), np.uint8))
    Path("twice.znn").write_text("nodes a\ntype sum\nedges a\n")
    Path("lone.znn").write_text("nodes a\ntype\n")
    Path("empty.znn").write_text("# nothing\n")
    with untouched(tmp_path):
        text = sentence("import-znn", *line.split())
    assert re.search(words, text), text


def real(uri: str) -> str:
    """A file of the data folder, or skip the test."""
    try:
        place = parse_uri(f"data://{uri}")
    except VolumeNotFound:
        pytest.skip("file not there")
    return f"{place.path}:{place.dataset}" if place.dataset else place.path


with_data = pytest.mark.skipif("NEUROPIL_DATA" not in os.environ, reason="real data not there")
N4_FILE, IMAGE = "znn_weights/N4_piriform_net_current.h5", "piriform/piriform_raw.h5:raw"


@with_data
def test_n4_is_n4(tmp_path: Path) -> None:
    """A network of 150,000 updates of ZNN: our N4, and the twin's numbers on real tissue."""
    model = tmp_path / "n4.safetensors"
    good("import-znn", real(N4_FILE), model, "--name", "n4")
    loaded = load_model(model)
    assert loaded.networks[0].architecture.lines == tuple(line.replace("output", "conv6") for line in N4.lines)
    assert loaded.card["updates"] == 150_000
    section = load(real(IMAGE))[2, 40:138, 50:150].astype(np.float32)
    image = ((section - section.mean()) / section.std())[None]
    made = logits(model, image)
    assert made.shape == (2, 1, 4, 6)
    np.testing.assert_allclose(made, znn.forward(read_network(Path(real(N4_FILE))).groups, image), atol=1e-4)


@with_data
def test_n4_finds_the_boundaries_of_its_tissue(tmp_path: Path) -> None:
    """Dark lines are boundary, and it is as sure of itself as ZNN's learning curve says (class error 0.099)."""
    model, made = tmp_path / "n4.safetensors", f"{tmp_path}/map.h5:map"
    good("import-znn", real(N4_FILE), model)
    words = ("--input", real(IMAGE), "--sections", "2:3", "--dtype", "float32")
    good("predict", "--weights", model, *words, "--output", made)
    boundary, image = load(made), load(real(IMAGE))[2:3].astype(np.float32)
    dark = ndimage.gaussian_filter(image, (0, 12, 12)) - ndimage.gaussian_filter(image, (0, 1.5, 1.5))
    assert np.corrcoef(boundary.ravel(), dark.ravel())[0, 1] > 0.4
    assert 0.2 < boundary.mean() < 0.5
    assert np.minimum(boundary, 1 - boundary).mean() < 0.12
