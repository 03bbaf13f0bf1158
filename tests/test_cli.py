"""The command line: help, exit codes, --json, and that every field can be set."""

from __future__ import annotations

import errno
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from small import command, sentence, stack

from neuropil import __version__
from neuropil.cli import _is_nested, _parser
from neuropil.stages import STAGES, StageResult, module_of

VERBS = sorted(STAGES)


def stage(verb: str) -> ModuleType:
    return importlib.import_module(module_of(verb))


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch):
    """Make `neuropil info` raise, or return, what is given."""

    def arm(outcome: BaseException | StageResult) -> None:
        def run(config: object) -> StageResult:
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setattr(stage("info"), "run", run)

    return arm


def test_overview_and_version() -> None:
    for words in ([], ["--help"], ["help"]):
        done = command(*words)
        assert (done.code, done.err) == (0, "")
        assert all(f"  {verb} " in done.out for verb in VERBS)
    assert command("--version").out == f"neuropil {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_fields_and_examples(verb: str) -> None:
    done = command(verb, "--help")
    assert (done.code, done.err) == (0, "")
    assert all(example in done.out for example in stage(verb).EXAMPLES)
    assert all(example.startswith(f"neuropil {verb}") for example in stage(verb).EXAMPLES)
    assert "Undefined" not in done.out
    for name, field in stage(verb).Config.model_fields.items():
        assert field.description, f"{verb}.{name} needs a description"


@pytest.mark.parametrize("verb", VERBS)
def test_every_field_is_a_flag_or_a_table(verb: str) -> None:
    module = stage(verb)
    flags = _parser(verb, module)._option_string_actions
    for name, field in module.Config.model_fields.items():
        assert _is_nested(field.annotation) != (f"--{name.replace('_', '-')}" in flags), name
    assert set(module.POSITIONAL) <= set(module.Config.model_fields)


def test_help_shows_defaults_as_they_are_typed() -> None:
    shown = " ".join(command("synthetic", "--help").out.split())
    assert "(default: 20,512,512)" in shown
    assert "(default: 0)" in shown
    shown = " ".join(command("segment", "--help").out.split())
    assert "--method {components,watershed,size" in shown
    assert "--per-section, --no-per-section segment every section by itself (default: on)" in shown


def test_bad_words() -> None:
    assert sentence("predikt") == "unknown command 'predikt'; did you mean 'predict'?; see neuropil --help"
    assert sentence("info", "--ur", "x") == "unrecognized arguments: --ur; see neuropil info --help"
    assert "expected one argument" in sentence("info", "--uri")
    assert "one .toml file; got a.toml, b.toml" in sentence("info", "a.toml", "b.toml")
    assert "too many arguments: a b; expected uri" in sentence("info", "a", "b")
    assert "uri is given twice: a and --uri b" in sentence("info", "a", "--uri", "b")


def test_words_and_flags_in_any_order(tmp_path: Path) -> None:
    data = stack(tmp_path / "s.h5")
    (tmp_path / "run.toml").write_text("[info]\nmax_mb = 1")
    for words in (
        ["info", f"{data}:raw", "--max-mb", 1, tmp_path / "run.toml"],
        ["info", "--max-mb", 1, f"{data}:raw"],
        ["info", tmp_path / "run.toml", "--uri", f"{data}:raw", "--quiet"],
    ):
        done = command(*words)
        assert done.code == 0, done.err
        assert f"{data}:raw" in done.out


def test_json_is_written_whole_or_not_at_all(tmp_path: Path, raising) -> None:
    path = tmp_path / "out.json"
    raising(StageResult("done", {"a": float("nan"), "b": [float("inf"), (1.5, Path("x"))]}))
    assert command("info", "x", "--json", path).out == "done\n"
    assert json.loads(path.read_text(), parse_constant=lambda text: pytest.fail(text)) == {
        "a": None,
        "b": [None, [1.5, "x"]],
    }
    raising(RuntimeError("must not be called"))
    assert "must name a file in a folder that exists" in sentence("info", "x", "--json", tmp_path / "no" / "out.json")
    raising(StageResult("done"))
    assert "is a directory" in sentence("info", "x", "--json", tmp_path)
    assert sorted(tmp_path.iterdir()) == [path]


def test_exit_codes(raising) -> None:
    raising(KeyboardInterrupt())
    done = command("info", "x")
    assert (done.code, done.out) == (130, "")
    assert done.err == "stopped; the same command continues where it left off\n"
    raising(OSError(errno.ENOSPC, "No space left on device", "/full/map.h5"))
    assert sentence("info", "x") == "the disk is full: /full/map.h5; free space and run the same command again"
    raising(OSError(errno.ENOSPC, "No space left on device"))
    assert sentence("info", "x") == "the disk is full; free space and run the same command again"
    raising(PermissionError(errno.EACCES, "Permission denied", "/locked/map.h5"))
    assert sentence("info", "x") == "/locked/map.h5: permission denied"
    for bug in (RuntimeError("a bug"), OSError(errno.EIO, "Input/output error")):
        raising(bug)
        with pytest.raises(type(bug)):
            command("info", "x")


def test_debug_shows_the_traceback(raising) -> None:
    from neuropil.errors import InputError

    raising(InputError("a\nmessage  of two lines"))
    assert sentence("info", "x") == "a message of two lines"
    with pytest.raises(InputError):
        command("info", "x", "--debug")


def test_quiet(tmp_path: Path) -> None:
    out = tmp_path / "t.h5"
    loud = command("synthetic", out, "--shape", "4,40,40", "--seed", 1)
    assert loud.code == 0
    quiet = command("synthetic", out, "--shape", "4,40,40", "--seed", 1, "--overwrite", "--quiet")
    assert (quiet.code, quiet.err) == (0, "")


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    data = stack(tmp_path / "s.h5")
    for words in (["info", f"{data}:raw"], ["convert", "--help"], []):
        reading, writing = os.pipe()
        os.close(reading)
        process = subprocess.Popen(
            [sys.executable, "-m", "neuropil", *words], stdout=writing, stderr=subprocess.PIPE, text=True
        )
        os.close(writing)
        _, err = process.communicate()
        assert (process.returncode, err) == (0, ""), words
