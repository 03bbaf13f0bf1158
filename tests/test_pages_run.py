"""Every command of the README and of the how-to pages is run, one after the other, as a reader would.

What a page makes is used by its later commands; what the reader is supposed to have is put there, small. Sizes that
a test has no time for are made smaller by `SMALLER`; all else stays as printed.
"""

import contextlib
import re
import shlex
import shutil
import tomllib
from contextlib import nullcontext
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_znn as znn
from pages import PAGES, ROOT, commands, name_of, toml_files
from small import good, load, pair, store

from neuropil.cli import main
from neuropil.networks import packaged
from neuropil.networks.architecture import N4
from neuropil.segmentation.affinities import NEAREST, Affinities, affinities_from_labels
from neuropil.stages import view
from neuropil.stages.affinities import write_affinities

SMALLER = {
    r"--margin 20,512,512": "--margin 2,8,8",
    r"\b20,(384,384|512,512)\b": "20,128,128",
    r"\bupdates( ?= ?)\d+": r"updates\g<1>2",
    r"\bpatch = \[.*\]": "patch = [1, 16, 16]",
    r"\bshape = \[20, 384, 384\]": "shape = [20, 128, 128]",
    r"\b0:(64|128),0:(512|4096),0:\2\b": "0:8,0:64,0:64",
    r"\bblock = \[64, 512, 512\]": "block = [8, 64, 64]",
    r"--sections 20:60 --rows 0:300 --columns 0:300 --block 16,100,100": "--sections 20:28 --block 4,64,64",
    r"--block 64,512,512": "--block 8,64,64",
    r"--simulate 250": "--simulate 60",
    r"--shape (1,256,256)": "--shape 1,64,64",
    r"--sections 0:100\b": "--sections 0:8",
    r"\bsections = \"80:100\"": 'sections = "20:40"',
    r"\borigin = \[80, 0, 0\]": "origin = [0, 0, 0]",
    r"--crop 768": "--crop 64",
    r"--folder /scratch": "--folder .",
}
MORE = {"run": ["--executor", "serial"], "view": ["--no-open"]}
NOT_RUN = {
    "^data ": "downloads",
    "^demo ": "test_demo and test_demo_affinities run it",
    r"^benchmark examples/benchmark\.toml": "minutes, on data that are not here: benchmarks/harness keeps its results",
    r"^run cluster\.toml": "needs SLURM: test_clusters has a small one",
    "data://": "needs data that are not here",
    "s3://": "needs a bucket: test_run_bucket has one",
}
ELSEWHERE = {"docs/tutorial.md": "test_readme: its pictures are made of what its commands make"}
NAME = r"(?:\w+://)?(runs/\w+|sections|[a-zA-Z][^:]*?\.[a-z]\w+)(?:[:/](\S*))?"  # path and dataset of a URI
FEW = (*NEAREST, (0, -9, 0), (0, 0, -9))
PLACES = {"synthetic": 1, "convert": 2, "import-znn": 2, "export": 2}  # of the output among the words
WRITES = {
    "all": {"--output", "--json", "--confidence", "--save-state"},
    "segment": {"--fragments"},
    "run": {"--fragments"},
    "fuse": {"--mask"},
    "apply-edits": {"--mask"},
}
PAGES_RUN = [
    page for page in PAGES if commands(page) and name_of(page) not in ELSEWHERE and page.parent.name != "changes"
]


