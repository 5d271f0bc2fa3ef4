"""`ecamp distill` and `ecamp distill eval`, with a distiller from another package."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from ecamp.cli import run
from ecamp.cli.logs import LoggedProgress
from ecamp.distill.gold import sentence_digest
from ecamp.distill.sinks import read_distilled

TESTS = Path(__file__).parents[1] / "distill"
CSV = """uid,Problems,findings,impression
1,Pleural Effusion,There is an effusion. No nodule.,Effusion.
2,normal,No effusion.,There may be pneumonia.
3,normal,,
"""


@pytest.fixture(autouse=True)
def _toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("distill_conftest", TESTS / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.syspath_prepend(str(module.install(tmp_path / "site")))
    monkeypatch.chdir(tmp_path)
    Path("r.csv").write_text(CSV)


def _go(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    try:
        code = run(["distill", *args])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out = capsys.readouterr()
    assert "Traceback" not in out.err
    return code, out.out, out.err


def test_reports_become_a_file_and_a_summary(capsys) -> None:
    code, out, err = _go(capsys, "r.csv", "-o", "d.csv", "--with", "toy")
    assert code == 0, err
    assert "3 reports: d.csv" in out
    assert "2 present, 1 possible, 2 absent" in out
    assert re.search(r"distiller +[0-9a-f]{16}", out)
    assert read_distilled(Path("d.csv"))["2"] == "There is no effusion. There may be pneumonia."


def test_the_summary_as_json(capsys) -> None:
    _, out, _ = _go(capsys, "r.csv", "-o", "d.jsonl", "--with", "toy", "-f", "json")
    result = json.loads(out)
    row = json.loads(Path("d.jsonl").read_text().splitlines()[0])
    assert row["distiller"] == result["distiller"]
    assert result["statements"] == {"present": 2, "possible": 1, "absent": 2}
    assert result["counts"] == {"asked": 3}
    assert (result["reports"], result["resumed"], result["bad_rows"], result["errors"]) == (
        3,
        0,
        0,
        {},
    )


def test_options_come_by_reference_or_one_by_one(capsys) -> None:
    result = []
    for args in (["--with", "toy?hedge=false"], ["--with", "toy", "--with-option", "hedge=false"],
                 ["--with", "toy"]):  # fmt: skip
        _, out, _ = _go(capsys, "r.csv", "-o", "d.jsonl", *args, "-f", "json")
        result.append(json.loads(out))
    assert (
        result[0]["statements"]
        == result[1]["statements"]
        == {"present": 3, "possible": 0, "absent": 2}
    )
    assert result[0]["distiller"] == result[1]["distiller"] != result[2]["distiller"]


def test_a_report_without_answer_gives_exit_code_3(capsys) -> None:
    code, out, _ = _go(capsys, "r.csv", "-o", "d.jsonl", "--with", "toy?fails=2")
    assert code == 3
    assert "1 no answer" in out
    assert list(read_distilled(Path("d.jsonl"))) == ["1", "3"]


def test_bad_rows_stop_or_are_counted(capsys) -> None:
    Path("r.csv").write_text("uid,report\n1,A nodule.\n2,a,b\n3,No nodule.\n")
    code, _, err = _go(capsys, "r.csv", "-o", "d.jsonl", "--with", "toy")
    assert code == 1
    assert "r.csv line 3: 3 fields" in err
    assert "--on-bad-row skip" in err
    # Finished reports are kept, and skipping continues from there.
    code, out, err = _go(
        capsys, "r.csv", "-o", "d.jsonl", "--with", "toy", "--on-bad-row", "skip", "-f", "json"
    )
    assert code == 0
    assert "skipped: r.csv line 3" in err
    result = json.loads(out)
    assert (result["reports"], result["resumed"], result["bad_rows"]) == (2, 1, 1)
    assert list(read_distilled(Path("d.jsonl"))) == ["1", "3"]


def test_an_interrupt_keeps_what_is_done(capsys, monkeypatch) -> None:
    def stop(self, done: int, total: int | None, note: str = "") -> None:
        if done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(LoggedProgress, "__call__", stop)
        code, _, err = _go(capsys, "r.csv", "-o", "d.jsonl", "--with", "toy")
    assert code == 130
    assert "the same command resumes" in err.lower()
    _, out, _ = _go(capsys, "r.csv", "-o", "d.jsonl", "--with", "toy")
    assert "3 reports, 2 of them from an earlier run" in out


def test_another_input_is_not_mixed_in(capsys, monkeypatch) -> None:
    Path("d.jsonl.partial.jsonl").write_text(
        json.dumps({"ecamp_distill": 1, "distiller": "x", "input": "y"}) + "\n"
    )
    code, _, err = _go(capsys, "r.csv", "-o", "d.jsonl", "--with", "toy")
    assert code == 2
    assert "another" in err
    assert "input (y, now" in err


def test_a_data_set_with_reports_is_a_source(capsys) -> None:
    small = "phantom?pretrain=20&train=0&val=0&test=0"
    code, _, err = _go(capsys, small, "-o", "d.jsonl", "--with", "toy")
    assert code == 0, err
    from ecamp.api.plugin_ref import PluginRef
    from ecamp.plugin.host import make_plugin

    records = make_plugin("ecamp.datasets", PluginRef.parse(small)).records()
    texts = read_distilled(Path("d.jsonl"))
    assert list(texts) == [record.id for record in records]
    # And back: what was distilled is what is pre-trained on.
    result = make_plugin("ecamp.datasets", PluginRef.parse(f"{small}&distilled=d.jsonl")).records()
    assert [record.distilled or "" for record in result] == list(texts.values())
    assert any(texts.values())


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["no.csv", "-o", "d.jsonl"], 4, "no.csv: no such file"),
        (["r.csv", "-o", "d.txt"], 2, "ends in .jsonl, .csv, .parquet"),
        (["r.csv", "-o", "d.jsonl", "--with", "toi"], 4, "Did you mean 'toy'"),
        (["r.csv", "-o", "d.jsonl", "--with", "toy?hegde=1"], 2, "Did you mean 'hedge'"),
        (["r.csv", "-o", "d.jsonl", "--with-option", "hedge"], 2, "no value"),
        (["r.csv", "-o", "d.jsonl", "--column", "finding"], 1, "mean 'findings'"),
        (["r.csv"], 2, "--out"),
        (["e.csv", "-o", "d.jsonl"], 1, "e.csv: no report"),
        (["phantom", "-o", "d.jsonl", "--column", "a"], 2, "is a data set"),
        (["eval", "--reports", "r.csv", "--with", "toy"], 2, "--gold"),
        (["eval", "--gold", "g", "--reports", "r.csv", "--with", "toy", "--with", "toy"], 2, "differ"),
    ],
)  # fmt: skip
def test_mistakes_are_named(capsys, args: list[str], code: int, message: str) -> None:
    Path("e.csv").write_text("uid,report\n")
    if "--with" not in args and "eval" not in args:
        args = [*args, "--with", "toy"]
    got, _, err = _go(capsys, *args)
    assert (got, message in err) == (code, True), err


def test_help_shows_both_uses(capsys) -> None:
    code, out, _ = _go(capsys, "--help")
    assert code == 0
    assert "REPORTS -o FILE" in out
    assert "eval" in out
    code, out, _ = _go(capsys, "run", "--help")
    assert code == 0
    assert "--with-option" in out


# --- eval ---------------------------------------------------------------------------------------


@pytest.fixture
def gold() -> str:
    rows = [
        ("1", "findings", "There is an effusion.", [("effusion", "present")]),
        ("1", "impression", "Effusion.", [("effusion", "present"), ("nodule", "absent")]),
        ("2", "impression", "There may be pneumonia.", [("pneumonia", "possible")]),
    ]
    lines = []
    for identifier, section, text, labels in rows:
        spans = [{"entity": e, "polarity": p, "start": 0, "end": 4} for e, p in labels]
        lines.append(json.dumps(
            {"id": identifier, "section": section, "start": 0, "end": len(text),
             "sha256": sentence_digest(text), "labels": spans}))  # fmt: skip
    Path("gold.jsonl").write_text("\n".join(lines))
    return "gold.jsonl"


def test_eval_scores_one_distiller(capsys, gold: str) -> None:
    code, out, err = _go(capsys, "eval", "--gold", gold, "--reports", "r.csv", "--with", "toy")
    assert code == 0, err
    assert "3 sentences, 4 labels; 1 sentences with a difference" in out
    assert re.search(r"^all +4 +3 +1\.000 +0\.750 +0\.857", out, re.MULTILINE), out
    assert re.search(r"^possible +1 +1 +1\.000 +1\.000 +1\.000", out, re.MULTILINE)
    assert re.search(r"^ +nodule +1 +0 +- +0\.000 +0\.000", out, re.MULTILINE)


def test_eval_compares_two_as_json(capsys, gold: str) -> None:
    code, out, err = _go(
        capsys, "eval", "--gold", gold, "--reports", "r.csv", "--with", "toy",
        "--with", "toy?hedge=false", "--weak", "-f", "json",
    )  # fmt: skip
    assert code == 0, err
    result = json.loads(out)
    first, second = result["distillers"].values()
    assert first["by_polarity"]["possible"]["f1"] == 1
    assert second["by_polarity"]["possible"]["f1"] == 0
    assert result["kappa"]["effusion"] == 1
    assert result["kappa"]["all"] < 1
    assert result["weak"]["toy"] == {
        "normal": {"reports": 2, "agreeing": 1}, "effusion": {"reports": 1, "agreeing": 1},
    }  # fmt: skip
    (last,) = [one for one in result["disagreements"] if one["id"] == "2"]
    assert last["said"] == {
        "gold": ["pneumonia possible"],
        "toy": ["pneumonia possible"],
        "toy?hedge=false": ["pneumonia present"],
    }


def test_eval_writes_a_page_with_the_spans_marked(capsys, gold: str) -> None:
    Path("r.csv").write_text(CSV.replace("Effusion.\n", 'Effusion. <script>alert("x")</script>\n'))
    code, _, err = _go(
        capsys, "eval", "--gold", gold, "--reports", "r.csv", "--with", "toy",
        "--with", "toy?hedge=false", "--html", "page.html",
    )  # fmt: skip
    assert code == 0, err
    assert "page: page.html" in err
    page = Path("page.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    cards = page.split('<section class="card">')[-2:]
    assert "report 1, impression" in cards[0]
    assert '<span class="chip absent differs">nodule absent</span>' in cards[0]
    assert '<mark class="possible differs" title="pneumonia possible">pneumonia</mark>' in cards[1]
    assert '<mark class="present differs" title="pneumonia present">pneumonia</mark>' in cards[1]


def test_eval_refuses_another_edition_of_the_reports(capsys, gold: str) -> None:
    Path("r.csv").write_text(CSV.replace("There is an", "There was an"))
    code, _, err = _go(capsys, "eval", "--gold", gold, "--reports", "r.csv", "--with", "toy")
    assert code == 1
    assert "gold.jsonl line 1" in err
    assert "the words differ" in err
