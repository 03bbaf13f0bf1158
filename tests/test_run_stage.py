"""`neuropil run`: the segmentation of the whole volume, from blocks, whatever happens on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest
import zarr
from scipy import ndimage
from small import OFFSET, VOXEL_SIZE, command, good, load, sentence, store, untouched

from neuropil.blockwise import Outcome, SerialPool
from neuropil.geometry import Box
from neuropil.segmentation.affinities import NEAREST
from neuropil.stages import run_output
from neuropil.stages.fragment_graph import load_graph
from neuropil.stages.run_steps import Job
from neuropil.volume import copying, open_volume

SHAPE = (14, 40, 44)
HOW = ["--low", 0.2, "--high", 0.9, "--size", 20, "--size-threshold", 0.3, "--dust", 12, "--merge-threshold", 0.45]


@pytest.fixture
def affinities(tmp_path: Path) -> str:
    """Bytes of a smooth random field, stored at the lower end, with a long link besides."""
    rng = np.random.default_rng(0)
    field = np.stack([ndimage.gaussian_filter(rng.random(SHAPE), 1.2) for _ in range(4)])
    values = (255 * (field - field.min()) / np.ptp(field)).astype(np.uint8)
    offsets = ((0, 0, 9), (0, 0, 1), (0, 1, 0), (1, 0, 0))
    return store(
        f"{tmp_path}/a.zarr",
        values,
        kind="affinities",
        scale=1 / 255,
        offsets=offsets,
        voxel_size=VOXEL_SIZE,
        offset=OFFSET,
    )


@pytest.fixture
def whole(tmp_path: Path, affinities: str) -> np.ndarray:
    good("segment", "--input", affinities, "--output", f"{tmp_path}/whole.zarr", "--method", "mean", *HOW)
    labels = load(f"{tmp_path}/whole.zarr")
    assert len(np.unique(labels)) > 30
    return labels


@pytest.mark.parametrize("block", ["14,40,44", "7,20,22", "5,13,44", "14,8,44", "1,40,17", "64,512,512"])
def test_blocks_give_the_segmentation_of_the_whole(
    tmp_path: Path, affinities: str, whole: np.ndarray, block: str
) -> None:
    out = f"{tmp_path}/ids.zarr"
    good("run", "--input", affinities, "--output", out, *HOW, "--block", block, "--executor", "serial")
    np.testing.assert_array_equal(load(out), whole)
    with open_volume(out) as volume:
        assert (volume.metadata.voxel_size, volume.metadata.offset, volume.metadata.kind) == (
            VOXEL_SIZE,
            OFFSET,
            "labels",
        )
    np.testing.assert_array_equal(zarr.open(out, mode="r")["0"][:], whole)  # as another program reads it
    assert not (tmp_path / "ids.zarr.unfinished").exists()
    steps = json.loads((tmp_path / "ids.zarr.json").read_text())["steps"]
    assert steps["fragments"]["blocks"] == steps["segmentation"]["blocks"] == count_blocks(block)
    assert steps["linkage"]["peak_mb"] > 10


@pytest.mark.parametrize("block", ["14,40,44", "5,13,44"])
def test_fragments_and_their_graph_are_those_of_the_whole(tmp_path: Path, affinities: str, block: str) -> None:
    whole = ["--output", f"{tmp_path}/w.zarr", "--fragments", f"{tmp_path}/wf.zarr", "--method", "mean", *HOW]
    good("segment", "--input", affinities, *whole)
    words = ["run", "--input", affinities, "--output", f"{tmp_path}/r.zarr", *HOW, "--block", block]
    words += ["--executor", "serial", "--fragments", f"{tmp_path}/rf.zarr"]
    good(*words)
    np.testing.assert_array_equal(load(f"{tmp_path}/rf.zarr"), load(f"{tmp_path}/wf.zarr"))
    ours, theirs = (load_graph(f"{tmp_path}/{name}.zarr") for name in ("rf", "wf"))
    real = theirs.affinity > 0
    for name in ("u", "v", "affinity"):
        np.testing.assert_allclose(getattr(ours, name)[ours.affinity > 0], getattr(theirs, name)[real], rtol=1e-6)
    np.testing.assert_array_equal(ours.segments, theirs.segments)
    np.testing.assert_array_equal(ours.segments[load(f"{tmp_path}/rf.zarr").astype(int)], load(f"{tmp_path}/r.zarr"))
    with untouched(tmp_path):
        assert "rf.zarr exists" in sentence(*words, "--output", f"{tmp_path}/new.zarr")


@pytest.mark.parametrize("suffix", ["precomputed", "n5", "h5"])
def test_other_formats(tmp_path: Path, affinities: str, whole: np.ndarray, suffix: str) -> None:
    """Written straight into their place, where blocks are whole chunks; copied where one process has to write."""
    out = {"h5": f"{tmp_path}/ids.h5:ids"}.get(suffix, f"{suffix}://{tmp_path}/ids")
    good("run", "--input", affinities, "--output", out, *HOW, "--block", "7,20,22", "--executor", "serial")
    np.testing.assert_array_equal(load(out), whole)
    assert not list(tmp_path.glob("*unfinished*"))


def test_the_ledger_says_what_was_read(tmp_path: Path, affinities: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run", "--input", affinities, "--output", f"{tmp_path}/ids.zarr", *HOW, "--block", "7,20,22"]
    monkeypatch.setattr("neuropil.stages.run.write_json", Stopping.stop)
    assert command(*words, "--executor", "serial", "--quiet").code == 130
    lines = (tmp_path / "ids.zarr.unfinished" / "done.jsonl").read_text().splitlines()
    known = {(line["step"], *line["start"]): line["inputs"] for line in map(json.loads, lines)}
    assert known["fragments", 0, 20, 22] == {affinities: "0:9,18:40,20:44"}
    assert known["plateaus 1", 0, 0, 0] == {"plateaus": "0:14,0:40,0:44"}
    assert known["faces", 7, 0, 0]["sides"] == "0:14,0:20,0:22"
    assert known["segmentation", 7, 20, 22]["fragments"] == "7:14,20:40,22:44"
    assert all(known.values())


def count_blocks(block: str) -> int:
    return int(np.prod([-(-n // int(b)) for n, b in zip(SHAPE, block.split(","))]))


class Stopping(SerialPool):
    """Stops the run, as a user would, after some blocks."""

    left = 0

    @staticmethod
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def next(self) -> Outcome:
        if Stopping.left == 0:
            raise KeyboardInterrupt
        Stopping.left -= 1
        return super().next()


def test_floats_and_bytes_of_another_scale(tmp_path: Path, affinities: str) -> None:
    values = load(affinities)
    offsets = ((0, 0, 9), (0, 0, 1), (0, 1, 0), (1, 0, 0))
    told = {"kind": "affinities", "offsets": offsets}
    for name, array, scale in (("f", values / np.float32(255), None), ("b", values // 2, 1 / 127)):
        uri = store(f"{tmp_path}/{name}.zarr", array, **told, **({} if scale is None else {"scale": scale}))
        good("segment", "--input", uri, "--output", f"{tmp_path}/{name}1.zarr", "--method", "mean", *HOW)
        words = ["run", "--input", uri, "--output", f"{tmp_path}/{name}2.zarr", *HOW, "--block", "7,20,22"]
        good(*words, "--executor", "serial")
        np.testing.assert_array_equal(load(f"{tmp_path}/{name}1.zarr"), load(f"{tmp_path}/{name}2.zarr"))


@pytest.mark.parametrize("after", [0, 1, 9, 17, 35, 42])
def test_the_same_command_continues(
    tmp_path: Path, affinities: str, whole: np.ndarray, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["run", "--input", affinities, "--output", f"{tmp_path}/ids.zarr", *HOW, "--block", "7,20,22"]
    words += ["--executor", "serial"]
    with monkeypatch.context() as patch:
        Stopping.left = after
        patch.setattr("neuropil.stages.run.SerialPool", Stopping)
        assert command(*words, "--quiet").code == 130
    done = tmp_path / "ids.zarr.unfinished" / "done.jsonl"
    assert len(done.read_text().splitlines() if done.exists() else []) == after
    with untouched(tmp_path):
        assert "was made with block = [7, 20, 22], now [7, 20, 44]" in sentence(*words, "--block", "7,20,44")
        assert "was made with low = 0.2, now 0.1" in sentence(*words, "--low", 0.1)
    if after == 9:
        values = load(affinities)
        with open_volume(affinities, writable=True) as volume:
            volume.write(None, values)
        with untouched(tmp_path):
            assert "was made with contents of input = " in sentence(*words)
        words.append("--fresh")
    good(*words)
    np.testing.assert_array_equal(load(f"{tmp_path}/ids.zarr"), whole)


@pytest.mark.parametrize(
    ("form", "stopped"), [("zarr", "before"), ("zarr", "after"), ("zarr", "record"), ("h5", "before"), ("h5", "record")]
)
def test_stopped_while_it_is_handed_over(
    tmp_path: Path, affinities: str, whole: np.ndarray, monkeypatch: pytest.MonkeyPatch, form: str, stopped: str
) -> None:
    """What has its name already is known for the run's own; what was there before is still refused."""
    out = f"{tmp_path}/ids.zarr" if form == "zarr" else f"{tmp_path}/ids.h5:ids"
    words = ["run", "--input", affinities, "--output", out, *HOW, "--block", "14,20,44", "--executor", "serial"]
    words += ["--fragments", f"{tmp_path}/f.zarr"]
    real = run_output.publish if form == "zarr" else copying.publish

    def stop(*places: Any) -> None:
        if stopped == "after":
            real(*places)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if stopped == "record":
            patch.setattr("neuropil.stages.run.write_json", stop)
        else:
            patch.setattr(run_output if form == "zarr" else copying, "publish", stop)
        assert command(*words, "--quiet").code == 130
    assert (tmp_path / f"ids.{'zarr' if form == 'zarr' else 'h5.ids'}.unfinished").exists()
    if stopped == "record":
        assert "not finished" in command("verify", out).out
    store(f"{tmp_path}/mine.zarr", np.ones((2, 2, 2), np.uint64), kind="labels")
    assert "mine.zarr exists" in sentence(*words, "--output", f"{tmp_path}/mine.zarr")
    good(*words)
    np.testing.assert_array_equal(load(out), whole)
    assert load_graph(f"{tmp_path}/f.zarr").segments.size > 30
    assert not list(tmp_path.glob("*unfinished*"))
    assert command("verify", out).code == 0
    assert "exists; give --overwrite" in sentence(*words)


