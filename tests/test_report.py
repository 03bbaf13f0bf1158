"""The report: the page is well-formed, complete in itself, escaped, and tolerant of whatever a run lacks."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neuropil.errors import ConfigError, InputError, NeuropilError, VolumeError, VolumeNotFound
from neuropil.report import charts, pictures
from neuropil.report.collect import collect_run, training_log
from neuropil.report.data import ModelScores, RandCurve, ReportData, SectionPanel, TrainingLog
from neuropil.report.markup import toml
from neuropil.report.page import PARTS, headline, render
from neuropil.report.scores import smooth

VOID = {"meta", "link", "img", "input", "br"}


class Balance(HTMLParser):
    """Checks that every element is closed in order; keeps the elements and attributes it met."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def parse(page: str) -> Balance:
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def decoder_json(f: float) -> dict[str, Any]:
    levels = [k / 10 for k in range(1, 10)]
    return {
        "curve": {"threshold": levels, "merge": levels, "split": levels[::-1], "f": [f] * 9},
        "best": {
            "f": f, "threshold": 0.4, "merge": f, "split": f,
            "are": {"neuropil": 1 - f, "skimage": 0.2}, "vi": {"split": 0.5, "merge": 0.3},
        },
        "per_section": [{"z": 7, "f": f - 0.02}, {"z": 8, "f": f + 0.02}],
    }  # fmt: skip


def evaluation_json(model: str, f: float) -> dict[str, Any]:
    curve = {"threshold": [0.2, 0.5, 0.8], "error": [0.3, 0.1, 0.2]}
    return {
        "model": model, "voxel_size": [50, 4, 4], "sections": [7, 9],
        "pixel_error": {"best": 0.1, "threshold": 0.5, "at_fixed": 0.12, "fixed_threshold": 0.4, "curve": curve},
        "components": decoder_json(f), "watershed": decoder_json(f + 0.01),
        "errors": {
            "decoder": "watershed",
            "merges": [{"z": 7, "y": 20, "x": 30, "truth_ids": [1, 2], "pairs": 1234}],
            "splits": [{"z": 99, "y": 5, "x": 5, "truth_ids": [3], "pairs": 9}],
        },
    }  # fmt: skip


