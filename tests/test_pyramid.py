"""Levels of a volume: what is in them, that blocks do not show, that other programs find them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts
import zarr
from small import good, load, sentence, store, untouched

from neuropil.volume import open_volume, pyramid

SHAPE = (9, 40, 53)


def slow(array: np.ndarray, factor: tuple[int, ...], method: str) -> np.ndarray:
    """One window after the other."""
    out = np.empty([-(-n // f) for n, f in zip(array.shape, factor)], array.dtype)
    for place in np.ndindex(*out.shape):
        window = array[tuple(slice(k * f, (k + 1) * f) for k, f in zip(place, factor))].ravel()
        if method == "mean":
            out[place] = np.rint(window.mean(dtype=np.float64))
        else:
            often = Counter(window.tolist())
            out[place] = min(v for v, n in often.items() if n == max(often.values()))
    return out


def volume(uri: str, kind: str, seed: int = 0, **facts: object) -> np.ndarray:
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 5, SHAPE).astype(np.uint64) << np.uint64(40)
    if kind == "image":
        array = rng.integers(0, 256, SHAPE, np.uint8)
    store(uri, array, kind=kind, voxel_size=(40, 8, 8), offset=(80, 16, 8), **facts)
    return array


@pytest.mark.parametrize("scheme", ["", "zarr2://", "precomputed://"])
@pytest.mark.parametrize("kind", ["labels", "image"])
def test_levels_hold_what_they_cover(tmp_path: Path, scheme: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid, "_CELLS", 20_000)  # several blocks
    uri = f"{scheme}{tmp_path}/v.zarr" if scheme != "precomputed://" else f"{scheme}{tmp_path}/v"
    array = volume(uri, kind, chunk_shape=(4, 16, 16))
    method = "mode" if kind == "labels" else "mean"
    for levels in (2, 3):  # the second time they are replaced
        assert f"{levels} levels by {method} (1×2×2, 1×2×2" in good("downsample", uri, "--levels", levels)
    want = array
    for number, factor in enumerate([(1, 2, 2), (1, 2, 2), (2, 2, 2)], 1):
        # windows of precomputed begin at multiples of the factor, in the coordinates that `info` gives
        lead = [[0, 0, 1], [0, 1, 0], [0, 0, 0]][number - 1] if scheme == "precomputed://" else [0, 0, 0]
        want = windows(want, factor, method, lead)
        np.testing.assert_array_equal(raw(tmp_path, scheme, number), want)
    np.testing.assert_array_equal(load(uri), array)


def windows(array: np.ndarray, factor: tuple[int, ...], method: str, lead: list[int]) -> np.ndarray:
    """Downsample; the first window lacks `lead` voxels."""
    if not any(lead):
        return slow(array, factor, method)
    out = np.empty([-(-(n + a) // f) for n, a, f in zip(array.shape, lead, factor)], array.dtype)
    for place in np.ndindex(*out.shape):
        span = [(max(0, k * f - a), (k + 1) * f - a) for k, f, a in zip(place, factor, lead)]
        window = array[tuple(slice(*one) for one in span)]
        out[place] = slow(window, window.shape, method).item()
    return out


def raw(folder: Path, scheme: str, number: int) -> np.ndarray:
    """Read a level with the library alone."""
    if scheme == "precomputed://":
        spec = {"driver": "neuroglancer_precomputed", "scale_index": number}
        store = ts.open({**spec, "kvstore": f"file://{folder}/v/"}).result()
        return store[..., 0].read().result().T
    return np.asarray(zarr.open_group(f"{folder}/v.zarr", mode="r")[str(number)][:])


def test_zarr_python_finds_levels_where_they_are_named(tmp_path: Path) -> None:
    uri = f"{tmp_path}/v.zarr"
    volume(uri, "labels")
    good("downsample", uri, "--levels", "3")
    ome = zarr.open_group(uri, mode="r").attrs["ome"]
    image = ome["multiscales"][0]
    assert [one["path"] for one in image["datasets"]] == ["0", "1", "2", "3"]
    places = [[step[step["type"]] for step in one["coordinateTransformations"]] for one in image["datasets"]]
    assert places[1] == [[40, 16, 16], [80, 20, 12]]  # the middle of two voxels of 8 nm is 4 nm on
    assert places[3] == [[80, 64, 64], [100, 44, 36]]
    with open_volume(f"{uri}/2") as level:
        assert level.metadata.voxel_size == (40, 32, 32)
    with open_volume(uri) as whole:
        assert whole.shape == SHAPE


def test_precomputed_scales_are_those_of_info(tmp_path: Path) -> None:
    uri = f"precomputed://{tmp_path}/v"
    volume(uri, "labels")
    good("downsample", uri, "--levels", "2")
    scales = json.loads((tmp_path / "v" / "info").read_text())["scales"]
    assert [one["resolution"] for one in scales] == [[8, 8, 40], [16, 16, 40], [32, 32, 40]]
    assert {one["encoding"] for one in scales} == {"compressed_segmentation"}
    assert [one["voxel_offset"] for one in scales] == [[1, 2, 2], [0, 1, 2], [0, 0, 2]]


def test_refusals(tmp_path: Path) -> None:
    uris = [f"{tmp_path}/v.h5:a", f"{tmp_path}/v.tif", f"n5://{tmp_path}/v.n5", f"{tmp_path}/c.zarr/name"]
    for uri in uris:
        store(uri, np.zeros((2, 3, 4), np.uint8), kind="image")
    with untouched(tmp_path):
        for uri in uris:
            assert "levels are for x.zarr and precomputed://" in sentence("downsample", uri)
        assert "does not exist" in sentence("downsample", f"{tmp_path}/none.zarr")
    small = store(f"{tmp_path}/small.zarr", np.zeros((2, 3, 4), np.uint8), kind="image")
    assert "0 levels" in good("downsample", small)
