"""`neuropil predict` with a U-Net: affinities that say what they are, whatever the memory, stopped and continued."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small import OFFSET, VOXEL_SIZE, command, good, load, pair, sentence, stack, stop_after, store, untouched

from neuropil.networks import patches, planning
from neuropil.networks.checkpoint import Model, load_model, save_model
from neuropil.networks.patch_plan import default_patch, patch_memory, plan_patches
from neuropil.networks.patches import PatchGrid, predict_affinities
from neuropil.networks.rsunet import RSUNet, UNetArchitecture
from neuropil.networks.sampling import SectionStatistics
from neuropil.stages.affinities import read_affinities
from neuropil.volume import exists, open_volume
from neuropil.volume.resampled import ResampledVolume

OFFSETS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, -3, 0), (0, 0, -3))
SMALL = UNetArchitecture("small", (2, 4), pooling=((1, 2, 2),), offsets=OFFSETS)
PATCH = (4, 16, 16)


def unet(path: Path, **card: object) -> Path:
    net = RSUNet(SMALL, seed=1)
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(1, 1, 4, 16, 16, generator=torch.Generator().manual_seed(0)))
    save_model(path, Model((net.eval(),), {"voxel_size": list(VOXEL_SIZE), "patch": list(PATCH)} | card))
    return path


@pytest.fixture
def job(tmp_path: Path) -> list[object]:
    """A command that predicts a small stack, without --output."""
    data = stack(tmp_path / "s.h5")
    return ["predict", "--weights", unet(tmp_path / "unet.safetensors"), "--input", f"{data}:raw"]


def expected(tmp_path: Path, **options: object) -> np.ndarray:
    image, net = load(f"{tmp_path}/s.h5:raw"), load_model(tmp_path / "unet.safetensors").unet
    assert net is not None
    standard = SectionStatistics.of(image.__getitem__, len(image)).apply(image, slice(None))
    return predict_affinities(net, standard, options.pop("patch", PATCH), **options)


@pytest.mark.parametrize("output", ["a.h5:affinities", "a.zarr"])
def test_affinities_say_what_they_are(job, tmp_path, output):
    said = good(*job, "--output", tmp_path / output, "--sections", "1:6")
    assert "affinities (5, 5, 40, 44) by small" in said
    with open_volume(f"{tmp_path}/{output}") as volume:
        assert (volume.shape, volume.dtype) == ((5, 5, 40, 44), np.uint8)
        known = volume.metadata
        assert (known.kind, known.offsets, known.one_means, known.axes[0]) == ("affinities", OFFSETS, "same", "c")
        assert known.scale == pytest.approx(1 / 255)
        assert known.offset == (OFFSET[0] + VOXEL_SIZE[0], *OFFSET[1:])
        assert read_affinities(volume).offsets == OFFSETS
    assert "5 × 5 × 40 × 44 (c, z, y, x)" in good("info", tmp_path / output)


def test_the_same_as_in_memory(job, tmp_path):
    good(*job, "--output", tmp_path / "a.zarr", "--dtype", "float32")
    made = load(tmp_path / "a.zarr")
    np.testing.assert_array_equal(made, expected(tmp_path))
    assert made.std() > 0.05
    good(*job, "--output", tmp_path / "b.zarr")
    assert np.abs(load(tmp_path / "b.zarr") / 255 - made).max() <= 0.5 / 255 + 1e-6


def test_options_reach_the_network(job, tmp_path):
    words = ["--dtype", "float32", "--tta", "16", "--patch", "6,28,28", "--overlap", "0.4", "--channels", "nearest"]
    good(*job, "--output", tmp_path / "a.zarr", *words)
    made = expected(tmp_path, patch=(6, 28, 28), overlap=0.4, views=16)[:3]
    np.testing.assert_array_equal(load(tmp_path / "a.zarr"), made)
    record = json.loads((tmp_path / "a.zarr.json").read_text())
    assert (record["model"], record["config"]["tta"]) == ("small", 16)
    with open_volume(str(tmp_path / "a.zarr")) as volume:
        assert volume.metadata.offsets == OFFSETS[:3]
    good(*job, "--output", tmp_path / "b.zarr", "--augment")
    good(*job, "--output", tmp_path / "c.zarr", "--tta", "8")
    np.testing.assert_array_equal(load(tmp_path / "b.zarr"), load(tmp_path / "c.zarr"))


def test_resampled(job, tmp_path):
    """As if the image had been stored at the model's voxel size; affinities stay on that grid, and say so."""
    model = load_model(tmp_path / "unet.safetensors")
    save_model(tmp_path / "fine.safetensors", Model(model.networks, model.card | {"voxel_sizes": [[50.0, 6.0, 6.0]]}))
    with open_volume(f"{tmp_path}/s.h5:raw") as image:
        view = ResampledVolume(image, image.metadata.voxel_size, (50.0, 6.0, 6.0))
        place = {"voxel_size": view.metadata.voxel_size, "offset": OFFSET}
        store(f"{tmp_path}/s.h5:at_model", view.read(), kind="image", **place)
    job = [*job, "--weights", tmp_path / "fine.safetensors", "--dtype", "float32"]
    good(*job, "--output", tmp_path / "a.zarr", "--resample")
    good(*job, "--output", tmp_path / "b.zarr", "--input", f"{tmp_path}/s.h5:at_model")
    np.testing.assert_array_equal(load(tmp_path / "a.zarr"), load(tmp_path / "b.zarr"))
    with open_volume(str(tmp_path / "a.zarr")) as made, open_volume(str(tmp_path / "b.zarr")) as straight:
        assert made.spatial_shape == view.shape != (6, 40, 44)
        assert made.metadata.voxel_size == pytest.approx(straight.metadata.voxel_size)
        assert made.metadata.offset == straight.metadata.offset


