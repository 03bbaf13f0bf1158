"""`neuropil benchmark`: what it scores, what it does not score twice, what it writes, what it refuses."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from small import command, good, load, sentence, stack, store, untouched

from neuropil.labels import contingency
from neuropil.metrics.information import variation_of_information
from neuropil.metrics.rand import adapted_rand_error
from neuropil.stages import benchmark, benchmark_scores
from neuropil.stages.benchmark_scores import scores_of_table

RULES = """
[benchmark]
output = "{folder}/out"
resamples = 20
blocks = 12
"""


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """A stack, a segmentation with errors, and a boundary map."""
    data = stack(tmp_path / "s.h5")
    truth = load(f"{data}:labels")
    spoilt = np.where((truth == 2) | (truth == 3), np.uint64(2**50), truth)
    spoilt[2:4, 5:9] = 0
    store(f"{data}:spoilt", spoilt, kind="labels")
    store(f"{data}:map", np.where(truth == 0, 0.9, 0.1).astype(np.float32), kind="boundary")
    return data


def config(folder: Path, *methods: str, volume: str = "") -> Path:
    """Write a benchmark of one volume."""
    lines = [RULES.format(folder=folder), '[[benchmark.volumes]]\nname = "cells"', f'truth = "{folder}/s.h5:labels"']
    lines += [volume, *(f"[[benchmark.volumes.methods]]\n{one}" for one in methods)]
    path = folder / "run.toml"
    path.write_text("\n".join(lines))
    return path


def method(folder: Path, name: str, dataset: str, key: str = "segmentation", more: str = "") -> str:
    return f'name = "{name}"\n{key} = "{folder}/s.h5:{dataset}"\n{more}'


def results(folder: Path) -> list[dict]:
    read = json.loads((folder / "out/results.json").read_text(), parse_constant=lambda text: pytest.fail(text))
    return read["volumes"][0]["methods"]


def test_run_length_on_skeletons(tmp_path: Path, volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers as evaluate gives; a volume without skeletons has none; a new threshold scores anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    size = (400.0, 400.0, 400.0)  # so that cells are long
    both = [method(tmp_path, name, f"{name}_large") for name in ("labels", "spoilt")]
    for name in ("labels", "spoilt"):
        store(f"{volumes}:{name}_large", load(f"{volumes}:{name}"), kind="labels", voxel_size=size)
    volume = 'voxel_size = "400,400,400"\nskeletons = "truth"'
    good("benchmark", config(tmp_path, *both, volume=volume))
    perfect, spoilt = results(tmp_path)
    assert perfect["scores"]["nerl"] == {"value": 1, "low": pytest.approx(1), "high": pytest.approx(1)}
    words = ["evaluate", "--segmentation", f"{volumes}:spoilt_large", "--truth", f"{volumes}:labels_large"]
    good(*words, "--skeletons", "truth", "--json", tmp_path / "e.json")
    row = json.loads((tmp_path / "e.json").read_text())["run_length"][0]
    found = {name: one["value"] for name, one in spoilt["scores"].items()}
    assert found["erl_um"] == pytest.approx(row["erl_um"])
    assert found["nerl"] == pytest.approx(row["nerl"])
    assert (found["skeleton_merges"], found["skeleton_splits"]) == (row["merges"], row["splits"])
    assert found["skeleton_merges"] > 0
    assert spoilt["minus_first"]["nerl"]["high"] < 0
    assert "NERL" in (tmp_path / "out/report.html").read_text()
    good("benchmark", config(tmp_path, *both, volume=f"{volume}\nmerge_threshold = 100000"))
    assert results(tmp_path)[1]["scores"]["skeleton_merges"]["value"] == 0
    good("benchmark", config(tmp_path, *both))
    assert "nerl" not in results(tmp_path)[1]["scores"]
    small = config(tmp_path, *both, volume='skeletons = "truth"\nvoxel_size = "1,1,1"')
    assert "skeletons: none has a length" in sentence("benchmark", small, "--quiet")


def test_scores_are_those_of_the_whole_arrays(tmp_path: Path, volumes: Path) -> None:
    run = config(tmp_path, method(tmp_path, "perfect", "labels"), method(tmp_path, "spoilt", "spoilt"))
    text = good("benchmark", run)
    perfect, spoilt = results(tmp_path)
    assert perfect["scores"]["adapted_rand_error"] == {"value": 0, "low": 0, "high": 0}
    assert perfect["scores"]["instance_ap"]["value"] == 1
    table = contingency(load(f"{volumes}:spoilt"), load(f"{volumes}:labels"))
    for name, value in scores_of_table(table).items():
        found = spoilt["scores"][name]
        assert found["value"] == pytest.approx(value, rel=1e-12), name
        assert found["low"] <= found["value"] <= found["high"], name
    assert adapted_rand_error(table).error == spoilt["scores"]["adapted_rand_error"]["value"] > 0.05
    assert spoilt["scores"]["vi_merge"]["value"] == pytest.approx(variation_of_information(table).merge)
    assert spoilt["minus_first"]["adapted_rand_error"]["low"] > 0
    assert spoilt["seconds"] is None
    assert spoilt["segments"] == perfect["segments"] - 1
    assert "spoilt" in text


def test_text_csv_and_page_say_the_same(tmp_path: Path, volumes: Path) -> None:
    run = config(tmp_path, method(tmp_path, "perfect", "labels"), method(tmp_path, "spoilt", "spoilt"))
    text = good("benchmark", run, "--title", "A < B", "--json", tmp_path / "all.json")
    with (tmp_path / "out/results.csv").open() as file:
        lines = list(csv.DictReader(file))
    error = results(tmp_path)[1]["scores"]["adapted_rand_error"]["value"]
    assert [line["method"] for line in lines] == ["perfect", "spoilt"]
    assert float(lines[1]["adapted_rand_error"]) == pytest.approx(error, abs=1e-6)
    assert float(lines[1]["minus_first_adapted_rand_error_low"]) > 0
    page = (tmp_path / "out/report.html").read_text()
    assert "A &lt; B" in page
    assert f"{error:.3f}" in page
    assert f"{error:.3f}" in text
    assert page.count('<path class="mark') == 4  # two in the chart, two in its legend
    assert not re.search(r"<script|(src|href)=.?https?:", page)
    assert json.loads((tmp_path / "all.json").read_text())["volumes"][0]["methods"] == results(tmp_path)


def test_what_neuropil_segments_is_timed(tmp_path: Path, volumes: Path) -> None:
    ours = 'method = "mean"\nlow = 0.3\nsize = 4\ndust = 4\nthresholds = [0.5, 0.8]'
    dark = "size = 4\ndust = 4\nper_section = true"
    good("benchmark", config(tmp_path, method(tmp_path, "map", "map", "boundary", ours),
                             method(tmp_path, "dark", "raw", "image", dark)))  # fmt: skip
    first, second, third = results(tmp_path)
    assert [one["name"] for one in (first, second, third)] == ["map 0.5", "map 0.8", "dark"]
    assert all(one["seconds"] > 0 for one in (first, second, third))
    assert first["scores"]["adapted_rand_error"]["value"] == pytest.approx(0, abs=1e-12)
    assert third["scores"]["v_split"]["value"] < 1  # per section: no segment runs from one to the next


def test_box_origin_mask_and_unlabelled(tmp_path: Path, volumes: Path) -> None:
    truth = load(f"{volumes}:labels")
    store(f"{volumes}:part", truth[1:5, 4:], kind="labels")
    wrong = truth.copy()
    wrong[:, :, 30:] = 1
    store(f"{volumes}:wrong", wrong, kind="labels")
    store(f"{volumes}:inside", (np.arange(44) < 30) * np.ones(truth.shape, np.uint8), kind="mask")
    box = "sections = [2, 5]\nrows = [10, 40]\nblock_shape = [1, 10, 22]\n"
    part = method(tmp_path, "part", "part", more="origin = [1, 4, 0]")
    good("benchmark", config(tmp_path, part, volume=box))
    assert results(tmp_path)[0]["scores"]["vi"]["value"] == 0
    made = json.loads((tmp_path / "out/results.json").read_text())["volumes"][0]
    assert (made["box"], made["block_shape"], made["blocks"]) == ([[2, 10, 0], [5, 40, 44]], [1, 10, 22], 18)
    good("benchmark", config(tmp_path, method(tmp_path, "wrong", "wrong")))
    assert results(tmp_path)[0]["scores"]["vi"]["value"] > 0.1
    good("benchmark", config(tmp_path, method(tmp_path, "wrong", "wrong"), volume=f'mask = "{volumes}:inside"'))
    assert results(tmp_path)[0]["scores"]["vi"]["value"] == 0
    unlabelled = truth.copy()
    unlabelled[:, :, 30:] = 2**64 - 1
    store(f"{volumes}:cremi", unlabelled, kind="labels")
    run = config(tmp_path, method(tmp_path, "wrong", "wrong"))
    run.write_text(run.read_text().replace(":labels", ":cremi"))
    good("benchmark", run)
    assert results(tmp_path)[0]["scores"]["vi"]["value"] == 0


def test_nothing_is_scored_twice_unless_it_changed(tmp_path: Path, volumes: Path, monkeypatch) -> None:
    scored: list[str] = []

    def score_job(job, **settings):
        scored.append(job.name)
        return benchmark_scores.score_job(job, **settings)

    monkeypatch.setattr(benchmark, "score_job", score_job)

    def names(*words: object) -> list[str]:
        scored.clear()
        good("benchmark", run, *words)
        return list(scored)

    one, two = method(tmp_path, "one", "labels"), method(tmp_path, "two", "map", "boundary", "size = 4\ndust = 4")
    run = config(tmp_path, one, two)
    assert names() == ["one", "two"]
    before = results(tmp_path)
    assert names() == []
    assert results(tmp_path) == before  # also what was timed
    assert names("--level", 0.9, "--title", "T") == []
    config(tmp_path, one, two.replace("dust = 4", "dust = 5"))
    assert names() == ["two"]
    config(tmp_path, two, one)
    assert names() == ["two"]
    config(tmp_path, one, two)
    assert names() == []
    assert names("--resamples", 21) == ["one", "two"]
    assert names("--resamples", 21, "--fresh") == ["one", "two"]
    os.utime(volumes, ns=(1, 1))
    assert names("--resamples", 21) == ["one", "two"]


def test_a_stopped_benchmark_goes_on(tmp_path: Path, volumes: Path, monkeypatch) -> None:
    run = config(tmp_path, method(tmp_path, "one", "labels"), method(tmp_path, "two", "spoilt"))
    stops = iter([False, True])

    def score_job(job, **settings):
        if next(stops):
            raise KeyboardInterrupt
        return benchmark_scores.score_job(job, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(benchmark, "score_job", score_job)
        assert command("benchmark", run).code == 130
    assert [path.name for path in (tmp_path / "out/scores/cells").iterdir()] == ["one.json"]
    good("benchmark", run)
    assert [one["name"] for one in results(tmp_path)] == ["one", "two"]


def test_refusals_leave_nothing(tmp_path: Path, volumes: Path) -> None:
    one = method(tmp_path, "one", "labels")
    small = store(f"{volumes}:small", np.ones((6, 40, 9), np.uint8), kind="labels")
    store(f"{volumes}:empty", np.zeros((6, 40, 44), np.uint8), kind="labels")

    def refused(*methods: str, volume: str = "") -> str:
        run = config(tmp_path, *methods, volume=volume)
        with untouched(tmp_path):
            return sentence("benchmark", run)

    assert "needs one of segmentation, affinities, boundary, image; got none" in refused('name = "x"')
    both = one + f'image = "{volumes}:raw"'
    assert "got segmentation and image" in refused(both)
    assert "is a segmentation already; drop low, thresholds" in refused(one + "low = 0.1\nthresholds = [0.5]")
    assert "'one' of 'cells' is twice" in refused(one, one)
    ours = method(tmp_path, "x", "map", "boundary", 'method = "mean"')
    assert "decoder 'mean' needs thresholds" in refused(ours)
    assert "decoder 'mutex' has no threshold" in refused(ours.replace("mean", "mutex") + "\nthresholds = [0.5]")
    assert "must satisfy 0 <= low < high" in refused(ours + "\nlow = 2\nthresholds = [0.5]")
    assert "thresholds must list at least one" in refused(ours + "\nthresholds = []")
    assert "unknown key 'segmentaton'" in refused('name = "x"\nsegmentaton = "a.h5"')
    assert "'methods' is missing in [benchmark.volumes.cells]" in refused()
    assert "sections must lie within 0:6" in refused(one, volume="sections = [2, 9]")
    mask = f'mask = "{small}"'
    assert "must have the shape of the truth, (6, 40, 44); got (6, 40, 9)" in refused(one, volume=mask)
    assert "'nothing'" in refused(method(tmp_path, "x", "nothing"))
    assert "must hold integer labels" in refused(method(tmp_path, "x", "map"))
    assert f"{small} must cover the scored box (0, 0, 0) to (6, 40, 44)" in refused(one, method(tmp_path, "x", "small"))
    run = config(tmp_path, one)
    run.write_text(run.read_text().replace("s.h5:labels", "s.h5:empty"))
    assert "must have truth in at least 2 blocks" in sentence("benchmark", run, "--quiet")
    (tmp_path / "file").write_text("")
    assert "output must be a folder" in sentence("benchmark", config(tmp_path, one), "--output", tmp_path / "file")
