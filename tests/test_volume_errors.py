"""Bad input gets one sentence that names what is wrong, and nothing is left half-written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import h5py
import imageio.v3 as iio
import numpy as np
import pytest
import tifffile

import neuropil.volume as volumes
from neuropil.errors import InputError, NeuropilError, OutputExists, StorageFull, VolumeError, VolumeNotFound
from neuropil.geometry import Box
from neuropil.volume.metadata import Metadata, nanometres
from neuropil.volume.uri import data_folders, parse_uri

STACK = np.random.default_rng(0).integers(0, 256, (6, 20, 30), dtype=np.uint8)
FORMATS = ["v.h5:raw", "v.tif", "stack", "v.zarr", "v.zarr/raw", "v.n5", "precomputed://{}/pre"]


def refusal(error: type[NeuropilError], *words: str, uri: object, **options: object) -> None:
    """Opening (or, with options, creating) must raise one sentence that holds the words."""
    options = {"shape": (2, 3, 4), "dtype": "uint8", **options} if options else {}
    act = partial(volumes.create_volume, **options) if options else volumes.open_volume  # type: ignore[arg-type]
    with pytest.raises(error) as caught:
        act(str(uri))
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


@pytest.mark.parametrize("uri", FORMATS)
def test_missing(tmp_path: Path, uri: str) -> None:
    uri = uri.format(tmp_path) if "{" in uri else f"{tmp_path}/{uri}"
    assert not volumes.exists(uri)
    refusal(VolumeNotFound, "does not exist", uri=uri)


def test_wrong_name_gets_the_nearest_and_the_list(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["volumes/raw"] = STACK
        file["volumes/labels/neuron_ids"] = STACK
    refusal(VolumeNotFound, "did you mean 'volumes/raw'", "uint8 (6, 20, 30)", uri=f"{tmp_path}/v.h5:volumes/row")
    refusal(VolumeNotFound, "did you mean 'volumes/labels/neuron_ids'", uri=f"{tmp_path}/v.h5:neuron_ids")
    refusal(InputError, "2 datasets and none is named", "volumes/raw", uri=f"{tmp_path}/v.h5")
    volumes.create_volume(f"{tmp_path}/v.zarr/raw", shape=(2, 3, 4), dtype="uint8").close()
    refusal(VolumeNotFound, "did you mean 'raw'", uri=f"{tmp_path}/v.zarr/rwa")
    volumes.create_volume(f"{tmp_path}/v.zarr/map", shape=(2, 3, 4), dtype="uint8").close()
    refusal(InputError, "2 arrays and none is named", "map uint8", uri=f"{tmp_path}/v.zarr")


@pytest.mark.parametrize("style", ["mapped", "zlib", "imagej", "pages"])
@pytest.mark.parametrize("keep", [0.0, 0.001, 0.3, 0.6, 0.95])
def test_truncated_tiff(tmp_path: Path, style: str, keep: float) -> None:
    path = tmp_path / "v.tif"
    if style == "pages":
        with tifffile.TiffWriter(path) as writer:
            for section in STACK:
                writer.write(section, contiguous=False, photometric="minisblack")
    else:
        options: dict[str, object] = {"mapped": {}, "zlib": {"compression": "zlib"}, "imagej": {"imagej": True}}[style]  # type: ignore[assignment]
        tifffile.imwrite(path, STACK, photometric="minisblack", **options)  # type: ignore[arg-type]
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises((VolumeError, InputError)) as caught, volumes.open_volume(path) as volume:
        volume.read()
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, VolumeError) or "axes" in str(caught.value)


def test_foreign_and_damaged_files(tmp_path: Path) -> None:
    for name in ("v.h5", "v.tif"):
        (tmp_path / name).write_bytes(b"this is not an image at all, whatever its name says")
    refusal(VolumeError, "is not an HDF5 file", uri=tmp_path / "v.h5")
    refusal(VolumeError, "is not a TIFF file", uri=tmp_path / "v.tif")
    volumes.create_volume(f"{tmp_path}/w.h5:raw", shape=(9, 99, 99), dtype="uint8").close()
    whole = (tmp_path / "w.h5").read_bytes()
    (tmp_path / "w.h5").write_bytes(whole[: len(whole) // 2])
    refusal(VolumeError, "truncated or damaged", uri=tmp_path / "w.h5")
    volumes.create_volume(f"{tmp_path}/v.zarr", shape=(9, 9, 9), dtype="uint8").close()
    (tmp_path / "v.zarr/zarr.json").write_text("{")
    refusal(VolumeError, "damaged", uri=tmp_path / "v.zarr")
    (tmp_path / "file.zarr").write_text("")
    refusal(VolumeError, "where a folder", uri=tmp_path / "file.zarr")


def test_axis_count(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "flat.tif", STACK[0])
    refusal(InputError, "it has 2", "in a folder", uri=tmp_path / "flat.tif")
    iio.imwrite(tmp_path / "flat.png", STACK[0])
    refusal(InputError, "2 axes", "in a folder", uri=tmp_path / "flat.png")
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["flat"], file["five"], file["empty"] = STACK[0], STACK[None, None], STACK[:0]
        file["text"] = "words"
    refusal(InputError, "it has 2", uri=f"{tmp_path}/v.h5:flat")
    refusal(InputError, "it has 5", uri=f"{tmp_path}/v.h5:five")
    refusal(InputError, "is empty", uri=f"{tmp_path}/v.h5:empty")
    tifffile.imwrite(tmp_path / "rgb.tif", np.stack([STACK] * 3, axis=-1), photometric="rgb")
    refusal(InputError, "colour", uri=tmp_path / "rgb.tif")


def test_folders_of_unlike_sections(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "e"):
        (tmp_path / name).mkdir()
    refusal(VolumeNotFound, "holds no PNG or TIFF sections", uri=tmp_path / "a")
    iio.imwrite(tmp_path / "b/1.png", STACK[0])
    iio.imwrite(tmp_path / "b/2.png", STACK[0, :9])
    refusal(InputError, "one shape and dtype", "1.png", "2.png", uri=tmp_path / "b")
    iio.imwrite(tmp_path / "c/1.png", STACK[0])
    tifffile.imwrite(tmp_path / "c/2.tif", STACK[0])
    refusal(InputError, "both PNG and TIFF", uri=tmp_path / "c")
    tifffile.imwrite(tmp_path / "d/1.tif", STACK, photometric="minisblack")
    refusal(InputError, "6 pages", uri=tmp_path / "d")
    iio.imwrite(tmp_path / "e/1.png", np.stack([STACK[0], STACK[1], STACK[2]], axis=-1))
    with volumes.open_volume(tmp_path / "e") as volume, pytest.raises(InputError, match="channels differ"):
        volume.read()
    (tmp_path / "b/2.png").write_bytes((tmp_path / "b/1.png").read_bytes()[:90])
    with volumes.open_volume(tmp_path / "b") as volume, pytest.raises(VolumeError, match="cannot read"):
        volume.read()


@pytest.mark.parametrize("uri", FORMATS)
def test_output_exists_and_bad_arrays(tmp_path: Path, uri: str) -> None:
    uri = uri.format(tmp_path) if "{" in uri else f"{tmp_path}/{uri}"
    options: dict[str, object] = {"shape": (6, 20, 30), "dtype": "uint8", "voxel_size": (40, 4, 4)}
    with volumes.create_volume(uri, **options) as volume:  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"must be uint8 .* got int64"):
            volume.write(None, STACK.astype(np.int64))
        with pytest.raises(InputError, match=r"shape of its box, \(1, 20, 30\); got \(2, 20, 30\)"):
            volume.write(Box((0, 0, 0), (1, 20, 30)), STACK[:2])
        volume.write(None, STACK)
    refusal(OutputExists, "--overwrite", uri=uri, **options)
    with volumes.open_volume(uri) as volume:
        with pytest.raises(InputError, match=r"must lie inside .*got start \(0, 0, 0\), stop \(7, 20, 30\)"):
            volume.read(Box((0, 0, 0), (7, 20, 30)))
        with pytest.raises(InputError, match="must lie inside"):
            volume.read(Box((-1, 0, 0), (3, 20, 30)))
        with pytest.raises(InputError, match="three axes"):
            volume.read(Box((0, 0), (3, 3)))
        with pytest.raises(InputError, match="opened for reading"):
            volume.write(None, STACK)
    with pytest.raises(InputError, match="is closed"):
        volume.read()


def test_what_formats_cannot_hold(tmp_path: Path) -> None:
    refusal(InputError, "one channel", uri=tmp_path / "stack", shape=(2, 3, 4, 5))
    refusal(InputError, "TIFF cannot hold bool", uri=tmp_path / "v.tif", dtype="bool")
    refusal(InputError, "cannot hold bool", uri=tmp_path / "stack", dtype="bool")
    refusal(InputError, "n5 cannot hold float16", uri=tmp_path / "v.n5", dtype="float16")
    refusal(InputError, "precomputed cannot hold int64", uri=f"precomputed://{tmp_path}/p", dtype="int64")
    refusal(InputError, "needs the voxel size", uri=f"precomputed://{tmp_path}/p", dtype="uint8")
    refusal(
        InputError, "no multiple", uri=f"precomputed://{tmp_path}/p", voxel_size=(40, 4, 4), offset=(41.0, 0, 0)
    )  # fmt: skip
    refusal(InputError, "needs the name of a dataset", uri=tmp_path / "v.h5", dtype="uint8")
    refusal(InputError, "cannot tell the format", uri=tmp_path / "v.nrrd", dtype="uint8")
    refusal(InputError, "shape must be", uri=tmp_path / "v.zarr", shape=(2, 3))
    refusal(InputError, "voxel_size must be", uri=tmp_path / "v.zarr", voxel_size=(0, 4, 4))
    refusal(InputError, "kind must be one of", uri=tmp_path / "v.zarr", kind="picture")
    refusal(InputError, "one (z, y, x) per channel", uri=tmp_path / "v.zarr", shape=(3, 2, 2, 2), offsets=[(-1, 0, 0)])
    assert not list(tmp_path.iterdir())
    volumes.create_volume(f"{tmp_path}/v.tif", shape=(2, 3, 4), dtype="uint8").close()
    with pytest.raises(InputError, match="cannot be changed"):
        volumes.open_volume(f"{tmp_path}/v.tif", writable=True)


def test_overwriting_spares_the_neighbours(tmp_path: Path) -> None:
    for name in ("raw", "labels/ids"):
        volumes.create_volume(f"{tmp_path}/v.zarr/{name}", shape=(2, 3, 4), dtype="uint8").close()
        volumes.create_volume(f"{tmp_path}/v.h5:{name}", shape=(2, 3, 4), dtype="uint8").close()
    refusal(InputError, "raw", "would remove", uri=tmp_path / "v.zarr", overwrite=True)
    refusal(InputError, "labels/ids", "would remove", uri=tmp_path / "v.zarr/labels", overwrite=True)
    refusal(InputError, "is a group", uri=f"{tmp_path}/v.h5:labels", overwrite=True)
    (tmp_path / "papers.zarr").mkdir()
    (tmp_path / "papers.zarr/thesis.txt").write_text("years of work")
    refusal(InputError, "something else", uri=tmp_path / "papers.zarr", overwrite=True)
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack/notes.txt").write_text("years of work")
    refusal(OutputExists, "exists already", uri=tmp_path / "stack", dtype="uint8")
    volumes.create_volume(tmp_path / "stack", shape=(2, 3, 4), dtype="uint8", overwrite=True).close()
    assert (tmp_path / "stack/notes.txt").exists()
    assert volumes.open_volume(tmp_path / "stack").shape == (2, 3, 4)


@pytest.mark.parametrize("uri", ["v.tif", "stack"])
def test_an_error_while_writing_leaves_nothing(tmp_path: Path, uri: str) -> None:
    def fail() -> None:
        with volumes.create_volume(tmp_path / uri, shape=STACK.shape, dtype="uint8") as volume:
            volume.write(None, STACK)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_killed_writer_leaves_a_readable_hdf5_file(tmp_path: Path) -> None:
    code = """
