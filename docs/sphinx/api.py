"""Write the pages that come from the code: python docs/sphinx/api.py FOLDER.

One page per noun of the package and one per module, from their docstrings; a page of the public names; a page of all
commands with their options; a page of the changes to come. A new module, name, command or change needs nothing here.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import pkgutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import neuropil
from neuropil.cli import main as neuropil_command
from neuropil.stages import STAGES

COMMANDS = ("cli", "stages")
"""Modules that are commands: the page of commands and the how-to pages have them."""
CHANGES = Path(__file__).parents[2] / "changes"
KINDS = {"feature": "New", "fix": "Mended", "removal": "Gone", "doc": "Documentation"}


def main(folder: Path) -> None:
    """Write all pages into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    modules = [importlib.import_module(name) for name in _names(neuropil)]
    nouns = [one for one in modules if one.__name__.count(".") == 1]
    for one in modules:
        parts = [part for part in modules if part.__name__.rpartition(".")[0] == one.__name__]
        (folder / f"{one.__name__}.rst").write_text(_module_page(one, parts))
    (folder / "index.rst").write_text(_index_page(nouns))
    (folder / "commands.md").write_text(_commands_page())
    (folder / "changes.md").write_text(_changes_page())


def _names(package: ModuleType) -> Iterable[str]:
    """Return the names of all public modules, packages before what is in them."""
    for _, name, is_package in pkgutil.iter_modules(package.__path__):
        if name.startswith("_") or name in COMMANDS:
            continue
        yield f"{package.__name__}.{name}"
        if is_package:
            yield from _names(importlib.import_module(f"{package.__name__}.{name}"))


def _module_page(module: ModuleType, parts: Sequence[ModuleType]) -> str:
    name = module.__name__.removeprefix("neuropil.")
    page = f"{_title(name)}.. automodule:: {module.__name__}\n   :members:\n"
    return page + (f"\n{_table(parts, short=True)}{_toctree(parts)}" if parts else "")


def _index_page(nouns: Sequence[ModuleType]) -> str:
    names = [(name, getattr(neuropil, name)) for name in neuropil.__all__]
    rows = [(f":py:obj:`~{_home(name, value)}`", _first_line(value)) for name, value in names]
    return (
        f"{_title('Python API')}"
        "Algorithms are functions on arrays, in modules named by their noun. All of these names can be imported\n"
        "from ``neuropil`` itself; that is cheap, since nothing is loaded before it is used. Everything else is\n"
        "imported from the module that holds it. Examples on these pages are tested.\n\n"
        f"{_section('Public names')}{_rows(rows)}\n"
        f"{_section('Modules by noun')}{_table(nouns, short=False)}{_toctree(nouns)}"
    )


def _commands_page() -> str:
    os.environ["COLUMNS"] = "100"  # argparse wraps its help to this
    parts = []
    for verb, text in STAGES.items():
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            neuropil_command([verb, "--help"])
        parts.append(f"## neuropil {verb}\n\nTo {text}.\n\n```text\n{printed.getvalue()}```\n")
    lead = (
        "# Commands\n\nWhat `neuropil COMMAND --help` prints. Every option is also a key of the command's table in a"
        " TOML file.\n\n"
    )
    return lead + "\n".join(parts)


def _changes_page() -> str:
    parts = ["# Changes to come\n\nWhat the next release will bring.\n"]
    for kind, title in KINDS.items():
        texts = [path.read_text().strip() for path in sorted(CHANGES.glob(f"*.{kind}.md"))]
        if texts:
            parts.append(f"## {title}\n\n" + "\n".join(f"- {' '.join(text.split())}" for text in texts) + "\n")
    return "\n".join(parts)


def _table(modules: Sequence[ModuleType], *, short: bool) -> str:
    return _rows(
        [
            (f":py:mod:`{one.__name__.rpartition('.')[2] if short else _noun(one)} <{one.__name__}>`", _first_line(one))
            for one in modules
        ]
    )


def _noun(module: ModuleType) -> str:
    return module.__name__.removeprefix("neuropil.")


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    lines = [".. list-table::", "   :class: names", ""]
    for name, text in rows:
        lines += [f"   * - {name}", f"     - {text}"]
    return "\n".join([*lines, "", ""])


def _toctree(modules: Sequence[ModuleType]) -> str:
    return "\n".join([".. toctree::", "   :hidden:", "", *(f"   {one.__name__}" for one in modules), ""])


def _home(name: str, value: Any) -> str:
    """Return the full name under which something is documented."""
    if inspect.isclass(value) or inspect.isfunction(value):
        return f"{value.__module__}.{value.__qualname__}"
    home = next(home for home, names in neuropil._HOMES.items() if name in names)
    return f"neuropil.{home}.{name}"


def _first_line(value: Any) -> str:
    """Return the first sentence of a docstring."""
    text = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    return text.replace("*", r"\*")


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n\n"


def _section(text: str) -> str:
    return f"{text}\n{'-' * len(text)}\n\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
