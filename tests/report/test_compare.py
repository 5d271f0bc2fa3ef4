"""`ecamp compare`: pairing, tests, refusals, exit codes; on runs written by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from ecamp.bench.cell_result import SCHEMA, CellResult, scores_of
from ecamp.bench.run_folder import RunFolder, pack
from ecamp.cli import run
from ecamp.metrics.classification import score_classification
from ecamp.metrics.paired import delong_p, holm, mcnemar_p, wilcoxon_p
from ecamp.metrics.segmentation import score_segmentation
from ecamp.metrics.stats import resample_counts

IMAGES = 240
PATIENTS = [f"p{i // 2}" for i in range(IMAGES)]


def write_cls(
    folder: Path, strength: float, *, seeds: int = 2, pretext: str = "mae", split: str = "s1",
    images: int = IMAGES,
) -> None:  # fmt: skip
    """Cells of one binary data set; the larger `strength`, the better the scores."""
    truth = np.random.default_rng(0).random((images, 1)) < 0.4
    for seed in range(seeds):
        noise = np.random.default_rng([seed, 5]).normal(size=(images, 1))
        scores = 1 / (1 + np.exp(-(strength * (truth - 0.5) + noise)))
        counts = resample_counts(PATIENTS[:images], 300)
        metrics = score_classification(
            scores, truth.astype(float), counts, classes=["sick"], kind="multilabel",
            thresholds=np.array([0.5]),
        )  # fmt: skip
        arrays = {
            "scores": scores, "targets": truth.astype(float), "thresholds": np.array([0.5]),
            "kind": np.array("multilabel"), "classes": np.array(["sick"]),
        }  # fmt: skip
        _cell(folder, f"c-{pretext}-{seed}", "cls", "auroc", metrics, arrays, pretext, seed, split)


def write_seg(folder: Path, shift: int, pretext: str = "mae") -> None:
    rng = np.random.default_rng(1)
    target = np.zeros((IMAGES, 1, 16, 16), bool)
    for mask in target[::2, 0]:
        y, x = rng.integers(0, 9, 2)
        mask[y : y + 6, x : x + 6] = True
    predicted = np.roll(target, shift, axis=3)
    metrics = score_segmentation(
        predicted, target, resample_counts(PATIENTS, 300), classes=["lesion"]
    )
    arrays = {
        **pack({"mask": predicted, "target": target}),
        "classes": np.array(["lesion"]),
    }
    _cell(folder, f"s-{pretext}", "seg", "dice_pos", metrics, arrays, pretext, 0, "s1")


def _cell(
    folder: Path, key: str, task: str, primary: str, metrics: dict, arrays: dict, pretext: str,
    seed: int, split: str,
) -> None:  # fmt: skip
    images = len(next(v for k, v in arrays.items() if k in ("scores", "mask/bits")))
    result = {
        "schema": SCHEMA, "id": key, "kind": "cell", "primary": primary,
        "cell": {
            "dataset": "films", "split_id": "films/1", "split_hash": split, "data": "da", "task": task,
            "encoder": "vit", "pretext": pretext, "protocol": "linear", "fraction": 1.0,
            "seed": seed, "floor": "", "weights": "",
        },
        "counts": {"train": 9, "val": 9, "test": images, "test_patients": 9, "skipped": 0},
        "metrics": {name: asdict(score) for name, score in scores_of(metrics).items()},
        "selected": {}, "warnings": [],
        "plugins": {},
    }  # fmt: skip
    stored = {
        **arrays, "ids": np.array([f"i{i}" for i in range(images)]),
        "patients": np.array(PATIENTS[:images]),
    }  # fmt: skip
    for name, metric in metrics.items():
        if metric.replicates is not None and "/" not in name:
            stored[f"replicates/{name}"] = metric.replicates
    RunFolder(folder).write_cell(key, CellResult.from_json(result), stored, {}, "")
    (folder / "spec.yaml").write_text("bootstrap: 300\ntask_options: {}\n")


def compared_rows(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict]:
    code = run(["compare", *map(str, arguments), "-f", "json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    rows: list[dict] = json.loads(out)
    return rows


def test_a_better_model_is_called_better_by_every_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cls(tmp_path / "a", 0.5)
    write_cls(tmp_path / "b", 2.5)
    (row,) = compared_rows(capsys, tmp_path / "a", tmp_path / "b")
    assert (row["verdict"], row["seeds"], row["images"]) == ("better", 2, IMAGES)
    assert row["delta"] == pytest.approx(row["second"] - row["first"])
    assert 0 < row["low"] < row["delta"] < row["high"]
    assert max(row["p_holm"], row["delong"], row["mcnemar"]) < 0.01
    (back,) = compared_rows(capsys, tmp_path / "b", tmp_path / "a")
    assert (back["verdict"], back["delta"]) == ("worse", -row["delta"])


def test_the_same_model_is_a_tie(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cls(tmp_path / "a", 1.0)
    write_seg(tmp_path / "a", 1)
    for row in compared_rows(capsys, tmp_path / "a", tmp_path / "a", "--metric", "*"):
        assert (row["verdict"], row["delta"]) == ("tie", 0.0)
        assert row["p"] == 1.0
        assert {row["delong"], row["mcnemar"], row["wilcoxon"]} <= {None, 1.0}


def test_two_pretexts_of_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cls(tmp_path, 0.5, pretext="none")
    write_cls(tmp_path, 2.5, pretext="mae")
    write_seg(tmp_path, 3, "none")
    write_seg(tmp_path, 1, "mae")
    rows = compared_rows(capsys, f"{tmp_path}:pretext=none", f"{tmp_path}:pretext=mae")
    assert {(r["task"], r["verdict"]) for r in rows} == {("cls", "better"), ("seg", "better")}
    seg = next(r for r in rows if r["task"] == "seg")
    assert seg["wilcoxon"] < 0.001
    # Lower is better: a verdict reads the metric's direction.
    rows = compared_rows(
        capsys, f"{tmp_path}:pretext=none", f"{tmp_path}:pretext=mae", "--metric", "hd95"
    )
    worse = next(r for r in rows if r["metric"] == "hd95")
    assert worse["delta"] < 0
    assert worse["verdict"] == "better"


def test_exit_5_where_a_condition_is_met(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cls(tmp_path / "a", 2.5)
    write_seg(tmp_path / "a", 1)
    write_cls(tmp_path / "b", 0.5)
    write_seg(tmp_path / "b", 1)
    pair = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert run(["compare", *pair, "--fail-on", "cls.auroc<-0.005"]) == 5
    assert "cls.auroc<-0.005: films cls at 100 %" in capsys.readouterr().err
    assert run(["compare", *pair, "--fail-on", "cls.auroc<-0.9"]) == 0
    assert run(["compare", *pair, "--fail-on", "films:seg.dice_pos<-0.01"]) == 0
    for text, message in (
        ("cls.auroc", "not a condition"), ("det.ap50<0", "no such metric"),
        ("other:cls.auroc<0", "no such metric"),
    ):  # fmt: skip
        assert run(["compare", *pair, "--fail-on", text]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("changed", [False, True])
def test_data_that_changed_between_two_runs_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: bool
) -> None:
    write_cls(tmp_path / "a", 1.0)
    write_cls(tmp_path / "b", 3.0)
    for file in (tmp_path / "b").glob("cells/*/result.json"):
        value = json.loads(file.read_text())
        value["cell"]["data"] = "other" if changed else value["cell"]["data"]
        file.write_text(json.dumps(value))
    assert run(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert ("films: the data changed between" in capsys.readouterr().err) == changed


def test_what_cannot_be_paired_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cls(tmp_path / "a", 1.0)
    write_cls(tmp_path / "other-split", 1.0, split="s2")
    write_cls(tmp_path / "fewer", 1.0, images=100)
    write_cls(tmp_path / "two", 1.0, pretext="none")
    write_cls(tmp_path / "two", 1.0, pretext="mae")
    write_seg(tmp_path / "seg", 1)
    for other, code, message in (
        ("other-split", 1, "split s1"), ("fewer", 1, "different images"), ("seg", 2, "no cell"),
        ("nothing", 4, "not a run folder"), ("two:colour=red", 2, "is not a selection"),
    ):  # fmt: skip
        assert run(["compare", str(tmp_path / "a"), str(tmp_path / other)]) == code, other
        assert message in capsys.readouterr().err
    # Two models a side: paired by model, the one that is not there is left out.
    (row,) = compared_rows(capsys, tmp_path / "a", tmp_path / "two")
    assert row["model"] == "vit mae"


def test_a_damaged_cell_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cls(tmp_path / "a", 1.0)
    write_cls(tmp_path / "b", 2.0)
    file = tmp_path / "b" / "cells" / "c-mae-1" / "predictions.npz"
    file.write_bytes(file.read_bytes()[:200])
    assert run(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    out, err = capsys.readouterr()
    assert "c-mae-1: damaged" in err
    assert " 1 " in out


@pytest.mark.parametrize("form", ["table", "csv", "md"])
def test_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    write_cls(tmp_path, 1.0)
    assert run(["compare", str(tmp_path), str(tmp_path), "-f", form]) == 0
    assert "auroc" in capsys.readouterr().out


def test_rescoring_changes_nothing_and_then_draws_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cls(tmp_path, 1.0)
    write_seg(tmp_path, 1)
    assert run(["rescore", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "3 cells, 0 changed\n"
    result = tmp_path / "cells" / "c-mae-0" / "result.json"
    before = result.read_bytes()
    broken = json.loads(before)
    broken["metrics"]["auroc"]["value"] = 0.123
    result.write_text(json.dumps(broken))
    assert run(["rescore", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "3 cells, 1 changed\n"
    assert result.read_bytes() == before
    assert run(["rescore", str(tmp_path), "--bootstrap", "50"]) == 0
    assert capsys.readouterr().out == "3 cells, 3 changed\n"
    with np.load(result.parent / "predictions.npz") as arrays:
        assert arrays["replicates/auroc"].shape == (50,)
        assert arrays["scores"].shape == (IMAGES, 1)
    file = tmp_path / "cells" / "s-mae" / "predictions.npz"
    file.write_bytes(b"torn")
    assert run(["rescore", str(tmp_path)]) == 3
    assert "s-mae" in capsys.readouterr().err
    assert run(["rescore", str(tmp_path / "nothing")]) == 4


# --- the tests themselves --------------------------------------------------------------------------


def test_mcnemar_is_the_binomial_of_discordant_images() -> None:
    first = np.array([True] * 12 + [False] * 3 + [True] * 20)
    second = np.array([False] * 12 + [True] * 3 + [True] * 20)
    assert mcnemar_p(first, second) == pytest.approx(
        2 * sum(scipy_stats.binom.pmf(k, 15, 0.5) for k in range(4))
    )
    assert mcnemar_p(first, first) == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, None, 0.04, 0.03, 0.5]) == pytest.approx([0.04, None, 0.09, 0.09, 0.5])
    assert holm([]) == []


def test_delong_of_equal_models_is_uniform() -> None:
    """Under no difference p is below 0.05 in one of twenty experiments."""
    rng = np.random.default_rng(0)
    truth = np.arange(120) < 50
    low = 0
    for _ in range(800):
        shared = rng.normal(truth.astype(float), 1.0)
        one, two = (shared + rng.normal(0, 0.7, (2, 120)) for _ in range(2))
        p = delong_p(one, two, truth)
        assert p is not None
        low += p < 0.05
    assert 0.03 < low / 800 < 0.075
    assert delong_p(one, two, np.ones(120, bool)) is None


def test_wilcoxon_leaves_out_undefined_pairs() -> None:
    first, second = np.array([0.5, np.nan, 0.7, 0.1]), np.array([0.4, 0.3, 0.2, np.nan])
    assert wilcoxon_p(first, second) == scipy_stats.wilcoxon([0.1, 0.5]).pvalue
    assert wilcoxon_p(first, first) == 1.0
    assert wilcoxon_p(np.array([np.nan]), np.array([1.0])) is None
