"""One distillation: reports through a distiller into a file, resumable at every row.

A run appends to `OUT.partial.jsonl`: a first line that says which distiller and which input, then
one row a report. The same command goes on behind its last whole row. When all reports are done, the
rows become `OUT` in its own format, at once, and the partial file goes.

Why: docs/decisions.md#json-lines-first-the-format-at-the-end.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
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
from ecamp.storage.files import atomic_path

_VERSION = 1  # of the partial file


@dataclass
class Tally:
    """What a run did; rows of an earlier, interrupted run included.

    Attributes:
        reports: Rows written.
        resumed: Rows that were there before.
        polarities: Polarity -> statements.
        dropped: Reason -> answers that were refused.
        errors: Reason -> reports without an answer.
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
    """Hash of what decides a distiller's answers; it stands in every row that it makes."""
    return identity([ref.name, ref.variant, distiller.identity_fields()])


def write_distilled(
    path: Path,
    distiller: Distiller,
    reports: Iterable[Report],
    same: Mapping[str, str],
    progress: Callable[[Tally], None] = lambda _: None,
) -> Tally:
    """Distil reports into a file; go on where an earlier run of the same stopped.

    Args:
        path: Ends in one of `sinks.FORMATS`.
        reports: All of them, also those that were done before.
        same: What must be equal to go on: name -> value. `distiller` of it, the identity, stands in
            every row.
        progress: Called after each row.

    Raises:
        UsageError: Unknown format; a partial file of another distiller or input.
        MissingError: Parquet without pyarrow.
        EcampError: It cannot be written; the distiller leaves its protocol.
    """
    write = make_writer(path)
    partial = path.with_name(path.name + ".partial.jsonl")
    with _held(partial) as file:
        tally = _resume(file, partial, {"ecamp_distill": _VERSION, **same})
        tally.resumed = tally.reports
        rest = islice(iter(reports), tally.reports, None)
        with contextlib.closing(_paired(distiller, rest)) as results:
            for report, distilled in results:
                row = {**distilled.as_json(report), "distiller": same["distiller"]}
                _append(file, partial, row)
                tally.add(row)
                progress(tally)
        with atomic_path(path) as temporary:
            write(_rows(partial), temporary)
        partial.unlink()
    return tally


def _paired(
    distiller: Distiller, reports: Iterator[Report]
) -> Generator[tuple[Report, Distilled], None, None]:
    """Each report with its result; only reports that the distiller holds are kept."""
    held: deque[Report] = deque()

    def handed() -> Iterator[Report]:
        for report in reports:
            held.append(report)
            yield report

    results = distiller.distill(handed())
    try:
        for distilled in results:
            wanted = held.popleft() if held else None
            if wanted is None or wanted.id != distilled.id:
                raise EcampError(
                    f"The distiller answers '{distilled.id}' where "
                    f"'{wanted.id if wanted else 'nothing'}' is next.",
                    "Results must come one a report, in order; tell its author.",
                )
            yield wanted, distilled
        if held:
            raise EcampError(f"The distiller has no result for report '{held[0].id}'.")
    finally:
        if isinstance(results, Generator):
            results.close()  # now: it may hold connections, or work that costs


# --- the partial file ---------------------------------------------------------------------------


@contextlib.contextmanager
def _held(partial: Path) -> Iterator[FileIO]:
    """The partial file, open to append, held by this process alone. Unbuffered: a killed process
    loses no row that it has written.
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
                f"{partial}: another run is writing it.", "Wait for it, or choose another file."
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
            "Make room, then run the same command again: it goes on behind the last whole row.",
        ) from error


def _resume(file: FileIO, partial: Path, head: Mapping[str, Any]) -> Tally:
    """Count the rows that are there and cut off half a row; begin an empty file."""
    tally = Tally()
    whole = 0
    with partial.open("rb") as before:
        for number, line in enumerate(before, 1):
            if not line.endswith(b"\n"):
                break
            value = _loads(line, partial, number)
            if number == 1:
                _check_head(partial, value, head)
            else:
                tally.add(value)
            whole += len(line)
    file.truncate(whole)
    if not whole:
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
            f"{partial}: an unfinished run with another {', '.join(differs)}.",
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
            raise ValueError("no row")
    except ValueError as error:
        raise CorruptFileError(
            f"{path} line {number}: damaged: {error}.", "Delete it, and run the command again."
        ) from error
    return value
