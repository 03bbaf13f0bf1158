"""Skeletons in files: SWC that another reader takes, npz, em_erl's graph; refusals with the number of the line."""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.sparse import dok_matrix
from test_skeleton_cleanup import skeletons

from neuropil.errors import InputError, OutputExists, VolumeError, VolumeNotFound
from neuropil.skeletons.cleanup import remove_loops
from neuropil.skeletons.skeleton import Skeleton
from neuropil.skeletons.swc import from_swc, to_swc
from neuropil.volume.skeleton_files import read_skeletons, write_skeletons

FORK = Skeleton.of(
    [[0, 0, 0], [0, 0, 4000], [0, 3000, 8000], [5000, 0, 4000]],
    [[0, 1], [2, 1], [1, 3]],
    [900, 100, 50, 60],
    [0, 3, 3, 3],
)


def same(one: Skeleton, other: Skeleton) -> None:
    """The same vertices at the same places with the same links, in whatever order."""
    place = [np.lexsort(s.vertices_nm.T) for s in (one, other)]
    for name in ("vertices_nm", "radii_nm", "kinds"):
        np.testing.assert_allclose(getattr(one, name)[place[0]], getattr(other, name)[place[1]], atol=1e-5)
    ranks = [np.argsort(p) for p in place]
    links = [{tuple(sorted(r[edge].tolist())) for edge in s.edges} for r, s in zip(ranks, (one, other))]
    assert links[0] == links[1]


@given(skeletons(loops=False))
@settings(deadline=None)
def test_swc_keeps_everything(skeleton):
    text = to_swc(skeleton)
    same(from_swc(text), skeleton)
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    assert all(int(row[6]) < int(row[0]) for row in rows)
    assert sum(row[6] == "-1" for row in rows) == skeleton.components()[0]


def test_another_program_reads_it(tmp_path: Path):
    morphio = pytest.importorskip("morphio")
    write_skeletons(tmp_path / "out", {5: FORK}, voxel_size=(40, 4, 4))
    text = (tmp_path / "out" / "5.swc").read_text()
    assert text.startswith("# unit: um\n# voxel_size z y x nm: 40.0 4.0 4.0\n")
    rooted = Skeleton(FORK.vertices_nm, FORK.edges, FORK.radii_nm, np.array([1, 3, 3, 3], np.uint8))
    write_skeletons(tmp_path / "soma", {5: rooted})
    read = morphio.Morphology(str(tmp_path / "soma" / "5.swc"))
    np.testing.assert_allclose(read.soma.points, [[0, 0, 0]])
    np.testing.assert_allclose(read.soma.diameters, [1.8])
    points = {tuple(point) for section in read.iter() for point in section.points.round(4).tolist()}
    assert {(4.0, 0.0, 0.0), (8.0, 3.0, 0.0), (4.0, 0.0, 5.0)} <= points
    assert all(section.type == morphio.SectionType.basal_dendrite for section in read.iter())


def test_foreign_swc():
    text = "# by hand\n# Units: nm\n 3 2 8,0,0 1 2 # end\n1 1 0 0 0 5 -1\n2 2 4 0 0 1 1\n9 0 1 1 1 0 -1\n"
    found = from_swc(text)
    assert found.vertices_nm[0].tolist() == [0, 0, 8]
    assert found.components()[0] == 2
    assert found.length_nm == 8
    assert from_swc(text, unit_nm=1000).length_nm == 8000
    assert from_swc("1 0 1 2 3 1 -1").vertices_nm.tolist() == [[3000, 2000, 1000]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 1 0 0 0 5 -1\n\n2 2 4 0 0 1", "x.swc, line 3: must be seven numbers, .*; got '2 2 4 0 0 1'"),
        ("1 1 a 0 0 5 -1", "line 1: must be seven numbers"),
        ("1.5 1 0 0 0 5 -1", "line 1: must be seven numbers"),
        ("1 1 0 0 nan 5 -1", "line 1: must be seven numbers"),
        ("1 1 0 0 0 5 -1\n1 1 0 0 0 5 -1", "line 2: id 1 is there twice"),
        ("1 1 0 0 0 5 7", "line 1: vertex 1 is without its parent, 7"),
        ("1 1 0 0 0 5 1", "line 1: vertex 1 is its own parent"),
        ("1 1 0 0 0 5 2\n2 1 0 0 1 5 1", "parents of some vertices go in a circle"),
    ],
)
def test_swc_that_is_none(text, message):
    with pytest.raises(InputError, match=message):
        from_swc(text, name="x.swc")


