"""Reports from where they lie, one at a time: tables, JSON lines, MIMIC and FFA-IR as published.

| path                                | report                              | id                 |
| ----------------------------------- | ----------------------------------- | ------------------ |
| .csv, .tsv, .jsonl                  | findings + impression, report, text | a column, or count |
| .json, FFA-IR's annotation          | English report of a case            | case               |
| folder of MIMIC-CXR: files/p10/...  | s50414267.txt                       | study number       |
| any other folder                    | a .txt file                         | its name           |
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ecamp.api.distiller import Report, Section
from ecamp.errors import DataError, MissingError, UsageError, did_you_mean
from ecamp.text.reports import (
    TABLES,
    USUAL,
    Row,
    cell,
    choose_columns,
    column_names,
    decode,
    is_unicode,
    read_rows,
    refuse,
)
from ecamp.text.sections import findings_spans

# Columns looked for when none is named; the first that is there wins.
ID_COLUMNS = ("uid", "id", "study_id", "report_id", "dicom_id", "study", "case_id", "image_id")
FFA_IR_SPLITS, FFA_IR_REPORT = ("train", "val", "test"), "En_Report"
Bad = Callable[[DataError], None]


def stream_reports(
    path: Path, columns: Sequence[str] = (), id_column: str = "", bad: Bad = refuse
) -> Iterator[Report]:
    """Reports in the order of their source; a report without text is one too.

    Args:
        columns: Columns (or JSON keys) with the report; several are joined by a line break and make
            a section each. Empty: the usual ones.
        id_column: Column (or JSON key) with the id. Empty: the first of `ID_COLUMNS`.
        bad: Called for a row or file that cannot be read; where it returns, the next is read.

    Raises:
        MissingError: No such file or folder.
        UsageError: A column named where there are none.
        DataError: Through `bad`, naming file, line and column; a column that is not there.
    """
    if path.is_dir():
        if columns or id_column:
            raise UsageError(f"{path} is a folder and has no column '{[*columns, id_column][0]}'.")
        return _folder(path, bad)
    if not path.exists():
        raise MissingError(f"{path}: no such file or folder.")
    if path.suffix in TABLES:
        return _table(path, columns, id_column, bad)
    if path.suffix == ".json":
        return _ffa_ir(path, columns, bad)
    raise UsageError(
        f"{path}: reports are read from {', '.join(TABLES)}, .json (FFA-IR) or a folder of .txt."
    )


def as_report(identifier: str, text: str, row: str = "") -> Report:
    """A report whose sections stand in its text."""
    return Report(identifier, text, tuple(Section(*span) for span in findings_spans(text)), row)


def source_hash(path: Path) -> str:
    """Hash that stands for a source: of a file's bytes; of a folder's names, sizes and times.

    Raises:
        MissingError: It cannot be read.
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


def _table(path: Path, columns: Sequence[str], id_column: str, bad: Bad) -> Iterator[Report]:
    chosen = choose_columns(path, columns)
    return _rows(path, chosen, id_column_of(path, id_column), bad)


def id_column_of(path: Path, asked: str = "") -> str:
    """The column with the id: the one asked for, else the first usual one; empty without any.

    Raises:
        DataError: The one asked for is not there.
    """
    names = column_names(path)
    if asked and asked not in names:
        raise DataError(f"{path}: no column '{asked}'.", did_you_mean(asked, names))
    return asked or next((name for name in ID_COLUMNS if name in names), "")


def _rows(path: Path, columns: Sequence[str], id_column: str, bad: Bad) -> Iterator[Report]:
    by_column = len(columns) > 1 or set(columns) <= set(USUAL[0])
    for at, row in enumerate(read_rows(path, bad), 1):
        where = f"{path.name} line {row.number}"
        try:
            identifier = _id(row, id_column, path) if id_column else str(at)
            texts = [(name, cell(row, name, path)) for name in columns]
        except DataError as error:
            bad(error)
            continue
        if by_column:
            yield _joined(identifier, texts, where)
        else:
            yield as_report(identifier, texts[0][1], where)


def _id(row: Row, column: str, path: Path) -> str:
    value = row.values.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    identifier = cell(row, column, path).strip()
    if not identifier:
        raise DataError(f"{path} line {row.number}: '{column}' is empty.", "Give it an id.")
    return identifier


