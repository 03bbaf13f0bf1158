"""README and docs cannot rot: commands parse, TOML is valid, Python runs, links lead somewhere."""

import doctest
import importlib
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest
from pages import PAGES, ROOT, blocks, commands, name_of, toml_files
from tiny import TINY, TINY_RECURSIVE

from neuropil.cli import main
from neuropil.config import load
from neuropil.networks.checkpoint import Model, save_model
from neuropil.networks.network import DenseNetwork
from neuropil.stages import STAGES, StageResult, module_of

# from real data, where they are; by a browser (docs/view_pictures.py)
NOT_DRAWN = {"piriform_n4.png", "view_labels.png", "view_maps.png", "view_edits.png"}
NOT_RUN = {"docs/howto/data.md"}  # its Python downloads
each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def config_class(verb):
    return importlib.import_module(module_of(verb)).Config


@each_page
def test_commands_parse(page, tmp_path, monkeypatch, capsys):
    """Every command line goes through the real CLI, only the stage itself does nothing."""
    monkeypatch.chdir(tmp_path)
    for name, text in toml_files(page).items():
        (tmp_path / name).write_text(text)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for argv in commands(page):
        if argv[0] in STAGES:
            monkeypatch.setattr(f"{module_of(argv[0])}.run", lambda config: StageResult(""))
        assert main(argv) == 0, f"{shlex.join(argv)}: {capsys.readouterr().err}"


@each_page
def test_commands_in_running_text_exist(page):
    for verb in re.findall(r"`neuropil ([a-z-]+)", page.read_text()):
        assert verb in STAGES


@each_page
def test_toml_is_valid(page, tmp_path):
    """Named blocks are whole files; others are parts, valid once the keys of README's run.toml are added."""
    rest = tomllib.loads(toml_files(page)["run.toml"])
    for block in blocks(page, "toml"):
        tables = tomllib.loads(block)
        for verb in tables:
            assert verb in STAGES
            if block.startswith("# ") and ".toml\n" in block:
                path = tmp_path / "block.toml"
                path.write_text(block)
                load(config_class(verb), verb, list(STAGES), path)
            else:
                config_class(verb).model_validate({**rest.get(verb, {}), **tables[verb]})


@each_page
def test_python_runs(page, tmp_path, monkeypatch):
    """The Python blocks of a page run one after the other, in a folder with a stack and a model."""
    code = [block for block in blocks(page, "python") if ">>>" not in block]
    if name_of(page) in NOT_RUN:
        for block in code:
            compile(block, page.name, "exec")
        return
    monkeypatch.chdir(tmp_path)
    if code:
        with h5py.File("stack.h5", "w") as file:
            file["raw"] = np.random.default_rng(0).integers(0, 256, (8, 256, 256), np.uint8)
            file["raw"].attrs["resolution"] = (50.0, 4.0, 4.0)
        save_model(Path("model.safetensors"), Model((DenseNetwork(TINY), DenseNetwork(TINY_RECURSIVE))))
    names = {}
    for block in code:
        exec(compile(block, page.name, "exec"), names)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.testfile(str(page), module_relative=False, optionflags=flags).failed == 0


@each_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_command_has_a_place_in_the_docs():
    text = "".join(page.read_text() for page in PAGES)
    assert [verb for verb in STAGES if f"neuropil {verb}" not in text] == []


def test_pictures_are_what_the_code_draws(tmp_path):
    spec = importlib.util.spec_from_file_location("docs_pictures", ROOT / "docs" / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(tmp_path)
    folders = (tmp_path, ROOT / "docs" / "pictures")
    drawn, kept = ({file.name: file.stat().st_size for file in folder.glob("*.png")} for folder in folders)
    assert drawn.keys() | NOT_DRAWN == kept.keys()
    assert max(kept.values()) < 100_000
