"""The table of costs: from `run.json`, on the page and at the foot of the terminal's table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ecamp.bench.cell_result import CellFields, CellResult
from ecamp.report.encoder_cost import EncoderCost, format_costs, read_costs
from ecamp.report.summary import StoredCell


def stored(encoder: str, kind: str, folder: Path) -> StoredCell:
    fields = CellFields("d", "d/1", "s", "da", "cls", encoder, "none", "w", "linear", 1.0, 0)
    return StoredCell(CellResult("", kind, fields, {}, "m", {}), None, folder)


def cell(folder: Path, encoder: str, run: Any, kind: str = "cell") -> StoredCell:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(run if isinstance(run, str) else json.dumps(run))
    return stored(encoder, kind, folder)


def test_costs_are_collected_by_encoder(tmp_path: Path) -> None:
    def run_info(speed: float | None, peak: int) -> dict[str, Any]:
        return {"encoder_parameters": 2_500_000, "peak_bytes": peak} | (
            {} if speed is None else {"embed_images_per_second": speed}
        )

    cells = [
        cell(tmp_path / "a", "vit", run_info(100.0, 3)),
        cell(tmp_path / "b", "vit", run_info(300.0, 10**9)),
        cell(tmp_path / "c", "vit", run_info(110.0, 5)),
        cell(tmp_path / "d", "vit", run_info(None, 7)),
        cell(tmp_path / "e", "cnn", run_info(None, 7) | {"peak_gpu_bytes": 5 * 10**9}),
        cell(tmp_path / "f", "cnn", "torn"),
        cell(tmp_path / "g", "old", {"seconds": 3.0}),
        cell(tmp_path / "h", "-", run_info(1.0, 1), kind="floor"),
        stored("gone", "cell", tmp_path / "none"),
    ]
    assert read_costs(cells) == [
        EncoderCost("cnn", 2_500_000, None, 5 * 10**9),
        EncoderCost("vit", 2_500_000, 110.0, 10**9),
    ]
    lines = format_costs(read_costs(cells))
    assert lines[2].split() == ["cnn", "2.50", "M", "-", "5.00", "GB"]
    assert lines[3].split() == ["vit", "2.50", "M", "110", "1.00", "GB"]
    assert format_costs([]) == []
