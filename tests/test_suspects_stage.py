"""`neuropil suspects`: a folder to look at, scored where there is truth, from whatever segmentation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from small import good, load, sentence, store, untouched

from neuropil.segmentation.affinities import NEAREST
from neuropil.segmentation.suspicion import DEFAULT
from neuropil.synthetic import make_tissue
from neuropil.volume.tables import read_table

SIZE, OFFSET = (40.0, 8.0, 8.0), (400.0, 80.0, 160.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with image, truth, affinities, and a segmentation with two objects merged and one split."""
    folder = tmp_path_factory.mktemp("suspects")
    rng = np.random.default_rng(3)
    tissue = make_tissue((10, 72, 80), rng=rng, voxel_size=SIZE)
    truth = tissue.ids.astype(np.uint64)
    links = np.zeros((3, *truth.shape), np.float32)
    for axis in range(3):
        here, there = ([slice(None)] * 3 for _ in range(2))
        here[axis], there[axis] = slice(1, None), slice(None, -1)
        same = (truth[tuple(here)] == truth[tuple(there)]) & (truth[tuple(here)] > 0)
        links[(axis, *here)] = np.where(same, 0.9, 0.1) + rng.normal(0, 0.06, same.shape)
    ids, counts = np.unique(truth[truth > 0], return_counts=True)
    large = ids[np.argsort(-counts)]
    wrong = truth.copy()
    wrong[(truth == large[0]) & (np.arange(10)[:, None, None] >= 5)] = 2**40
    wrong[truth == large[2]] = large[1]
    facts = {"voxel_size": SIZE, "offset": OFFSET}
    store(f"{folder}/raw.zarr", tissue.image, kind="image", **facts)
    store(f"{folder}/truth.zarr", truth, kind="labels", **facts)
    store(f"{folder}/ids.zarr", wrong, kind="labels", **facts)
    bytes_ = (255 * links.clip(0, 1)).astype(np.uint8)
    store(f"{folder}/a.zarr", bytes_, kind="affinities", scale=1 / 255, offsets=NEAREST, **facts)
    return folder


def words(made: Path, output: Path, *more: object) -> list[object]:
    return ["suspects", "--segmentation", made / "ids.zarr", "--affinities", made / "a.zarr", "--output", output, *more]


def test_a_scored_list_with_pictures(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "look"
    how = ("--image", made / "raw.zarr", "--truth", made / "truth.zarr", "--count", 30, "--precision-at", "1,5")
    said = good(*words(made, out, *how, "--order", "probability"))
    data = json.loads((out / "suspects.json").read_text())
    first = data["suspects"][0]
    assert first["right"]
    assert data["precision"]["1"] == 1
    assert data["vi"][-1] < data["vi"][0]
    assert data["rand_error"][-1] < data["rand_error"][0]
    assert "of the first 5" in said
    split = next(one for one in data["suspects"] if 2**40 in one["segments"])
    assert split["kind"] == "join"
    assert split["right"]
    z, y, x = split["place"]
    labels = load(made / "ids.zarr")
    assert int(labels[z, y, x]) in split["segments"]
    assert split["place_nm"] == pytest.approx([o + (p + 0.5) * s for o, p, s in zip(OFFSET, split["place"], SIZE)])
    assert split["view"].endswith(f"--position {z},{y},{x}")
    assert split["neuroglancer"]["position"] == pytest.approx([x + 20.5, y + 10.5, z + 10.5])
    table = read_table(out / "suspects.csv")
    assert table["z"].tolist() == [one["place"][0] for one in data["suspects"]]
    assert table["right"].sum() == sum(one["right"] for one in data["suspects"])
    page = (out / "suspects.html").read_text()
    assert page.count('class="case"') == len(data["suspects"])
    assert "http" not in page.replace("http-equiv", "")
    assert "Reliability" in page
    pictures = sorted(path.name for path in (out / "pictures").iterdir())
    assert len(pictures) == 3 * len(data["suspects"])
    assert pictures[:3] == ["0001-image.png", "0001-sides-along-z.png", "0001-sides.png"]
    assert (out / "pictures" / pictures[0]).read_bytes()[:4] == b"\x89PNG"


def test_weights_of_one_crop_serve_another(made: Path, tmp_path: Path) -> None:
    good(*words(made, tmp_path / "fit", "--truth", made / "truth.zarr", "--sections", "0:6"))
    weights = json.loads((tmp_path / "fit" / "calibration.json").read_text())
    assert len(weights["join"]) == len(DEFAULT.join)
    assert tuple(weights["cut"]) != DEFAULT.cut
    good(*words(made, tmp_path / "use", "--sections", "4:10", "--calibration", tmp_path / "fit" / "calibration.json"))
    plain = tmp_path / "plain"
    good(*words(made, plain, "--sections", "4:10"))
    one, other = (json.loads((tmp_path / name / "suspects.json").read_text())["suspects"] for name in ("use", "plain"))
    assert [k["probability"] for k in one] != [k["probability"] for k in other]
    assert not (plain / "calibration.json").exists()
    assert all(4 <= k["place"][0] < 10 for k in other)
    assert "right" not in read_table(plain / "suspects.csv")


def test_fragments_threshold_and_replacing(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "look"
    good("segment", "--input", made / "a.zarr", "--output", tmp_path / "s.zarr", "--fragments", tmp_path / "f.zarr",
         "--method", "mean", "--merge-threshold", 0.4)  # fmt: skip
    line = ["suspects", "--segmentation", tmp_path / "s.zarr", "--affinities", made / "a.zarr", "--output", out]
    good(*line, "--fragments", tmp_path / "f.zarr", "--least", 10)
    assert json.loads((out / "suspects.json").read_text())["merge_threshold"] == 0.4
    assert "--overwrite" in sentence(*line)
    good(*line, "--overwrite", "--count", 3)
    assert len(json.loads((out / "suspects.json").read_text())["suspects"]) <= 3
    shutil.rmtree(out)
    out.mkdir()
    (out / "thesis.tex").write_text("x")
    with untouched(tmp_path):
        assert "something else" in sentence(*line, "--overwrite")


def test_bad_inputs(made: Path, tmp_path: Path) -> None:
    small = store(f"{tmp_path}/small.h5:ids", np.ones((3, 4, 5), np.uint64))
    (tmp_path / "c.json").write_text("{}")
    out = tmp_path / "o"
    with untouched(tmp_path):
        assert "truth must have the extent" in sentence(*words(made, out, "--truth", small))
        assert "calibration" in sentence(*words(made, out, "--calibration", tmp_path / "c.json"))
        assert "does not exist" in sentence(*words(made, out, "--calibration", tmp_path / "none.json"))
        line = ["suspects", "--segmentation", made / "a.zarr", "--affinities", made / "a.zarr", "--output", out]
        assert "segmentation must have the extent" in sentence(*line)
        assert "must hold affinities" in sentence(
            "suspects", "--segmentation", small, "--affinities", small, "--output", out
        )
