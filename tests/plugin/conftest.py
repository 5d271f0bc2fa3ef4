"""Commands that run in the test's process and find the packages that it wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ecamp.cli import run
from tests.plugin.packages import Said


@pytest.fixture
def ecamp_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Runs a command in this process, which finds the packages in `tmp_path`."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def command(*args: str) -> Said:
        try:
            code = run(list(args))
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Said(code, *capsys.readouterr())

    return command
