"""Sections that cannot be trusted: measures, rules, the command, and what `neuropil run` does with its mask."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from small import VOXEL_SIZE, good, load, sentence, store, untouched

from neuropil.defects import KINDS, Rules, empty_squares, find_defects, long_runs, section_facts
from neuropil.errors import InputError
from neuropil.segmentation.affinities import NEAREST
from neuropil.synthetic import make_tissue
from neuropil.volume import open_volume


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    return make_tissue((14, 160, 200), rng=np.random.default_rng(0), voxel_size=(20.0, 8.0, 8.0)).image


def defects_of(stack: np.ndarray, rules: Rules | None = None) -> dict[str, list[int]]:
    found = find_defects(section_facts(stack.__getitem__, len(stack)), rules)
    return {kind: np.flatnonzero(found[kind]).tolist() for kind in KINDS}


def test_tissue_is_left_alone(tissue: np.ndarray) -> None:
    assert defects_of(tissue) == {kind: [] for kind in KINDS}


def test_each_kind_is_found_and_nothing_else(tissue: np.ndarray) -> None:
    spoilt = tissue.copy()
    spoilt[2] = 0
    spoilt[5] = ndimage.gaussian_filter(spoilt[5], 2)
    spoilt[8] = (spoilt[8] * 0.4 + 70).astype(np.uint8)
    spoilt[11] = np.roll(spoilt[11], (14, -9), (0, 1))
    assert defects_of(spoilt) == {"missing": [2], "blurred": [5], "contrast": [8], "misaligned": [11]}
    facts = section_facts(spoilt.__getitem__, len(spoilt))
    np.testing.assert_allclose(facts.shift[11], (14, -9), atol=3)
    np.testing.assert_allclose(facts.shift[12], (-14, 9), atol=3)
    assert np.isnan(facts.mean[2])
    assert facts.empty[2] == 1


def test_a_lasting_shift_is_one_defect_and_rules_rule(tissue: np.ndarray) -> None:
    moved = tissue.copy()
    moved[6:] = np.roll(moved[6:], 12, 2)
    assert defects_of(moved)["misaligned"] == [6]
    assert defects_of(moved, Rules(shift=20))["misaligned"] == []
    gone = tissue.copy()
    gone[3:8] = 77
    assert defects_of(gone)["missing"] == [3, 4, 5, 6, 7]
    assert defects_of(np.zeros((4, 64, 64), np.uint8))["missing"] == [0, 1, 2, 3]


def test_other_dtypes_and_bad_input(tissue: np.ndarray) -> None:
    assert defects_of(tissue.astype(np.uint16) * 100) == {kind: [] for kind in KINDS}
    with pytest.raises(InputError, match="at least 32 pixels"):
        defects_of(np.zeros((3, 20, 90)))
    with pytest.raises(InputError, match="depth must be at least 1"):
        section_facts(tissue.__getitem__, 0)
    assert empty_squares(np.kron([[0, 1]], np.arange(1024).reshape(32, 32))).tolist() == [[True, False]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(0, 4))
def test_long_runs_are_kept(flags: list[bool], most: int) -> None:
    kept = long_runs(np.array(flags).reshape(-1, 1, 1), most).ravel().tolist()
    for z, flag in enumerate(flags):
        first = last = z
        while flag and first > 0 and flags[first - 1]:
            first -= 1
        while flag and last + 1 < len(flags) and flags[last + 1]:
            last += 1
        assert kept[z] == (flag and last - first + 1 > most)


def test_the_command_writes_mask_page_and_numbers(tmp_path: Path, tissue: np.ndarray) -> None:
    spoilt = tissue.copy()
    spoilt[2] = 0
    spoilt[5] = ndimage.gaussian_filter(spoilt[5], 2)
    spoilt[9, 32:64, 64:128] = 0
    image = store(f"{tmp_path}/s.zarr", spoilt, kind="image", voxel_size=VOXEL_SIZE)
    said = good("defects", "--input", image, "--output", f"{tmp_path}/m.zarr")
    assert "2 of 14 sections" in said
    mask = load(f"{tmp_path}/m.zarr")
    expected = np.zeros_like(mask)
    expected[2], expected[5], expected[9, 32:64, 64:128] = 1, 2, 1
    np.testing.assert_array_equal(mask, expected)
    with open_volume(f"{tmp_path}/m.zarr") as volume:
        assert (volume.metadata.kind, volume.metadata.voxel_size) == ("mask", VOXEL_SIZE)
    page = (tmp_path / "m.zarr.html").read_text()
    assert "section 5: blurred" in page
    assert page.count("<figure") == 2 + 5
    assert json.loads((tmp_path / "m.zarr.json").read_text())["defects"]["blurred"] == [5]
    good("defects", "--input", image, "--output", f"{tmp_path}/n.zarr", "--sections", "4:14", "--kinds", "blurred")
    np.testing.assert_array_equal(load(f"{tmp_path}/n.zarr"), np.where(expected[4:] == 2, 2, 0))
    with untouched(tmp_path):
        assert "exists; give --overwrite" in sentence("defects", "--input", image, "--output", f"{tmp_path}/m.zarr")
        assert "kinds must name one or more of missing" in sentence(
            "defects", "--input", image, "--output", f"{tmp_path}/o.zarr", "--kinds", "torn"
        )


@pytest.mark.parametrize("block", ["12,24,26", "5,10,26", "2,24,11"])
def test_run_bridges_short_gaps_and_cuts_long_ones(tmp_path: Path, block: str) -> None:
    links = np.full((3, 12, 24, 26), 250, np.uint8)
    uri = store(f"{tmp_path}/a.zarr", links, kind="affinities", offsets=NEAREST, scale=1 / 255)
    mask = np.zeros((12, 24, 26), np.uint8)
    mask[2:4] = 3
    mask[7:10] = 1
    words = ["run", "--input", uri, "--mask", store(f"{tmp_path}/m.zarr", mask, kind="mask"), "--low", 0.1, "--dust", 0]
    words += ["--executor", "serial", "--block", block]
    good(*words, "--output", f"{tmp_path}/ids.zarr")
    labels = load(f"{tmp_path}/ids.zarr")
    assert [np.unique(labels[z]).tolist() for z in (0, 3, 6)] == [[1]] * 3
    assert [np.unique(labels[z]).tolist() for z in (7, 9)] == [[0]] * 2
    assert np.unique(labels[10:]).tolist() == [2]
    good(*words, "--output", f"{tmp_path}/all.zarr", "--bridge", 3)
    assert np.unique(load(f"{tmp_path}/all.zarr")).tolist() == [1]
    small = store(f"{tmp_path}/small.zarr", mask[1:], kind="mask")
    with untouched(tmp_path):
        said = sentence(*words, "--output", f"{tmp_path}/no.zarr", "--mask", small)
        assert "mask must have the extent of the input" in said
