import subprocess
import sys

import pytest

from neuropil import machine


def group(folder, version, limit, used):
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, value in zip(names, (limit, used)):
        (folder / name).write_text(f"{value}\n")


def test_the_tightest_control_group_counts(tmp_path):
    own, root = tmp_path / "cgroup", tmp_path / "fs"
    own.write_text("0::/slurm/job_7/step\n")
    group(root / "slurm" / "job_7" / "step", 2, "max", 100)
    group(root / "slurm" / "job_7", 2, 4000, 500)
    group(root / "slurm", 2, 9000, 700)
    assert sorted(machine._container_limits(root, own)) == [(4000, 500), (9000, 700)]
    own.write_text("5:cpu:/x\n4:memory:/docker/abc\n0::/\n")
    group(root / "memory" / "docker" / "abc", 1, 2000, 50)
    assert machine._container_limits(root, own) == [(2000, 50)]
    assert machine._container_limits(root, tmp_path / "none") == []


def test_a_container_limits_what_is_available(monkeypatch):
    free = machine.available_memory()
    assert free > 0
    monkeypatch.setattr(machine, "_container_limits", lambda: [(10_000, 4_000), (10**18, 0)])
    assert machine.available_memory() == 6_000
    monkeypatch.setattr(machine, "_container_limits", lambda: [(10_000, 40_000)])
    assert machine.available_memory() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's C library")
def test_kept_memory_is_kept_until_it_is_released():
    program = """
import numpy as np
from neuropil import machine
machine.keep_memory(True)
np.ones(50_000_000, np.uint8)
kept = machine.resident()
machine.keep_memory(False)
machine.release()
print(kept - machine.resident())
"""
    freed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(freed) > 40_000_000


def test_threads_are_quieted_only_before_torch_is_there(monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "")  # so that it is put back
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setitem(sys.modules, "torch", None)
    machine.quiet_threads()
    assert "GOMP_SPINCOUNT" not in machine.os.environ
    monkeypatch.delitem(sys.modules, "torch")
    machine.quiet_threads()
    assert machine.os.environ["GOMP_SPINCOUNT"] == "20000"
