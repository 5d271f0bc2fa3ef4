"""Cache of answers on disk: one SQLite file, for any number of processes.

A key is the hash of the request itself (model, prompt, parameters, text as sent), so everything that
would change the answer changes the key. The text is not stored; the answer is, and may quote it.

With write-ahead logging, an answer for which `put` has returned survives a killed process. This needs a
local disk.
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
_BUSY_TIMEOUT = 60.0  # seconds to wait for a write of another process
_OPEN_CLOSE = 1 << 60  # offset in the claims file that no key points to


@dataclass(frozen=True)
class Reply:
    """A model's answer.

    Attributes:
        text: Its text.
        finish: Reason why it ended: `stop`, `length` (cut), or another one from the endpoint.
        prompt_tokens: Tokens of the request.
        answer_tokens: Tokens of the answer.
    """

    text: str
    finish: str = "stop"
    prompt_tokens: int = 0
    answer_tokens: int = 0


def cache_key(request: bytes) -> bytes:
    """Hash a request to 32 bytes."""
    return hashlib.sha256(_SCHEME + request).digest()


class AnswerCache:
    """Cache of answers in a folder; to be used only by the thread that created it.

    Raises:
        EcampError: The folder cannot be written.
        CorruptFileError: The file is not a cache of answers.
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
        with self._translate_errors(), self._exclusive():
            self._database = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            # Safe against a killed process, not against power loss.
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, reply TEXT NOT NULL)"
                " WITHOUT ROWID"
            )

    def close(self) -> None:
        """Close the database and release all claims."""
        with self._exclusive():
            self._database.close()
        os.close(self._claims)

    def get(self, key: bytes) -> Reply | None:
        """Look up the answer to a request; None if no process has stored one."""
        with self._translate_errors():
            row = self._database.execute(
                "SELECT reply FROM answers WHERE key = ?", (key,)
            ).fetchone()
        return Reply(**json.loads(row[0])) if row else None

    def put(self, key: bytes, reply: Reply) -> None:
        """Store an answer; it is on disk when this returns."""
        with self._translate_errors():
            self._database.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(asdict(reply)))
            )

    def claim(self, key: bytes) -> bool:
        """Claim a key, so that only this process requests its answer; False if another one has.

        The claim is a lock on the byte that the key points to; the system frees it when the process
        ends.
        """
        try:
            fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(key))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, key: bytes) -> None:
        """Release the claim of a key."""
        fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, _offset(key))

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Let one process at a time open or close: SQLite fails when two switch to WAL at once."""
        fcntl.lockf(self._claims, fcntl.LOCK_EX, 1, _OPEN_CLOSE)
        try:
            yield
        finally:
            fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, _OPEN_CLOSE)

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Translate errors of SQLite into errors that name the file and the next step."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise EcampError(
                f"{self.path}: {error}.",
                "The cache needs a local disk with free space; name another folder: cache=FOLDER."
                " Run again: it resumes.",
            ) from error
        except sqlite3.DatabaseError as error:
            raise CorruptFileError(
                f"{self.path}: not a cache of answers: {error}.",
                "Remove it, or name another folder: cache=FOLDER. Answers will be requested again.",
            ) from error


def _offset(key: bytes) -> int:
    return int.from_bytes(key[:7], "big")
