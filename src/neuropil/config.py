"""Strict TOML, `--set` and flags in; one validated model out.

An experiment is one TOML file with a table per command ([train], [predict], ...). A command reads its own table; a
key it does not know is an error that suggests the nearest one. Precedence: flags, then `--set`, then the file, then
defaults.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from neuropil.errors import ConfigError


class StageConfig(BaseModel):
    """Base of every configuration: frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _section_range(value: Any) -> Any:
    if isinstance(value, str):
        start, colon, stop = value.partition(":")
        if not colon or not start.strip().isdigit() or not stop.strip().isdigit():
            raise ValueError("must be START:STOP, for example 0:12")
        value = (int(start), int(stop))
    if isinstance(value, Sequence) and len(value) == 2 and not value[0] < value[1]:
        raise ValueError("must be START:STOP with START below STOP")
    return value


def _split(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


def _ranges(value: Any) -> Any:
    ranges = value.split(",") if isinstance(value, str) else value
    if not isinstance(ranges, Sequence) or len(ranges) != 3:
        raise ValueError("must be three ranges Z0:Z1,Y0:Y1,X0:X1")
    return [_section_range(one) for one in ranges]


Sections = Annotated[tuple[int, int], BeforeValidator(_section_range)]
"""Half-open range of sections; `0:12` on the command line, `[0, 12]` in TOML."""
Ranges = Annotated[tuple[tuple[int, int], tuple[int, int], tuple[int, int]], BeforeValidator(_ranges)]
"""Half-open ranges z, y, x; `0:12,0:512,100:600` on the command line and in TOML."""
Triple = Annotated[tuple[int, int, int], BeforeValidator(_split)]
"""Three voxel counts z, y, x; `1,150,150` on the command line."""
TripleNm = Annotated[tuple[float, float, float], BeforeValidator(_split)]
"""Three lengths z, y, x in nm."""
Names = Annotated[list[str], BeforeValidator(_split)]
"""List of names; `a,b` on the command line."""
Numbers = Annotated[list[float], BeforeValidator(_split)]
"""List of numbers; `0.5,0.4` on the command line."""
Counts = Annotated[list[int], BeforeValidator(_split)]
"""List of whole numbers; `0,50` on the command line."""


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.strip().isdigit() else value


Views = Annotated[Literal[1, 8, 16], BeforeValidator(_whole)]
"""How many flips and rotations are averaged."""


def _plain(value: Any) -> Any:
    if isinstance(value, str) and (not value.strip() or value.startswith(".") or set(value) & set("/\\:")):
        raise ValueError("must be a name for files: not empty, no dot in front, no / \\ or :")
    return value


def _offset_rows(value: Any) -> Any:
    if isinstance(value, str):
        return [row.split(",") for row in value.split("/")]
    return value


Offsets = Annotated[list[tuple[int, int, int]], BeforeValidator(_offset_rows)]
"""Offsets z, y, x of affinities' channels; `-1,0,0/0,-1,0/0,0,-1` on the command line, a list of lists in TOML."""

Name = Annotated[str, BeforeValidator(_plain)]
"""Name of a thing and of its file or folder."""

Model = TypeVar("Model", bound=StageConfig)


def load(
    model: type[Model],
    verb: str,
    verbs: Sequence[str],
    file: Path | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    also: Sequence[str] = (),
) -> Model:
    """Return the validated configuration of one command.

    Parameters
    ----------
    model : the command's `Config`
    verb, verbs : the command's name, and all names that may be tables of the file
    file : TOML file, optional
    sets : "section.key=value" strings; the value is TOML, or text where it is not valid TOML
    flags : top-level fields given on the command line
    also : other commands whose tables the command reads, as fields of the same name

    Raises
    ------
    ConfigError : unreadable file, unknown key (with the nearest match), missing or wrong value
    """
    tables = _read(file) if file is not None else {}
    for item in sets:
        _set(tables, item, (verb, *also), verbs)
    for key, table in tables.items():
        if key not in verbs and not isinstance(table, dict):
            raise ConfigError(f"'{key}'{_where(file)} stands outside any table; put it below [{verb}]")
        if key not in verbs:
            raise ConfigError(f"unknown table [{key}]{_where(file)}{nearest(key, verbs)}")
    values = tables.get(verb, {})
    if not isinstance(values, dict):
        raise ConfigError(f"'{verb}' must be a table [{verb}]{_where(file)}; got {values!r}")
    values = {**{name: tables[name] for name in also if name in tables}, **values, **(flags or {})}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_sentence(error, model, verb, values)) from None


def dump(config: StageConfig) -> dict[str, Any]:
    """Return the resolved configuration as JSON-able data."""
    data: dict[str, Any] = json.loads(config.model_dump_json())
    return data


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError:
        raise ConfigError(f"config file {file} does not exist") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {file} is not readable TOML: {error}") from None


