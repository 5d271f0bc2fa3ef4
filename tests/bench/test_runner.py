"""A bench over difficult data: failures are named, all other scores are computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ecamp.cli import run

ENCODER = "vit-micro?width=32&depth=1&heads=2&image_size=32&patch_size=8"


def _data(folder: Path, *, b_in_test: str = "0", splits: str = "train,val,test") -> Path:
    """Twelve films a split; `a` alternates, `b` has no positive in test."""
    folder.mkdir()
    rng = np.random.Generator(np.random.Philox(1))
    lines = ["id,image,patient,split,a,b"]
    for split in splits.split(","):
        for i in range(12):
            name = f"{split}{i}"
            pixels = rng.integers(0, 200, (32, 32)) + 50 * (i % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}.png")
            b = b_in_test if split == "test" else str(i % 3 // 2)
            lines.append(f"{name},{name}.png,p{name},{split},{i % 2},{b}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    (folder / "dataset.yaml").write_text(
        "name: hard\ntable: table.csv\nid: id\nimage: image\npatient: patient\n"
        "split: {column: split}\nlabels: {multilabel: [a, b]}\n"
    )
    return folder / "dataset.yaml"


def _bench(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, *datasets: Path, more: tuple[str, ...] = ()
) -> tuple[int, str, list[dict[str, Any]]]:
    code = 0
    try:
        code = run(
            ["bench", "--datasets", ",".join(map(str, datasets)), "--tasks", "cls", "--encoders",
             ENCODER, "--pretext", "none", "--fractions", "1", "--seeds", "0", "--bootstrap", "100",
             "--run", str(tmp_path / "run"), "--cache", str(tmp_path / "cache"), "-f", "json", *more]
        )  # fmt: skip
    except SystemExit as stop:
        code = int(stop.code or 0)
    err = capsys.readouterr().err
    results = [json.loads(f.read_text()) for f in tmp_path.glob("run/cells/*/result.json")]
    return code, err, results


def test_a_class_without_positives_is_null_with_a_reason(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, err, results = _bench(capsys, tmp_path, _data(tmp_path / "data"))
    assert code == 0, err
    for result in results:
        metrics = result["metrics"]
        assert metrics["auroc/b"]["value"] is None
        assert "positive" in metrics["auroc/b"]["reason"]
        assert metrics["auroc"]["value"] == metrics["auroc/a"]["value"]
        assert "hard/1: class 'b' has no positive in test (12 images)" in result["warnings"]


def test_an_empty_split_fails_its_cells_and_no_others(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    good, empty = _data(tmp_path / "good"), _data(tmp_path / "empty", splits="train,test")
    code, err, results = _bench(capsys, tmp_path, good, empty)
    assert code == 3
    assert "no image with labels in split 'val'" in err
    assert err.count("s  FAILED ") == 3
    assert "Traceback" not in err
    # Both sets are called `hard`; only the good one's floors and cell are written.
    assert len(results) == 3
    events = [
        json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()
    ]
    assert sum(event["event"] == "failed" for event in events) == 3


def test_skipped_images_are_counted_in_every_result(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = _data(tmp_path / "data", b_in_test="1")
    (file.parent / "train3.png").write_bytes(b"torn")
    code, err, results = _bench(capsys, tmp_path, file)
    assert code == 3
    assert "train3.png" in err
    assert "--on-bad-image skip" in err
    assert not results
    other = tmp_path / "skip"
    other.mkdir()
    code, err, results = _bench(capsys, other, file, more=("--on-bad-image", "skip"))
    assert code == 0, err
    assert {r["counts"]["skipped"] for r in results} == {1}
    assert {r["counts"]["train"] for r in results} == {11}
    assert all("1 unreadable image" in " ".join(r["warnings"]) for r in results)


def test_all_test_labels_of_one_kind_leave_no_score_but_a_reason(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = _data(tmp_path / "data", b_in_test="1")
    text = (file.parent / "table.csv").read_text().splitlines()
    text = [line.replace(",1,1", ",0,1") if ",test," in line else line for line in text]
    (file.parent / "table.csv").write_text("\n".join(text) + "\n")
    code, err, results = _bench(capsys, tmp_path, file)
    assert code == 0, err
    for result in results:
        assert result["metrics"]["auroc"]["value"] is None
        assert result["metrics"]["auroc"]["reason"]
