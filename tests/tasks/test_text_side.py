"""Zero-shot classification and retrieval, through the command line, by an encoder with a text side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ecamp.api.plugin_ref import PluginRef
from ecamp.api.task import distinct_texts
from ecamp.cli import run
from ecamp.errors import UsageError
from ecamp.plugin.host import make_plugin
from ecamp.tasks.classification.zero_shot import Prompts, fit_zero_shot
from ecamp.tasks.retrieval import Retrieval
from ecamp.testing.contract import check_plugin
from tests.tasks.planted import Problem


def _bench(tmp_path: Path, *args: str) -> tuple[int, dict[tuple[str, str], dict[str, Any]]]:
    """Exit code, and results by (task, protocol)."""
    code = run(
        ["bench", "--pretext", "none", "--seeds", "0", "--bootstrap", "200", "--run",
         str(tmp_path / "run"), "--cache", str(tmp_path / "cache"), "-f", "json", *args]
    )  # fmt: skip
    results = [json.loads(f.read_text()) for f in tmp_path.glob("run/cells/*/result.json")]
    cells = [r for r in results if r["kind"] == "cell"]
    return code, {(r["cell"]["task"], r["cell"]["protocol"]): r for r in cells}


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_zero_shot_and_retrieval_find_planted_signals(
    toy: str, planted_set: Callable[..., Path], tmp_path: Path, kind: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    recipe = tmp_path / "recipe.yaml"
    names = "{none: [no square], square_on_dark: ['a square, dark ground'], "
    names += "square_on_bright: ['a square, bright ground']}"
    options = f"task_options: {{cls: {{prompts: {{names: {names}}}}}}}\n"
    recipe.write_text(options if kind == "multiclass" else "{}\n")
    code, found = _bench(
        tmp_path, "-c", str(recipe), "--datasets", str(planted_set(kind)), "--encoders", toy,
        "--tasks", "cls,ret", "--protocols", "zero-shot,linear", "--fractions", "0.5,1",
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    auroc = found["cls", "zero-shot"]["metrics"]["auroc"]
    assert auroc["value"] > 0.95
    # No label is used: there is one cell, not one per label fraction.
    cells = [json.loads(f.read_text()) for f in tmp_path.glob("run/cells/*/result.json")]
    fractions = [c["cell"]["fraction"] for c in cells if c["cell"]["protocol"] == "zero-shot"]
    assert fractions == [1.0, 1.0]
    metrics = found["ret", "zero-shot"]["metrics"]
    # Four kinds of films, four reports: the right one is always first.
    for way in ("i2t", "t2i"):
        assert metrics[f"{way}_recall@1"]["value"] > 0.95
        assert metrics[f"{way}_median_rank"]["value"] == 1
    assert metrics["chance_recall@1"]["value"] < 0.6
    assert metrics["mean_recall"]["low"] <= metrics["mean_recall"]["value"]


def test_without_a_text_side_these_protocols_are_left_out_and_named(
    planted_set: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    code, found = _bench(
        tmp_path, "--datasets", str(planted_set()), "--encoders",
        "vit-micro?image_size=32&width=32&depth=1&heads=2", "--tasks", "cls,ret",
        "--protocols", "zero-shot,knn", "--fractions", "1",
    )  # fmt: skip
    err = capsys.readouterr().err
    assert code == 0, err
    assert set(found) == {("cls", "knn")}
    assert "has no 'text': cls zero-shot is left out there" in err
    assert "has no 'text': ret zero-shot is left out there" in err


def test_a_set_without_reports_has_nothing_to_retrieve(
    toy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], planted_set: Callable[..., Path]
) -> None:
    file = planted_set()
    file.write_text(file.read_text().replace("reports: [report]\n", ""))
    code, found = _bench(
        tmp_path, "--datasets", str(file), "--encoders", toy, "--tasks", "cls,ret",
        "--protocols", "zero-shot", "--fractions", "1",
    )  # fmt: skip
    err = capsys.readouterr().err
    assert code == 0, err
    assert set(found) == {("cls", "zero-shot")}
    assert "has no report (it has labels" in err


def test_the_toy_keeps_the_contract_and_a_broken_text_side_does_not(
    toy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_plugin("ecamp.encoders", toy)
    import toy_dual

    real = toy_dual.Toy.embed_text
    monkeypatch.setattr(toy_dual.Toy, "embed_text", lambda self, texts: real(self, texts) * 0 + 1.0)
    with pytest.raises(AssertionError, match="embedded alike"):
        check_plugin("ecamp.encoders", toy)
    monkeypatch.setattr(
        toy_dual.Toy, "embed_text",
        lambda self, texts: real(self, texts) + len(texts) * torch.arange(len(texts))[:, None],
    )  # fmt: skip
    with pytest.raises(AssertionError, match="depends on others"):
        check_plugin("ecamp.encoders", toy)


def test_reports_reach_a_head_in_an_uninformative_order() -> None:
    reports = ["No  effusion.", "Mass.", "No effusion.\n", "Mass."]
    texts, which = distinct_texts(reports)
    assert texts == ("Mass.", "No effusion.")
    assert which.tolist() == [1, 0, 1, 0]
    assert distinct_texts(reports[::-1])[0] == texts


# --- prompts --------------------------------------------------------------------------------------


def test_prompts_are_every_name_in_every_sentence() -> None:
    prompts = Prompts(
        positive=("{}", "a {} here"), names={"PNX": ("pneumothorax", "collapsed lung")}
    )
    assert prompts.of("PNX", prompts.positive) == [
        "pneumothorax", "a pneumothorax here", "collapsed lung", "a collapsed lung here"
    ]  # fmt: skip
    assert prompts.of("Pleural_Thickening", ("There is {}.",)) == ["There is pleural thickening."]


@pytest.mark.parametrize(
    "bad", [{"positive": ("no place",)}, {"negative": ()}, {"negative": ("{} {}",)}]
)
def test_impossible_prompts_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError):
        Prompts(**bad)


def test_a_name_for_an_unknown_class_is_an_error(toy: str) -> None:
    encoder = make_plugin("ecamp.encoders", PluginRef(name="toy")).build(1)
    problem = Problem("cls", encoder="toy")
    with pytest.raises(UsageError, match=r"unknown class 'squar'(.|\n)*Known: class 0"):
        fit_zero_shot(encoder, problem.splits["val"], Prompts(names={"squar": ("x",)}))


def test_zero_shot_scores_come_from_directions_only(toy: str) -> None:
    encoder = make_plugin("ecamp.encoders", PluginRef(name="toy")).build(1)
    problem = Problem("cls", encoder="toy")
    prompts = Prompts(names={"class 0": ("square",), "class 1": ("bright ground",)})
    one = fit_zero_shot(encoder, problem.splits["val"], prompts).scores(
        problem.splits["test"].inputs
    )
    encoder.embed_image = lambda features: 7 * features.pooled.sign()
    two = fit_zero_shot(encoder, problem.splits["val"], prompts).scores(
        problem.splits["test"].inputs
    )
    np.testing.assert_allclose(one, two, atol=1e-6)
    truth = problem.splits["test"].targets["targets"]
    assert ((one > 0.5) == (truth > 0.5)).mean() > 0.95  # the square against its own denial


def test_retrieval_scores_stored_embeddings() -> None:
    task = Retrieval(Retrieval.Config())
    eye = np.eye(3, dtype=np.float32)
    scored = task.score(
        {"image_embeddings": eye, "text_embeddings": eye}, {"text_of_image": np.arange(3)},
        np.ones((1, 3), np.float32),
    )  # fmt: skip
    assert scored[task.primary].value == 1.0
