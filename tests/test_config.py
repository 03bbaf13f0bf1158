"""Configuration: what wins, and one sentence with the nearest name for whatever is wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from neuropil.config import Name, Names, Numbers, Sections, StageConfig, Triple, TripleNm, dump, load
from neuropil.errors import ConfigError

VERBS = ("make", "take", "data")


@dataclass(frozen=True)
class Rates:
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    learning_rate: float = 0.1
    schedule: Literal["constant", "cosine"] = "constant"


class Part(StageConfig):
    name: Name
    layers: str | list[str] = "none"
    size: int = 1
    rates: Rates | None = None


class Make(StageConfig):
    output: Path
    seed: int = Field(0, ge=0)
    box: Triple = (1, 2, 3)
    pitch: TripleNm = (1.0, 2.0, 3.0)
    sections: Sections | None = None
    names: Names = Field([])
    numbers: Numbers = Field([])
    data: str = "none"
    parts: list[Part] = Field([])
    rates: Rates = Rates()


def make(text: str, folder: Path, *sets: str, **flags: Any) -> Make:
    file = folder / "run.toml"
    file.write_text(text)
    return load(Make, "make", VERBS, file, sets, flags)


def error(text: str, folder: Path, *sets: str, **flags: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        make(text, folder, *sets, **flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


PARTS = """
[make]
output = "x"
[[make.parts]]
name = "one"
[[make.parts]]
name = "two"
[make.parts.rates]
learning_rate = 0.5
"""


def test_flags_win_over_set_over_file_over_defaults(tmp_path: Path) -> None:
    text = '[make]\noutput = "file"\nseed = 1\nnames = ["a"]\n[take]\nanything = 1'
    config = make(text, tmp_path)
    assert (config.output, config.seed, config.names, config.box) == (Path("file"), 1, ["a"], (1, 2, 3))
    config = make(text, tmp_path, "make.seed=2", "output=set", 'names=["b", "c"]')
    assert (config.output, config.seed, config.names) == (Path("set"), 2, ["b", "c"])
    config = make(text, tmp_path, "make.seed=2", "output=set", seed="3", names="d,e")
    assert (config.output, config.seed, config.names) == (Path("set"), 3, ["d", "e"])
    assert load(Make, "make", VERBS, None, [], {"output": "flag"}).output == Path("flag")


def test_words_of_the_command_line(tmp_path: Path) -> None:
    flags = {"box": "4,5,6", "pitch": "1.5,2,3", "sections": "2:5", "numbers": "0.5,1"}
    config = make('[make]\noutput = "x"', tmp_path, **flags)
    assert (config.box, config.pitch, config.sections) == ((4, 5, 6), (1.5, 2.0, 3.0), (2, 5))
    assert config.numbers == [0.5, 1.0]
    assert dump(config)["box"] == [4, 5, 6]
    assert make('[make]\noutput = "x"', tmp_path, "make.sections=2:5").sections == (2, 5)


def test_set_reaches_into_tables_and_lists(tmp_path: Path) -> None:
    config = make(PARTS, tmp_path, "make.parts.two.size=7", "parts.0.size=6", "make.rates.learning_rate=0.25")
    assert [part.size for part in config.parts] == [6, 7]
    assert config.rates.learning_rate == 0.25
    config = make(PARTS, tmp_path, "make.parts.two.rates.schedule=cosine", "make.parts.one.rates.learning_rate=2")
    assert config.parts[1].rates == Rates(0.5, "cosine")
    assert config.parts[0].rates == Rates(2.0)
    # a field that has the name of a command
    assert make(PARTS, tmp_path, "data=here").data == "here"


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["make.sede=1"], r"unknown key 'sede' in \[make\]; did you mean 'seed'\?"),
        (["make.zzz=1"], r"unknown key 'zzz' in \[make\]; known are box, data, names, .*sections, seed"),
        (["make.parts.one.sise=1"], r"unknown key 'sise' in \[make\.parts\.one\]; did you mean 'size'\?"),
        (["make.rates.learning_rat=1"], r"unknown key 'learning_rat' in \[make\.rates\]; did you mean 'learning_rate'"),
        (["make.parts.two.rates.shedule=1"], r"'shedule' in \[make\.parts\.two\.rates\]; did you mean 'schedule'"),
        (["make.parts.three.size=1"], r"--set make\.parts\.three\.size: no entry 'three'; entries are one, two"),
        (["make.parts.2.size=1"], "no entry '2'"),
        (["make.output.x=1"], "'output' holds a value, not a table"),
        (["seed"], r"--set takes section\.key=value; got 'seed'"),
        (["take.seed=1"], r"sets a key of \[take\], which neuropil make does not read"),
        (["make.seed=two"], r"'seed' in \[make\]: input should be a valid integer.*; got 'two'"),
        (["make.seed=-1"], r"'seed' in \[make\]: input should be greater than or equal to 0; got -1"),
        (["make.box=[1, 2]"], r"'box' in \[make\]: too few values; got \[1, 2\]"),
        (["make.box=[1, 2, 3, 4]"], r"'box' in \[make\]: tuple should have at most 3 items"),
        (['make.box=["a", 2, 3]'], r"'box' in \[make\]: input should be a valid integer.*; got 'a'"),
        (["make.sections=5:2"], r"'sections' in \[make\]: must be START:STOP with START below STOP; got '5:2'"),
        (["make.sections=5"], r"'sections' in \[make\]: .*; got 5"),
        (["make.sections=all"], r"must be START:STOP, for example 0:12; got 'all'"),
        (["make.parts.one.layers=3"], r"'layers' in \[make\.parts\.one\]: input should be a valid string; got 3"),
        (["make.parts.one.name=a/b"], r"'name' in \[make\.parts\.a/b\]: must be a name for files.*; got 'a/b'"),
        (["make.rates.schedule=cosin"], r"'schedule' in \[make\.rates\]: input should be 'constant' or 'cosine'"),
        (["make.parts=[1]"], r"'0' in \[make\.parts\] must be a table; got 1"),
        (["make.rates=1"], r"'rates' in \[make\] must be a table; got 1"),
        (["make.parts=[{size = 2}]"], r"'name' is missing in \[make\.parts\.0\]; give it in the file$"),
        ([f"make.seed='{'x' * 500}'"], r"got 'x{99}\.\.\.$"),
    ],
)  # fmt: skip
def test_one_sentence_names_key_table_and_value(tmp_path: Path, sets: list[str], words: str) -> None:
    text = error(PARTS, tmp_path, *sets)
    assert re.search(words, text), text


def test_files_that_are_wrong(tmp_path: Path) -> None:
    assert "'output' is missing in [make]; give it in the file or as --output" in error("[make]", tmp_path)
    assert "unknown table [mak] in" in error("[mak]\nseed = 1", tmp_path)
    assert "did you mean 'make'?" in error("[mak]\nseed = 1", tmp_path)
    assert "'seed' in" in error("seed = 1", tmp_path)
    assert "outside any table; put it below [make]" in error("seed = 1", tmp_path)
    assert "'make' must be a table [make] in" in error("make = 1", tmp_path)
    assert "is not readable TOML: Expected" in error("[make", tmp_path)
    (tmp_path / "folder.toml").mkdir()
    for name, words in (("none.toml", "does not exist"), ("folder.toml", "is not readable TOML")):
        with pytest.raises(ConfigError, match=words):
            load(Make, "make", VERBS, tmp_path / name)
    (tmp_path / "latin.toml").write_bytes(b'[make]\noutput = "\xe9"')
    with pytest.raises(ConfigError, match="is not readable TOML"):
        load(Make, "make", VERBS, tmp_path / "latin.toml")


def test_the_file_is_not_changed_by_set(tmp_path: Path) -> None:
    make(PARTS, tmp_path, "make.parts.one.size=5")
    assert (tmp_path / "run.toml").read_text() == PARTS
