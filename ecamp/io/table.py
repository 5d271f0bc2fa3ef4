"""Lenient CSV/TSV reader, the only one of ecamp.

It accepts a byte order mark, CRLF, quotes, white space around names and values, additional columns and
gzip. Errors name a missing column with those that are there, and a bad row with its line.
"""

from __future__ import annotations

import csv
import gzip
import sys
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ecamp.errors import DataError, MissingError, did_you_mean


@dataclass(frozen=True)
class TableRow:
    """One row of a table.

    Attributes:
        line: Line of the file at which it ends; the header is line 1.
        values: Text by column, without surrounding white space.
    """

    line: int
    values: dict[str, str]


class BadRows:
    """Policy for unusable rows: raise on the first one, or skip and record each.

    with bad:
        ...  # with `skip`, a DataError raised here skips the row and reading continues

    Args:
        skip: Skip bad rows; otherwise the error is raised.
    """

    def __init__(self, skip: bool = False) -> None:
        self.skip = skip
        self.messages: list[str] = []

    @property
    def flaws(self) -> tuple[str, ...]:
        """Warning that every result carries about skipped rows; empty if there were none."""
        messages = self.messages
        return (f"{len(messages):,} rows skipped, first {messages[0]}",) if messages else ()

    def __enter__(self) -> BadRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:  # fmt: skip
        if self.skip and isinstance(error, DataError):
            self.record(error)
            return True
        return False

    def record(self, error: DataError) -> None:
        """Record the error of a row that is skipped."""
        self.messages.append(error.message)


STRICT = BadRows()


@contextmanager
def open_table(
    path: Path, bad: BadRows = STRICT, *, unnamed: bool = False, lenient: bool = False
) -> Iterator[tuple[list[str], Iterator[tuple[int, list[str]]]]]:
    """Open a CSV or, by its suffix, a TSV file; `.gz` is decompressed.

    Args:
        bad: Policy for rows with a wrong number of fields.
        unnamed: Drop values of trailing columns without a name too: the rest of a note that was
            cut at its comma. Otherwise they are an error, because such a row may be shifted.
        lenient: Broken quotes are an error of their row, not of the file, and bytes that are not
            UTF-8 become lone surrogates, so that only readers of their cell have to refuse them.

    Yields:
        Names of the header; (line, values) of each row that is not empty. The line is that of the
        row's end, with `lenient` of its start. A row has one value per name; empty values beyond
        them, as a comma at the end of each line makes, are dropped.

    Raises:
        MissingError: No such file.
        DataError: Not UTF-8, not valid CSV, or a damaged archive.
    """
    tabs = path.name.removesuffix(".gz").endswith(".tsv")
    errors = "surrogateescape" if lenient else "strict"
    csv.field_size_limit(sys.maxsize)  # the default of 128 kB is shorter than some reports
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig", errors=errors, newline="") as file:
            reader = csv.reader(
                file, delimiter="\t" if tabs else ",", strict=True, skipinitialspace=True
            )
            header = [name.strip() for name in next(reader, [])]
            room = len(header) if unnamed else 0
            while header and not header[-1]:
                header.pop()
            yield header, _rows(path, reader, len(header), room, bad, lenient)
    except FileNotFoundError as error:
        raise MissingError(f"{path}: no such table.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 (byte {error.start}).", "Save the table as UTF-8."
        ) from error
    except csv.Error as error:
        raise DataError(
            f"{path}: not valid CSV: {error}.", "Check the quotes near that line."
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: damaged, or no permission to read it: {error}.", "Download it again."
        ) from error


def _rows(
    path: Path, reader: Any, width: int, room: int, bad: BadRows, lenient: bool
) -> Iterator[tuple[int, list[str]]]:
    while True:
        start = reader.line_num + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            if not lenient:
                raise
            with bad:
                raise DataError(
                    f"{path} line {start}: not valid CSV: {error}.", "Check the quotes in this row."
                ) from error
            continue
        if values is None:
            return
        line = start if lenient else reader.line_num
        if not values:
            continue
        if len(values) >= width and not any(values[max(width, room) :]):
            yield line, values[:width]
            continue
        with bad:
            raise DataError(
                f"{path} line {line}: {len(values)} fields, the header has {width}.",
                "Quote fields that contain commas."
                if len(values) > width
                else "Is the file truncated? Download it again, or complete the row.",
            )


def read_table(
    path: Path, columns: Collection[str] | Mapping[str, str], bad: BadRows = STRICT,
    *, unnamed: bool = False,
) -> Iterator[TableRow]:  # fmt: skip
    """Read the requested columns, row by row.

    Args:
        columns: Names; a mapping also gives the option that asks for each, for messages.
        bad, unnamed: As in `open_table`.

    Raises:
        MissingError, DataError: As `open_table`; also a missing or duplicate column.
    """
    with open_table(path, bad, unnamed=unnamed) as (header, rows):
        _check_header(path, header, columns)
        index = {name: header.index(name) for name in columns}
        for line, values in rows:
            yield TableRow(line, {name: values[k].strip() for name, k in index.items()})


def _check_header(
    path: Path, header: list[str], columns: Collection[str] | Mapping[str, str]
) -> None:
    duplicates = sorted({name for name in header if header.count(name) > 1 and name in columns})
    if duplicates:
        raise DataError(f"{path}: duplicate column '{duplicates[0]}'.", "Rename one of them.")
    lacking = [name for name in columns if name not in header]
    if lacking:
        asked = f" ({columns[lacking[0]]})" if isinstance(columns, Mapping) else ""
        names = ", ".join(f"'{name}'" for name in lacking)
        raise DataError(f"{path}: no column {names}{asked}.", did_you_mean(lacking[0], header))