def test_memory_does_not_change_a_bit(job, tmp_path, monkeypatch):
    good(*job, "--output", tmp_path / "whole.zarr", "--dtype", "float32")
    grid = PatchGrid((6, 40, 44), PATCH)
    least = patch_memory(SMALL, grid, (13, 14), 5)
    monkeypatch.setattr(planning, "device_memory", lambda *_: least)
    narrow = command(*job, "--output", tmp_path / "narrow.zarr", "--dtype", "float32")
    columns = re.search(r"in columns of (\d+)×(\d+)", narrow.err)
    assert columns, narrow.err
    assert int(columns[1]) * int(columns[2]) < 300
    assert load(tmp_path / "narrow.zarr").tobytes() == load(tmp_path / "whole.zarr").tobytes()
    assert re.search(r"1-small: (\d+)/\1\n", narrow.err), "progress counts patches to the end"


def test_stopped_and_continued(job, tmp_path, monkeypatch):
    good(*job, "--output", tmp_path / "whole.zarr")
    words = [*job, "--output", tmp_path / "a.zarr"]
    stop_after(monkeypatch, patches.PatchPredictor, 1, words)
    assert not exists(tmp_path / "a.zarr")
    with untouched(tmp_path):
        assert "tta = 1, now 8" in sentence(*words, "--augment")
        assert "patch = None, now [4, 8, 8]" in sentence(*words, "--patch", "4,8,8")
        assert "overlap = 0.5, now 0.6" in sentence(*words, "--overlap", "0.6")
        assert "dtype = 'uint8', now 'float32'" in sentence(*words, "--dtype", "float32")
        assert "channels = 'all', now 'nearest'" in sentence(*words, "--channels", "nearest")
    again = command(*words, "--max-memory", 5)
    assert again.code == 0, again.err
    assert "1 of 2 blocks were done before" in again.err
    assert load(tmp_path / "a.zarr").tobytes() == load(tmp_path / "whole.zarr").tobytes()
    assert not (tmp_path / "a.zarr.unfinished").exists()


def test_refusals_leave_nothing(job, tmp_path):
    out = ["--output", tmp_path / "a.zarr"]
    nan = np.ones((6, 40, 44), np.float32)
    nan[2, 3, 4] = np.nan
    bad, chain = store(tmp_path / "v.h5:nan", nan), pair(tmp_path / "pair.safetensors")
    with untouched(tmp_path):
        assert "tile is for boundary networks; a U-Net takes --patch" in sentence(*job, *out, "--tile", "1,8,8")
        assert "patch must be multiples of (1, 2, 2)" in sentence(*job, *out, "--patch", "4,15,16")
        assert "must be three positive" in sentence(*job, *out, "--patch", "0,16,16")
        assert "along y they must overlap by at least 3 voxels" in sentence(*job, *out, "--patch", "4,4,16")
        assert "overlap" in sentence(*job, *out, "--overlap", "1")
        assert "tta" in sentence(*job, *out, "--tta", "4")
        assert "which holds one channel; give HDF5 or zarr" in sentence(*job, "--output", tmp_path / "sections")
        assert "section 2 holds NaN" in sentence(*job, *out, "--input", bad)
        tight = sentence(*job, *out, "--max-memory", "0.01")
        assert "max_memory is too small for patches of (4, 16, 16) of 'small'" in tight
        for flag in (("--patch", "4,16,16"), ("--overlap", "0.4"), ("--channels", "nearest"), ("--tta", "16")):
            assert "are for U-Nets; 'tiny -> tiny_recursive' predicts a boundary map" in sentence(
                *job, *out, "--weights", chain, *flag
            )
    far = UNetArchitecture("far", (2,), pooling=(), offsets=((-2, 0, 0),))
    save_model(tmp_path / "far.safetensors", Model((RSUNet(far),)))
    assert "predicts no nearest links" in sentence(
        *job, *out, "--weights", tmp_path / "far.safetensors", "--channels", "nearest"
    )


