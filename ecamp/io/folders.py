"""Folders as people unpack them: find the files of a data set, and say what is there instead."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ecamp.errors import DataError, MissingError

# Best first, where one image lies there in several forms.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".dcm", ".dicom", ".img")


def find_file(root: Path, *patterns: str) -> Path | None:
    """The first file that a pattern (`Data_Entry_2017*.csv`) matches, in the order of patterns."""
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            if path.is_file():
                return path
    return None


def describe_folder(folder: Path) -> str:
    """What a folder holds, a few names: `a.csv, images and 3 more`."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) or "nothing") + more


def missing_file_error(root: Path, looked_for: Sequence[str], hint: str) -> MissingError:
    """The error of a wrong folder: what was looked for, what is there, where it may lie instead."""
    if not root.is_dir():
        return MissingError(f"{root}: no such folder.", hint)
    message = (
        f"{root}: found no {' or '.join(looked_for)}; the folder holds {describe_folder(root)}."
    )
    archives = [
        p.name for p in sorted(root.iterdir()) if p.suffix in (".zip", ".tar", ".tgz", ".gz")
    ]
    hint = f"Unpack {archives[0]}? {hint}" if archives else hint
    for near in [*sorted(p for p in root.iterdir() if p.is_dir()), root.resolve().parent]:
        if any(True for pattern in looked_for for _ in near.glob(pattern)):
            return MissingError(message, f"Is it root={near}? {hint}")
    return MissingError(message, hint)


def check_images(
    root: Path, places: Sequence[tuple[Path | str, str]], looked_for: Sequence[str], hint: str = ""
) -> None:
    """A folder without any of a table's images is the wrong one; single missing ones show on reading.

    Args:
        places: Path below root of each image, and its row. looked_for: Folders of images, for the
            message; by default the first path.

    Raises:
        MissingError: None of a sample of fifty is there.
    """
    some = places[:: max(1, len(places) // 50)]
    if not some or any((root / path).exists() for path, _ in some):
        return
    first, row = some[0]
    raise missing_file_error(
        root, looked_for or (Path(first).as_posix(),),
        f"None of {len(places):,} images is there, such as {Path(first).as_posix()} ({row}). {hint}".rstrip(),
    )  # fmt: skip


def resolve_below_root(root: Path, text: str, where: str) -> str:
    """A path of a table as one below `root`; absolute paths are taken if they lie there.

    Links that the user made below root are followed; what is refused is a text that leaves it.

    Raises:
        DataError: The path leaves the root; names the row.
    """
    if ".." not in text and not text.startswith(("/", "./")):
        return text
    relative = os.path.relpath(os.path.join(root, text), root)
    if relative.startswith(".."):
        raise DataError(
            f"{where}: '{text}' lies outside {root}.", "Set root to a folder that holds all images."
        )
    return relative


class ImageIndex:
    """Image files below some folders of a root, found by path or by name without suffix.

    Args:
        folders: Patterns below root (`images_*`), each walked to the bottom; links are followed.
    """

    def __init__(self, root: Path, folders: Iterable[str]) -> None:
        self.paths: set[str] = set()
        by_rank: dict[str, tuple[int, str]] = {}
        for pattern in folders:
            for folder in sorted(root.glob(pattern)):
                for path in _walk(root, folder):
                    self.paths.add(path)
                    stem, suffix = os.path.splitext(os.path.basename(path))
                    found = (IMAGE_SUFFIXES.index(suffix.lower()), path)
                    by_rank[stem] = min(found, by_rank.get(stem, found))
        self.by_name = {stem: path for stem, (_, path) in by_rank.items()}

    def place(self, text: str) -> str:
        """Where an image lies: as written, else wherever its name is found, else as written."""
        if text in self.paths:
            return text
        return self.by_name.get(image_name(text), text)


def _walk(root: Path, folder: Path) -> Iterable[str]:
    seen = set()  # a link may lead back up
    for base, folders, files in os.walk(folder, followlinks=True):
        here = os.stat(base)
        if (here.st_dev, here.st_ino) in seen:
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders.sort()
        below = os.path.relpath(base, root)
        for name in sorted(files):
            if name.lower().endswith(IMAGE_SUFFIXES):
                yield name if below == "." else f"{below}/{name}"


def image_name(text: str) -> str:
    """Name of an image without folders and suffix; dots that belong to the name stay."""
    name = text.rsplit("/", 1)[-1]
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name
