"""Report texts from a table, JSON lines, a text file, or a folder of text files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from ecamp.errors import DataError, MissingError, UsageError, did_you_mean

# Columns looked for when none is named; the first group with a member wins.
USUAL = (("findings", "impression"), ("report",), ("text",))


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
    table = path.suffix in (".csv", ".tsv", ".jsonl") and path.is_file()
    if columns and not table:
        raise UsageError(f"{path} is plain text and has no column '{columns[0]}'.")
    if path.is_dir():
        texts = [decode(file.read_bytes(), str(file)) for file in sorted(path.glob("*.txt"))]
    else:
        text = decode(path.read_bytes(), str(path))
        if path.suffix == ".jsonl":
            texts = list(_json_lines(text, path, columns))
        elif table:
            texts = list(_table(text, path, columns))
        else:
            texts = text.splitlines()
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


def _table(text: str, path: Path, columns: Sequence[str]) -> Iterator[str]:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        chosen = [header.index(name) for name in _columns(header, path, columns)]
        for values in reader:
            if values and len(values) != len(header):
                raise DataError(
                    f"{path} line {reader.line_num}: {len(values)} fields, the header has "
                    f"{len(header)}.",
                    "Quote fields that hold commas.",
                )
            if values:
                yield " ".join(filter(None, (values[i].strip() for i in chosen)))
    except csv.Error as error:
        raise DataError(
            f"{path} line {reader.line_num}: no valid CSV: {error}.", "Check the quotes there."
        ) from error


def _json_lines(text: str, path: Path, columns: Sequence[str]) -> Iterator[str]:
    chosen: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            value = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: no JSON: {error}.") from error
        if not isinstance(value, dict):
            raise DataError(f"{where}: not an object.", 'One {"report": "..."} a line.')
        chosen = chosen or _columns(list(value), path, columns)
        parts = [value.get(name) for name in chosen]
        for name, part in zip(chosen, parts, strict=True):
            if part is not None and not isinstance(part, str):
                raise DataError(f"{where}: '{name}' is no text.")
        yield " ".join(part.strip() for part in parts if part)


def _columns(header: list[str], path: Path, asked: Sequence[str]) -> list[str]:
    """The columns to read, checked against the header."""
    for name in asked:
        if name not in header:
            raise DataError(f"{path}: no column '{name}'.", did_you_mean(name, header))
    usual = ([name for name in group if name in header] for group in USUAL)
    chosen = list(asked) or next(filter(None, usual), [])
    if not chosen:
        raise DataError(
            f"{path}: no column findings, impression, report or text.",
            f"Name one with --column. It has: {', '.join(header) or 'none'}.",
        )
    return chosen
