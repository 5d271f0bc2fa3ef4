"""A head is given no test truth: the API holds none, and test targets are made after predicting."""

from __future__ import annotations

import dataclasses
import gc
import json
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ecamp.api.dataset import Record
from ecamp.api.task import Inputs, TaskSplit
from ecamp.cli import run
from ecamp.data.arrays import Arrays
from ecamp.tasks.classification import Classification
from ecamp.tasks.detection import Detection
from ecamp.tasks.segmentation import Segmentation


def test_inputs_have_no_field_for_truth() -> None:
    names = {field.name for field in dataclasses.fields(Inputs)}
    assert names == {"images", "features", "normalise", "texts"}


def _reachable(root: object) -> list[object]:
    """Everything that a head could get at from an object without importing."""
    seen: dict[int, object] = {}
    todo = [root]
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, ModuleType | type):
            continue
        seen[id(one)] = one
        if isinstance(one, FunctionType):  # its closure, not its module
            todo += [cell.cell_contents for cell in one.__closure__ or ()]
            todo += [one.__defaults__, one.__kwdefaults__, one.__dict__]
        elif isinstance(one, np.ndarray):
            todo += [one.base] if one.base is not None else []
        elif not isinstance(one, torch.Tensor):
            todo += gc.get_referents(one)
    return list(seen.values())


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Record the events of a bench, in order: targets made, head fitted, test predicted."""
    log: list[tuple[str, Any]] = []
    for task in (Classification, Segmentation, Detection):
        fit, targets = task.fit, task.targets

        def watched_targets(self: Any, split: Arrays, real: Any = targets) -> Any:
            out = real(self, split)
            log.append(("targets", (set(split.splits), out)))
            return out

        def watched_fit(self: Any, encoder: Any, train: TaskSplit, val: TaskSplit,
                        real: Any = fit, **more: Any) -> Any:  # fmt: skip
            log.append(("fit", (train, val)))
            predictor = real(self, encoder, train, val, **more)
            predict = predictor.predict
            log.append(("fitted", None))

            def watched_predict(inputs: Inputs) -> Any:
                log.append(("predict", inputs))
                return predict(inputs)

            predictor.predict = watched_predict
            return predictor

        monkeypatch.setattr(task, "targets", watched_targets)
        monkeypatch.setattr(task, "fit", watched_fit)
    return log


@pytest.mark.slow
@pytest.mark.parametrize("task", ["cls", "seg", "det"])
def test_test_truth_is_made_after_predicting_and_is_not_within_reach(
    task: str, small_bench: list[str], tmp_path: Path, watched: list[tuple[str, Any]]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"task_options: {{{task}: {{steps: 2}}}}\n")
    args = ["--tasks", task, "--pretext", "none", "-c", str(recipe), "--run", str(tmp_path / "run")]
    assert run([*small_bench, *args, "--protocols", "linear,frozen,finetune"]) == 0
    cells = []
    for event, content in watched:
        if event == "fit":
            cells.append([])
        if cells:
            cells[-1].append((event, content))
    assert len(cells) == 2
    for cell in cells:
        # The predictor may look at validation while it is fitted; the last prediction is the test.
        order = [event for event, _ in cell]
        last = max(i for i, event in enumerate(order) if event == "predict")
        made = [content[0] for event, content in cell[:last] if event == "targets"]
        assert all("test" not in splits for splits in made)
        after = [c for event, c in cell[last:] if event == "targets" and c[0] == {"test"}]
        truth = next(iter(after))[1]
        inputs = cell[last][1]
        assert type(inputs) is Inputs
        within = _reachable(inputs)
        assert not [one for one in within if isinstance(one, Arrays | Record | TaskSplit)]
        hidden = [value for value in truth.values() if value.dtype.kind in "fb" and value.size > 8]
        assert hidden
        for one in within:
            if isinstance(one, np.ndarray | torch.Tensor):
                value = one.float().numpy() if isinstance(one, torch.Tensor) else one
                assert not any(
                    value.shape == secret.shape and np.array_equal(value, secret, equal_nan=True)
                    for secret in hidden
                )


def test_a_head_that_tries_to_peek_fails_its_cell(
    small_bench: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    real = Classification.fit

    def peeking(self: Any, *args: Any, **more: Any) -> Any:
        predictor = real(self, *args, **more)
        predictor.predict = lambda inputs: {"scores": inputs.targets["targets"]}
        return predictor

    monkeypatch.setattr(Classification, "fit", peeking)
    args = ["--tasks", "cls", "--pretext", "none", "--run", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stop:
        run([*small_bench, *args])
    assert stop.value.code == 3
    assert "has no attribute 'targets'" in capsys.readouterr().err
    kinds = [json.loads(f.read_text())["kind"] for f in tmp_path.glob("run/cells/*/result.json")]
    assert set(kinds) == {"floor"}
