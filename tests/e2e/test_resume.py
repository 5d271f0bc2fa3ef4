"""Same seed, same bytes; killed at any moment and resumed, still the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from ecamp.cli import run

SMALL = "phantom?pretrain=16&train=24&val=16&test=24"
ENCODER = "vit-micro?width=32&depth=2&heads=2&image_size=32&patch_size=8"
COMMON = ["bench", "--datasets", SMALL, "--encoders", ENCODER, "--pretrain-data", SMALL, "--bootstrap",
          "100"]  # fmt: skip
BENCH = [*COMMON, "--pretrain-steps", "10", "--fractions", "1", "--seeds", "0,1",
         "--pretext", "none,ecamp"]  # fmt: skip
# Few steps: what is tested is where a run breaks off, not what it learns.
RECIPE = """
task_options: {seg: {steps: 4}, det: {steps: 4}}
pretrain: {batch_size: 8, checkpoint_seconds: 0.05}
"""

# Benches that are killed are forked from a process that has imported everything.
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    ["ecamp.bench.runner", "ecamp.cli.bench", "ecamp.tasks.classification", "ecamp.tasks.segmentation",
     "ecamp.tasks.detection", "ecamp.pretext.ecamp", "ecamp.encoders.timm", "ecamp.datasets.phantom"]
)  # fmt: skip


def _arguments(folder: Path) -> list[str]:
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE)
    return [
        *BENCH,
        "-c",
        str(recipe),
        "--run",
        str(folder / "run"),
        "--cache",
        str(folder / "cache"),
    ]


def _start(folder: Path) -> subprocess.Popen[str]:
    """The command as a user starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "ecamp", *_arguments(folder)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        # A shell starts background jobs with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def _bench(arguments: list[str], log: Path) -> None:
    os.setsid()  # so that a signal reaches the workers too
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(run(arguments))


def _fork(folder: Path) -> BaseProcess:
    process = FORK.Process(target=_bench, args=(_arguments(folder), folder / "log"))
    process.start()
    return process


def _results(folder: Path) -> dict[str, bytes]:
    run = folder / "run"
    files = [*run.glob("cells/*/result.json"), *run.glob("cells/*/head.safetensors")]
    files += run.glob("pretrain/*/weights.safetensors")
    return {str(f.relative_to(run)): f.read_bytes() for f in files}


def _files(folder: Path) -> int:
    """Files written so far: how far a bench is, by count and not by the clock."""
    return sum(len(files) for name in ("run", "cache") for _, _, files in os.walk(folder / name))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], int]:
    folder = tmp_path_factory.mktemp("undisturbed")
    process = _start(folder)
    _, err = process.communicate()
    assert process.returncode == 0, err
    return _results(folder), _files(folder)


@pytest.mark.slow
def test_two_runs_give_the_same_bytes(
    undisturbed: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    process = _fork(tmp_path)
    process.join()
    assert process.exitcode == 0, (tmp_path / "log").read_text()
    assert len(undisturbed[0]) > 17
    assert _results(tmp_path) == undisturbed[0]


@pytest.mark.slow
def test_killed_ten_times_and_resumed_gives_the_same_bytes(
    undisturbed: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    expected, total = undisturbed
    moments = random.Random(20240511)
    kills, attempt = 0, 0
    folder = tmp_path / "0"
    folder.mkdir()
    while kills < 10:
        process = _fork(folder)
        goal = total * (kills + moments.random()) / 10
        while process.is_alive() and _files(folder) < goal:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.2))  # not only when a file is just written
        if process.is_alive():
            try:
                os.killpg(process.pid or 0, signal.SIGKILL)
            except ProcessLookupError:  # it has not made its own group yet, or has just ended
                process.kill()
            process.join()
            if process.exitcode == -signal.SIGKILL:
                kills += 1
                continue
        # It got to its end before the kill: that must be right too, and it starts from nothing.
        process.join()
        assert process.exitcode == 0, (folder / "log").read_text()
        assert _results(folder) == expected
        attempt += 1
        folder = tmp_path / str(attempt)
        folder.mkdir()
    process = _fork(folder)
    process.join()
    assert process.exitcode == 0, (folder / "log").read_text()
    assert _results(folder) == expected


@pytest.mark.slow
def test_interrupt_exits_130_and_resumes(
    undisturbed: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    expected, _ = undisturbed
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        process = _start(folder)
        # In the middle by count, not by the clock: the machine may be faster now than it was before.
        while process.poll() is None and len(_results(folder)) < len(expected) // 2:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
        if process.returncode:  # else it had come to its end before the signal
            break
    assert process.returncode == 130, err
    assert "Traceback" not in err
    again = _fork(folder)
    again.join()
    assert _results(folder) == expected


@pytest.mark.slow
def test_damaged_files_are_made_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = [
        *COMMON, "--pretrain-steps", "2", "--fractions", "1", "--seeds", "0", "--pretext", "none,mae",
        "--tasks", "cls", "--run", str(tmp_path / "run"), "--cache", str(tmp_path / "cache"),
    ]  # fmt: skip

    def bench() -> tuple[int, str]:
        try:
            code = run(command)
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, capfd.readouterr().err

    assert bench()[0] == 0
    before = _results(tmp_path)
    cells = sorted((tmp_path / "run" / "cells").iterdir())
    (cells[0] / "result.json").write_text("{")
    (cells[1] / "predictions.npz").write_bytes(b"PK not a zip")
    code, err = bench()
    assert code == 0, err
    assert "2 cells done" in err
    assert f"{cells[0]}: damaged" in err
    assert f"{cells[1]}: damaged" in err
    assert _results(tmp_path) == before
    # Pre-trained weights in the cache: set aside, named, and trained again by the next run.
    weights = next((tmp_path / "cache" / "pretrain").glob("*/weights.safetensors"))
    weights.write_bytes(b"no weights")
    for cell in cells:
        (cell / "result.json").unlink()
    code, err = bench()
    assert code == 3
    assert "weights.safetensors" in err
    assert "Traceback" not in err
    code, err = bench()
    assert code == 0, err
    assert _results(tmp_path) == before
