"""`neuropil crowd` and `neuropil fuse`: files in, files out, and one sentence for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small import OFFSET, VOXEL_SIZE, good, load, sentence, store, untouched

from neuropil.crowd.annotations import fuse_annotations
from neuropil.crowd.annotators import Slips, imitate_annotator
from neuropil.crowd.fusion import fuse_votes
from neuropil.stages.crowd_tables import read_votes
from neuropil.volume import open_volume
from neuropil.volume.tables import read_table, write_table


@pytest.fixture
def votes(tmp_path: Path) -> Path:
    good("crowd", "--simulate", 40, "--output", tmp_path / "votes.csv")
    return tmp_path / "votes.csv"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_simulated_votes_are_fused_and_scored(tmp_path: Path, suffix: str) -> None:
    table, segments = tmp_path / f"votes{suffix}", tmp_path / f"votes.segments{suffix}"
    good("crowd", "--simulate", 40, "--output", table)
    output = tmp_path / f"consensus{suffix}"
    told = good("crowd", table, "--segments", segments, "--output", output, "--most", 3, "--json", tmp_path / "s.json")
    scores = json.loads((tmp_path / "s.json").read_text())
    assert scores == json.loads((tmp_path / "consensus.json").read_text())
    ours, majority = (scores["scores"][name]["voxels"]["error"] for name in ("dawid_skene", "majority"))
    assert ours < majority
    assert "dawid_skene, folds of segments" in scores["scores"]
    assert "dawid_skene" in told
    assert len(scores["cost"]["dawid_skene"]["f"]) == 3
    assert scores["notes"] == []
    consensus, given = read_table(output), read_votes(table, segments)
    expected = fuse_votes(given.votes)
    np.testing.assert_array_equal(consensus["probability"], expected.probability)
    np.testing.assert_array_equal(consensus["selected"], expected.selected)
    assert set(consensus["votes"].tolist()) == {5}
    users = read_table(tmp_path / "consensus.users.csv")
    assert users["user"][0].startswith("player")
    np.testing.assert_array_equal(users["weight"], expected.weights)
    assert set(np.unique(users["tier"])) == {0.1, 1.0}
    page = (tmp_path / "consensus.html").read_text()
    assert page.count("<svg viewBox") == 2
    assert "Calibration" in page


def test_without_labels(tmp_path: Path, votes: Path) -> None:
    told = good("crowd", votes, "--output", tmp_path / "c.csv")
    assert "no labels" in told
    assert json.loads((tmp_path / "c.json").read_text())["scores"] == {}
    assert "Nothing was scored" in (tmp_path / "c.html").read_text()


def test_labels_made_of_the_votes_are_flagged(tmp_path: Path) -> None:
    good("crowd", "--simulate", 100, "--output", tmp_path / "votes.csv")
    segments = tmp_path / "votes.segments.csv"
    named = read_votes(tmp_path / "votes.csv", segments)
    table = read_table(segments)
    majority = dict(zip(named.segments.tolist(), fuse_votes(named.votes, "majority").selected.astype(int).tolist()))
    table["label"] = np.array([majority[str(one)] for one in table["segment"].tolist()])
    write_table(segments, table)
    told = good("crowd", tmp_path / "votes.csv", "--segments", segments, "--output", tmp_path / "c.csv", "--most", 1)
    assert "labels look as if they were made of these votes" in told


def test_seeds_super_users_and_repeated_votes(tmp_path: Path) -> None:
    """Seeds are always selected and teach nothing; super-users have no say; the last vote counts, by its time."""
    (tmp_path / "v.csv").write_text(
        "user,task,segment,vote,timestamp\n"
        "ann,t,1,1,5\nann,t,1,0,3\nbob,t,1,1,1\ngrim,t,1,0,9\n"
        "ann,t,2,0,1\nann,u,1,0,1\nbob,u,1,0,1\n"
    )
    (tmp_path / "s.csv").write_text("segment,task,size,label,seed\n1,t,10,-1,0\n2,t,20,1,1\n1,u,30,-1,0\n3,u,5,-1,0\n")
    arguments = ("crowd", tmp_path / "v.csv", "--segments", tmp_path / "s.csv", "--output", tmp_path / "c.csv")
    good(*arguments, "--method", "majority", "--super-users", "grim")
    table = read_table(tmp_path / "c.csv")
    assert list(zip(table["task"].tolist(), table["segment"].tolist())) == [("t", 1), ("t", 2), ("u", 1), ("u", 3)]
    assert table["selected"].tolist() == [1, 1, 0, 0]
    assert table["votes"].tolist() == [2, 0, 2, 0]
    assert table["probability"].tolist()[:3] == [1.0, 1.0, 0.0]
    assert np.isnan(table["probability"][3])
    users = read_table(tmp_path / "c.users.csv")
    assert users["user"].tolist() == ["ann", "bob", "grim"]
    assert np.isnan(users["tier"][2])
    assert users["votes"].tolist() == [2, 2, 0]


def test_bad_requests_leave_nothing(tmp_path: Path, votes: Path) -> None:
    segments, output = votes.with_suffix(".segments.csv"), tmp_path / "c.csv"
    (tmp_path / "few.csv").write_text("user,task,segment\n1,2,3\n")
    (tmp_path / "half.csv").write_text("user,task,segment,vote\n1,0,0,0.5\n")
    (tmp_path / "two.csv").write_text("user,task,segment,vote\n1,0,0,2\n")
    (tmp_path / "twice.csv").write_text("segment,task\n0,0\n0,0\n")
    (tmp_path / "other.csv").write_text("segment,task\n77,0\n")
    (tmp_path / "label.csv").write_text("segment,task,label\n" + "".join(f"{i},{i // 20},3\n" for i in range(800)))
    with untouched(tmp_path):
        for words, message in (
            (("--output", output), "needs either a table of votes or --simulate"),
            ((tmp_path / "few.csv", "--output", output), "must have the columns"),
            ((tmp_path / "half.csv", "--output", output), "column vote of"),
            ((tmp_path / "two.csv", "--output", output), "values must be 0 or 1"),
            ((votes, "--segments", tmp_path / "twice.csv", "--output", output), "comes 2 times"),
            ((votes, "--segments", tmp_path / "other.csv", "--output", output), "every vote's segment must be in"),
            ((votes, "--segments", tmp_path / "label.csv", "--output", output), "must be 1, 0 or -1"),
            ((votes, "--segments", segments, "--output", votes, "--overwrite"), "is an input"),
            ((votes, "--output", segments), "exists; give --overwrite"),
            ((votes, "--output", tmp_path / "no" / "c.csv"), "must lie in a folder that exists"),
            ((votes, "--output", output, "--method", "logistic"), "votes must have truth"),
            ((votes, "--output", output, "--method", "loudest"), "method"),
            ((votes, "--output", output, "--super-users", "zoe"), "must be among the users"),
            ((tmp_path / "absent.csv", "--output", output), "there is no table"),
        ):
            assert message in sentence("crowd", *words), words


def _annotations(folder: Path) -> tuple[list[np.ndarray], list[str]]:
    truth = np.kron(np.arange(1, 13).reshape(1, 3, 4), np.ones((4, 12, 12), int)).astype(np.uint64)
    rng = np.random.default_rng(0)
    arrays = [imitate_annotator(truth, Slips(0.1, 0.2, 0.7), rng=rng) for _ in range(3)]
    facts = {"kind": "labels", "voxel_size": VOXEL_SIZE, "offset": OFFSET}
    uris = [store(f"{folder / 'all.h5'}:{name}", one, **facts) for name, one in zip("abc", arrays)]
    return arrays, uris


def test_annotations_are_fused(tmp_path: Path) -> None:
    arrays, uris = _annotations(tmp_path)
    places = {name: f"{tmp_path / 'fused.zarr'}/{name}" for name in ("labels", "confidence", "mask")}
    told = good(
        "fuse", "--annotations", ",".join(uris), "--output", places["labels"], "--confidence", places["confidence"],
        "--mask", places["mask"], "--json", tmp_path / "s.json",
    )  # fmt: skip
    expected = fuse_annotations(arrays)
    np.testing.assert_array_equal(load(places["labels"]), expected.labels)
    np.testing.assert_array_equal(load(places["confidence"]), expected.confidence)
    np.testing.assert_array_equal(load(places["mask"]), expected.mask())
    with open_volume(places["labels"]) as volume:
        assert volume.metadata.voxel_size == VOXEL_SIZE
        assert volume.metadata.kind == "labels"
    data = json.loads((tmp_path / "s.json").read_text())
    assert [one["uri"] for one in data["annotators"]] == uris
    assert data["confident"] == pytest.approx(expected.mask().mean())
    assert "segments" in told


def test_bad_annotations_leave_nothing(tmp_path: Path) -> None:
    _, uris = _annotations(tmp_path)
    store(f"{tmp_path / 'other.h5'}:x", np.ones((2, 3, 4), np.uint64), kind="labels")
    store(f"{tmp_path / 'image.h5'}:x", np.ones((4, 36, 48), np.float32), kind="image")
    output = tmp_path / "f.h5:x"
    with untouched(tmp_path):
        for annotations, more, message in (
            (uris[:1], (), "at least two"),
            ([*uris, f"{tmp_path / 'other.h5'}:x"], (), "must have the shape of"),
            ([*uris, f"{tmp_path / 'image.h5'}:x"], (), "must hold integer labels"),
            (uris, ("--weights", "1,2"), "weights must be positive numbers, one per annotator (3)"),
            (uris, ("--mask", output), "is the place of another output"),
            (uris, ("--mask", uris[1], "--overwrite"), "is the input itself"),
        ):
            assert message in sentence(
                "fuse", "--annotations", ",".join(annotations), "--output", output, "--quiet", *more
            )
