"""`neuropil skeletonize` and `neuropil evaluate --skeletons`: truth scores 1, files of every kind, what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small import good, load, sentence, store, untouched

from neuropil.skeletons.skeleton import nodes_of
from neuropil.stages import lines
from neuropil.volume.skeleton_files import read_skeletons

SIZE = (40.0, 8.0, 8.0)


@pytest.fixture
def truth(tmp_path: Path) -> str:
    """Four bars along x, with a wall between; ids are huge."""
    ids = np.zeros((8, 24, 60), np.uint64)
    for k in range(4):
        ids[1:7, 6 * k : 6 * k + 5] = 2**41 + k
    return store(f"{tmp_path}/t.h5:ids", ids, voxel_size=SIZE, offset=(80, 8, 0), kind="labels")


def evaluate(tmp_path: Path, *words: object) -> dict:
    good("evaluate", *words, "--json", tmp_path / "scores.json")
    return json.loads((tmp_path / "scores.json").read_text(), parse_constant=lambda text: pytest.fail(text))


def proposal(tmp_path: Path, array: np.ndarray, **facts: object) -> str:
    return store(f"{tmp_path}/p.zarr", array, **({"voxel_size": SIZE, "offset": (80, 8, 0)} | facts))


def test_truth_scores_one_and_its_skeletons_are_made_once(tmp_path: Path, truth: str, monkeypatch):
    run = tmp_path / "run"
    words = ["--segmentation", truth, "--truth", truth, "--skeletons", "truth", "--run", run, "--model", "perfect"]
    scores = evaluate(tmp_path, *words, "--intervals", "0,100,1000")
    (row,) = scores["run_length"]
    assert row["nerl"] == 1
    assert row["nerl_interval"] == [1, 1]
    assert (row["merges"], row["splits"], row["skeletons"]) == (0, 0, 4)
    assert row["erl_um"] == row["true_erl_um"]
    assert 0.47 < row["erl_um"] < 0.47 + 0.2  # the ends may turn into a corner
    assert [part["skeletons"] for part in row["intervals"]] == [0, 4]
    assert row["intervals"][0]["erl_um"] is None
    assert scores["skeletons"]["nodes"] >= 4 * 50
    assert json.loads((run / "run_length" / "perfect.json").read_text())["run_length"] == scores["run_length"]
    made = []
    monkeypatch.setattr(lines, "make_lines", lambda *_: made.append(1) or pytest.fail("they are there already"))
    assert evaluate(tmp_path, *words, "--merge-threshold", "0,50")["run_length"][0] == row | {"intervals": []}
    monkeypatch.undo()
    again = evaluate(tmp_path, *words, "--set", "evaluate.lines.scale=4")
    assert again["skeletons"]["file"] != scores["skeletons"]["file"]
    changed = load(truth)
    changed[1:7, :5] = 5
    other = store(f"{tmp_path}/t2.h5:ids", changed, voxel_size=SIZE, offset=(80, 8, 0))
    words[3] = other
    assert evaluate(tmp_path, *words)["skeletons"]["file"] != scores["skeletons"]["file"]


def test_merge_and_split_are_counted_and_placed(tmp_path: Path, truth: str):
    array = load(truth)
    array[:, :11] = np.where(array[:, :11] > 0, 7, 0)  # two bars become one
    array[:, 12:17, 30:] = np.where(array[:, 12:17, 30:] > 0, 8, 0)  # one falls apart
    words = ["--segmentation", proposal(tmp_path, array), "--truth", truth, "--skeletons", "truth"]
    scores = evaluate(tmp_path, *words, "--run", tmp_path / "r")
    (row,) = scores["run_length"]
    assert (row["merges"], row["splits"]) == (1, 1)
    (merge,), (split,) = row["errors"]["merges"], row["errors"]["splits"]
    assert merge["whole"] == 7
    assert sorted(merge["parts"]) == [2**41, 2**41 + 1]
    assert split["whole"] == 2**41 + 2
    assert split["point_nm"][2] == pytest.approx(29.5 * 8)
    assert 0.2 < row["nerl"] < 0.5
    assert row["merged_um"] + row["correct_um"] + row["split_um"] == pytest.approx(row["length_um"])
    text = good("evaluate", *words, "--run", tmp_path / "r")
    assert "4 skeletons (truth)" in text
    assert "segmentation 40 x 8 x 8 nm" in text
    assert "merge: segment 7 has 2 skeletons" in text


def test_skeletons_from_files(tmp_path: Path, truth: str):
    npz, folder = tmp_path / "all.npz", tmp_path / "swc"
    assert "4 skeletons" in good("skeletonize", "--labels", truth, "--output", npz)
    good("skeletonize", "--labels", truth, "--output", folder)
    assert json.loads((tmp_path / "all.npz.json").read_text())["skeletons"] == 4
    both = [nodes_of(read_skeletons(path).skeletons) for path in (npz, folder)]
    assert both[0].skeletons.tolist() == both[1].skeletons.tolist()
    array = load(truth)
    array[:, :, 30] = 0
    seg = proposal(tmp_path, array)
    rows = [evaluate(tmp_path, "--segmentation", seg, "--skeletons", path)["run_length"][0] for path in (npz, folder)]
    assert rows[0]["erl_um"] == pytest.approx(rows[1]["erl_um"])
    assert rows[0]["omitted_um"] == pytest.approx(4 * 0.016)


def test_margin_stride_and_voxel_size(tmp_path: Path, truth: str):
    """A padded crop of a file that tells no voxel size, as AxonEM's are."""
    padded = np.pad(load(truth), ((2, 2), (3, 3), (4, 4)), constant_values=9)
    crop = store(f"{tmp_path}/seg_0-0-0_pad.h5:main", padded)
    words = ["--voxel-size", "40,8,8", "--margin", "2,3,4"]
    good("skeletonize", "--labels", crop, *words, "--stride", "1,1,2", "--output", tmp_path / "crop.npz")
    found = read_skeletons(tmp_path / "crop.npz")
    assert list(found.skeletons) == [2**41 + k for k in range(4)]
    assert found.voxel_size == (40, 8, 16)
    assert min(one.vertices_nm[:, 2].min() for one in found.skeletons.values()) == 4 * 8
    scores = evaluate(tmp_path, "--segmentation", crop, "--skeletons", tmp_path / "crop.npz", *words)
    assert scores["run_length"][0]["nerl"] == 1
    words += ["--truth", crop, "--skeletons", "truth", "--stride", "1,1,2", "--run", tmp_path / "r"]
    assert evaluate(tmp_path, "--segmentation", crop, *words)["run_length"][0]["nerl"] == 1


