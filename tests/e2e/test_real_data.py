"""`ecamp bench` on real films, whole and at a small image size, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ecamp.cli import run

HERE = Path(__file__).parents[1] / "datasets"
ENCODER = "vit-micro?width=32&depth=2&heads=2&image_size=32&patch_size=8"


def _bench(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, file: str, tasks: str
) -> list[dict[str, Any]]:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("task_options: {seg: {steps: 60}, det: {steps: 20}}\n")
    names = recipe if tasks == "cls,seg,det" else None
    code = run(
        ["bench", "--datasets", str(HERE / file), "--tasks", tasks, "--encoders", ENCODER,
         "--pretext", "none", "--fractions", "1", "--seeds", "0", "--bootstrap", "200",
         "--run", str(tmp_path / "run"), "--cache", str(tmp_path / "cache"), "-f", "json",
         *(["-c", str(names)] if names else [])]
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert code == 0, err
    rows: list[dict[str, Any]] = json.loads(out)
    return rows


@pytest.mark.slow
@pytest.mark.real
def test_covid_films_three_tasks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, shared_data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("ECAMP_DATA", str(shared_data))
    rows = {row["task"]: row for row in _bench(capsys, tmp_path, "covid_cxr.yaml", "cls,seg,det")}
    assert set(rows) == {"cls", "seg", "det"}
    for row in rows.values():
        assert row["value"] is not None
        assert row["low"] <= row["value"] <= row["high"]
        assert row["test"] >= 10
    # Lungs are large and always there: a decoder that works at all finds most of them.
    assert rows["seg"]["value"] > 0.6


@pytest.mark.slow
@pytest.mark.real
def test_paediatric_films_three_classes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, shared_data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("ECAMP_DATA", str(shared_data))
    (row,) = _bench(capsys, tmp_path, "kermany_cxr.yaml", "cls")
    assert row["value"] > 0.6  # chance is 0.5