import os, signal, sys, numpy as np
from neuropil.volume import create_volume
from neuropil.geometry import Box
volume = create_volume(sys.argv[1], shape=(4, 50, 60), dtype="uint8")
volume.write(Box((0, 0, 0), (2, 50, 60)), np.full((2, 50, 60), 7, np.uint8))
os.kill(os.getpid(), signal.SIGKILL)
"""
    for uri in (f"{tmp_path}/v.h5:raw", f"{tmp_path}/v.zarr"):
        assert subprocess.run([sys.executable, "-c", code, uri], check=False).returncode == -signal.SIGKILL
        with volumes.open_volume(uri, writable=True) as volume:
            assert (volume.read()[:2] == 7).all()
            assert not volume.read()[2:].any()
            volume.write(Box((2, 0, 0), (4, 50, 60)), np.full((2, 50, 60), 8, np.uint8))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 2 MiB, or skip where that is not permitted."""
    folder, mount = tmp_path / "disk", shutil.which("mount")
    folder.mkdir()
    if mount is None or os.name != "posix" or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    command = [mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("uri", FORMATS)
def test_full_disk(small_disk: Path, uri: str) -> None:
    uri = uri.format(small_disk) if "{" in uri else f"{small_disk}/{uri}"
    array = np.random.default_rng(0).integers(0, 256, (16, 512, 512), dtype=np.uint8)

    def fill() -> None:
        facts: dict[str, object] = {"voxel_size": (40, 4, 4), "chunk_shape": (1, 512, 512)}
        with volumes.create_volume(uri, shape=array.shape, dtype="uint8", **facts) as volume:  # type: ignore[arg-type]
            for z in range(16):
                volume.write(Box((z, 0, 0), (z + 1, 512, 512)), array[z : z + 1])

    with pytest.raises(StorageFull, match="the disk is full"):
        fill()
    if ":raw" in uri or ("zarr" in uri or "n5" in uri):
        with volumes.open_volume(uri) as volume:
            np.testing.assert_array_equal(volume.read(Box((0, 0, 0), (2, 512, 512))), array[:2])
    elif "pre" not in uri:
        assert not volumes.exists(uri)


def test_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_uri("$PLACE/v.h5:raw").path == f"{tmp_path}/v.h5"
    assert parse_uri("~/v.hdf5/a/b").dataset == "a/b"
    assert parse_uri("~/v.zarr/a/b").path == f"{tmp_path}/v.zarr"
    assert parse_uri("gs://bucket/deep/v.zarr/a").path == "gs://bucket/deep/v.zarr"
    assert parse_uri("precomputed://gs://bucket/seg").format == "precomputed"
    assert parse_uri("n5://s3://bucket/v.n5/raw").dataset == "raw"
    (tmp_path / "odd.h5").mkdir()
    assert parse_uri(tmp_path / "odd.h5" / "v.tif").format == "tiff"
    with pytest.raises(InputError, match="unknown scheme"):
        parse_uri("ftp://host/v.zarr")
    with pytest.raises(InputError, match="must not be empty"):
        parse_uri(" ")


def test_data_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROPIL_DATA", f"{tmp_path}/one{os.pathsep}{tmp_path}/two")
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path}/cache")
    assert data_folders() == [tmp_path / "one", tmp_path / "two", tmp_path / "cache/neuropil/data"]
    volumes.create_volume(f"{tmp_path}/two/set/v.h5:raw", shape=(2, 3, 4), dtype="uint8").close()
    assert volumes.open_volume("data://set/v.h5:raw").shape == (2, 3, 4)
    refusal(VolumeNotFound, "neuropil data list", uri="data://set/w.h5:raw")
    refusal(InputError, "only read", uri="data://set/v.h5:new", dtype="uint8")
    assert not volumes.exists("data://nothing.tif")


def test_units_and_metadata() -> None:
    assert nanometres(4, "nm") == 4
    assert nanometres(0.004, "µm") == 4
    assert nanometres(4, "pixel") is None
    assert nanometres(4, None) is None
    with pytest.raises(InputError, match="scale must be a positive"):
        Metadata(scale=float("nan"))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = volumes.nothing
