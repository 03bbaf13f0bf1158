"""Synthetic tissue: its truth must be true, whatever the size and anisotropy."""

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.morphology import skeletonize

from neuropil.errors import InputError, OutputExists
from neuropil.stages import synthetic as stage
from neuropil.synthetic import boundary_map_from_truth, make_tissue
from neuropil.synthetic.defects import DEFECTS
from neuropil.volume import open_volume

VOXEL_SIZES = [(50.0, 4.0, 4.0), (30.0, 6.0, 6.0), (10.0, 10.0, 10.0), (40.0, 4.0, 8.0)]
few = settings(max_examples=15, deadline=None)


@pytest.fixture(scope="module")
def tissue():
    return make_tissue((8, 256, 250), rng=np.random.default_rng(4))


def tissues():
    return st.builds(
        lambda seed, shape, size, carved: make_tissue(
            shape, rng=np.random.default_rng(seed), voxel_size=size, membrane=carved
        ),
        st.integers(0, 2**31),
        st.tuples(st.integers(1, 6), st.integers(1, 70), st.integers(1, 70)),
        st.sampled_from(VOXEL_SIZES),
        st.booleans(),
    )


@few
@given(tissues())
def test_every_id_is_one_6_connected_piece(tissue):
    pieces = cc3d.connected_components(tissue.ids, connectivity=6)
    assert len(np.unique(pieces[pieces > 0])) == len(np.unique(tissue.ids[tissue.ids > 0]))


@few
@given(tissues())
def test_arrays_agree_in_shape_and_type(tissue):
    arrays = (tissue.image, tissue.ids, tissue.membrane, tissue.mitochondria, tissue.defects)
    assert [a.dtype.name for a in arrays] == ["uint8", "uint64", "bool", "bool", "bool"]
    assert len({a.shape for a in arrays}) == 1
    assert not (tissue.mitochondria & tissue.membrane).any()
    ids = np.unique(tissue.ids)
    assert ids.max() <= len(ids)  # dense


@few
@given(st.integers(0, 2**31), st.sampled_from(VOXEL_SIZES), st.integers(1, 60), st.integers(1, 60))
def test_membranes_separate_ids_within_a_section(seed, voxel_size, height, width):
    tissue = make_tissue((3, height, width), rng=np.random.default_rng(seed), voxel_size=voxel_size)
    assert np.array_equal(tissue.membrane, tissue.ids == 0)
    for axis in (1, 2):
        a = np.moveaxis(tissue.ids, axis, 0)
        assert not ((a[1:] != a[:-1]) & (a[1:] > 0) & (a[:-1] > 0)).any()


def test_touching_ids_extend_the_carved_ones():
    carved = make_tissue((4, 120, 110), rng=np.random.default_rng(7))
    touching = make_tissue((4, 120, 110), rng=np.random.default_rng(7), membrane=False)
    assert np.array_equal(carved.image, touching.image)
    assert np.array_equal(carved.membrane, touching.membrane)
    inside = carved.ids > 0
    assert np.array_equal(carved.ids[inside], touching.ids[inside])
    assert (touching.ids > 0).mean() > 0.98
    assert (touching.ids[:, 1:] != touching.ids[:, :-1]).any()


def test_same_seed_same_tissue_other_seed_another():
    make = [make_tissue((2, 40, 50), rng=np.random.default_rng(s), defects=["crack"]) for s in (1, 1, 2)]
    for name in ("image", "ids", "membrane", "mitochondria", "defects"):
        assert np.array_equal(getattr(make[0], name), getattr(make[1], name))
    assert not np.array_equal(make[0].image, make[2].image)


@pytest.mark.parametrize("voxel", [4.0, 8.0])
@pytest.mark.parametrize("width_nm", [20.0, 30.0, 40.0])
def test_membrane_width_is_in_nm(voxel, width_nm):
    side = int(1200 / voxel)
    tissue = make_tissue(
        (2, side, side), rng=np.random.default_rng(3), voxel_size=(50, voxel, voxel), membrane_nm=width_nm
    )
    middle = np.stack([skeletonize(s) for s in tissue.membrane])
    depth = np.stack([ndimage.distance_transform_edt(s) for s in tissue.membrane]) * voxel
    # A line n voxels wide has depth (n + 1) / 2 in its middle if n is odd, n / 2 if it is even.
    assert 2 * depth[middle].mean() - voxel / 2 == pytest.approx(width_nm, abs=6)


def test_it_looks_like_serial_sections(tissue):
    image, inside = tissue.image, ~tissue.membrane & ~tissue.mitochondria
    assert image.min() < 40
    assert image.max() > 215
    assert ((image == 0) | (image == 255)).mean() < 0.02
    assert 0.12 < tissue.membrane.mean() < 0.32
    assert 0.02 < tissue.mitochondria.mean() < 0.12
    assert image[inside].mean() - image[tissue.membrane].mean() > 35
    assert abs(float(image[tissue.mitochondria].mean()) - float(image[tissue.membrane].mean())) < 30
    means = image.mean(axis=(1, 2))
    assert means.std() > 1.5  # every section has its own brightness


def test_neurites_are_thin_and_thick_and_run_through(tissue):
    sizes = np.bincount(tissue.ids[3].ravel().astype(int))[1:]
    sizes = sizes[sizes > 0]
    assert sizes.min() < 400 < 2500 < sizes.max()  # voxels of 4 nm
    sections = [np.unique(s[s > 0]) for s in tissue.ids]
    through = set(sections[0]) & set(sections[-1])
    assert len(through) >= 5
    # A neurite that branches shows several profiles in some section.
    profiles = [ndimage.label(tissue.ids[3] == i)[1] for i in sections[3]]
    assert max(profiles) > 1


