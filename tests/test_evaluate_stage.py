"""`neuropil evaluate` and `report`: a perfect map scores 1, foreign segmentations, fixed thresholds, JSON, the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small import VOXEL_SIZE, good, load, sentence, stack, store, untouched

from neuropil.segmentation.components import connected_components
from neuropil.stages.scoring import GRIDS, Task, Watershed, score_watershed, search_watershed
from neuropil.synthetic import boundary_map_from_truth, make_tissue


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return stack(tmp_path / "s.h5")


@pytest.fixture
def boundary(tmp_path: Path, data: Path) -> str:
    truth = load(f"{data}:labels")
    return store(f"{tmp_path}/m.h5:map", np.where(truth == 0, 0.9, 0.1).astype(np.float32), kind="boundary")


SIZES = ["--size", 4, "--dust", 4]


def evaluate(tmp_path: Path, *words: object) -> dict:
    good("evaluate", *words, *SIZES, "--json", tmp_path / "scores.json")
    return json.loads((tmp_path / "scores.json").read_text(), parse_constant=lambda text: pytest.fail(text))


def test_a_perfect_map_scores_one(tmp_path: Path, data: Path, boundary: str) -> None:
    scores = evaluate(tmp_path, "--boundary", boundary, "--truth", f"{data}:labels", "--model", "perfect")
    assert scores["pixel_error"]["best"] == 0
    assert scores["voxel_size"] == list(VOXEL_SIZE)
    assert scores["sections"] == [0, 6]
    for decoder in ("components", "watershed"):
        best = scores[decoder]["best"]
        assert best["f"] == pytest.approx(1)
        assert best["are"]["neuropil"] == pytest.approx(0)
        assert best["vi"]["split"] == pytest.approx(0, abs=1e-9)
        assert len(scores[decoder]["per_section"]) == 6
        assert {"threshold", "merge", "split", "f"} <= set(scores[decoder]["curve"])
    assert scores["errors"]["merges"] == scores["errors"]["splits"] == []
    assert "V_merge" in scores["definitions"]["rand"]


def test_thresholds_fixed_on_other_data(tmp_path: Path, data: Path, boundary: str) -> None:
    words = ["--boundary", boundary, "--truth", f"{data}:labels"]
    scores = evaluate(tmp_path, *words, "--fixed", "0.5,0.5,0.5")
    assert scores["pixel_error"]["at_fixed"] == 0
    assert scores["components"]["at_fixed"]["f"] == pytest.approx(1)
    bad = evaluate(tmp_path, *words, "--fixed", "0.95,0.95,0.05")
    assert bad["pixel_error"]["at_fixed"] > 0.1
    assert bad["components"]["at_fixed"]["f"] < 0.9
    assert bad["components"]["best"]["f"] == pytest.approx(1)


def test_a_foreign_segmentation(tmp_path: Path, data: Path) -> None:
    truth = load(f"{data}:labels")
    foreign = store(tmp_path / "ids.tif", (truth * 3).astype(np.uint32))
    scores = evaluate(tmp_path, "--segmentation", foreign, "--truth", f"{data}:labels", "--no-per-section")
    assert scores["segmentation"]["best"]["f"] == pytest.approx(1)
    merged = store(tmp_path / "one.tif", np.where(truth == 2, 1, truth).astype(np.uint32))
    scores = evaluate(tmp_path, "--segmentation", merged, "--truth", f"{data}:labels", "--no-per-section")
    assert scores["segmentation"]["best"]["merge"] < 1
    assert scores["segmentation"]["best"]["split"] == pytest.approx(1)
    low, high = scores["segmentation"]["best"]["interval"]  # over blocks of the volume
    assert low < scores["segmentation"]["best"]["f"] < high
    assert "per_section" not in scores["segmentation"]
    assert scores["errors"]["merges"][0]["z"] in range(6)


def test_what_is_not_scored(tmp_path: Path, data: Path, boundary: str) -> None:
    """Where the map is wrong but masked, or without truth, the score stays perfect."""
    spoilt = load(boundary)
    spoilt[:, :, 20:] = 0.1
    uri = store(f"{tmp_path}/m.h5:spoilt", spoilt, kind="boundary")
    words = ["--boundary", uri, "--truth", f"{data}:labels"]
    assert evaluate(tmp_path, *words)["pixel_error"]["best"] > 0.05
    mask = np.ones(spoilt.shape, np.uint8)
    mask[:, :, 20:] = 0
    masked = evaluate(tmp_path, *words, "--mask", store(f"{tmp_path}/m.h5:mask", mask))
    truth = load(f"{data}:labels")
    truth[:, :, 20:] = 2**64 - 1
    without = evaluate(tmp_path, "--boundary", uri, "--truth", store(f"{tmp_path}/m.h5:truth", truth))
    assert masked["pixel_error"]["best"] == without["pixel_error"]["best"] == 0


def test_sections_numbered_otherwise(tmp_path: Path, data: Path, boundary: str) -> None:
    part = store(f"{tmp_path}/m.h5:part", load(boundary)[2:5], kind="boundary")
    words = ["--boundary", part, "--truth", f"{data}:labels", "--truth-sections", "2:5"]
    scores = evaluate(tmp_path, *words, "--sections", "0:3")
    assert scores["sections"] == [2, 5]
    assert scores["pixel_error"]["best"] == 0


def test_the_report_reads_what_evaluate_kept(tmp_path: Path, data: Path, boundary: str) -> None:
    run = tmp_path / "run"
    words = ["--boundary", boundary, "--truth", f"{data}:labels", "--image", f"{data}:raw", "--run", run]
    evaluate(tmp_path, *words, "--model", "Net-A")
    blurred = store(
        f"{tmp_path}/m.h5:worse", load(boundary) * 0.5 + 0.2 * np.random.default_rng(0).random((6, 40, 44), np.float32)
    )
    evaluate(tmp_path, *words[2:], "--boundary", blurred, "--model", "Net-B")
    with np.load(run / "evaluation/Net-A.npz") as kept:
        assert kept["image"].shape == kept["truth"].shape == kept["boundary"].shape
        assert kept["boundary"].dtype == np.uint8
        np.testing.assert_array_equal(kept["image"], load(f"{data}:raw")[kept["z"]])
    good("report", run)
    page = (run / "report.html").read_text()
    assert "Net-A" in page
    assert "Net-B" in page


def test_refusals_leave_nothing(tmp_path: Path, data: Path, boundary: str) -> None:
    small = store(f"{tmp_path}/m.h5:small", np.zeros((6, 40, 9), np.float32), kind="boundary")
    nan = store(f"{tmp_path}/m.h5:nan", np.full((6, 40, 44), np.nan, np.float32), kind="boundary")
    labels = f"{data}:labels"
    with untouched(tmp_path):
        assert "either --boundary or --segmentation" in sentence("evaluate", "--truth", labels)
        assert "either" in sentence("evaluate", "--truth", labels, "--boundary", boundary, "--segmentation", labels)
        assert "proposal and truth must have one shape; got (6, 40, 9) and (6, 40, 44)" in sentence(
            "evaluate", "--boundary", small, "--truth", labels
        )
        assert "must lie in [0, 1]" in sentence("evaluate", "--boundary", nan, "--truth", labels)
        assert "must hold integer labels" in sentence("evaluate", "--boundary", boundary, "--truth", boundary)
        assert "must have the shape of the proposal" in sentence(
            "evaluate", "--boundary", boundary, "--truth", labels, "--mask", small
        )
        assert "fixed must hold three" in sentence(
            "evaluate", "--boundary", boundary, "--truth", labels, "--fixed", "1"
        )
        assert "must be a name for files" in sentence(
            "evaluate", "--boundary", boundary, "--truth", labels, "--model", "../up"
        )
        assert "run must be a folder" in sentence("report", tmp_path / "nothing")


def test_the_search_never_ends_below_its_start(tmp_path):
    rng = np.random.default_rng(0)
    tissue = make_tissue((3, 96, 96), rng=rng, voxel_size=(50, 8, 8))
    noisy = boundary_map_from_truth(tissue.ids, rng=rng, gaps=0.05, noise=0.1)
    task = Task(noisy, connected_components(tissue.ids > 0, per_section=True), None, True)
    start = Watershed(low=0.3, high=0.999, size=200, size_threshold=0.3, dust=0)
    found = search_watershed(task, start)
    assert found.high in GRIDS["high"]
    assert found.low <= found.high - 0.001
    f_of = lambda one: score_watershed(task, one, None)[0]["best"]["f"]  # noqa: E731
    assert f_of(found) >= f_of(start)
