"""A metric that is better when lower: every table, rank, condition and chart reads its direction."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecamp.cli import run
from ecamp.metrics.calibration import brier, calibration_error
from ecamp.metrics.retrieval import score_retrieval
from ecamp.metrics.segmentation import score_segmentation
from ecamp.report.compare import Condition
from ecamp.report.page import write_page
from ecamp.report.pictures import MARK, bars
from ecamp.report.ranks import rank_models
from ecamp.report.summary import StoredCell, format_rows, summarise
from tests.report.test_report import _cell


def error(pretext: str, value: float, **fields: Any) -> StoredCell:
    """Build a cell whose metric is an error."""
    cell = _cell(pretext, value, **fields)
    score = replace(cell.result.score, higher_is_better=False)
    return replace(cell, result=replace(cell.result, metrics={"auroc": score}))


def floor(name: str, value: float) -> StoredCell:
    return error("-", value, floor=name, encoder="-", protocol="-")


def test_a_larger_error_is_worse_and_a_smaller_one_better() -> None:
    none, large, small = summarise(
        [error("none", 3.2), error("large", 9.1), error("small", 2.0), floor("mean", 3.0),
         floor("constant", 5.0)]
    )  # fmt: skip
    assert [r.verdict for r in (none, large, small)] == ["", "worse", "better"]
    assert {(r.floor_name, r.floor) for r in (none, large, small)} == {("mean", 3.0)}
    assert [r.below_floor for r in (none, large, small)] == [True, True, False]
    text = format_rows([none, large, small], "table")
    assert "auroc (lower is better)" in text
    assert [line.split("  ")[-1] for line in text.splitlines() if "large" in line] == [
        "worse, below floor"
    ]


def test_the_first_rank_is_the_smallest_error() -> None:
    cells = [
        error(pretext, value, fraction=fraction)
        for fraction in (0.1, 1.0)
        for pretext, value in (("a", 3.0), ("b", 2.0), ("c", 4.0))
    ]
    # Another setting, where higher is better, agrees.
    cells += [_cell(p, v, dataset="e") for p, v in (("a", 0.7), ("b", 0.8), ("c", 0.6))]
    ranks, settings = rank_models(cells)
    assert settings == 3
    assert [(r.model, r.rank, r.first) for r in ranks] == [
        ("e b", 1.0, 1.0), ("e a", 2.0, 0.0), ("e c", 3.0, 0.0),
    ]  # fmt: skip


def test_bars_are_red_where_an_error_rose() -> None:
    rows = summarise([error("none", 3.2), error("large", 9.1), error("small", 2.0)])
    assert [bars([row]).count(MARK["worse"]) for row in rows] == [0, 1, 0]
    assert [bars([row]).count(MARK["better"]) for row in rows] == [0, 0, 1]


def test_a_negative_score_has_a_bar_to_the_left_of_zero() -> None:
    (row,) = summarise([_cell("none", -0.5)])
    drawn = bars([row])
    assert 'width="-' not in drawn
    widths = [float(part.split('"')[1]) for part in drawn.split("<rect")[1].split(" width=")[1:]]
    assert widths[0] > 100


def write_run(folder: Path, errors: dict[str, float]) -> Path:
    for pretext, value in errors.items():
        cell = error(pretext, value)
        place = folder / "cells" / pretext
        place.mkdir(parents=True)
        (place / "result.json").write_text(json.dumps(cell.result.as_json()))
        np.savez(
            place / "predictions.npz", **{"replicates/auroc": cell.replicates},
            ids=np.array(["a"]), targets=np.array([[1.0]]), scores=np.array([[0.5]]),
            kind="multilabel", thresholds=np.array([0.5]),
        )  # fmt: skip
    return folder


def test_compare_and_its_conditions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, {"none": 3.2, "large": 9.1})
    pair = [f"{tmp_path}:pretext=none", f"{tmp_path}:pretext=large"]
    assert run(["compare", *pair, "-f", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["verdict"], row["higher_is_better"]) == ("worse", False)
    assert row["delta"] == pytest.approx(5.9)
    assert run(["compare", *pair, "--fail-on", "cls.auroc worse by 5"]) == 5
    assert run(["compare", *pair, "--fail-on", "cls.auroc worse by 6"]) == 0
    assert run(["compare", *pair[::-1], "--fail-on", "cls.auroc worse by 0"]) == 0
    assert run(["compare", *pair[::-1]]) == 0
    assert "better" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "task", "metric", "sign", "limit"),
    [
        ("cls.auroc<-0.005", "cls", "auroc", "<", -0.005),
        ("ret.i2t_recall@1 worse by 0.02", "ret", "i2t_recall@1", "worse by", 0.02),
        ("bone-age.mae>0.5", "bone-age", "mae", ">", 0.5),
        ("seg.dice_pos/left lung<-1e-2", "seg", "dice_pos/left lung", "<", -0.01),
    ],
)
def test_conditions_name_any_metric(
    text: str, task: str, metric: str, sign: str, limit: float
) -> None:
    condition = Condition.parse(text)
    assert (condition.task, condition.metric, condition.sign, condition.limit) == (
        task, metric, sign, limit,
    )  # fmt: skip


def test_our_own_errors_say_so() -> None:
    """Median rank, surface distance, false alarms and calibration errors are better when lower."""
    rng = np.random.default_rng(0)
    counts = np.ones((20, 6), np.float32)
    masks = rng.random((6, 1, 8, 8)) > 0.5
    scores, targets = rng.random((6, 2)).astype(np.float32), rng.integers(0, 2, (6, 2)) * 1.0
    found = {
        **score_segmentation(masks, masks, counts, classes=["a"]),
        **score_retrieval(rng.random((6, 3)), rng.random((6, 3)), np.arange(6), counts),
        "brier": brier(scores, targets, counts, "multilabel"),
        "ece": calibration_error(scores, targets, counts, "multilabel"),
    }
    lower = {name for name, metric in found.items() if not metric.higher_is_better}
    assert lower == {"hd95", "fpr_neg", "brier", "ece", "i2t_median_rank", "t2i_median_rank"}


def test_the_page_of_an_error(tmp_path: Path) -> None:
    text = write_page(write_run(tmp_path, {"none": 3.2, "large": 9.1})).read_text()
    assert "large: worse than none" in text
    assert "lower is better" in text
