"""The text of tables and page, as users see them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ecamp.report.page import write_page
from ecamp.report.summary import format_rows, read_run, summarise
from tests.gold import check_gold
from tests.report.test_report import _cell

GOLD = Path(__file__).parent / "gold"
FLOOR = {"floor": "pixel-statistics", "encoder": "-", "protocol": "-", "pretext": "-"}
# One row of each kind: the baseline, better, worse, below its floor, undefined, another split.
CELLS = [
    _cell("none", 0.70),
    _cell("mae", 0.81),
    _cell("ecamp", 0.66),
    _cell("mrm-like", None),
    _cell(value=0.68, **FLOOR),
    _cell("none", 0.90, dataset="other", split_id="other/1", split_hash="cd"),
    _cell("mae", 0.90, dataset="other", split_id="other/1", split_hash="cd"),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of the cells."""
    for number, cell in enumerate(CELLS):
        folder = tmp_path / "run" / "cells" / str(number)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(cell.result.as_json()))
        replicates = {} if cell.replicates is None else {"replicates/auroc": cell.replicates}
        np.savez(folder / "predictions.npz", **replicates)
    return tmp_path / "run"


@pytest.mark.parametrize("form", ["table", "md", "csv", "json"])
def test_the_table(run: Path, form: str) -> None:
    cells, warnings = read_run(run)
    assert not warnings
    text = format_rows(summarise(cells), form) + "\n"
    # Six digits: the last bits of a percentile are the library's.
    text = re.sub(r"-?\d+\.\d{4,}(e-?\d+)?", lambda number: f"{float(number[0]):.6g}", text)
    check_gold(GOLD / f"rows.{form}", text)


def test_the_page(run: Path) -> None:
    page = write_page(run).read_text()
    page = re.sub(r"<style>.*?</style>", "<style/>", page, flags=re.DOTALL)
    page = re.sub(r"data:[a-z/+]+;base64,[A-Za-z0-9+/=]+", "data:", page)
    page = re.sub(r"<svg.*?</svg>", "<svg/>", page, flags=re.DOTALL)
    check_gold(GOLD / "page.html", page)
