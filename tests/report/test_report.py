"""Rows and page: paired differences, Holm, floors, and an HTML page that reaches for nothing."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecamp.bench.cell_result import SCHEMA, CellResult
from ecamp.report.page import findings, write_page
from ecamp.report.summary import StoredCell, _holm, format_rows, read_run, summarise, two_sided

RNG = np.random.Generator(np.random.Philox(5))
NOISE = RNG.normal(0, 0.02, 1000)


def _cell(
    pretext: str, value: float | None, *, seed: int = 0, floor: str | None = None, **cell: Any
) -> StoredCell:
    base = {
        "dataset": "d", "split_id": "d/1", "split_hash": "ab", "data": "da", "task": "cls", "encoder": "e",
        "pretext": pretext, "weights": "w", "protocol": "linear", "fraction": 1.0, "seed": seed,
        "floor": floor,
    }  # fmt: skip
    result = {
        "schema": SCHEMA,
        "id": f"{pretext}{seed}{floor}{cell}",
        "kind": "floor" if floor else "cell",
        "cell": {**base, **cell},
        "counts": {"train": 10, "val": 5, "test": 20},
        "primary": "auroc",
        "metrics": {
            "auroc": {"value": value, "reason": None if value is not None else "one class"}
        },
        "selected": {},
        "warnings": [],
        "plugins": {},
    }
    return StoredCell(CellResult.from_json(result), None if value is None else value + NOISE)


def test_a_paired_difference_is_surer_than_its_two_intervals():
    # Both sides share the resamples, so their noise cancels although the intervals overlap.
    rows = summarise([_cell("none", 0.70), _cell("mae", 0.71)])
    none, mae = rows
    assert none.high is not None
    assert mae.low is not None
    assert mae.low < none.high
    assert mae.delta == pytest.approx(0.01)
    assert mae.delta_low == pytest.approx(0.01)
    assert mae.verdict == "better"
    assert none.verdict == ""


def test_only_shared_seeds_are_compared():
    cells = [_cell("none", 0.5, seed=s) for s in (0, 1)] + [_cell("none", 0.9, seed=2)]
    cells += [_cell("mae", 0.6, seed=s) for s in (0, 1)]
    mae = summarise(cells)[1]
    assert mae.delta == pytest.approx(0.1)
    assert mae.seeds == 2


def test_a_score_that_does_not_beat_its_floor_is_marked():
    floors = [_cell("-", 0.5, floor="constant", encoder="-", protocol="-"),
              _cell("-", 0.75, floor="pixel-statistics", encoder="-", protocol="-")]  # fmt: skip
    rows = summarise([_cell("none", 0.7), _cell("mae", 0.8), *floors])
    assert [r.below_floor for r in rows] == [True, False]
    assert {r.floor_name for r in rows} == {"pixel-statistics"}
    assert "below floor" in format_rows(rows, "table")


def test_an_undefined_score_stays_undefined_and_keeps_its_reason():
    rows = summarise([_cell("none", None), _cell("mae", 0.8)])
    assert rows[0].value is None
    assert rows[1].delta is None
    assert "null: one class" in format_rows(rows, "md")
    assert json.loads(format_rows(rows, "json"))[0]["value"] is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-4, 1), min_size=1, max_size=8))
def test_holm_equals_its_definition(ps: list[float]):
    row = summarise([_cell("none", 0.7), _cell("mae", 0.71)])[1]
    rows = [type(row)(**{**row.__dict__, "p_holm": p}) for p in ps]
    got = [r.p_holm for r in _holm(rows)]
    m = len(ps)
    for i, p in enumerate(ps):
        # The largest, over all p not above this one, of p times the number of those not below it.
        ranks = sorted(range(m), key=lambda j: (ps[j], j))
        expected = max(
            min(1.0, ps[j] * (m - ranks.index(j))) for j in range(m) if (ps[j], j) <= (p, i)
        )
        assert got[i] == pytest.approx(expected)


def test_p_is_never_zero_and_is_one_without_a_difference():
    rng = np.random.default_rng(0)
    for shift in (0.5, 1.5, 3.0, 5.0):  # counted where it can be, else the normal tail
        p = two_sided(rng.normal(shift, 1.0, 1000))
        assert p is not None
        assert math.log(p) == pytest.approx(math.log(math.erfc(shift / math.sqrt(2))), rel=0.2)
    assert two_sided(np.full(999, 0.1)) == pytest.approx(2 / 1000)
    assert two_sided(np.zeros(999)) == 1.0
    assert two_sided(np.full(999, np.nan)) is None


def _run(folder: Path, name: str) -> Path:
    """A run folder with two cells whose data set has a hostile name."""
    for pretext, value in (("none", 0.7), ("mae", 0.8)):
        cell = _cell(pretext, value, dataset=name)
        place = folder / "cells" / pretext
        place.mkdir(parents=True)
        (place / "result.json").write_text(json.dumps(cell.result.as_json()))
        np.savez(place / "predictions.npz", **{"replicates/auroc": cell.replicates})
    return folder


def test_the_page_is_escaped_self_contained_and_the_same_every_time(tmp_path: Path):
    run = _run(tmp_path / "run", "<script>alert('x')</script>")
    page = write_page(run).read_bytes()
    assert page == write_page(run).read_bytes()
    text = page.decode()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert str(tmp_path) not in text
    for url in re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', text):
        assert all(part.startswith(("data:", "")) and "//" not in part for part in url)
    assert "mae: better than none on cls at 100 % (+0.100)." in text


def test_a_damaged_cell_is_named_and_the_others_stay(tmp_path: Path):
    run = _run(tmp_path / "run", "d")
    (run / "cells" / "mae" / "predictions.npz").write_bytes(b"PK torn")
    cells, warnings = read_run(run)
    assert len(cells) == 1
    assert "cells/mae: damaged" in warnings[0]
    assert "cells/mae: damaged" in write_page(run).read_text()


def test_other_data_under_one_name_are_another_row_with_their_own_floor() -> None:
    """Images replaced in place, or two sets of one name: never averaged, never compared."""
    cells = [_cell("none", 0.9), _cell("mae", 0.95), _cell("none", 0.5, data="db12345678")]
    cells += [_cell("mae", 0.6, data="db12345678")]
    cells += [_cell("-", 0.7, floor="constant", encoder="-", protocol="-", data="db12345678")]
    rows = summarise(cells)
    assert {(r.data, r.pretext): (r.value, r.seeds) for r in rows} == {
        ("da", "none"): (0.9, 1), ("da", "mae"): (0.95, 1),
        ("db12345678", "none"): (0.5, 1), ("db12345678", "mae"): (0.6, 1),
    }  # fmt: skip
    assert [r.delta for r in rows if r.pretext == "mae"] == [
        pytest.approx(0.05),
        pytest.approx(0.1),
    ]
    assert {r.data: r.floor for r in rows} == {"da": None, "db12345678": 0.7}
    text = format_rows(rows, "table")
    assert "split ab data da)" in text
    assert "split ab data db123456)" in text
    # Alone, the mark would only be noise.
    assert " data " not in format_rows(summarise(cells[:2]), "table")


def test_a_cell_of_another_version_is_not_called_damaged(tmp_path: Path):
    run = _run(tmp_path / "run", "d")
    file = run / "cells" / "mae" / "result.json"
    value = json.loads(file.read_text())
    del value["plugins"]
    file.write_text(json.dumps({**value, "schema": 2}))
    cells, (warning,) = read_run(run)
    assert len(cells) == 1
    assert "written by another version of ecamp (schema 2, not 3)" in warning


def test_scores_of_two_protocols_never_meet_in_a_row_or_under_a_heading() -> None:
    # The same data set name under two splits: another test set, so nothing may be compared.
    cells = [_cell("none", 0.5), _cell("mae", 0.6)]
    other = {"split_id": "d/2", "split_hash": "cd"}
    cells += [_cell("none", 0.9, **other), _cell("mae", 0.7, **other)]
    cells += [_cell("-", 0.65, floor="constant", encoder="-", protocol="-", **other)]
    rows = summarise(cells)
    assert {(r.split_id, r.split_hash, r.pretext): r.value for r in rows} == {
        ("d/1", "ab", "none"): pytest.approx(0.5, abs=0.01),
        ("d/1", "ab", "mae"): pytest.approx(0.6, abs=0.01),
        ("d/2", "cd", "none"): pytest.approx(0.9, abs=0.01),
        ("d/2", "cd", "mae"): pytest.approx(0.7, abs=0.01),
    }
    deltas = {r.split_hash: r.delta for r in rows if r.pretext == "mae"}
    assert deltas == {"ab": pytest.approx(0.1), "cd": pytest.approx(-0.2)}
    floors = {r.split_hash: r.floor_name for r in rows}
    assert floors["cd"] == "constant"
    assert not floors["ab"]
    for form in ("table", "md"):
        lines = format_rows(rows, form).splitlines()
        under = [next((k for k in ("ab", "cd") if f" {k}" in line), None) for line in lines]
        if form == "table":  # a heading names the split for the lines below it
            for i in range(1, len(under)):
                under[i] = under[i] or under[i - 1]
        met = {value: under[i] for i, line in enumerate(lines)
               for value in ("0.500", "0.600", "0.900", "0.700") if f" {value} " in line}  # fmt: skip
        assert met == {"0.500": "ab", "0.600": "ab", "0.900": "cd", "0.700": "cd"}, form
    assert "d/2 cd cls at 100 % (-0.200)" in findings(rows, "none")[0]
