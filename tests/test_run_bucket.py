"""`neuropil run` into a bucket: its work folder is beside the output there, and work goes on from there."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from buckets import Buckets, serving
from scipy import ndimage
from small import VOXEL_SIZE, Stopping, command, good, load, pair, process, sentence, stack, store

from neuropil.blockwise import Outcome, SerialPool
from neuropil.errors import BlockLost, VolumeError
from neuropil.files import SEGMENT, Lines, remove_folder, swap
from neuropil.geometry import Box
from neuropil.stages import plan_pipeline, run
from neuropil.tasks import Watch
from neuropil.volume import tensorstore_
from neuropil.volume.objects import ObjectPath

SHAPE = (14, 40, 44)
HOW = ["--low", 0.2, "--high", 0.9, "--size", 20, "--size-threshold", 0.3, "--dust", 12, "--merge-threshold", 0.45]
BLOCK = ["--block", "14,20,44"]
OUT = "s3://lab-data/deep/ids.zarr"
WORK = "lab-data/deep/ids.zarr.unfinished/"


@pytest.fixture(scope="module")
def server() -> Iterator[Buckets]:
    with serving() as server:
        yield server


@pytest.fixture
def bucket(server: Buckets, monkeypatch: pytest.MonkeyPatch) -> Iterator[Buckets]:
    told = {"ENDPOINT_URL": server.address, "REGION": "us-east-1", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}
    for name, value in told.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    server.objects.clear()
    tensorstore_.bucket.cache_clear()
    yield server
    tensorstore_.bucket.cache_clear()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, np.ndarray]:
    """Affinities, and what comes of them on a disk."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    field = np.stack([ndimage.gaussian_filter(rng.random(SHAPE), 1.2) for _ in range(3)])
    values = (255 * (field - field.min()) / np.ptp(field)).astype(np.uint8)
    told = {"kind": "affinities", "scale": 1 / 255, "voxel_size": VOXEL_SIZE}
    uri = store(f"{folder}/a.zarr", values, offsets=((-1, 0, 0), (0, -1, 0), (0, 0, -1)), **told)
    good("run", "--input", uri, "--output", f"{folder}/ids.zarr", *HOW, *BLOCK, "--executor", "serial")
    return uri, load(f"{folder}/ids.zarr")


def test_objects(bucket: Buckets) -> None:
    folder = pickle.loads(pickle.dumps(ObjectPath("s3://lab-data/work")))
    one = folder / "faces" / "0_1.npz"
    assert (one.name, one.parent.name, str(one.with_suffix(".npy"))) == (
        "0_1.npz",
        "faces",
        "s3://lab-data/work/faces/0_1.npy",
    )
    with pytest.raises(FileNotFoundError):
        one.read_bytes()
    one.write_bytes(b"1")
    assert one.exists()
    assert not (folder / "faces" / "0_1").exists()
    assert [swap(one, None, b"2"), swap(one, b"2", b"3"), swap(one, b"1", b"2")] == [False, False, True]
    assert swap(folder / "new", None, b"4")
    assert (folder / "new").read_text() == "4"
    for name in "abcde":
        (folder / name).write_bytes(b"")
    assert folder.names() == ["a", "b", "c", "d", "e", "faces/0_1.npz", "new"]
    remove_folder(folder, first="c", keep="new")
    assert folder.names() == ["new"]
    remove_folder(folder, first="c")
    assert bucket.objects == {}


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_lines_are_kept_as_they_come(tmp_path: Path, bucket: Buckets, place: str) -> None:
    file = tmp_path / "lines" if place == "disk" else ObjectPath("s3://lab-data/lines")
    wanted: list[str] = []
    for part in (0, 1, SEGMENT - 1, 3):  # each by a process of its own
        lines = Lines(file)
        for number in range(part):
            lines.add(f"{number} ä")
            wanted.append(f"{number} ä")
        assert lines.read() == Lines(file).read() == wanted
    if isinstance(file, ObjectPath):
        assert file.names() == ["000000", "000001"]