def test_a_loop_is_not_written(tmp_path: Path):
    ring = Skeleton.of([[0, 0, 0], [0, 0, 3], [0, 4, 0]], [[0, 1], [1, 2], [2, 0]])
    with pytest.raises(InputError, match="without loops"):
        write_skeletons(tmp_path / "out", {1: ring})
    assert not (tmp_path / "out").exists()
    write_skeletons(tmp_path / "out", {1: remove_loops(ring)})
    write_skeletons(tmp_path / "ring.npz", {1: ring})
    same(read_skeletons(tmp_path / "ring.npz").skeletons[1], ring)


@pytest.mark.parametrize("name", ["all.npz", "folder"])
def test_files_keep_everything(tmp_path: Path, name: str):
    path, many = tmp_path / "new" / name, {2**60 + 1: FORK, 10: FORK, 9: Skeleton.of([[1, 2, 3]], [])}
    write_skeletons(path, many, voxel_size=(40, 4, 4))
    read = read_skeletons(path)
    assert list(read.skeletons) == [9, 10, 2**60 + 1]  # by number, not by name
    for one, skeleton in many.items():
        same(read.skeletons[one], skeleton)
    assert read.voxel_size == ((40, 4, 4) if name == "all.npz" else None)
    with pytest.raises(OutputExists, match="give --overwrite"):
        write_skeletons(path, many)
    write_skeletons(path, {3: FORK}, overwrite=True)
    assert list(read_skeletons(path).skeletons) == [3]


def test_the_graph_of_em_erl(tmp_path: Path):
    """As its save_npz writes it: ids, lengths, nodes (number, z, y, x), edges (u, v, length) per skeleton."""
    nodes = np.array([[0, 0, 0, 0], [0, 0, 30, 40], [1, 9, 9, 9], [1, 9, 9, 19], [1, 9, 9, 29]], np.uint32)
    edges = [np.array([[0, 1, 50]], np.float64), np.array([[2, 3, 10], [3, 4, 10]], np.float64)]
    np.savez_compressed(tmp_path / "gt.npz", np.array([70, 8]), np.array([50.0, 20.0]), nodes, *edges)
    read = read_skeletons(tmp_path / "gt.npz").skeletons
    assert {one: skeleton.length_nm for one, skeleton in read.items()} == {8: 20, 70: 50}
    assert read[8].vertices_nm.tolist() == [[9, 9, 9], [9, 9, 19], [9, 9, 29]]


def test_the_named_graph_of_em_erl(tmp_path: Path):
    """As newer versions keep it: flat arrays with names."""
    arrays = {
        "skeleton_id": [70, 8], "skeleton_len": [50.0, 20.0], "node_skeleton_index": [0, 0, 1, 1, 1],
        "node_coords_zyx": [[0, 0, 0], [0, 0, 50], [9, 9, 9], [9, 9, 19], [9, 9, 29]],
        "edge_u": [0, 2, 3], "edge_v": [1, 3, 4], "edge_len": [50.0, 10, 10], "edge_ptr": [0, 1, 3],
    }  # fmt: skip
    np.savez_compressed(tmp_path / "gt.npz", **{name: np.array(one) for name, one in arrays.items()})
    read = read_skeletons(tmp_path / "gt.npz").skeletons
    assert {one: skeleton.length_nm for one, skeleton in read.items()} == {8: 20, 70: 50}
    np.savez_compressed(tmp_path / "bad.npz", **{name: np.array(one) for name, one in arrays.items()} | {"edge_u": [0]})
    with pytest.raises(InputError, match="two ends each"):
        read_skeletons(tmp_path / "bad.npz")


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_a_group_per_skeleton(tmp_path: Path, kind: str):
    """Whole numbers are voxels, real ones nm; ids are numbers, however they sort as text."""
    path = tmp_path / "fifty.h5"
    with h5py.File(path, "w") as file:
        for one, step in ((10, 5), (9, 1), (100, 2)):
            file[f"{one}/vertices"] = np.array([[0, 0, 0], [0, 0, step], [step, 0, step]], kind)
            file[f"{one}/edges"] = np.array([[0, 1], [1, 2]], np.uint32)
    if kind == "uint16":
        with pytest.raises(InputError, match="whole numbers, so voxels, and tells no voxel size; give --voxel-size"):
            read_skeletons(path)
    found = read_skeletons(path, voxel_size=(20, 10, 10)).skeletons
    unit = (10 + 20) if kind == "uint16" else 2
    assert {one: skeleton.length_nm for one, skeleton in found.items()} == {9: unit, 10: 5 * unit, 100: 2 * unit}