def _joined(identifier: str, texts: Sequence[tuple[str, str]], where: str) -> Report:
    """Columns with text, as they stand, a line break between them: spans of a column keep."""
    parts, sections, start = [], [], 0
    for name, text in texts:
        if text.strip():
            parts.append(text)
            sections.append(Section(name.lower(), start, start + len(text)))
            start += len(text) + 1
    return Report(identifier, "\n".join(parts), tuple(sections), where)


# --- FFA-IR -------------------------------------------------------------------------------------


def _ffa_ir(path: Path, columns: Sequence[str], bad: Bad) -> Iterator[Report]:
    """`{"train": {case: {"En_Report": ..., "Image_path": [...]}}, "val": ..., "test": ...}`."""
    try:
        value = json.loads(decode(path.read_bytes(), str(path)))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: no JSON: {error}.") from error
    splits = [split for split in FFA_IR_SPLITS if isinstance(value, dict) and split in value]
    if not splits or not all(isinstance(value[split], dict) for split in splits):
        raise DataError(
            f"{path}: no FFA-IR annotation, which maps train, val and test to cases.",
            "Turn it into .jsonl: one object with id and report a line.",
        )
    return _cases(path, {split: value[split] for split in splits}, columns, bad)


def _cases(
    path: Path, splits: Mapping[str, Mapping[str, Any]], columns: Sequence[str], bad: Bad
) -> Iterator[Report]:
    asked = list(columns) or [FFA_IR_REPORT]
    for split, cases in splits.items():
        for case, fields in cases.items():
            where = f"{path.name} {split} {case}"
            texts = _case_texts(fields, asked)
            if texts is None:
                bad(DataError(f"{where}: no text in {' or '.join(asked)}."))
            elif len(texts) > 1:
                yield _joined(case, texts, where)
            else:
                yield as_report(case, texts[0][1], where)


def _case_texts(fields: Any, asked: Sequence[str]) -> list[tuple[str, Any]] | None:
    """(field, text) pairs; None where one is missing or cannot be written as UTF-8."""
    texts = [(name, fields.get(name) if isinstance(fields, dict) else None) for name in asked]
    good = all(isinstance(text, str) and is_unicode(text) for _, text in texts)
    return texts if good else None


# --- folders ------------------------------------------------------------------------------------


def _folder(path: Path, bad: Bad) -> Iterator[Report]:
    names = _text_files(path)
    first = next(names, None)
    if first is None:
        raise DataError(f"{path}: no .txt file.", "Name the folder that holds files/ or the texts.")
    return _files(path, bad)


def _files(path: Path, bad: Bad) -> Iterator[Report]:
    mimic = _mimic_root(path) is not None
    for name in _text_files(path):
        try:
            text = decode((path / name).read_bytes(), str(path / name))
        except DataError as error:
            bad(error)
            continue
        except OSError as error:
            bad(DataError(f"{path / name}: cannot be read: {error.strerror}."))
            continue
        stem = Path(name).stem
        yield as_report(stem.removeprefix("s") if mimic else stem, text, name)


def _mimic_root(path: Path) -> Path | None:
    """The folder that holds p10 .. p19: this one or its files/; None for any other folder."""
    for root in (path / "files", path):
        if root.is_dir() and any(_is_group(entry.name) for entry in os.scandir(root)):
            return root
    return None


def _is_group(name: str) -> bool:
    return len(name) == 3 and name[0] == "p" and name[1:].isdigit()


def _text_files(path: Path) -> Iterator[str]:
    """Names of report files relative to `path`, sorted; a MIMIC tree is walked folder by folder."""
    root = _mimic_root(path)
    if root is None:
        yield from _sorted(path, ".txt")
        return
    for group in filter(_is_group, _sorted(root)):
        for patient in _sorted(root / group):
            if patient[:1] == "p" and patient[1:].isdigit() and (root / group / patient).is_dir():
                home = root / group / patient
                for name in _sorted(home, ".txt"):
                    if name[:1] == "s":
                        yield (home / name).relative_to(path).as_posix()


def _sorted(folder: Path, suffix: str = "") -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.name.endswith(suffix))
