"""`neuropil plan pipeline.toml`: what it foresees is what the run takes, and what cannot be is refused."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from math import prod
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small import VOXEL_SIZE, good, sentence, stack, store, untouched
from test_run_pipeline import unet

from neuropil.blockwise import SerialPool
from neuropil.segmentation.affinities import NEAREST
from neuropil.stages import plan_pipeline, run
from neuropil.stages.plan_pipeline import Trial, plan_steps

SHAPE, BLOCK = (40, 96, 96), (20, 48, 48)
HOW = {"low": 0.2, "high": 0.9, "size": 20, "dust": 12, "merge_threshold": 0.45}


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    from scipy import ndimage

    rng = np.random.default_rng(0)
    field = np.stack([ndimage.gaussian_filter(rng.random(SHAPE), 1.5) for _ in range(3)])
    values = (255 * (field - field.min()) / np.ptp(field)).astype(np.uint8)
    facts = {"kind": "affinities", "scale": 1 / 255, "offsets": NEAREST, "voxel_size": VOXEL_SIZE}
    uri = store(f"{tmp_path}/a.zarr", values, **facts)
    lines = [f"{key} = {value}" for key, value in HOW.items()]
    path = tmp_path / "pipeline.toml"
    path.write_text(f'[run]\ninput = "{uri}"\noutput = "{tmp_path}/ids.zarr"\nblock = {list(BLOCK)}\nlevels = 1\n')
    path.write_text(path.read_text() + "\n".join([*lines, "workers = 2\n"]))
    return path


@pytest.mark.slow
def test_what_is_foreseen_is_taken(tmp_path: Path, pipeline: Path) -> None:
    with untouched(tmp_path):
        said = good("plan", pipeline)
    assert "(40, 96, 96), blocks of (20, 48, 48), 2 workers" in said
    good("plan", pipeline, "--json", tmp_path / "plan.json")
    plan = json.loads((tmp_path / "plan.json").read_text())
    good("run", pipeline, "--json", tmp_path / "run.json")
    steps = json.loads((tmp_path / "run.json").read_text())["steps"]
    foreseen = {step["name"]: step for step in plan["steps"]}
    assert foreseen.keys() == steps.keys()
    for name, step in steps.items():
        if name not in ("output", "level 1"):
            assert foreseen[name]["boxes"] == step["blocks"], name
    peak = max(step["peak_mb"] for step in steps.values())
    assert plan["memory"] / 1e6 == pytest.approx(peak, rel=0.15)
    assert 0 < plan["seconds"][0] < plan["seconds"][1]
    output = [path for path in (tmp_path / "ids.zarr").rglob("c/**/*") if path.is_file()]
    written = sum(path.stat().st_size for path in output)  # in chunks so small as these the trial's pack worse
    assert written / 2 < plan["output_bytes"] < 6 * written


@pytest.mark.parametrize(
    ("output", "more"),
    [
        ("{}/ids.zarr", {"levels": 2}),
        ("precomputed://{}/ids", {"method": "components", "threshold": 0.5, "levels": 1}),
        ("{}/ids.h5:ids", {"method": "size", "fragments": "{}/pieces.zarr"}),
        pytest.param(
            "n5://{}/ids",
            {"weights": "{}/unet.safetensors", "prediction": "{}/kept.zarr", "block": "14,20,44"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_files_are_counted(
    tmp_path: Path, pipeline: Path, output: str, more: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the plan are those of the run; nothing is written but into the plan's own folder."""
    monkeypatch.setattr(plan_pipeline, "pool_of", lambda _: nullcontext(SerialPool()))
    facts = {"input": f"{tmp_path}/a.zarr", "output": output.format(tmp_path), "block": BLOCK, "workers": 1, **HOW}
    facts |= {key: value.format(tmp_path) if isinstance(value, str) else value for key, value in more.items()}
    if "weights" in more:
        facts["input"] = f"{stack(tmp_path / 's.h5', (14, 40, 44))}:raw"
        unet(tmp_path / "unet.safetensors")
    config = run.Config(**facts)
    with untouched(tmp_path):
        plan = plan_pipeline.plan_pipeline(config).data
    with run.opened(config) as ledger:
        run.execute(config, nullcontext(SerialPool()), ledger)
        steps = ledger.summary()
    assert {step["name"] for step in plan["steps"]} == set(steps)
    for step in plan["steps"]:
        if not step["name"].startswith(("level", "predict", "fragments output")):
            assert step["boxes"] == steps[step["name"]]["blocks"], step["name"]
    assert plan["files"] == pytest.approx(files(ledger.folder), rel=0.1)
    outputs = [tmp_path / name for name in ("ids", "ids.zarr", "pieces.zarr", "kept.zarr", "ids.h5")]
    assert plan["output_files"] == pytest.approx(sum(map(files, outputs)), rel=0.02)
    written = sum(path.stat().st_size for place in outputs for path in (place, *place.rglob("*")) if path.is_file())
    assert written / 4 < plan["output_bytes"] < 6 * written  # small chunks pack worse, formats differ
    ledger.remove()