def test_another_h5(tmp_path: Path):
    with h5py.File(tmp_path / "ids.h5", "w") as file:
        file["main"] = np.zeros((2, 2, 2))
    with pytest.raises(
        InputError, match=r"one group per skeleton, named by its id, with vertices and edges; .* 'main'"
    ):
        read_skeletons(tmp_path / "ids.h5")
    (tmp_path / "cut.h5").write_bytes(b"no HDF5")
    with pytest.raises(VolumeError, match=r"cannot read .*cut.h5"):
        read_skeletons(tmp_path / "cut.h5")


def axonem_pickle(monkeypatch, *objects: object) -> bytes:
    """Objects as AxonEM's program writes them: one pickle after the other, the graph of a class of its own."""
    module = types.ModuleType("networkx_lite")
    module.NetworkXGraphLite = type("NetworkXGraphLite", (), {"__module__": "networkx_lite"})
    monkeypatch.setitem(sys.modules, "networkx_lite", module)
    graph = module.NetworkXGraphLite()
    graph.node_attributes = ["skeleton_id", "x", "y", "z"]
    graph._nodes = np.array([[0, 40, 30, 0], [0, 0, 0, 0], [1, 9, 9, 9], [1, 19, 9, 9]], np.uint16)
    graph._edges = dok_matrix((4, 4), dtype=np.float32)
    graph._edges[0, 1] = graph._edges[2, 3] = -1
    return b"".join(pickle.dumps(one) for one in (graph, *objects))


def test_the_pickle_of_axonem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "axonM_gt_16nm_skel_stats.p"
    path.write_bytes(axonem_pickle(monkeypatch, np.array([30, 16, 16])))
    monkeypatch.delitem(sys.modules, "networkx_lite")  # nobody has it who reads
    read = read_skeletons(path)
    assert read.voxel_size == (30, 16, 16)
    assert {one: skeleton.length_nm for one, skeleton in read.skeletons.items()} == {0: 50, 1: 10}
    assert read.skeletons[0].vertices_nm.tolist() == [[0, 30, 40], [0, 0, 0]]


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_a_pickle_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "was_here"
    (tmp_path / "evil.p").write_bytes(axonem_pickle(monkeypatch, Evil(target)))
    with pytest.raises(InputError, match=r"can run code .* names "):
        read_skeletons(tmp_path / "evil.p")
    assert not target.exists()


def test_refusals(tmp_path: Path):
    with pytest.raises(VolumeNotFound, match="no file or folder"):
        read_skeletons(tmp_path / "none.npz")
    with pytest.raises(VolumeNotFound, match=r"holds no \.swc file"):
        read_skeletons(tmp_path)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([FORK.vertices_nm]))
    with pytest.raises(InputError, match=r"is a pickle, which can run code .* save its skeletons"):
        read_skeletons(tmp_path / "a.pkl")
    np.savez(tmp_path / "object.npz", skeletons=np.array([None]))
    with pytest.raises(VolumeError, match=r"cannot read .*object.npz"):
        read_skeletons(tmp_path / "object.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "object.npz").read_bytes()[:100])
    with pytest.raises(VolumeError, match=r"cannot read .*cut.npz"):
        read_skeletons(tmp_path / "cut.npz")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(InputError, match="it holds weights"):
        read_skeletons(tmp_path / "other.npz")
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "cell.swc").write_text(to_swc(FORK))
    with pytest.raises(InputError, match=r"named by their ids, such as 17\.swc; got cell\.swc"):
        read_skeletons(tmp_path / "named")
    same(read_skeletons(tmp_path / "named" / "cell.swc").skeletons[1], FORK)
    with pytest.raises(InputError, match="cannot tell the format"):
        read_skeletons(__file__)
    with pytest.raises(InputError, match=r"file.npz or a folder"):
        write_skeletons(tmp_path / "a.json", {1: FORK})
