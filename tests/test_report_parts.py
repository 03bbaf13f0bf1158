"""Parts of the report that come from several commands: time and memory, sweeps, merge trees, affinities, features."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import good, load, sentence
from test_report import parse
from tiny import TINY, TINY_RECURSIVE

from neuropil.errors import InputError, VolumeError
from neuropil.networks.checkpoint import Model, save_model
from neuropil.networks.network import DenseNetwork
from neuropil.report.collect import collect_run
from neuropil.report.collect_stages import collect_stages, collect_sweeps
from neuropil.report.data import ReportData, StageTime, TrainingLog
from neuropil.report.page import render
from neuropil.report.resources import resources_part
from neuropil.report.sweeps import over_thresholds
from neuropil.segmentation.affinities import Affinities, affinities_from_boundary_map
from neuropil.stages.affinities import write_affinities
from neuropil.stages.common import write_volume
from neuropil.stages.panels import links_at
from neuropil.synthetic import boundary_map_from_truth, make_tissue

PLACE = {"voxel_size": (50.0, 8.0, 8.0)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Take a small stack through predict, evaluate, tune, segment and affinities, all into one folder."""
    folder = tmp_path_factory.mktemp("parts") / "run"
    folder.mkdir()
    tissue = make_tissue((5, 64, 72), rng=np.random.default_rng(2), voxel_size=(50, 16, 16))
    for name, array, kind in (("raw", tissue.image, "image"), ("labels", tissue.ids, "labels")):
        write_volume(f"{folder}/t.h5:{name}", array, kind=kind, place=PLACE, overwrite=False)  # type: ignore[arg-type]
    save_model(folder / "model.safetensors", Model((DenseNetwork(TINY), DenseNetwork(TINY_RECURSIVE))))
    links = boundary_map_from_truth(tissue.ids, rng=np.random.default_rng(1))
    affinities = Affinities(affinities_from_boundary_map(links, per_section=False, rule="min"))
    write_affinities(f"{folder}/affs.h5:a", affinities, place=PLACE, overwrite=False)
    truth = ["--truth", f"{folder}/t.h5:labels", "--image", f"{folder}/t.h5:raw", "--run", folder]
    model = ["--weights", folder / "model.safetensors", "--input", f"{folder}/t.h5:raw"]
    good("predict", *model, "--output", f"{folder}/map.h5:map", "--tile", "1,64,64")
    good("evaluate", "--boundary", f"{folder}/map.h5:map", *truth, "--model", "pair")
    found = [
        "--truth",
        f"{folder}/t.h5:labels",
        "--low",
        "0.1,0.3",
        "--size",
        "0,20",
        "--output",
        folder / "found.toml",
    ]
    good("tune", "--input", f"{folder}/affs.h5:a", *found)
    ids = [f"{folder}/ids.h5:ids", "--fragments", f"{folder}/fragments.h5:ids"]
    good("segment", "--input", f"{folder}/affs.h5:a", "--output", *ids, "--merge-threshold", 0.5, "--size", 20)
    made = ["--affinities", f"{folder}/affs.h5:a", "--fragments", f"{folder}/fragments.h5:ids"]
    good("evaluate", "--segmentation", ids[0], *truth, *made, "--no-per-section", "--model", "affinities")
    return folder


def test_report_of_all_of_them(run: Path) -> None:
    good("report", run, "--features", "conv2")
    page = (run / "report.html").read_text()
    parse(page)
    for words in ("tiny boundary map", "tiny_recursive</b> conv2, map", "affinities along z, y, x", "fragments"):
        assert words in page, words
    for words in ("predict map.h5.map", "1-tiny", "segment ids.h5.ids", "tune found", "evaluate evaluation/pair"):
        assert words in page, words
    assert page.count('class="ring"') == 4  # two values of low times two of size
    assert "Merge tree of pair: variation of information" in page
    assert 'class="missing"' in page  # nothing was trained here
    assert "Get it with <code>neuropil train" in page


def test_times_and_sweeps_are_read_as_they_were_written(run: Path) -> None:
    stages = {one.name: one for one in collect_stages(run)}
    assert next(iter(stages)) == "predict map.h5.map"
    predicted = stages["predict map.h5.map"]
    record = json.loads((run / "map.h5.map.json").read_text())
    assert (predicted.seconds, predicted.voxels) == (record["seconds"], 5 * 64 * 72)
    assert predicted.peak_mb is not None
    assert predicted.peak_mb > 50
    assert [(step.name, step.blocks) for step in predicted.steps] == [("1-tiny", 10), ("2-tiny_recursive", 10)]
    (sweep,) = collect_sweeps(run)
    assert sweep.name == "found"
    assert [row["f"] for row in sweep.rows] == sorted((row["f"] for row in sweep.rows), reverse=True)
    assert sweep.about["truth"] == f"{run}/t.h5:labels"


def test_affinities_in_pictures_are_those_of_the_file(run: Path) -> None:
    values = load(f"{run}/affs.h5:a")
    with np.load(run / "evaluation" / "affinities.npz") as kept:
        assert kept["affinities"].shape == (len(kept["z"]), 3, 64, 72)
        np.testing.assert_array_equal(kept["affinities"], np.rint(values[:, kept["z"]].swapaxes(0, 1) * 255))
        np.testing.assert_array_equal(kept["fragments"], load(f"{run}/fragments.h5:ids")[kept["z"]])
    panel = collect_run(run).panels[0]
    with_links = {one.model: one.affinities for one in panel.models if one.affinities is not None}
    assert {name: picture.shape for name, picture in with_links.items()} == {"affinities": (3, *panel.image.shape)}


