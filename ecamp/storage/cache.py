"""Entries of the cache: described when they are made, marked when used; listed, collected, verified.

CACHE/<kind>/<key>/ is an entry, <key>.lock beside it is held while it is made. In the entry, `meta.json`
says what it is and holds sizes and hashes of its files; the empty file `used` bears the time of the
last use, and a shared lock on it while a process works with the entry.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecamp.errors import CorruptFileError, EcampError, MissingError
from ecamp.storage.files import content_hash, locked, read_json, write_json

KINDS = ("arrays", "pretrain", "features")
META, USED = "meta.json", "used"
# What an entry cannot be without; a pre-training may be unfinished and holds what it holds.
REQUIRED = {
    "arrays": (META, "images.npy", "masks.npy", "truth.npz"),
    "features": (META, "features.safetensors"),
}


class EntryLease:
    """Marks an entry as in use, from now until this object is closed or forgotten.

    Take it while the entry's lock is held, so that it is not collected before. Where the cache
    cannot be written nothing is marked: nobody can collect it either.
    """

    def __init__(self, folder: Path) -> None:
        self._handle = -1
        path = folder / USED
        with contextlib.suppress(OSError):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.utime(path)
            fcntl.flock(self._handle, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def close(self) -> None:
        """End the use."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __del__(self) -> None:
        self.close()


def write_meta(folder: Path, label: str, files: Sequence[str], **more: Any) -> None:
    """Describe an entry: what it is, and bytes and SHA-256 of its files.

    Args:
        label: For people: data set, encoder, pretext.
        files: Names in `folder`, all there.
        more: Further fields of `meta.json`.
    """
    known = {
        name: {
            "bytes": (folder / name).stat().st_size,
            "sha256": content_hash(folder / name),
        }
        for name in files
    }
    write_json(
        folder / META, {**more, "label": label, "created": round(time.time()), "files": known}
    )


