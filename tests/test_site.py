"""The documentation site: its side bar, what its check finds, and that the API pages hold every public name."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path, PurePosixPath
from types import ModuleType

import neuropil

DOCS = Path(__file__).parent.parent / "docs"


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / "sphinx" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_side_bar_follows_the_index_and_takes_in_new_pages() -> None:
    index = "# A\n\n## Start\n\n[R](../README.md) [b](b.md) [again](b.md#x)\n\n"
    index += "## How to\n\n[c](howto/c.md)\n\n## Reference\n\n[d](d.md)"
    start, howto, reference = module("navigation").navigation(index, PurePosixPath("docs")).split("\n\n```{toctree}")
    assert start.splitlines()[-3:] == ["Cookbook </README>", "/docs/b", "```"]
    assert howto.splitlines()[-3:] == ["/docs/howto/c", "/docs/howto/*", "```"]
    assert "/docs/d" in reference
    assert "/docs/api/index" in reference


def test_every_page_is_in_the_side_bar() -> None:
    made = module("navigation").navigation((DOCS / "index.md").read_text(), PurePosixPath("docs"))
    for page in DOCS.glob("*.md"):
        assert f"/docs/{page.stem}\n" in made or page.stem == "index", page
    assert "/docs/howto/*" in made


def test_the_check_finds_dead_links_and_what_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    check, good = module("check"), '<p id="here">x</p><a href="b.html#there">b</a><a href="https://elsewhere.org">e</a>'
    (tmp_path / "a.html").write_text(good)
    (tmp_path / "b.html").write_text(
        '<h1 id="there">t</h1><a href="a.html#here">a</a><img src="data:image/png;base64,x">'
    )
    assert check.main(tmp_path) == 0
    (tmp_path / "c.html").write_text(
        '<a href="nowhere.html">n</a><a href="a.html#nothing">n</a><script src="https://cdn.org/x.js"></script>'
        '<link rel="stylesheet" href="//fonts.org/f.css"><img src="absent.png">'
    )
    (tmp_path / "s.css").write_text("@font-face{src:url('https://fonts.org/f.woff')} p{background:url(local.png)}")
    assert check.main(tmp_path) == 6


def test_pages_from_the_code_hold_all_public_names_and_commands(tmp_path: Path) -> None:
    api = module("api")
    api.main(tmp_path)
    index, commands = (tmp_path / "index.rst").read_text(), (tmp_path / "commands.md").read_text()
    for name in neuropil.__all__:
        assert f"{name}`" in index, name
    assert (tmp_path / "neuropil.segmentation.watershed.rst").exists()
    assert not list(tmp_path.glob("neuropil._*"))
    assert "## neuropil predict" in commands
    assert "--max-memory" in commands
    assert "docs/sphinx" not in (tmp_path / "changes.md").read_text()


def test_the_check_is_a_command(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html">b</a>')
    done = subprocess.run([sys.executable, DOCS / "sphinx" / "check.py", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert "links to b.html, which is not there" in done.stdout