class Shelf:
    """What a reader is supposed to have, made once; `put` lays it where a command asks for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        good("synthetic", folder / "all.h5", "--shape", "40,128,128", "--voxel-size", "30,12,12")
        self.image, self.labels = load(f"{folder}/all.h5:raw"), load(f"{folder}/all.h5:labels")
        linked = affinities_from_labels(self.labels, FEW).affinities
        noise = np.random.default_rng(0).normal(0, 0.1, linked.shape)
        self.links = (np.clip(linked * 0.8 + 0.1 + noise, 0, 1) * 255).astype(np.uint8)
        self.write_affinities(f"{folder}/affinities.zarr")
        good("segment", "--input", folder / "affinities.zarr", "--output", folder / "ids.zarr", "--method", "mean",
             "--fragments", folder / "fragments.zarr", "--merge-threshold", "0.5")  # fmt: skip
        good("crowd", "--simulate", 60, "--output", folder / "votes.parquet")
        (folder / "votes.segments.parquet").rename(folder / "segments.parquet")

    @cached_property
    def trained(self) -> Path:
        """A run of the README's configuration."""
        folder = self.folder / "training"
        folder.mkdir()
        (folder / "run.toml").write_text(smaller(toml_files(ROOT / "README.md")["run.toml"]))
        with contextlib.chdir(folder):
            good("synthetic", "tissue.h5", "--shape", "20,128,128")
            good("train", "run.toml")
            some = ["--output", "map.h5:map", "--sections", "14:19"]
            good("predict", "--weights", "runs/mine/model.safetensors", "--input", "tissue.h5:raw", *some)
            truth = ["--truth", "tissue.h5:labels", "--truth-sections", "14:19", "--image", f"{folder}/tissue.h5:raw"]
            good("evaluate", "--boundary", "map.h5:map", *truth, "--run", "runs/mine")
        return folder / "runs" / "mine"

    def write_affinities(self, uri: str) -> None:
        write_affinities(uri, Affinities(self.links, FEW), place={"voxel_size": (30, 12, 12)}, overwrite=False)

    def store(self, path: Path, dataset: str | None, array: np.ndarray, **facts: object) -> None:
        store(f"{path}:{dataset}" if dataset else path, array, voxel_size=(30, 12, 12), **facts)

    def put(self, path: Path, dataset: str | None, argv: list[str]) -> None:
        """Make what the name promises; names that promise nothing are left for the command to complain of."""
        name, kept = path.name, self.folder / path.name
        same_as = {"more.zarr": "affinities.zarr", "theirs.zarr": "ids.zarr", "other.zarr": "ids.zarr",
                   "neurons.zarr": "ids.zarr", "segmentation.zarr": "ids.zarr"}  # fmt: skip
        kept = self.folder / same_as.get(name, name)
        if kept.is_dir():
            for one in self.folder.glob(f"{kept.name}*"):  # records and graphs beside it, too
                there = path.with_name(one.name.replace(kept.name, name))
                shutil.copytree(one, there) if one.is_dir() else shutil.copy(one, there)
        elif kept.exists():
            shutil.copy(kept, path)
        elif name in ("theirs.h5", "prediction.zarr"):
            path.unlink(missing_ok=True)
            self.store(path, dataset, self.links if "--offsets" in " ".join(argv) else self.links[:3])
        elif name in ("boundary.h5", "map.h5"):
            self.store(path, dataset, 255 - self.links.min(axis=0), kind="boundary", scale=1 / 255)
        elif name == "affinities.h5":
            self.write_affinities(f"{path}:{dataset}")
        elif path == Path("runs/unet"):
            path.mkdir(parents=True)
            for end in ("safetensors", "json"):
                shutil.copy(packaged.FOLDER / f"affinity-ssem.{end}", path / f"model.{end}")
        elif path in (Path("runs/demo"), Path("runs/mine")):
            path.mkdir(parents=True)
            pair(path / "model.safetensors")
        elif path.parent == Path("runs"):
            shutil.copytree(self.trained, path, dirs_exist_ok=True)
        elif name in ("net_current.h5", "N4.znn"):
            znn.save(path, znn.small()) if path.suffix == ".h5" else path.write_text(znn.described(N4))
        elif name == "sections":
            self.store(path.with_name("volume.h5"), "raw", self.image, kind="image")
            good("convert", path.with_name("volume.h5:raw"), path)
        elif name == "dendrites.tif":
            self.store(path, None, np.ones(self.labels.shape, np.uint8), kind="mask")
        elif name == "tissue.h5":
            self.store(path, "raw", self.image, kind="image")
            self.store(path, "labels", self.labels, kind="labels")
        elif re.fullmatch(r"(stack|raw|image|ac4)\.\w+", name):
            few = name in ("stack.h5", "stack.tif", "image.zarr")  # networks run on these
            self.store(path, dataset, self.image[:8] if few else self.image, kind="image")
        elif dataset or name == "labels.tif":
            self.store(path, dataset, self.labels, kind="labels")


def smaller(text: str) -> str:
    """Make sizes in a command or a configuration fit a test."""
    for pattern, instead in SMALLER.items():
        text = re.sub(pattern, instead, text)
    return text


def outputs(argv: list[str]) -> list[str]:
    """Words that name what a command writes."""
    options = WRITES["all"] | WRITES.get(argv[0], set())
    place = PLACES.get(argv[0], len(argv))
    return argv[place : place + 1] + [word for before, word in pairwise(argv) if before in options]


def strings(table: Any) -> list[str]:
    """All values of a table that are text, but the output."""
    if isinstance(table, dict):
        return [word for key, value in table.items() if key != "output" for word in strings(value)]
    return [word for value in table for word in strings(value)] if isinstance(table, list) else [str(table)]


def asked_for(argv: list[str]) -> list[tuple[Path, str | None]]:
    """Files that a command or its configuration reads."""
    words = [word for word in argv if word not in outputs(argv)]
    for word in argv:
        if word.endswith(".toml") and Path(word).exists():
            tables = tomllib.loads(Path(word).read_text())
            words += strings(tables.get("run" if argv[0] == "plan" else argv[0], {}))
    names = [name for word in words for name in word.split(",")]
    parts = [re.fullmatch(NAME, name) for name in names]
    return [(Path(part[1]), part[2] or None) for part in parts if part]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"))


@pytest.mark.parametrize("page", PAGES_RUN, ids=name_of)
def test_commands_run(
    page: Path, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(view, "_ended", lambda: nullcontext([2]))  # as by Ctrl-C
    for name, text in toml_files(page).items():
        Path(name).write_text(smaller(text))
    Path("examples").mkdir()
    for example in (ROOT / "examples").glob("*.toml"):
        Path("examples", example.name).write_text(smaller(example.read_text()))
    written: set[str] = set()
    for argv in commands(page):
        line = shlex.join(argv)
        if any(re.search(pattern, line) for pattern in NOT_RUN):
            continue
        argv = [*shlex.split(smaller(line)), *MORE.get(argv[0], [])]
        for path, dataset in asked_for(argv):
            if not path.exists() or path.name == "theirs.h5":  # whose channels differ from command to command
                shelf.put(path, dataset, argv)
                written.add(str(path))
        if page.parent.name == "howto" and argv[0] != "train" and written & set(outputs(argv)):
            argv += ["--overwrite"] * (
                "--overwrite" not in argv
            )  # how-to pages show several ways to one output; the README is one story
        written |= set(outputs(argv))
        code = main(argv)
        assert code == 0, f"{shlex.join(argv)}: {capsys.readouterr().err.splitlines()[-1:]}"
