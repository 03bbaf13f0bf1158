"""`neuropil convert`: every format into every other, exactly, and nothing half-written."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from neuropil.errors import InputError, OutputExists, VolumeError
from neuropil.geometry import Box
from neuropil.stages.convert import Config, run
from neuropil.volume import copying, create_volume, list_arrays, open_volume
from neuropil.volume.copying import is_exact

LABELS = np.random.default_rng(3).integers(2**53, 2**64, (5, 40, 33), dtype=np.uint64)
FORMATS = ["v.h5:raw", "v.tif", "stack", "v.zarr", "v.zarr/raw", "v.n5", "precomputed://{}/pre"]


def place(folder: Path, uri: str) -> str:
    return uri.format(folder) if "{" in uri else f"{folder}/{uri}"


def store(uri: str, array: np.ndarray, **facts: object) -> str:
    facts = {"voxel_size": (40, 4, 4), "offset": (80, 0, 8), **facts}
    with create_volume(uri, shape=array.shape, dtype=array.dtype, **facts) as volume:  # type: ignore[arg-type]
        volume.write(None, array)
    return uri


@pytest.mark.parametrize(("source", "target"), list(itertools.product(FORMATS, FORMATS)))
def test_every_format_into_every_other(
    tmp_path: Path, source: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_BLOCK_BYTES", 20_000)
    have = store(place(tmp_path / "in", source), LABELS, kind="labels")
    result = run(Config(input=have, output=place(tmp_path / "out", target), verify=True))
    assert result.data["verified"]
    with open_volume(place(tmp_path / "out", target)) as volume:
        np.testing.assert_array_equal(volume.read(), LABELS)
        facts = volume.metadata
    assert (facts.voxel_size, facts.offset, facts.kind) == ((40, 4, 4), (80, 0, 8), "labels")
    assert not [path for path in (tmp_path / "out").rglob("*") if "partial" in path.name]


def test_given_facts_replace_those_of_the_input(tmp_path: Path) -> None:
    have = store(f"{tmp_path}/a.h5:raw", LABELS)
    config = Config(
        input=have, output=f"{tmp_path}/b.zarr", voxel_size="30,6,6", kind="labels", sections="1:4"  # type: ignore[arg-type]
    )  # fmt: skip
    run(config)
    with open_volume(f"{tmp_path}/b.zarr") as volume:
        np.testing.assert_array_equal(volume.read(), LABELS[1:4])
        assert volume.metadata.voxel_size == (30, 6, 6)
        assert volume.metadata.offset == (110, 0, 8)
        assert volume.metadata.kind == "labels"


def test_resampling_averages_images_and_picks_labels(tmp_path: Path) -> None:
    image = np.array([[[0, 2, 9, 9], [2, 5, 9, 9]]], np.uint8)
    half = {"resample": "40,8,8", "overwrite": True}
    for kind, made in (("image", [[[2, 9]]]), ("labels", [[[5, 9]]])):
        have = store(f"{tmp_path}/{kind}.h5:raw", image, kind=kind)
        result = run(Config(input=have, output=f"{tmp_path}/half.h5:{kind}", **half))  # type: ignore[arg-type]
        assert result.data["voxel_size_nm"] == (40, 8, 8)
        with open_volume(f"{tmp_path}/half.h5:{kind}") as volume:
            assert volume.dtype == np.uint8
            assert volume.read().tolist() == made
    unnamed = store(f"{tmp_path}/unnamed.h5:raw", image)
    with pytest.raises(InputError, match="resample: say with --kind whether it is image or labels"):
        run(Config(input=unnamed, output=f"{tmp_path}/half.zarr", **half))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="resample must leave z as it is, 40 nm; got 80 nm"):
        run(Config(input=unnamed, output=f"{tmp_path}/half.zarr", kind="image", resample="80,8,8"))  # type: ignore[arg-type]


def test_affinities_keep_their_offsets(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((3, 4, 9, 9), dtype=np.float32)
    offsets = ((-1, 0, 0), (0, -1, 0), (0, 0, -3))
    have = store(f"{tmp_path}/a.h5:affs", array, kind="affinities", offsets=offsets)
    for target in ("b.tif", "b.zarr", "b.n5", "b.h5:x"):
        run(Config(input=have, output=f"{tmp_path}/{target}"))
        with open_volume(f"{tmp_path}/{target}") as volume:
            np.testing.assert_array_equal(volume.read(), array)
            assert volume.metadata.offsets == offsets


def test_dtype_changes_only_where_nothing_is_lost(tmp_path: Path) -> None:
    have = store(f"{tmp_path}/a.h5:ids", np.array([[[0, 7, 300]]], np.uint64))
    run(Config(input=have, output=f"{tmp_path}/b.tif", dtype="uint16"))
    with open_volume(f"{tmp_path}/b.tif") as volume:
        assert volume.dtype == np.uint16
        assert volume.read().tolist() == [[[0, 7, 300]]]
    with pytest.raises(InputError, match="uint8 cannot hold the values"):
        run(Config(input=have, output=f"{tmp_path}/c.tif", dtype="uint8"))
    assert not (tmp_path / "c.tif").exists()


@pytest.mark.parametrize(
    ("values", "dtype", "exact"),
    [
        ([2**53], "float64", True), ([2**53 + 1], "float64", False), ([2**64 - 1], "float64", False),
        ([2**24 + 1], "float32", False), ([-1], "uint64", False), ([255], "uint8", True), ([256], "uint8", False),
        ([1.0, 3.0], "uint8", True), ([0.5], "uint8", False), ([2.0**64], "uint64", False),
        ([float("nan")], "uint8", False),
        ([float("nan"), 0.5], "float32", True), ([0.1], "float32", False), ([0, 1], "bool", True), ([2], "bool", False),
    ],
)  # fmt: skip
def test_is_exact(values: list[float], dtype: str, exact: bool) -> None:
    if all(isinstance(value, int) for value in values):
        array = np.array(values, np.int64 if min(values) < 0 else np.uint64)
    else:
        array = np.array(values)
    assert is_exact(array, np.dtype(dtype)) == exact


@pytest.mark.parametrize("target", FORMATS)
def test_a_failure_leaves_the_output_as_it_was(tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    have, output = store(f"{tmp_path}/a.h5:raw", LABELS), place(tmp_path / "out", target)

    def broken(*_: object) -> None:
        raise VolumeError("does not read back")

    with monkeypatch.context() as patch:
        patch.setattr(copying, "_copy_blocks", broken)
        with pytest.raises(VolumeError):
            run(Config(input=have, output=output, verify=True))
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    store(output, LABELS[:2])
    with pytest.raises(OutputExists, match="--overwrite"):
        run(Config(input=have, output=output))
    with monkeypatch.context() as patch:
        patch.setattr(copying, "_copy_blocks", broken)
        with pytest.raises(VolumeError):
            run(Config(input=have, output=output, overwrite=True))
    with open_volume(output) as volume:
        np.testing.assert_array_equal(volume.read(), LABELS[:2])
    run(Config(input=have, output=output, overwrite=True, verify=True))
    with open_volume(output) as volume:
        assert volume.shape == LABELS.shape


def test_within_one_file(tmp_path: Path) -> None:
    have = store(f"{tmp_path}/a.h5:raw", LABELS)
    run(Config(input=have, output=f"{tmp_path}/a.h5:deep/copy", verify=True))
    assert [entry.name for entry in list_arrays(f"{tmp_path}/a.h5")] == ["deep/copy", "raw"]
    store(f"{tmp_path}/b.zarr/x", LABELS)
    run(Config(input=f"{tmp_path}/b.zarr/x", output=f"{tmp_path}/b.zarr/y", verify=True))
    assert [entry.name for entry in list_arrays(f"{tmp_path}/b.zarr")] == ["x", "y"]
    for same in (have, f"{tmp_path}/b.zarr/x"):
        with pytest.raises(InputError, match="is the input itself"):
            run(Config(input=same, output=same, overwrite=True))
    with pytest.raises(InputError, match="sections must lie in 0:5"):
        run(Config(input=have, output=f"{tmp_path}/c.zarr", sections=(2, 9)))


def test_memory_is_bounded_by_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_BLOCK_BYTES", 40_000)
    have = store(f"{tmp_path}/a.h5:raw", np.zeros((20, 100, 100), np.uint8))
    sizes: list[int] = []
    with open_volume(have) as source:
        read = source.read
        monkeypatch.setattr(source, "read", lambda box: sizes.append(box.size) or read(box))
        copying.copy_volume(source, f"{tmp_path}/b.tif", metadata=source.metadata)
    assert max(sizes) <= 40_000
    assert sum(sizes) == 20 * 100 * 100


@pytest.mark.skipif("NEUROPIL_DATA" not in os.environ, reason="real data not there")
@pytest.mark.parametrize("target", ["v.tif", "stack", "v.zarr", "precomputed://{}/pre"])
def test_real_sections(tmp_path: Path, target: str) -> None:
    output = place(tmp_path, target)
    try:
        run(Config(input="data://vnc/vnc_x000-703.h5:raw", output=output, sections=(3, 9), kind="image", verify=True))
    except FileNotFoundError:
        pytest.skip("file not there")
    with open_volume("data://vnc/vnc_x000-703.h5:raw") as source, open_volume(output) as volume:
        np.testing.assert_array_equal(volume.read(), source.read(Box((3, 0, 0), (9, 1024, 704))))
        assert volume.metadata.voxel_size == (47.5, 4.6, 4.6)
        assert volume.metadata.offset == (142.5, 0, 0)
