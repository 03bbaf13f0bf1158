"""Tables: what is written is read back, CSV and Parquet alike; bad files get one sentence."""

from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuropil.errors import InputError, MissingExtra, VolumeError, VolumeNotFound
from neuropil.volume.tables import read_table, write_table

words = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Z")), min_size=1, max_size=4).map(
    lambda one: f"x{one}"
)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@given(
    rows=st.lists(
        st.tuples(st.integers(-(2**62), 2**62), st.floats(allow_infinity=False), words), min_size=1, max_size=5
    )
)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, suffix: str, rows: list) -> None:
    path = tmp_path_factory.mktemp("t") / f"t{suffix}"
    whole, real, text = ([row[k] for row in rows] for k in range(3))
    write_table(path, {"whole": np.array(whole), "real, number": np.array(real), "text": np.array(text)})
    found = read_table(path)
    assert list(found) == ["whole", "real, number", "text"]
    assert found["whole"].dtype == np.int64
    assert found["whole"].tolist() == whole
    np.testing.assert_array_equal(found["real, number"], real)
    assert found["real, number"].dtype == np.float64
    assert found["text"].tolist() == text


def test_kinds_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\ufeffa, b ,c,d\n1,1.5,x,\n2,3,4,\n\n", encoding="utf-8")
    found = read_table(path)
    assert {name: column.dtype.kind for name, column in found.items()} == {"a": "i", "b": "f", "c": "U", "d": "U"}
    path.write_text("a,b\n")
    assert [len(column) for column in read_table(path).values()] == [0, 0]


def test_bad_tables(tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text("a,b\n1,2\n3\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "binary.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    for name, kind, message in (
        ("short.csv", InputError, "2 entries in each line; line 3 has 1"),
        ("empty.csv", InputError, "must begin with a line of column names"),
        ("binary.csv", VolumeError, "not readable as CSV"),
        ("broken.parquet", VolumeError, "not readable as Parquet"),
        ("absent.csv", VolumeNotFound, "there is no table"),
        ("table.xlsx", InputError, "must be .csv or .parquet"),
    ):
        with pytest.raises(kind, match=message):
            read_table(tmp_path / name)
    with pytest.raises(InputError, match="columns must have one length"):
        write_table(tmp_path / "t.csv", {"a": np.arange(2), "b": np.arange(3)})
    assert not (tmp_path / "t.csv").exists()


def test_parquet_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"pip install 'neuropil\[crowd\]'"):
        write_table(tmp_path / "t.parquet", {"a": np.arange(2)})
    assert list(tmp_path.iterdir()) == []
    write_table(tmp_path / "t.csv", {"a": np.arange(2)})
