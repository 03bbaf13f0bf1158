"""Every bad input: exit code 2, one sentence on stderr, no traceback, nothing half-written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from small import load, pair, recipe_toml, sentence, small_disk, stack, store, untouched


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good and bad files."""
    folder = tmp_path_factory.mktemp("files")
    stack(folder / "s.h5")
    image = load(f"{folder}/s.h5:raw")
    tifffile.imwrite(folder / "flat.tif", image[0])
    tifffile.imwrite(folder / "whole.tif", image, photometric="minisblack")
    (folder / "cut.tif").write_bytes((folder / "whole.tif").read_bytes()[:5000])
    (folder / "words.h5").write_bytes(b"these are words, not an HDF5 file")
    nan = image.astype(np.float32)
    nan[3, 2, 1] = np.nan
    store(f"{folder}/v.h5:nan", nan)
    store(f"{folder}/v.h5:small", image[:2, :40, :5])
    store(f"{folder}/v.h5:narrow", image[:, :, :30])
    store(f"{folder}/map.zarr", (nan > 0).astype(np.float32), kind="boundary")
    store(f"{folder}/v.h5:links", np.zeros((3, *image.shape), np.float32))
    pair(folder / "pair.safetensors")
    whole = (folder / "pair.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-100])
    (folder / "other.safetensors").write_bytes(_renamed(whole))
    recipe_toml(folder, folder / "s.h5")
    (folder / "typo.toml").write_text('[predict]\nwieghts = "x"\n')
    (folder / "table.toml").write_text("[predcit]\n")
    (folder / "broken.toml").write_text("[predict\n")
    return folder


def _renamed(weights: bytes) -> bytes:
    """Give a model file a card of another architecture: one more map in its first layer."""
    return weights.replace(b"conv1 1x2x2 6", b"conv1 1x2x2 7")


PREDICT = "predict --weights pair.safetensors --output new.zarr --input "
EVALUATE = "evaluate --boundary map.zarr --truth "
BAD = [
    # missing
    ("info none.h5:raw", r"none\.h5 does not exist"),
    ("info none.zarr", "does not exist"),
    ("info none.tif", "does not exist"),
    (PREDICT + "none.h5:raw", r"none\.h5 does not exist"),
    ("predict --weights none.safetensors --input s.h5:raw --output new.zarr", "weights file none.* does not exist"),
    ("segment --input none.zarr --output new.zarr", "does not exist"),
    ("evaluate --boundary none.zarr --truth s.h5:labels", "does not exist"),
    ("train none.toml", r"config file none\.toml does not exist"),
    ("report none", "is not there"),
    # damaged or foreign
    ("info cut.tif", "truncated"),
    (PREDICT + "cut.tif", "truncated"),
    ("info words.h5", "is not an HDF5 file"),
    ("predict --weights cut.safetensors --input s.h5:raw --output new.zarr", "not a readable safetensors file"),
    ("predict --weights s.h5 --input s.h5:raw --output new.zarr", "not a readable safetensors file"),
    ("predict --weights other.safetensors --input s.h5:raw --output new.zarr", "another architecture"),
    ("predict --weights vd2d3d-stem --input s.h5:raw --output new.zarr",
     "'vd2d3d-stem' is neither a weights file nor a packaged model; .*packaged are"),
    ("plan --weights vd2 --shape 1,9,9", "'vd2' is neither a weights file nor a packaged model"),
    ("train run.toml --set train.networks.flat.initialise_from=sstem", "'sstem' is neither a weights file nor a"),
    ("models none", "'none' is neither a weights file nor a packaged model"),
    ("models none.safetensors", "weights file none.safetensors does not exist"),
    ("models cut.safetensors", "not a readable safetensors file"),
    ("models a b", "too many arguments: a b; expected name"),
    (PREDICT + "v.h5:narrow --resample", "resample: v.h5:narrow does not say its voxel size; record it with"),
    # which dataset
    ("info s.h5:rav", "did you mean 'raw'"),
    (PREDICT + "s.h5:rav", "did you mean 'raw'"),
    (PREDICT + "s.h5", "3 datasets and none is named.*labels.*raw"),
    ("segment --input s.h5 --output new.zarr", "3 datasets and none is named"),
    ("evaluate --boundary map.zarr --truth s.h5:label", "did you mean 'labels'"),
    # axes, shapes, values
    ("info flat.tif", "2"),
    (PREDICT + "flat.tif", "must have 3 axes"),
    (PREDICT + "s.h5:labels", "must be an image; its metadata call it labels"),
    ("train run.toml --set train.stacks.a.image=flat.tif", "must have 3 axes"),
    ("train run.toml --set train.stacks.a.labels=v.h5:narrow", r"one shape; got \(6, 40, 44\) and \(6, 40, 30\)"),
    (EVALUATE + "v.h5:narrow", r"must have one shape; got \(6, 40, 44\) and \(6, 40, 30\)"),
    (EVALUATE + "s.h5:labels --truth-sections 0:3", "must have one shape"),
    (EVALUATE + "v.h5:nan", "must hold integer labels"),
    (PREDICT + "v.h5:nan", "section 3 holds NaN"),
    ("train run.toml --set train.stacks.a.image=v.h5:nan", "section 3 holds NaN"),
    ("segment --input v.h5:nan --output new.zarr", "NaN"),
    (PREDICT + "v.h5:small", "smaller than the field of view.*2 more in x"),
    (PREDICT + "s.h5:raw --sections 4:9", r"sections must lie within 0:6 of .*; got 4:9"),
    ("train run.toml --set train.networks.flat.patch=[1,40,44]", "no stack is large enough.*lacks"),
    ("train run.toml --set train.validation.v.image=v.h5:small --set train.validation.v.labels=v.h5:small"
     " --set train.validation.v.sections=0:2", "smaller than the field of view.*2 more in x"),
    ("convert v.h5:nan new.zarr --affinities-from waterz", "must hold affinities .c, z, y, x. to be given offsets"),
    ("convert v.h5:links new.zarr --affinities-from watrez", "'affinities_from' in .convert.: input should be"),
    ("convert v.h5:links new.zarr --offsets 0,0,1", "3 channels and 1 offsets are given"),
    ("segment --input v.h5:links --output new.zarr", "does not say which voxels its 3 channels link; record it with"),
    ("tune --input none.zarr --truth s.h5:labels --output new.toml", "none.zarr does not exist"),
    ("tune --input map.zarr --truth none.h5:ids --output new.toml", "none.h5 does not exist"),
    ("tune --input v.h5:links --truth s.h5:labels --output new.toml", "does not say which voxels"),
    ("tune --input map.zarr --truth s.h5:raw --check-sections 3:9 --output new.toml", "must not overlap"),
    # configuration
    ("predict typo.toml", "unknown key 'wieghts' in .predict.; did you mean 'weights'"),
    ("predict table.toml", "unknown table .predcit. in table.toml; did you mean 'predict'"),
    ("predict broken.toml", "broken.toml is not readable TOML"),
    ("predict --input s.h5:raw --output new.zarr", "'weights' is missing in .predict.; give it .* as --weights"),
    ("train run.toml --set train.recipe.lerning_rate=1", "did you mean 'learning_rate'"),
    ("train run.toml --set train.networks.deep.updatez=1", "unknown key 'updatez' in .train.networks.deep.; did"),
    ("synthetic new.h5 --shape 0,9,9", "shape"),
    ("synthetic new.h5:raw --shape 4,9,9", "must name a file or folder"),
    # outputs
    ("predict --weights pair.safetensors --input s.h5:raw --output map.zarr", "map.zarr exists; give --overwrite"),
    ("predict --weights pair.safetensors --input s.h5:raw --output s.h5:mask", "exists; give --overwrite"),
    ("segment --input map.zarr --output s.h5:labels", "exists; give --overwrite"),
    ("convert s.h5:raw whole.tif", "exists.* give --overwrite"),
    ("synthetic s.h5 --shape 4,40,40", "exists.* give --overwrite"),
    ("predict --weights pair.safetensors --input s.h5:raw --output new.xyz", "cannot tell the format"),
    ("info s.h5:raw --json none/x.json", "must name a file in a folder that exists"),
    ("predict --weights pair.safetensors --input s.h5:raw --output words.h5/x", "not an HDF5 file"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "words"), BAD)
def test_one_sentence_and_nothing_written(place: Path, monkeypatch: pytest.MonkeyPatch, line: str, words: str) -> None:
    monkeypatch.chdir(place)
    with untouched(place):
        text = sentence(*line.split())
    assert re.search(words, text), text


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "64k") as folder:
        yield folder


