"""Cache entries: described when created, marked when used; listed, evicted, verified.

CACHE/<kind>/<key>/ is an entry; <key>.lock next to it is locked while the entry is created. In the entry,
`meta.json` describes it and lists sizes and hashes of its files; the modification time of the empty file
`used` is the time of the last use, and processes that work with the entry hold a shared lock on it.
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
# Files that an entry must have; a pre-training may be unfinished and must have none.
REQUIRED = {
    "arrays": (META, "images.npy", "masks.npy", "truth.npz"),
    "features": (META, "features.safetensors"),
}


class EntryLease:
    """Lease of an entry: marks it as in use until this object is closed or garbage collected.

    Take it while the entry's lock is held, so that it is not evicted in between. In a read-only cache
    nothing is marked: nobody can evict from it either.
    """

    def __init__(self, folder: Path) -> None:
        self._handle = -1
        path = folder / USED
        with contextlib.suppress(OSError):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.utime(path)
            fcntl.flock(self._handle, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def close(self) -> None:
        """End the lease."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __del__(self) -> None:
        self.close()


def write_meta(folder: Path, label: str, files: Sequence[str], **more: Any) -> None:
    """Write `meta.json` of an entry: its label, and bytes and SHA-256 of its files.

    Args:
        label: Description for people: data set, encoder, pretext.
        files: Names in `folder`; all must exist.
        more: Further fields of `meta.json`.
    """
    described = {
        name: {
            "bytes": (folder / name).stat().st_size,
            "sha256": content_hash(folder / name),
        }
        for name in files
    }
    write_json(
        folder / META, {**more, "label": label, "created": round(time.time()), "files": described}
    )


def find_corruption(folder: Path, meta: dict[str, Any]) -> str | None:
    """Describe the first damage to the files listed in `meta.json`; None if they are intact."""
    for name, expected in dict(meta.get("files", {})).items():
        path = folder / name
        if not path.exists():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, not {expected['bytes']}"
        if content_hash(path) != expected["sha256"]:
            return f"{name} differs from its hash"
    return None


@dataclass(frozen=True)
class Entry:
    """One entry as it is on disk.

    Attributes:
        kind: One of `KINDS`.
        label: Its description; `?` if it has none.
        bytes: Size of its files.
        last_used: Time of the last use, seconds since the epoch.
        in_use: Whether a process is creating or using it.
    """

    kind: str
    key: str
    folder: Path
    label: str
    bytes: int
    last_used: float
    in_use: bool


def list_entries(root: Path, kinds: Sequence[str] = KINDS) -> list[Entry]:
    """List all entries of some kinds, by kind, most recently used first."""
    listed = []
    for kind in kinds:
        folders = (path for path in _children(root / kind) if not path.name.startswith("."))
        entries = [_entry(kind, folder) for folder in folders if folder.is_dir()]
        listed += sorted(entries, key=lambda entry: (-entry.last_used, entry.key))
    return listed


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _entry(kind: str, folder: Path) -> Entry:
    sizes, times = [0], [0.0]
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # it is being created
            if path.is_file():
                sizes.append(path.stat().st_size)
                times.append(path.stat().st_mtime)
    mark = folder / USED
    last_used = mark.stat().st_mtime if mark.exists() else max(times)
    label, in_use = "?", False
    with contextlib.suppress(OSError, CorruptFileError, AttributeError):
        label = str(read_json(folder / META).get("label", "?"))
    if kind == "pretrain" and not (folder / "weights.safetensors").exists():
        label += " (unfinished)"
    with contextlib.suppress(OSError, EcampError), try_exclusive(folder) as unused:  # or read-only
        in_use = not unused
    return Entry(kind, folder.name, folder, label, sum(sizes), last_used, in_use)