def _set(tables: dict[str, Any], item: str, read: Sequence[str], verbs: Sequence[str]) -> None:
    """Set a key of one of the tables that are read, the first one's where none is named."""
    path, equals, text = item.partition("=")
    if not equals:
        raise ConfigError(f"--set takes section.key=value; got {item!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    keys = path.strip().split(".")
    if len(keys) == 1 or keys[0] not in verbs:
        keys = [read[0], *keys]
    if keys[0] not in read:
        raise ConfigError(f"--set {path} sets a key of [{keys[0]}], which neuropil {read[0]} does not read")
    here: Any = tables
    for key in keys[:-1]:
        here = _step(here, key, path)
    if isinstance(here, list):
        here[_index(here, keys[-1], path)] = value
    else:
        here[keys[-1]] = value


def _step(here: Any, key: str, path: str) -> Any:
    if isinstance(here, list):
        return here[_index(here, key, path)]
    inner = here.setdefault(key, {})
    if not isinstance(inner, dict | list):
        raise ConfigError(f"--set {path}: '{key}' holds a value, not a table")
    return inner


def _index(items: list[Any], key: str, path: str) -> int:
    """Find an entry of a list of tables by its number or its `name`."""
    names = [item.get("name") for item in items if isinstance(item, dict)]
    if key in names:
        return names.index(key)
    if key.isdigit() and int(key) < len(items):
        return int(key)
    raise ConfigError(f"--set {path}: no entry '{key}'; entries are {', '.join(map(str, names)) or 'none'}")


def _sentence(error: ValidationError, model: type[BaseModel], verb: str, values: Any) -> str:
    """Turn the first problem that pydantic found into one sentence; a misspelt key comes before the missing one."""
    unknown = ("extra_forbidden", "unexpected_keyword_argument")
    problem = min(error.errors(), key=lambda one: one["type"] not in unknown)
    path, table, known = _place(problem["loc"], model, values)
    key, where = path[-1] if path else verb, ".".join([verb, *table])
    if problem["type"] in unknown:
        return f"unknown key '{key}' in [{where}]{nearest(key, known)}"
    if problem["type"] == "missing" and isinstance(problem["loc"][-1], int):
        return f"'{key}' in [{where}]: too few values; got {problem['input']!r}"
    if problem["type"] == "missing":
        flag = "" if table or _models(model.model_fields[key].annotation) else f" or as --{key.replace('_', '-')}"
        return f"'{key}' is missing in [{where}]; give it in the file{flag}"
    if problem["type"] in ("model_type", "dataclass_type"):
        return f"'{key}' in [{where}] must be a table; got {problem['input']!r}"
    message, got = problem["msg"].removeprefix("Value error, "), repr(problem["input"])
    got = got if len(got) <= 100 else f"{got[:100]}..."
    return f"'{key}' in [{where}]: {message[:1].lower() + message[1:]}; got {got}"


def _place(loc: Sequence[int | str], model: Any, values: Any) -> tuple[list[str], list[str], list[str]]:
    """Return the keys to a problem, those to its table (entries of lists by their name), and the keys known there.

    What pydantic adds to a place to tell members of a union apart, such as `list[str]`, is left out.
    """
    here: list[Any] = [model]
    path: list[str] = []
    table: list[str] = []
    known: list[str] = []
    for part in loc:
        names = _known(here)
        if part in [one.__name__ for one in here]:
            continue
        if not names:  # below a plain value
            break
        values = _inner(values, part)
        table, known = list(path), names
        if isinstance(part, int):
            path.append(str((values.get("name") if isinstance(values, dict) else None) or part))
        else:
            path.append(part)
            here = [inner for one in here for inner in _models(_fields(one).get(part))]
    return path, table, known


def _inner(values: Any, part: int | str) -> Any:
    try:
        return values[part]
    except (LookupError, TypeError):
        return None


def _known(models: Sequence[Any]) -> list[str]:
    return [name for one in models for name in _fields(one)]


def _fields(model: Any) -> dict[str, Any]:
    if hasattr(model, "model_fields"):
        return {name: field.annotation for name, field in model.model_fields.items()}
    return get_type_hints(model) if is_dataclass(model) else {}


def _models(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and (hasattr(annotation, "model_fields") or is_dataclass(annotation)):
        return [annotation]
    return [inner for one in get_args(annotation) for inner in _models(one)]


def nearest(key: str, known: Sequence[str]) -> str:
    """Return "; did you mean ...?", or the list of what is known.

    >>> nearest("taek", ["make", "take"])
    "; did you mean 'take'?"
    """
    match = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if match:
        return f"; did you mean '{match[0]}'?"
    return f"; known are {', '.join(sorted(known))}" if known else ""


def _where(file: Path | None) -> str:
    return f" in {file}" if file is not None else ""
