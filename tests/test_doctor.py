"""`neuropil doctor`: what is sound, what is slow, what is broken, and the exit code that says so."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest
from small import command, sentence, untouched

from neuropil import machine
from neuropil.networks import health
from neuropil.stages import doctor, doctor_machine
from neuropil.stages.doctor import nvidia_driver


def found(tmp_path: Path, code: int = 0) -> dict[str, dict[str, str]]:
    """Run the command; return its checks by name."""
    done = command("doctor", "--folder", tmp_path, "--probe-mb", 1, "--json", tmp_path / "d.json", "--quiet")
    assert done.code == code, done.err
    data = json.loads((tmp_path / "d.json").read_text())
    (tmp_path / "d.json").unlink()
    assert data["sound"] == (code == 0)
    for one in data["checks"]:
        assert one["name"] in done.out
        assert one["advice"] in done.out
        assert (one["advice"] == "") == (one["state"] == "ok"), one
    return {one["name"]: one for one in data["checks"]}


def test_a_sound_machine(tmp_path: Path) -> None:
    with untouched(tmp_path):
        known = found(tmp_path)
    wanted = {
        "Python",
        "packages",
        "processor",
        "memory",
        "torch",
        "GPU",
        "threads",
        "kernels",
        "volumes",
        "disk space",
    }
    assert wanted | {"disk speed", "inodes", "extra crowd", "extra multicut"} <= set(known)
    assert known["torch"]["found"].startswith(metadata.version("torch").partition("+")[0])


def lacking(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Let a package be missing, whatever else is installed."""
    really = doctor._has
    monkeypatch.setattr(doctor, "_has", lambda name: name != package and really(name))


def test_what_is_slow_or_optional_is_told_and_does_not_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 1_000_000_000)
    monkeypatch.setattr(machine, "memory_limit", lambda: 2_000_000_000)
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset({"sse2"}))
    monkeypatch.setattr(machine, "cores", lambda: 999)
    monkeypatch.setattr(doctor, "nvidia_driver", lambda: "550.54")
    lacking(monkeypatch, "pyarrow")
    monkeypatch.setattr(doctor_machine, "probe", lambda folder, size: (1e6, 1e9, 5.0))
    known = found(tmp_path)
    states = {name: one["state"] for name, one in known.items()}
    for name in ("memory", "threads", "disk speed"):
        assert states[name] == "warning", name
    assert "2.0 GB in all" in known["memory"]["found"]
    assert states["extra crowd"] == "absent"
    assert known["extra crowd"]["advice"] == "pip install 'neuropil[crowd]'"
    if not health.torch_facts().gpus:
        assert states["GPU"] == "warning"


def test_what_is_needed_and_broken_ends_with_code_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("undefined symbol")

    monkeypatch.setattr(health, "torch_facts", broken)
    lacking(monkeypatch, "h5py")
    known = found(tmp_path, code=2)
    assert known["torch"]["found"] == "does not run: undefined symbol"
    assert "h5py" in known["packages"]["found"]
    assert known["disk space"]["state"] != "broken"


def test_a_folder_that_takes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(doctor_machine, "probe", full)
    known = found(tmp_path, code=2)
    assert "No space left" in known["disk"]["found"]
    assert sentence("doctor", "--folder", tmp_path / "none").startswith("folder must exist")


def test_versions_of_the_driver(tmp_path: Path) -> None:
    path = tmp_path / "version"
    path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n")
    assert nvidia_driver(path) == "550.54.15"
    assert nvidia_driver(tmp_path / "none") is None


def test_limits_of_containers(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("0::/\n")
    root.mkdir()
    (root / "memory.max").write_text("4000000000\n")
    (root / "memory.current").write_text("1000000000\n")
    assert machine._container_limits(root, own) == [(4_000_000_000, 1_000_000_000)]
