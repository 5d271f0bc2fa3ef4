"""Reads report texts from tables, JSON lines, text files and folders of text files.

Tables and JSON lines are streamed: one row is in memory at a time, however long the file is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ecamp.errors import DataError, MissingError, UsageError, did_you_mean
from ecamp.io.table import BadRows, open_table

# Columns that are read when none is named; the first group with a member present wins.
DEFAULT_COLUMNS = (("findings", "impression"), ("report",), ("text",))
TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl")
OnBadRow = Callable[[DataError], None]


@dataclass(frozen=True)
class TableRow:
    """One row of a table, or one line of JSON.

    Attributes:
        number: Line on which it starts; the first line is 1.
        values: Values by column or key.
    """

    number: int
    values: Mapping[str, Any]


def raise_error(error: DataError) -> NoReturn:
    """Raise the error of a bad row; the default of `on_bad_row`."""
    raise error


def read_reports(path: Path, columns: Sequence[str] = ()) -> list[str]:
    """Read reports from .csv, .tsv, .jsonl, a folder of .txt, or a text file with one per line.

    Args:
        path: File or folder; its kind and suffix decide how it is read.
        columns: Columns (or JSON keys) joined to one text, in this order; empty: the first group of
            `DEFAULT_COLUMNS` that is present.

    Returns:
        The texts that are not empty, in file order.

    Raises:
        MissingError: There is no such file or folder.
        UsageError: A column is named for plain text.
        DataError: A row cannot be read (names file, line and column), or there is no text at all.
    """
    if not path.exists():
        raise MissingError(f"{path}: no such file or folder.")
    table = path.name.endswith(TABLES) and path.is_file()
    if columns and not table:
        raise UsageError(
            f"{path} is plain text and has no column '{columns[0]}'.", "Leave out --column."
        )
    if path.is_dir():
        texts = [decode(file.read_bytes(), str(file)) for file in sorted(path.glob("*.txt"))]
    elif table:
        texts = list(_texts(path, columns))
    else:
        texts = decode(path.read_bytes(), str(path)).splitlines()
    texts = [text.strip() for text in texts if text.strip()]
    if not texts:
        problem = "no .txt file with text" if path.is_dir() else "no report text"
        raise DataError(f"{path}: {problem}.", "Check that this is the right path.")
    return texts


def decode(data: bytes, source: str) -> str:
    """Decode UTF-8 with or without byte order mark.

    Args:
        data: The bytes.
        source: Name of the source, for messages.

    Raises:
        DataError: They are not UTF-8; names the line.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{source} line {line}: not UTF-8.", "Save it as UTF-8.") from error


def read_rows(path: Path, on_bad_row: OnBadRow = raise_error) -> Iterator[TableRow]:
    """Yield the rows of a .csv, .tsv (also .gz) or .jsonl file, one at a time; empty lines are left out.

    Args:
        path: The file.
        on_bad_row: Called with the error of a row that cannot be read; if it returns, the next row
            is read.

    Raises:
        MissingError: The file cannot be opened.
        DataError: Raised by `on_bad_row`; names file and line.
    """
    if path.suffix == ".jsonl":
        try:
            with path.open("rb") as file:
                yield from _json_rows(file, path, on_bad_row)
        except OSError as error:
            raise MissingError(f"{path}: cannot be read: {error.strerror}.") from error
        return
    _check_readable(path)
    with open_table(path, _PassOn(on_bad_row), lenient=True) as (header, rows):
        for line, values in rows:
            yield TableRow(line, dict(zip(header, values, strict=True)))


def column_names(path: Path) -> list[str]:
    """List the columns of a table, or the keys of the first JSON object; empty for an empty file.

    Raises:
        MissingError: The file cannot be opened.
        DataError: Its first line is not valid CSV.
    """
    if path.suffix == ".jsonl":
        return list(next((row.values for row in read_rows(path, lambda _: None)), {}))
    _check_readable(path)
    with open_table(path, lenient=True) as (header, _):
        # Names are shown in messages, which cannot contain lone surrogates.
        return [name.encode(errors="replace").decode() for name in header]


def choose_columns(path: Path, requested: Sequence[str]) -> list[str]:
    """Choose the columns (or keys) with the report, in order; empty for an empty JSON file.

    Args:
        path: A .csv, .tsv or .jsonl file.
        requested: Columns named by the user; empty: `DEFAULT_COLUMNS`.

    Raises:
        DataError: A requested column is missing, or none of the default ones is present.
    """
    names = column_names(path)
    if path.suffix == ".jsonl" and not names:
        return []
    for name in requested:
        if name not in names:
            raise DataError(f"{path}: no column '{name}'.", did_you_mean(name, names))
    group = next((group for group in DEFAULT_COLUMNS if any(name in names for name in group)), ())
    # Not every JSON object has every key.
    defaults = [name for name in group if name in names or path.suffix == ".jsonl"]
    if not requested and not defaults:
        raise DataError(
            f"{path}: no column findings, impression, report or text.",
            f"Name one with --column. The file has: {', '.join(names) or 'none'}.",
        )
    return list(requested) or defaults


def cell(row: TableRow, name: str, path: Path) -> str:
    """Return the text of a row's cell unchanged; empty where there is none.

    Raises:
        DataError: The value is not text; names file, line and column.
    """
    value = row.values.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{path} line {row.number}: '{name}' is not text.")
    if not is_unicode(value):
        raise DataError(f"{path} line {row.number}: '{name}' is not UTF-8.", "Save it as UTF-8.")
    return value


def is_unicode(text: str) -> bool:
    """Decide whether a text can be written as UTF-8: it contains no lone surrogate."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _texts(path: Path, columns: Sequence[str]) -> Iterator[str]:
    names = choose_columns(path, columns)
    for row in read_rows(path):
        yield " ".join(filter(None, (cell(row, name, path).strip() for name in names)))


def _check_readable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise MissingError(f"{path}: cannot be read: {error.strerror}.") from error


class _PassOn(BadRows):
    """Policy for bad rows that passes their errors to a function."""

    def __init__(self, on_bad_row: OnBadRow) -> None:
        super().__init__(skip=True)
        self._on_bad_row = on_bad_row

    def record(self, error: DataError) -> None:
        self._on_bad_row(error)


def _json_rows(file: Any, path: Path, on_bad_row: OnBadRow) -> Iterator[TableRow]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield TableRow(number, _json_object(line, f"{path} line {number}"))
        except DataError as error:
            on_bad_row(error)


def _json_object(line: bytes, location: str) -> dict[str, Any]:
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{location}: not UTF-8.", "Save it as UTF-8.") from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{location}: not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise DataError(f"{location}: not a JSON object.", 'Write one {"report": "..."} per line.')
    return value
