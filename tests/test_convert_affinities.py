"""`neuropil convert --affinities-from`: other tools' files become ours, and keep their links."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from small import good, sentence, store, untouched

from neuropil.segmentation.affinities import LONG_RANGE, NEAREST, Affinities, affinities_from_labels
from neuropil.segmentation.affinity_conventions import CONVENTIONS, Tool, from_convention, to_convention
from neuropil.segmentation.affinity_moves import clear_leaving, with_offsets
from neuropil.stages.affinities import read_affinities, write_affinities
from neuropil.volume import open_volume

LABELS = np.random.default_rng(0).integers(0, 3, (5, 31, 7)).astype(np.uint64)
PLACE = {"voxel_size": (40.0, 4.0, 8.0), "offset": (80.0, 4.0, 0.0)}


def theirs(path: Path, tool: str, dtype: type) -> str:
    """A file as another tool writes it, with nothing but voxels."""
    targets = affinities_from_labels(LABELS, LONG_RANGE)
    values = (targets.affinities * 255).astype(np.uint8) if dtype == np.uint8 else targets.affinities
    listed = NEAREST if CONVENTIONS[tool].listed is None else None  # type: ignore[index]
    with h5py.File(path, "w") as file:
        file["a"] = to_convention(Affinities(values, LONG_RANGE), tool, offsets=listed)  # type: ignore[arg-type]
    return f"{path}:a"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("tool", list(CONVENTIONS))
def test_every_tool(tmp_path: Path, tool: str, dtype: type) -> None:
    uri, out = theirs(tmp_path / "t.h5", tool, dtype), f"{tmp_path}/o.zarr"
    told = ["--offsets=-1,0,0/0,-1,0/0,0,-1"] if CONVENTIONS[tool].listed is None else []  # type: ignore[index]
    good("convert", uri, out, "--affinities-from", tool, *told, "--voxel-size", "40,4,8", "--verify")
    with open_volume(out) as volume:
        ours = read_affinities(volume)
        assert volume.metadata.voxel_size == (40, 4, 8)
        assert volume.metadata.scale == (1 / 255 if dtype == np.uint8 else None)
    assert ours.values.dtype == dtype
    np.testing.assert_array_equal(
        with_offsets(ours, NEAREST).values > 0.5, affinities_from_labels(LABELS, NEAREST).affinities > 0.5
    )
    good("convert", uri, f"{tmp_path}/crop.zarr", "--affinities-from", tool, *told, "--sections", "1:4")
    with open_volume(f"{tmp_path}/crop.zarr") as volume:
        part = with_offsets(read_affinities(volume), NEAREST)
    np.testing.assert_array_equal(part.values > 0.5, affinities_from_labels(LABELS[1:4], NEAREST).affinities > 0.5)


def test_place_of_an_xyz_array_is_turned(tmp_path: Path) -> None:
    values = to_convention(Affinities(affinities_from_labels(LABELS).affinities), "banis")
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["a"] = values
        file["a"].attrs.update({"resolution": (8, 4, 40), "offset": (16, 0, 80)})
    good("convert", f"{tmp_path}/t.h5:a", f"{tmp_path}/o.zarr", "--affinities-from", "banis", "--sections", "1:5")
    with open_volume(f"{tmp_path}/o.zarr") as volume:
        assert volume.metadata.voxel_size == (40, 4, 8)
        assert volume.metadata.offset == (120, 0, 16)
        assert volume.shape == (3, 4, 31, 7)


@pytest.mark.parametrize("names", [None, ["c", "x", "y", "z"]])
def test_axes_are_turned_once(tmp_path: Path, names: list[str] | None) -> None:
    """Where the file names its axes its reader turns them, where it does not, the tool's convention does."""
    values = np.ascontiguousarray(to_convention(Affinities(affinities_from_labels(LABELS).affinities), "banis"))
    array = zarr.create_array(f"{tmp_path}/t.zarr", shape=values.shape, dtype="float32", dimension_names=names)
    array[...] = values
    good("convert", f"{tmp_path}/t.zarr", f"{tmp_path}/o.zarr", "--affinities-from", "banis")
    with open_volume(f"{tmp_path}/o.zarr") as volume:
        ours = with_offsets(read_affinities(volume), NEAREST)
    np.testing.assert_array_equal(ours.values, affinities_from_labels(LABELS).affinities)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("tool", list(CONVENTIONS))
