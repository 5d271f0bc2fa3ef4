"""`ecamp text`: what it prints, the page it writes, and the mistakes it names."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from ecamp.cli import run
from ecamp.text.tokenizer import load_tokenizer, train_tokenizer

REPORT = "There is a small left pneumothorax. No pleural effusion, 2.5 cm cholecystectomy clips."


def _go(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    try:
        code = run(["text", *args])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out = capsys.readouterr()
    assert "Traceback" not in out.err
    return code, out.out, out.err


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    path.write_text(train_tokenizer([REPORT, "abcdefghijklmnopqrstuvwxyz"], 200).to_str())
    return path


def test_explain_as_json_agrees_with_itself(
    capsys: pytest.CaptureFixture[str], tokenizer: Path
) -> None:
    code, out, err = _go(capsys, "explain", REPORT, "--tokenizer", str(tokenizer), "-f", "json")
    told = json.loads(out)
    assert code == 0, err
    roles = {word["text"]: word["role"] for word in told["words"]}
    assert roles["pneumothorax"] == roles["effusion"] == "entity"
    assert roles["small"] == roles["left"] == "descriptor"
    assert roles["No"] == "template"
    for word in told["words"]:
        assert REPORT[word["start"] : word["end"]] == word["text"]
        assert bool(word["weight"]) == word["masked"]
        assert word["role"] != "descriptor" or word["masked"]
    masked = sum(word["tokens"] for word in told["words"] if word["masked"])
    weight = sum(word["tokens"] * word["weight"] for word in told["words"])
    assert told["tokens_masked"] == masked == pytest.approx(weight)
    assert told["weight_sum"] == pytest.approx(masked)


def test_explain_prints_colours_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    code, plain, err = _go(capsys, "explain", REPORT, "--seed", "3")
    assert code == 0, err
    assert "\x1b" not in plain
    assert "**pneumothorax**" in plain
    assert "*small*" in plain
    assert re.search(r"seed 3, step 0: (\d+) of \d+ tokens masked, weights sum to \1\.00", plain)
    _, coloured, _ = _go(capsys, "explain", REPORT, "--seed", "3", "--color")
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_a_report_comes_from_a_file_or_standard_input(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, want, _ = _go(capsys, "explain", REPORT)
    file = tmp_path / "report.txt"
    file.write_text(REPORT)
    assert _go(capsys, "explain", "--file", str(file))[1] == want
    stdin = io.TextIOWrapper(io.BytesIO(REPORT.encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert _go(capsys, "explain", "-")[1] == want


def test_the_page_shows_every_word_of_every_draw(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tokenizer: Path
) -> None:
    page = tmp_path / "page.html"
    text = REPORT + " <script>alert(1)</script>"
    code, _, err = _go(
        capsys, "explain", text, "--tokenizer", str(tokenizer), "--html", str(page), "--seed", "5"
    )
    assert code == 0, err
    html = page.read_text()
    assert "<script" not in html
    assert not re.search(r"(src|href)=|url\(|@import|https?:", html)
    assert [f"Draw with seed {seed}" in html for seed in (4, 5, 8, 9)] == [False, True, True, False]
    # A masked word stays readable: once among the roles, once a draw.
    assert len(re.findall(r">cholecystectomy<", html)) == 5
    _, again, _ = _go(capsys, "explain", text, "--tokenizer", str(tokenizer), "--seed", "5",
                      "-f", "json")  # fmt: skip
    first = html.split("Draw with seed 5")[1].split("Draw with seed 6")[0]
    assert first.count(">[MASK]<") == sum(word["masked"] for word in json.loads(again)["words"])


def test_train_tokenizer_gives_the_same_bytes_and_reports_losses(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table = tmp_path / "reports.csv"
    table.write_text('findings,impression,age\n"No mass, clear.",Normal,40\n,Edema,50\n,,60\n')
    out = tmp_path / "a.json"
    code, said, err = _go(capsys, "train-tokenizer", str(table), "-o", str(out))
    assert code == 0, err
    assert "2 reports" in said
    assert "need [UNK]: " in said
    assert "entities without a form: " in said
    assert "tuberculosis" in said.split("without a form")[1]
    tokenizer = load_tokenizer(out)
    assert (
        tokenizer.get_vocab()
        == train_tokenizer(["No mass, clear. Normal", "Edema"], 30000).get_vocab()
    )
    lines = tmp_path / "reports.jsonl"
    lines.write_text('{"r": "No mass, clear. Normal"}\n\n{"r": null}\n{"r": "Edema"}\n')
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "1.txt").write_text("No mass, clear. Normal")
    (folder / "2.txt").write_bytes(b"\xef\xbb\xbfEdema")
    plain = tmp_path / "reports.txt"
    plain.write_text("No mass, clear. Normal\nEdema\n")
    for source, more in ((lines, ["--column", "r"]), (folder, []), (plain, [])):
        other = tmp_path / "b.json"
        assert _go(capsys, "train-tokenizer", str(source), "-o", str(other), *more)[0] == 0
        assert other.read_bytes() == out.read_bytes()


def test_lexicon_lists_forms_and_those_that_never_match(
    capsys: pytest.CaptureFixture[str], tokenizer: Path
) -> None:
    code, out, _ = _go(capsys, "lexicon", "chest")
    assert code == 0
    assert "44 entities" in out
    assert "pneumothoraces" in out
    assert "never" not in out
    vocabulary = tokenizer.with_name("few.json")
    vocabulary.write_text(train_tokenizer(["mass", "no"], 64).to_str())
    _, out, _ = _go(capsys, "lexicon", "chest", "--tokenizer", str(vocabulary))
    assert "edema (never)" in out
    assert re.search(r"^mass +1/\d+  mass, masses \(never\)", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("files", "args", "code", "message"),
    [
        ({}, ["explain"], 2, "Give one report"),
        ({"r.txt": b"a"}, ["explain", "a", "--file", "r.txt"], 2, "Give one report"),
        ({}, ["explain", "--file", "no.txt"], 4, "no.txt"),
        ({}, ["explain", "  "], 1, "empty"),
        ({}, ["explain", "a \udcff"], 1, "not UTF-8"),
        ({"r.txt": b"a\nb\xff"}, ["explain", "--file", "r.txt"], 1, "r.txt line 2: not UTF-8"),
        ({}, ["explain", "a", "--lexicon", "chets"], 4, "Did you mean 'chest'"),
        ({}, ["explain", "a", "--tokenizer", "no.json"], 4, "no.json"),
        ({"t.json": b"{"}, ["explain", "a", "--tokenizer", "t.json"], 1, "t.json: not a tokenizer"),
        ({"l.yaml": b"\xff\xfe\x00"}, ["lexicon", "l.yaml"], 2, "l.yaml"),
        ({}, ["train-tokenizer", "no.csv", "-o", "o"], 4, "no.csv"),
        ({"r.csv": b"a,b\n1,2\n"}, ["train-tokenizer", "r.csv", "-o", "o"], 1, "--column"),
        ({"r.csv": b"findings\n"}, ["train-tokenizer", "r.csv", "-o", "o"], 1, "no report text"),
        ({"r.csv": b""}, ["train-tokenizer", "r.csv", "-o", "o"], 1, "r.csv"),
        ({"r.csv": b"findings\nx\n\xff\n"}, ["train-tokenizer", "r.csv", "-o", "o"], 1, "line 3"),
        ({"r.csv": b"findings,b\nx\n"}, ["train-tokenizer", "r.csv", "-o", "o"], 1, "line 2"),
        ({"r.csv": b'findings\n"x\n'}, ["train-tokenizer", "r.csv", "-o", "o"], 1, "CSV"),
        ({"r.csv": b"findings\nx\n"},
         ["train-tokenizer", "r.csv", "-o", "o", "--column", "finding"], 1, "mean 'findings'"),
        ({"r.txt": b"x\n"}, ["train-tokenizer", "r.txt", "-o", "o", "--column", "a"], 2, "plain"),
        ({"r.jsonl": b"{\n"}, ["train-tokenizer", "r.jsonl", "-o", "o"], 1, "line 1: not JSON"),
        ({"r.jsonl": b"[]\n"}, ["train-tokenizer", "r.jsonl", "-o", "o"], 1, "line 1: not a JSON object"),
        ({"r.jsonl": b'{"report": 1}\n'}, ["train-tokenizer", "r.jsonl", "-o", "o"], 1, "'report'"),
    ],
)  # fmt: skip
def test_mistakes_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    files: dict[str, bytes], args: list[str], code: int, message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name, data in files.items():
        Path(name).write_bytes(data)
    got, _, err = _go(capsys, *args)
    assert (got, message in err) == (code, True), err


def test_a_tokenizer_without_its_tokens_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    from ecamp.errors import DataError

    path = tmp_path / "t.json"
    Tokenizer(models.WordPiece({"[UNK]": 0, "[CLS]": 1, "a": 2}, unk_token="[UNK]")).save(str(path))
    with pytest.raises(DataError, match=r"t\.json.*lacks \[PAD\], \[MASK\]"):
        load_tokenizer(path)
    good = train_tokenizer(["a b"], 64)
    good.enable_truncation(2)
    good.enable_padding(length=9)
    good.save(str(path))
    assert len(load_tokenizer(path).encode("a b a b").ids) == 4


@pytest.mark.real
def test_the_published_vocabulary_loads(
    capsys: pytest.CaptureFixture[str], shared_data: Path
) -> None:
    path = shared_data / "tokenizer" / "mimic_wordpiece.json"
    assert load_tokenizer(path).get_vocab_size() == 30000
    code, out, _ = _go(capsys, "lexicon", "chest", "--tokenizer", str(path))
    assert code == 0
    assert "never)," not in out
