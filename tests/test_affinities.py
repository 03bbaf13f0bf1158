"""Affinities describe themselves: from labels, through every move, convention and disk, to the segmentation again."""

from __future__ import annotations

import json
import tempfile

import cc3d
import h5py
import numpy as np
import pytest
import reference_affinities as slow
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from small import store
from strategies import labels as any_labels
from strategies import read_only, shapes

from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.labels import contingency
from neuropil.metrics.information import variation_of_information
from neuropil.segmentation.affinities import LONG_RANGE, NEAREST, Affinities, affinities_from_labels
from neuropil.segmentation.affinity_conventions import CONVENTIONS, Tool, from_convention, to_convention
from neuropil.segmentation.affinity_moves import crop, flip, known_values, transpose, with_offsets
from neuropil.segmentation.decoding import METHODS, Decoder, Method, decode
from neuropil.segmentation.watershed import watershed
from neuropil.stages.affinities import read_affinities, write_affinities
from neuropil.volume import open_volume

OFFSETS = [*NEAREST, (1, 0, 0), (0, 1, 1), (-2, 0, 3), (0, -3, 0), (9, 0, 0)]
offset_lists = st.lists(st.sampled_from(OFFSETS), min_size=1, unique=True)
PLACE = {"voxel_size": (40.0, 4.0, 4.0), "offset": (0.0, 8.0, 0.0)}


@given(any_labels(), offset_lists, st.randoms(use_true_random=False))
def test_from_labels_is_its_slow_twin(labels: np.ndarray, offsets: list, random) -> None:  # type: ignore[no-untyped-def]
    unlabelled = read_only(np.array([random.random() < 0.2 for _ in range(labels.size)], bool).reshape(labels.shape))
    made = affinities_from_labels(labels, offsets, unlabelled=unlabelled)
    for fast, twin in zip(made, slow.affinities_from_labels(labels, offsets, unlabelled)):
        np.testing.assert_array_equal(fast, twin)
    affinities, mask = affinities_from_labels(labels, offsets)
    np.testing.assert_array_equal(mask, Affinities(affinities, tuple(offsets)).known)


def test_standard_offsets() -> None:
    assert LONG_RANGE[:3] == NEAREST
    lengths = {axis: sorted(-offset[axis] for offset in LONG_RANGE if offset[axis]) for axis in range(3)}
    assert lengths == {0: [1, 2, 3, 4], 1: [1, 3, 9, 27], 2: [1, 3, 9, 27]}


@st.composite
def described(draw: st.DrawFn) -> Affinities:
    """Random values with random offsets."""
    offsets = draw(offset_lists)
    shape = (len(offsets), *draw(shapes))
    values = draw(hnp.arrays(np.uint8, shape))
    mask = draw(st.none() | hnp.arrays(np.bool_, shape))
    return Affinities(values, tuple(offsets), mask)


def together(affinities: Affinities) -> np.ndarray:
    """A code for every link's value and mask."""
    mask = np.ones(affinities.values.shape, bool) if affinities.mask is None else affinities.mask
    return affinities.values + np.int64(1000) * mask


@given(described(), st.sets(st.integers(0, 2)), st.permutations(range(3)))
def test_moves_keep_every_link(a: Affinities, axes: set[int], order: list[int]) -> None:
    """The same pairs of voxels, in their new places, have the same values."""
    index = np.arange(np.prod(a.shape)).reshape(a.shape)
    for moved, places in (
        (flip(a, list(axes)), np.flip(index, tuple(axes))),
        (transpose(a, order), index.transpose(order)),
    ):

        def home(pair, places=places):  # type: ignore[no-untyped-def]
            return frozenset(np.unravel_index(places[v], a.shape) for v in pair)

        links = {home(pair): value for pair, value in slow.links(together(moved), moved.offsets).items()}
        assert links == slow.links(together(a), a.offsets)


@given(described(), st.data())
def test_crop_keeps_the_links_inside(a: Affinities, data: st.DataObject) -> None:
    start = tuple(data.draw(st.integers(0, n - 1)) for n in a.shape)
    stop = tuple(data.draw(st.integers(b + 1, n)) for b, n in zip(start, a.shape))
    part = crop(a, Box(start, stop))
    whole = slow.links(together(a), a.offsets)
    for pair, value in slow.links(together(part), part.offsets).items():
        assert whole[frozenset(tuple(i + b for i, b in zip(v, start)) for v in pair)] == value
    assert not part.values[~Affinities(part.values, part.offsets).known].any()


