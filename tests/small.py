"""Small files to run commands on: a stack with labels, a random-weight recursive pair, a recursive run's TOML."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tiny import TINY, TINY_RECURSIVE, tiny_stack

from neuropil.blockwise import SerialPool
from neuropil.cli import main
from neuropil.networks.checkpoint import Model, save_model
from neuropil.networks.network import DenseNetwork
from neuropil.volume import create_volume, open_volume

VOXEL_SIZE, OFFSET = (50.0, 4.0, 4.0), (100.0, 40.0, 80.0)


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def command(*words: object) -> Outcome:
    """Run the command line inside this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return Outcome(code, out.getvalue(), err.getvalue())


def good(*words: object) -> str:
    """Run a command that must succeed; return what it printed."""
    done = command(*words, "--quiet")
    assert done.code == 0, done.err
    return done.out


def stop_after(monkeypatch: pytest.MonkeyPatch, predictor: type, blocks: int, words: list[object]) -> None:
    """Run a command that the user stops when this class has predicted so many blocks."""
    calls = iter(range(blocks + 1))

    def stop(*args: Any, run: Any = predictor.__call__) -> Any:
        if next(calls) == blocks:
            raise KeyboardInterrupt
        return run(*args)

    with monkeypatch.context() as patch:
        patch.setattr(predictor, "__call__", stop)
        assert command(*words).code == 130


def sentence(*words: object) -> str:
    """Run a command that must fail with exit code 2 and one line on stderr; return that line."""
    done = command(*words)
    assert done.code == 2, (done.code, done.out)
    assert done.out == ""
    assert done.err.startswith("neuropil: "), done.err
    assert done.err.count("\n") == 1, done.err
    assert done.err.endswith("\n")
    return done.err.removeprefix("neuropil: ").strip()


def process(*words: object, **options: Any) -> subprocess.Popen[str]:
    """Start the command line as a process of its own."""
    argv = [sys.executable, "-m", "neuropil", *map(str, words)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def store(uri: object, array: np.ndarray, **facts: Any) -> str:
    """Write a volume; return its URI."""
    with create_volume(str(uri), shape=array.shape, dtype=array.dtype, **facts) as volume:
        volume.write(None, array)
    return str(uri)


def load(uri: object) -> np.ndarray:
    with open_volume(str(uri)) as volume:
        return volume.read()


def stack(path: Path, shape: tuple[int, int, int] = (6, 40, 44), seed: int = 0) -> Path:
    """Write datasets raw, labels (ids, 0 = boundary) and mask (1) of cells with dark lines between them."""
    made = tiny_stack(shape=shape, seed=seed)
    y, x = np.mgrid[: shape[1], : shape[2]]
    labels = np.where(made.target == 1, 0, 1 + (y // 13) * 10 + x // 11).astype(np.uint64)
    facts = {"voxel_size": VOXEL_SIZE, "offset": OFFSET}
    store(f"{path}:raw", made.image, kind="image", **facts)
    store(f"{path}:labels", labels, kind="labels", **facts)
    store(f"{path}:mask", np.ones(shape, np.uint8), kind="mask", **facts)
    return path


def pair(path: Path, seed: int = 0, card: dict[str, Any] | None = None) -> Path:
    """Write a recursive pair with random weights, whose card says more where told."""
    networks = (DenseNetwork(TINY, seed + 1), DenseNetwork(TINY_RECURSIVE, seed + 2))
    save_model(path, Model(networks, {"voxel_size": list(VOXEL_SIZE)} | (card or {})))
    return path


def recipe_toml(folder: Path, data: Path, *, updates: int = 12) -> Path:
    """Write the configuration of a recursive run of two networks, flat and deep."""
    path = folder / "run.toml"
    path.write_text(f"""
[train]
output = "{folder / "run"}"
seed = 3
[train.recipe]
learning_rate = 0.05
validate_every = 6
checkpoint_seconds = 60
[[train.stacks]]
name = "a"
image = "{data}:raw"
labels = "{data}:labels"
sections = [0, 4]
[[train.validation]]
name = "v"
image = "{data}:raw"
labels = "{data}:labels"
sections = [4, 6]
[[train.networks]]
name = "flat"
architecture = {json.dumps(TINY.lines)}
patch = [1, 16, 16]
updates = {updates}
[[train.networks]]
name = "deep"
architecture = {json.dumps(TINY_RECURSIVE.lines)}
join = "conv1"
patch = [1, 16, 16]
updates = {updates}
maps_from = "flat"
initialise_from = "flat"
""")
    return path


def tree(folder: Path) -> set[str]:
    """Every path below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@contextlib.contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """No path below the folder may come or go."""
    before = tree(folder)
    yield
    assert tree(folder) == before


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a disk of `size` at `folder`, or skip the test where that is not permitted."""
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Stopping(SerialPool):
    """Stops the run, as a user would, after some blocks."""

    left = 0  # blocks

    def next(self) -> Any:
        if Stopping.left == 0:
            raise KeyboardInterrupt
        Stopping.left -= 1
        return super().next()
