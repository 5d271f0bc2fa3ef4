"""Crash-safe file writes, locks and JSON lines."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from ecamp.errors import CorruptFileError, EcampError, MissingError

T = TypeVar("T")


def cache_root(override: Path | None = None) -> Path:
    """Return the folder of decoded pixels, pre-trained weights and features:

    `override` (`--cache`), else `$ECAMP_CACHE`, else `~/.cache/ecamp`.
    """
    if override is not None:
        return override
    variable = os.environ.get("ECAMP_CACHE")
    return Path(variable) if variable else Path.home() / ".cache" / "ecamp"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path; sync it and rename it to `path` on success, remove it on failure.

    Raises:
        EcampError: The folder cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise EcampError(
            f"{path.parent}: cannot be written: {error.strerror}.",
            "Choose another folder with --run or --cache, or free disk space.",
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise EcampError(
            f"{path}: cannot be written: {error.strerror or error}.",
            "Free disk space or choose another folder, then run the same command again: it resumes.",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_if_changed(path: Path, data: bytes) -> None:
    """Write atomically unless the file has that content, so that its time stays."""
    if not (path.is_file() and path.read_bytes() == data):
        write_bytes(path, data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; equal values give equal bytes (sorted keys, two spaces, no NaN)."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file that ecamp wrote.

    Raises:
        FileNotFoundError: No such file.
        CorruptFileError: Not valid JSON; names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise CorruptFileError(
            f"{path}: damaged: {error}.", "Delete it; it will be written again."
        ) from error


def append_line(path: Path, value: Any) -> None:
    """Append one JSON line and sync the file."""
    append_lines(path, (value,))


def append_lines(path: Path, values: Iterable[Any]) -> None:
    """Append JSON lines and sync the file once."""
    text = _json_lines(values)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise EcampError(f"{path}: cannot be written: {error.strerror}.") from error


def read_lines(path: Path, row_type: type[T]) -> list[T]:
    """Read JSON lines as dataclasses of `row_type`, skipping lines that an interruption cut off."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    rows = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError):
            rows.append(row_type(**json.loads(line)))
    return rows


def repair_and_read_lines(path: Path, row_type: type[T]) -> list[T]:
    """Read lines for resuming: incomplete ones are removed, so that appending starts on a new line."""
    rows = read_lines(path, row_type)
    if path.exists():
        write_lines(path, rows)
    return rows


def write_lines(path: Path, lines: Iterable[Any]) -> None:
    """Write dataclasses as JSON lines unless the file has that content."""
    write_if_changed(path, _json_lines(map(asdict, lines)).encode())


def _json_lines(values: Iterable[Any]) -> str:
    return "".join(
        json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        for value in values
    )


def content_hash(path: Path) -> str:
    """Compute the SHA-256 of a file that an option names; it represents the file in identities.

    Raises:
        MissingError: It cannot be read; names it.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MissingError(
            f"{path}: cannot be read: {error.strerror}.", "Check the path."
        ) from error


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path` that replaces it on success and is removed on failure.

    Raises:
        OSError: The folder cannot be written or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield work
        shutil.rmtree(path, ignore_errors=True)
        work.replace(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on a file for the block, waiting until other processes release it.

    The file may be deleted while the lock is held or awaited (garbage collection does): a lock on a
    deleted file never counts.

    Yields:
        Whether the lock is held: always, unless `wait` is False and another process holds it.

    Raises:
        EcampError: The folder cannot be written.
    """
    lock = FileLock(path, timeout=-1 if wait else 0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        yield False
        return
    except OSError as error:
        raise EcampError(
            f"{path.parent}: cannot be written: {error.strerror}.",
            "Choose another folder with --run or --cache.",
        ) from error
    try:
        yield True
    finally:
        lock.release()
