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
from tiny import TINY, TINY_RECURSIVE

from neuropil.cli import main
from neuropil.config import load
from neuropil.networks.checkpoint import Model, save_model
from neuropil.networks.network import DenseNetwork
from neuropil.stages import STAGES, StageResult, module_of

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "changes").glob("*.md"))]
# from real data, where they are; by a browser (docs/view_pictures.py)
NOT_DRAWN = {"piriform_n4.png", "view_labels.png", "view_maps.png", "view_edits.png"}
NOT_RUN = {"docs/howto/data.md"}  # its Python downloads
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page, language):
    """Fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page):
    """Every line of a code block that calls neuropil, as argv."""
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    fenced = [line for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]
    lines = [*fenced, *re.findall(r"^ {4}(.*)$", text, re.M)]
    calls = [part.strip() for line in lines for part in line.removeprefix("$ ").split("&&")]
    return [shlex.split(call, comments=True)[1:] for call in calls if re.match(r"neuropil [a-z-]", call)]


def toml_files(page):
    """TOML blocks whose first line is a comment with a file's name, those of the README included."""
    named = {}
    for one in (ROOT / "README.md", page):
        for block in blocks(one, "toml"):
            if match := re.match(r"# (\S+\.toml)\n", block):
                named[match[1]] = block
    return named


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
    if str(page.relative_to(ROOT)) in NOT_RUN:
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
