"""`neuropil predict`: a recursive pair over files; tiles, metadata, kill and rerun, full disk, refusals."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from small import (
    OFFSET,
    VOXEL_SIZE,
    command,
    good,
    load,
    pair,
    process,
    sentence,
    small_disk,
    stack,
    stop_after,
    store,
    untouched,
)
from tiny import TINY_RECURSIVE

from neuropil.geometry import Box
from neuropil.networks import inference
from neuropil.networks.checkpoint import Model, load_model, save_model
from neuropil.networks.inference import predict
from neuropil.networks.network import DenseNetwork
from neuropil.networks.sampling import SectionStatistics
from neuropil.stages.common import claim
from neuropil.volume import exists, open_volume
from neuropil.volume.resampled import ResampledVolume, resample

SMALL = ("--tile", "1,16,16")  # many blocks


@pytest.fixture
def job(tmp_path: Path) -> list[object]:
    """A command that predicts a small stack, without --output."""
    data, weights = stack(tmp_path / "s.h5"), pair(tmp_path / "pair.safetensors")
    return ["predict", "--weights", weights, "--input", f"{data}:raw"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "150k") as folder:
        yield folder


def test_a_pair_runs_as_one_model(job: list[object], tmp_path: Path) -> None:
    good(*job, "--output", tmp_path / "map.zarr", "--dtype", "float32")
    image, model = load(f"{tmp_path}/s.h5:raw"), load_model(tmp_path / "pair.safetensors")
    standard = SectionStatistics.of(image.__getitem__, len(image)).apply(image, slice(None))
    first = predict(model.networks[0], [standard])
    expected = predict(model.networks[1], [standard, first])
    made = load(tmp_path / "map.zarr")
    assert made.shape == image.shape
    assert np.abs(made - expected).max() <= 1e-5
    assert not (tmp_path / "map.zarr.unfinished").exists()


def test_tiled_equals_whole(job: list[object], tmp_path: Path) -> None:
    good(*job, "--output", tmp_path / "whole.zarr", "--dtype", "float32")
    tiled = command(*job, "--output", tmp_path / "tiled.zarr", "--dtype", "float32", *SMALL)
    blocks = [int(n) for n in re.findall(r": (\d+)/\1\n", tiled.err)]
    assert min(blocks) > 10, "the limit must be so small that there are many tiles"
    assert np.abs(load(tmp_path / "whole.zarr") - load(tmp_path / "tiled.zarr")).max() <= 1e-5


@pytest.mark.parametrize("output", ["map.h5:a/map", "map.tif", "map.zarr", "sections"])
def test_formats_scale_and_place(job: list[object], tmp_path: Path, output: str) -> None:
    good(*job, "--output", tmp_path / "exact.zarr", "--dtype", "float32", "--sections", "2:5")
    good(*job, "--output", tmp_path / output, "--sections", "2:5")
    with open_volume(f"{tmp_path}/{output}") as volume:
        assert (volume.shape, volume.dtype) == ((3, 40, 44), np.uint8)
        known = volume.metadata
        assert (known.kind, known.voxel_size) == ("boundary", VOXEL_SIZE)
        assert known.offset == (OFFSET[0] + 2 * VOXEL_SIZE[0], *OFFSET[1:])
        assert known.scale == pytest.approx(1 / 255)
        assert np.abs(volume.read() / 255 - load(tmp_path / "exact.zarr")).max() <= 0.5 / 255 + 1e-6


def test_sections_are_predicted_as_a_stack_of_their_own(job: list[object], tmp_path: Path) -> None:
    store(tmp_path / "part.h5:raw", load(f"{tmp_path}/s.h5:raw")[2:5])
    good(*job, "--output", tmp_path / "a.zarr", "--sections", "2:5")
    good(*job, "--input", f"{tmp_path}/part.h5:raw", "--output", tmp_path / "b.zarr")
    np.testing.assert_array_equal(load(tmp_path / "a.zarr"), load(tmp_path / "b.zarr"))


def test_record_beside_the_output(job: list[object], tmp_path: Path) -> None:
    good(*job, "--output", f"{tmp_path}/map.h5:m", "--augment", "--json", tmp_path / "out.json")
    record = json.loads((tmp_path / "map.h5.m.json").read_text())
    assert record["model"] == "tiny -> tiny_recursive"
    assert record["config"]["augment"] is True
    assert record["versions"]["neuropil"]
    assert len(record["weights_sha256"]) == 64
    assert json.loads((tmp_path / "out.json").read_text())["shape"] == [6, 40, 44]


def start_and_kill(words: list[object], ledger: Path, blocks: int) -> None:
    """Run a command as a process and kill it once so many blocks are done."""
    running = process(*words)
    while running.poll() is None:
        if ledger.exists() and ledger.read_bytes().count(b"\n") >= blocks:
            break
        time.sleep(0.002)
    running.kill()
    running.communicate()
    assert running.returncode == -signal.SIGKILL, "finished before it was killed"


def test_it_says_beforehand_how_long_and_how_much(job: list[object], tmp_path: Path) -> None:
    ran = command(*job, "--output", tmp_path / "map.zarr")
    for name in ("tiny", "tiny_recursive"):
        assert re.search(rf"{name}: \d+ tiles of \(.*\) on cpu, about 0m\d\ds, activations of \d\.\d\d GB", ran.err)


def test_unfinished_work_keeps_its_tiles(stopped: list[object], tmp_path: Path) -> None:
    """Whatever memory there is when it goes on; another tile would make other blocks."""
    plans = tmp_path / "map.zarr.unfinished" / "tiles.json"
    before = json.loads(plans.read_text())
    assert [plan["tile"] for plan in before["plans"]] == [[1, 16, 16]] * 2
    again = command(*stopped, "--max-memory", 5)
    assert again.code == 0
    assert re.search(r"19 of \d+ blocks were done before", again.err)


def test_kill_9_loses_nothing(tmp_path: Path) -> None:
    data, weights = stack(tmp_path / "s.h5", (4, 64, 64)), pair(tmp_path / "pair.safetensors")
    job = ["predict", "--weights", weights, "--input", f"{data}:raw", *SMALL, "--dtype", "float32"]
    good(*job, "--output", tmp_path / "whole.zarr")
    ledger = tmp_path / "killed.zarr.unfinished" / "done.jsonl"
    start_and_kill([*job, "--output", tmp_path / "killed.zarr"], ledger, 20)
    assert not exists(tmp_path / "killed.zarr")
    done = Counter(json.loads(line)["step"] for line in ledger.read_text().splitlines() if line.endswith("}"))
    assert sum(done.values()) >= 20
    with ledger.open("a") as file:
        file.write('{"step": "1-ti')  # as if killed while writing
    again = command(*job, "--output", tmp_path / "killed.zarr")
    assert again.code == 0, again.err
    for step, count in done.items():
        assert re.search(rf"{step}: {count} of \d+ blocks were done before", again.err)
    assert load(tmp_path / "killed.zarr").tobytes() == load(tmp_path / "whole.zarr").tobytes()
    assert not ledger.parent.exists()


@pytest.fixture
def stopped(job: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A command that was stopped by the user after some blocks."""
    words = [*job, "--output", tmp_path / "map.zarr", *SMALL]
    stop_after(monkeypatch, inference.Predictor, 19, words)
    assert (tmp_path / "map.zarr.unfinished" / "done.jsonl").read_text().count("\n") == 19
    return words