def test_a_bucket_that_is_not_there(bucket: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    tensorstore_.bucket.cache_clear()
    with pytest.raises(VolumeError, match="cannot write s3://lab-data/x: "):
        ObjectPath("s3://lab-data/x").write_bytes(b"")


def test_what_is_known_of_a_block_whose_process_ended(bucket: Buckets) -> None:
    """The mark is in the bucket, the last words are on the machine."""
    watch, box = Watch(ObjectPath("s3://lab-data/work/running"), 5.0), Box((0, 4, 0), (1, 8, 1))
    watch(lambda box: pytest.fail("not begun") if not watch.begun(box) else None, box)
    assert not watch.begun(box)

    def end(box: Box) -> None:
        raise SystemExit

    lost = Outcome(box, error=BlockLost("its process ended"))
    with pytest.raises(SystemExit):
        watch(end, box)
    assert watch.begun(box)
    assert str(watch.why(lost)) == "its process ended"
    watch._words(box).write_text('Thread 1\n  File "x.py", line 3 in hang\n')
    assert str(watch.why(lost)).endswith(
        'it took longer than block_timeout, 5 s, and was at File "x.py", line 3 in hang'
    )
    watch.forget(box)
    assert not watch.begun(box)
    assert watch.why(lost) is lost.error


def test_a_web_server_can_only_be_read(inputs: tuple[str, np.ndarray]) -> None:
    said = sentence("run", "--input", inputs[0], "--output", "https://127.0.0.1:1/ids.zarr")
    assert (
        said
        == "output https://127.0.0.1:1/ids.zarr is on a web server, which can only be read; give a bucket or a path"
    )


@pytest.mark.parametrize("after", [1, 9])
def test_the_same_command_continues(
    bucket: Buckets, inputs: tuple[str, np.ndarray], after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, whole = inputs
    words = ["run", "--input", uri, "--output", OUT, *HOW, *BLOCK, "--executor", "serial"]
    monkeypatch.chdir(Path(uri).parent)  # where the record of an output in a bucket is left
    with monkeypatch.context() as patch:
        Stopping.left = after
        patch.setattr("neuropil.stages.run.SerialPool", Stopping)
        assert command(*words, "--quiet").code == 130
    before = dict(bucket.objects)
    lines = before[f"{WORK}done.jsonl/000000"].decode().splitlines()
    assert len(lines) == after
    assert json.loads(lines[-1])["inputs"]
    assert "was made with low = 0.2, now 0.1; give the old value" in sentence(*words, "--low", 0.1)
    good("report", ".", "--unfinished", OUT, "--output", "page.html")
    page = Path("page.html").read_text()
    assert f"{OUT} <small>not finished</small>" in page
    assert json.loads(lines[0])["step"] in page
    assert "there is no work for s3://lab-data/other.zarr" in sentence(
        "report", ".", "--unfinished", "s3://lab-data/other.zarr"
    )
    assert bucket.objects == before
    good(*words)
    np.testing.assert_array_equal(load(OUT), whole)
    assert {key.split("/")[2] for key in bucket.objects} == {"ids.zarr"}
    assert "exists; give --overwrite" in sentence(*words)


def test_from_an_image_with_all_outputs(tmp_path: Path, bucket: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prediction, fragments, levels, another format; stopped while the levels are made, and gone on with."""
    monkeypatch.chdir(tmp_path)
    image, weights = f"{stack(tmp_path / 's.h5', SHAPE)}:raw", pair(tmp_path / "pair.safetensors")
    words = ["run", "--input", image, "--weights", weights, *HOW, *BLOCK, "--executor", "serial"]
    here = ["--output", f"precomputed://{tmp_path}/ids", "--prediction", f"{tmp_path}/p.zarr"]
    good(*words, *here)
    there = ["--output", "precomputed://s3://lab-data/ids", "--prediction", "s3://lab-data/p.zarr"]
    there += ["--fragments", "s3://lab-data/f.zarr", "--levels", "1"]
    with monkeypatch.context() as patch:
        patch.setattr("neuropil.volume.pyramid.write_level", stopped)
        assert command(*words, *there, "--quiet").code == 130
    assert "not finished" in command("verify", "precomputed://s3://lab-data/ids").out
    good(*words, *there)
    for name in ("precomputed://{}/ids", "{}/p.zarr"):
        np.testing.assert_array_equal(load(name.format("s3://lab-data")), load(name.format(tmp_path)))
    assert {key.split("/")[1] for key in bucket.objects} == {"ids", "p.zarr", "f.zarr"}
    assert command("verify", "precomputed://s3://lab-data/ids").code == 0


def stopped(*_: object) -> None:
    raise KeyboardInterrupt


def test_killed_and_continued_by_processes(tmp_path: Path, bucket: Buckets, inputs: tuple[str, np.ndarray]) -> None:
    """The driver is killed while it writes labels into the bucket; two workers then finish its work."""
    uri, whole = inputs
    words = ["run", "--input", uri, "--output", OUT, *map(str, HOW), *BLOCK]
    (tmp_path / "killer.py").write_text(KILLER)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    job = [sys.executable, str(tmp_path / "killer.py"), *words, "--executor", "serial"]
    done = subprocess.run(job, capture_output=True, text=True, timeout=200, env=env, cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert f"{WORK}lock.json" in bucket.objects
    assert any(key.startswith("lab-data/deep/ids.zarr/") for key in bucket.objects)
    told = process(*words, "--workers", "2", "--quiet", cwd=tmp_path).communicate(timeout=200)
    np.testing.assert_array_equal(load(OUT), whole, err_msg=told[1])
    assert {key.split("/")[2] for key in bucket.objects} == {"ids.zarr"}


KILLER = """
import os, signal, sys
from neuropil.cli import main
from neuropil.stages import run_output
real, calls = run_output.write, []

def write(job, box):
    calls.append(box)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(job, box)

run_output.write = write
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("output", [OUT, f"precomputed://{OUT}"])
def test_a_bucket_is_planned_for(
    bucket: Buckets, inputs: tuple[str, np.ndarray], output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written there, and nothing stays here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan_pipeline, "pool_of", lambda _: nullcontext(SerialPool()))
    config = run.Config(input=inputs[0], output=output, block=(14, 20, 44), workers=1)
    plan = plan_pipeline.plan_pipeline(config).data
    assert plan["output_files"] == 2
    assert (dict(bucket.objects), list(tmp_path.iterdir())) == ({}, [])
