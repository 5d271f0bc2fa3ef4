"""Locates data set files below a root; error messages list what was found instead."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ecamp.errors import DataError, MissingError

# Preferred first, where the same image is present in several formats.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".dcm", ".dicom", ".img")


def find_file(root: Path, *patterns: str) -> Path | None:
    """Find the first file that a pattern (`Data_Entry_2017*.csv`) matches, in the order of patterns."""
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            if path.is_file():
                return path
    return None


def describe_folder(folder: Path) -> str:
    """List what a folder contains in a few names: `a.csv, images and 3 more`."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) or "nothing") + more


def missing_file_error(root: Path, looked_for: Sequence[str], hint: str) -> MissingError:
    """Build the error for a wrong folder: what was expected, what is there, where it may be instead."""
    if not root.is_dir():
        return MissingError(f"{root}: no such folder.", hint)
    message = (
        f"{root}: found no {' or '.join(looked_for)}; the folder contains {describe_folder(root)}."
    )
    archives = [
        p.name for p in sorted(root.iterdir()) if p.suffix in (".zip", ".tar", ".tgz", ".gz")
    ]
    hint = f"Unpack {archives[0]}? {hint}" if archives else hint
    for candidate in [*sorted(p for p in root.iterdir() if p.is_dir()), root.resolve().parent]:
        if any(True for pattern in looked_for for _ in candidate.glob(pattern)):
            return MissingError(message, f"Is it root={candidate}? {hint}")
    return MissingError(message, hint)


def check_images(
    root: Path, images: Sequence[tuple[Path | str, str]], looked_for: Sequence[str], hint: str = ""
) -> None:
    """Check that a root contains images of a table; single missing ones are reported on reading.

    Args:
        images: Path below root of each image, and its row.
        looked_for: Folders of images, for the message; by default the first path.

    Raises:
        MissingError: None of a sample of fifty exists.
    """
    sample = images[:: max(1, len(images) // 50)]
    if not sample or any((root / path).exists() for path, _ in sample):
        return
    first, row = sample[0]
    raise missing_file_error(
        root, looked_for or (Path(first).as_posix(),),
        f"None of {len(images):,} images exists, such as {Path(first).as_posix()} ({row}). {hint}".rstrip(),
    )  # fmt: skip


def resolve_below_root(root: Path, text: str, location: str) -> str:
    """Convert a path of a table to one relative to `root`; absolute paths below root are accepted.

    Links that the user made below root are followed; only a path that leaves root is refused.

    Raises:
        DataError: The path leaves the root; names the row.
    """
    if ".." not in text and not text.startswith(("/", "./")):
        return text
    relative = os.path.relpath(os.path.join(root, text), root)
    if relative.startswith(".."):
        raise DataError(
            f"{location}: '{text}' is outside {root}.",
            "Set root to a folder that contains all images.",
        )
    return relative


class ImageIndex:
    """Index of image files below some folders of a root, by path and by name without suffix.

    Args:
        folders: Patterns below root (`images_*`), each searched recursively; links are followed.
    """

    def __init__(self, root: Path, folders: Iterable[str]) -> None:
        self.paths: set[str] = set()
        by_rank: dict[str, tuple[int, str]] = {}
        for pattern in folders:
            for folder in sorted(root.glob(pattern)):
                for path in _walk(root, folder):
                    self.paths.add(path)
                    stem, suffix = os.path.splitext(os.path.basename(path))
                    ranked = (IMAGE_SUFFIXES.index(suffix.lower()), path)
                    by_rank[stem] = min(ranked, by_rank.get(stem, ranked))
        self.by_name = {stem: path for stem, (_, path) in by_rank.items()}

    def resolve(self, text: str) -> str:
        """Return the path of an image: as written if it exists, else by its name, else as written."""
        if text in self.paths:
            return text
        return self.by_name.get(image_name(text), text)


def _walk(root: Path, folder: Path) -> Iterable[str]:
    seen = set()  # a link may lead to a parent folder
    for base, folders, files in os.walk(folder, followlinks=True):
        state = os.stat(base)
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders.sort()
        below = os.path.relpath(base, root)
        for name in sorted(files):
            if name.lower().endswith(IMAGE_SUFFIXES):
                yield name if below == "." else f"{below}/{name}"


def image_name(text: str) -> str:
    """Return the name of an image without folders and suffix; dots that belong to the name stay."""
    name = text.rsplit("/", 1)[-1]
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name
