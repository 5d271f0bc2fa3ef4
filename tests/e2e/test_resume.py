"""Same seed, same bytes; killed at any moment and resumed, still the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

SMALL = "phantom?pretrain=64&train=48&val=32&test=48"
ENCODER = "vit-micro?width=32&depth=2&heads=2&image_size=32&patch_size=8"
COMMAND = [
    sys.executable, "-m", "ecamp", "bench", "--datasets", SMALL, "--encoders", ENCODER,
    "--pretrain-data", SMALL, "--pretrain-steps", "30", "--fractions", "0.5,1", "--seeds", "0,1",
    "--pretext", "none,ecamp", "--bootstrap", "100",
]  # fmt: skip
# Few steps: what is tested is where a run breaks off, not what it learns.
RECIPE = """
task_options: {seg: {steps: 12}, det: {steps: 12}}
pretrain: {batch_size: 16, checkpoint_seconds: 0.2}
"""


def _start(folder: Path) -> subprocess.Popen[str]:
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE)
    return subprocess.Popen(
        [*COMMAND, "-c", str(recipe), "--run", str(folder / "run"), "--cache", str(folder / "cache")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,  # so that a signal reaches the workers too
        # A shell starts background jobs with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def _results(folder: Path) -> dict[str, bytes]:
    run = folder / "run"
    files = [*run.glob("cells/*/result.json"), *run.glob("cells/*/head.safetensors")]
    files += run.glob("pretrain/*/weights.safetensors")
    return {str(f.relative_to(run)): f.read_bytes() for f in files}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    folder = tmp_path_factory.mktemp("undisturbed")
    began = time.monotonic()
    process = _start(folder)
    _, err = process.communicate()
    assert process.returncode == 0, err
    return _results(folder), time.monotonic() - began


@pytest.mark.slow
def test_two_runs_give_the_same_bytes(
    undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    process = _start(tmp_path)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert _results(tmp_path) == undisturbed[0]


@pytest.mark.slow
def test_killed_ten_times_and_resumed_gives_the_same_bytes(
    undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    wanted, seconds = undisturbed
    moments = random.Random(20240511)
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    killed = 0
    while killed < 10:
        process = _start(folder)
        try:
            _, err = process.communicate(timeout=moments.uniform(0.3, 0.95) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            killed += 1
            continue
        # It got to its end between two kills: that must be right too, and it starts from nothing.
        assert process.returncode == 0, err
        assert _results(folder) == wanted
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        seconds *= 0.8  # the machine may have been busier when that was measured
    process = _start(folder)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert _results(folder) == wanted


@pytest.mark.slow
def test_interrupt_exits_130_and_resumes(
    undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    wanted, _ = undisturbed
    process = _start(tmp_path)
    # In the middle by count, not by the clock: the machine may be faster now than it was before.
    while process.poll() is None and len(_results(tmp_path)) < len(wanted) // 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    process = _start(tmp_path)
    process.communicate()
    assert _results(tmp_path) == wanted


def test_damaged_files_are_made_again(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "ecamp", "bench", "--datasets", SMALL, "--encoders", ENCODER,
        "--pretrain-data", SMALL, "--pretrain-steps", "2", "--fractions", "1", "--seeds", "0",
        "--pretext", "none,mae", "--tasks", "cls", "--bootstrap", "100",
        "--run", str(tmp_path / "run"), "--cache", str(tmp_path / "cache"),
    ]  # fmt: skip
    assert subprocess.run(command, capture_output=True).returncode == 0
    before = _results(tmp_path)
    cells = sorted((tmp_path / "run" / "cells").iterdir())
    (cells[0] / "result.json").write_text("{")
    (cells[1] / "predictions.npz").write_bytes(b"PK not a zip")
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "2 cells done" in again.stderr
    assert f"{cells[0]}: damaged" in again.stderr
    assert f"{cells[1]}: damaged" in again.stderr
    assert _results(tmp_path) == before
    # Pre-trained weights in the cache: set aside, named, and trained again by the next run.
    weights = next((tmp_path / "cache" / "pretrain").glob("*/weights.safetensors"))
    weights.write_bytes(b"no weights")
    for cell in cells:
        (cell / "result.json").unlink()
    broken = subprocess.run(command, capture_output=True, text=True)
    assert broken.returncode == 3
    assert "weights.safetensors" in broken.stderr
    assert "Traceback" not in broken.stderr
    mended = subprocess.run(command, capture_output=True, text=True)
    assert mended.returncode == 0, mended.stderr
    assert _results(tmp_path) == before
