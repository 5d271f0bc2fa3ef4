"""The contract of data sets in a user's folder, beyond that of all plugins: checks of bad input.

    from ecamp.testing.folders import check_folder
    check_folder("my-set?root=FOLDER", tables=[FOLDER / "train.csv"])

The folder is changed on the way and put back; each check raises AssertionError, which names the problem.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ecamp.api.dataset import Record
from ecamp.api.plugin_ref import PluginRef
from ecamp.errors import DataError, EcampError, MissingError
from ecamp.io.folders import IMAGE_SUFFIXES
from ecamp.plugin.host import make_plugin


def check_folder(name: str, tables: Sequence[Path]) -> None:
    """Run all checks.

    Args:
        name: The data set by its one-line name, with the option `root`.
        tables: Tables and lists that are read: .csv, .txt (no header) or .json.
    """
    check_spelling(name, tables)
    check_root(name, tables)
    check_archive(name)


def check_spelling(name: str, tables: Sequence[Path]) -> None:
    """Check that a byte order mark, CRLF, quotes and trailing spaces change no record."""
    before = _records(name)
    with _kept(tables):
        for path in tables:
            path.write_bytes(_respelt(path))
        assert _records(name) == before, f"{name}: BOM, CRLF, quotes or spaces changed records"


def check_root(name: str, tables: Sequence[Path]) -> None:
    """No row leads to a file outside root: it is refused with its row, or ends below root."""
    root = Path(str(PluginRef.parse(name).options["root"]))
    record = _records(name)[0]
    for path in tables:
        text = path.read_text(encoding="utf-8-sig")
        for word in (record.id, record.id.rsplit("/", 1)[-1]):
            if word in text:
                with _kept([path]):
                    path.write_text(text.replace(word, f"../../../{word}"), encoding="utf-8")
                    _check_below(name, root)


def _check_below(name: str, root: Path) -> None:
    try:
        records = _records(name)
    except EcampError:
        return
    for record in records:
        place = getattr(record.payload, "path", record.payload)
        inside = not isinstance(place, (str, Path)) or (root / place).resolve().is_relative_to(
            root.resolve()
        )
        assert inside, f"{name}: {record.row} leads to {place}, outside root"


def check_archive(name: str) -> None:
    """Check that tables next to a packed archive give an error that asks to unpack it."""
    root = Path(str(PluginRef.parse(name).options["root"]))
    images = [path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES]
    archive = root / "images.zip"
    with _kept([*images, archive]):
        archive.write_bytes(b"PK")
        for path in images:
            path.unlink()
        error = _error(name)
    assert isinstance(error, MissingError), f"{name}: no image is there, and the error is {error}"
    assert "Unpack images.zip?" in str(error), f"{name}: does not say to unpack: {error}"


def check_twice(name: str, table: Path) -> None:
    """Check that a duplicate row is an error with its line, and skipped under on_bad_row=skip."""
    before = {record.id for record in _records(name)}
    with _kept([table]):
        rows = table.read_text(encoding="utf-8-sig").splitlines()
        table.write_text("\n".join([*rows, rows[-1]]) + "\n", encoding="utf-8")
        error = _error(name)
        rest = {record.id for record in _records(name + "&on_bad_row=skip")}
    assert isinstance(error, DataError), (
        f"{name}: {table.name}: a row twice, and the error is {error}"
    )
    for word in ("duplicate", f"{table.name} line {len(rows) + 1}"):
        assert word in error.message, f"{name}: does not say '{word}': {error.message}"
    # Where several rows describe one image, that image is left out whole.
    assert rest <= before, f"{name}: other images when the second row is left out"
    assert len(rest) >= len(before) - 1, f"{name}: more than one image was left out"


def _records(name: str) -> list[Record]:
    return list(make_plugin("ecamp.datasets", PluginRef.parse(name)).records())


def _error(name: str) -> EcampError | None:
    try:
        _records(name)
    except EcampError as error:
        return error
    return None


@contextmanager
def _kept(paths: Sequence[Path]) -> Iterator[None]:
    """Put files back as they were; one that was not there is removed."""
    held = {path: path.read_bytes() if path.is_file() else None for path in paths}
    try:
        yield
    finally:
        for path, content in held.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content)


def _respelt(path: Path) -> bytes:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".json":
        out = json.dumps(json.loads(text), indent=1).replace("\n", "\r\n")
    elif path.suffix == ".csv":
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
        rows = csv.reader(io.StringIO(text, newline=""))
        writer.writerows([[value and f"{value} " for value in row] for row in rows])
        out = buffer.getvalue()
    else:
        out = "".join(f"{line}  \r\n" for line in text.splitlines())
    return b"\xef\xbb\xbf" + out.encode()
