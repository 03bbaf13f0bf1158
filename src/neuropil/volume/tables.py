"""Tables on disk: named columns of equal length, as CSV (always) or Parquet (with pyarrow).

A column read from CSV is whole numbers where every entry is one, numbers where every entry is one, else text; Parquet
says itself what a column holds.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError, MissingExtra, VolumeError, VolumeNotFound
from neuropil.files import replacing

Table = dict[str, NDArray[Any]]
"""Columns by name, each (n,): int64, float64 or text."""


def read_table(path: Path | str) -> Table:
    """Read a table.

    Parameters
    ----------
    path
        .csv, with a line of names on top, or .parquet.

    Raises
    ------
    InputError
        If the suffix is another one, or a line of a CSV has too few or too many entries.
    VolumeNotFound, VolumeError
        If there is no such file, or it cannot be read as a table.
    MissingExtra
        If the file is Parquet and pyarrow is not installed.
    """
    file = _checked(path)
    if not file.is_file():
        raise VolumeNotFound(f"there is no table {file}")
    if file.suffix == ".parquet":
        return _read_parquet(file)
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise VolumeError(f"{file} is not readable as CSV: {error}") from None
    if not rows:
        raise InputError(f"{file} must begin with a line of column names; it is empty")
    names = [name.strip() for name in rows[0]]
    for k, row in enumerate(rows[1:], start=2):
        if len(row) != len(names):
            raise InputError(f"{file} must have {len(names)} entries in each line; line {k} has {len(row)}")
    columns = zip(*rows[1:]) if len(rows) > 1 else ([] for _ in names)
    return {name: _typed([one.strip() for one in column]) for name, column in zip(names, columns)}


def write_table(path: Path | str, table: Mapping[str, NDArray[Any]]) -> None:
    """Write a table, by its suffix as CSV or Parquet; the file is whole or not there.

    Raises
    ------
    InputError
        If the suffix is another one, or columns differ in length.
    MissingExtra
        If it shall be Parquet and pyarrow is not installed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_table(Path(folder) / "t.csv", {"user": np.array(["ann", "bob"]), "votes": np.array([3, 4])})
    ...     read_table(Path(folder) / "t.csv")["votes"].tolist()
    [3, 4]
    """
    file = _checked(path)
    lengths = {name: len(column) for name, column in table.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"columns must have one length; got {lengths}")
    with replacing(file) as part:
        if file.suffix == ".parquet":
            arrow, parquet = _pyarrow()
            parquet.write_table(arrow.table(dict(table)), part)
            return
        with part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(table)
            writer.writerows(zip(*(_text(column) for column in table.values())))


def _checked(path: Path | str) -> Path:
    file = Path(path).expanduser()
    if file.suffix not in (".csv", ".parquet"):
        raise InputError(f"a table must be .csv or .parquet; got {path}")
    return file


def _read_parquet(file: Path) -> Table:
    arrow, parquet = _pyarrow()
    try:
        table = parquet.read_table(file)
    except (arrow.ArrowException, OSError) as error:
        raise VolumeError(f"{file} is not readable as Parquet: {str(error).splitlines()[0]}") from None
    return {name: _plain(table.column(name).to_numpy()) for name in table.column_names}


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(
            "Parquet needs pyarrow, which is not installed: pip install 'neuropil[crowd]'; CSV needs nothing"
        ) from error
    return pyarrow, pyarrow.parquet


def _plain(column: NDArray[Any]) -> NDArray[Any]:
    """Return numbers as int64 or float64, everything else as text."""
    if column.dtype.kind in "bui":
        return column.astype(np.int64)
    return column.astype(np.float64) if column.dtype.kind == "f" else column.astype(str)


def _typed(column: list[str]) -> NDArray[Any]:
    for kind in (np.int64, np.float64):
        try:
            return np.array([kind(one) for one in column], kind)
        except (ValueError, OverflowError):
            pass
    return np.array(column, str)


def _text(column: NDArray[Any]) -> list[str]:
    """Write numbers so that they are read back the same; nan as nothing would be, by its name."""
    return [repr(one) if isinstance(one, float) else str(one) for one in column.tolist()]
