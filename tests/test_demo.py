import json

import pytest

from neuropil.errors import VolumeNotFound
from neuropil.geometry import Box
from neuropil.stages import demo


@pytest.fixture
def small(monkeypatch):
    """The demo's own job on a stack that takes seconds."""
    monkeypatch.setattr(demo, "SYNTHETIC_SHAPE", (10, 368, 368))
    crops = {
        "train": Box((0, 0, 0), (6, 368, 368)),
        "validation": Box((0, 64, 64), (5, 192, 192)),
        "test": Box((5, 0, 0), (10, 128, 192)),
    }
    monkeypatch.setattr(demo, "SYNTHETIC", crops)


def test_the_demo_runs_and_repeats_nothing(tmp_path, small):
    config = demo.Config(output=tmp_path, data="synthetic", updates=3)
    first = demo.run(config)
    assert [one["model"] for one in first.data["scores"]] == ["intensity-threshold", "VD2D", "VD2D-VD2D3D"]
    assert "VD2D-VD2D3D" in (tmp_path / "report.html").read_text()
    assert "synthetic" in first.summary
    weights, maps = tmp_path / "model.safetensors", tmp_path / "maps" / "test-VD2D.h5"
    before = maps.stat().st_mtime_ns, json.loads((tmp_path / "vd2d" / "last.json").read_text())
    second = demo.run(config)
    assert weights.exists()
    assert (maps.stat().st_mtime_ns, json.loads((tmp_path / "vd2d" / "last.json").read_text())) == before
    assert [one["pixel_error"]["best"] for one in second.data["scores"]] == [
        one["pixel_error"]["best"] for one in first.data["scores"]
    ]


def test_real_sections_that_are_not_here_are_asked_for_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROPIL_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(VolumeNotFound, match="neuropil data get vnc"):
        demo.run(demo.Config(output=tmp_path / "run", data="vnc"))
    assert demo._choose("auto") == "synthetic"


def test_crops_keep_their_distance():
    for crops in (demo.VNC, demo.SYNTHETIC):
        assert crops["test"].start[0] >= crops["train"].stop[0] + 4
        assert crops["validation"].start[1] >= crops["train"].stop[1] + 108