def test_links_stored_at_their_other_end_are_moved(run: Path, tmp_path: Path) -> None:
    values = load(f"{run}/affs.h5:a")
    ahead = tuple(
        (int(axis == 0), int(axis == 1), int(axis == 2)) for axis in range(3)
    )  # the same links, each named by its lower end
    moved = np.stack([np.roll(values[axis], -1, axis) for axis in range(3)])
    for axis in range(3):
        np.moveaxis(moved[axis], axis, 0)[-1] = 0
    write_affinities(f"{tmp_path}/ahead.h5:a", Affinities(moved, ahead), place=PLACE, overwrite=False)
    here, there = (links_at(uri, [0, 2, 4], (64, 72)) for uri in (f"{run}/affs.h5:a", f"{tmp_path}/ahead.h5:a"))
    np.testing.assert_array_equal(here, there)
    assert here[0, 0].max() == 0  # the first section has none before it
    assert here[1, 0].max() > 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--features", "conv9"], "features must name a convolution of .*; got 'conv9', there are tiny: conv1, conv2"),
        (["--features", "conv2", "--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--features", "conv2", "--weights", "affinity-fib"], "is a U-Net"),
        (["--features", "conv2", "--sections", 0], "features need pictures of the run"),
    ],
)
def test_features_that_cannot_be(run: Path, words: list[object], told: str) -> None:
    assert re.search(told, sentence("report", run, "--output", run / "other.html", *words))
    assert not (run / "other.html").exists()


def test_pictures_of_another_size_are_refused(run: Path, tmp_path: Path) -> None:
    write_volume(f"{tmp_path}/f.h5:f", np.ones((5, 3, 3), np.uint64), kind="labels", place=PLACE, overwrite=False)
    base = ["evaluate", "--segmentation", f"{run}/ids.h5:ids", "--truth", f"{run}/t.h5:labels", "--run", tmp_path / "r"]
    said = sentence(*base, "--image", f"{run}/t.h5:raw", "--fragments", f"{tmp_path}/f.h5:f")
    assert "must cover the proposal's sections of (64, 72) voxels" in said


def test_an_unfinished_ledger_shows_what_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "ids.zarr.unfinished"
    folder.mkdir()
    lines = [{"step": "links", "seconds": 1.5, "peak_mb": 300}, {"step": "links", "seconds": 2.0, "peak_mb": 250}]
    text = "".join(json.dumps({**line, "start": [0] * 3, "stop": [1] * 3}) + "\n" for line in lines)
    (folder / "done.jsonl").write_text(text + '{"step": "li')
    assert collect_stages(tmp_path) == (
        StageTime("ids.zarr", 3.5, steps=(StageTime("links", 3.5, 300, blocks=2),), unfinished=True),
    )
    assert "not finished" in resources_part(ReportData("t", "r", stages=collect_stages(tmp_path)))


def test_foreign_and_broken_json(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "other.json").write_text('{"seconds": 3}')
    assert collect_stages(tmp_path) == ()
    (tmp_path / "broken.json").write_text('{"command": "pre')
    with pytest.raises(VolumeError, match=r"broken\.json is not readable JSON"):
        collect_stages(tmp_path)


def test_bars_are_as_long_as_what_they_stand_for() -> None:
    steps = (StageTime("links", 8.0, 500, blocks=4), StageTime("edges", 2.0, 1000, blocks=4))
    stages = (StageTime("run ids", 20.0, 250, 10**7, steps=steps), StageTime("segment ids", 5.0))
    training = (TrainingLog("vd2d", (1,), (0.5,), seconds=10.0),)
    part = resources_part(ReportData("t", "r", stages=stages, training=training))
    widths = [float(one) for one in re.findall(r"width:([\d.]+)%", part)]
    assert widths == [50, 100, 25, 100, 50, 25, 100, 25]
    assert "1.00 GB" in part
    assert "<td>0.5</td>" in part  # Mvoxel/s
    parse(render(ReportData("t", "r", stages=stages, training=training)))


@given(points=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=9), cells=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_cells_of_the_heat_map_are_the_curve_merged_down_to_there(
    points: list[tuple[float, float]], cells: int
) -> None:
    levels = dict(points)
    made = over_thresholds(list(levels), list(levels.values()), cells)
    for k, value in enumerate(made):
        reached = [level for level in levels if level >= (k + 0.5) / cells]
        assert value == levels[min(reached) if reached else max(levels)]


def test_outputs_of_run_alone_make_a_report(tmp_path):
    """A folder that nothing was trained in: what the commands took is still a page."""
    steps = {"linkage": {"blocks": 4, "seconds": 1.5, "peak_mb": 300}}
    record = {"command": "run", "config": {}, "seconds": 2.0, "peak_mb": 250, "voxels": 1000, "steps": steps}
    (tmp_path / "ids.zarr.json").write_text(json.dumps(record))
    page = render(collect_run(tmp_path))
    assert "linkage" in page
    (tmp_path / "ids.zarr.json").write_text("{}")
    with pytest.raises(InputError, match="or that holds outputs of other commands"):
        collect_run(tmp_path)
