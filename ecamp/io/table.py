"""Tables as people send them: one CSV reader for every data set.

Byte order mark, CRLF, quotes, white space around names and values, columns that nobody asked for, gzip:
all are read. A missing column is named with what is there, a bad row with its line.
"""

from __future__ import annotations

import csv
import gzip
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
    """One line of a table; `line` counts as an editor does, the header is line 1."""

    line: int
    values: dict[str, str]


class BadRows:
    """What becomes of rows that cannot be used: the first one raises, or each is left out and told.

    with bad:
        ...  # a DataError in here ends the row, not the reading

    Args:
        skip: Leave bad rows out; else the error goes through.
    """

    def __init__(self, skip: bool = False) -> None:
        self.skip = skip
        self.messages: list[str] = []

    @property
    def flaws(self) -> tuple[str, ...]:
        """What every result must say of the rows that were left out; nothing where none was."""
        told = self.messages
        return (f"{len(told):,} rows left out, first {told[0]}",) if told else ()

    def __enter__(self) -> BadRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:  # fmt: skip
        if self.skip and isinstance(error, DataError):
            self.messages.append(error.message)
            return True
        return False


STRICT = BadRows()


@contextmanager
def open_table(
    path: Path, bad: BadRows = STRICT, *, unnamed: bool = False
) -> Iterator[tuple[list[str], Iterator[tuple[int, list[str]]]]]:
    """Open a CSV, or a TSV by its suffix; `.gz` is unpacked.

    Args:
        unnamed: Values in last columns without a name are dropped too: the rest of a note that was
            cut at its comma. Else they are an error, since such a row may be shifted.

    Yields:
        Names of the header; (line, values) of each row that is not empty. A row has one value a
        name; empty values beyond them, as a comma at the end of each line makes, are dropped.

    Raises:
        MissingError: No such file. DataError: Not UTF-8, no valid CSV, a damaged archive.
    """
    tabs = path.name.removesuffix(".gz").endswith(".tsv")
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(
                file, delimiter="\t" if tabs else ",", strict=True, skipinitialspace=True
            )
            header = [name.strip() for name in next(reader, [])]
            room = len(header) if unnamed else 0
            while header and not header[-1]:
                header.pop()
            yield header, _rows(path, reader, len(header), room, bad)
    except FileNotFoundError as error:
        raise MissingError(f"{path}: no such table.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 (byte {error.start}).", "Save the table as UTF-8."
        ) from error
    except csv.Error as error:
        raise DataError(
            f"{path}: no valid CSV: {error}.", "Check the quotes near that line."
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: damaged or closed to you: {error}.", "Download it again."
        ) from error


def _rows(
    path: Path, reader: Any, width: int, room: int, bad: BadRows
) -> Iterator[tuple[int, list[str]]]:
    for values in reader:
        if not values:
            continue
        if len(values) >= width and not any(values[max(width, room) :]):
            yield reader.line_num, values[:width]
            continue
        with bad:
            raise DataError(
                f"{path} line {reader.line_num}: {len(values)} fields, the header has {width}.",
                "Quote fields that hold commas."
                if len(values) > width
                else "Is the file cut short? Get it again, or fill the row.",
            )


def read_table(
    path: Path, columns: Collection[str] | Mapping[str, str], bad: BadRows = STRICT,
    *, unnamed: bool = False,
) -> Iterator[TableRow]:  # fmt: skip
    """Read the columns that are needed, row by row.

    Args:
        columns: Names; a mapping also says where each was asked for.
        unnamed: As in `open_table`.

    Raises:
        MissingError, DataError: As `open_table`; a column missing or twice, named with what is there.
    """
    with open_table(path, bad, unnamed=unnamed) as (header, rows):
        _check_header(path, header, columns)
        at = {name: header.index(name) for name in columns}
        for line, values in rows:
            yield TableRow(line, {name: values[k].strip() for name, k in at.items()})


def _check_header(
    path: Path, header: list[str], columns: Collection[str] | Mapping[str, str]
) -> None:
    twice = sorted({name for name in header if header.count(name) > 1 and name in columns})
    if twice:
        raise DataError(f"{path}: column '{twice[0]}' stands twice.", "Rename one of them.")
    lacking = [name for name in columns if name not in header]
    if lacking:
        asked = f" ({columns[lacking[0]]})" if isinstance(columns, Mapping) else ""
        names = ", ".join(f"'{name}'" for name in lacking)
        raise DataError(f"{path}: no column {names}{asked}.", did_you_mean(lacking[0], header))