def damage(folder: Path, meta: dict[str, Any]) -> str | None:
    """What is wrong with the files that `meta.json` describes; None when they are whole."""
    for name, known in dict(meta.get("files", {})).items():
        path = folder / name
        if not path.exists():
            return f"{name} is missing"
        if path.stat().st_size != known["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, not {known['bytes']}"
        if content_hash(path) != known["sha256"]:
            return f"{name} differs from its hash"
    return None


@dataclass(frozen=True)
class Entry:
    """One entry as it stands on disk.

    Attributes:
        label: What it is; `?` where it does not say.
        bytes: Size of its files.
        used: Time of the last use, seconds since the epoch.
        busy: A process makes or uses it right now.
    """

    kind: str
    key: str
    folder: Path
    label: str
    bytes: int
    used: float
    busy: bool


def list_entries(root: Path, kinds: Sequence[str] = KINDS) -> list[Entry]:
    """All entries of some kinds, by kind, the last used first."""
    found = []
    for kind in kinds:
        folders = (path for path in _children(root / kind) if not path.name.startswith("."))
        entries = [_entry(kind, folder) for folder in folders if folder.is_dir()]
        found += sorted(entries, key=lambda entry: (-entry.used, entry.key))
    return found


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _entry(kind: str, folder: Path) -> Entry:
    sizes, times = [0], [0.0]
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # it is being made
            if path.is_file():
                sizes.append(path.stat().st_size)
                times.append(path.stat().st_mtime)
    mark = folder / USED
    used = mark.stat().st_mtime if mark.exists() else max(times)
    label, busy = "?", False
    with contextlib.suppress(OSError, CorruptFileError, AttributeError):
        label = str(read_json(folder / META).get("label", "?"))
    if kind == "pretrain" and not (folder / "weights.safetensors").exists():
        label += " (unfinished)"
    with contextlib.suppress(OSError, EcampError), free(folder) as mine:  # or a read-only cache
        busy = not mine
    return Entry(kind, folder.name, folder, label, sum(sizes), used, busy)


@contextlib.contextmanager
def free(folder: Path) -> Iterator[bool]:
    """Keep others from an entry for the block; False when somebody makes or uses it.

    The lock file goes with the entry when the block removed it.
    """
    lock = folder.with_suffix(".lock")
    with locked(lock, wait=False) as mine, contextlib.ExitStack() as stack:
        unused = mine
        mark = folder / USED
        if mine and mark.exists():
            file = stack.enter_context(mark.open("r+b"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                unused = False
        yield unused
        if mine and not folder.exists():
            lock.unlink(missing_ok=True)


def remove(folder: Path) -> bool:
    """Delete an entry; False when somebody makes or uses it."""
    with free(folder) as mine:
        if mine:
            # Renamed first: an entry is whole or not there, also when we are killed meanwhile.
            gone = folder.with_name(f".{folder.name}.gone")
            shutil.rmtree(gone, ignore_errors=True)
            folder.replace(gone)
            shutil.rmtree(gone)
        return mine


def select_for_eviction(
    entries: Sequence[Entry],
    *,
    older_than: float | None = None,
    max_bytes: float | None = None,
    now: float,
) -> list[Entry]:
    """Choose what is collected: what was not used for long, then the least recently used.

    Args:
        older_than: Seconds without use. max_bytes: What all entries together may take.
        now: Seconds since the epoch.

    Returns:
        The longest unused first; never one in use.
    """
    total = sum(entry.bytes for entry in entries)
    chosen = []
    for entry in sorted(entries, key=lambda entry: (entry.used, entry.key)):
        old = older_than is not None and entry.used < now - older_than
        if not entry.busy and (old or (max_bytes is not None and total > max_bytes)):
            chosen.append(entry)
            total -= entry.bytes
    return chosen


def stale_files(root: Path, kinds: Sequence[str] = KINDS) -> list[Path]:
    """Temporary files of processes that died, and locks without an entry."""
    found = []
    for kind in kinds:
        for path in _children(root / kind):
            if path.name.startswith("."):  # .<key>.<random>
                owner, mine = path.with_name(path.name.split(".")[1]), [path]
            elif path.suffix == ".lock":
                owner = path.with_suffix("")
                mine = [] if owner.exists() else [path]
            else:
                owner, mine = path, sorted(path.rglob(".*"))
            if mine and _idle(owner.with_suffix(".lock")):
                found += mine
    return found


def _idle(lock: Path) -> bool:
    """Nobody makes the entry (that may not be there yet)."""
    if not lock.exists():
        return True
    with locked(lock, wait=False) as mine:
        return mine


def clear(path: Path) -> None:
    """Delete one of `stale_files`."""
    if path.suffix == ".lock":
        with locked(path, wait=False) as mine:
            if mine and not path.with_suffix("").exists():
                path.unlink()
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def verify(entry: Entry) -> str | None:
    """What is wrong with an entry; None when it is whole.

    Files that `meta.json` describes are hashed; others (of an unfinished pre-training, or made before
    hashes were kept) are looked at for their structure.
    """
    for name in REQUIRED.get(entry.kind, ()):
        if not (entry.folder / name).exists():
            return f"{name} is missing"
    meta: dict[str, Any] = {}
    try:
        if (entry.folder / META).exists():
            meta = dict(read_json(entry.folder / META))
        if problem := damage(entry.folder, meta):
            return problem
    except (CorruptFileError, KeyError, TypeError, ValueError, AttributeError, MissingError):
        return f"{META} is damaged"
    for path in sorted(entry.folder.rglob("*")):
        if path.is_file() and path.name not in meta.get("files", {}) and not _readable(path):
            return f"{path.relative_to(entry.folder)} cannot be read"
    return None


def _readable(path: Path) -> bool:
    """Whether a file is what its name says."""
    try:
        if path.suffix == ".npy":
            np.load(path, mmap_mode="r")
        elif path.suffix in (".npz", ".pt"):
            with zipfile.ZipFile(path) as file:
                return file.testzip() is None
        elif path.suffix == ".json":
            read_json(path)
        elif path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="numpy") as file:
                file.keys()
    except Exception:  # zipfile, zlib, numpy, json and safetensors raise many kinds on a torn file
        return False
    return True
