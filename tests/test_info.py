"""What `neuropil info` says, and what it warns of."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from neuropil.errors import VolumeNotFound
from neuropil.stages.info import Config, run
from neuropil.volume import create_volume
from neuropil.volume.description import describe
from neuropil.volume.volume import open_volume


def store(uri: Path | str, array: np.ndarray, **facts: object) -> str:
    with create_volume(str(uri), shape=array.shape, dtype=array.dtype, **facts) as volume:  # type: ignore[arg-type]
        volume.write(None, array)
    return str(uri)


def test_a_recorded_volume(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(5, 250, (4, 30, 30), dtype=np.uint8)
    uri = store(tmp_path / "v.zarr", array, voxel_size=(40, 4, 4), kind="image", scale=0.5)
    result = run(Config(uri=uri))
    data = json.loads(json.dumps(result.data))
    assert data["voxel_size_nm"] == [40, 4, 4]
    assert (data["kind"], data["kind_is_judged"], data["scale"]) == ("image", False, 0.5)
    assert (data["values"]["smallest"], data["values"]["largest"]) == (array.min(), array.max())
    assert data["warnings"] == []
    assert "OME-NGFF 0.5 scale" in result.summary
    assert "all sections" in result.summary


def test_kind_is_judged_from_the_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    blocks = np.repeat(np.repeat(rng.integers(1, 255, (3, 8, 8)), 8, axis=1), 8, axis=2)
    cases = {
        "image": rng.integers(0, 256, (3, 64, 64)).astype(np.uint8),
        "labels": blocks.astype(np.uint8),
        "mask": (blocks > 99).astype(np.uint8) * 255,
        "boundary": rng.random((3, 64, 64)).astype(np.float32),
        "affinities": rng.random((3, 3, 64, 64)).astype(np.float32),
    }
    for kind, array in cases.items():
        result = run(Config(uri=store(f"{tmp_path}/v.h5:{kind}", array)))
        assert result.data["kind"] == kind
        assert result.data["kind_is_judged"]
        assert "judged, not recorded" in result.summary
        assert any("voxel size is not known" in text for text in result.data["warnings"])


def test_labels_are_counted_exactly_and_suspicious_ones_named(tmp_path: Path) -> None:
    labels = np.zeros((2, 4, 5), np.uint64)
    labels[0, 0, :3] = (2**53, 2**53 + 1, 2**64 - 1)
    result = run(Config(uri=store(f"{tmp_path}/v.h5:ids", labels, voxel_size=(40, 4, 4), kind="labels")))
    assert result.data["values"]["ids"] == 3
    assert result.data["values"]["largest"] == 2**64 - 1
    warnings = " ".join(result.data["warnings"])
    assert "only 3 id(s)" in warnings
    assert "2**64-1" in warnings


def test_nan_is_counted(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((2, 8, 8), dtype=np.float32)
    array[0, 0, :3] = np.nan
    array[1] = np.nan
    result = run(Config(uri=store(f"{tmp_path}/v.h5:map", array)))
    assert "67 values are NaN" in " ".join(result.data["warnings"])
    assert (
        run(Config(uri=store(f"{tmp_path}/v.h5:all", np.full_like(array, np.nan)))).data["values"]["nan_count"] == 128
    )


def test_a_container_is_listed(tmp_path: Path) -> None:
    for name in ("raw", "labels"):
        store(f"{tmp_path}/v.h5:{name}", np.zeros((2, 3, 4), np.uint8))
    result = run(Config(uri=f"{tmp_path}/v.h5"))
    assert [array["name"] for array in result.data["arrays"]] == ["labels", "raw"]
    with pytest.raises(VolumeNotFound, match="did you mean 'raw'"):
        run(Config(uri=f"{tmp_path}/v.h5:row"))


def test_large_volumes_are_sampled(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (40, 100, 100), dtype=np.uint8)
    uri = store(tmp_path / "v.tif", array)
    with open_volume(uri) as volume:
        some, middle = describe(volume, max_bytes=100_000), describe(volume, max_bytes=5_000)
    assert (some.sections, some.of_sections, some.cropped) == (10, 40, False)
    assert (middle.sections, middle.cropped) == (2, True)


@pytest.mark.skipif("NEUROPIL_DATA" not in os.environ, reason="real data not there")
@pytest.mark.parametrize(
    ("uri", "kind", "ids"),
    [
        ("data://vnc/vnc_x000-703.h5:raw", "image", 255),
        ("data://vnc/vnc_x000-703.h5:labels", "labels", 8),
        ("data://isbi2012/isbi2012_z00-19.h5:neuron_ids", "labels", 132),
        ("data://isbi2012/isbi2012_z00-19.h5:membrane_labels", "mask", 1),
        ("data://light_microscopy/rivulet_test.tif", "image", 253),
    ],
)
def test_real_data_are_judged_rightly(uri: str, kind: str, ids: int) -> None:
    try:
        data = run(Config(uri=uri)).data
    except VolumeNotFound:
        pytest.skip("file not there")
    assert (data["kind"], data["values"]["ids"]) == (kind, ids)
