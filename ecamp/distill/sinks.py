"""Writes and reads distilled files: one row per report, as JSON lines, CSV or Parquet.

Fields of a row: `id`, `text` (the text that the method inserts), `statements`, `dropped` (reason ->
count), `error`, `distiller` (its identity). In CSV, statements and dropped counts are JSON within
their field.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from ecamp.errors import DataError, MissingError, UsageError, did_you_mean
from ecamp.text.reports import cell, column_names, read_rows

FORMATS = (".jsonl", ".csv", ".parquet")
FIELDS = ("id", "text", "statements", "dropped", "error", "distiller")
_BATCH = 1000  # rows of a Parquet batch
Writer = Callable[[Iterator[dict[str, Any]], Path], None]


def make_writer(path: Path) -> Writer:
    """Return the function that streams rows to a file in the format of its suffix.

    Args:
        path: File to write; its suffix is one of `FORMATS`.

    Raises:
        UsageError: The format is unknown.
        MissingError: Parquet is requested, and pyarrow is not installed.
    """
    writers: dict[str, Writer] = {
        ".jsonl": _write_jsonl, ".csv": _write_csv, ".parquet": _write_parquet,
    }  # fmt: skip
    if path.suffix not in writers:
        raise UsageError(
            f"{path}: unknown format; a distilled file ends in {', '.join(FORMATS)}.",
            did_you_mean(path.suffix, FORMATS),
        )
    if path.suffix == ".parquet":
        _pyarrow()  # fails now rather than after the work
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


def _pyarrow() -> ModuleType:
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
    """Read the distilled text of each report; reports without an answer are left out.

    Args:
        path: A file of `ecamp distill`, or a JSON file that maps ids to texts.

    Returns:
        Id of the report -> distilled text.

    Raises:
        MissingError: There is no such file; or it is Parquet, and pyarrow is not installed.
        DataError: It is not such a file, or has two texts under one id.
    """
    if not path.is_file():
        raise MissingError(f"{path}: no such file.", "Make one: ecamp distill REPORTS -o FILE")
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
                f"{path}: duplicate id '{identifier}' with two different texts.",
                "Distil with a column of unique ids: --id-column NAME.",
            )
    return texts


def _table_pairs(path: Path) -> Iterator[tuple[str, str]]:
    for name in ("id", "text"):
        if name not in column_names(path) and path.stat().st_size:
            raise DataError(f"{path}: not a distilled file: it has no '{name}'.")
    for row in read_rows(path):
        if not cell(row, "error", path):
            yield cell(row, "id", path), cell(row, "text", path)


def _json_pairs(path: Path) -> Iterator[tuple[str, str]]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}.") from error
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise DataError(f"{path}: must be a JSON object that maps ids to texts.")
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
        raise DataError(f"{path}: not a distilled file: {error}.") from error