def test_a_plain_threshold_is_bad_and_context_helps(tissue):
    smooth = ndimage.gaussian_filter(tissue.image.astype(float), (0, 1.5, 1.5))
    best = max(_f1(smooth < t, tissue.membrane) for t in range(30, 200, 5))
    assert best < 0.75
    assert best > 0.45  # but membranes can be seen


def _f1(guess, truth):
    return 2 * (guess & truth).sum() / (guess.sum() + truth.sum())


def test_sections_are_shifted_with_their_truth():
    still = make_tissue((6, 100, 100), rng=np.random.default_rng(5), jitter_nm=0)
    assert still.ids.shape == (6, 100, 100)
    moved = make_tissue((6, 100, 100), rng=np.random.default_rng(5), jitter_nm=40)
    for tissue in (still, moved):
        dark = tissue.image[tissue.membrane].mean()
        assert tissue.image[~tissue.membrane].mean() - dark > 25


@pytest.mark.parametrize("name", ["missing", "crack", "fold", "stain", "blur"])
def test_defects_spoil_the_image_only_where_the_mask_says(name):
    clean = make_tissue((3, 150, 140), rng=np.random.default_rng(6))
    spoilt = make_tissue((3, 150, 140), rng=np.random.default_rng(6), defects=[name])
    assert np.array_equal(clean.ids, spoilt.ids)
    sections = np.flatnonzero(spoilt.defects.any(axis=(1, 2)))
    assert len(sections) == 1
    changed = np.abs(clean.image.astype(int) - spoilt.image) > 20
    assert changed.any()
    assert not (changed & ~spoilt.defects).any()
    assert not clean.defects.any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shape": (3, 4)}, "shape must be 3"),
        ({"shape": (3, 0, 4)}, "shape must be 3"),
        ({"voxel_size": (50, 4, 0)}, "voxel_size must be 3 positive"),
        ({"membrane_nm": -1}, "membrane_nm must be a positive"),
        ({"jitter_nm": float("nan")}, "jitter_nm must be"),
        ({"defects": ["hole"]}, "defects must be"),
        ({"defects": "crack"}, "defects must be a list"),
    ],
)
def test_bad_arguments_give_one_sentence(arguments, words):
    with pytest.raises(InputError, match=words):
        make_tissue(**{"shape": (1, 8, 8), "rng": np.random.default_rng(0), **arguments})


def test_boundary_map_is_imperfect_but_useful(tissue):
    ids = tissue.ids.copy()
    ids.flags.writeable = False
    boundary = boundary_map_from_truth(ids, rng=np.random.default_rng(0))
    assert boundary.dtype == np.float32
    assert boundary.min() >= 0
    assert boundary.max() <= 1
    found = _f1(boundary > 0.5, tissue.membrane)
    assert 0.8 < found < 0.99
    assert (boundary[tissue.membrane] < 0.2).mean() > 0.005  # gaps
    assert (boundary[tissue.ids > 0] > 0.6).mean() > 0.0005  # false boundaries
    again = boundary_map_from_truth(ids, rng=np.random.default_rng(0))
    assert np.array_equal(boundary, again)


def test_boundary_map_between_touching_ids_is_one_voxel_wide():
    ids = np.ones((2, 5, 8), np.uint64)
    ids[..., 4:] = 2**50
    clean = boundary_map_from_truth(ids, rng=np.random.default_rng(0), blur=0, gaps=0, false_boundaries=0, noise=0)
    assert np.array_equal(np.flatnonzero(clean[0, 0]), [3])
    with pytest.raises(InputError, match="ids must be"):
        boundary_map_from_truth(np.zeros((2, 2)), rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="gaps must be"):
        boundary_map_from_truth(ids, rng=np.random.default_rng(0), gaps=2)


@pytest.mark.parametrize("output", ["tissue.h5", "tissue.zarr"])
def test_stage_writes_image_and_truth(tmp_path, output):
    target = str(tmp_path / output)
    config = stage.Config(output=target, shape=(2, 40, 50), seed=3, voxel_size=(40, 8, 8), defects=True)
    result = stage.run(config)
    truth = make_tissue((2, 40, 50), rng=np.random.default_rng(3), voxel_size=(40, 8, 8), defects=DEFECTS)
    for name, array in (("raw", truth.image), ("labels", truth.ids), ("defects", truth.defects)):
        with open_volume(result.data["outputs"][name]) as volume:
            assert np.array_equal(volume.read(), array)
            assert volume.metadata.voxel_size == (40, 8, 8)
    with pytest.raises(OutputExists, match="--overwrite"):
        stage.run(config)
    assert stage.run(config.model_copy(update={"overwrite": True})).data == result.data


def test_stage_refuses_a_dataset_name(tmp_path):
    with pytest.raises(InputError, match="output must name a file"):
        stage.run(stage.Config(output=str(tmp_path / "tissue.h5:raw"), shape=(1, 8, 8)))


def test_larger_voxels_make_small_tissue_with_many_neurites():
    tissue = make_tissue((8, 64, 64), rng=np.random.default_rng(0), voxel_size=(50, 16, 16))
    assert len(np.unique(tissue.ids)) > 20
