"""The estimate's arithmetic with injected times; that it decodes little and writes nothing; its truth."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ecamp.bench import estimate
from ecamp.bench.estimate import Cost, Line, estimate_cost, format_cost, format_duration
from ecamp.bench.plan import Plan, make_plan
from ecamp.bench.run_folder import RunFolder
from ecamp.bench.runner import Runner
from ecamp.cli import run
from ecamp.config import BenchSpec, validate
from ecamp.datasets.phantom import PhantomDataset
from ecamp.encoders.timm import ViTEncoder
from ecamp.train.pretrain import Trainer

DATA = "phantom?pretrain=12&train=16&val=8&test=8"  # 32 images are evaluated on
VIT = "vit-micro?width=32&depth=1&heads=2&image_size=32&patch_size=8"


def plan_of(**values: Any) -> Plan:
    return make_plan(
        validate(
            BenchSpec,
            {"datasets": DATA, "pretrain_data": DATA, "encoders": VIT, "tasks": ["cls", "seg"],
             "pretext": "none,mae", "seeds": [0, 1], "fractions": [1], "bootstrap": 100,
             "pretrain": {"steps": 50, "batch_size": 4},
             "task_options": {"seg": {"steps": 2}, "cls": {"steps": 5, "batch_size": 6}}, **values},
            "test",
        )
    )  # fmt: skip


@pytest.fixture
def known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time 2 s per step (weights of 1,000 bytes), 10 images per second."""
    monkeypatch.setattr(estimate, "_step_seconds", lambda plan, source: (2.0, 1000))
    monkeypatch.setattr(estimate, "_images_per_second", lambda encoder, arrays: 10.0)


def line(cost: Cost, start: str) -> Line:
    (found,) = (one for one in cost.lines if one.what.startswith(start))
    return found


@pytest.mark.usefixtures("known_times")
def test_each_part_is_counted_once(tmp_path: Path) -> None:
    plan = plan_of()
    cost = estimate_cost(plan, tmp_path / "run", tmp_path / "cache")
    pretraining = line(cost, "pretrain")  # both seeds share it
    assert (pretraining.count, pretraining.done, pretraining.seconds) == (1, 0, 100.0)
    assert pretraining.bytes == 2 * 1000
    features = line(cost, "features")  # none of two seeds, and mae
    assert (features.count, features.done, features.each) == (3, 0, 3.2)
    assert features.seconds == pytest.approx(9.6)
    vector, maps = 4 * 32, 2 * 32 * 16  # one level of a ViT of depth 1
    assert features.bytes == 3 * 32 * (vector + maps)
    assert line(cost, "cls linear").seconds == 4 * estimate.DEFAULT_CELL_SECONDS["linear"]
    assert line(cost, "seg frozen").seconds == 4 * estimate.DEFAULT_CELL_SECONDS["frozen"]
    pixels = [x.bytes for x in cost.lines if x.what.startswith("decode")]
    masks = len(PhantomDataset(PhantomDataset.Config()).info.mask_classes)
    assert pixels == [12 * 64**2 * (1 + masks), 32 * 32**2 * (1 + masks)]
    assert cost.seconds == pytest.approx(sum(x.seconds for x in cost.lines))
    assert cost.bytes == sum(x.bytes for x in cost.lines)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("known_times")
def test_cached_work_costs_nothing_and_measured_times_are_used(tmp_path: Path) -> None:
    plan, cache = plan_of(pretrain={"steps": 2, "batch_size": 4}), tmp_path / "cache"
    folder = RunFolder(tmp_path / "run")
    folder.open(plan.spec, {})
    Runner(plan, folder, cache=cache).execute()
    done = estimate_cost(plan, folder.path, cache)
    assert (done.seconds, done.bytes) == (0.0, 0)
    assert all(x.done == x.count for x in done.lines)
    # One cell is gone: features and weights are there, and its time is known.
    cell = next(c for c in plan.cells if c.task.ref.name == "seg" and c.pretext == "mae")
    (folder.cell(cell.key) / "result.json").unlink()
    cost = estimate_cost(plan, folder.path, cache)
    assert line(cost, "features").done == line(cost, "features").count == 1
    assert line(cost, "pretrain").done == 1
    told = [
        json.loads(f.read_text())["timings"].get(cell.timing_key)
        for f in folder.path.glob("cells/*/run.json")
    ]
    times = [t for t in told if t is not None]
    assert cost.seconds == pytest.approx(sum(times) / len(times))
    # Another run folder finds the cache all the same.
    other = estimate_cost(plan, tmp_path / "other", cache)
    assert line(other, "features").seconds == line(other, "pretrain").seconds == 0


@pytest.mark.usefixtures("known_times")
def test_an_interrupted_pretraining_counts_for_the_rest(tmp_path: Path) -> None:
    plan = plan_of()
    folder = tmp_path / "cache" / "pretrain" / plan.pretrainings[0].key
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").touch()
    (folder / "metrics.jsonl").write_text('{"step": 0}\n{"step": 10}\n{"step": 20}\n')
    cost = estimate_cost(plan, tmp_path / "run", tmp_path / "cache")
    assert line(cost, "pretrain").seconds == 2.0 * (50 - 20)