def test_models_tells_about_it(tmp_path):
    path = unet(tmp_path / "unet.safetensors", licence="MIT")
    said = good("models", path, "--json", tmp_path / "card.json")
    assert f"small: field of view 13×37×37, {SMALL.parameter_count:,} parameters, affinities of 5 offsets" in said
    facts = json.loads((tmp_path / "card.json").read_text())
    assert facts["networks"][0]["offsets"] == [list(offset) for offset in OFFSETS]


@pytest.mark.parametrize(
    ("card", "patch"),
    [
        ({}, (18, 160, 160)),
        ({"patch": [16, 96, 96]}, (16, 96, 96)),
        ({"network": {"patch": [16, 96, 96]}}, (16, 96, 96)),
        ({"parts": [{"network": {"patch": [4, 90, 20]}}]}, (8, 96, 64)),
    ],
)
def test_the_patch_is_that_of_the_training(card, patch):
    assert default_patch(UNetArchitecture(), card) == patch
    PatchGrid((100, 500, 500), patch).totals((0, -27, 0))


LIMITS = (8e8, 1.6e9, 6e9)


def test_columns_follow_the_memory():
    grid = PatchGrid((100, 1024, 1024), (18, 160, 160))
    plans = [plan_patches(UNetArchitecture(), grid, limit, channels=12) for limit in LIMITS]
    assert all(plan.memory <= limit for plan, limit in zip(plans, LIMITS))
    assert plans[0].column < plans[1].column < plans[2].column == (1024, 1024)
    assert plans[0].passes > plans[1].passes > plans[2].passes == grid.count
    assert plans[2].memory > plan_patches(UNetArchitecture(), grid, 6e9, channels=3).memory


MEASURE = """
import re, sys
from pathlib import Path
import numpy as np
from neuropil import machine
from neuropil.blockwise import Ledger, run_blocks
from neuropil.geometry import Box
from neuropil.networks.patch_plan import patch_memory
from neuropil.networks.patches import PatchGrid, PatchPredictor
from neuropil.networks.rsunet import RSUNet, architecture_for

size, breadth, patch = eval(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
network = RSUNet(architecture_for(size, breadth=breadth))
grid = PatchGrid((patch[0] * 3 // 2, *patch[1:]), patch)
with PatchPredictor(network, PatchGrid((16, 32, 32), (16, 32, 32)), channels=[0]) as warm:
    warm(Box.of_shape((16, 32, 32)), np.ones((16, 32, 32), np.float32))
before = machine.resident()
with PatchPredictor(network, grid, views=int(sys.argv[4])) as predictor:
    blocks = grid.blocks(grid.shape[1:])
    read = lambda box: (box, np.ones(grid.region(box).shape, np.float32))
    run_blocks(Ledger(Path(sys.argv[5]), {}), "step", blocks, read, lambda g: predictor(*g), lambda box, made: None)
peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) - before
foreseen = patch_memory(network.architecture, grid, grid.shape[1:], 12, views=int(sys.argv[4]))
print(foreseen / peak, foreseen, peak)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("size", "breadth", "patch", "views"),
    [((30, 6, 6), "full", (12, 96, 96), 1), ((30, 6, 6), "tiny", (18, 80, 80), 8)],
)
def test_the_foreseen_memory_holds_the_processes_peak(tmp_path, size, breadth, patch, views):
    words = [str(size), breadth, str(patch), str(views), str(tmp_path / "work")]
    result = subprocess.run([sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, check=True)
    assert 1 < float(result.stdout.split()[0]) < 2, result.stdout


def test_plan_foresees_a_volume(tmp_path):
    weights = unet(tmp_path / "unet.safetensors")
    words = ["plan", "--weights", weights, "--shape", "9,40,44", "--json", tmp_path / "plan.json"]
    said = good(*words, "--tta", 8)
    assert "volume of (9, 40, 44), 5 affinities, 8 views" in said
    plan = json.loads((tmp_path / "plan.json").read_text())
    starts = PatchGrid((9, 40, 44), PATCH).starts
    assert plan["patches"] == np.prod([len(along) for along in starts])
    assert plan["seconds"] == pytest.approx(plan["patches"] * plan["seconds_of_patch"])
    good(*words, "--patch", "4,20,16")
    assert json.loads((tmp_path / "plan.json").read_text())["patch"] == [4, 20, 16]
    for wrong, why in [
        (["--training"], "are for boundary networks"),
        (["--patch", "4,7,16"], "patch must be multiples of"),
        (["--max-memory", "0.0001"], "max_memory is too small"),
        (["--tta", "3"], "'tta' in [plan]"),
    ]:
        assert why in sentence(*words, *wrong)
