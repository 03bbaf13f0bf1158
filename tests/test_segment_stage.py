"""`neuropil segment`: outputs read back with their place, the merge tree beside them, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small import OFFSET, VOXEL_SIZE, command, good, load, sentence, stack, store, untouched

from neuropil.labels import contingency
from neuropil.metrics.rand import rand_scores
from neuropil.segmentation.affinities import NEAREST, affinities_from_labels
from neuropil.segmentation.linkage import MergeTree, cut
from neuropil.volume import open_volume


@pytest.fixture
def truth(tmp_path: Path) -> np.ndarray:
    return load(f"{stack(tmp_path / 's.h5')}:labels")


@pytest.fixture
def boundary(tmp_path: Path, truth: np.ndarray) -> str:
    """A perfect boundary map as predict writes it."""
    facts = {"voxel_size": VOXEL_SIZE, "offset": OFFSET, "kind": "boundary", "scale": 1 / 255}
    return store(f"{tmp_path}/m.h5:map", np.where(truth == 0, 230, 25).astype(np.uint8), **facts)


SIZES = ["--size", 4, "--dust", 4]


@pytest.mark.parametrize("method", ["components", "watershed"])
def test_a_perfect_map_gives_the_cells(tmp_path: Path, truth: np.ndarray, boundary: str, method: str) -> None:
    out = f"{tmp_path}/ids.zarr"
    said = good(
        "segment", "--input", boundary, "--output", out, "--method", method, *SIZES, "--json", tmp_path / "o.json"
    )
    with open_volume(out) as volume:
        labels = volume.read()
        assert (volume.dtype, volume.metadata.kind) == (np.uint64, "labels")
        assert (volume.metadata.voxel_size, volume.metadata.offset) == (VOXEL_SIZE, OFFSET)
    cells = truth + np.arange(len(truth), dtype=np.uint64)[:, None, None] * np.uint64(1000) * (truth > 0)
    assert rand_scores(contingency(labels, cells)).f == pytest.approx(1)
    count = len(np.unique(labels)) - 1
    assert f"{count} segments" in said
    assert json.loads((tmp_path / "o.json").read_text())["segments"] == count
    assert json.loads((tmp_path / "ids.zarr.json").read_text())["config"]["method"] == method


def test_a_volume_that_does_not_say_what_it_is_is_warned_of(tmp_path: Path, boundary: str) -> None:
    unnamed = store(f"{tmp_path}/u.h5:u", load(boundary))
    said = [
        command("segment", "--input", uri, "--output", f"{tmp_path}/{i}.zarr")
        for i, uri in enumerate((boundary, unnamed))
    ]
    assert [one.code for one in said] == [0, 0]
    assert ["does not say what it is" in one.err for one in said] == [False, True]


def test_sections_in_three_dimensions(tmp_path: Path, truth: np.ndarray, boundary: str) -> None:
    good(
        "segment", "--input", boundary, "--output", tmp_path / "a.tif", "--no-per-section", "--sections", "2:5", *SIZES
    )
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.metadata.offset == (OFFSET[0] + 100, *OFFSET[1:])
        assert rand_scores(contingency(volume.read(), truth[2:5])).f == pytest.approx(1)


def test_fragments_and_merge_tree_give_the_segmentation(tmp_path: Path, truth: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip((truth == 0) * 0.6 + rng.random(truth.shape) * 0.4, 0, 1).astype(np.float32)
    uri = store(tmp_path / "noisy.zarr", noisy, kind="boundary")
    words = ["segment", "--input", uri, "--output", tmp_path / "ids.zarr", "--fragments", f"{tmp_path}/f.h5:fragments"]
    good(*words, *SIZES, "--merge-threshold", 0.5)
    fragments = load(f"{tmp_path}/f.h5:fragments")
    with np.load(tmp_path / "f.h5.fragments.tree.npz") as file:
        tree = MergeTree(file["u"], file["v"], file["affinity"], int(fragments.max()))
    np.testing.assert_array_equal(cut(tree, 0.5)[fragments], load(tmp_path / "ids.zarr"))


def test_affinities(tmp_path: Path, truth: np.ndarray) -> None:
    links = np.zeros((3, *truth.shape), np.float32)
    for axis, offset in enumerate(np.eye(3, dtype=int)):
        here, there = (tuple(slice(a, b) for a, b in zip(*ends)) for ends in (
            (offset, truth.shape), ((0, 0, 0), np.array(truth.shape) - offset)))  # fmt: skip
        links[(axis, *here)] = (truth[here] == truth[there]) & (truth[here] > 0)
    offsets = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
    uri = store(tmp_path / "a.zarr", links, kind="affinities", offsets=offsets)
    good("segment", "--input", uri, "--output", tmp_path / "ids.zarr", *SIZES)
    assert rand_scores(contingency(load(tmp_path / "ids.zarr"), truth)).f == pytest.approx(1)
    silent = store(tmp_path / "b.zarr", links)
    far = store(tmp_path / "c.zarr", links, kind="affinities", offsets=((-2, 0, 0), (0, -1, 0), (0, 0, -1)))
    out = ["--output", tmp_path / "no.zarr"]
    with untouched(tmp_path):
        assert "does not say which voxels its 3 channels link" in sentence("segment", "--input", silent, *out)
        assert "no links (-1, 0, 0) or (1, 0, 0)" in sentence("segment", "--input", far, *out)
    for dust in ([], ["--dust", 1 + int(np.bincount(truth.ravel().astype(int))[1:].max())]):
        good("segment", "--input", uri, "--output", tmp_path / "c.zarr", "--method", "components", *dust, "--overwrite")
        labels = load(tmp_path / "c.zarr")
        assert labels.max() == 0 if dust else rand_scores(contingency(labels, truth)).f == pytest.approx(1)


@pytest.mark.parametrize("method", ["size", "mean", "quantile", "mutex", "multicut"])
def test_affinities_stored_at_the_other_end_with_a_long_one(tmp_path: Path, truth: np.ndarray, method: str) -> None:
    offsets = ((0, 0, 9), (0, 0, 1), (0, 1, 0), (1, 0, 0))
    links = affinities_from_labels(truth, offsets).affinities
    how = ["--method", method, *(["--merge-threshold", 0.5] if method != "mutex" else ["--strides", "1,2,2"])]
    uri = store(tmp_path / "a.zarr", (255 * links).astype(np.uint8), kind="affinities", offsets=offsets, scale=1 / 255)
    good("segment", "--input", uri, "--output", tmp_path / "ids.zarr", *SIZES, *how)
    good("segment", "--input", uri, "--output", tmp_path / "some.zarr", *SIZES, *how, "--sections", "1:4")
    assert rand_scores(contingency(load(tmp_path / "ids.zarr"), truth)).f == pytest.approx(1)
    assert rand_scores(contingency(load(tmp_path / "some.zarr"), truth[1:4])).f == pytest.approx(1)


def test_seeds(tmp_path: Path, truth: np.ndarray) -> None:
    """One voxel of each cell, with its id moved far up, brings back the whole cell."""
    links = affinities_from_labels(truth).affinities
    uri = store(tmp_path / "a.zarr", links, kind="affinities", offsets=NEAREST)
    ids, first = np.unique(truth, return_index=True)
    inside = ids > 0
    seeds = np.zeros(truth.size, np.uint64)
    seeds[first[inside]] = ids[inside] + 2**40
    marks = store(tmp_path / "s.zarr", seeds.reshape(truth.shape), kind="labels")
    method = ["--method", "seeded", "--seeds", marks, "--low", 0]
    said = good("segment", "--input", uri, "--output", tmp_path / "ids.zarr", *method)
    np.testing.assert_array_equal(load(tmp_path / "ids.zarr"), np.where(truth > 0, truth + np.uint64(2**40), 0))
    assert f"{inside.sum()} segments" in said
    good("segment", "--input", uri, "--output", tmp_path / "some.zarr", *method, "--sections", "0:2")
    np.testing.assert_array_equal(
        load(tmp_path / "some.zarr") > 0,
        np.isin(truth[:2], truth.flat[first[first < truth[:2].size]]) & (truth[:2] > 0),
    )
    small = store(tmp_path / "small.zarr", seeds.reshape(truth.shape)[:, :4], kind="labels")
    words = ["--input", uri, "--output", tmp_path / "no.zarr"]
    with untouched(tmp_path):
        assert "go together" in sentence("segment", *words, "--method", "seeded")
        assert "go together" in sentence("segment", *words, "--seeds", marks)
        assert "seeds must have the shape of the input" in sentence("segment", *words, *method[:3], small)
        assert "leaves no merge tree" in sentence("segment", *words, *method, "--fragments", tmp_path / "f.zarr")


def test_refusals_leave_nothing(tmp_path: Path, boundary: str) -> None:
    nan = np.zeros((2, 9, 9), np.float32)
    nan[0, 1, 2] = np.nan
    uris = {"nan": store(tmp_path / "v.h5:nan", nan), "big": store(tmp_path / "v.h5:big", nan[1:] + 3)}
    out = ["--output", tmp_path / "ids.zarr"]
    with untouched(tmp_path):
        for uri in uris.values():
            for method in ("watershed", "components"):
                words = sentence("segment", "--input", uri, *out, "--method", method)
                assert "must lie in [0, 1] without NaN" in words
        assert "must be a boundary map" in sentence("segment", "--input", f"{tmp_path}/s.h5:labels", *out)
        assert "is the input itself" in sentence("segment", "--input", boundary, "--output", boundary, "--overwrite")
        high = sentence("segment", "--input", boundary, *out, "--merge-threshold", 1.5)
        assert "'merge_threshold' in [segment]" in high
        both = sentence("segment", "--input", boundary, *out, "--fragments", tmp_path / "ids.zarr")
        assert "is the place of another output" in both
        assert "drop fragments" in sentence(
            "segment", "--input", boundary, *out, "--fragments", tmp_path / "f.zarr", "--method", "components"
        )
        assert "method 'mean' needs merge_threshold" in sentence(
            "segment", "--input", boundary, *out, "--method", "mean"
        )
        for method in ("mutex", "multicut"):
            words = ["--fragments", tmp_path / "f.zarr", "--method", method]
            assert "leaves no merge tree" in sentence("segment", "--input", boundary, *out, *words)
        assert "low" in sentence("segment", "--input", boundary, *out, "--low", 0.9, "--high", 0.1)
        assert "'rule' in [segment]" in sentence("segment", "--input", boundary, *out, "--rule", "max")
        assert "exists; give --overwrite" in sentence(
            "segment", "--input", boundary, "--output", f"{tmp_path}/s.h5:raw"
        )
