"""Streams reports from tables, JSON lines, and the folders of MIMIC-CXR and FFA-IR as published.

| path                                | report                              | id                 |
| ----------------------------------- | ----------------------------------- | ------------------ |
| .csv, .tsv, .jsonl                  | findings + impression, report, text | column or row no.  |
| .json, FFA-IR's annotation          | English report of a case            | case               |
| folder of MIMIC-CXR: files/p10/...  | s50414267.txt                       | study number       |
| any other folder                    | a .txt file                         | its name           |
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ecamp.api.distiller import Report, Section
from ecamp.errors import DataError, MissingError, UsageError, did_you_mean
from ecamp.text.reports import (
    DEFAULT_COLUMNS,
    TABLES,
    OnBadRow,
    TableRow,
    cell,
    choose_columns,
    column_names,
    decode,
    is_unicode,
    raise_error,
    read_rows,
)
from ecamp.text.sections import findings_spans

# Columns that are tried for ids when none is named; the first one present wins.
ID_COLUMNS = ("uid", "id", "study_id", "report_id", "dicom_id", "study", "case_id", "image_id")
FFA_IR_SPLITS, FFA_IR_REPORT = ("train", "val", "test"), "En_Report"


def stream_reports(
    path: Path,
    columns: Sequence[str] = (),
    id_column: str = "",
    on_bad_row: OnBadRow = raise_error,
) -> Iterator[Report]:
    """Yield the reports of a source in its order, those without text included.

    Args:
        path: File or folder, see the table above.
        columns: Columns (or JSON keys) with the report; several are joined by line breaks and form
            one section each. Empty: the default ones.
        id_column: Column (or JSON key) with the id. Empty: the first of `ID_COLUMNS` present.
        on_bad_row: Called with the error of a row or file that cannot be read; if it returns, the
            next one is read.

    Raises:
        MissingError: There is no such file or folder.
        UsageError: A column is named for a source without columns, or the format is unknown.
        DataError: A column is missing; or raised by `on_bad_row`, naming file, line and column.
    """
    if path.is_dir():
        if columns or id_column:
            raise UsageError(f"{path} is a folder and has no column '{[*columns, id_column][0]}'.")
        return _folder(path, on_bad_row)
    if not path.exists():
        raise MissingError(f"{path}: no such file or folder.")
    if path.name.endswith(TABLES):
        return _table(path, columns, id_column, on_bad_row)
    if path.suffix == ".json":
        return _ffa_ir(path, columns, on_bad_row)
    raise UsageError(
        f"{path}: unknown format of reports.",
        f"Give {', '.join(TABLES)}, .json (FFA-IR) or a folder of .txt files.",
    )


def as_report(identifier: str, text: str, row: str = "") -> Report:
    """Build a report from a text that contains its section headings."""
    return Report(identifier, text, tuple(Section(*span) for span in findings_spans(text)), row)


def source_hash(path: Path) -> str:
    """Hash a source: the bytes of a file; names, sizes and modification times of a folder's files.

    Raises:
        MissingError: The source cannot be read.
    """
    try:
        if path.is_file():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        for name in _text_files(path):
            status = (path / name).stat()
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return digest.hexdigest()
    except OSError as error:
        raise MissingError(f"{path}: cannot be read: {error.strerror}.") from error


# --- tables -------------------------------------------------------------------------------------


def _table(
    path: Path, columns: Sequence[str], id_column: str, on_bad_row: OnBadRow
) -> Iterator[Report]:
    names = choose_columns(path, columns)
    return _rows(path, names, choose_id_column(path, id_column), on_bad_row)


def choose_id_column(path: Path, requested: str = "") -> str:
    """Choose the column with the id: the requested one, else the first default; empty without any.

    Raises:
        DataError: The requested column is missing.
    """
    names = column_names(path)
    if requested and requested not in names:
        raise DataError(f"{path}: no column '{requested}'.", did_you_mean(requested, names))
    return requested or next((name for name in ID_COLUMNS if name in names), "")


def _rows(
    path: Path, columns: Sequence[str], id_column: str, on_bad_row: OnBadRow
) -> Iterator[Report]:
    by_column = len(columns) > 1 or set(columns) <= set(DEFAULT_COLUMNS[0])
    for count, row in enumerate(read_rows(path, on_bad_row), 1):
        location = f"{path.name} line {row.number}"
        try:
            identifier = _id(row, id_column, path) if id_column else str(count)
            texts = [(name, cell(row, name, path)) for name in columns]
        except DataError as error:
            on_bad_row(error)
            continue
        if by_column:
            yield _joined(identifier, texts, location)
        else:
            yield as_report(identifier, texts[0][1], location)


def _id(row: TableRow, column: str, path: Path) -> str:
    value = row.values.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    identifier = cell(row, column, path).strip()
    if not identifier:
        raise DataError(f"{path} line {row.number}: '{column}' is empty.", "Give it an id.")
    return identifier


def _joined(identifier: str, texts: Sequence[tuple[str, str]], row: str) -> Report:
    """Join the columns with text by line breaks, unchanged: offsets within a column stay valid."""
    parts, sections, start = [], [], 0
    for name, text in texts:
        if text.strip():
            parts.append(text)
            sections.append(Section(name.lower(), start, start + len(text)))
            start += len(text) + 1
    return Report(identifier, "\n".join(parts), tuple(sections), row)


# --- FFA-IR -------------------------------------------------------------------------------------


def _ffa_ir(path: Path, columns: Sequence[str], on_bad_row: OnBadRow) -> Iterator[Report]:
    """Read `{"train": {case: {"En_Report": ..., "Image_path": [...]}}, "val": ..., "test": ...}`."""
    try:
        value = json.loads(decode(path.read_bytes(), str(path)))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}.") from error
    splits = [split for split in FFA_IR_SPLITS if isinstance(value, dict) and split in value]
    if not splits or not all(isinstance(value[split], dict) for split in splits):
        raise DataError(
            f"{path}: not an FFA-IR annotation, which maps train, val and test to cases.",
            "Convert other files to .jsonl: one object with id and report per line.",
        )
    return _cases(path, {split: value[split] for split in splits}, columns, on_bad_row)


def _cases(
    path: Path,
    splits: Mapping[str, Mapping[str, Any]],
    columns: Sequence[str],
    on_bad_row: OnBadRow,
) -> Iterator[Report]:
    names = list(columns) or [FFA_IR_REPORT]
    for split, cases in splits.items():
        for case, fields in cases.items():
            location = f"{path.name} {split} {case}"
            texts = _case_texts(fields, names)
            if texts is None:
                on_bad_row(DataError(f"{location}: no text in {' or '.join(names)}."))
            elif len(texts) > 1:
                yield _joined(case, texts, location)
            else:
                yield as_report(case, texts[0][1], location)


def _case_texts(fields: Any, names: Sequence[str]) -> list[tuple[str, Any]] | None:
    """Return (field, text) pairs; None if one is missing or cannot be written as UTF-8."""
    texts = [(name, fields.get(name) if isinstance(fields, dict) else None) for name in names]
    readable = all(isinstance(text, str) and is_unicode(text) for _, text in texts)
    return texts if readable else None


# --- folders ------------------------------------------------------------------------------------


def _folder(path: Path, on_bad_row: OnBadRow) -> Iterator[Report]:
    names = _text_files(path)
    first = next(names, None)
    if first is None:
        raise DataError(f"{path}: no .txt file.", "Name the folder with files/ or the texts.")
    return _files(path, on_bad_row)


def _files(path: Path, on_bad_row: OnBadRow) -> Iterator[Report]:
    mimic = _mimic_root(path) is not None
    for name in _text_files(path):
        try:
            text = decode((path / name).read_bytes(), str(path / name))
        except DataError as error:
            on_bad_row(error)
            continue
        except OSError as error:
            on_bad_row(DataError(f"{path / name}: cannot be read: {error.strerror}."))
            continue
        stem = Path(name).stem
        yield as_report(stem.removeprefix("s") if mimic else stem, text, name)


def _mimic_root(path: Path) -> Path | None:
    """Return the folder with p10 .. p19, this one or its files/; None for any other folder."""
    for root in (path / "files", path):
        if root.is_dir() and any(map(_is_group, os.listdir(root))):
            return root
    return None


def _is_group(name: str) -> bool:
    return len(name) == 3 and name[0] == "p" and name[1:].isdigit()


def _text_files(path: Path) -> Iterator[str]:
    """Yield report files relative to `path`, sorted; a MIMIC tree is walked folder by folder."""
    root = _mimic_root(path)
    if root is None:
        yield from _sorted(path, ".txt")
        return
    for group in filter(_is_group, _sorted(root)):
        for patient in _sorted(root / group):
            if patient[:1] == "p" and patient[1:].isdigit() and (root / group / patient).is_dir():
                folder = root / group / patient
                for name in _sorted(folder, ".txt"):
                    if name[:1] == "s":
                        yield (folder / name).relative_to(path).as_posix()


def _sorted(folder: Path, suffix: str = "") -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.name.endswith(suffix))
