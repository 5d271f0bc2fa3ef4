"""DICOM to PNG, once: `ecamp data prepare`.

Pixels are those of `read_image`: rescale, the first VOI window or LUT, MONOCHROME1 inverted, the range
stretched to 8 bits; the size stays. A manifest with checksums lets the same command resume; a second run
changes nothing. `ecamp.export.ground_truth` writes masks and boxes next to the images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from ecamp.errors import DataError, MissingError
from ecamp.export.journal import run_resumable
from ecamp.io.dicom import DICOM_SUFFIXES
from ecamp.io.folders import ImageIndex, find_file, image_name
from ecamp.io.images import read_image
from ecamp.progress import Progress, no_progress
from ecamp.storage.files import atomic_path, content_hash, write_if_changed

MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class ConvertedFile:
    """One line of the manifest.

    Attributes:
        png: Path below the output.
        sha256: Of the PNG.
        bytes: Size of the PNG.
        source: Path of the DICOM file below the download.
        source_bytes: Its size.
        source_sha256: Its checksum.
    """

    png: str
    sha256: str
    bytes: int
    source: str
    source_bytes: int
    source_sha256: str


@dataclass(frozen=True)
class ConversionSummary:
    """Outcome of a run.

    Attributes:
        converted: Files that this run wrote.
        kept: Files of earlier runs.
        bad: Messages of files that could not be converted.
    """

    converted: int
    kept: int
    bad: tuple[str, ...]


def prepare(
    root: Path, out: Path, folders: Mapping[str, str], tables: Sequence[str], *,
    workers: int = 1, verify: bool = False,
    progress: Progress = no_progress,
) -> ConversionSummary:  # fmt: skip
    """Write every DICOM file of a download as PNG, and copy its tables.

    Args:
        root: The download.
        out: Folder to write.
        folders: Folder below root -> path below `out`, with `{}` for the name of the image.
        tables: Patterns of the tables; those that exist are copied.
        workers: Processes.
        verify: Compare files of both sides by checksum instead of size; a file that is wrong, or
            converted from a source that was replaced since, is written again.
        progress: Receives finished files.

    Raises:
        MissingError: No DICOM file in root; names the folders that were searched.
        DataError: Two files of one name.
    """
    sources = _find_sources(root, folders)
    for pattern in tables:
        if (table := find_file(root, pattern)) is not None:
            write_if_changed(out / table.relative_to(root), table.read_bytes())
    outcome = run_resumable(
        {png: (source, png) for png, source in sources.items()},
        partial(_convert, root, out), out / MANIFEST, ConvertedFile,
        key=lambda row: row.png,
        is_done=lambda row: _is_current(root, out, row, verify),
        workers=workers, progress=progress, counted="files",
    )  # fmt: skip
    return ConversionSummary(outcome.new, len(outcome.rows) - outcome.new, outcome.bad)


def _find_sources(root: Path, folders: Mapping[str, str]) -> dict[str, str]:
    """Map paths of PNG files to the DICOM files that they are made from."""
    sources: dict[str, str] = {}
    for folder, target in folders.items():
        for path in sorted(ImageIndex(root, (folder,)).paths):
            if not path.lower().endswith(DICOM_SUFFIXES):
                continue
            png = target.format(image_name(path))
            if png in sources:
                raise DataError(
                    f"{root}: {sources[png]} and {path} would both become {png}.",
                    "Move one of them elsewhere: images are identified by their names.",
                )
            sources[png] = path
    if not sources:
        raise MissingError(
            f"{root}: no DICOM file in {' or '.join(folders)}.",
            "--from must name the folder of the download.",
        )
    return sources


def _is_current(root: Path, out: Path, row: ConvertedFile, verify: bool) -> bool:
    target, source = out / row.png, root / row.source
    # In a rearranged download the file is elsewhere: converted again, as it may be another one.
    if not (target.exists() and source.exists() and source.stat().st_size == row.source_bytes):
        return False
    if verify:
        return (content_hash(target), content_hash(source)) == (row.sha256, row.source_sha256)
    return target.stat().st_size == row.bytes


def _convert(root: Path, out: Path, files: Sequence[tuple[str, str]]) -> list[ConvertedFile | str]:
    results: list[ConvertedFile | str] = []
    for source, png in files:
        try:
            pixels = read_image(root / source, "grey")[..., 0]
        except DataError as error:
            results.append(error.message)
            continue
        with atomic_path(out / png) as temporary:
            Image.fromarray(pixels).save(temporary, "PNG")
            data = temporary.read_bytes()
        size, digest = (root / source).stat().st_size, content_hash(root / source)
        sha256 = hashlib.sha256(data).hexdigest()
        results.append(ConvertedFile(png, sha256, len(data), source, size, digest))
    return results
