"""Lines on stderr: to the letter, one style, nothing of them without the command line."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ecamp.cli import run
from ecamp.cli.logs import LoggedProgress, StderrHandler, log_to_stderr

LINE = re.compile(r"^ *\d+s  (.*)$", re.MULTILINE)
LETTERS = [
    "[3/20] cls phantom: auroc 0.812",
    "[bold]not bold[/bold] [/] [red] \\[x]",
    "/data/[old] films/a b.png: damaged",
    ":warning: of 100 % {x} %s",
    "long " * 100,
    "two\nlines\twith a tab",
    "naïve \u6f22\u5b57 \udcff",
]


class FakeClock:
    """A clock that moves when it is told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def _handler(monkeypatch: pytest.MonkeyPatch, stderr: io.TextIOBase) -> StderrHandler:
    monkeypatch.setenv("COLUMNS", "20")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stderr", stderr)
    clock = FakeClock()
    handler = StderrHandler(clock)
    clock.now = 12.4
    return handler


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
@pytest.mark.parametrize("text", LETTERS)
def test_lines_are_written_to_the_letter(
    text: str, level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr = io.StringIO()
    handler = _handler(monkeypatch, stderr)
    handler.emit(logging.LogRecord("ecamp.x", level, "", 0, "%s", (text,), None))
    assert stderr.getvalue() == f"    12s  {text}\n"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("level", "no_color", "coloured"),
    [(logging.INFO, False, False), (logging.WARNING, False, True), (logging.WARNING, True, False)],
)
def test_a_terminal_shows_warnings_in_colour_and_the_same_letters(
    level: int, no_color: bool, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    handler = _handler(monkeypatch, terminal)
    monkeypatch.setenv("TERM", "xterm")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    handler.emit(logging.LogRecord("ecamp.x", level, "", 0, LETTERS[0], (), None))
    plain = re.sub(r"\x1b\[\d*m", "", terminal.getvalue())
    assert plain == f"    12s  {LETTERS[0]}\n"
    assert (terminal.getvalue() != plain) == coloured


def test_only_what_ecamp_logs_is_shown_and_only_while_a_command_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours, other = logging.getLogger("ecamp"), logging.getLogger("elsewhere")
    before = ours.level, list(ours.handlers), list(logging.root.handlers)
    with log_to_stderr():
        ours.getChild("bench").info("shown")
        ours.getChild("bench").debug("too much")
        other.info("another package")
        assert list(logging.root.handlers) == before[2]
    ours.warning("too late")
    assert LINE.findall(capsys.readouterr().err) == ["shown"]
    assert (ours.level, list(ours.handlers), list(logging.root.handlers)) == before


def test_a_reader_that_goes_away_ends_the_command_as_for_other_lines() -> None:
    script = (
        "import logging, sys\n"
        "from ecamp.cli.logs import log_to_stderr\n"
        "sys.stdin.readline()\n"
        "with log_to_stderr():\n"
        "    try:\n"
        "        logging.getLogger('ecamp').info('nobody reads this')\n"
        "    except BrokenPipeError:\n"
        "        sys.exit(7)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.close()
        assert process.wait() == 7


@pytest.mark.slow
def test_without_the_command_line_nothing_is_printed(tmp_path: Path) -> None:
    script = (
        "import logging, sys, pathlib\n"
        "from ecamp.api import PluginRef, make_plugin\n"
        "from ecamp.data.arrays import materialise\n"
        "data = make_plugin('ecamp.datasets', PluginRef.parse('phantom?pretrain=4&train=6&val=6&test=6'))\n"
        "materialise(data, 32, splits=['train'], cache=pathlib.Path(sys.argv[1]), workers=1)\n"
        "logging.getLogger('ecamp.bench').warning('damaged')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert list(tmp_path.glob("arrays/*/images.npy")), "it decoded, and said nothing"


def test_progress_is_told_at_tenths_but_not_too_often(logged: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    progress = LoggedProgress(clock)

    def lines(seconds: float, counts: range, total: int | None, note: str) -> list[str]:
        """What is logged where each item takes so many seconds."""
        logged.clear()
        for done in counts:
            progress(done, total, note)
            clock.now += seconds
        return logged.messages

    assert lines(2**-11, range(1001), 1000, "images") == ["1,000 of 1,000 images"]
    tenths = [f"{n:,} of 2,000 steps, loss 1" for n in range(200, 2001, 200)]
    assert lines(0.125, range(2001), 2000, "steps, loss 1") == tenths
    # Another work; of a resumed one the first ten are done, and each item takes half a minute.
    assert lines(30.0, range(10, 14), 2000, "files") == [
        f"{n} of 2,000 files" for n in (11, 12, 13)
    ]
    reports = lines(0.125, range(100, 581), None, "reports")
    assert reports == ["340 reports, 8/s", "580 reports, 8/s"]
    assert lines(1.0, range(1), 1, "images") == []
    assert lines(1.0, range(1), 0, "images") == []


@pytest.mark.slow
def test_a_bench_tells_what_a_user_needs_on_stderr_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, small_bench: list[str]
) -> None:
    more = ("--tasks", "cls", "--pretext", "none,mae", "--run", str(tmp_path / "run"),
            "--cache", str(tmp_path / "cache"), "-f", "json")  # fmt: skip
    assert run([*small_bench, *more]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)) == 2
    lines = LINE.findall(err)
    assert "decoding 64 images of phantom at 64 px" in lines
    assert any(re.fullmatch(r"pre-training .* with mae: 4 steps on 64 pairs", x) for x in lines)
    assert any(re.fullmatch(r"4 of 4 steps, loss \d.\d{3} .*", line) for line in lines)
    cells = [line for line in lines if line.startswith("[")]
    assert [line.split("]")[0] for line in cells] == [f"[{n}/4" for n in range(1, 5)]
    assert all(re.search(r": auroc \d\.\d{3}$", line) for line in cells)
    rest = LINE.sub("", err).split("\n")
    told = [line for line in rest if line and not line.startswith("note: ")]
    assert told[0] == f"report: {tmp_path / 'run' / 'report' / 'index.html'}"
    assert re.fullmatch(r"4 cells done, 0 reused, 0 failed in \d+ s", told[1])
    # A damaged cell is named, and made again alone.
    damaged = next((tmp_path / "run" / "cells").iterdir())
    (damaged / "predictions.npz").write_bytes(b"torn")
    assert run([*small_bench, *more]) == 0
    again, err = capsys.readouterr()
    assert json.loads(again) == json.loads(out)
    lines = LINE.findall(err)
    assert lines[0] == "3 of 4 cells are done already"
    assert lines[1].endswith(f"{damaged.name}: damaged; this cell is made again")
    assert lines[2].startswith("[1/1] ")
