"""`neuropil export`: other tools read what was exported; their own readers are asked where they are installed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from small import good, sentence, store, untouched

from neuropil.geometry import Box, grid
from neuropil.segmentation.linkage import cut, merge_tree
from neuropil.segmentation.meshes import Mesh, block_meshes, region_of
from neuropil.segmentation.region_graph import Edges
from neuropil.segmentation.survey import Survey
from neuropil.stages.export_meshes import default_stride

SIZE, OFFSET = (30.0, 6.0, 8.0), (60.0, 12.0, 16.0)
BIG = 2**40 + 7


@pytest.fixture
def labels() -> np.ndarray:
    """A ball, a slab that fills corners, and one voxel."""
    z, y, x = np.indices((9, 20, 24))
    ids = np.zeros(z.shape, np.uint64)
    ids[(z - 4) ** 2 + ((y - 9) / 2) ** 2 + ((x - 10) / 2) ** 2 <= 9] = BIG
    ids[:, :4, :5] = 3
    ids[8, 19, 23] = 9
    return ids


@pytest.fixture
def stored(tmp_path: Path, labels: np.ndarray) -> str:
    return store(f"{tmp_path}/ids.zarr", labels, kind="labels", voxel_size=SIZE, offset=OFFSET)


def read_mesh(folder: Path, one: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices x, y, z in nm and triangles of a legacy mesh."""
    (name,) = json.loads((folder / "mesh" / f"{one}:0").read_text())["fragments"]
    data = (folder / "mesh" / name).read_bytes()
    n = int(np.frombuffer(data[:4], "<u4")[0])
    vertices = np.frombuffer(data[4 : 4 + 12 * n], "<f4").reshape(-1, 3)
    return vertices, np.frombuffer(data[4 + 12 * n :], "<u4").reshape(-1, 3)


def volume_of(vertices: np.ndarray, triangles: np.ndarray) -> float:
    """Volume inside a closed surface, positive if triangles turn left seen from outside."""
    a, b, c = vertices[triangles].astype(float).transpose(1, 0, 2)
    return float((a * np.cross(b, c)).sum() / 6)


def is_closed(triangles: np.ndarray) -> bool:
    edges = Counter((a, b) for t in triangles.tolist() for a, b in zip(t, [*t[1:], t[0]]))
    return all(edges[b, a] == n for (a, b), n in edges.items())


def all_meshes(labels: np.ndarray, block: tuple[int, ...]) -> dict[int, Mesh]:
    whole, pieces = Box.of_shape(labels.shape), {}
    for box in grid(whole, block):
        region = region_of(box, whole)
        padded = np.pad(labels, 1)[region.shift((1, 1, 1)).slices]
        for one, mesh in block_meshes(padded, region):
            pieces.setdefault(one, []).append(mesh)
    return {one: Mesh.united(some) for one, some in pieces.items()}


def triangles_of(mesh: Mesh) -> Counter:
    """The triangles as places, each from its smallest corner on."""
    found = Counter()
    for corners in mesh.corners[mesh.triangles].tolist():
        start = corners.index(min(corners))
        found[tuple(map(tuple, corners[start:] + corners[:start]))] += 1
    return found


@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 5)] * 3))
@settings(max_examples=15)
def test_surfaces_of_blocks_are_those_of_the_whole(seed: int, block: tuple[int, int, int]) -> None:
    labels = np.random.default_rng(seed).integers(0, 3, (4, 5, 6))
    whole, blocks = all_meshes(labels, labels.shape), all_meshes(labels, block)
    assert set(whole) == set(blocks) == set(np.unique(labels)) - {0}
    for one, mesh in whole.items():
        assert triangles_of(mesh) == triangles_of(blocks[one])
        assert is_closed(blocks[one].triangles)