@contextlib.contextmanager
def try_exclusive(folder: Path) -> Iterator[bool]:
    """Lock an entry for the block unless a process is creating or using it.

    The lock file is deleted too if the block removed the entry.

    Yields:
        Whether the entry is locked.
    """
    lock = folder.with_suffix(".lock")
    with locked(lock, wait=False) as acquired, contextlib.ExitStack() as stack:
        unused = acquired
        mark = folder / USED
        if acquired and mark.exists():
            file = stack.enter_context(mark.open("r+b"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                unused = False
        yield unused
        if acquired and not folder.exists():
            lock.unlink(missing_ok=True)


def remove(folder: Path) -> bool:
    """Delete an entry unless a process is creating or using it; return whether it was deleted."""
    with try_exclusive(folder) as unused:
        if unused:
            # Renamed first, so that an entry is complete or absent even if we are killed meanwhile.
            renamed = folder.with_name(f".{folder.name}.gone")
            shutil.rmtree(renamed, ignore_errors=True)
            folder.replace(renamed)
            shutil.rmtree(renamed)
        return unused


def select_for_eviction(
    entries: Sequence[Entry],
    *,
    older_than: float | None = None,
    max_bytes: float | None = None,
    now: float,
) -> list[Entry]:
    """Choose entries to delete: those unused for long, then the least recently used.

    Args:
        older_than: Seconds without use after which an entry is chosen.
        max_bytes: Size that all entries together may have.
        now: Seconds since the epoch.

    Returns:
        Entries, the longest unused first; never one in use.
    """
    total = sum(entry.bytes for entry in entries)
    chosen = []
    for entry in sorted(entries, key=lambda entry: (entry.last_used, entry.key)):
        old = older_than is not None and entry.last_used < now - older_than
        if not entry.in_use and (old or (max_bytes is not None and total > max_bytes)):
            chosen.append(entry)
            total -= entry.bytes
    return chosen


def stale_files(root: Path, kinds: Sequence[str] = KINDS) -> list[Path]:
    """List temporary files of processes that died, and lock files without an entry."""
    stale = []
    for kind in kinds:
        for path in _children(root / kind):
            if path.name.startswith("."):  # .<key>.<random>
                owner, candidates = path.with_name(path.name.split(".")[1]), [path]
            elif path.suffix == ".lock":
                owner = path.with_suffix("")
                candidates = [] if owner.exists() else [path]
            else:
                owner, candidates = path, sorted(path.rglob(".*"))
            if candidates and _idle(owner.with_suffix(".lock")):
                stale += candidates
    return stale


def _idle(lock: Path) -> bool:
    """Tell whether no process is creating the entry (which may not exist yet)."""
    if not lock.exists():
        return True
    with locked(lock, wait=False) as acquired:
        return acquired


def remove_stale(path: Path) -> None:
    """Delete one of `stale_files`."""
    if path.suffix == ".lock":
        with locked(path, wait=False) as acquired:
            if acquired and not path.with_suffix("").exists():
                path.unlink()
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def verify(entry: Entry) -> str | None:
    """Describe the damage to an entry; None if it is intact.

    Files listed in `meta.json` are hashed; of others (of an unfinished pre-training, or written before
    hashes were recorded) the structure is checked.
    """
    for name in REQUIRED.get(entry.kind, ()):
        if not (entry.folder / name).exists():
            return f"{name} is missing"
    meta: dict[str, Any] = {}
    try:
        if (entry.folder / META).exists():
            meta = dict(read_json(entry.folder / META))
        if problem := find_corruption(entry.folder, meta):
            return problem
    except (CorruptFileError, KeyError, TypeError, ValueError, AttributeError, MissingError):
        return f"{META} is damaged"
    for path in sorted(entry.folder.rglob("*")):
        if path.is_file() and path.name not in meta.get("files", {}) and not _readable(path):
            return f"{path.relative_to(entry.folder)} cannot be read"
    return None


def _readable(path: Path) -> bool:
    """Tell whether a file has the format of its suffix."""
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
    except (
        Exception
    ):  # zipfile, zlib, numpy, json and safetensors raise many types on a truncated file
        return False
    return True
