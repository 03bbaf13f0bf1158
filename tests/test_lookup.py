"""Labels at points and inside masks, block by block, equal the whole; volumes without margin, thinned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import store

from neuropil.errors import InputError
from neuropil.labels import contingency
from neuropil.volume import open_volume
from neuropil.volume.base import VolumeBase
from neuropil.volume.lookup import labels_at, overlap_with_mask
from neuropil.volume.thinned import ThinnedVolume

SIZE, OFFSET = (30.0, 6.0, 5.0), (300.0, -12.0, 40.0)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, np.ndarray]:
    array = np.random.default_rng(0).integers(0, 2**63, (7, 20, 23), np.uint64) * np.uint64(2)
    folder = tmp_path_factory.mktemp("labels")
    facts = {"voxel_size": SIZE, "offset": OFFSET, "kind": "labels", "chunk_shape": (3, 8, 8)}
    return store(f"{folder}/ids.zarr", array, **facts), array


@given(st.integers(0, 2**32 - 1), st.sampled_from([None, (3, 8, 8), (1, 1, 1), (100, 7, 5)]))
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_blocks_say_what_the_whole_says(labels, seed, block_shape):
    uri, array = labels
    rng = np.random.default_rng(seed)
    points = rng.uniform(-2, 1, (60, 3)) * SIZE + OFFSET + rng.integers(0, 24, (60, 3)) * SIZE
    with open_volume(uri) as volume:
        found = labels_at(volume, points, block_shape=block_shape)
    for point, label in zip(points, found):
        voxel = np.round((point - OFFSET) / SIZE).astype(int)  # ties do not occur among random points
        inside = ((voxel >= 0) & (voxel < array.shape)).all()
        assert label == (array[tuple(voxel)] if inside else 0)


def test_each_block_with_points_is_read_once(labels, monkeypatch):
    uri, _ = labels
    boxes = []
    read = VolumeBase.read
    monkeypatch.setattr(VolumeBase, "read", lambda self, box=None: boxes.append(box) or read(self, box))
    points = np.array([[0, 0, 0], [0, 7, 7], [6, 19, 22], [0, 1, 1], [60, 0, 0]]) * SIZE + OFFSET
    with open_volume(uri) as volume:
        labels_at(volume, points, block_shape=(3, 8, 8))
    assert [(box.start, box.stop) for box in boxes] == [((0, 0, 0), (1, 8, 8)), ((6, 19, 22), (7, 20, 23))]


def test_overlap_with_a_mask(labels, tmp_path: Path, monkeypatch):
    array = labels[1]
    mask = np.random.default_rng(1).integers(0, 3, array.shape).astype(np.uint8)
    few = store(tmp_path / "few.zarr", array % 9, chunk_shape=(3, 8, 8))
    monkeypatch.setattr("neuropil.volume.copying._BLOCK_BYTES", 1000)
    with open_volume(few) as volume, open_volume(store(tmp_path / "m.tif", mask)) as beside:
        found = overlap_with_mask(volume, beside)
        whole = contingency(array % 9, mask, mask > 0)
        for name in ("proposal_ids", "truth_ids", "rows", "columns", "counts"):
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
        with pytest.raises(InputError, match="must have the shape of the segmentation"):
            overlap_with_mask(volume, ThinnedVolume(beside, margin=(1, 0, 0)))


@pytest.mark.parametrize(("margin", "stride"), [((0, 0, 0), (1, 1, 1)), ((1, 2, 3), (2, 3, 4)), ((3, 0, 0), (1, 1, 9))])
def test_thinned(labels, monkeypatch, margin, stride):
    monkeypatch.setattr("neuropil.volume.thinned._BLOCK", 100)
    uri, array = labels
    inner = array[tuple(slice(m, n - m) for m, n in zip(margin, array.shape))]
    with open_volume(uri) as volume:
        thinned = ThinnedVolume(volume, margin=margin, stride=stride)
        np.testing.assert_array_equal(thinned.read(), inner[tuple(slice(None, None, k) for k in stride)])
        assert thinned.metadata.voxel_size == tuple(np.multiply(SIZE, stride))
        first = thinned.metadata.offset
        assert labels_at(volume, [first])[0] == labels_at(thinned, [first])[0] == inner[0, 0, 0]


def test_refusals(labels, tmp_path: Path):
    with open_volume(labels[0]) as volume:
        with pytest.raises(InputError, match=r"margin must be >= 0 and leave voxels of .*; got \(4, 0, 0\)"):
            ThinnedVolume(volume, margin=(4, 0, 0))
        with pytest.raises(InputError, match="stride must be at least 1"):
            ThinnedVolume(volume, stride=(1, 0, 1))
        with pytest.raises(InputError, match=r"points_nm must have shape \(n, 3\); got \(3,\)"):
            labels_at(volume, [1, 2, 3])
    floats = store(tmp_path / "f.h5:f", np.zeros((2, 2, 2), np.float32))
    with open_volume(floats) as volume, pytest.raises(InputError, match="must hold integers"):
        labels_at(volume, [[0, 0, 0]])
    with open_volume(store(tmp_path / "i.h5:i", np.zeros((2, 2, 2), np.uint8))) as volume:
        with pytest.raises(InputError, match="does not tell its voxel size; give --voxel-size"):
            labels_at(volume, [[0, 0, 0]])
        assert labels_at(ThinnedVolume(volume, voxel_size=(1, 1, 1)), np.empty((0, 3))).size == 0
