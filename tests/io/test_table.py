"""Tables as people send them, read by one reader."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecamp.errors import DataError, MissingError
from ecamp.io.table import BadRows, read_table


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=10)


@given(
    st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=6),
    st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_cells_and_line_ends_are_read(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    end: str,
    bom: bool,
    packed: bool,
) -> None:
    """Columns out of order, one not requested, a byte-order mark, gzip."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator=end)
    writer.writerows([("b ", "extra", " a"), *rows])
    data = (("\ufeff" if bom else "") + buffer.getvalue()).encode()
    path = tmp_path_factory.mktemp("t") / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(data) if packed else data)
    read = list(read_table(path, ("a", "b")))
    assert [(row.values["a"], row.values["b"]) for row in read] == [
        (a.strip(), b.strip()) for b, _, a in rows
    ]


def test_spaces_a_comma_at_the_end_and_tabs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'ImageId, EncodedPixels,\nx, "1, 2",\n\ny , -1 ,\n')
    rows = list(read_table(path, ("ImageId", "EncodedPixels")))
    assert [row.values["EncodedPixels"] for row in rows] == ["1, 2", "-1"]
    assert [row.line for row in rows] == [2, 4]
    path = write(tmp_path / "a.tsv", "a\tb\n1,2\t3\n")
    assert next(read_table(path, ("a",))).values == {"a": "1,2"}


def test_the_rest_of_a_note_in_a_column_without_a_name(tmp_path: Path) -> None:
    """Dropped where a set allows it; beyond the header's own width a row is refused always."""
    path = write(tmp_path / "a.csv", "a,note,\n1,cut,here\n2,whole,\n")
    assert [r.values["a"] for r in read_table(path, ("a",), unnamed=True)] == ["1", "2"]
    with pytest.raises(DataError, match="line 2: 3 fields, the header has 2"):
        list(read_table(path, ("a",)))
    write(path, "a,note,\n1,0,cut,here\n")
    with pytest.raises(DataError, match="line 2: 4 fields, the header has 2"):
        list(read_table(path, ("a",), unnamed=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1\n", "line 2: 1 fields, the header has 2"),
        ("a,b\n1,2\n1,2,3\n", "line 3: 3 fields, the header has 2"),
        ("a,c\n", r"no column 'b'\.(?s:.*)Known: a, c"),
        ("", "no column 'a', 'b'"),
        ("a,b,b\n", "duplicate column 'b'"),
        ('a,b\n"1,2\n', "not valid CSV"),
        ("a,b\n\xff\n", None),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str | None) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode() if message else text.encode("latin-1"))
    with pytest.raises(DataError, match=message or r"not UTF-8 \(byte"):
        list(read_table(path, ("a", "b")))


def test_files_that_are_not_there_or_torn(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such table"):
        list(read_table(tmp_path / "none.csv", ("a",)))
    packed = gzip.compress(b"a,b\n" + b"1,2\n" * 5000)
    middle = len(packed) // 2
    for torn in (b"a,b\n", packed[:-9], packed[:middle] + b"\xff" * 20 + packed[middle + 20 :]):
        (tmp_path / "t.csv.gz").write_bytes(torn)
        with pytest.raises(DataError, match=r"t\.csv\.gz: damaged"):
            list(read_table(tmp_path / "t.csv.gz", ("a",)))


def test_bad_rows_are_skipped_and_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b\n1,2\n1\n3,4\n5,6,7\n")
    bad = BadRows(skip=True)
    assert [row.values["a"] for row in read_table(path, ("a",), bad)] == ["1", "3"]
    assert [message.split(": ")[0].rsplit(" ", 1)[-1] for message in bad.messages] == ["3", "5"]
    # A missing column concerns the file, not a row: it cannot be left out.
    with pytest.raises(DataError, match="no column"):
        list(read_table(path, ("c",), bad))
