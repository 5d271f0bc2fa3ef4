"""DICOM to PNG, once: `ecamp data prepare`.

Pixels are those of `read_image`: rescale, the first VOI window or LUT, MONOCHROME1 turned around, the range
stretched to 8 bits; the size stays. A manifest holds the checksums, so that the same command resumes and a
second run changes nothing. `ecamp.export.ground_truth` writes masks and boxes beside the images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from joblib import Parallel, delayed
from PIL import Image

from ecamp.errors import DataError, MissingError
from ecamp.io.dicom import DICOM_SUFFIXES
from ecamp.io.folders import ImageIndex, find_file, image_name
from ecamp.io.images import read_image
from ecamp.storage.files import (
    append_lines,
    atomic_path,
    content_hash,
    repair_and_read_lines,
    write_if_changed,
    write_lines,
)

MANIFEST = "manifest.jsonl"
CHUNK = 32


@dataclass(frozen=True)
class Made:
    """A line of the manifest; paths are below the output and below the download."""

    png: str
    sha256: str
    bytes: int
    source: str
    source_bytes: int
    source_sha256: str


@dataclass(frozen=True)
class Prepared:
    """What a run did: files made and kept from before, and why others could not be made."""

    made: int
    kept: int
    bad: tuple[str, ...]


def prepare(
    root: Path, out: Path, folders: Mapping[str, str], tables: Sequence[str], *,
    workers: int = 1, verify: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Prepared:  # fmt: skip
    """Write every DICOM file of a download as PNG, and copy its tables.

    Args:
        folders: Folder below root -> path below `out`, with `{}` for the name of the image.
        tables: Patterns of the index files; those that are there are copied.
        verify: Compare files of both sides with their checksums, not their sizes; what is wrong, or made
            from a file that was replaced, is made again.

    Raises:
        MissingError: No DICOM file in root; says what was looked for. DataError: Two of one name.
    """
    wanted: dict[str, str] = {}
    for folder, target in folders.items():
        for path in sorted(ImageIndex(root, (folder,)).paths):
            if not path.lower().endswith(DICOM_SUFFIXES):
                continue
            png = target.format(image_name(path))
            if png in wanted:
                raise DataError(
                    f"{root}: {wanted[png]} and {path} would both become {png}.",
                    "Move one of them away: images are known by their names.",
                )
            wanted[png] = path
    if not wanted:
        raise MissingError(
            f"{root}: no DICOM file in {' or '.join(folders)}.", "--from names the download."
        )
    for pattern in tables:
        if (table := find_file(root, pattern)) is not None:
            write_if_changed(out / table.relative_to(root), table.read_bytes())
    manifest = out / MANIFEST
    known = {made.png: made for made in repair_and_read_lines(manifest, Made)}
    fine = {png: known[png] for png in wanted if _is_made(root, out, known.get(png), verify)}
    todo = [(source, png) for png, source in wanted.items() if png not in fine]
    chunks = [todo[i : i + CHUNK] for i in range(0, len(todo), CHUNK)]
    done, bad = dict(fine), []
    jobs = (delayed(_convert)(root, out, chunk) for chunk in chunks)
    for results in Parallel(n_jobs=workers, return_as="generator")(jobs):
        made = [result for result in results if isinstance(result, Made)]
        done |= {result.png: result for result in made}
        bad += [result for result in results if isinstance(result, str)]
        append_lines(manifest, map(asdict, made))  # an interrupted run goes on here
        progress(len(done) + len(bad), len(wanted))
    write_lines(manifest, (done[png] for png in sorted(done)))
    return Prepared(len(done) - len(fine), len(fine), tuple(bad))


def _is_made(root: Path, out: Path, one: Made | None, verify: bool) -> bool:
    if one is None:
        return False
    target, source = out / one.png, root / one.source
    # A download that was laid out anew has its files elsewhere: made again, as it may be another.
    if not (target.exists() and source.exists() and source.stat().st_size == one.source_bytes):
        return False
    if verify:
        return (content_hash(target), content_hash(source)) == (one.sha256, one.source_sha256)
    return target.stat().st_size == one.bytes


def _convert(root: Path, out: Path, chunk: Sequence[tuple[str, str]]) -> list[Made | str]:
    results: list[Made | str] = []
    for source, png in chunk:
        try:
            pixels = read_image(root / source, "grey")[..., 0]
        except DataError as error:
            results.append(error.message)
            continue
        with atomic_path(out / png) as temporary:
            Image.fromarray(pixels).save(temporary, "PNG")
            data = temporary.read_bytes()
        size, digest = (root / source).stat().st_size, content_hash(root / source)
        made = Made(png, hashlib.sha256(data).hexdigest(), len(data), source, size, digest)
        results.append(made)
    return results
