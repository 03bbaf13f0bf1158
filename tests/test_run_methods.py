"""`neuropil run --method components` and `size`: what `neuropil segment` makes of the whole, to the same ids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from small import Stopping, command, good, load, sentence, store, untouched

SHAPE = (11, 32, 34)
SIZES = ["--low", 0.2, "--high", 0.9, "--size", 20, "--size-threshold", 0.3, "--dust", 12]
FACTS = {
    "b": {"kind": "boundary"},
    "a": {"kind": "affinities", "offsets": ((0, 0, 9), (0, 0, 1), (0, 1, 0), (1, 0, 0))},
}


def field(channels: int) -> np.ndarray:
    """Smooth random values in [0, 1]."""
    rng = np.random.default_rng(0)
    values = np.stack([ndimage.gaussian_filter(rng.random(SHAPE), 1.1) for _ in range(channels)])
    return ((values - values.min()) / np.ptp(values)).astype(np.float32)


@pytest.fixture
def boundary(tmp_path: Path) -> str:
    return store(f"{tmp_path}/b.zarr", (255 * field(1)[0]).astype(np.uint8), scale=1 / 255, **FACTS["b"])


@pytest.fixture
def affinities(tmp_path: Path) -> str:
    """Floats, stored at the lower end, behind a long link."""
    return store(f"{tmp_path}/a.zarr", field(4), **FACTS["a"])


def both(folder: Path, uri: str, how: list[object], *blocks: str) -> np.ndarray:
    """Segment whole, and in blocks of each size; all are the same."""
    good("segment", "--input", uri, "--output", f"{folder}/whole.zarr", *how, "--overwrite")
    labels = load(f"{folder}/whole.zarr")
    for block in blocks:
        words = ["run", "--input", uri, "--output", f"{folder}/ids.zarr", *how, "--overwrite", "--executor", "serial"]
        good(*words, "--block", block)
        np.testing.assert_array_equal(load(f"{folder}/ids.zarr"), labels, err_msg=block)
    return labels


def test_components_of_a_map(tmp_path: Path, boundary: str) -> None:
    how = ["--method", "components", "--threshold", 0.4]
    flat = both(tmp_path, boundary, how, "11,32,34", "1,32,17", "4,13,15")
    deep = both(tmp_path, boundary, [*how, "--no-per-section"], "4,13,15", "3,32,5")
    dusted = both(tmp_path, boundary, [*how, "--no-per-section", "--dust", 9], "4,13,15")
    assert flat.max() > deep.max() > dusted.max() > 10
    assert np.bincount(deep.ravel().astype(int)).min() < 9 <= np.bincount(dusted.ravel().astype(int)).min()
    assert json.loads((tmp_path / "ids.zarr.json").read_text())["config"]["dust"] == 9
    good("run", "--input", boundary, "--output", f"{tmp_path}/ids.zarr", *how, "--overwrite", "--executor", "serial")
    assert json.loads((tmp_path / "ids.zarr.json").read_text())["config"]["dust"] == 0
    assert "merge tree" not in good("verify", f"{tmp_path}/ids.zarr")


def test_components_of_affinities(tmp_path: Path, affinities: str) -> None:
    how = ["--method", "components", "--threshold", 0.55]
    labels = both(tmp_path, affinities, how, "4,13,15", "1,32,5")
    assert labels.max() > 50
    assert both(tmp_path, affinities, [*how, "--dust", 6], "4,13,15").max() < labels.max()
    assert not (tmp_path / "ids.zarr.tree.npz").exists()


@pytest.mark.parametrize("method", ["size", "watershed"])
def test_size(tmp_path: Path, affinities: str, boundary: str, method: str) -> None:
    how = ["--method", method, *SIZES]
    if method == "watershed":
        both(tmp_path, boundary, [*how, "--merge-threshold", 0.4, "--no-per-section"], "4,13,15")
        return
    assert both(tmp_path, affinities, how, "4,13,15").max() > 100
    merged = [*how, "--merge-threshold", 0.55]
    labels = both(tmp_path, affinities, merged, "11,32,34", "1,32,17")
    assert 100 < labels.max() < 150


@pytest.mark.parametrize("method", ["size", "mean"])
def test_the_merge_tree_is_that_of_the_whole(tmp_path: Path, affinities: str, method: str) -> None:
    """Of floats, to the bit, and so are the fragments it is of, and the means between them."""
    how = ["--method", method, *SIZES, "--merge-threshold", 0.55]
    for verb, name in (("segment", "w"), ("run", "r")):
        words = [verb, "--input", affinities, "--output", f"{tmp_path}/{name}.zarr", *how]
        words += ["--block", "4,13,15", "--executor", "serial"] if verb == "run" else []
        good(*words, "--fragments", f"{tmp_path}/{name}f.zarr")
    np.testing.assert_array_equal(load(f"{tmp_path}/rf.zarr"), load(f"{tmp_path}/wf.zarr"))
    for ending in ("zarr.tree.npz", "zarr.graph.npz"):
        ours = np.load(tmp_path / f"{'r' if ending == 'zarr.tree.npz' else 'rf'}.{ending}")
        theirs = np.load(tmp_path / f"wf.{ending}")
        for key in theirs.files:
            np.testing.assert_array_equal(ours[key], theirs[key], err_msg=f"{ending} {key}")
    assert np.load(tmp_path / "r.zarr.tree.npz")["u"].size > 20
    assert "merges in" in good("verify", f"{tmp_path}/r.zarr")


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["components", "size", "mean"]),
    st.tuples(*map(st.sampled_from, ((1, 3, 5, 10, 11), (11, 16, 31, 32), (17, 25, 33, 34)))),
)
def test_any_blocks(tmp_path: Path, affinities: str, method: str, block: tuple[int, int, int]) -> None:
    """Some leave a last block that is one voxel thin."""
    how = ["--method", method, "--threshold", 0.58, *SIZES, "--merge-threshold", 0.52]
    both(tmp_path, affinities, how, ",".join(map(str, block)))


@pytest.mark.parametrize("name", ["b", "a"])
def test_a_box_and_a_mask(tmp_path: Path, boundary: str, affinities: str, name: str) -> None:
    """A box is as if there were nothing else; masked sections are background, if more than are bridged."""
    part = (slice(1, 11), slice(2, 30), slice(3, 34))
    values = load(f"{tmp_path}/{name}.zarr")[(..., *part)]
    mask = np.zeros(SHAPE, np.uint8)
    mask[3] = mask[6:9, 10:] = 1
    uri = store(f"{tmp_path}/cut.zarr", values, **FACTS[name], **({"scale": 1 / 255} if name == "b" else {}))
    words = ["run", "--method", "components", "--no-per-section", "--executor", "serial"]
    masks = (store(f"{tmp_path}/{k}.zarr", m, kind="mask") for k, m in (("n", mask[part]), ("m", mask)))
    good(*words, "--input", uri, "--output", f"{tmp_path}/1.zarr", "--mask", next(masks), "--block", "10,28,31")
    box = ["--box", "1:11,2:30,3:34", "--block", "3,11,13"]
    good(*words, "--input", f"{tmp_path}/{name}.zarr", "--output", f"{tmp_path}/2.zarr", "--mask", next(masks), *box)
    labels = load(f"{tmp_path}/2.zarr")
    np.testing.assert_array_equal(labels, load(f"{tmp_path}/1.zarr"))
    assert not labels[5:8, 8:].any()
    assert labels[2].any()


@pytest.mark.parametrize("method", ["components", "size"])
def test_stopped_anywhere_and_continued(
    tmp_path: Path, affinities: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = ["--method", method, "--threshold", 0.55, *SIZES, "--merge-threshold", 0.55]
    good("segment", "--input", affinities, "--output", f"{tmp_path}/whole.zarr", *how)
    words = ["run", "--input", affinities, "--output", f"{tmp_path}/ids.zarr", *how, "--block", "6,16,17"]
    words += ["--executor", "serial"]
    for after in (3, 8, 9, 7, 2):
        with monkeypatch.context() as patch:
            Stopping.left = after
            patch.setattr("neuropil.stages.run.SerialPool", Stopping)
            assert command(*words, "--quiet").code == 130
    with untouched(tmp_path):
        assert f"was made with method = '{method}', now 'mean'" in sentence(*words, "--method", "mean")
        assert "was made with threshold = 0.55, now 0.5" in sentence(*words, "--threshold", 0.5)
    good(*words)
    np.testing.assert_array_equal(load(f"{tmp_path}/ids.zarr"), load(f"{tmp_path}/whole.zarr"))


def test_refusals_leave_nothing(tmp_path: Path, affinities: str) -> None:
    words = ["run", "--input", affinities, "--output", f"{tmp_path}/ids.zarr"]
    far = store(f"{tmp_path}/far.zarr", field(3), kind="affinities", offsets=((-2, 0, 0), (0, 1, 0), (0, 0, 1)))
    with untouched(tmp_path):
        for method in ("quantile", "mutex", "multicut", "seeded"):
            said = sentence(*words, "--method", method)
            assert f"method '{method}' does not work in blocks: " in said
            assert f"take 'mean', 'size' or 'components', or neuropil segment --method {method} on a crop" in said
        assert "'method' in [run]" in sentence(*words, "--method", "max")
        assert "makes no fragments" in sentence(*words, "--method", "components", "--fragments", f"{tmp_path}/f.zarr")
        assert "no links (-1, 0, 0) or (1, 0, 0)" in sentence(*words, "--input", far)
