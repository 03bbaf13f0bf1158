"""Jobs of SLURM: what they are asked for, and a run on them, with an sbatch that starts jobs on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from small import good, load, sentence, store, untouched

from neuropil.clusters import SlurmJobs, slurm_cluster
from neuropil.segmentation.affinities import NEAREST

pytest.importorskip("dask_jobqueue")
HOW = ["--low", 0.2, "--high", 0.9, "--size", 20, "--dust", 12, "--merge-threshold", 0.45]
SBATCH = """#!/bin/sh
# A queue that is this machine: jobs run in the background.
if [ "$1" = --test-only ]; then
    grep -q "nowhere" "$2" && { echo "sbatch: error: invalid partition specified: nowhere" >&2; exit 1; }
    exit 0
fi
for script; do :; done
cp "$script" "$QUEUE/script.$$"
setsid sh "$QUEUE/script.$$" > "$QUEUE/log.$$" 2>&1 < /dev/null &
echo $! > "$QUEUE/job.$!"
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
echo "$1" >> "$QUEUE/cancelled"
kill -- -"$1" 2> /dev/null || kill "$1" 2> /dev/null
exit 0
"""


@pytest.fixture
def affinities(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    field = np.stack([ndimage.gaussian_filter(rng.random((12, 24, 24)), 1.2) for _ in range(3)])
    values = (255 * (field - field.min()) / np.ptp(field)).astype(np.uint8)
    return store(f"{tmp_path}/a.zarr", values, kind="affinities", scale=1 / 255, offsets=NEAREST)


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of jobs, and programs on PATH that fill it."""
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    (tmp_path / "queue").mkdir()
    monkeypatch.setenv("QUEUE", str(tmp_path / "queue"))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "queue"


def test_a_job_is_asked_for_what_was_said() -> None:
    wanted = SlurmJobs(
        jobs=3, cores=4, memory=16, walltime="02:30:00", queue="cpu", account="lab",
        directives=["--qos=high"], prologue=["module load gcc"],
    )  # fmt: skip
    with slurm_cluster(wanted, ["a.module"]) as cluster:
        lines = cluster.job_script().splitlines()
    for line in ("-p cpu", "-A lab", "--cpus-per-task=4", "--mem=16G", "-t 02:30:00", "--qos=high"):
        assert f"#SBATCH {line}" in lines
    assert lines.index("export OMP_NUM_THREADS=1") < lines.index("module load gcc") < len(lines) - 1
    worker = next(line for line in lines if "dask_worker" in line)
    assert worker.startswith(sys.executable)
    assert "--preload a.module" in worker
    assert "--nworkers 4 --nthreads 1" in worker or ("--nworkers 4" in worker and "--nthreads 1" in worker)


def test_a_run_on_jobs(tmp_path: Path, affinities: str, queue: Path) -> None:
    good("segment", "--input", affinities, "--output", f"{tmp_path}/whole.zarr", "--method", "mean", *HOW)
    (tmp_path / "cluster.toml").write_text(f"""
[run]
input = "{affinities}"
output = "{tmp_path}/ids.zarr"
block = [12, 12, 24]
cluster = "slurm"
[run.slurm]
jobs = 2
memory = 1
interface = "lo"
""")
    good("run", tmp_path / "cluster.toml", *HOW)
    np.testing.assert_array_equal(load(f"{tmp_path}/ids.zarr"), load(f"{tmp_path}/whole.zarr"))
    jobs = {path.suffix for path in queue.glob("job.*")}
    assert len(jobs) >= 2
    assert {f".{line}" for line in (queue / "cancelled").read_text().split()} >= jobs


def test_what_slurm_refuses_is_told(
    tmp_path: Path, affinities: str, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["run", "--input", affinities, "--output", f"{tmp_path}/ids.zarr", *HOW, "--cluster", "slurm"]
    words += ["--set", "run.slurm.interface=lo"]
    with untouched(tmp_path):
        assert "give one of them" in sentence(*words, "--scheduler", "tcp://127.0.0.1:1")
        assert "invalid partition specified: nowhere" in sentence(*words, "--set", "run.slurm.queue=nowhere")
        monkeypatch.setenv("PATH", "/nowhere")
        assert "there is no sbatch on this machine" in sentence(*words)
        monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
        assert "pip install 'neuropil[cluster]'" in sentence(*words)
