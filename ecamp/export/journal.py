"""Resumable export: a journal with one JSON line per file that is finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from joblib import Parallel, delayed

from ecamp.progress import Progress, no_progress
from ecamp.storage.files import append_lines, repair_and_read_lines, write_lines

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Item = TypeVar("Item")
Row = TypeVar("Row", bound="DataclassInstance")

CHUNK = 32  # items per task of a worker process, and per sync of the journal


@dataclass(frozen=True)
class Outcome(Generic[Row]):
    """Journal of a run that is finished.

    Attributes:
        rows: One per item that could be written, in the order of keys.
        new: How many of them this run wrote.
        bad: Messages of items that could not be written.
    """

    rows: tuple[Row, ...]
    new: int
    bad: tuple[str, ...]


def run_resumable(
    items: Mapping[str, Item],
    work: Callable[[Sequence[Item]], list[Row | str]],
    journal: Path,
    row_type: type[Row],
    *,
    key: Callable[[Row], str],
    is_done: Callable[[Row], bool],
    workers: int,
    progress: Progress = no_progress,
    counted: str = "items",
) -> Outcome[Row]:
    """Work off the items that the journal does not have yet, in parallel.

    Rows are appended as they come, so that an interrupted run continues from there; at the end the
    journal is sorted by key.

    Args:
        items: Everything to do, by key.
        work: Items -> a row per item, or the message of what is wrong with it; is pickled.
        key: Row -> key of its item.
        is_done: Whether what a row describes is still there; otherwise the item is done again.
        workers: Processes.
        progress: Receives finished items.
        counted: Name of the items in progress notes.
    """
    if not items:
        return Outcome((), 0, ())
    known = {key(row): row for row in repair_and_read_lines(journal, row_type)}
    kept = {name: known[name] for name in items if name in known and is_done(known[name])}
    missing = [item for name, item in items.items() if name not in kept]
    chunks = [missing[i : i + CHUNK] for i in range(0, len(missing), CHUNK)]
    done, bad = dict(kept), []
    progress(len(done), len(items), counted)
    for results in Parallel(n_jobs=workers, return_as="generator")(
        delayed(work)(chunk) for chunk in chunks
    ):
        rows = [result for result in results if not isinstance(result, str)]
        bad += [result for result in results if isinstance(result, str)]
        done |= {key(row): row for row in rows}
        append_lines(journal, map(asdict, rows))
        progress(len(done) + len(bad), len(items), counted)
    ordered = tuple(done[name] for name in sorted(done))
    write_lines(journal, ordered)
    return Outcome(ordered, len(done) - len(kept), tuple(bad))
