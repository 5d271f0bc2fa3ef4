"""A budget starts nothing that does not fit; what is measured is kept and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import pytest
from torch import Tensor

from ecamp.api.encoder import Features
from ecamp.bench.budget import (
    Budget,
    OutOfTime,
    Timings,
    parse_duration,
)
from ecamp.bench.plan import Plan, make_plan
from ecamp.bench.run_folder import RunFolder
from ecamp.bench.runner import Outcome, Runner
from ecamp.cli import run
from ecamp.config import BenchSpec, validate
from ecamp.errors import UsageError

DATA = "phantom?pretrain=8&train=16&val=8&test=8"
VIT = "vit-micro?width=32&depth=1&heads=2&image_size=32&patch_size=8"


def plan_of(**values: object) -> Plan:
    return make_plan(
        validate(
            BenchSpec,
            {"datasets": DATA, "pretrain_data": DATA, "encoders": VIT, "tasks": ["cls"],
             "pretext": "none", "seeds": [0, 1], "fractions": [1], "bootstrap": 100,
             "pretrain": {"steps": 2, "batch_size": 4}, **values},
            "test",
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), (" 2 m ", 120)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-3m", "0s", "3 days", "1h30m", "nan s"])
def test_an_invalid_duration_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="not a duration"):
        parse_duration(text)


def test_a_budget_counts_the_estimate() -> None:
    now = [100.0]
    timings = Timings()
    timings.add("cls", 10.0)
    timings.add("cls", 20.0)
    assert timings.expected("cls") == 15.0
    assert timings.expected("seg") is None
    budget = Budget(60.0, lambda: now[0])
    now[0] = 145.0
    budget.check(timings, "cls")
    now[0] = 145.1
    with pytest.raises(OutOfTime, match="cls takes about 15 s, the budget has 15 s left"):
        budget.check(timings, "cls")
    now[0] = 159.9
    budget.check(timings, "seg")  # never measured: started once
    now[0] = 160.0
    with pytest.raises(OutOfTime, match="spent"):
        budget.check(timings, "seg")
    Budget(None, lambda: 1e9).check(timings, "cls")


class Execute(Protocol):
    """Runs a plan in a folder, with a budget in seconds."""

    def __call__(
        self, plan: Plan, folder: Path, seconds: float | None = None
    ) -> tuple[Outcome, list[str]]: ...


@pytest.fixture
def execute(logged: pytest.LogCaptureFixture) -> Execute:
    """Run with a clock on which every cell and every pre-training takes ten seconds."""

    def clock() -> float:
        return 10.0 * sum(text.startswith(("[", "pre-training")) for text in logged.messages)

    def run_plan(
        plan: Plan, folder: Path, seconds: float | None = None
    ) -> tuple[Outcome, list[str]]:
        logged.clear()
        run_folder = RunFolder(folder / "run")
        run_folder.open(plan.spec, {})
        runner = Runner(plan, run_folder, cache=folder / "cache", budget=Budget(seconds, clock))
        return runner.execute(), logged.messages

    return run_plan


def results(folder: Path) -> dict[str, bytes]:
    return {f.parent.name: f.read_bytes() for f in folder.glob("run/cells/*/result.json")}


def test_remaining_reports_are_counted_and_a_later_run_resumes(
    tmp_path: Path, execute: Execute
) -> None:
    plan = plan_of()  # two cells, two floors
    whole, _ = execute(plan, tmp_path / "whole")
    assert (whole.done, whole.left) == (4, 0)
    first, _ = execute(plan, tmp_path / "parts", 25.0)
    assert (first.done, first.reused, first.left) == (3, 0, 1)
    second, _ = execute(plan, tmp_path / "parts", 25.0)
    assert (second.done, second.reused, second.left) == (1, 3, 0)
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


@pytest.mark.slow
def test_cells_that_would_not_end_in_time_are_not_started(tmp_path: Path, execute: Execute) -> None:
    plan = plan_of(pretext="none,mae")
    one = next(c for c in plan.cells if c.kind == "cell" and c.pretext == "mae")
    assert one.pretraining is not None
    # Each in turn is known to take too long.
    for kind, done in (
        (one.timing_key, 2),  # the two floors only
        (one.feature_timing_key, 2),
        (one.pretraining.timing_key, 2),  # mae comes before none
        ("something else", 6),
    ):
        folder = tmp_path / str(abs(hash(kind)))
        told = folder / "run" / "cells" / "earlier" / "run.json"
        told.parent.mkdir(parents=True)
        told.write_text(json.dumps({"timings": {kind: 1000.0}}))
        outcome, said = execute(plan, folder, 500.0)
        assert (outcome.done, outcome.left) == (done, 6 - done), (kind, said)
        trains = any(text.startswith("pre-training") for text in said)
        assert trains == (kind != one.pretraining.timing_key)
        stored = list(folder.glob("cache/features/*/meta.json"))
        assert bool(stored) == (kind == "something else")
    # Finished work costs nothing: features on disk are not waited for.
    folder = tmp_path / "warm"
    execute(plan, folder)
    for file in folder.glob("run/cells/*/result.json"):
        file.unlink()
    told = folder / "run" / "cells" / "earlier" / "run.json"
    told.parent.mkdir(parents=True)
    times = {one.feature_timing_key: 1e6, one.pretraining.timing_key: 1e6}
    told.write_text(json.dumps({"timings": times}))
    assert execute(plan, folder, 500.0)[0].left == 0


@pytest.mark.slow
def test_each_cell_reports_its_cost(tmp_path: Path, execute: Execute) -> None:
    plan = plan_of(pretext="none,mae", protocols=["linear", "finetune"], seeds=[0],
                   task_options={"cls": {"steps": 2, "batch_size": 4}})  # fmt: skip
    execute(plan, tmp_path)
    runs = {
        cell.key: json.loads((tmp_path / "run" / "cells" / cell.key / "run.json").read_text())
        for cell in plan.cells
    }
    for cell in plan.cells:
        told = runs[cell.key]
        assert told["peak_bytes"] > 10_000_000
        assert cell.timing_key in told["timings"]
        assert sum(told["timings"].values()) == pytest.approx(told["seconds"], abs=0.002)
        if cell.kind == "floor":
            assert "encoder_parameters" not in told
            continue
        assert told["encoder_parameters"] > 1000
        if cell.protocol == "linear":
            assert told["embed_images_per_second"] > 0
            assert told["features"] == "computed"
            assert told["timings"][cell.feature_timing_key] > 0
        else:
            assert "features" not in told
    timings = Timings.of_run(tmp_path / "run")
    mae = plan.pretrainings[0]
    assert (timings.expected(mae.timing_key) or 0) > 0
    # The same run again from the cache: the same results, and the speed is still known.
    before = results(tmp_path)
    for file in tmp_path.glob("run/cells/*/result.json"):
        file.unlink()
    execute(plan, tmp_path)
    assert results(tmp_path) == before
    for cell in plan.cells:
        told = json.loads((tmp_path / "run" / "cells" / cell.key / "run.json").read_text())
        if cell.kind == "cell" and cell.protocol == "linear":
            assert told["features"] == "disk"
            assert cell.feature_timing_key not in told["timings"]
            speed = runs[cell.key]["embed_images_per_second"]
            assert told["embed_images_per_second"] == speed


def test_damaged_times_are_ignored(tmp_path: Path) -> None:
    for name, text in {
        "a": "{", "b": "[]", "c": '{"timings": {"x": "long"}}', "d": '{"timings": {"x": 4}}',
        "e": '{"seconds": 3}',
    }.items():  # fmt: skip
        (tmp_path / "cells" / name).mkdir(parents=True)
        (tmp_path / "cells" / name / "run.json").write_text(text)
    assert Timings.of_run(tmp_path).expected("x") == 4.0
    assert Timings.of_run(tmp_path / "nowhere").expected("x") is None


@pytest.mark.parametrize(("protocol", "what"), [("linear", "features"), ("finetune", "prediction")])
def test_memory_that_ran_out_is_in_run_json_and_not_in_the_result(
    protocol: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, execute: Execute
) -> None:
    from ecamp.encoders.timm import ViTEncoder

    plan = plan_of(seeds=[0], protocols=[protocol],
                   task_options={"cls": {"steps": 2, "batch_size": 2}})  # fmt: skip
    execute(plan, tmp_path / "enough")
    forward = ViTEncoder.forward

    def limited(self: ViTEncoder, images: Tensor) -> Features:
        if len(images) > 4:
            raise MemoryError
        return forward(self, images)

    monkeypatch.setattr(ViTEncoder, "forward", limited)
    outcome, said = execute(plan, tmp_path / "little")
    assert not outcome.failed
    assert sum("out of memory" in text for text in said) == 1
    told = [json.loads(f.read_text()) for f in tmp_path.glob("little/run/cells/*/run.json")]
    assert [t["halved_batches"] for t in told if "halved_batches" in t] == [{what: 4}]
    assert results(tmp_path / "little").keys() == results(tmp_path / "enough").keys()
    assert b"halved" not in b"".join(results(tmp_path / "little").values())


def test_the_command_reports_what_remains_and_exits_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["bench", "--datasets", DATA, "--encoders", VIT, "--pretext", "none", "--tasks", "cls",
            "--seeds", "0", "--fractions", "1", "--bootstrap", "100",
            "--run", str(tmp_path / "run"), "--cache", str(tmp_path / "cache")]  # fmt: skip
    with pytest.raises(SystemExit) as stop:
        run([*args, "--budget", "0.000001s"])
    err = capsys.readouterr().err
    assert stop.value.code == 3
    assert "3 of 3 cells are left; the same command continues" in err
    assert run([*args, "--budget", "1h"]) == 0
    assert run([*args, "--budget", "soon"]) == 2
    assert "--budget 'soon' is not a duration" in capsys.readouterr().err
