"""The commands as a user meets them: exit codes, hints, no traceback."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest

from ecamp.cli import run
from ecamp.ops import _ext


def _go(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code: int
    try:
        code = run(list(args))
    except SystemExit as stop:
        code = int(stop.code or 0)
    out = capsys.readouterr()
    assert "Traceback" not in out.err
    return code, out.out, out.err


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["benhc"], 2, "Did you mean 'bench'"),
        (["bench", "--taks", "cls"], 2, "--tasks"),
        (["bench", "--tasks", "clss"], 4, "cls"),
        (["bench", "--encoders", "vit-mirco"], 4, "Did you mean 'vit-micro'"),
        (["bench", "--encoders", "vit-micro?widht=3"], 2, "width"),
        (["bench", "--encoders", "timm/resnet18x"], 4, "resnet18"),
        (["bench", "--encoders", "timm"], 2, "family"),
        (["bench", "--pretext", "maee"], 4, "Did you mean 'mae'"),
        (["bench", "--encoders", "timm/resnet18", "--pretext", "mae"], 2, "requires 'visible'"),
        (["bench", "--datasets", "phantm"], 4, "Did you mean 'phantom'"),
        (["bench", "--datasets", "no/such/dataset.yaml"], 4, "no/such/dataset.yaml"),
        (["bench", "--fractions", "10"], 2, "0.1 means 10 %"),
        (["bench", "--seeds", "a"], 2, "'a' is not a list of numbers"),
        (["bench", "-c", "no.yaml"], 4, "no.yaml"),
        (["plugins", "describe", "vit-mirco"], 4, "Did you mean 'vit-micro'"),
        (["report", "no/such/run"], 4, "no/such/run"),
    ],
)  # fmt: skip
def test_mistakes_are_named(
    capsys: pytest.CaptureFixture[str], args: list[str], code: int, message: str
) -> None:
    got, _, err = _go(capsys, *args)
    assert (got, message in err) == (code, True), err


@pytest.mark.slow
def test_dry_run_computes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, small_bench: list[str]
) -> None:
    run_path = tmp_path / "run"
    code, out, _ = _go(capsys, *small_bench, "--run", str(run_path), "--dry-run", "-f", "json")
    plan = json.loads(out)
    assert code == 0
    assert not run_path.exists()
    assert {c["task"] for c in plan["cells"]} == {"cls", "seg", "det"}


@pytest.mark.parametrize(("disabled", "notes"), [("0", 1), ("1", 0)])
def test_missing_kernels_are_reported_in_one_line_unless_switched_off(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    small_bench: list[str],
    disabled: str,
    notes: int,
) -> None:
    monkeypatch.setattr(_ext, "_load", _ext._load.__wrapped__)  # not what is loaded already
    monkeypatch.setenv("ECAMP_LIBRARY", str(tmp_path / "none.so"))
    monkeypatch.setenv("ECAMP_DISABLE_EXT", disabled)
    _, _, err = _go(capsys, *small_bench, "--dry-run", "--no-estimate")
    told = [line for line in err.splitlines() if "no compiled kernels" in line]
    assert len(told) == notes
    assert all("ECAMP_EXT=require pip install" in line for line in told)
    _, _, err = _go(capsys, "bench", "--help")
    assert err == ""


def test_plugins_are_listed_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _go(capsys, "plugins", "list", "-f", "json")
    names = {(p["group"], p["name"]) for p in json.loads(out)}
    assert code == 0
    assert {("encoders", "timm"), ("pretext", "ecamp"), ("tasks", "det")} <= names
    code, out, _ = _go(capsys, "plugins", "describe", "mae")
    assert code == 0
    assert "mask_ratio" in out


@pytest.mark.slow
def test_bench_then_report_in_every_format(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, small_bench: list[str]
) -> None:
    run_path, recipe = tmp_path / "run", tmp_path / "recipe.yaml"
    recipe.write_text("task_options: {seg: {steps: 6}, det: {steps: 6}}\n")
    small_bench = [*small_bench, "-c", str(recipe)]
    code, out, err = _go(capsys, *small_bench, "--run", str(run_path), "-f", "json")
    rows = json.loads(out)
    assert code == 0, err
    assert {(r["task"], r["pretext"]) for r in rows} == {
        (t, p) for t in ("cls", "seg", "det") for p in ("none", "mae", "ecamp")
    }
    for row in rows:
        assert row["floor"] is not None
        assert row["below_floor"] == (row["value"] <= row["floor"])
        assert row["split_hash"]
    page = (run_path / "report" / "index.html").read_text()
    assert "<h2>Cost</h2>" in page
    assert "<script src" not in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    code, out, _ = _go(capsys, "report", str(run_path), "-f", "csv")
    assert [r["pretext"] for r in csv.DictReader(io.StringIO(out))] == [r["pretext"] for r in rows]
    code, out, _ = _go(capsys, "report", str(run_path), "--no-html")
    assert "images/s" in out.split("cost, as measured")[1]
    # A second time: nothing is computed, the page is the same.
    _, _, err = _go(capsys, *small_bench, "--run", str(run_path))
    assert "0 cells done" in err
    assert (run_path / "report" / "index.html").read_text() == page
    # Another recipe in the same folder is refused, naming the difference.
    code, _, err = _go(capsys, *small_bench, "--bootstrap", "200", "--run", str(run_path))
    assert code == 2
    assert "bootstrap" in err


def test_an_unwritable_run_folder_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, small_bench: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = _go(capsys, *small_bench, "--run", str(tmp_path / "file" / "run"))
    assert code == 1
    assert "cannot be written" in err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, which only Linux has")
def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ecamp.errors import EcampError
    from ecamp.storage.files import append_line

    with pytest.raises(EcampError, match="No space left"):
        append_line(Path("/dev/full"), {"event": "x"})
