"""Files that survive a crash: atomic writes, and checked reads of what we wrote."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ecamp.errors import CorruptFileError, EcampError, MissingError


def cache_root(override: Path | None = None) -> Path:
    """Where decoded pixels and pre-trained weights are kept.

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
    line = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise EcampError(f"{path}: cannot be written: {error.strerror}.") from error


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
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file for the block; waits for another process to finish."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise EcampError(
            f"{path.parent}: cannot be written: {error.strerror}.",
            "Choose another folder with --run or --cache.",
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
