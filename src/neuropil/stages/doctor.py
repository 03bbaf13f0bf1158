"""neuropil doctor: is this machine and installation fit for work? Every line says what was found, and what to do.

A warning is something that makes work slow or small; only what is marked broken stops work, and ends with exit code 2.
What is optional and not installed is told with the line that installs it.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
from pydantic import Field

from neuropil import __version__, machine
from neuropil.config import StageConfig
from neuropil.errors import InputError
from neuropil.stages import StageResult
from neuropil.stages.checks import Check, checked, report
from neuropil.stages.doctor_machine import disk_checks, machine_checks, python_check
from neuropil.volume import create_volume, open_volume

EXAMPLES = ["neuropil doctor", "neuropil doctor --folder /scratch", "neuropil doctor --json machine.json"]
POSITIONAL = ()


class Config(StageConfig):
    """Fields of [doctor]."""

    folder: Path = Field(Path("."), description="where outputs shall go: its space, speed and inodes are looked at")
    probe_mb: int = Field(64, gt=0, description="MB that are written there and read back, to time it")


def run(config: Config) -> StageResult:
    """Look at everything; nothing is left behind."""
    if not config.folder.is_dir():
        raise InputError(f"folder must exist; got {config.folder}")
    checks = [
        python_check(),
        *installed_checks(),
        *machine_checks(),
        *torch_checks(),
        checked("kernels", _kernels, "numba cannot compile here; set NUMBA_CACHE_DIR to a folder you may write to"),
        checked("volumes", _volumes, "a storage library is broken; install tensorstore, h5py and tifffile anew"),
        *disk_checks(config.folder, config.probe_mb << 20),
        *extra_checks(),
    ]
    return report(f"neuropil {__version__}", checks)


def installed_checks() -> Iterator[Check]:
    """Look whether what neuropil needs is installed."""
    names = list(requirements())
    missing = [name for name in names if not _has(name)]
    if missing:
        yield Check("packages", "broken", f"not installed: {', '.join(missing)}", "pip install -c requirements.lock .")
    elif names:
        yield Check("packages", "ok", f"all {len(names)} that are needed are installed")
    else:
        yield Check("packages", "warning", "neuropil itself is not installed, only imported", "pip install .")


def extra_checks() -> Iterator[Check]:
    """Look which of the optional extras are installed."""
    for extra in sorted({extra for _, extra in _requirements() if extra}):
        names = list(requirements(extra))
        missing = [name for name in names if not _has(name)]
        line = f"pip install 'neuropil[{extra}]'"
        if missing:
            yield Check(f"extra {extra}", "absent", f"optional, without {', '.join(missing)}", line)
        else:
            yield Check(f"extra {extra}", "ok", ", ".join(f"{name} {metadata.version(name)}" for name in names))


def torch_checks() -> Iterator[Check]:
    """Look whether torch computes, and on what."""
    try:
        from neuropil.networks.health import torch_facts

        facts = torch_facts()
    except Exception as error:  # a broken wheel fails in any way it likes
        yield Check("torch", "broken", f"does not run: {error}", "install it anew: pip install --force-reinstall torch")
        return
    cuda = f", CUDA {facts.cuda}" if facts.cuda else ", without CUDA"
    yield Check("torch", "ok", f"{facts.version}{cuda}, a convolution is right")
    driver = nvidia_driver()
    if facts.gpus:
        yield Check("GPU", "ok", f"{'; '.join(facts.gpus)}{f', driver {driver}' if driver else ''}")
    elif driver:
        advice = "install torch with CUDA, or a driver that is new enough for it; until then the CPU is used"
        yield Check("GPU", "warning", f"NVIDIA driver {driver}, but torch sees no GPU", advice)
    else:
        yield Check("GPU", "ok", "none; the CPU is used")
    if facts.threads < machine.cores():
        advice = "unset OMP_NUM_THREADS, or set it to the number of cores, unless many runs share this machine"
        yield Check("threads", "warning", f"{facts.threads} of {machine.cores()} cores used by torch", advice)
    else:
        yield Check("threads", "ok", f"{facts.threads} of {machine.cores()} cores")


def requirements(extra: str | None = None) -> Iterator[str]:
    """Give the names of the packages that neuropil, or one of its extras, needs."""
    return (name for name, of in _requirements() if of == extra)


def _requirements() -> list[tuple[str, str | None]]:
    """Return each package that is named, and the extra that it is for."""
    try:
        lines = metadata.requires("neuropil") or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for line in lines:
        name, of = re.match(r"[A-Za-z0-9._-]+", line), re.search(r"extra\s*==\s*['\"]([^'\"]+)", line)
        if name:
            found.append((name[0], of[1] if of else None))
    return found


def nvidia_driver(path: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Return the version of the kernel's NVIDIA driver, if there is one."""
    try:
        found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", path.read_text())
    except OSError:
        return None
    return found[1] if found else None


def _has(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _kernels() -> str:
    """Have a kernel compiled, or loaded, and run."""
    from neuropil.labels import relabel

    assert relabel([0, 7, 7, 3]).ids.tolist() == [0, 3, 7]
    place = os.environ.get("NUMBA_CACHE_DIR")
    return f"numba {metadata.version('numba')} compiles, kept in {place or 'the folder of the package'}"


def _volumes() -> str:
    """Write and read back a volume of each library."""
    block = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.zarr", "b.h5:raw", "c.tif"):
            with create_volume(f"{folder}/{name}", shape=block.shape, dtype=np.uint8) as volume:
                volume.write(None, block)
            with open_volume(f"{folder}/{name}") as volume:
                if not np.array_equal(volume.read(), block):
                    raise ValueError(f"{name} does not read back as written")
    return "zarr, HDF5 and TIFF are written and read back"
