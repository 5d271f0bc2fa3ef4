"""Reports from tables, JSON lines, a MIMIC tree, FFA-IR and folders; what is wrong is named."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecamp.distill.sources import source_hash, stream_reports
from ecamp.errors import DataError, EcampError, MissingError, UsageError

MIMIC = " FINAL REPORT\n INDICATION: cough.\n FINDINGS: No effusion.\n IMPRESSION: Normal.\n"


def _read(path: Path, **options):
    return list(stream_reports(path, **options))


def _sections(report) -> dict[str, str]:
    return {part.name: report.text[part.start : part.end] for part in report.sections}


def test_two_columns_are_two_sections_whose_offsets_keep(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text('uid,findings,x,impression\n7,"  A.\nB.",y,C.\n8,,y,D.\n9,,y,\n')
    first, second, third = _read(path)
    assert (first.id, first.text, first.row) == ("7", "  A.\nB.\nC.", "r.csv line 2")
    assert _sections(first) == {"findings": "  A.\nB.", "impression": "C."}
    assert (second.id, second.row) == ("8", "r.csv line 4")  # the row before has two lines
    assert _sections(second) == {"impression": "D."}
    assert (third.id, third.text, third.sections) == ("9", "", ())


def test_one_column_is_cut_at_its_headings(tmp_path: Path) -> None:
    path = tmp_path / "r.tsv"
    path.write_text("study_id\treport\n1\tINDICATION: a. FINDINGS: b. IMPRESSION: c.\n2\tplain\n")
    first, second = _read(path)
    assert _sections(first) == {"findings": "b.", "impression": "c."}
    assert _sections(second) == {"": "plain"}
    path.write_text("id\tfindings\n1\tA.\n")
    assert _sections(_read(path)[0]) == {"findings": "A."}


@pytest.mark.parametrize(
    ("header", "options", "ids"),
    [
        ("uid,id,report", {}, ["a"]),
        ("x,study_id,report", {}, ["b"]),
        ("x,y,report", {}, ["1"]),
        ("x,y,report", {"id_column": "x"}, ["a"]),
    ],
)
def test_the_id_column_is_guessed(tmp_path: Path, header: str, options: dict, ids: list) -> None:
    path = tmp_path / "r.csv"
    path.write_text(f"{header}\na,b,text\n")
    assert [report.id for report in _read(path, **options)] == ids


def test_json_lines_may_lack_a_key_and_number_their_ids(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    rows = [{"id": 1, "findings": "A."}, {"id": 2, "impression": "B."}, {"id": 3, "findings": None}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert [_sections(report) for report in _read(path)] == [
        {"findings": "A."},
        {"impression": "B."},
        {},
    ]
    assert [report.id for report in _read(path)] == ["1", "2", "3"]


def test_a_mimic_tree_is_read_by_study(tmp_path: Path) -> None:
    for study, patient in (("50000003", "11000001"), ("50000001", "10000032")):
        home = tmp_path / "files" / f"p{patient[:2]}" / f"p{patient}"
        home.mkdir(parents=True)
        (home / f"s{study}.txt").write_text(MIMIC)
    (tmp_path / "LICENSE.txt").write_text("no report")
    for root in (tmp_path, tmp_path / "files"):
        reports = _read(root)
        assert [report.id for report in reports] == ["50000001", "50000003"]
        assert _sections(reports[0]) == {"findings": "No effusion.", "impression": "Normal."}
    assert reports[0].row == "p10/p10000032/s50000001.txt"


def test_a_folder_of_texts_is_read_by_name(tmp_path: Path) -> None:
    for name in ("b", "a", "s12"):
        (tmp_path / f"{name}.txt").write_text(f"{name}.")
    assert [(r.id, r.text) for r in _read(tmp_path)] == [("a", "a."), ("b", "b."), ("s12", "s12.")]


def test_ffa_ir_gives_the_english_report_of_each_case(tmp_path: Path) -> None:
    path = tmp_path / "ffair_annotation.json"
    case = {"En_Report": "No leakage.", "Zh_Report": "无渗漏。", "Image_path": ["case_1/1.jpeg"]}
    path.write_text(json.dumps({"train": {"case_1": case}, "test": {"case_9": case}, "val": {}}))
    assert [(r.id, r.text, r.row) for r in _read(path)] == [
        ("case_1", "No leakage.", "ffair_annotation.json train case_1"),
        ("case_9", "No leakage.", "ffair_annotation.json test case_9"),
    ]
    assert _read(path, columns=["Zh_Report"])[0].text == "无渗漏。"


@pytest.mark.parametrize(
    ("name", "data", "options", "error", "message"),
    [
        ("no.csv", None, {}, MissingError, "no.csv"),
        ("r.csv", b"a,b\n1,2\n", {}, DataError, "--column"),
        ("r.csv", b"report\nx\n", {"columns": ["rep"]}, DataError, "mean 'report'"),
        ("r.csv", b"report\nx\n", {"id_column": "uid"}, DataError, "no column 'uid'"),
        ("r.csv", b"id,report\n,x\n", {}, DataError, r"r\.csv line 2: 'id' is empty"),
        ("r.csv", b"id,report\n1,a\n2,b\xff\n", {}, DataError, r"line 3: 'report' is not UTF-8"),
        ("r.csv", b'id,report\n1,a\n2,"b"c\n', {}, DataError, r"line 3: not valid CSV"),
        ("r.csv", b"id,report\n1,a,b\n", {}, DataError, "line 2: 3 fields"),
        ("r.jsonl", b'{"report": "a"}\n[]\n', {}, DataError, "line 2: not a JSON object"),
        ("r.jsonl", b'{"report": "a"}\n{"report": 3}\n', {}, DataError, "line 2: 'report' is not text"),
        ("r.jsonl", b'{"report": "\\ud800"}\n', {}, DataError, "line 1: 'report' is not UTF-8"),
        ("r.json", b"[]", {}, DataError, "FFA-IR"),
        ("r.json", b'{"train": {"c": {"En_Report": 1}}}', {}, DataError, "train c: no text in En_R"),
        ("r.md", b"x", {}, UsageError, "csv"),
        ("d/x.md", b"x", {}, DataError, "no .txt"),
        ("d/x.txt", b"x\n\xff", {}, DataError, r"x\.txt line 2: not UTF-8"),
        ("d/x.txt", b"x", {"columns": ["a"]}, UsageError, "no column 'a'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, name, data, options, error, message) -> None:
    path = tmp_path / name
    if data is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    with pytest.raises(error, match=message):
        _read(path.parent if name.startswith("d/") else path, **options)


def test_a_bad_row_does_not_lose_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(b'id,report\n1,a\n2,b,c\n3,\xff\n,d\n4,"x"y\n5,e\n')
    bad: list[DataError] = []
    assert [report.id for report in stream_reports(path, on_bad_row=bad.append)] == ["1", "5"]
    lines = [int(error.message.split(" line ")[1].split(":")[0]) for error in bad]
    assert lines == [3, 4, 5, 6]
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{\n{"id": 1, "report": "a"}\n{"id": 2, "report": "b"}')
    assert [report.id for report in stream_reports(path, on_bad_row=bad.append)] == ["1", "2"]
    assert len(bad) == 5


def test_tables_are_read_as_all_others_are(tmp_path: Path) -> None:
    """Byte order mark, spaces after commas, a comma at the ends of lines, gzip."""
    text = '\ufeffuid, report,\n1, "No mass, no nodule.",\n2, Clear.,\n'
    (tmp_path / "r.csv").write_text(text, encoding="utf-8")
    (tmp_path / "r.csv.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("r.csv", "r.csv.gz"):
        reports = [(report.id, report.text) for report in _read(tmp_path / name)]
        assert reports == [("1", "No mass, no nodule."), ("2", "Clear.")]


@pytest.mark.slow
def test_long_files_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    row = "x" * 1000
    with path.open("w") as file:
        file.write("id,findings,impression\n")
        file.writelines(f"{i},{row},{row}\n" for i in range(20_000))
    assert path.stat().st_size > 40e6
    for report in stream_reports(path):  # warm: imports, caches
        if report.id == "100":
            break
    tracemalloc.start()
    count = sum(1 for _ in stream_reports(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 1e6, f"{peak / 1e6:.1f} MB held for a file of 40 MB"


def test_a_report_may_be_long(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text(f'id,report\n1,"{"No effusion. " * 100_000}"\n')
    assert len(_read(path)[0].text) == 1_300_000


CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.lists(st.tuples(CELLS, CELLS), max_size=6))
@settings(deadline=None)
def test_any_cells_come_back_as_written(tmp_path_factory, rows) -> None:
    path = tmp_path_factory.mktemp("h") / "r.csv"
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
    writer.writerows([("findings", "impression"), *rows])
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")
    reports = _read(path)
    assert len(reports) == len(rows)
    for report, (findings, impression) in zip(reports, rows, strict=True):
        expected = {"findings": findings, "impression": impression}
        assert _sections(report) == {name: text for name, text in expected.items() if text.strip()}


@given(st.binary(max_size=60), st.sampled_from([".csv", ".jsonl", ".json", ".tsv"]))
@settings(deadline=None)
def test_any_bytes_give_reports_or_a_named_error(
    tmp_path_factory, data: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("h") / f"r{suffix}"
    path.write_bytes(b"id,report\n" + data if suffix == ".csv" else data)
    reports, problem = [], None
    try:
        reports = list(stream_reports(path, on_bad_row=lambda _: None))
    except EcampError as error:  # no other error gets through
        problem = error.message
    assert problem is None or str(path) in problem
    for report in reports:
        assert all(0 <= s.start < s.end <= len(report.text) for s in report.sections)


def test_the_hash_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("report\na\n")
    before = source_hash(path)
    assert source_hash(path) == before
    path.write_text("report\nb\n")
    assert source_hash(path) != before
    (tmp_path / "d").mkdir()
    empty = source_hash(tmp_path / "d")
    (tmp_path / "d" / "a.txt").write_text("x")
    assert source_hash(tmp_path / "d") != empty
