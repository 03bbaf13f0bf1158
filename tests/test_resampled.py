"""A volume at another pixel size: means over windows that depend on nothing but a voxel's place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import store

from neuropil.geometry import Box
from neuropil.volume import open_volume
from neuropil.volume.resampled import ResampledVolume, pick, resample


def reference_line(old: np.ndarray, new: int) -> np.ndarray:
    """Means over windows of a line, as a sum over all old voxels; beyond the ends the last one goes on."""
    ratio = len(old) / new
    width, far = max(1.0, ratio), 2 * len(old)
    made = []
    for place in range(new):
        left = (place + 0.5) * ratio - width / 2
        total = 0.0
        for index in range(-far, far):
            overlap = min(left + width, index + 1) - max(left, index)
            total += max(0.0, overlap) * float(old[min(max(index, 0), len(old) - 1)])
        made.append(total / width)
    return np.array(made)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20), st.integers(1, 20), st.data())
def test_slow_twin_and_any_box(old_y: int, old_x: int, y: int, x: int, data: st.DataObject) -> None:
    old = np.random.default_rng(old_y + 10 * old_x).integers(0, 256, (2, old_y, old_x), dtype=np.uint8)
    whole = resample(lambda box: old[box.slices], old.shape, (2, y, x), Box.of_shape((2, y, x)))
    lines = np.stack([[reference_line(row, x) for row in section] for section in old])
    expected = np.stack([[reference_line(column, y) for column in section.T] for section in lines]).swapaxes(1, 2)
    np.testing.assert_allclose(whole, expected, atol=1e-3)
    start = [data.draw(st.integers(0, n - 1)) for n in (2, y, x)]
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, (2, y, x))]
    box = Box(tuple(start), tuple(stop))
    np.testing.assert_array_equal(resample(lambda b: old[b.slices], old.shape, (2, y, x), box), whole[box.slices])


def test_many_rows_are_read_in_strips() -> None:
    old, read = np.arange(700.0).reshape(1, 700, 1), []

    def source(box: Box) -> np.ndarray:
        read.append(box.shape[1])
        return old[box.slices]

    made = resample(source, old.shape, (1, 350, 1), Box.of_shape((1, 350, 1)))
    np.testing.assert_allclose(made[0, :, 0], np.arange(350) * 2 + 0.5)
    assert max(read) <= 2 * 256 + 2


def test_a_view_has_a_place_of_its_own(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 30, 41), dtype=np.uint8)
    uri = store(tmp_path / "s.h5:raw", image, voxel_size=(50, 4, 2), offset=(1, 2, 3), kind="image")
    with open_volume(uri) as volume:
        view = ResampledVolume(volume, (50, 4, 2), (50, 8, 1))
        assert (view.shape, view.dtype, view.uri) == ((3, 15, 82), np.float32, uri)
        assert view.metadata.voxel_size == (50, 8, 1)
        assert (view.metadata.offset, view.metadata.kind) == ((1, 2, 3), "image")
        assert view.read().mean() == pytest.approx(image.mean(), abs=1e-3)
        assert ResampledVolume(volume, (50, 4, 2), (50, 400, 2)).shape == (3, 1, 41)
        np.testing.assert_array_equal(ResampledVolume(volume, (50, 4, 2), (50, 4, 2)).read(), image)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20), st.integers(1, 20), st.data())
def test_picked_voxels_lie_under_the_centres_in_any_box(
    old_y: int, old_x: int, y: int, x: int, data: st.DataObject
) -> None:
    old = np.arange(2 * old_y * old_x).reshape(2, old_y, old_x)
    start = [data.draw(st.integers(0, n - 1)) for n in (2, y, x)]
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, (2, y, x))]
    box = Box(tuple(start), tuple(stop))  # type: ignore[arg-type]
    made = pick(lambda box: old[box.slices], old.shape, (2, y, x), box)
    for place in np.ndindex(*box.shape):
        z, j, i = (n + a for n, a in zip(place, start))
        assert made[place] == old[z, (2 * j + 1) * old_y // (2 * y), (2 * i + 1) * old_x // (2 * x)]