def test_other_parameters_are_refused_by_name(stopped: list[object], tmp_path: Path) -> None:
    with untouched(tmp_path):
        assert "was made with augment = False, now True; give the old value, or start over with --fresh" in sentence(
            *stopped, "--augment"
        )
        assert "sections = None, now [0, 3]" in sentence(*stopped, "--sections", "0:3")
        assert "precision = 'float32', now 'bfloat16'" in sentence(*stopped, "--precision", "bfloat16")
    pair(tmp_path / "pair.safetensors", seed=5)
    assert "weights = '" in sentence(*stopped)
    pair(tmp_path / "pair.safetensors")
    store(tmp_path / "s.h5:raw", 255 - load(f"{tmp_path}/s.h5:raw"), overwrite=True)
    assert "values of the image = '" in sentence(*stopped)
    done = command(*stopped, "--fresh")
    assert done.code == 0
    assert "done before" not in done.err


def test_what_does_not_change_the_result_may_change(stopped: list[object], tmp_path: Path) -> None:
    done = command(*stopped, "--dtype", "float32")
    assert sum(map(int, re.findall(r"(\d+) of \d+ blocks were done before", done.err))) == 19
    assert load(tmp_path / "map.zarr").dtype == np.float32


def test_a_lost_scratch_file_is_made_again(stopped: list[object], tmp_path: Path) -> None:
    (tmp_path / "map.zarr.unfinished" / "1-tiny.npy").unlink()
    good(*stopped)
    good(*stopped[:-4], "--output", tmp_path / "whole.zarr")
    np.testing.assert_allclose(load(tmp_path / "map.zarr").astype(int), load(tmp_path / "whole.zarr"), atol=1)