def test_a_mask_where_nothing_may_merge(tmp_path: Path, truth: str):
    mask = np.zeros(load(truth).shape, np.uint8)
    mask[2, :5, :10] = 1  # 50 voxels of the first bar
    words = ["--segmentation", truth, "--truth", truth, "--skeletons", "truth", "--run", tmp_path / "r"]
    words += ["--no-merge-mask", store(f"{tmp_path}/m.tif", mask), "--merge-threshold", "49,50"]
    low, high = evaluate(tmp_path, *words)["run_length"]
    assert (low["no_merge_segments"], high["no_merge_segments"]) == (1, 0)
    assert low["nerl"] < high["nerl"] == 1


def test_refusals(tmp_path: Path, truth: str):
    out = tmp_path / "s.npz"
    good("skeletonize", "--labels", truth, "--output", out)
    with untouched(tmp_path):
        assert "give --overwrite" in sentence("skeletonize", "--labels", truth, "--output", out)
        assert "margin must be" in sentence(
            "skeletonize", "--labels", truth, "--output", tmp_path / "x.npz", "--margin", "9,9,9"
        )
        words = ["evaluate", "--segmentation", truth, "--skeletons"]
        assert "needs --truth" in sentence(*words, "truth")
        assert "no file or folder of skeletons" in sentence(*words, tmp_path / "none.npz")
        assert "takes no --sections" in sentence(*words, out, "--sections", "0:2")
        assert "intervals must be ascending" in sentence(*words, out, "--intervals", "5,1")
        assert "merge_threshold must be" in sentence(*words, out, "--merge-threshold=-1")
        assert "needs --segmentation" in sentence("evaluate", "--skeletons", out)
        assert "evaluate needs --truth" in sentence("evaluate", "--segmentation", truth)
        assert "unknown key 'scales'" in sentence(*words, out, "--set", "evaluate.lines.scales=2")
    plain = store(f"{tmp_path}/plain.h5:ids", load(truth))
    assert "give --voxel-size" in sentence("skeletonize", "--labels", plain, "--output", tmp_path / "x.npz")
    good("skeletonize", "--labels", truth, "--output", out, "--overwrite")