def test_one_run_at_a_time(tmp_path: Path, affinities: str, whole: np.ndarray) -> None:
    """A second run is refused while the first lives, and goes on with its work once it is killed."""
    out = f"{tmp_path}/ids.zarr"
    words = ["run", "--input", affinities, "--output", out, *HOW, "--block", "14,20,44", "--executor", "serial"]
    work = tmp_path / "ids.zarr.unfinished"
    first = subprocess.Popen([sys.executable, "-c", HOLDING, str(work / "lock.json")], stdout=subprocess.PIPE)
    assert first.stdout is not None
    first.stdout.readline()
    with untouched(tmp_path):
        said = sentence(*words)
    assert f"another run is at work on this output: process {first.pid} on " in said
    first.kill()
    first.communicate()
    good(*words)
    np.testing.assert_array_equal(load(out), whole)


HOLDING = """
import sys, time
from pathlib import Path
from neuropil.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(1000)
"""


def test_a_block_that_fails_is_named_and_tried_again(
    tmp_path: Path, affinities: str, whole: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["run", "--input", affinities, "--output", f"{tmp_path}/ids.zarr", *HOW, "--block", "7,20,22"]
    words += ["--executor", "serial"]
    real, calls = Job.file, []

    def broken(job: Job, step: str, box: Box) -> Path:
        if step == "faces" and box.start == (7, 0, 22) and len(calls) < 3:
            calls.append(box)
            raise OSError("no such disk")
        return real(job, step, box)

    monkeypatch.setattr(Job, "file", broken)
    done = command(*words, "--quiet")
    said = done.err
    assert done.code == 2
    assert "1 of 8 blocks of step 'faces' failed, first that from (7, 0, 22) to (14, 20, 44): no such disk" in said
    assert len(calls) == 3
    failed = [json.loads(line) for line in (tmp_path / "ids.zarr.unfinished" / "failed.jsonl").read_text().splitlines()]
    assert [(one["step"], one["start"]) for one in failed] == [("faces", [7, 0, 22])]
    assert "no such disk" in failed[0]["tail"]
    assert "It had read {'" in failed[0]["tail"]
    good(*words)
    np.testing.assert_array_equal(load(f"{tmp_path}/ids.zarr"), whole)


def test_workers_that_are_killed(tmp_path: Path, affinities: str, whole: np.ndarray) -> None:
    """Processes of a Dask cluster, one of which kills itself in the middle of a block, once."""
    out, flag = f"{tmp_path}/ids.zarr", tmp_path / "killed"
    job = [sys.executable, "-c", KILLING.format(flag=str(flag)), "run", "--input", affinities, "--output", out]
    job += [*map(str, HOW), "--block", "7,20,22", "--workers", "2"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    (tmp_path / "killer.py").write_text(KILLER.format(flag=str(flag)))
    done = subprocess.run(job, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    assert flag.exists()
    np.testing.assert_array_equal(load(out), whole)


KILLING = """
import sys
from killer import fragments
from neuropil.stages import run_steps
from neuropil.cli import main
if __name__ == "__main__":
    run_steps.fragments = fragments
    sys.exit(main(sys.argv[1:]))
"""
KILLER = """
import os, signal
from pathlib import Path
from neuropil.stages import run_steps
real = run_steps.fragments

def fragments(job, box):
    if box.start == (0, 20, 0) and not Path({flag!r}).exists():
        Path({flag!r}).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    real(job, box)
"""


def test_a_scheduler_that_is_not_there(
    tmp_path: Path, affinities: str, whole: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuropil.blockwise.PATIENCE", 1)
    words = ["run", "--input", affinities, "--output", f"{tmp_path}/ids.zarr", *HOW]
    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0", silence_logs=50) as cluster:
        said = sentence(*words, "--scheduler", cluster.scheduler_address)
        assert f"the cluster at {cluster.scheduler_address} has no workers" in said
        cluster.scale(1)
        good(*words, "--scheduler", cluster.scheduler_address)
    np.testing.assert_array_equal(load(f"{tmp_path}/ids.zarr"), whole)
    said = sentence(*words, "--overwrite", "--scheduler", "tcp://127.0.0.1:1")
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in said
    assert not list(tmp_path.glob("*.unfinished"))


def test_refusals_leave_nothing(tmp_path: Path, affinities: str) -> None:
    boundary = store(f"{tmp_path}/b.zarr", np.zeros((4, 5, 6), np.uint8), kind="boundary")
    labels = store(f"{tmp_path}/l.zarr", np.zeros((4, 5, 6), np.uint64), kind="labels")
    bare = store(f"{tmp_path}/bare.zarr", np.zeros((3, 4, 5, 6), np.uint8))
    scaleless = store(f"{tmp_path}/s.zarr", np.zeros((3, 4, 5, 6), np.uint8), kind="affinities", offsets=NEAREST)
    out = ["--output", f"{tmp_path}/ids.zarr"]
    with untouched(tmp_path):
        assert "holds bytes and says no scale" in sentence("run", "--input", scaleless, *out)
        assert "must be a boundary map" in sentence("run", "--input", labels, *out)
        assert "does not say which voxels" in sentence("run", "--input", bare, *out)
        assert "low and high" in sentence("run", "--input", affinities, *out, "--low", 0.9, "--high", 0.1)
        assert "block must be three positive extents" in sentence(
            "run", "--input", affinities, *out, "--block", "0,5,5"
        )
        assert "is the input itself" in sentence("run", "--input", affinities, "--output", affinities)
        assert "exists; give --overwrite" in sentence("run", "--input", affinities, "--output", boundary)