@pytest.mark.usefixtures("known_times")
def test_epochs_and_finetuning_are_counted_in_images(tmp_path: Path) -> None:
    plan = plan_of(pretrain={"epochs": 10, "batch_size": 4}, protocols=["finetune"], tasks=["cls"],
                   task_options={"cls": {"steps": 5, "batch_size": 6}})  # fmt: skip
    cost = estimate_cost(plan, tmp_path / "run", tmp_path / "cache")
    assert line(cost, "pretrain").seconds == 2.0 * 10 * 12 / 4
    assert line(cost, "cls finetune").each == pytest.approx((3 * 5 * 6 + 32) / 10)
    assert not [x for x in cost.lines if x.what.startswith("features")]


@pytest.mark.slow
def test_few_images_are_decoded_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded: list[str] = []
    load = PhantomDataset.load

    def counted(self: PhantomDataset, record: Any, size: int) -> Any:
        loaded.append(record.id)
        return load(self, record, size)

    monkeypatch.setattr(PhantomDataset, "load", counted)
    args = ["bench", "--datasets", DATA, "--pretrain-data", DATA, "--encoders", VIT, "--tasks", "cls",
            "--run", str(tmp_path / "run"), "--cache", str(tmp_path / "cache"), "--dry-run"]  # fmt: skip
    assert run([*args, "-f", "json"]) == 0
    cost = json.loads(capsys.readouterr().out)["estimate"]
    assert 0 < len(loaded) <= 12  # four for each pretext (with reports or all), four to evaluate
    assert cost["seconds"] > 0
    assert {x["what"].split()[0] for x in cost["lines"]} == {
        "decode", "pretrain", "features", "cls", "floor",
    }  # fmt: skip
    assert run(args) == 0
    out = capsys.readouterr().out
    assert "estimate" in out
    assert "(hours:minutes)" in out
    loaded.clear()
    assert run([*args, "--no-estimate"]) == 0
    assert "estimate" not in capsys.readouterr().out
    assert loaded == []
    assert not list(tmp_path.iterdir())


def test_memory_that_runs_out_is_an_error_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def update(self: Any, batches: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(estimate.Trainer, "update", update)
    args = ["bench", "--datasets", DATA, "--pretrain-data", DATA, "--encoders", VIT, "--tasks", "cls",
            "--run", str(tmp_path / "run"), "--cache", str(tmp_path / "cache"), "--dry-run"]  # fmt: skip
    assert run(args) == 1
    err = capsys.readouterr().err
    assert "memory runs out with 64 pairs a step" in err
    assert "pretrain.accumulate" in err


def test_durations_are_shown_as_hours_and_minutes() -> None:
    assert [format_duration(s) for s in (0, 1, 60, 61, 3600, 5_400)] == [
        "0:00", "0:01", "0:01", "0:02", "1:00", "1:30",
    ]  # fmt: skip
    cost = Cost((Line("pretrain a", 3, 1, 50.0, 100.0, 2 * 10**9, "measured"),
                 Line("cls linear", 2, 2, 0.0, 0.0, 0, "done")))  # fmt: skip
    text = "\n".join(format_cost(cost))
    assert "2 x     50.0 s =      100 s" in text
    assert "3 of 5 are there already" in text
    assert "total 0:02 (hours:minutes), 2.00 GB of disk" in text


class WorkClock:
    """A clock that work alone moves: 3 s a training step, 0.1 s an image that an encoder sees."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        update, forward = Trainer.update, ViTEncoder.forward

        def timed_update(trainer: Trainer, batches: Any) -> Any:
            out = update(trainer, batches)
            self.now += 3.0
            return out

        def timed_forward(encoder: ViTEncoder, images: Any) -> Any:
            self.now += 0.1 * len(images)
            return forward(encoder, images)

        monkeypatch.setattr(Trainer, "update", timed_update)
        monkeypatch.setattr(ViTEncoder, "forward", timed_forward)
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.mark.slow
def test_the_estimate_matches_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all that is measured, by a clock that counts the work; it looks at a few images, the run at all."""
    big = "phantom?pretrain=24&train=40&val=10&test=14"
    plan = plan_of(
        datasets=big, pretrain_data=big, pretext="none,mae,ecamp", tasks=["cls"],
        pretrain={"epochs": 2, "batch_size": 4}, task_options={},
    )  # fmt: skip
    WorkClock(monkeypatch)
    cost = estimate_cost(plan, tmp_path / "run", tmp_path / "cache")
    folder = RunFolder(tmp_path / "run")
    folder.open(plan.spec, {})
    assert not Runner(plan, folder, cache=tmp_path / "cache").execute().failed
    took: Counter[str] = Counter()
    for file in folder.path.glob("*/*/run.json"):  # of cells and of pre-trainings
        for what, seconds in json.loads(file.read_text())["timings"].items():
            took[what.split()[0]] += seconds
    lines = {
        kind: [x for x in cost.lines if x.what.startswith(kind)]
        for kind in ("pretrain", "features")
    }
    assert len(lines["pretrain"]) == 2
    # mae and ecamp: 24 films in batches of 4, twice.
    assert sum(x.seconds for x in lines["pretrain"]) == pytest.approx(2 * 12 * 3.0)
    assert took["pretrain"] == pytest.approx(2 * 12 * 3.0)
    # Random weights of two seeds, and one pre-training each of mae and ecamp: 64 images four times.
    assert sum(x.seconds for x in lines["features"]) == pytest.approx(4 * 64 * 0.1)
    assert took["features"] == pytest.approx(4 * 64 * 0.1)