def test_precomputed_with_meshes_and_properties(tmp_path: Path, stored: str, labels: np.ndarray) -> None:
    out = tmp_path / "ng"
    good("export", stored, out, "--block", "4,8,9", "--mesh-dust", 2, "--mesh-stride", "1,1,1")
    info = json.loads((out / "info").read_text())
    assert (info["mesh"], info["segment_properties"], info["type"]) == ("mesh", "segment_properties", "segmentation")
    assert json.loads((out / "mesh/info").read_text())["@type"] == "neuroglancer_legacy_mesh"
    told = json.loads((out / "segment_properties/info").read_text())["inline"]
    assert told["ids"] == ["3", "9", str(BIG)]
    voxels = {p["id"]: p["values"] for p in told["properties"]}["voxels"]
    assert voxels == [int((labels == one).sum()) for one in (3, 9, BIG)]
    assert not (out / "mesh" / "9:0").exists()
    for one in (3, BIG):
        vertices, triangles = read_mesh(out, one)
        assert is_closed(triangles)
        exact = (labels == one).sum() * np.prod(SIZE)
        assert 0.75 * exact < volume_of(vertices, triangles) < exact  # corners are cut off
        places = np.argwhere(labels == one)[:, ::-1]
        start = np.array(OFFSET)[::-1]
        low, high = start + places.min(0) * SIZE[::-1], start + (places.max(0) + 1) * SIZE[::-1]
        np.testing.assert_allclose(vertices.min(0), low, atol=1e-3)
        np.testing.assert_allclose(vertices.max(0), high, atol=1e-3)
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def test_a_stride_makes_meshes_coarser_in_place(tmp_path: Path, stored: str, labels: np.ndarray) -> None:
    assert default_stride(SIZE) == (1, 4, 3)
    good("export", stored, tmp_path / "ng", "--mesh-stride", "1,2,2")
    vertices, triangles = read_mesh(tmp_path / "ng", BIG)
    middle = np.array(OFFSET)[::-1] + (np.argwhere(labels == BIG)[:, ::-1].mean(0) + 0.5) * SIZE[::-1]
    np.testing.assert_allclose(vertices.mean(0), middle, atol=6)
    assert is_closed(triangles)


def test_cloud_volume_reads_the_precomputed(tmp_path: Path, stored: str, labels: np.ndarray) -> None:
    cloudvolume = pytest.importorskip("cloudvolume", exc_type=ImportError)
    out = tmp_path / "ng"
    good("export", stored, out, "--mesh-stride", "1,1,1")
    volume = cloudvolume.CloudVolume(f"file://{out}", progress=False)
    np.testing.assert_array_equal(np.asarray(volume[:])[..., 0].T, labels)
    assert volume.resolution.tolist() == list(SIZE[::-1])
    mesh = volume.mesh.get(BIG)
    mesh = mesh[BIG] if isinstance(mesh, dict) else mesh
    vertices, triangles = read_mesh(out, BIG)
    assert volume_of(mesh.vertices, mesh.faces) == pytest.approx(volume_of(vertices, triangles), rel=1e-4)
    np.testing.assert_allclose(mesh.vertices.min(0), vertices.min(0))


@pytest.fixture
def image(tmp_path: Path, labels: np.ndarray) -> Path:
    store(f"{tmp_path}/image.zarr", np.ones(labels.shape, np.uint8), kind="image", voxel_size=SIZE, offset=OFFSET)
    return tmp_path / "image.zarr"


def test_labels_of_an_ome_zarr_image(stored: str, labels: np.ndarray, image: Path) -> None:
    good("export", stored, image, "--to", "ome-zarr", "--name", "neurons")
    good("export", stored, image, "--to", "ome-zarr", "--name", "again")
    assert zarr.open_group(image / "labels", mode="r").attrs["ome"]["labels"] == ["again", "neurons"]
    group = zarr.open_group(image / "labels/neurons", mode="r")
    np.testing.assert_array_equal(group["0"][:], labels)
    ome = group.attrs["ome"]
    assert ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] == list(SIZE)
    about = ome["image-label"]
    assert about["source"] == {"image": "../../"}
    assert [one["label-value"] for one in about["colors"]] == [3, 9, BIG]
    with untouched(image):
        assert "--overwrite" in sentence("export", stored, image, "--to", "ome-zarr", "--name", "neurons")
    good("export", stored, image, "--to", "ome-zarr", "--name", "neurons", "--overwrite")
    assert good("info", image)


def test_ome_zarr_reads_the_labels(stored: str, labels: np.ndarray, image: Path) -> None:
    pytest.importorskip("ome_zarr", exc_type=ImportError)
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    good("export", stored, image, "--to", "ome-zarr", "--name", "neurons")
    nodes = list(Reader(parse_url(image))())
    found = [node for node in nodes if "labels/neurons" in str(node.zarr)]
    assert found, [str(node.zarr) for node in nodes]
    np.testing.assert_array_equal(np.asarray(found[0].data[0]), labels)


@pytest.fixture
def fragments(tmp_path: Path) -> tuple[str, np.ndarray, object]:
    rng = np.random.default_rng(0)
    ids = ndimage.zoom(rng.permutation(27).reshape(3, 3, 3) + 1, (2, 5, 5), order=0).astype(np.uint64)
    u, v = rng.integers(1, 28, (2, 60))
    tree = merge_tree(Edges.of(u, v, rng.random(60)), 27)
    np.savez(tmp_path / "f.zarr.tree.npz", u=tree.u, v=tree.v, affinity=tree.affinity)
    return store(f"{tmp_path}/f.zarr", ids, kind="labels", voxel_size=SIZE), ids, tree