def write_pictures(path: Path) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:60, :80]
    truth = np.broadcast_to(1 + (y // 20) * 4 + x // 20, (2, 60, 80)).astype(np.uint64).copy()
    truth[:, ::20] = truth[:, :, ::20] = 0
    boundary = np.where(truth == 0, 250, 5).astype(np.uint8)
    image = (200 - boundary // 2 + rng.integers(0, 40, truth.shape)).astype(np.uint8)
    np.savez(
        path, image=image, truth=truth, boundary=boundary, components=truth + np.uint64(2**50), watershed=truth,
        z=np.array([7, 8]), voxel_size=np.array([50.0, 4.0, 4.0]),
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Write a whole run folder with a baseline and one network."""
    folder = tmp_path / "run"
    (folder / "evaluation").mkdir(parents=True)
    for model, f in (("VD2D", 0.9), ("intensity threshold", 0.4)):
        (folder / "evaluation" / f"{model}.json").write_text(json.dumps(evaluation_json(model, f)))
        write_pictures(folder / "evaluation" / f"{model}.npz")
    (folder / "vd2d").mkdir()
    lines: list[dict[str, Any]] = [
        {"update": u, "loss": 1 / u, "pixels_per_second": 1000.0, "seconds": u / 10} for u in range(1, 201)
    ]
    lines.append({"update": 200, "validation": {"pixel_error": 0.11, "threshold": 0.5, "loss": 0.2}})
    (folder / "vd2d" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "vd2d" / "best.json").write_text(json.dumps({"architecture": "VD2D", "parameters": 230714}))
    about = {
        "title": "A run", "config": {"train": {"seed": 3}}, "versions": {"neuropil": "0.1.0"}, "seed": 3,
        "timings": {"train": 75.0}, "hardware": {"processor": "2 cores"},
        "data": [{"name": "ISBI 2012", "licence": "non-commercial", "citation": "Cardona et al. 2010"}],
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(about))
    return folder


def test_page_is_well_formed_and_loads_nothing(run: Path) -> None:
    page = render(collect_run(run))
    parser = parse(page)
    assert {attributes.get("id") for tag, attributes in parser.seen if tag == "section"} == {key for key, _ in PARTS}
    ids = [attributes["id"] for _, attributes in parser.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert not {"script", "iframe", "object"} & {tag for tag, _ in parser.seen}
    for _, attributes in parser.seen:
        for name in ("src", "href", "data", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
        assert not [name for name in attributes if name.startswith("on")]
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)
    assert len(page.encode()) < 15_000_000


def test_page_shows_what_the_run_holds(run: Path) -> None:
    page = render(collect_run(run))
    wanted = ["A run", "VD2D", "intensity threshold", "0.9100", "7 to 8", "12.00 %", "7, 20, 30", "1 234", "200 nm"]
    for words in [*wanted, "Cardona et al. 2010", "seed = 3", "1 min 15 s", "230714", "2 cores", "skimage"]:
        assert words.replace("200 nm", "50 nm") in page, words
    assert "Section 99 is not among those whose pictures were kept" in page
    assert 'class="missing">No ' not in page


def test_pictures_decode_to_pixels_that_differ(run: Path) -> None:
    uris = re.findall(r'src="data:image/png;base64,([^"]+)"', render(collect_run(run)))
    assert len(uris) >= 2 * (3 + 2 * 3) + 4
    for uri in uris:
        picture = iio.imread(io.BytesIO(base64.b64decode(uri)), extension=".png")
        assert picture.std() > 1


def test_numbers_reach_the_data(run: Path) -> None:
    data = collect_run(run, sections=1, crop=40)
    baseline, model = data.models
    assert baseline.baseline
    assert not model.baseline
    assert model.best_f == pytest.approx(0.91)
    assert model.pixel_error is not None
    assert model.pixel_error.at_fixed == 0.12
    assert model.decoders["components"].are == {"neuropil": pytest.approx(0.1), "skimage": 0.2}
    (panel,) = data.panels
    assert panel.image.shape == (40, 40)
    assert panel.corner == (10, 20)
    assert panel.voxel_size == (50, 4, 4)
    assert [one.model for one in panel.models] == ["intensity threshold", "VD2D"]
    assert data.training[0].seconds == 20
    assert data.training[0].updates_per_second == 10
    assert headline(data) == (
        "VD2D reaches Rand F 0.9100 (watershed) and a pixel error of 10.00 %. "
        "The baseline intensity threshold reaches 0.4100 and 10.00 %."
    )


@pytest.mark.parametrize("part", ["run.json", "evaluation", "vd2d", "vd2d/log.jsonl", "npz"])
def test_missing_parts_become_one_line(run: Path, part: str) -> None:
    import shutil

    for path in run.glob("evaluation/*.npz") if part == "npz" else [run / part]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = render(collect_run(run))
    parse(page)
    assert 'class="missing"' in page
    assert "Get it with <code>neuropil " in page or part == "vd2d/log.jsonl"


def test_empty_data_give_a_page_with_all_parts() -> None:
    page = render(ReportData(title="nothing", run="x"))
    parse(page)
    for key, _ in PARTS:
        assert f'<section id="{key}">' in page


def test_text_is_escaped(run: Path) -> None:
    evil = '"><script>alert(1)</script>&'
    about = {
        "title": evil,
        "config": {evil: evil},
        "data": [{evil: evil}],
        "facts": {evil: evil},
        "versions": {"a": evil},
    }
    (run / "run.json").write_text(json.dumps({**about, evil: evil, "timings": {evil: evil}}))
    content = evaluation_json(evil, 0.9)
    content["errors"]["merges"][0][evil] = evil
    content["components"]["best"]["are"] = {evil: 0.1, "b": 0.2}
    content["definitions"] = {evil: evil}
    (run / "evaluation" / "VD2D.json").write_text(json.dumps(content))
    page = render(collect_run(run))
    parse(page)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_rendering_twice_gives_the_same_page(run: Path) -> None:
    assert render(collect_run(run)) == render(collect_run(run))


def test_absent_folder_file_and_foreign_folder(tmp_path: Path) -> None:
    with pytest.raises(VolumeNotFound, match=r"run must be a folder .*nowhere is not there"):
        collect_run(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file is a file"):
        collect_run(tmp_path / "file")
    with pytest.raises(InputError, match=r"has no run\.json"):
        collect_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", b'{"title": '),
        ("run.json", b"[1]"),
        ("run.json", b"\xff\xfe"),
        ("evaluation/VD2D.json", b""),
        ("evaluation/VD2D.npz", b"PK\x03\x04 cut"),
        ("vd2d/log.jsonl", b'{"update": 1, "loss": 1}\nhello\n{"update": 2, "loss": 1}\n'),
    ],
)
def test_broken_file_is_named_in_one_sentence(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    with pytest.raises(VolumeError, match=Path(name).name):
        collect_run(run)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"truth": np.zeros((2, 5, 5), np.uint64)}, "truth must have the image's shape"),
        ({"image": np.zeros((5, 5), np.uint8)}, "must hold an image"),
        ({"z": np.array([1])}, "z must name 2 sections"),
    ],
)
def test_pictures_that_do_not_fit(run: Path, change: dict[str, Any], words: str) -> None:
    path = run / "evaluation" / "VD2D.npz"
    with np.load(path) as file:
        arrays = {**file, **change}
    np.savez(path, **arrays)
    with pytest.raises(VolumeError, match=words):
        collect_run(run)


def test_float_pictures_and_odd_values_are_tolerated(run: Path) -> None:
    path = run / "evaluation" / "VD2D.npz"
    with np.load(path) as file:
        arrays = {**file, "boundary": file["boundary"] / 255.0, "truth": file["truth"].astype(np.uint16)}
    del arrays["voxel_size"], arrays["components"]
    np.savez(path, **arrays)
    content = evaluation_json("VD2D", 0.9)
    content["watershed"]["curve"]["f"] = [None, "x", float("nan"), *[0.5] * 6]
    content["components"] = {"best": {"f": 0.8, "are": 0.2}}
    content["errors"]["merges"] = [{"z": 7}, "what", {"z": 7, "y": 10_000, "x": 3}]
    content["pixel_error"] = {"best": None}
    del content["voxel_size"]
    (run / "evaluation" / "VD2D.json").write_text(json.dumps(content))
    data = collect_run(run)
    assert data.panels[0].models[1].boundary is not None
    assert data.panels[0].models[1].boundary.max() == 250
    page = render(data)
    parse(page)
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]+", "", page))


def test_sections_that_most_models_kept_are_compared(run: Path) -> None:
    path = run / "evaluation" / "VD2D.npz"
    with np.load(path) as file:
        arrays = {**file, "z": np.array([3, 8])}
    np.savez(path, **arrays)
    (panel,) = collect_run(run).panels
    assert panel.z == 8
    assert len(panel.models) == 2


def test_what_evaluate_and_train_write_is_understood(run: Path) -> None:
    places = [
        {"z": 7, "y": 20, "x": 30, "point": [0, 20, 30], "segment": 2**50 + 1, "parts": [6, "5"], "sizes": [9, 4]}
    ]
    content = {
        "model": "other", "voxel_size": [50.0, 4.0, 4.0], "sections": [7, 9], "truth": "truth.h5:ids",
        "config": {"dust": 9},
        "segmentation": {
            "best": {"f": 0.8, "interval": [0.7, 0.9], "merge": 0.8, "split": 0.8}, "per_section": [{"f": 0.75}],
            "at_fixed": {"threshold": 0.25, "f": 0.78},
        },
        "errors": {"decoder": "watershed", "merges": places, "splits": [{**places[0], "segment": 6, "parts": [3, 4]}]},
        "definitions": {"sections": "2-D, pooled"},
    }  # fmt: skip
    (run / "evaluation" / "other.json").write_text(json.dumps(content))
    write_pictures(run / "evaluation" / "other.npz")
    about = {
        "config": {
            "stacks": [{"name": "a", "image": "data://vnc/vnc.h5:raw", "sections": [0, 12]}], "validation": [],
            "networks": [{"name": "vd2d"}], "seed": 4, "notes": "CC BY-NC-SA",
        },
        "versions": {"neuropil": "0.1.0", "cores": 2}, "networks": {"vd2d": {"updates": 5, "seconds": 61.0}},
        "seconds": 70,
    }  # fmt: skip
    (run / "run.json").write_text(json.dumps(about))
    data = collect_run(run)
    scores = next(one for one in data.models if one.model == "other").decoders["segmentation"]
    assert scores.interval == (0.7, 0.9)
    assert (scores.f_at_fixed, scores.fixed_threshold) == (0.78, 0.25)
    merge, split = (error for error in data.errors if error.model == "other")
    assert (merge.truth_ids, merge.segment_ids, merge.decoder) == ((6, 5), (2**50 + 1,), "segmentation")
    assert (split.truth_ids, split.segment_ids) == ((6,), (3, 4))
    assert data.facts["training data"] == "data://vnc/vnc.h5:raw, sections 0 to 11"
    assert data.facts["evaluated on"] == "truth.h5:ids"
    assert data.facts["voxel size"] == "50 × 4 × 4 nm (z, y, x)"
    assert data.timings == {"train vd2d": 61.0, "train, in all": 70.0}
    page = render(data)
    parse(page)
    for words in ("2-D, pooled", "CC BY-NC-SA", "dust = 9", "1 min 01 s", "0.7800 <small>at 0.25", "95 % interval"):
        assert words in page, words


def test_log_of_a_killed_and_resumed_training(tmp_path: Path) -> None:
    lines = [
        '{"update": 1, "loss": 3.0, "seconds": 10}', '{"update": 2, "loss": 2.0, "seconds": 20}', '{"update": 3, "lo',
        '{"update": 2, "loss": 2.5, "seconds": 4}', '{"update": 3, "loss": NaN, "seconds": 8}', '{"upd',
    ]  # fmt: skip
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    log = training_log(tmp_path)
    assert log.update == (1, 2)
    assert log.loss == (3.0, 2.5)
    assert log.seconds == 28


@given(
    picture=hnp.arrays(
        np.uint8,
        st.one_of(hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), st.just((4, 5, 3)), st.just((30, 20, 3))),
    )
)
@settings(max_examples=40, deadline=None)
def test_png_round_trip(picture: np.ndarray) -> None:
    data = base64.b64decode(pictures.png_uri(picture).split(",")[1])
    back = iio.imread(io.BytesIO(data), extension=".png")
    np.testing.assert_array_equal(back, picture)


@given(labels=hnp.arrays(np.uint64, (6, 7), elements=st.sampled_from([0, 1, 2, 3, 2**60, 2**64 - 1])))
@settings(max_examples=50, deadline=None)
def test_colours_are_stable_and_inputs_untouched(labels: np.ndarray) -> None:
    labels.flags.writeable = False
    painted = pictures.paint(labels)
    for one in np.unique(labels):
        colours = np.unique(painted[labels == one], axis=0)
        assert len(colours) == 1
        assert (colours[0] == pictures.colours_of(np.array([one], np.uint64))[0]).all()
        assert (colours.sum() == 0) == (one == 0)
    # A segmentation equal to its truth up to renaming looks exactly like it.
    ids, place = np.unique(labels, return_inverse=True)
    renamed = np.where(ids == 0, 0, np.arange(len(ids)) + 77).astype(np.uint64)[place].reshape(labels.shape)
    np.testing.assert_array_equal(pictures.paint(renamed, labels), painted)


def test_outlines_follow_the_middle_of_a_membrane() -> None:
    labels = np.zeros((5, 11), np.uint64)
    labels[:, :4], labels[:, 7:] = 1, 2
    assert np.flatnonzero(pictures.outlines(labels)[2]).tolist() in ([4, 5], [5, 6])
    assert not pictures.outlines(np.ones((4, 4), np.uint64)).any()
    assert not pictures.outlines(np.zeros((4, 4), np.uint64)).any()


@given(width=st.integers(1, 5000), voxel=st.floats(0.5, 500))
@settings(max_examples=50, deadline=None)
def test_scale_bar_is_round_and_fits(width: int, voxel: float) -> None:
    fraction, words = pictures.scale_bar(width, voxel)
    value, unit = words.split()
    length = float(value) * (1000 if unit == "µm" else 1)
    assert fraction * width * voxel == pytest.approx(length)
    assert 0.3 / 2.5 * 0.999 <= fraction <= 0.3 * 1.001
    assert f"{length:e}"[0] in "125"


@given(low=st.floats(-1e6, 1e6), extent=st.floats(1e-6, 1e6), count=st.integers(2, 9))
@settings(max_examples=50, deadline=None)
def test_ticks_lie_inside_and_are_even(low: float, extent: float, count: int) -> None:
    values = charts.ticks(low, low + extent, count)
    assert 1 <= len(values) <= 2 * count + 2 or extent < 1e-6 * abs(low)
    assert all(low - extent * 1e-6 - 1e-9 <= value <= low + extent * (1 + 1e-6) + 1e-9 for value in values)


def test_crop_stays_inside() -> None:
    image = np.arange(30 * 50).reshape(30, 50).astype(np.uint8)
    panel = SectionPanel(z=0, image=image, corner=(100, 200))
    for centre in ((0, 0), (29, 49), (15, 3)):
        small = pictures.crop(panel, centre, 16)
        assert small.image.shape == (16, 16)
        y, x = small.corner[0] - 100, small.corner[1] - 200
        np.testing.assert_array_equal(small.image, image[y : y + 16, x : x + 16])
    assert pictures.crop(panel, None, 999).image.shape == image.shape


def test_charts_bear_values_that_are_not_finite() -> None:
    nan = float("nan")
    log = TrainingLog("n", (1, 2, 3), (nan, nan, nan))
    curve = RandCurve((0.1, 0.2), (nan, 0.5), (0.5, nan), (nan, nan))
    model = ModelScores("m", decoders={})
    page = render(ReportData("t", "r", models=(model,), training=(log,)))
    parse(page)
    series = [charts.Series("m", curve.split, curve.merge, mark=(0.5, 0.5), tips=("a", "b"))]
    chart = charts.line_chart("t", series, charts.Axes("x", "y", (0, 1), (0, 1)))
    parse(chart)
    assert "nan" not in chart


def test_smooth_keeps_the_mean() -> None:
    rng = np.random.default_rng(1)
    values = rng.random(1000).tolist()
    x, mean, low, high = smooth(range(1000), values, 100)
    assert len(x) == 100
    assert np.mean(mean) == pytest.approx(np.mean(values))
    assert all(a <= b <= c for a, b, c in zip(low, mean, high))
    assert smooth([], [], 10) == ((), (), (), ())


def test_configuration_is_valid_toml() -> None:
    import tomllib

    config = {
        "a b": 1, "list": [1, [2, 3]], "text": 'with "quotes"\n', "yes": True, "none": None, "empty": [],
        "table": {"x": 1.5, "deep": {"y": "z"}}, "rows": [{"n": 1, "o": {"p": 2}}, {"n": 2}], "mixed": [{"n": 1}, 2],
    }  # fmt: skip
    back = tomllib.loads(toml(config))
    assert back == {key: value for key, value in config.items() if value is not None}


def test_report_is_frozen_data() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ReportData("t", "r").title = "other"  # type: ignore[misc]


def test_stage_writes_beside_and_replaces(run: Path, tmp_path: Path) -> None:
    stage = pytest.importorskip("neuropil.stages.report")
    result = stage.run(stage.Config(run=run))
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert str(run / "report.html") in result.summary
    assert result.data["bytes"] == (run / "report.html").stat().st_size
    again = stage.run(stage.Config(run=run, output=tmp_path / "new" / "page.html", sections=0))
    assert (tmp_path / "new" / "page.html").is_file()
    assert again.data["bytes"] < result.data["bytes"]
    assert sorted(path.name for path in run.iterdir()) == ["evaluation", "report.html", "run.json", "vd2d"]
    with pytest.raises(VolumeError, match="could not be written"):
        stage.run(stage.Config(run=run, output=run / "run.json" / "page.html"))


def test_command_line_says_one_sentence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli = pytest.importorskip("neuropil.cli")
    assert cli.main(["report", str(run), "--crop", "32"]) == 0
    assert "report.html" in capsys.readouterr().out
    assert cli.main(["report", str(run / "none")]) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0
    assert cli.main(["report", str(run), "--crp", "32"]) == 2
    assert issubclass(ConfigError, NeuropilError)
