"""A distillation that is killed, resumed, and written in each format."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecamp.api.distiller import Report
from ecamp.distill.run import write_distilled
from ecamp.distill.sinks import FORMATS, read_distilled
from ecamp.distill.sources import as_report
from ecamp.errors import CorruptFileError, DataError, EcampError, MissingError, UsageError
from tests.distill.asking import wait_until

SAME = {"distiller": "d1", "input": "i1"}
TEXTS = {
    "1": "FINDINGS: There is an effusion. No nodule.",
    "2": "There may be pneumonia, \"so\" to say; naïve, 1,5 cm.\nNo effusion.",
    "3": "",
    "4": "A zebra.",
}  # fmt: skip
WANTED = {
    "1": "There is effusion. There is no nodule.",
    "2": "There may be pneumonia. There is no effusion.",
    "3": "",
    "4": "",
}


def _reports(texts=TEXTS) -> Iterator[Report]:
    return (as_report(identifier, text) for identifier, text in texts.items())


def _partial(out: Path) -> Path:
    return out.with_name(out.name + ".partial.jsonl")


@pytest.mark.parametrize("suffix", FORMATS)
def test_each_format_holds_the_same_rows_in_input_order(tmp_path: Path, toy, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / "deep" / f"d{suffix}"
    tally = write_distilled(out, toy(fails="4"), _reports(), SAME)
    assert (tally.reports, tally.resumed) == (4, 0)
    assert tally.polarities == {"present": 1, "possible": 1, "absent": 2}
    assert tally.errors == {"no answer": 1}
    assert os.listdir(out.parent) == [out.name], "no partial and no temporary file stays"
    rows = _rows(out)
    assert [row["id"] for row in rows] == list(TEXTS)
    assert {row["distiller"] for row in rows} == {"d1"}
    for row in rows:
        for statement in row["statements"]:
            text = TEXTS[row["id"]]
            assert text[statement["start"] : statement["end"]] == statement["evidence"]
    assert rows[0]["statements"][0]["section"] == "findings"
    assert [row.get("error") or "" for row in rows] == ["", "", "", "no answer"]
    # A report without an answer has no distilled text; one without statements has an empty one.
    assert read_distilled(out) == {key: text for key, text in WANTED.items() if key != "4"}


def _rows(path: Path) -> list[dict]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return [{**row, "statements": json.loads(row["statements"])} for row in rows]
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()


def test_dropped_answers_are_counted_and_kept(tmp_path: Path, toy) -> None:
    tally = write_distilled(tmp_path / "d.csv", toy(), _reports(), SAME)
    assert tally.dropped == {"a zebra": 1}
    assert _rows(tmp_path / "d.csv")[3]["dropped"] == '{"a zebra": 1}'


class Stop(Exception):
    pass


def _until(count: int):
    def progress(done: int, total: int | None, note: str = "") -> None:
        if done == count:
            raise Stop

    return progress


@pytest.mark.parametrize("stop", [1, 2, 4])
@pytest.mark.parametrize("ahead", [1, 3])
def test_an_interrupted_run_resumes_and_sends_nothing_twice(tmp_path, toy, stop, ahead) -> None:
    out, whole = tmp_path / "d.jsonl", tmp_path / "whole.jsonl"
    write_distilled(whole, toy(), _reports(), SAME)
    with pytest.raises(Stop):
        write_distilled(out, toy(ahead=ahead), _reports(), SAME, _until(stop))
    assert not out.exists()
    distiller = toy(ahead=ahead)
    tally = write_distilled(out, distiller, _reports(), SAME)
    assert (tally.reports, tally.resumed, distiller.done) == (4, stop, 4 - stop)
    assert out.read_bytes() == whole.read_bytes()
    assert not _partial(out).exists()


def test_a_distiller_is_closed_when_the_run_stops(tmp_path: Path, toy) -> None:
    closed = []

    class Holding(type(toy())):
        def distill(self, reports):
            try:
                yield from super().distill(reports)
            finally:
                closed.append(True)

    distiller = Holding(toy().config)
    kept = []  # the error's frames, as an interactive session keeps them
    try:
        write_distilled(tmp_path / "d.jsonl", distiller, _reports(), SAME, _until(2))
    except Stop as error:
        kept.append(error)
    assert kept
    assert closed == [True]


@pytest.mark.slow
def test_half_a_row_is_written_again(tmp_path: Path, toy) -> None:
    out, whole = tmp_path / "d.jsonl", tmp_path / "whole.jsonl"
    write_distilled(whole, toy(), _reports(), SAME)
    with pytest.raises(Stop):
        write_distilled(out, toy(), _reports(), SAME, _until(3))
    data = _partial(out).read_bytes()
    head = data.index(b"\n") + 1
    for length in range(len(data) + 1):
        _partial(out).write_bytes(data[:length])
        tally = write_distilled(out, toy(), _reports(), SAME)
        assert tally.resumed == max(0, data[:length].count(b"\n") - 1), length
        assert out.read_bytes() == whole.read_bytes()
    assert head < len(data)


def test_another_distiller_or_input_is_refused_by_name(tmp_path: Path, toy) -> None:
    out = tmp_path / "d.jsonl"
    with pytest.raises(Stop):
        write_distilled(out, toy(), _reports(), SAME, _until(2))
    before = _partial(out).read_bytes()
    with pytest.raises(UsageError, match=r"another input \(i1, now i2\)"):
        write_distilled(out, toy(), _reports(), {**SAME, "input": "i2"})
    with pytest.raises(
        UsageError, match=r"another distiller \(d1, now d2\), extra \(none, now x\)"
    ):
        write_distilled(out, toy(), _reports(), {**SAME, "distiller": "d2", "extra": "x"})
    assert _partial(out).read_bytes() == before


def test_a_damaged_row_is_named(tmp_path: Path, toy) -> None:
    out = tmp_path / "d.jsonl"
    with pytest.raises(Stop):
        write_distilled(out, toy(), _reports(), SAME, _until(2))
    lines = _partial(out).read_bytes().splitlines(keepends=True)
    _partial(out).write_bytes(lines[0] + b"{}\n" + lines[2])
    with pytest.raises(CorruptFileError, match=r"partial\.jsonl line 2: damaged"):
        write_distilled(out, toy(), _reports(), SAME)


def test_two_runs_do_not_write_one_file(tmp_path: Path, toy) -> None:
    out = tmp_path / "d.jsonl"
    with _partial(out).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(EcampError, match="another run is writing this file"):
            write_distilled(out, toy(), _reports(), SAME)


@pytest.mark.parametrize(
    ("breaks", "message"),
    [("id", "a result for 'other', expected '1'"), ("lost", "no result for report '3'")],
)
def test_a_distiller_that_breaks_its_contract_is_named(tmp_path, toy, breaks, message) -> None:
    with pytest.raises(EcampError, match=message):
        write_distilled(tmp_path / "d.jsonl", toy(breaks=breaks, ahead=3), _reports(), SAME)


def test_an_old_result_stays_until_the_new_one_is_whole(tmp_path: Path, toy) -> None:
    out = tmp_path / "d.jsonl"
    write_distilled(out, toy(), _reports({"9": "A nodule."}), SAME)
    before = out.read_bytes()
    with pytest.raises(Stop):
        write_distilled(out, toy(), _reports(), SAME, _until(2))
    assert out.read_bytes() == before


KILLED = """
import sys
from pathlib import Path
from ecamp.cli import main
main(["distill", sys.argv[1], "-o", sys.argv[2], "--with", "toy"])
"""


def test_kill_9_loses_no_row(tmp_path: Path, site: Path) -> None:
    source, out = tmp_path / "r.csv", tmp_path / "d.jsonl"
    source.write_text("id,report\n" + "".join(f"{i},No effusion.\n" for i in range(60)))
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{root}"}
    command = [sys.executable, "-c", KILLED, str(source), str(out)]
    started = subprocess.Popen(command, env={**env, "TOY_HALTS_AT": "20"})
    wait_until(lambda: _partial(out).exists() and _partial(out).read_bytes().count(b"\n") > 10)
    assert started.poll() is None
    started.send_signal(signal.SIGKILL)
    started.wait()
    kept = _partial(out).read_bytes()
    assert not out.exists()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    rows = out.read_bytes().splitlines(keepends=True)
    assert [json.loads(row)["id"] for row in rows] == [str(i) for i in range(60)]
    whole = kept[: kept.rindex(b"\n") + 1].splitlines(keepends=True)[1:]
    assert rows[: len(whole)] == whole
    assert f"{60 - len(whole)} asked" in done.stdout, done.stdout


def test_parquet_names_the_package_to_install(tmp_path: Path, toy, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingError, match=r"ecamp\[parquet\]"):
        write_distilled(tmp_path / "d.parquet", toy(), _reports(), SAME)
    assert not list(tmp_path.glob("d.*")), "it is said before any work"


def test_what_is_not_a_distilled_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text('{"1": "There is a.", "s2": ""}')
    assert read_distilled(path) == {"1": "There is a.", "s2": ""}
    for name, data, message in [
        ("a.json", "[]", "maps ids to texts"),
        ("a.json", '{"1": 2}', "maps ids to texts"),
        ("a.json", "{", "cannot be read"),
        ("a.csv", "id,words\n1,x\n", "no 'text'"),
        (
            "a.jsonl",
            '{"id": "1", "text": "a"}\n{"id": "1", "text": "b"}\n',
            "duplicate id '1' with two",
        ),
        ("a.jsonl", '{"id": "1", "text": "a"}\n{', "line 2: not JSON"),
        ("a.txt", "", "ends in"),
        ("a.parquet", "PAR1", "not a distilled file"),
    ]:
        (tmp_path / name).write_text(data)
        if name == "a.parquet":
            pytest.importorskip("pyarrow")
        with pytest.raises(DataError, match=message):
            read_distilled(tmp_path / name)
    with pytest.raises(MissingError, match="no such file"):
        read_distilled(tmp_path / "none.csv")


@pytest.mark.slow
def test_a_long_run_holds_a_bounded_number_of_reports(tmp_path: Path, toy) -> None:
    words = "No effusion. " * 20

    def reports(count: int) -> Iterator[Report]:
        return (as_report(str(i), words + str(i)) for i in range(count))

    out = tmp_path / "d.csv"
    write_distilled(out, toy(ahead=64), reports(100), SAME)  # caches and imports are made
    tracemalloc.start()
    tally = write_distilled(out, toy(ahead=64), reports(2000), SAME)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tally.reports == 2000
    assert peak < out.stat().st_size / 5, f"{peak} bytes for a file of {out.stat().st_size}"
