"""Imports go down only: the contracts of pyproject.toml hold, and they cover every module."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def test_import_contracts_hold() -> None:
    # in a process of its own, because import-linter silences the loggers of the one it runs in
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_layers_are_exhaustive() -> None:
    layers = next(contract for contract in CONTRACTS if contract["type"] == "layers")
    assert layers["exhaustive"]
    named = {name.strip() for layer in layers["layers"] for name in layer.split("|")}
    package = ROOT / "src" / "neuropil"
    found = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert named >= found - {"__init__"}
