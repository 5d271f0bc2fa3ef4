"""Runs a distiller on reports and writes its results to a file, resumable after every row.

A run appends to `OUT.partial.jsonl`: a first line that identifies distiller and input, then one row
per report. The same command continues after its last complete row. When all reports are done, the
rows are written to `OUT` in its own format, atomically, and the partial file is removed.

Why: docs/decisions.md#json-lines-first-the-format-at-the-end.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Any

from ecamp.api.distiller import POLARITIES, Distilled, Distiller, Report
from ecamp.api.plugin_ref import PluginRef
from ecamp.config import identity
from ecamp.distill.sinks import make_writer
from ecamp.errors import CorruptFileError, EcampError, UsageError
from ecamp.progress import Progress, no_progress
from ecamp.storage.files import atomic_path

_VERSION = 1  # of the partial file


@dataclass
class Tally:
    """Counts of a run, rows of an earlier, interrupted run included.

    Attributes:
        reports: Rows written.
        resumed: Rows of them that an earlier run wrote.
        polarities: Polarity -> number of statements.
        dropped: Reason -> number of rejected statements.
        errors: Reason -> number of reports without an answer.
    """

    reports: int = 0
    resumed: int = 0
    polarities: dict[str, int] = field(default_factory=lambda: dict.fromkeys(POLARITIES, 0))
    dropped: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row."""
        self.reports += 1
        for statement in row["statements"]:
            self.polarities[statement["polarity"]] += 1
        for reason, count in row.get("dropped", {}).items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count
        if error := row.get("error"):
            self.errors[error] = self.errors.get(error, 0) + 1


def distiller_identity(ref: PluginRef, distiller: Distiller) -> str:
    """Hash everything that determines a distiller's answers; every row of its files contains it."""
    return identity(distiller.identity)


def write_distilled(
    path: Path,
    distiller: Distiller,
    reports: Iterable[Report],
    run_fields: Mapping[str, str],
    progress: Progress = no_progress,
) -> Tally:
    """Distil reports into a file; continue where an earlier run of the same command stopped.

    Args:
        path: File to write; its suffix is one of `sinks.FORMATS`.
        distiller: The distiller.
        reports: All reports, including those that an earlier run has done.
        run_fields: Name -> value of everything that must be equal to resume a run; must contain
            `distiller`, the identity, which is written to every row.
        progress: Receives each row.

    Returns:
        Counts of the whole file.

    Raises:
        UsageError: The format is unknown, or the partial file is of another distiller or input.
        MissingError: Parquet is requested, and pyarrow is not installed.
        EcampError: The file cannot be written, or the distiller breaks its contract.
    """
    write = make_writer(path)
    partial = path.with_name(path.name + ".partial.jsonl")
    with _locked(partial) as file:
        tally = _resume(file, partial, {"ecamp_distill": _VERSION, **run_fields})
        tally.resumed = tally.reports
        progress(tally.reports, None, "reports")
        rest = islice(iter(reports), tally.reports, None)
        with contextlib.closing(_paired(distiller, rest)) as results:
            for report, distilled in results:
                row = {**distilled.as_json(report), "distiller": run_fields["distiller"]}
                _append(file, partial, row)
                tally.add(row)
                progress(tally.reports, None, "reports")
        with atomic_path(path) as temporary:
            write(_rows(partial), temporary)
        partial.unlink()
    return tally


def _paired(
    distiller: Distiller, reports: Iterator[Report]
) -> Generator[tuple[Report, Distilled], None, None]:
    """Yield each report with its result; only reports without a result yet are kept in memory."""
    pending: deque[Report] = deque()

    def source() -> Iterator[Report]:
        for report in reports:
            pending.append(report)
            yield report

    results = distiller.distill(source())
    try:
        for distilled in results:
            report = pending.popleft() if pending else None
            if report is None or report.id != distilled.id:
                raise EcampError(
                    f"The distiller returned a result for '{distilled.id}', expected "
                    f"'{report.id if report else 'nothing'}'.",
                    "It must give one result per report, in order. Report this to its author.",
                )
            yield report, distilled
        if pending:
            raise EcampError(f"The distiller has no result for report '{pending[0].id}'.")
    finally:
        if isinstance(results, Generator):
            results.close()  # at once: it may hold connections, or requests that cost money


# --- the partial file ---------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[FileIO]:
    """Open the partial file to append, locked against other processes.

    It is unbuffered, so that a killed process loses no row that it has written.
    """
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        file = partial.open("ab", buffering=0)
    except OSError as error:
        raise EcampError(
            f"{partial}: cannot be written: {error.strerror}.", "Choose another folder."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise EcampError(
                f"{partial}: another run is writing this file.",
                "Wait until it has finished, or choose another file.",
            ) from error
        yield file


def _append(file: FileIO, partial: Path, value: Mapping[str, Any]) -> None:
    rest = memoryview(json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n")
    try:
        while rest:
            rest = rest[file.write(rest) or 0 :]
    except OSError as error:
        raise EcampError(
            f"{partial}: cannot be written: {error.strerror}.",
            "Free some space, then run the same command again: it continues after the last"
            " complete row.",
        ) from error


def _resume(file: FileIO, partial: Path, head: Mapping[str, Any]) -> Tally:
    """Count the rows of the file and cut off an incomplete one; write the first line if empty."""
    tally = Tally()
    complete_bytes = 0
    with partial.open("rb") as written:
        for number, line in enumerate(written, 1):
            if not line.endswith(b"\n"):
                break
            value = _loads(line, partial, number)
            if number == 1:
                _check_head(partial, value, head)
            else:
                tally.add(value)
            complete_bytes += len(line)
    file.truncate(complete_bytes)
    if not complete_bytes:
        _append(file, partial, head)
    return tally


def _check_head(partial: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differs = [
        f"{key} ({before.get(key, 'none')}, now {now.get(key, 'none')})"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if differs:
        raise UsageError(
            f"{partial}: belongs to an unfinished run with another {', '.join(differs)}.",
            "Run that command again to finish it, choose another file, or delete this one.",
        )


def _rows(partial: Path) -> Iterator[dict[str, Any]]:
    with partial.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number > 1:
                yield _loads(line, partial, number)


def _loads(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
        if not isinstance(value, dict) or (number > 1 and "statements" not in value):
            raise ValueError("not a row of a distilled file")
    except ValueError as error:
        raise CorruptFileError(
            f"{path} line {number}: damaged: {error}.", "Delete it, and run the command again."
        ) from error
    return value
