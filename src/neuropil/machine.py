"""What a process that runs networks asks of its machine: quiet threads, memory that is kept, how much there is.

Large arrays come and go with every layer. The C library gives each back to the system and gets it anew, page by page,
which costs much of a training step and of a pass over a large tile; `keep_memory` has it keep them. Threads of torch
that have nothing to do spin for a while, in the way of the compiled kernels' threads; `quiet_threads` shortens that.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""Of activations; "auto" is bfloat16 on a GPU, float32 elsewhere."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of mallopt, see malloc.h
_SPINS = "20000"  # about 50 microseconds


def quiet_threads() -> None:
    """Shorten the time that idle threads of torch spin; without effect once torch is imported, or not on Linux."""
    if "torch" not in sys.modules:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def cores() -> int:
    """Return the number of cores that this process may use.

    >>> cores() >= 1
    True
    """
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def keep_memory(keep: bool) -> None:
    """Have freed arrays kept for the next ones, or given back. Without effect where the C library is not GNU's.

    The first pass at a new shape is best done without: what the libraries set up then, and never free, would lie
    between the arrays and tear the memory into pieces.
    """
    if library := _c_library():
        library.mallopt(_MMAP_THRESHOLD, 4 << 20)
        library.mallopt(_MMAP_MAX, 0 if keep else 65536)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1 if keep else 64 << 20)


def release() -> None:
    """Give freed memory back to the system."""
    if library := _c_library():
        library.malloc_trim(0)


def resident() -> int:
    """Bytes of memory that this process holds now; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def peak_resident() -> int:
    """Bytes of memory that this process has held at most; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration, ValueError):
        return 0


def forget_peak() -> None:
    """Let `peak_resident` begin anew with what is held now, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def ends_after(seconds: float | None, trace: Path) -> Iterator[None]:
    """End this process if what is in the `with` block takes longer, and leave in a file where it was.

    A thread of C watches, so that neither a loop that never gives way nor a system call that never returns escapes. The
    file is there, empty, meanwhile; so it also tells whether a process that was killed had begun.
    """
    trace.parent.mkdir(parents=True, exist_ok=True)
    with trace.open("w") as file:
        try:
            if seconds is not None:
                faulthandler.dump_traceback_later(seconds, exit=True, file=file)
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            trace.unlink(missing_ok=True)


def available_memory() -> int:
    """Bytes that this process may take beside what it holds: what is free, or less where a container sets a limit."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 if hasattr(os, "sysconf") else 4 << 30
    limits = [limit - used for limit, used in _container_limits()]
    return max(0, min([free, *limits]))


def memory_limit() -> int | None:
    """Bytes that a container allows in all; None where none is set."""
    limits = [limit for limit, _ in _container_limits() if limit < 1 << 60]  # version 1 writes "no limit" as 2**63
    return min(limits, default=None)


def _container_limits(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> list[tuple[int, int]]:
    """Limit and use in bytes of each control group, version 2 or 1, that this process is in."""
    found = []
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return []
    for _, controllers, path in lines:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / "memory" if controllers else root
        folder = base / path.strip("/")
        for place in [folder, *folder.parents]:
            limit, used = place / names[0], place / names[1]
            with suppress(OSError, ValueError):  # "max", or not visible from inside
                found.append((int(limit.read_text()), int(used.read_text())))
            if place == base:
                break
    return found


def has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16; without, it is correct but far slower than float32."""
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(cpu_flags())


def half_gains_little() -> bool:
    """Whether the processor multiplies bfloat16 only twice as fast as float32, which minimal filtering makes up for."""
    return "avx512_bf16" in cpu_flags() and "amx_bf16" not in cpu_flags()


def cpu_flags() -> frozenset[str]:
    """Return what the processor says it can do, such as "avx2"; empty where the system does not say."""
    words: set[str] = set()
    for line in _cpuinfo():
        if line.lower().startswith(("flags", "features")):
            words.update(line.partition(":")[2].split())
    return frozenset(words)


def cpu_name() -> str:
    """Return the processor's name, or its architecture where the system does not say."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def _c_library() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