def test_to_every_tool_and_back(tmp_path: Path, tool: Tool, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written in small blocks is what `to_convention` makes of the whole, and comes back as it was."""
    monkeypatch.setattr("neuropil.volume.copying._BLOCK_BYTES", 1 << 10)
    rng = np.random.default_rng(1)
    values = rng.integers(0, 256, (12, *LABELS.shape)).astype(np.uint8)
    clear_leaving(values, LONG_RANGE)
    ours = Affinities(values if dtype == np.uint8 else (values / 255).astype(np.float32), LONG_RANGE)
    write_affinities(f"{tmp_path}/o.zarr", ours, place=PLACE, overwrite=False)
    outs = [f"{tmp_path}/t.h5:a", *([f"{tmp_path}/t.zarr"] if CONVENTIONS[tool].axes == "zyx" else [])]
    for out in outs:
        good("convert", f"{tmp_path}/o.zarr", out, "--affinities-to", tool, "--verify")
    expected = to_convention(ours, tool)
    with h5py.File(tmp_path / "t.h5") as file:
        np.testing.assert_array_equal(file["a"][:], expected)
    kept = from_convention(expected, tool, offsets=LONG_RANGE if CONVENTIONS[tool].listed is None else None)
    if len(outs) == 1:  # no offsets are said of axes x, y, z
        good("convert", outs[0], f"{tmp_path}/b.zarr", "--affinities-from", tool)
        outs = [f"{tmp_path}/b.zarr"]
    for out in outs:
        with open_volume(out) as volume:
            back = read_affinities(volume)
            assert (volume.metadata.voxel_size, volume.metadata.offset) == (PLACE["voxel_size"], PLACE["offset"])
        np.testing.assert_array_equal(with_offsets(back, NEAREST).values, with_offsets(kept, NEAREST).values)


def test_to_a_tool_refuses(tmp_path: Path) -> None:
    zeros = np.zeros((3, 4, 5, 6), np.float32)
    ours = store(f"{tmp_path}/o.h5:a", zeros, kind="affinities", offsets=NEAREST)
    bare = store(f"{tmp_path}/o.h5:bare", zeros, kind="affinities")
    wrong = f"{tmp_path}/w.zarr"
    with untouched(tmp_path):
        for words, said in [
            ([bare, wrong, "--affinities-to", "waterz"], "does not say which voxels its 3 channels link"),
            ([ours, wrong, "--affinities-to", "deepem", "--offsets=0,0,9"], "(0, 0, -9)"),
            ([ours, wrong, "--affinities-to", "banis", "--sections", "0:2"], "which only HDF5 takes"),
            ([ours, f"{tmp_path}/w.h5:a", "--affinities-to", "banis", "--sections", "0:2"], "cut them first"),
            ([ours, wrong, "--affinities-to", "banis", "--affinities-from", "waterz"], "are two steps"),
            ([ours, wrong, "--affinities-to", "banis", "--kind", "image"], "kind must be affinities"),
            ([ours, ours, "--affinities-to", "banis"], "is the input itself"),
        ]:
            assert said in sentence("convert", *words), words


def test_offsets_alone_and_bytes_of_zero_and_one(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["a"] = 1 - affinities_from_labels(LABELS, [(0, 1, 0)]).affinities.astype(np.uint8)
    out = f"{tmp_path}/o.zarr"
    good("convert", f"{tmp_path}/t.h5:a", out, "--offsets", "0,1,0", "--affinities-from", "affogato")
    with open_volume(out) as volume, pytest.raises(ValueError, match="holds the bytes 0 and 1 and says no scale"):
        read_affinities(volume)
    good("convert", out, f"{tmp_path}/s.zarr", "--scale", 1)
    with open_volume(f"{tmp_path}/s.zarr") as volume:
        assert (volume.metadata.offsets, volume.metadata.one_means) == (((0, 1, 0),), "different")
        ours = read_affinities(volume)
    np.testing.assert_array_equal(
        with_offsets(ours, [(0, -1, 0)]).values[0], affinities_from_labels(LABELS).affinities[1]
    )


def test_the_mask_goes_along(tmp_path: Path) -> None:
    targets = affinities_from_labels(LABELS, NEAREST, unlabelled=LABELS == 2)
    write_affinities(
        f"{tmp_path}/a.h5:x/affs", Affinities(targets.affinities, NEAREST, targets.mask), place=PLACE, overwrite=False
    )
    good("convert", f"{tmp_path}/a.h5:x/affs", f"{tmp_path}/b.zarr", "--sections", "2:5")
    with open_volume(f"{tmp_path}/b.zarr") as volume:
        part = read_affinities(volume)
        assert volume.metadata.offset == (160, 4, 0)
    expected = affinities_from_labels(LABELS[2:5], NEAREST, unlabelled=LABELS[2:5] == 2)
    np.testing.assert_array_equal(part.known, expected.mask)
    np.testing.assert_array_equal(part.values, expected.affinities)
    with untouched(tmp_path):
        said = sentence("convert", f"{tmp_path}/a.h5:x/affs", f"{tmp_path}/b.zarr")
        assert "b.zarr exists; give --overwrite" in said


def test_refusals(tmp_path: Path) -> None:
    uri = theirs(tmp_path / "t.h5", "waterz", np.float32)
    ours = store(f"{tmp_path}/o.h5:a", np.zeros((3, 2, 3, 4), np.float32), kind="affinities", offsets=NEAREST)
    image = store(f"{tmp_path}/o.h5:image", np.zeros((2, 3, 4), np.uint8), kind="image")
    wrong = f"{tmp_path}/w.zarr"
    with untouched(tmp_path):
        for words, said in [
            ([uri, wrong, "--affinities-from", "watrez"], "'affinities_from' in [convert]: input should be 'waterz'"),
            ([uri, wrong, "--affinities-from", "affogato"], "affogato has no usual offsets; give offsets"),
            ([uri, wrong, "--affinities-from", "volara", "--offsets=1,0,0"], "3 channels and 1 offsets are given"),
            ([uri, wrong, "--offsets", "1,0"], "[convert"),
            ([uri, wrong, "--offsets", "0,0,0/0,0,1/0,1,0"], "offsets must differ from each other and from (0, 0, 0)"),
            ([ours, wrong, "--affinities-from", "waterz"], "says its offsets already"),
            ([image, wrong, "--affinities-from", "waterz"], "must hold affinities (c, z, y, x)"),
            ([uri, uri, "--affinities-from", "banis"], "is the input itself"),
        ]:
            assert said in sentence("convert", *words), words
