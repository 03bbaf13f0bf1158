"""argv -> config -> stage; prints its summary and returns the exit code.

0 done; 2 bad input or configuration (one sentence on stderr); 130 stopped by the user (the same command continues); 1
our own fault.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import logging
import math
import sys
import time
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from neuropil import __version__, progress
from neuropil.errors import ConfigError, InputError, NeuropilError, StorageFull
from neuropil.stages import STAGES


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; see the module's text for the exit codes."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"neuropil {__version__}")
        return 0
    debug = "--debug" in arguments
    try:
        return _run(arguments[0], arguments[1:])
    except KeyboardInterrupt:
        print("stopped; the same command continues where it left off", file=sys.stderr)
        return 130
    except NeuropilError as error:
        if debug:
            raise
        print(f"neuropil: {_one_line(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        if debug or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        full = StorageFull(f"the disk is full: {error.filename or error}; free space and run the same command again")
        print(f"neuropil: {_one_line(full)}", file=sys.stderr)
        return 2


def _run(verb: str, arguments: list[str]) -> int:
    if verb not in STAGES:
        from neuropil.config import _nearest

        raise ConfigError(f"unknown command '{verb}'{_nearest(verb, list(STAGES))}; see neuropil --help")
    stage = importlib.import_module(f"neuropil.stages.{verb}")
    from neuropil.config import load

    parser = _parser(verb, stage)
    given = vars(parser.parse_args(arguments))
    common = {name: given.pop(name, None) for name in ("set", "json", "quiet", "debug", "positional")}
    file, flags = _positional(stage, common["positional"] or [], given)
    config = load(stage.Config, verb, list(STAGES), file, common["set"] or [], flags)
    quiet = bool(common["quiet"])
    with _progress(quiet=quiet):
        _log_to_stderr(quiet=quiet)
        result = stage.run(config)
    if common["json"]:
        Path(common["json"]).write_text(json.dumps(result.data, indent=1, default=str) + "\n")
    if result.summary:
        print(result.summary)
    return 0


def _overview() -> str:
    lines = ["usage: neuropil COMMAND [run.toml] [--field VALUE ...] [--set section.key=value ...]", ""]
    lines += ["From electron-microscope image stacks to neurons. Axes are z, y, x everywhere.", "", "commands:"]
    lines += [f"  {verb:10} {text}" for verb, text in STAGES.items()]
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
        flag = f"--{name.replace('_', '-')}"
        text = (field.description or "").replace("%", "%%")
        if not field.is_required() and field.default not in (None, False, ()):
            text += f" (default: {field.default})".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(
                flag, dest=name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
            )
        else:
            parser.add_argument(flag, dest=name, default=argparse.SUPPRESS, metavar="VALUE", help=text)
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="set any key, e.g. train.seed=1")
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress, no log")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


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
    if len(values) > len(stage.POSITIONAL):
        expected = " ".join(stage.POSITIONAL) or "none"
        raise InputError(f"too many arguments: {' '.join(values)}; expected {expected}")
    given = dict(zip(stage.POSITIONAL, values))
    return (Path(files[0]) if files else None), {**given, **flags}


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _log_to_stderr(*, quiet: bool) -> None:
    log = logging.getLogger("neuropil")
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.handlers = [logging.StreamHandler(sys.stderr)]
    log.handlers[0].setFormatter(logging.Formatter("%(message)s"))


@contextmanager
def _progress(*, quiet: bool) -> Iterator[None]:
    """Show progress as bars on a terminal, as a line every 20 s elsewhere."""
    if quiet:
        yield
    elif sys.stderr.isatty():
        with _bars() as tell, progress.show(tell):
            yield
    else:
        with progress.show(_lines()):
            yield


@contextmanager
def _bars() -> Iterator[progress.Reporter]:
    from rich import progress as rich_progress
    from rich.console import Console

    columns = ("{task.description}", rich_progress.BarColumn(), rich_progress.MofNCompleteColumn())
    with rich_progress.Progress(
        *columns, rich_progress.TimeRemainingColumn(), "{task.fields[note]}", console=Console(stderr=True)
    ) as bars:
        tasks: dict[str, rich_progress.TaskID] = {}

        def tell(description: str, done: int, total: int, note: str, eta: float) -> None:
            if description not in tasks:
                tasks[description] = bars.add_task(description, total=total, completed=done, note=note)
            bars.update(tasks[description], completed=done, total=total, note=note)
            if done >= total:
                bars.stop_task(tasks.pop(description))

        yield tell


def _lines() -> progress.Reporter:
    last = -math.inf

    def tell(description: str, done: int, total: int, note: str, eta: float) -> None:
        nonlocal last
        if time.monotonic() - last < 20 and done < total:
            return
        last = time.monotonic()
        left = f", {_duration(eta)} left" if math.isfinite(eta) and done < total else ""
        print(f"{description}: {done}/{total}{left}{'  ' + note if note else ''}", file=sys.stderr, flush=True)

    return tell


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"
