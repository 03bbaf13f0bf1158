"""Every format round-trips, alone and against the library that defines it; box reads are NumPy slicing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import imageio.v3 as iio
import numpy as np
import pytest
import tensorstore
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import neuropil.volume as volumes
from neuropil.cli import main
from neuropil.errors import InputError, VolumeNotFound
from neuropil.geometry import Box, grid

SIZE, OFFSET = (40.0, 4.0, 5.0), (80.0, 12.0, 20.0)
FORMATS = {
    "hdf5": "v.h5:vol/raw",
    "tiff": "v.tif",
    "sections": "stack",
    "ome": "v.zarr",
    "zarr": "v.zarr/deep/raw",
    "ome04": "zarr2://{}/v.zarr",
    "zarr2": "zarr2://{}/v.zarr/raw",
    "n5": "v.n5",
    "n5array": "n5://{}/v.n5/deep/raw",
    "precomputed": "precomputed://{}/pre",
}
CREMI = "data://cremi/sample_B_20160708_frags_46_50_annotations.hdf"
CHANNELS = [name for name in FORMATS if name != "sections"]


def place(folder: Path, name: str) -> str:
    template = FORMATS[name]
    return template.format(folder) if "{}" in template else f"{folder}/{template}"


def example(kind: str, shape: tuple[int, ...] = (5, 37, 41)) -> np.ndarray:
    rng = np.random.default_rng(7)
    if kind == "image":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if kind == "labels":
        array = rng.integers(2**53, 2**64, shape, dtype=np.uint64)
        array[0, 0, :3] = (0, 2**53 + 1, 2**64 - 1)
        return array
    return rng.random((4, *shape), dtype=np.float32)


def make(uri: str, array: np.ndarray, **facts: object) -> None:
    facts = {"voxel_size": SIZE, "offset": OFFSET, **facts}
    with volumes.create_volume(uri, shape=array.shape, dtype=array.dtype, **facts) as volume:  # type: ignore[arg-type]
        volume.write(None, array)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", ["image", "labels", "affinities"])
def test_round_trip(tmp_path: Path, name: str, kind: str) -> None:
    if kind == "affinities" and name not in CHANNELS:
        pytest.skip("a folder of sections holds one channel")
    array, uri = example(kind), place(tmp_path, name)
    offsets = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, -9, 0)) if kind == "affinities" else None
    scale = 0.5 if kind == "image" else None
    make(uri, array, kind=kind, offsets=offsets, scale=scale)
    assert volumes.exists(uri)
    with volumes.open_volume(uri) as volume:
        assert volume.shape == array.shape
        assert volume.dtype == array.dtype
        got = volume.read()
        np.testing.assert_array_equal(got, array)
        assert got.flags.writeable
        assert got.flags.owndata
        facts = volume.metadata
    assert facts.voxel_size == SIZE
    assert facts.offset == OFFSET
    assert (facts.kind, facts.offsets, facts.scale) == (kind, offsets, scale)
    assert facts.axes == ("c", "z", "y", "x")[-array.ndim :]
    assert {"voxel_size", "offset", "kind", "axes"} <= set(facts.sources)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 3), (3, 1, 5), (2, 130, 1)])
def test_odd_shapes(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    array, uri = example("image", shape), place(tmp_path, name)
    make(uri, array)
    with volumes.open_volume(uri) as volume:
        assert volume.metadata.kind in (None, "image")
        np.testing.assert_array_equal(volume.read(), array)


@pytest.mark.parametrize("name", [n for n in CHANNELS if n != "precomputed"])
def test_one_channel_and_unknown_voxel_size_survive(tmp_path: Path, name: str) -> None:
    array, uri = example("affinities")[:1], place(tmp_path, name)
    make(uri, array, voxel_size=None, offset=(1.5, 0, 0))
    with volumes.open_volume(uri) as volume:
        assert volume.shape == array.shape
        assert volume.metadata.voxel_size is None
        assert volume.metadata.offset == (1.5, 0, 0)


@pytest.mark.parametrize("name", FORMATS)
def test_blocks_in_any_order(tmp_path: Path, name: str) -> None:
    array, uri = example("labels"), place(tmp_path, name)
    blocks = list(grid(Box.of_shape(array.shape), (2, 16, 20)))
    np.random.default_rng(1).shuffle(blocks)
    with volumes.create_volume(uri, shape=array.shape, dtype=array.dtype, voxel_size=SIZE) as volume:
        for block in blocks[:-1]:
            volume.write(block, array[block.slices])
        np.testing.assert_array_equal(volume.read(blocks[0]), array[blocks[0].slices])
        assert not volume.read(blocks[-1]).any()
        volume.write(blocks[-1], array[blocks[-1].slices])
    with volumes.open_volume(uri) as volume:
        np.testing.assert_array_equal(volume.read(), array)


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_not_written_is_zero_and_overwriting_starts_anew(tmp_path: Path, name: str) -> None:
    uri = place(tmp_path, name)
    make(uri, example("image"))
    with volumes.create_volume(uri, shape=(2, 3, 4), dtype="uint16", voxel_size=SIZE, overwrite=True):
        pass
    with volumes.open_volume(uri) as volume:
        np.testing.assert_array_equal(volume.read(), np.zeros((2, 3, 4), np.uint16))
        assert volume.metadata.offset == (0, 0, 0)
    assert not list(tmp_path.rglob("*partial*"))


@pytest.mark.parametrize("name", [n for n in FORMATS if n != "tiff"])
def test_reopened_for_writing(tmp_path: Path, name: str) -> None:
    array, uri, box = example("image"), place(tmp_path, name), Box((1, 2, 3), (3, 9, 11))
    make(uri, array)
    with volumes.open_volume(uri, writable=True) as volume:
        volume.write(box, np.full(box.shape, 200, np.uint8))
    array[box.slices] = 200
    with volumes.open_volume(uri) as volume:
        np.testing.assert_array_equal(volume.read(), array)
        assert volume.metadata.voxel_size == SIZE


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, volumes.Volume]]:
    folder = tmp_path_factory.mktemp("opened")
    held = {}
    for name in FORMATS:
        make(place(folder / name, name), example("image"))
        held[name] = volumes.open_volume(place(folder / name, name))
    yield held
    for volume in held.values():
        volume.close()


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_box_reads_are_numpy_slices(opened: dict[str, volumes.Volume], name: str, data: st.DataObject) -> None:
    array = example("image")
    pairs = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in array.shape]
    box = Box(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))
    np.testing.assert_array_equal(opened[name].read(box), array[box.slices])


# The libraries that define the formats read ours, and we read theirs.


@pytest.mark.parametrize("kind", ["image", "labels", "affinities"])
def test_h5py_reads_ours(tmp_path: Path, kind: str) -> None:
    array = example(kind)
    make(f"{tmp_path}/v.h5:volumes/raw", array)
    with h5py.File(tmp_path / "v.h5") as file:
        data = file["volumes/raw"]
        np.testing.assert_array_equal(data[:], array)
        assert tuple(data.attrs["resolution"]) == SIZE
        assert tuple(data.attrs["offset"]) == OFFSET


@pytest.mark.parametrize(
    ("attribute", "value", "on_file"),
    [("resolution", SIZE, False), ("voxel_size_nm_zyx", SIZE, True), ("voxel_size", SIZE, False),
     ("element_size_um", (0.04, 0.004, 0.005), False)],
)  # fmt: skip
def test_we_read_h5py(tmp_path: Path, attribute: str, value: tuple[float, ...], on_file: bool) -> None:
    array = example("labels").astype(">u8")
    with h5py.File(tmp_path / "v.hdf", "w") as file:
        file["a/b"] = array
        file["note"] = "not a volume"
        (file if on_file else file["a/b"]).attrs[attribute] = value
    for uri in (f"{tmp_path}/v.hdf", f"{tmp_path}/v.hdf:a/b", f"{tmp_path}/v.hdf/a/b"):
        with volumes.open_volume(uri) as volume:
            np.testing.assert_array_equal(volume.read(), array)
            assert volume.dtype == np.uint64
            assert volume.metadata.voxel_size == SIZE
            assert attribute in volume.metadata.sources["voxel_size"]


@pytest.mark.parametrize("kind", ["image", "labels", "affinities"])
def test_tifffile_reads_ours(tmp_path: Path, kind: str) -> None:
    array = example(kind)
    make(f"{tmp_path}/v.tif", array)
    with tifffile.TiffFile(tmp_path / "v.tif") as tif:
        np.testing.assert_array_equal(tif.asarray(), array)
        assert tif.series[0].axes == "CZYX"[-array.ndim :]
        assert tif.is_ome == (kind != "labels")
        if tif.is_ome:
            assert 'PhysicalSizeZ="40.0"' in tif.ome_metadata
            assert 'PhysicalSizeXUnit="nm"' in tif.ome_metadata


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("style", ["plain", "imagej", "ome"])
def test_we_read_tifffile(tmp_path: Path, style: str, compression: str | None) -> None:
    array = example("image").astype(np.uint16)
    resolution = (1 / 0.005, 1 / 0.004)  # pixels per micrometre, x then y
    length = {"PhysicalSizeZ": 0.04, "PhysicalSizeY": 0.004, "PhysicalSizeX": 0.005}  # OME: micrometres if not said
    hyper = {"axes": "ZYX", "spacing": 0.04, "unit": "um"}
    extra: dict[str, object] = {
        "plain": {},
        "imagej": {"imagej": True, "resolution": resolution, "metadata": hyper},
        "ome": {"ome": True, "metadata": {"axes": "ZYX", **length}},
    }[style]  # fmt: skip
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, array, compression=compression, photometric="minisblack", **extra)  # type: ignore[arg-type]
    with volumes.open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read(Box((1, 2, 3), (4, 30, 40))), array[1:4, 2:30, 3:40])
        assert volume.metadata.voxel_size == (None if style == "plain" else pytest.approx(SIZE))
        assert ("guess" in volume.metadata.sources["axes"]) == (style == "plain")


def test_imagej_hyperstack_is_turned_to_channels_first(tmp_path: Path) -> None:
    array = example("affinities")
    path = tmp_path / "hyper.tif"
    tifffile.imwrite(path, np.moveaxis(array, 0, 1), imagej=True, metadata={"axes": "ZCYX"})
    with volumes.open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read(), array)


@pytest.mark.parametrize("kind", ["image", "labels", "affinities"])
@pytest.mark.parametrize("version", [2, 3])
def test_zarr_reads_ours(tmp_path: Path, version: int, kind: str) -> None:
    array = example(kind)
    uri = f"{'zarr2' if version == 2 else 'zarr3'}://{tmp_path}/v.zarr"
    make(uri, array)
    group = zarr.open_group(tmp_path / "v.zarr", mode="r", zarr_format=version)  # type: ignore[arg-type]
    np.testing.assert_array_equal(group["0"][:], array)
    image = dict(group.attrs)["multiscales"][0] if version == 2 else dict(group.attrs)["ome"]["multiscales"][0]
    space = [axis for axis in image["axes"] if axis["type"] == "space"]
    assert [(axis["name"], axis["unit"]) for axis in space] == [(axis, "nanometer") for axis in "zyx"]
    steps = image["datasets"][0]["coordinateTransformations"]
    assert [step["type"] for step in steps] == ["scale", "translation"]
    assert tuple(steps[0]["scale"][-3:]) == SIZE
    assert tuple(steps[1]["translation"][-3:]) == OFFSET
    # Chunk keys are separated by "/": folders inside folders.
    assert (tmp_path / "v.zarr/0" / "/".join((["c"] if version == 3 else []) + ["0"] * array.ndim)).is_file()


def test_zarr_opens_our_named_array_through_its_groups(tmp_path: Path) -> None:
    array = example("labels")
    make(f"{tmp_path}/v.zarr/a/b", array)
    make(f"{tmp_path}/v.zarr/a/c", array[:2])
    group = zarr.open_group(tmp_path / "v.zarr", mode="r")
    np.testing.assert_array_equal(group["a/b"][:], array)
    assert group["a/b"].attrs["voxel_size"] == list(SIZE)
    assert [entry.name for entry in volumes.list_arrays(tmp_path / "v.zarr")] == ["a/b", "a/c"]


@pytest.mark.parametrize("version", [2, 3])
def test_we_read_zarr(tmp_path: Path, version: int) -> None:
    array = example("labels")
    group = zarr.open_group(tmp_path / "v.zarr", mode="w", zarr_format=version)  # type: ignore[arg-type]
    data = group.create_array("raw", data=array, chunks=(2, 16, 16))
    data.attrs.update({"resolution": list(SIZE), "offset": list(OFFSET)})
    for uri in (f"{tmp_path}/v.zarr", f"{tmp_path}/v.zarr/raw"):
        with volumes.open_volume(uri) as volume:
            np.testing.assert_array_equal(volume.read(), array)
            assert volume.metadata.voxel_size == SIZE
            assert volume.metadata.offset == OFFSET
            assert "guess" in volume.metadata.sources["axes"]


def test_foreign_ome_with_five_axes_micrometres_and_levels(tmp_path: Path) -> None:
    array = example("image")
    group = zarr.open_group(tmp_path / "v.ome.zarr", mode="w", zarr_format=2)
    group.create_array("s0", data=array[None, None])
    group.create_array("s1", data=array[None, None, :, ::2, ::2])
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]

    def level(name: str, y: float, x: float, shift: list[float]) -> dict[str, object]:
        steps = [{"type": "scale", "scale": [1, 1, 0.04, y, x]}, {"type": "translation", "translation": shift}]
        return {"path": name, "coordinateTransformations": steps}

    datasets = [level("s0", 0.004, 0.005, [0] * 5), level("s1", 0.008, 0.01, [0, 0, 0, 0.002, 0.0025])]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    with volumes.open_volume(tmp_path / "v.ome.zarr") as volume:
        np.testing.assert_array_equal(volume.read(), array)
        assert volume.metadata.voxel_size == SIZE
    with volumes.open_volume(tmp_path / "v.ome.zarr/s1") as volume:
        assert volume.metadata.voxel_size == (40, 8, 10)
        assert volume.metadata.offset == (0, 2, 2.5)


def test_ome_without_a_unit_is_not_believed(tmp_path: Path) -> None:
    make(f"{tmp_path}/v.zarr", example("image"))
    file = tmp_path / "v.zarr/zarr.json"
    file.write_text(file.read_text().replace('"unit": "nanometer"', '"unit": "parsec"'))
    with volumes.open_volume(tmp_path / "v.zarr") as volume:
        assert volume.metadata.voxel_size is None
        assert "no unit" in volume.metadata.sources["voxel_size"]


def test_n5_is_x_y_z_on_disk(tmp_path: Path) -> None:
    make(f"{tmp_path}/v.n5/raw", example("image"))
    attributes = json.loads((tmp_path / "v.n5/raw/attributes.json").read_text())
    assert attributes["dimensions"] == [41, 37, 5]
    assert attributes["resolution"] == [5, 4, 40]
    assert attributes["pixelResolution"] == {"dimensions": [5, 4, 40], "unit": "nm"}
    for name in ("transform", "neuropil", "axes", "units"):
        attributes.pop(name)
    (tmp_path / "v.n5/raw/attributes.json").write_text(json.dumps(attributes))
    with volumes.open_volume(tmp_path / "v.n5/raw") as volume:
        np.testing.assert_array_equal(volume.read(), example("image"))
        assert volume.metadata.voxel_size == SIZE
        assert "n5 is x, y, z" in volume.metadata.sources["axes"]


def test_precomputed_is_x_y_z_on_disk_with_its_own_chunk_names(tmp_path: Path) -> None:
    array = example("image")
    make(f"precomputed://{tmp_path}/pre", array, kind="image")
    info = json.loads((tmp_path / "pre/info").read_text())
    scale = info["scales"][0]
    assert (scale["size"], scale["resolution"], scale["voxel_offset"]) == ([41, 37, 5], [5, 4, 40], [4, 3, 2])
    raw = np.frombuffer((tmp_path / "pre" / scale["key"] / "4-45_3-40_2-7").read_bytes(), np.uint8)
    np.testing.assert_array_equal(raw.reshape(5, 37, 41), array)
    make(f"precomputed://{tmp_path}/seg", example("labels"), kind="labels")
    assert json.loads((tmp_path / "seg/info").read_text())["type"] == "segmentation"


def test_a_default_zarr_is_few_files(tmp_path: Path) -> None:
    shape = (64, 512, 512)
    with volumes.create_volume(f"{tmp_path}/v.zarr", shape=shape, dtype="uint8", voxel_size=SIZE) as volume:
        assert volume.chunk_shape == shape
        volume.write(None, np.ones(shape, np.uint8))
    assert len([path for path in (tmp_path / "v.zarr").rglob("*") if path.is_file()]) == 3


@pytest.mark.parametrize("name", ["hdf5", "ome", "zarr", "n5", "precomputed"])
def test_chunk_shape_is_the_unit_of_writing(tmp_path: Path, name: str) -> None:
    uri = place(tmp_path, name)
    with volumes.create_volume(
        uri, shape=(9, 100, 100), dtype="uint8", voxel_size=SIZE, chunk_shape=(4, 30, 37)
    ) as volume:
        assert volume.chunk_shape == (4, 30, 37)


@pytest.mark.parametrize("name", CHANNELS)
def test_some_channels(tmp_path: Path, name: str) -> None:
    array, uri = np.random.default_rng(0).random((12, 5, 30, 40), np.float32), place(tmp_path, name)
    make(uri, array)
    box = Box((1, 2, 3), (5, 30, 33))
    with volumes.open_volume(uri) as volume:
        for channels in (slice(0, 3), slice(4, 12, 4), slice(None)):
            np.testing.assert_array_equal(volume.read(box, channels), array[(channels, *box.slices)])
        assert volume.read(channels=slice(2, 3)).flags.c_contiguous


def test_other_channels_stay_on_disk(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((12, 16, 64, 64), np.float32)
    make(f"{tmp_path}/v.zarr", array)

    def amount(channels: slice | None) -> int:
        name = "/tensorstore/kvstore/file/bytes_read"
        before = tensorstore.experimental_collect_matching_metrics(name)[0]["values"][0]["value"]
        with volumes.open_volume(f"{tmp_path}/v.zarr") as volume:
            volume.read(channels=channels)
        return int(tensorstore.experimental_collect_matching_metrics(name)[0]["values"][0]["value"] - before)

    assert amount(slice(0, 3)) < 0.3 * amount(None)


def test_channels_of_a_volume_without(tmp_path: Path) -> None:
    make(f"{tmp_path}/v.zarr", example("image"))
    with volumes.open_volume(f"{tmp_path}/v.zarr") as volume, pytest.raises(InputError, match="channels are for"):
        volume.read(channels=slice(0, 3))


def test_folder_order_is_natural_and_grey_colour_images_are_read(tmp_path: Path) -> None:
    array = example("image", (11, 6, 7))
    for z, section in enumerate(array):
        iio.imwrite(tmp_path / f"Z{z}.png", np.stack([section] * 3, axis=-1) if z == 4 else section)
    with volumes.open_volume(tmp_path) as volume:
        np.testing.assert_array_equal(volume.read(), array)
        assert volume.metadata.voxel_size is None


def test_reader_and_writer_share_one_hdf5_file(tmp_path: Path) -> None:
    array = example("image")
    make(f"{tmp_path}/v.h5:raw", array)
    with volumes.open_volume(f"{tmp_path}/v.h5:raw") as source:
        first = source.read(Box((0, 0, 0), (1, 37, 41)))
        make(f"{tmp_path}/v.h5:copy", array)
        np.testing.assert_array_equal(source.read()[:1], first)
    assert [entry.name for entry in volumes.list_arrays(tmp_path / "v.h5")] == ["copy", "raw"]


def test_bool_where_it_can_be_held(tmp_path: Path) -> None:
    array = example("image") > 99
    for name in ("hdf5", "ome", "zarr2"):
        make(place(tmp_path / name, name), array)
        with volumes.open_volume(place(tmp_path / name, name)) as volume:
            np.testing.assert_array_equal(volume.read(), array)


def test_over_http(tmp_path: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

    array = example("labels")
    make(f"{tmp_path}/v.zarr", array)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        with volumes.open_volume(f"{address}/v.zarr") as volume:
            assert volume.metadata.voxel_size == SIZE
            shape = volume.shape
        assert shape == array.shape
        assert main(["verify", f"{address}/v.zarr", "--quiet"]) == 0
        with pytest.raises(VolumeNotFound):
            volumes.open_volume(f"{address}/w.zarr")
    finally:
        server.shutdown()
        server.server_close()


def test_import_stays_cheap() -> None:
    heavy = ("tensorstore", "h5py", "tifffile", "numpy")
    code = f"import sys, neuropil.volume; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.skipif("NEUROPIL_DATA" not in os.environ, reason="real data not there")
@pytest.mark.parametrize(
    ("uri", "shape", "size"),
    [
        ("data://vnc/vnc_x000-703.h5:raw", (20, 1024, 704), (47.5, 4.6, 4.6)),
        ("data://isbi2012/isbi2012_z00-19.h5/neuron_ids", (20, 512, 512), (50, 4, 4)),
        (f"{CREMI}:volumes/labels/neuron_ids", (5, 500, 500), (40, 4, 4)),
        ("data://light_microscopy/rivulet_test.tif", (119, 415, 409), None),
    ],
)  # fmt: skip
def test_real_files(uri: str, shape: tuple[int, ...], size: tuple[float, ...] | None) -> None:
    if not volumes.exists(uri):
        pytest.skip("file not there")
    with volumes.open_volume(uri) as volume:
        assert volume.shape == shape
        assert volume.metadata.voxel_size == size
        assert volume.read(Box((0, 0, 0), (2, 9, 9))).shape == (2, 9, 9)
