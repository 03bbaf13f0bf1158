"""`neuropil verify`: outputs of every command pass; whatever is damaged afterwards is named, with exit code 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy import ndimage
from small import VOXEL_SIZE, command, good, pair, sentence, stack, store

from neuropil.blockwise import Ledger
from neuropil.geometry import Box

SHAPE = (12, 40, 44)
HOW = ("--size", 20, "--dust", 12, "--merge-threshold", 0.45)


@pytest.fixture
def affinities(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    values = np.stack([ndimage.gaussian_filter(rng.random(SHAPE), 1.2) for _ in range(3)])
    values = (255 * (values - values.min()) / np.ptp(values)).astype(np.uint8)
    offsets = ((0, 0, 1), (0, 1, 0), (1, 0, 0))
    facts: dict[str, Any] = {"scale": 1 / 255, "offsets": offsets, "voxel_size": VOXEL_SIZE}
    return store(f"{tmp_path}/a.zarr", values, kind="affinities", **facts)


@pytest.fixture
def ids(tmp_path: Path, affinities: str) -> str:
    """A segmentation made in blocks."""
    out = f"{tmp_path}/ids.zarr"
    good("run", "--input", affinities, "--output", out, *HOW, "--executor", "serial")
    return out


def verified(uri: str, code: int, tmp_path: Path) -> dict[str, dict[str, str]]:
    done = command("verify", uri, "--quiet", "--json", tmp_path / "v.json")
    assert done.code == code, done.out + done.err
    data = json.loads((tmp_path / "v.json").read_text())
    assert data["sound"] == (code == 0)
    assert all(one["advice"] for one in data["checks"] if one["state"] != "ok")
    return {one["name"]: one for one in data["checks"]}


def test_what_each_command_writes_is_sound(tmp_path: Path, affinities: str) -> None:
    data, model = stack(tmp_path / "stack.h5"), pair(tmp_path / "pair.safetensors")
    image = f"{data}:raw"
    good("predict", "--weights", model, "--input", image, "--output", f"{tmp_path}/m.h5:map", "--sections", "1:5")
    good("segment", "--input", f"{tmp_path}/m.h5:map", "--output", f"{tmp_path}/s.tif")
    good("segment", "--input", affinities, "--output", f"{tmp_path}/s.zarr", *HOW)
    good("run", "--input", affinities, "--output", f"{tmp_path}/r.zarr", *HOW, "--executor", "serial")
    good("convert", image, f"{tmp_path}/c.n5", "--sections", "2:4")
    good("convert", image, f"{tmp_path}/folder", "--resample", "50,8,8")
    for name in ("m.h5:map", "s.tif", "s.zarr", "r.zarr", "c.n5", "folder"):
        known = verified(f"{tmp_path}/{name}", 0, tmp_path)
        assert all(one["state"] == "ok" for one in known.values()), known
        assert known["blocks"]["found"].endswith("are as they were written")
        assert "unchanged" in known["input"]["found"]
    assert "weights" in verified(f"{tmp_path}/m.h5:map", 0, tmp_path)
    assert "merge tree" in verified(f"{tmp_path}/r.zarr", 0, tmp_path)


def test_damaged_blocks_are_named(tmp_path: Path, ids: str) -> None:
    (chunk,) = [path for path in Path(ids, "0").rglob("*") if path.is_file() and path.name != "zarr.json"]
    whole = chunk.read_bytes()
    chunk.unlink()  # zarr reads zeros then, and nothing complains
    known = verified(ids, 2, tmp_path)
    assert "(0, 0, 0) to (12, 40, 44) is all zeros" in known["blocks"]["found"]
    assert "--overwrite" in known["blocks"]["advice"]
    chunk.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in verified(ids, 2, tmp_path)["blocks"]["found"]
    assert "blocks" not in {line.split()[0] for line in command("verify", ids, "--no-read").out.splitlines()}
    chunk.write_bytes(whole)
    assert verified(ids, 0, tmp_path)["blocks"]["state"] == "ok"


def test_one_changed_voxel_is_found(tmp_path: Path) -> None:
    data = stack(tmp_path / "stack.h5")
    good("convert", f"{data}:labels", f"{tmp_path}/copy.h5:ids")
    with h5py.File(tmp_path / "copy.h5", "r+") as file:
        file["ids"][3, 20, 21] += 1
    assert "differs from what was written" in verified(f"{tmp_path}/copy.h5:ids", 2, tmp_path)["blocks"]["found"]


def test_changed_inputs_weights_and_trees_are_named(tmp_path: Path, ids: str, affinities: str) -> None:
    tree, kept = tmp_path / "ids.zarr.tree.npz", tmp_path / "kept"
    shutil.copy(tree, kept)
    tree.write_bytes(b"PK")
    assert verified(ids, 2, tmp_path)["merge tree"]["state"] == "broken"
    tree.unlink()
    assert verified(ids, 2, tmp_path)["merge tree"]["state"] == "broken"
    shutil.copy(kept, tree)
    shutil.rmtree(affinities)
    assert verified(ids, 0, tmp_path)["input"]["state"] == "warning"
    store(affinities, np.zeros((3, *SHAPE), np.uint8), kind="affinities", scale=1 / 255)
    assert verified(ids, 2, tmp_path)["input"]["found"].endswith("has changed: its voxels")
    shutil.rmtree(affinities)
    store(affinities, np.zeros((3, 11, 40, 44), np.uint8), kind="affinities", scale=1 / 255)
    known = verified(ids, 2, tmp_path)
    assert "has changed: shape" in known["input"]["found"]
    assert known["extent"]["state"] == "broken"


def test_other_weights_are_told(tmp_path: Path) -> None:
    data, model = stack(tmp_path / "stack.h5"), pair(tmp_path / "pair.safetensors")
    good("predict", "--weights", model, "--input", f"{data}:raw", "--output", f"{tmp_path}/m.h5:map")
    pair(tmp_path / "pair.safetensors", seed=5)
    assert verified(f"{tmp_path}/m.h5:map", 0, tmp_path)["weights"]["state"] == "warning"
    model.unlink()
    assert "not there" in verified(f"{tmp_path}/m.h5:map", 0, tmp_path)["weights"]["found"]


def test_unfinished_and_unknown_outputs(tmp_path: Path, ids: str) -> None:
    ledger = Ledger(tmp_path / "next.zarr.unfinished", {"a": 1})
    ledger.record("links", Box((0, 0, 0), (1, 1, 1)), 1.0)
    known = verified(f"{tmp_path}/next.zarr", 2, tmp_path)
    assert known["output"]["found"] == "not finished, 1 blocks are done"
    shutil.move(tmp_path / "next.zarr.unfinished", tmp_path / "ids.zarr.unfinished")
    assert verified(ids, 0, tmp_path)["unfinished"]["state"] == "warning"
    (tmp_path / "ids.zarr.json").write_text("{")
    assert verified(ids, 2, tmp_path)["record"]["state"] == "broken"
    (tmp_path / "ids.zarr.json").unlink()
    known = verified(ids, 0, tmp_path)
    assert known["record"]["state"] == "warning"
    assert known["blocks"]["found"].endswith("can be read")
    assert "does not exist" in sentence("verify", f"{tmp_path}/nowhere.zarr")
    (Path(ids) / "0" / "zarr.json").write_text("{")
    assert verified(ids, 2, tmp_path)["output"]["state"] == "broken"