def test_webknossos_agglomerates(tmp_path: Path, fragments: tuple) -> None:
    uri, ids, tree = fragments
    out = tmp_path / "agglomerates" / "view"
    good("export", uri, out, "--to", "webknossos", "--merge-threshold", 0.6, "--block", "4,7,8")
    group = zarr.open_group(out, mode="r")
    assert group.attrs["voxelytics"] == {"artifact_schema_version": 4, "artifact_class": "AgglomerateViewArtifact"}
    one = {name: group[name][:] for name in group.array_keys()}
    lookup = one["segment_to_agglomerate"]
    np.testing.assert_array_equal(lookup, cut(tree, 0.6))
    starts, ends = one["agglomerate_to_segments_offsets"], one["agglomerate_to_edges_offsets"]
    assert starts[0] == starts[1] == ends[0] == ends[1] == 0
    assert len(starts) == len(ends) == lookup.max() + 2
    edges = set()
    for k in range(1, int(lookup.max()) + 1):
        inside = one["agglomerate_to_segments"][starts[k] : starts[k + 1]]
        assert inside.tolist() == np.flatnonzero(lookup == k).tolist()
        pairs = one["agglomerate_to_edges"][ends[k] : ends[k + 1]].tolist()
        assert pairs == sorted(pairs)
        assert all(a < b for a, b in pairs)
        scores = one["agglomerate_to_affinities"][ends[k] : ends[k + 1]]
        edges |= {(int(inside[a]), int(inside[b]), float(s)) for (a, b), s in zip(pairs, scores)}
    kept = tree.affinity >= np.float32(0.6)
    assert edges == set(zip(tree.u[kept].tolist(), tree.v[kept].tolist(), tree.affinity[kept].tolist()))
    x, y, z = one["agglomerate_to_positions"].T
    np.testing.assert_array_equal(ids[z, y, x], one["agglomerate_to_segments"])


def test_webknossos_reads_the_agglomerates(tmp_path: Path, fragments: tuple) -> None:
    pytest.importorskip("webknossos", exc_type=ImportError)
    from webknossos.dataset.layer.segmentation_layer.attachments import agglomerate_attachment as theirs

    uri, _, tree = fragments
    out = tmp_path / "agglomerates" / "view"
    good("export", uri, out, "--to", "webknossos", "--merge-threshold", 0.6)
    kind = theirs.AttachmentDataFormat.Zarr3
    graph = theirs.AgglomerateAttachment.from_path_and_name(out, "view", data_format=kind).to_graph()
    assert sorted(graph.nodes) == list(range(1, 28))
    kept = tree.affinity >= np.float32(0.6)
    wanted = {frozenset(pair) for pair in zip(tree.u[kept].tolist(), tree.v[kept].tolist())}
    assert {frozenset(pair) for pair in graph.edges} == wanted


def test_bad_inputs(tmp_path: Path, stored: str, image: Path, fragments: tuple) -> None:
    uri, ids, _ = fragments
    plain = store(f"{tmp_path}/plain.h5:ids", ids, kind="labels")
    real = store(f"{tmp_path}/real.h5:map", np.zeros((2, 3, 4), np.float32))
    with untouched(tmp_path):
        assert "does not tell its voxel size" in sentence("export", plain, tmp_path / "o")
        assert "must hold integer labels" in sentence("export", real, tmp_path / "o")
        assert "needs merge_threshold" in sentence("export", uri, tmp_path / "o", "--to", "webknossos")
        high = ["--to", "webknossos", "--merge-threshold", 1.5]
        assert "'merge_threshold' in [export]" in sentence("export", uri, tmp_path / "o", *high)
        words = ("--to", "webknossos", "--merge-threshold", "0.5", "--quiet")
        assert "must hold fragments 1 to 3" in sentence("export", stored, tmp_path / "o", *words)
        assert "must be a merge tree" in sentence("export", plain, tmp_path / "o", *words)
        assert "OME-Zarr 0.5 image" in sentence("export", stored, tmp_path / "o", "--to", "ome-zarr")
        assert "extent of the image" in sentence("export", uri, image, "--to", "ome-zarr")
        assert "exists" in sentence("export", stored, image)
        assert "three positive" in sentence("export", stored, tmp_path / "o", "--block", "0,1,1")


def test_surveys_of_blocks_are_that_of_the_whole(labels: np.ndarray) -> None:
    whole = Survey.of(labels)
    parts = Survey.united(
        [Survey.of(labels[box.slices], box.start) for box in grid(Box.of_shape(labels.shape), (3, 7, 5))]
    )
    for name in ("ids", "voxels", "low", "high"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    for found in (whole, parts):
        np.testing.assert_array_equal(labels[tuple(found.place.T)], found.ids)
    assert Survey.of(np.zeros((2, 2, 2), int)).ids.size == 0
