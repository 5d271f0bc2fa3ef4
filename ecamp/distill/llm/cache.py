"""Answers on disk: SQLite from the standard library, one file, for any number of processes.

A key is the hash of the request itself (model, prompt, parameters, text as sent), so whatever would
change the answer changes the key. The text is not stored; the answer is, and may quote it.

Write-ahead logging: an answer that `put` has returned for survives a killed process. It needs a local disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ecamp.errors import CorruptFileError, EcampError

FILE, CLAIMS = "answers.sqlite", "claims.lock"
_SCHEME = b"ecamp-answers-1\n"
_WAIT = 60.0  # seconds for another process's write
_ALONE = 1 << 60  # a byte of the claims that no key points to


@dataclass(frozen=True)
class Reply:
    """What a model answered.

    Attributes:
        finish: Why it stopped: `stop`, `length` (cut), or what the endpoint says.
    """

    text: str
    finish: str = "stop"
    prompt_tokens: int = 0
    answer_tokens: int = 0


def cache_key(request: bytes) -> bytes:
    """32 bytes."""
    return hashlib.sha256(_SCHEME + request).digest()


class AnswerCache:
    """The answers in a folder. To be used by the thread that made it.

    Raises:
        EcampError: The folder cannot be written.
        CorruptFileError: The file is no cache.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # answers quote reports
            self._claims = os.open(folder / CLAIMS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EcampError(
                f"{folder}: the cache of answers cannot be written: {error.strerror}.",
                "Name another folder: cache=FOLDER.",
            ) from error
        with self._said(), self._alone():
            self._base = sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=NORMAL")  # safe against kill, not power loss
            self._base.execute(
                "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, reply TEXT NOT NULL)"
                " WITHOUT ROWID"
            )

    def close(self) -> None:
        """Give back files and claims."""
        with self._alone():
            self._base.close()
        os.close(self._claims)

    def get(self, key: bytes) -> Reply | None:
        """The answer to a request, from any process's run."""
        with self._said():
            row = self._base.execute("SELECT reply FROM answers WHERE key = ?", (key,)).fetchone()
        return Reply(**json.loads(row[0])) if row else None

    def put(self, key: bytes, reply: Reply) -> None:
        """Keep an answer; when this returns it is safe."""
        with self._said():
            self._base.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(asdict(reply)))
            )

    def claim(self, key: bytes) -> bool:
        """Say that this process asks for a key; False while another one does.

        A lock on the byte that the key points to, which the system frees when the process dies.
        """
        try:
            fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(key))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, key: bytes) -> None:
        """Take back a claim."""
        fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, _offset(key))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time opens or closes: SQLite does not wait when two change to WAL at once."""
        fcntl.lockf(self._claims, fcntl.LOCK_EX, 1, _ALONE)
        try:
            yield
        finally:
            fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, _ALONE)

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """Errors of the library in words of ours."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise EcampError(
                f"{self.path}: {error}.",
                "It needs a local disk with room; another folder: cache=FOLDER. Run again: it resumes.",
            ) from error
        except sqlite3.DatabaseError as error:
            raise CorruptFileError(
                f"{self.path}: no cache of answers: {error}.",
                "Remove it, or name another folder: cache=FOLDER. Answers will be asked for again.",
            ) from error


def _offset(key: bytes) -> int:
    return int.from_bytes(key[:7], "big")
