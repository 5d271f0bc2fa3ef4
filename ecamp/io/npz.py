"""Arrays of an npz file, memory-mapped instead of read: gigabytes of images cost no memory."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from ecamp.errors import DataError
from ecamp.storage.files import atomic_path, cache_root, locked


def members(path: Path) -> list[zipfile.ZipInfo]:
    """List the members of an npz file with their checksums, without reading an array."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not an npz file: {error}.", "Download it again.") from error


def map_array(path: Path, name: str) -> np.ndarray:
    """Map an array of an npz file, which is unpacked once into the cache under its checksum.

    Raises:
        DataError: Not an npz file, or no such array in it; lists those that are.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}.", "Download it again.") from error
    return _mapped(path, name, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=16)
def _mapped(path: Path, name: str, changed: int, size: int) -> np.ndarray:
    arrays = {info.filename: info for info in members(path)}
    info = arrays.get(f"{name}.npy")
    if info is None:
        raise DataError(
            f"{path}: no array {name}; it contains {', '.join(sorted(arrays)) or 'nothing'}.",
            "Is it another file under this name?",
        )
    target = cache_root() / "npz" / f"{path.stem}-{name}-{info.CRC:08x}-{info.file_size}.npy"
    with locked(target.with_suffix(".lock")):
        if not target.exists():
            _unpack(path, info, target)
    try:
        return np.asarray(np.load(target, mmap_mode="r", allow_pickle=False))
    except ValueError as error:
        raise DataError(
            f"{path}: {name} is not a plain array: {error}.", "Download it again."
        ) from error


def _unpack(path: Path, info: zipfile.ZipInfo, target: Path) -> None:
    try:
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(info) as packed,
            atomic_path(target) as temporary,
            temporary.open("wb") as file,
        ):
            shutil.copyfileobj(packed, file, 1 << 20)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: {info.filename} is damaged: {error}.", "Download it again."
        ) from error
