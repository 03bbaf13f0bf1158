"""The main job through the command line only: synthetic, info, train, predict, segment, evaluate, report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from small import load, process, recipe_toml


def run(*words: object) -> str:
    running = process(*words)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert "Traceback" not in err
    return out


def test_from_nothing_to_the_report(tmp_path: Path) -> None:
    data = tmp_path / "tissue.h5"
    assert "datasets raw, labels, membrane" in run("synthetic", data, "--shape", "8,96,96", "--seed", 1)
    assert "50 × 4 × 4 nm" in run("info", f"{data}:raw")
    toml, folder = recipe_toml(tmp_path, data, updates=40), tmp_path / "run"
    toml.write_text(toml.read_text() + f'[predict]\nweights = "{folder}/model.safetensors"\ninput = "{data}:raw"\n')
    assert "model:" in run("train", toml, "--quiet")
    run("predict", toml, "--output", tmp_path / "map.zarr", "--sections", "6:8")
    run("segment", "--input", tmp_path / "map.zarr", "--output", f"{tmp_path}/ids.h5:ids", "--size", 20, "--dust", 20)
    scored = ["--truth", f"{data}:labels", "--image", f"{data}:raw", "--truth-sections", "6:8", "--run", folder]
    run("evaluate", "--boundary", tmp_path / "map.zarr", *scored, "--model", "pair", "--json", tmp_path / "scores.json")
    assert "report:" in run("report", folder)
    scores = json.loads((tmp_path / "scores.json").read_text())
    membrane = load(f"{data}:membrane")[6:8].mean()
    assert 0 < scores["pixel_error"]["best"] < membrane  # better than calling everything interior
    assert 0.3 < scores["components"]["best"]["f"] <= 1
    ids = load(f"{tmp_path}/ids.h5:ids")
    assert (ids.shape, ids.dtype) == ((2, 96, 96), np.uint64)
    assert ids.max() > 3
    page = (folder / "report.html").read_text()
    assert "pair" in page
    assert "flat" in page