def files(place: Path) -> int:
    """Count files but for metadata."""
    paths = [place, *place.rglob("*")]
    return sum(path.is_file() and path.suffix != ".json" and path.name != "info" for path in paths)


def test_what_cannot_be_is_refused(tmp_path: Path, pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trial(config: object, box: object, cut: int) -> Trial:
        figures = {"fragments": 1.0}, {"fragments": 3e8}, {"fragments": 5760}
        return Trial((20 // cut, 48 // cut, 48 // cut), (20, 24, 24), *figures, 10**6, 9, (9.0, 1.0, 9), 9)

    monkeypatch.setattr(plan_pipeline, "_trial", trial)
    with untouched(tmp_path):
        assert "may take 0.10 GB (2 workers); give a smaller --block" in sentence(
            "plan", pipeline, "--set", "run.worker_memory=0.1"
        )
        monkeypatch.setattr(plan_pipeline, "available_memory", lambda: 5e8)
        monkeypatch.setattr("neuropil.stages.run_pool.available_memory", lambda: 5e8)
        assert "would need 0.30 GB and may take 0.20 GB (2 workers); give --workers 1" in sentence("plan", pipeline)
        monkeypatch.undo()
        monkeypatch.setattr(plan_pipeline, "_trial", trial)
        disk = SimpleNamespace(f_bavail=10, f_frsize=4096, f_files=100, f_favail=10)
        monkeypatch.setattr(os, "statvfs", lambda _: disk)
        assert "0.0 GB are free; give an --output on a larger disk" in sentence("plan", pipeline)
        disk.f_bavail = 10**9
        assert "where 10 more can be; give a larger --block" in sentence("plan", pipeline)
        assert "needs a pipeline.toml" in sentence("plan")
        assert "needs a pipeline.toml" in sentence("plan", pipeline, "--shape", "1,2,3")
        assert "sets a key of [train]" in sentence("plan", pipeline, "--set", "train.seed=1")


def test_figures_are_carried_on() -> None:
    """Memory in proportion to voxels comes out exactly, and a climbing step by its surface."""

    def trial(edge: int) -> Trial:
        size = edge**3
        return Trial(
            (edge,) * 3, (64,) * 3, {"fragments": 64**3 * 1e-6, "linkage 1": 0.5},
            {"fragments": 1e8 + 50 * size, "linkage 1": 1e8 + 9 * (2 * edge) ** 2},
            {"fragments": size, "linkage 1": (2 * edge) ** 3}, 1, 1, (1.0, 1.0, 1), 1,
        )  # fmt: skip

    steps = {one.name: one for one in plan_steps(trial(16), trial(32), (64, 64, 64), (256, 256, 256), 4)}
    assert list(steps) == ["fragments", "linkage 1", "linkage 2"]
    assert steps["fragments"].memory == pytest.approx(1e8 + 50 * 64**3)
    assert steps["fragments"].boxes == 64
    assert steps["linkage 2"].boxes == 1
    assert steps["linkage 2"].memory == pytest.approx(1e8 + 9 * 256**2)
    low, high = steps["fragments"].seconds
    assert low < prod((256,) * 3) * 1e-6 / 4 < high
