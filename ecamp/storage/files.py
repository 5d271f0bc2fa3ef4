"""Files that survive a crash: atomic writes, and checked reads of what we wrote."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, TypeVar

from ecamp.errors import CorruptFileError, EcampError, MissingError

T = TypeVar("T")


def cache_root(override: Path | None = None) -> Path:
    """Where decoded pixels, pre-trained weights and features are kept.

    `--cache`, else `$ECAMP_CACHE`, else `~/.cache/ecamp`.
    """
    if override is not None:
        return override
    named = os.environ.get("ECAMP_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "ecamp"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path; on success sync it and rename it to `path`, on failure remove it.

    Raises:
        EcampError: When the folder cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise EcampError(
            f"{path.parent}: cannot be written: {error.strerror}.",
            "Choose another folder with --run or --cache, or make room.",
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
            "Make room or choose another folder, then run the same command again: it resumes.",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_if_changed(path: Path, data: bytes) -> None:
    """Write atomically, unless the file holds just that: its time stays then."""
    if not (path.is_file() and path.read_bytes() == data):
        write_bytes(path, data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: sorted keys, two spaces, NaN refused, so equal values, equal bytes."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON that we wrote.

    Raises:
        FileNotFoundError: When it is not there.
        CorruptFileError: When it is no JSON; names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise CorruptFileError(
            f"{path}: damaged: {error}.", "Delete it; it is made again."
        ) from error


def append_line(path: Path, value: Any) -> None:
    """Append one JSON line and sync it."""
    append_lines(path, (value,))


def append_lines(path: Path, values: Iterable[Any]) -> None:
    """Append JSON lines and sync them once."""
    text = _json_lines(values)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise EcampError(f"{path}: cannot be written: {error.strerror}.") from error


def read_lines(path: Path, kind: type[T]) -> list[T]:
    """JSON lines as dataclasses of `kind`; what is none, as a kill may leave it, is passed over."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError):
            found.append(kind(**json.loads(line)))
    return found


def repair_and_read_lines(path: Path, kind: type[T]) -> list[T]:
    """The same, for a run that goes on here: torn lines are taken out, the next one appended begins one."""
    found = read_lines(path, kind)
    if path.exists():
        write_lines(path, found)
    return found


def write_lines(path: Path, lines: Iterable[Any]) -> None:
    """Write dataclasses as JSON lines, unless the file holds just them."""
    write_if_changed(path, _json_lines(map(asdict, lines)).encode())


def _json_lines(values: Iterable[Any]) -> str:
    return "".join(
        json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        for value in values
    )


def content_hash(path: Path) -> str:
    """SHA-256 of a file that an option names; it stands for the file in identities.

    Raises:
        MissingError: When it cannot be read; names it.
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
    """Give a temporary folder beside `path`; on success it takes its place, on failure it goes.

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
    """Hold an exclusive lock on a file for the block; waits for another process to finish.

    Yields:
        Whether the lock is held: always, unless `wait` is False and somebody else holds it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _lock(path, wait)
    except OSError as error:
        raise EcampError(
            f"{path.parent}: cannot be written: {error.strerror}.",
            "Choose another folder with --run or --cache.",
        ) from error
    if file is None:
        yield False
        return
    with file:
        yield True


def _lock(path: Path, wait: bool) -> IO[str] | None:
    while True:
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            return None
        # Garbage collection may have removed the file while we waited: a lock on a file that has
        # no name any more keeps nobody out.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