@pytest.mark.parametrize(
    "line",
    [
        "synthetic {}/t.h5 --shape 4,120,120",
        "synthetic {}/t.zarr --shape 8,120,120",
        "convert big.h5:raw {}/r.tif",
        "convert big.h5:raw {}/r.zarr",
        "predict --weights pair.safetensors --input big.h5:raw --output {}/m.zarr",
        "segment --input big.h5:map --output {}/ids.tif",
        "segment --input big.h5:map --output {}/ids.h5:ids",
        "segment --input big.h5:noise --output {}/ids.zarr --size 0 --dust 0 --low 0 --high 1.1",
        "train run.toml --output {}/run",
        "evaluate --boundary big.h5:map --truth big.h5:raw --image big.h5:raw --run {}/run",
    ],
)
def test_full_disk(place: Path, full: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.chdir(place)
    if not (place / "big.h5").exists():
        noise = np.random.default_rng(0).integers(0, 255, (8, 120, 120), dtype=np.uint8)
        store("big.h5:raw", noise, kind="image")
        store("big.h5:map", noise, kind="boundary", scale=1 / 255)
        store("big.h5:noise", noise.astype(np.float32) / 255, kind="boundary")
    with untouched(place):
        text = sentence(*line.format(full).split(), "--quiet")
    assert "disk is full" in text or "No space left" in text, text
    if line.startswith(("convert", "predict", "segment")):
        assert list(full.iterdir()) == []
