"""Distilled files: one row a report as JSON lines, CSV or Parquet; written here, and read back.

A row: `id`, `text` (what the method inserts), `statements`, `dropped` (reason -> count), `error`,
`distiller` (its identity). In CSV, statements and dropped counts are JSON within their field.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ecamp.errors import DataError, MissingError, UsageError, did_you_mean
from ecamp.text.reports import cell, column_names, read_rows

FORMATS = (".jsonl", ".csv", ".parquet")
FIELDS = ("id", "text", "statements", "dropped", "error", "distiller")
_BATCH = 1000  # rows of a Parquet batch
Writer = Callable[[Iterator[dict[str, Any]], Path], None]


def make_writer(path: Path) -> Writer:
    """What writes rows in the format of a path; it streams.

    Raises:
        UsageError: Unknown format. MissingError: Parquet without pyarrow.
    """
    writers: dict[str, Writer] = {
        ".jsonl": _write_jsonl, ".csv": _write_csv, ".parquet": _write_parquet,
    }  # fmt: skip
    if path.suffix not in writers:
        raise UsageError(
            f"{path}: a distilled file ends in {', '.join(FORMATS)}.",
            did_you_mean(path.suffix, FORMATS),
        )
    if path.suffix == ".parquet":
        _pyarrow()  # say so before the work, not behind it
    return writers[path.suffix]


def _write_jsonl(rows: Iterator[dict[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_csv(rows: Iterator[dict[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            for name in ("statements", "dropped"):
                if name in row:
                    row[name] = json.dumps(row[name], ensure_ascii=False)
            writer.writerow(row)


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingError(
            "Parquet needs pyarrow, which is not installed.",
            'pip install "ecamp[parquet]", or write .jsonl or .csv.',
        ) from error
    return pyarrow


def _write_parquet(rows: Iterator[dict[str, Any]], path: Path) -> None:
    arrow = _pyarrow()
    text, offset = arrow.string(), arrow.int64()
    pair = arrow.struct([("kind", text), ("words", text)])
    statement = arrow.struct(
        [("entity", text), ("polarity", text), ("section", text), ("start", offset),
         ("end", offset), ("evidence", text), ("descriptors", arrow.list_(pair))]
    )  # fmt: skip
    schema = arrow.schema(
        [("id", text), ("text", text), ("statements", arrow.list_(statement)),
         ("dropped", arrow.map_(text, offset)), ("error", text), ("distiller", text)]
    )  # fmt: skip
    with arrow.parquet.ParquetWriter(path, schema) as writer:
        while batch := [_arrow_row(row) for row in islice(rows, _BATCH)]:
            writer.write_table(arrow.Table.from_pylist(batch, schema))


def _arrow_row(row: dict[str, Any]) -> dict[str, Any]:
    for statement in row["statements"]:
        pairs = statement["descriptors"]
        statement["descriptors"] = [{"kind": kind, "words": words} for kind, words in pairs]
    return {**row, "dropped": list(row.get("dropped", {}).items()), "error": row.get("error", "")}


def read_distilled(path: Path) -> dict[str, str]:
    """The text of each report by its id; reports that failed are left out.

    Args:
        path: A file of `ecamp distill`, or a JSON file that maps ids to texts.

    Raises:
        MissingError: It is not there, or Parquet without pyarrow.
        DataError: Not such a file; one id with two texts.
    """
    if not path.is_file():
        raise MissingError(f"{path}: no such file.", "ecamp distill REPORTS -o FILE makes one.")
    if path.suffix == ".json":
        pairs = _json_pairs(path)
    elif path.suffix == ".parquet":
        pairs = _parquet_pairs(path)
    elif path.suffix in FORMATS:
        pairs = _table_pairs(path)
    else:
        raise DataError(f"{path}: a distilled file ends in {', '.join(FORMATS)} or .json.")
    texts: dict[str, str] = {}
    for identifier, text in pairs:
        if texts.setdefault(identifier, text) != text:
            raise DataError(
                f"{path}: id '{identifier}' has two texts.",
                "Distil with an id column that is unique.",
            )
    return texts


def _table_pairs(path: Path) -> Iterator[tuple[str, str]]:
    for name in ("id", "text"):
        if name not in column_names(path) and path.stat().st_size:
            raise DataError(f"{path}: no distilled file: no '{name}'.")
    for row in read_rows(path):
        if not cell(row, "error", path):
            yield cell(row, "id", path), cell(row, "text", path)


def _json_pairs(path: Path) -> Iterator[tuple[str, str]]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}.") from error
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise DataError(f"{path}: must map ids to texts.")
    yield from value.items()


def _parquet_pairs(path: Path) -> Iterator[tuple[str, str]]:
    arrow = _pyarrow()
    try:
        with arrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["id", "text", "error"]):
                for row in batch.to_pylist():
                    if not row["error"]:
                        yield row["id"], row["text"]
    except (OSError, KeyError, arrow.ArrowException) as error:
        raise DataError(f"{path}: no distilled file: {error}.") from error
