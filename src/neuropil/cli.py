"""argv -> config -> stage; prints its summary and returns the exit code.

0 done; 2 bad input, configuration or a file that cannot be written (one sentence on stderr), or something that was
checked is not sound; 130 stopped by the user (the same command continues); 1 our own fault.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import logging
import os
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from neuropil import __version__, machine, progress
from neuropil.errors import ConfigError, InputError, NeuropilError
from neuropil.files import write_json
from neuropil.stages import STAGES, module_of

FULL = (errno.ENOSPC, errno.EDQUOT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; see the module's text for the exit codes."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    machine.quiet_threads()
    debug = "--debug" in arguments
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("stopped; the same command continues where it left off", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough; the work itself is done
        _forget_stdout()
        return 0
    except NeuropilError as error:
        if debug:
            raise
        return _fail(str(error))
    except OSError as error:
        if debug or (error.filename is None and error.errno not in FULL):
            raise
        return _fail(_what_the_system_said(error))


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"neuropil {__version__}")
        return 0
    verb = arguments[0]
    if verb not in STAGES:
        from neuropil.config import nearest

        raise ConfigError(f"unknown command '{verb}'{nearest(verb, list(STAGES))}; see neuropil --help")
    stage = importlib.import_module(module_of(verb))
    parser = _parser(verb, stage)
    if {"-h", "--help"} & set(arguments):
        print(parser.format_help(), end="")
        return 0
    return _run_stage(verb, stage, vars(parser.parse_intermixed_args(arguments[1:])))


def _run_stage(verb: str, stage: types.ModuleType, given: dict[str, Any]) -> int:
    from neuropil.config import load

    common = {name: given.pop(name, None) for name in ("set", "json", "quiet", "debug", "positional")}
    file, flags = _positional(stage, common["positional"] or [], given)
    config = load(stage.Config, verb, list(STAGES), file, common["set"] or [], flags, also=getattr(stage, "TABLES", ()))
    if common["json"] and not Path(common["json"]).absolute().parent.is_dir():  # told before hours of work, not after
        raise ConfigError(f"--json must name a file in a folder that exists; got {common['json']}")
    quiet = bool(common["quiet"])
    with _progress(quiet=quiet):
        _log_to_stderr(quiet=quiet)
        result = stage.run(config)
    if common["json"]:
        write_json(Path(common["json"]), result.data)
    if result.summary:
        print(result.summary)
    return 0 if result.sound else 2


def _fail(sentence: str) -> int:
    print(f"neuropil: {' '.join(sentence.split())}", file=sys.stderr)
    return 2


def _what_the_system_said(error: OSError) -> str:
    if error.errno in FULL:
        where = f": {error.filename}" if error.filename else ""
        return f"the disk is full{where}; free space and run the same command again"
    return f"{error.filename}: {(error.strerror or str(error)).lower()}"


def _forget_stdout() -> None:
    """Send what is still to be printed nowhere, so that the interpreter's own last flush does not complain."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _overview() -> str:
    lines = ["usage: neuropil COMMAND [run.toml] [--field VALUE ...] [--set section.key=value ...]", ""]
    lines += ["From electron-microscope image stacks to neurons. Axes are z, y, x everywhere.", "", "commands:"]
    lines += [f"  {verb:11} {text}" for verb, text in STAGES.items()]
    return "\n".join([*lines, "", "neuropil COMMAND --help shows the fields and examples of one."])


def _parser(verb: str, stage: types.ModuleType) -> argparse.ArgumentParser:
    """Build the parser of one command from the fields of its configuration."""
    examples = "\n".join(f"  {line}" for line in stage.EXAMPLES)
    parser = _Parser(
        prog=f"neuropil {verb}",
        description=(stage.__doc__ or "").strip(),
        epilog=f"examples:\n{examples}\n\nA .toml file may hold the same fields in its [{verb}] table; flags win.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    names = " ".join(f"[{name.upper()}]" for name in stage.POSITIONAL)
    parser.add_argument("positional", nargs="*", metavar="ARG", help=f"{names} [run.toml]".strip())
    for name, field in stage.Config.model_fields.items():
        if _is_nested(field.annotation):
            continue  # tables are for the file and --set
        flag, text = f"--{name.replace('_', '-')}", _help(field)
        if field.annotation is bool:
            parser.add_argument(
                flag, dest=name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
            )
        else:
            parser.add_argument(
                flag, dest=name, default=argparse.SUPPRESS, metavar=_placeholder(field.annotation), help=text
            )
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="set any key, e.g. train.seed=1")
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress, no log")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _help(field: Any) -> str:
    """Describe a field, with its default in the form in which it is typed."""
    text, default = (
        field.description or "",
        None if field.is_required() else field.get_default(call_default_factory=True),
    )
    if default is not None and default is not False and default not in ("", (), []):
        shown = ",".join(map(str, default)) if isinstance(default, tuple | list) else default
        text += f" (default: {'on' if default is True else shown})"
    return str(text).replace("%", "%%")


def _placeholder(annotation: Any) -> str:
    """Return the choices of a closed field, else VALUE."""
    if get_origin(annotation) is Literal:
        return "{" + ",".join(map(str, get_args(annotation))) + "}"
    return "VALUE"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ConfigError(f"{message}; see {self.prog} --help")


def _is_nested(annotation: Any) -> bool:
    """Tell whether a field holds tables: models, dataclasses or lists of them."""
    if isinstance(annotation, type):
        return hasattr(annotation, "model_fields") or hasattr(annotation, "__dataclass_fields__")
    return any(_is_nested(inner) for inner in get_args(annotation))


def _positional(stage: types.ModuleType, words: list[str], flags: dict[str, Any]) -> tuple[Path | None, dict[str, Any]]:
    """Sort the positional words into the .toml file and the command's own positional fields."""
    files = [word for word in words if word.endswith(".toml")]
    values = [word for word in words if not word.endswith(".toml")]
    if len(files) > 1:
        raise InputError(f"give one .toml file; got {', '.join(files)}")
    fields = stage.Config.model_fields
    many = [name for name in stage.POSITIONAL if get_origin(fields[name].annotation) is list]  # the last one, if any
    if len(values) > len(stage.POSITIONAL) and not many:
        expected = " ".join(stage.POSITIONAL) or "none"
        raise InputError(f"too many arguments: {' '.join(values)}; expected {expected}")
    given: dict[str, Any] = dict(zip(stage.POSITIONAL, values))
    for name in many if values else []:
        given[name] = values[len(stage.POSITIONAL) - 1 :]
    twice = [name for name in given if name in flags]
    if twice:
        raise InputError(f"{twice[0]} is given twice: {given[twice[0]]} and --{twice[0]} {flags[twice[0]]}")
    return (Path(files[0]) if files else None), {**given, **flags}


def _log_to_stderr(*, quiet: bool) -> None:
    log = logging.getLogger("neuropil")
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.handlers = [logging.StreamHandler(sys.stderr)]
    log.handlers[0].setFormatter(logging.Formatter("%(message)s"))


@contextmanager
def _progress(*, quiet: bool) -> Iterator[None]:
    """Show progress live on a terminal, as a line now and then elsewhere."""
    if quiet:
        yield
        return
    from rich.console import Console

    from neuropil.live import LiveView, PlainView

    console = Console(stderr=True)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        with progress.show(PlainView()):
            yield
        return
    view = LiveView(console)
    try:
        with progress.show(view):
            yield
    finally:
        view.close()
