import json

import pytest
from small import pair

from neuropil.errors import InputError, VolumeNotFound
from neuropil.geometry import Box
from neuropil.networks import packaged
from neuropil.stages import demo


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The demo's own job on a stack, and with a packaged model, that take seconds."""
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "models")
    pair(tmp_path / "models" / "vd2d3d-sstem.safetensors")
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
    models = ["intensity-threshold", "vd2d3d-sstem", "VD2D", "VD2D-VD2D3D"]
    assert [one["model"] for one in first.data["scores"]] == models
    page = (tmp_path / "report.html").read_text()
    assert all(model in page for model in models)
    assert "synthetic" in first.summary
    assert "vd2d3d-sstem (shipped) " in first.summary
    weights, maps = tmp_path / "model.safetensors", tmp_path / "maps" / "test-VD2D.h5"
    before = maps.stat().st_mtime_ns, json.loads((tmp_path / "vd2d" / "last.json").read_text())
    second = demo.run(config)
    assert weights.exists()
    assert (maps.stat().st_mtime_ns, json.loads((tmp_path / "vd2d" / "last.json").read_text())) == before
    assert [one["pixel_error"]["best"] for one in second.data["scores"]] == [
        one["pixel_error"]["best"] for one in first.data["scores"]
    ]


def test_the_packaged_model_comes_first(tmp_path, small, monkeypatch, caplog):
    """Its scores are told before anything is trained; another stack at the same place makes other maps."""
    caplog.set_level("INFO", "neuropil")
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "of-another-stack.h5").write_bytes(b"")

    def stop(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.train, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        demo.run(demo.Config(output=tmp_path, data="synthetic"))
    (told,) = [record.getMessage() for record in caplog.records if "without any training" in record.getMessage()]
    assert "vd2d3d-sstem (shipped) " in told
    assert "thresholds fixed" in told
    assert {path.name for path in (tmp_path / "maps").glob("*.h5")} == {
        f"{part}-{model}.h5" for part in ("validation", "test") for model in ("intensity-threshold", "vd2d3d-sstem")
    }


def test_without_packaged_weights_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "models")
    with pytest.raises(InputError, match="'vd2d3d-sstem' is neither a weights file nor a packaged model"):
        demo.run(demo.Config(output=tmp_path / "run", data="synthetic"))
    assert not (tmp_path / "run").exists()


def test_real_sections_that_are_not_here_are_asked_for_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "weights_path", lambda name: tmp_path / name)
    monkeypatch.setenv("NEUROPIL_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(VolumeNotFound, match="neuropil data get vnc"):
        demo.run(demo.Config(output=tmp_path / "run", data="vnc"))
    assert demo._choose("auto") == "synthetic"


def test_crops_keep_their_distance():
    for crops in (demo.VNC, demo.SYNTHETIC):
        assert crops["test"].start[0] >= crops["train"].stop[0] + 4
        assert crops["validation"].start[1] >= crops["train"].stop[1] + 108