@given(described(), st.lists(st.booleans(), min_size=len(OFFSETS), max_size=len(OFFSETS)))
def test_the_storage_end_moves_without_loss(a: Affinities, turned: list[bool]) -> None:
    a = Affinities(a.values, tuple(o for o in a.offsets), a.mask)
    wanted = [tuple(-d for d in o) if turn else o for o, turn in zip(a.offsets, turned)]
    if len({frozenset((o, tuple(-d for d in o))) for o in a.offsets}) < len(a.offsets):
        return  # a link and its opposite: two values for one pair of voxels
    moved = with_offsets(a, wanted[::-1])
    assert slow.links(together(moved), moved.offsets) == slow.links(together(a), a.offsets)
    back = with_offsets(moved, a.offsets)
    assert (back.values == np.where(Affinities(a.values, a.offsets).known, a.values, 0)).all() or moved is a


@st.composite
def objects(draw: st.DrawFn) -> np.ndarray:
    """Labels without objects of one voxel, which no link shows."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)))
    small = draw(hnp.arrays(np.uint64, shape, elements=st.sampled_from([0, 1, 2, 2**40, 2**64 - 1])))
    return read_only(small.repeat(2, axis=draw(st.integers(0, 2))))


def pieces_of(labels: np.ndarray) -> np.ndarray:
    """Return the 6-connected pieces of every label, 0 for background."""
    dense = np.unique(labels, return_inverse=True)[1].reshape(labels.shape) + (labels.min() > 0)
    return cc3d.connected_components(dense, connectivity=6)


def assert_decodes(affinities: Affinities, labels: np.ndarray) -> None:
    """Decode, and compare with the 6-connected pieces of the labels."""
    truth = pieces_of(labels)
    found = watershed(known_values(with_offsets(affinities, NEAREST)), low=0.5, high=0.9)
    np.testing.assert_array_equal(found == 0, truth == 0)
    if truth.any():
        assert variation_of_information(contingency(found, truth)).total == 0


@pytest.mark.parametrize("tool", list(CONVENTIONS))
@settings(max_examples=12, deadline=None)
@given(objects(), st.booleans(), st.sets(st.integers(0, 2)), st.permutations(range(3)))
@example(np.array([[[1, 1, 0, 2, 2, 3]]], np.uint64).repeat(2, axis=1), True, {2}, [2, 1, 0])
def test_perfect_affinities_survive_everything(
    tool: Tool, labels: np.ndarray, as_bytes: bool, axes: set[int], order: list[int]
) -> None:
    """The oracle: converter, flip, rotation, crop, disk and decoder, one after the other, give VI = 0."""
    targets = affinities_from_labels(labels, LONG_RANGE)
    values = (targets.affinities * 255).astype(np.uint8) if as_bytes else targets.affinities
    a = Affinities(values, LONG_RANGE, targets.mask)
    assert_decodes(a, labels)
    theirs = to_convention(a, tool, offsets=NEAREST if CONVENTIONS[tool].listed is None else None)
    assert theirs.dtype == values.dtype
    b = from_convention(theirs, tool, offsets=NEAREST if CONVENTIONS[tool].listed is None else None)
    assert_decodes(b, labels)
    c = flip(b, list(axes))
    moved = np.flip(labels, tuple(axes))
    assert_decodes(c, moved)
    c, moved = transpose(c, order), moved.transpose(order)
    assert_decodes(c, moved)
    c, moved = flip(transpose(c, (0, 2, 1)), [2]), np.rot90(moved, -1, (1, 2))
    assert_decodes(c, moved)
    for axis in range(3):  # cut off a part that is even along the doubled axis
        stop = list(moved.shape)
        stop[axis] = max(2, stop[axis] // 4 * 2) if stop[axis] > 2 else stop[axis]
        box = Box((0, 0, 0), tuple(stop))
        part = np.ascontiguousarray(moved[box.slices])
        if not _has_lone_voxels(part):
            assert_decodes(crop(c, box), part)
    with tempfile.TemporaryDirectory() as folder:
        write_affinities(f"{folder}/a.h5:affinities", c, place=PLACE, overwrite=False)
        with open_volume(f"{folder}/a.h5:affinities") as volume:
            assert_decodes(read_affinities(volume), moved)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=20, deadline=None)
@given(objects(), st.sets(st.integers(0, 2)))
def test_every_method_decodes_perfect_affinities(method: Method, labels: np.ndarray, axes: set[int]) -> None:
    offsets = (*NEAREST, (0, 0, 3), (0, -2, 1))
    moved = flip(Affinities(affinities_from_labels(labels, offsets).affinities, offsets), list(axes))
    truth = pieces_of(np.flip(labels, tuple(axes)))
    threshold = None if method == "mutex" else 0.5
    found = decode(moved, Decoder(method, low=0.1, size=0, dust=0, merge_threshold=threshold)).segmentation
    np.testing.assert_array_equal(found == 0, truth == 0)
    if truth.any():
        assert variation_of_information(contingency(found, truth)).total == 0


def _has_lone_voxels(labels: np.ndarray) -> bool:
    return bool((np.bincount(pieces_of(labels).ravel())[1:] == 1).any())


@pytest.mark.parametrize("uri", ["a.h5:x/affs", "a.zarr", "a.zarr/affs", "a.tif", "a.n5/affs", "precomputed://{}/a"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_disk_keeps_everything(tmp_path, uri: str, dtype: type) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (4, 3, 5, 6), np.uint8) if dtype == np.uint8 else rng.random((4, 3, 5, 6), np.float32)
    a = Affinities(values, (*NEAREST, (0, 3, -1)), rng.random(values.shape) < 0.7)
    uri = uri.format(tmp_path) if "{" in uri else f"{tmp_path}/{uri}"
    write_affinities(uri, a, place=PLACE, overwrite=False)
    with open_volume(uri) as volume:
        said = volume.metadata
        b = read_affinities(volume)
    assert (said.kind, said.one_means, said.voxel_size) == ("affinities", "same", (40, 4, 4))
    assert said.scale == (1 / 255 if dtype == np.uint8 else None)
    assert b.offsets == a.offsets
    np.testing.assert_array_equal(b.known, a.known)
    np.testing.assert_array_equal(b.values, np.where(Affinities(values, a.offsets).known, a.values, 0))
    assert b.values.dtype == dtype


def test_readers_refuse_what_does_not_fit(tmp_path) -> None:  # type: ignore[no-untyped-def]
    values = np.zeros((3, 2, 4, 5), np.float32)
    odd = values.copy()
    odd[1, 1, 1, 1] = np.nan
    facts = {"kind": "affinities", "offsets": NEAREST}
    masked = Affinities(values, NEAREST, np.ones(values.shape, bool))
    write_affinities(f"{tmp_path}/m.h5:a", masked, place=PLACE, overwrite=False)
    store(f"{tmp_path}/m.h5:wide", np.ones((3, 2, 4, 6), np.uint8))
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        said = json.loads(file["a"].attrs["neuropil"])
        file["wider"], file["few"] = values, values
        file["wider"].attrs["neuropil"] = json.dumps(said | {"mask": "wide"})
        file["few"].attrs["neuropil"] = json.dumps(said | {"offsets": NEAREST[:2]})
    for uri, words in [
        (store(f"{tmp_path}/v.h5:silent", values), "does not say which voxels its 3 channels link; record it with"),
        (
            store(f"{tmp_path}/v.h5:map", values[0], kind="boundary"),
            "must hold affinities .c, z, y, x.; it is boundary",
        ),
        (store(f"{tmp_path}/v.h5:nan", odd, **facts), "v.h5:nan: affinities must lie in .0, 1. without NaN"),
        (
            store(f"{tmp_path}/v.h5:big", values + 2, **facts),
            "v.h5:big: affinities must lie in .0, 1. without NaN; got 0",
        ),
        (
            store(f"{tmp_path}/v.h5:ids", values.astype(np.uint64), **facts),
            "must be floats in .0, 1. or uint8; got uint64",
        ),
        (f"{tmp_path}/m.h5:wider", "wide must have the shape of its affinities, .3, 2, 4, 5.; got .3, 2, 4, 6"),
        (f"{tmp_path}/m.h5:few", "has 3 channels but offsets for 2"),
    ]:
        with open_volume(uri) as volume, pytest.raises(InputError, match=words):
            read_affinities(volume)


def test_flip_of_a_prediction_shifts_by_one_voxel() -> None:
    """A network that sees a mirrored image predicts mirrored links: turned back they are where they were."""
    labels = np.array([[[1, 1, 1, 2, 2]]])
    straight = Affinities(affinities_from_labels(labels).affinities)
    seen = Affinities(affinities_from_labels(labels[:, :, ::-1]).affinities)
    back = with_offsets(flip(seen, [2]), NEAREST)
    np.testing.assert_array_equal(back.values, straight.values)
    assert (np.flip(seen.values, 3) != straight.values).any()


BAD = [
    (lambda: affinities_from_labels(np.zeros((2, 2))), r"labels must be integers \(z, y, x\); got float64 of shape"),
    (lambda: affinities_from_labels(np.full((1, 1, 2), -1)), "unlabelled voxels are given as unlabelled; got -1"),
    (lambda: affinities_from_labels(np.ones((1, 1, 2), int), [1, 0, 0]), "offsets must list one"),
    (lambda: affinities_from_labels(np.ones((1, 1, 2), int), [(0, 0, 0)]), "must differ from each other and from"),
    (lambda: affinities_from_labels(np.ones((1, 1, 2), int), NEAREST * 2), "must differ from each other"),
    (lambda: affinities_from_labels(np.ones((1, 1, 2), int), unlabelled=[[[0, 1]]]), "unlabelled must be bool"),
    (lambda: Affinities(np.zeros((2, 1, 1, 1), np.uint8)), r"shape \(3, z, y, x\), one channel per offset; got \(2,"),
    (lambda: Affinities(np.full((3, 1, 1, 1), np.nan)), "must lie in .0, 1. without NaN; got nan"),
    (lambda: Affinities(np.full((3, 1, 1, 1), 2.0)), "must lie in"),
    (lambda: Affinities(np.zeros((3, 1, 1, 1), int)), "must be floats in .0, 1. or uint8; got int64"),
    (lambda: Affinities(np.zeros((3, 1, 1, 1), np.uint8), mask=np.zeros((1, 1, 1), bool)), "mask must be bool of the"),
    (lambda: flip(Affinities(np.zeros((3, 1, 1, 1))), [3]), "axes must be different ones of 0"),
    (lambda: transpose(Affinities(np.zeros((3, 1, 1, 1))), [0, 0, 1]), "order must be a permutation"),
    (lambda: crop(Affinities(np.zeros((3, 1, 1, 1))), Box((0, 0, 0), (2, 1, 1))), "box must lie inside"),
    (lambda: with_offsets(Affinities(np.zeros((3, 1, 1, 1))), [(0, 0, 2)]), r"no links \(0, 0, 2\) or \(0, 0, -2\)"),
    (lambda: from_convention(np.zeros((3, 1, 1, 1)), "watrez"), "tool must be one of waterz, gunpowder"),
    (lambda: from_convention(np.zeros((3, 1, 1, 1)), "affogato"), "affogato has no usual offsets; give offsets"),
    (lambda: from_convention(np.zeros((5, 1, 1, 1)), "deepem"), "5 channels and 12 offsets are usual with deepem"),
    (lambda: from_convention(np.zeros((1, 1, 1, 1)), "volara", offsets=NEAREST), "1 channels and 3 offsets are given"),
    (lambda: from_convention(np.zeros((3, 1, 1)), "waterz"), "must have four axes"),
    (lambda: from_convention(np.zeros((3, 1, 1, 1), int), "affogato", offsets=NEAREST), "floats in .0, 1. or uint8"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), BAD, ids=range(len(BAD)))
def test_bad_input_is_one_sentence(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=words):
        call()


def test_waterz_reads_what_we_write_for_it() -> None:
    """A peer as oracle: its fragments on our array are the objects, and voxels stored at the other end are not."""
    waterz = pytest.importorskip("waterz")
    labels = np.zeros((4, 6, 6), np.uint64)
    labels[:, :, :3], labels[:, 1:, 3:] = 1, 2
    affinities = Affinities(affinities_from_labels(labels, [(0, 0, 1), (0, 1, 0), (1, 0, 0)]).affinities,
                            ((0, 0, 1), (0, 1, 0), (1, 0, 0)))  # fmt: skip
    found = next(iter(waterz.agglomerate(np.ascontiguousarray(to_convention(affinities, "waterz")), [0.5])))
    np.testing.assert_array_equal(found == 0, labels == 0)
    assert variation_of_information(contingency(found, labels)).total == 0


def test_bioimage_cpp_has_the_convention_of_the_table() -> None:
    bic = pytest.importorskip("bioimage_cpp")
    labels = np.random.default_rng(0).integers(1, 4, (3, 5, 6)).astype(np.uint64)
    offsets = [(-1, 0, 0), (0, 2, -1)]
    theirs, valid = bic.affinities.compute_affinities(labels, offsets)
    ours = from_convention(np.asarray(theirs, np.float32), "bioimage-cpp", offsets=offsets)
    made = affinities_from_labels(labels, offsets)
    np.testing.assert_array_equal(np.where(ours.known, ours.values, 0), made.affinities)
    np.testing.assert_array_equal(np.asarray(valid, bool), made.mask)
