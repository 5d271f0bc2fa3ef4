"""Report texts from a table, JSON lines, a text file, or a folder of text files.

Tables and JSON lines are streamed: one row is held at a time, however long the file is.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ecamp.errors import DataError, MissingError, UsageError, did_you_mean

# Columns looked for when none is named; the first group with a member wins.
USUAL = (("findings", "impression"), ("report",), ("text",))
TABLES = (".csv", ".tsv", ".jsonl")


@dataclass(frozen=True)
class Row:
    """One row of a table, or one line of JSON.

    Attributes:
        number: Line at which it starts; the first line is 1.
        values: By column or key.
    """

    number: int
    values: Mapping[str, Any]


def refuse(error: DataError) -> NoReturn:
    """What is done with a bad row when nothing else is said: stop."""
    raise error


def read_reports(path: Path, columns: Sequence[str] = ()) -> list[str]:
    """Read reports by what the path is: .csv, .tsv, .jsonl, a folder of .txt, else one a line.

    Args:
        columns: Columns (or JSON keys) joined to one text, in this order; empty = the usual ones.

    Returns:
        The texts that are not empty, in file order.

    Raises:
        MissingError: No such file or folder.
        UsageError: Columns named for plain text.
        DataError: Names file, line and column; nothing to read.
    """
    if not path.exists():
        raise MissingError(f"{path}: no such file or folder.")
    table = path.suffix in TABLES and path.is_file()
    if columns and not table:
        raise UsageError(f"{path} is plain text and has no column '{columns[0]}'.")
    if path.is_dir():
        texts = [decode(file.read_bytes(), str(file)) for file in sorted(path.glob("*.txt"))]
    elif table:
        texts = list(_texts(path, columns))
    else:
        texts = decode(path.read_bytes(), str(path)).splitlines()
    texts = [text.strip() for text in texts if text.strip()]
    if not texts:
        what = "no .txt file with text" if path.is_dir() else "no report text"
        raise DataError(f"{path}: {what}.", "Check that this is the right file.")
    return texts


def decode(data: bytes, where: str) -> str:
    """UTF-8 with or without byte order mark; a `DataError` names the line that is not."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where} line {line}: not UTF-8.", "Save it as UTF-8.") from error


def read_rows(path: Path, bad: Callable[[DataError], None] = refuse) -> Iterator[Row]:
    """The rows of a .csv, .tsv or .jsonl file, one at a time; empty lines are left out.

    Args:
        bad: Called for a row that cannot be read; where it returns, the next row is read.

    Raises:
        MissingError: It cannot be opened.
        DataError: Through `bad`; names file and line.
    """
    try:
        with path.open("rb") as file:
            if path.suffix == ".jsonl":
                yield from _json_rows(file, path, bad)
            else:
                yield from _table_rows(file, path, bad)
    except OSError as error:
        raise MissingError(f"{path}: cannot be read: {error.strerror}.") from error


def column_names(path: Path) -> list[str]:
    """Columns of a table, or keys of the first JSON object; empty for an empty file."""
    if path.suffix == ".jsonl":
        return list(next((row.values for row in read_rows(path, lambda _: None)), {}))
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            return [name.strip() for name in next(_reader(file, path), [])]
    except OSError as error:
        raise MissingError(f"{path}: cannot be read: {error.strerror}.") from error
    except csv.Error as error:
        raise DataError(
            f"{path} line 1: no valid CSV: {error}.", "Check the quotes there."
        ) from error


def choose_columns(path: Path, asked: Sequence[str]) -> list[str]:
    """The columns (or keys) that hold the report, in order; empty for an empty JSON file.

    Raises:
        DataError: One that was asked for is missing, or none of the usual ones is there.
    """
    names = column_names(path)
    if path.suffix == ".jsonl" and not names:
        return []
    for name in asked:
        if name not in names:
            raise DataError(f"{path}: no column '{name}'.", did_you_mean(name, names))
    group = next((group for group in USUAL if any(name in names for name in group)), ())
    # Not every JSON object has every key.
    usual = [name for name in group if name in names or path.suffix == ".jsonl"]
    if not asked and not usual:
        raise DataError(
            f"{path}: no column findings, impression, report or text.",
            f"Name one with --column. It has: {', '.join(names) or 'none'}.",
        )
    return list(asked) or usual


def cell(row: Row, name: str, path: Path) -> str:
    """A text of a row as it stands; empty where there is none.

    Raises:
        DataError: It is no text; names file, line and column.
    """
    value = row.values.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{path} line {row.number}: '{name}' is no text.")
    if not is_unicode(value):
        raise DataError(f"{path} line {row.number}: '{name}' is not UTF-8.", "Save it as UTF-8.")
    return value


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: it holds no lone surrogate."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _texts(path: Path, columns: Sequence[str]) -> Iterator[str]:
    chosen = choose_columns(path, columns)
    for row in read_rows(path):
        yield " ".join(filter(None, (cell(row, name, path).strip() for name in chosen)))


def _reader(file: Any, path: Path) -> Any:
    # A field may be as long as a report; the module's own limit is 128 kB.
    csv.field_size_limit(sys.maxsize)
    return csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)


def _table_rows(file: Any, path: Path, bad: Callable[[DataError], None]) -> Iterator[Row]:
    # Bytes that are not UTF-8 become lone surrogates, so that only the row that is read for them
    # is lost (`cell`).
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = _reader(text, path)
    header: list[str] | None = None
    while True:
        number = reader.line_num + 1
        where = f"{path} line {number}"
        try:
            values = next(reader, None)
        except csv.Error as error:
            problem = DataError(f"{where}: no valid CSV: {error}.", "Check the quotes there.")
            problem.__cause__ = error
            bad(problem)
            continue
        if values is None:
            return
        if header is None:
            header = [name.strip() for name in values]
        elif len(values) == len(header):
            yield Row(number, dict(zip(header, values, strict=True)))
        elif values:
            message = f"{where}: {len(values)} fields, the header has {len(header)}."
            bad(DataError(message, "Quote fields that hold commas."))


def _json_rows(file: Any, path: Path, bad: Callable[[DataError], None]) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            yield Row(number, _json_object(line, where))
        except DataError as error:
            bad(error)


def _json_object(line: bytes, where: str) -> dict[str, Any]:
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8.", "Save it as UTF-8.") from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: no JSON: {error}.") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: not an object.", 'One {"report": "..."} a line.')
    return value
