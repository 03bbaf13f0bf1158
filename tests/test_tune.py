"""`neuropil tune`: the best threshold, the range around it, a second crop, and a TOML that segment takes."""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import good, load, sentence, stack, store, untouched
from test_report import parse

from neuropil.errors import InputError
from neuropil.labels import contingency
from neuropil.metrics.curves import flat_range
from neuropil.metrics.information import variation_of_information
from neuropil.metrics.rand import rand_scores
from neuropil.segmentation.affinities import NEAREST, Affinities, affinities_from_labels
from neuropil.segmentation.decoding import Decoder, decode
from neuropil.stages import segment
from neuropil.stages import tune as tune_stage
from neuropil.stages.affinities import read_affinities
from neuropil.stages.tuning import Crop, check, tune
from neuropil.volume import open_volume


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_flat_range_is_where_every_threshold_is_good(good_at: list[bool], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(good_at) - 1))
    good_at[index] = True
    levels = np.linspace(0.9, 0.2, len(good_at))
    low, high = flat_range(levels, good_at, index)

    def segmentation(t: float) -> int:
        """The point of the curve whose segmentation a threshold gives: the last level that is not below it."""
        return max([k for k, level in enumerate(levels) if level >= t], default=0)

    inside = [t for t in np.linspace(0.01, 1, 100) if low < t <= high]
    assert all(good_at[segmentation(t)] for t in inside)
    assert low < levels[index] <= high
    assert low == 0 or not good_at[segmentation(low)]
    assert high == 1 or not good_at[segmentation(high + 1e-9)]


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Truth and noisy affinities, stored at the lower end, of two crops in one volume."""
    folder = tmp_path_factory.mktemp("tune")
    truth = load(f"{stack(folder / 's.h5', shape=(12, 40, 44))}:labels")
    offsets = tuple((-z, -y, -x) for z, y, x in NEAREST)
    links = affinities_from_labels(truth, offsets).affinities
    rng = np.random.default_rng(0)
    values = np.clip(0.25 + 0.4 * links + rng.normal(0, 0.12, links.shape), 0, 1)
    store(f"{folder}/a.h5:affs", values.astype(np.float32), kind="affinities", offsets=offsets)
    store(f"{folder}/m.h5:map", np.where(truth == 0, 230, 25).astype(np.uint8), kind="boundary", scale=1 / 255)
    return folder


TUNE = ["tune", "--sections", "0:6", "--check-sections", "6:12", "--size", "0,20", "--dust", 4]


@pytest.mark.parametrize(("score", "method"), [("rand", "watershed"), ("vi", "mean"), ("rand", "quantile")])
def test_tune_and_segment_agree(noisy: Path, tmp_path: Path, score: str, method: str) -> None:
    found = tmp_path / "found.toml"
    data = ["--input", f"{noisy}/a.h5:affs", "--truth", f"{noisy}/s.h5:labels"]
    said = good(*TUNE, *data, "--low", "0.1,0.3", "--score", score, "--methods", method, "--output", found)
    kept = json.loads((tmp_path / "found.json").read_text())
    rows = kept["rows"]
    assert len(rows) == 4
    assert said.count("\n") >= 5
    if score == "rand":
        assert rows[0]["f"] == max(row["f"] for row in rows) > 0.8
    else:
        assert rows[0]["vi"] == min(row["vi"] for row in rows)
    assert all(row["flat"][0] < row["merge_threshold"] <= row["flat"][1] for row in rows)
    out = tmp_path / "ids.zarr"
    good("segment", found, "--input", f"{noisy}/a.h5:affs", "--sections", "6:12", "--output", out)
    table = contingency(load(out), load(f"{noisy}/s.h5:labels")[6:])
    assert rand_scores(table).f == pytest.approx(rows[0]["check"]["f"])
    assert variation_of_information(table).total == pytest.approx(rows[0]["check"]["vi"])
    page = (tmp_path / "found.html").read_text()
    assert page.count("<polyline") >= 8
    parse(page)
    assert "nearly as good from" in page


def test_the_optimum_and_its_range_are_those_of_single_cuts(noisy: Path) -> None:
    with open_volume(f"{noisy}/a.h5:affs") as volume:
        links = read_affinities(volume)
    crop = Crop(links, load(f"{noisy}/s.h5:labels"), None)
    row = tune(crop, Decoder(size=0, dust=4), "rand", 0.05)
    low, high = row["flat"]
    scores = {
        t: check(crop, Decoder(size=0, dust=4, merge_threshold=t))
        for t in (row["merge_threshold"], low, low + 1e-5, (low + high) / 2, high)
    }
    assert scores[row["merge_threshold"]]["f"] == pytest.approx(row["f"])
    assert scores[row["merge_threshold"]]["best_f"] == pytest.approx(row["f"])
    assert all(one["f"] >= 0.95 * row["f"] - 1e-9 for t, one in scores.items() if t != low)
    assert scores[low]["f"] < 0.95 * row["f"]


@pytest.mark.parametrize("saturated", [1.0, 0.75])
def test_nothing_to_merge_is_a_threshold_too(saturated: float) -> None:
    """Objects joined by links as strong as those within: the best is to merge nothing, also after rounding."""
    truth = np.array([[[1, 1, 1, 2, 2, 2]]], np.uint64)
    row = np.zeros((3, 1, 1, 6), np.float32)
    row[2, 0, 0, 1:] = [1, saturated, 0.5, saturated, 1]
    crop = Crop(Affinities(row), truth, None)
    found = tune(crop, Decoder(low=0.1, high=1.0, size=0, dust=0), "rand", 0.05)
    assert found["f"] == 1
    cut = decode(crop.links, Decoder(low=0.1, high=1.0, size=0, dust=0, merge_threshold=found["merge_threshold"]))
    assert cut.segmentation.tolist() == [[[1, 1, 1, 2, 2, 2]]]


def test_the_mutex_watershed_has_no_threshold(noisy: Path, tmp_path: Path) -> None:
    truth = load(f"{noisy}/s.h5:labels")
    offsets = (*NEAREST, (0, 0, 4), (0, -4, 0))
    links = affinities_from_labels(truth, offsets)
    crop = Crop(Affinities(links.affinities, offsets, links.mask), truth, None)
    row = tune(crop, Decoder("mutex", dust=4), "rand", 0.05)
    assert (row["f"], row["levels"], row["merge_threshold"], row["flat"]) == (1, 1, 1, [0, 1])
    half = np.arange(truth.shape[2]) < 20
    unknown = Crop(Affinities(links.affinities, offsets, links.mask & half), np.where(half, truth, 0), None)
    assert tune(unknown, Decoder("mutex", dust=4), "rand", 0.05)["f"] == 1
    facts = {"kind": "affinities", "offsets": offsets}
    uri = store(tmp_path / "far.zarr", links.affinities, **facts)
    said = good(
        *TUNE, "--input", uri, "--truth", f"{noisy}/s.h5:labels", "--methods", "mutex", "--output", tmp_path / "m.toml"
    )
    assert "none" in said
    assert "merge_threshold" not in tomllib.loads((tmp_path / "m.toml").read_text())["segment"]
    with pytest.raises(InputError, match="needs long-range links beside the nearest ones"):
        decode(Affinities(links.affinities[:3]), Decoder("mutex"))


def test_a_threshold_outside_0_to_1_is_refused() -> None:
    for threshold in (-0.1, 1.5, float("nan")):
        with pytest.raises(InputError, match=rf"merge_threshold must lie in \[0, 1\]; got {threshold}"):
            Decoder("mean", merge_threshold=threshold)


def test_multicut_is_cut_by_cut(noisy: Path, tmp_path: Path) -> None:
    pytest.importorskip("bioimage_cpp")
    data = ["--input", f"{noisy}/a.h5:affs", "--truth", f"{noisy}/s.h5:labels", "--output", tmp_path / "f.toml"]
    good(*TUNE, *data, "--methods", "multicut", "--thresholds", "0.2,0.4,0.99")
    best, other = json.loads((tmp_path / "f.json").read_text())["rows"]
    assert set(tomllib.loads((tmp_path / "f.toml").read_text())["segment"]) == {
        "method", "low", "high", "size", "size_threshold", "dust", "merge_threshold"}  # fmt: skip
    assert (best["levels"], best["merge_threshold"]) == (3, 0.4)
    assert best["f"] == max(best["curve"]["f"])
    assert best["curve"]["f"][0] < best["f"]
    good(
        "segment",
        tmp_path / "f.toml",
        "--input",
        f"{noisy}/a.h5:affs",
        "--sections",
        "6:12",
        "--output",
        tmp_path / "i.zarr",
    )
    table = contingency(load(tmp_path / "i.zarr"), load(f"{noisy}/s.h5:labels")[6:])
    assert rand_scores(table).f == pytest.approx(best["check"]["f"])
    assert other["size"] != best["size"]


def test_methods_and_quantiles_side_by_side(noisy: Path, tmp_path: Path) -> None:
    data = ["--input", f"{noisy}/a.h5:affs", "--truth", f"{noisy}/s.h5:labels", "--output", tmp_path / "f.toml"]
    good("tune", *data, "--methods", "watershed,mean,quantile", "--quantile", "0.25,0.75", "--dust", 4, "--size", 4)
    rows = json.loads((tmp_path / "f.json").read_text())["rows"]
    assert {row["name"] for row in rows} == {"watershed", "mean", "quantile 0.25", "quantile 0.75"}
    f = {row["name"]: row["f"] for row in rows}
    assert f["mean"] > 0.99
    assert f["quantile 0.75"] != f["quantile 0.25"]


def test_a_boundary_map_section_by_section(noisy: Path, tmp_path: Path) -> None:
    data = ["--input", f"{noisy}/m.h5:map", "--truth", f"{noisy}/s.h5:labels", "--output", tmp_path / "f.toml"]
    good(*TUNE, *data)
    rows = json.loads((tmp_path / "f.json").read_text())["rows"]
    assert rows[0]["f"] == rows[0]["check"]["f"] == 1
    assert sentence(*TUNE, *data).endswith("exists; give --overwrite to replace it")


def test_refusals(noisy: Path, tmp_path: Path) -> None:
    data = ["--input", f"{noisy}/a.h5:affs", "--truth", f"{noisy}/s.h5:labels"]
    toml = ["--output", tmp_path / "f.toml"]
    empty = store(tmp_path / "e.zarr", np.zeros((12, 40, 44), np.uint64), kind="labels")
    narrow = store(tmp_path / "n.zarr", np.ones((12, 40, 40), np.uint64), kind="labels")
    with untouched(tmp_path):
        for words, said in [
            ([*TUNE, *data, "--output", tmp_path / "f.json"], "output must be a .toml file"),
            ([*TUNE, *data, "--output", tmp_path / "none" / "f.toml"], "must lie in a folder that exists"),
            ([*TUNE, *data, *toml, "--methods", "watershed,maen"], "methods must be some of watershed"),
            ([*TUNE, *data, *toml, "--thresholds", "0.5,1"], "thresholds must lie between 0 and 1"),
            ([*TUNE, *data, *toml, "--low", "0.1,0.1"], "low must list different values"),
            ([*TUNE, *data, *toml, "--check-sections", "5:9"], "sections and check_sections must not overlap"),
            (["tune", *data, *toml, "--check-sections", "5:9"], "must not overlap; got None and (5, 9)"),
            ([*TUNE, *data, *toml, "--truth-start", 3], "truth must cover the input's sections 9:15"),
            ([*TUNE, *data[:2], "--truth", narrow, *toml], "truth must cover the input's sections 0:6 of (40, 44)"),
            ([*TUNE, *data[:2], "--truth", empty, *toml], "has no labels in sections 0:6"),
            ([*TUNE, *data[:2], "--truth", f"{noisy}/a.h5:affs", *toml], "must hold integer labels"),
            ([*TUNE, *data, *toml, "--low", "0.9", "--high", "0.1"], "low and high must satisfy"),
        ]:
            assert said in sentence(*words), words


def test_segment_and_tune_begin_with_the_same_parameters() -> None:
    shown = segment.Config.model_fields
    tried = tune_stage.Config.model_fields
    for field in fields(Decoder):
        if field.name in shown:
            assert shown[field.name].default == field.default, field.name
        if field.name in tried:
            default = tried[field.name].default
            assert (default[0] if isinstance(default, list) else default) == field.default, field.name