@pytest.mark.parametrize("place", ["map.zarr", "map.h5:map"])
def test_killed_when_the_output_has_its_name(
    job: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The same command then ends as done; an output is in the way of others, and where the folder is half deleted."""
    words = [*job, "--output", f"{tmp_path}/{place}", *SMALL]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("neuropil.stages.predict.record_of", stop)
        assert command(*words).code == 130
    made = load(f"{tmp_path}/{place}")
    work = tmp_path / f"{place.replace(':', '.')}.unfinished"
    assert "not finished" in command("verify", f"{tmp_path}/{place}").out
    again = command(*words)
    assert again.code == 0, again.err
    assert len(re.findall(r"(\d+) of \1 blocks were done before", again.err)) == 2
    np.testing.assert_array_equal(load(f"{tmp_path}/{place}"), made)
    assert not work.exists()
    claim(work, "output", f"{tmp_path}/{place}")
    assert "exists; give --overwrite" in sentence(*words)


def test_output_exists(job: list[object], tmp_path: Path) -> None:
    store(tmp_path / "map.h5:map", np.zeros((1, 2, 3), np.uint8))
    with untouched(tmp_path):
        assert "exists; give --overwrite" in sentence(*job, "--output", f"{tmp_path}/map.h5:map")
        assert "is the input itself" in sentence(*job, "--output", f"{tmp_path}/s.h5:raw", "--overwrite")
    good(*job, "--output", f"{tmp_path}/map.h5:map", "--overwrite")
    assert load(tmp_path / "map.h5:map").shape == (6, 40, 44)


@pytest.mark.parametrize("output", ["map.h5:map", "map.zarr", "map.tif", "sections"])
@pytest.mark.parametrize(("size", "left"), [("100k", False), ("300k", True), ("500k", True)])
def test_full_disk(disk: Path, tmp_path: Path, output: str, size: str, left: bool) -> None:
    """The first or second scratch file, then the output, does not fit; with more room the same command goes on."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
    data, weights = stack(tmp_path / "s.h5", (6, 96, 96)), pair(tmp_path / "pair.safetensors")
    job = ["predict", "--weights", weights, "--input", f"{data}:raw", "--dtype", "float32", "--quiet"]
    assert sentence(*job, "--output", disk / output).startswith("the disk is full")
    assert not exists(disk / output)
    assert [path.name for path in disk.iterdir()] == ([f"{output.replace(':', '.')}.unfinished"] if left else [])
    good(*job, "--output", tmp_path / output)
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    good(*job, "--output", disk / output)
    assert load(disk / output).tobytes() == load(tmp_path / output).tobytes()


def test_refusals_leave_nothing(job: list[object], tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((3, 30, 30), dtype=np.float32)
    nan = image.copy()
    nan[1, 4, 5] = np.nan
    infinite = image.copy()
    infinite[2, 4, 5] = np.inf
    uris = {
        "small": store(tmp_path / "v.h5:small", image[:1, :4]),
        "nan": store(tmp_path / "v.h5:nan", nan),
        "inf": store(tmp_path / "v.h5:inf", infinite),
        "four": store(tmp_path / "v.h5:four", np.stack([image] * 3)),
        "labels": f"{tmp_path}/s.h5:labels",
    }
    (tmp_path / "foreign.safetensors").write_bytes(b"not weights")
    save_model(tmp_path / "half.safetensors", Model((DenseNetwork(TINY_RECURSIVE),)))
    out = ["--output", tmp_path / "map.zarr"]
    with untouched(tmp_path):
        assert "is smaller than the field of view (1, 7, 7) of 'tiny'; it needs 3 more in y" in sentence(
            *job, "--input", uris["small"], *out
        )
        assert "v.h5:nan: the image must be finite; section 1 holds NaN" in sentence(*job, "--input", uris["nan"], *out)
        assert "section 2 holds NaN or infinity" in sentence(*job, "--input", uris["inf"], *out)
        assert "must be an image with axes z, y, x; it has 4 axes" in sentence(*job, "--input", uris["four"], *out)
        assert "must be an image; its metadata call it labels" in sentence(*job, "--input", uris["labels"], *out)
        assert "sections must lie within 0:6" in sentence(*job, *out, "--sections", "3:9")
        assert "tile must be positive; got (1, 0, 5)" in sentence(*job, *out, "--tile", "1,0,5")
        assert "max_memory is too small" in sentence(*job, *out, "--max-memory", "0.001")
        assert "not a readable safetensors file" in sentence(*job, *out, "--weights", tmp_path / "foreign.safetensors")
        assert "does not exist" in sentence(*job, *out, "--weights", tmp_path / "none.safetensors")
        assert re.search(
            "another network's map|run as a chain", sentence(*job, *out, "--weights", tmp_path / "half.safetensors")
        )
        assert "device must be auto, cpu" in sentence(*job, *out, "--device", "tpu")
        assert "cannot tell the format" in sentence(*job, "--output", tmp_path / "map.nrrd")


def at_size(tmp_path: Path, size: tuple[float, float, float], shape: tuple[int, int, int] = (6, 40, 44)) -> str:
    """Write a stack with voxels of another size; return its URI."""
    made = stack(tmp_path / f"{size[1]:g}_{size[2]:g}.h5", shape)
    return store(f"{made}:sized", load(f"{made}:raw"), voxel_size=size, kind="image")


@pytest.mark.parametrize(
    ("size", "told"), [((50, 8, 8), True), ((50, 4, 6.1), True), ((50, 2.6, 4), True), ((90, 5.9, 2.7), False)]
)
def test_another_voxel_size_is_told(
    job: list[object], tmp_path: Path, size: tuple[float, float, float], told: bool
) -> None:
    done = command(*job, "--input", at_size(tmp_path, size), "--output", tmp_path / "map.zarr")
    assert done.code == 0
    nm = "×".join(f"{length:g}" for length in size)
    words = f"has voxels of {nm} nm, {tmp_path}/pair.safetensors was trained at 50×4×4: expect a poor map; --resample"
    assert (words in done.err) == told


def test_a_model_of_several_tissues_is_good_for_all_sizes_between(job: list[object], tmp_path: Path) -> None:
    pair(tmp_path / "pair.safetensors", card={"voxel_sizes": [[30, 6, 6], [50, 4, 4]]})
    between = at_size(tmp_path, (40, 5, 5))
    assert "poor map" not in command(*job, "--input", between, "--output", tmp_path / "a.zarr").err
    assert "predicted at 40×5×5" in command(*job, "--input", between, "--output", tmp_path / "b.zarr", "--resample").err
    np.testing.assert_array_equal(load(tmp_path / "a.zarr"), load(tmp_path / "b.zarr"))
    coarse = ["--input", at_size(tmp_path, (40, 12, 12)), "--output", tmp_path / "c.zarr"]
    assert "was trained at 30×4×4 to 50×6×6: expect a poor map" in command(*job, *coarse).err


@pytest.mark.parametrize("size", [(50.0, 2.0, 2.0), (50.0, 9.0, 5.0)])
def test_resampled(job: list[object], tmp_path: Path, size: tuple[float, float, float]) -> None:
    """Predicted as if the image had been stored at the model's size; the map lies on the image's own grid."""
    uri = at_size(tmp_path, size)
    job = [*job, "--input", uri, "--dtype", "float32", "--resample"]
    good(*job, "--output", tmp_path / "whole.zarr")
    tiled = command(*job, "--output", tmp_path / "tiled.zarr", "--tile", "1,16,15")
    assert min(int(n) for n in re.findall(r": (\d+)/\1\n", tiled.err)) > 10
    assert np.abs(load(tmp_path / "whole.zarr") - load(tmp_path / "tiled.zarr")).max() <= 1e-5
    with open_volume(uri) as image:
        view = ResampledVolume(image, size, VOXEL_SIZE)
        store(tmp_path / "at_model.zarr", view.read(), kind="image", voxel_size=VOXEL_SIZE)
    there = [*job[:3], "--input", tmp_path / "at_model.zarr", "--dtype", "float32"]
    good(*there, "--output", tmp_path / "map.zarr")
    made = load(tmp_path / "map.zarr")
    shape = (6, 40, 44)
    back = resample(lambda box: made[box.slices], made.shape, shape, Box.of_shape(shape))
    with open_volume(f"{tmp_path}/whole.zarr") as volume:
        assert (volume.shape, volume.metadata.voxel_size) == (shape, size)
        np.testing.assert_allclose(volume.read(), back, atol=1e-5)
    record = json.loads((tmp_path / "whole.zarr.json").read_text())
    assert record["predicted_at"] == pytest.approx(view.metadata.voxel_size)


def test_resampled_work_goes_on(job: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = [*job, "--input", at_size(tmp_path, (50, 2, 2), (6, 80, 88)), "--tile", "1,9,9"]
    words = [*job, "--resample", "--output", tmp_path / "map.zarr"]
    stop_after(monkeypatch, inference.Predictor, 19, words)
    refused = command(*job, "--output", tmp_path / "map.zarr")
    assert refused.code == 2
    assert "was made with resample = True, now False" in refused.err
    again = command(*words)
    assert re.search(r"19 of \d+ blocks were done before", again.err)
    good(*job, "--resample", "--output", tmp_path / "straight.zarr")
    np.testing.assert_array_equal(load(tmp_path / "map.zarr"), load(tmp_path / "straight.zarr"))


def test_resampling_needs_both_voxel_sizes(job: list[object], tmp_path: Path) -> None:
    out = ["--output", tmp_path / "map.zarr", "--resample"]
    nameless = store(tmp_path / "nameless.h5:raw", load(f"{tmp_path}/s.h5:raw"))
    with untouched(tmp_path):
        assert "nameless.h5:raw does not say its voxel size; record it with `neuropil convert" in sentence(
            *job, *out, "--input", nameless
        )
    pair(tmp_path / "pair.safetensors", card={"voxel_size": None})
    with untouched(tmp_path):
        assert "pair.safetensors does not say at which voxel size it was trained" in sentence(*job, *out)
