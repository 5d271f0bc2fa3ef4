"""What each encoder costs: parameters, speed, memory; from the cells' `run.json`. No torch."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecamp.report.summary import StoredCell


@dataclass(frozen=True)
class EncoderCost:
    """Cost of one encoder in a run.

    Attributes:
        parameters: None where no cell reports it, as for the other fields.
        images_per_second: Median over the cells with frozen features.
        peak_bytes: Largest of all cells, the GPU's where one was used.
    """

    encoder: str
    parameters: int | None
    images_per_second: float | None
    peak_bytes: int | None

    def display(self) -> list[str]:
        """Format the columns for people."""
        size = "-" if self.parameters is None else f"{self.parameters / 1e6:.2f} M"
        speed = "-" if self.images_per_second is None else _three_digits(self.images_per_second)
        peak = "-" if self.peak_bytes is None else f"{self.peak_bytes / 1e9:.2f} GB"
        return [self.encoder, size, speed, peak]


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def read_costs(cells: list[StoredCell]) -> list[EncoderCost]:
    """Collect one row per encoder, by name; cells without a readable `run.json` do not count."""
    runs_by_encoder: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        if cell.result.is_floor:
            continue
        try:
            run = json.loads((cell.folder / "run.json").read_text(encoding="utf-8"))
            runs_by_encoder[cell.result.cell.encoder].append(dict(run))
        except (OSError, ValueError, TypeError):
            continue
    costs = []
    for encoder, runs in sorted(runs_by_encoder.items()):
        sizes, speeds = (
            _numbers(runs, "encoder_parameters"),
            _numbers(runs, "embed_images_per_second"),
        )
        peaks = _numbers(runs, "peak_gpu_bytes") or _numbers(runs, "peak_bytes")
        if sizes or speeds:
            costs.append(
                EncoderCost(
                    encoder,
                    int(max(sizes)) if sizes else None,
                    float(np.median(speeds)) if speeds else None,
                    int(max(peaks)) if peaks else None,
                )
            )
    return costs


def _numbers(runs: list[dict[str, Any]], name: str) -> list[float]:
    return [run[name] for run in runs if isinstance(run.get(name), int | float)]


def format_costs(costs: list[EncoderCost]) -> list[str]:
    """Format lines for a terminal; none without costs."""
    if not costs:
        return []
    rows = [["encoder", "parameters", "images/s", "peak memory"], *(c.display() for c in costs)]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)) for row in rows]
    return [
        "cost, as measured on the machine that ran the cells",
        *("  " + x.rstrip() for x in lines),
    ]
