"""What `neuropil doctor` looks at without any library: Python, processor, memory, open files, a folder's disk."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from neuropil import machine
from neuropil.stages.checks import Check

LEAST_PYTHON = (3, 11)
LEAST_MEMORY, LEAST_SPACE, LEAST_INODES = 4e9, 10e9, 100_000
LEAST_RATE, LEAST_FILES = 50e6, 100
"""Bytes and small files per second below which a disk holds work up."""


def python_check() -> Check:
    """Look at the interpreter."""
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < LEAST_PYTHON:
        return Check("Python", "broken", found, "use Python 3.11 or newer")
    return Check("Python", "ok", found)


def machine_checks() -> Iterator[Check]:
    """Look at processor, memory and open files."""
    flags, name = machine.cpu_flags(), machine.cpu_name()
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    found = f"{name}, {machine.cores()} cores{', ' + ' '.join(known) if known else ''}"
    if platform.machine() in ("x86_64", "AMD64") and flags and "avx2" not in flags:
        yield Check("processor", "warning", found, "networks are several times slower without AVX2; use a newer one")
    else:
        yield Check("processor", "ok", found)
    yield _memory()
    yield from _open_files()


def _memory() -> Check:
    free, limit = machine.available_memory(), machine.memory_limit()
    found = f"{free / 1e9:.1f} GB free" + ("" if limit is None else f", a container allows {limit / 1e9:.1f} GB in all")
    if free < LEAST_MEMORY:
        advice = "close other programs; use `neuropil run` with a smaller --block, and --max-memory for predict"
        return Check("memory", "warning", found, advice)
    return Check("memory", "ok", found)


def _open_files() -> Iterator[Check]:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < 1024:
        yield Check("open files", "warning", f"at most {soft}", f"ulimit -n {hard if hard > soft else 4096}")
    else:
        yield Check("open files", "ok", "no limit" if soft < 0 else f"at most {soft}")


def disk_checks(folder: Path, size: int) -> Iterator[Check]:
    """Look at the disk of a folder: space, inodes, and how fast `size` bytes and some small files are written."""
    where = folder.resolve()
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free at {where}"
    if free < LEAST_SPACE:
        yield Check("disk space", "warning", found, "free some, or give outputs another place")
    else:
        yield Check("disk space", "ok", found)
    yield from _inodes(folder)
    if not os.access(folder, os.W_OK):
        yield Check("disk", "broken", f"{where} cannot be written to", "give --folder another one, or its rights")
        return
    if free < 2 * size:
        yield Check("disk speed", "warning", "not measured, no space", "free some, or give a smaller --probe-mb")
        return
    try:
        writing, reading, files = probe(folder, size)
    except OSError as error:
        yield Check("disk", "broken", f"writing to {where} failed: {error.strerror}", "look at the disk, or its quota")
        return
    found = f"writes {writing / 1e6:.0f} MB/s, reads {reading / 1e6:.0f} MB/s, makes {files:.0f} small files/s"
    if writing < LEAST_RATE or files < LEAST_FILES:
        yield Check("disk speed", "warning", found, "a local disk is faster; put unfinished work and outputs there")
    else:
        yield Check("disk speed", "ok", found)


def _inodes(folder: Path) -> Iterator[Check]:
    if not hasattr(os, "statvfs"):
        return
    told = os.statvfs(folder)
    if told.f_files == 0:
        yield Check("inodes", "ok", "no limit told by this file system")
    elif told.f_favail < LEAST_INODES:
        advice = "remove folders of many small files; zarr v3, the default, keeps many chunks in one file"
        yield Check("inodes", "warning", f"{told.f_favail:,} left", advice)
    else:
        yield Check("inodes", "ok", f"{told.f_favail:,} left")


def probe(folder: Path, size: int, files: int = 100) -> tuple[float, float, float]:
    """Return bytes per second written (and synced) and read back, and small files made per second.

    What was just written is often read from memory, so the rate of reading is one at best.
    """
    block = os.urandom(1 << 20)
    with tempfile.TemporaryDirectory(prefix=".neuropil-doctor-", dir=folder) as place:
        path = Path(place) / "large"
        start = time.perf_counter()
        with path.open("wb") as file:
            for _ in range(-(-size // len(block))):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        written = time.perf_counter()
        with path.open("rb") as file:
            while file.read(len(block)):
                pass
        read = time.perf_counter()
        for k in range(files):
            (Path(place) / str(k)).write_bytes(b"0")
        made = time.perf_counter()
        return size / (written - start), size / (read - written), files / (made - read)
