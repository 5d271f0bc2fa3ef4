"""Builds a cell's result.json, stored predictions and gallery images."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ecamp.api.task import TaskPlugin
from ecamp.bench.cell_result import CellFields, CellResult, scores_of
from ecamp.bench.plan import EVAL_SPLITS, Cell
from ecamp.bench.run_folder import pack
from ecamp.config import identity
from ecamp.data.arrays import Arrays
from ecamp.metrics.stats import Metric
from ecamp.storage.files import atomic_path

SHOWN = 24  # test images kept for pictures


@dataclass(frozen=True)
class CellOutput:
    """Output of a fitted head, or of a floor.

    Attributes:
        predicted: Arrays of its predictions on the test split.
        selected: Settings chosen on validation.
        head: Weights of the head; empty for a floor.
    """

    cell: Cell
    predicted: dict[str, np.ndarray]
    selected: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Tensor] = field(default_factory=dict)


def build_result(
    output: CellOutput, arrays: Arrays, rows: dict[str, np.ndarray], metrics: dict[str, Metric]
) -> CellResult:
    """Build the result of a cell: a function of recipe and data alone, without times."""
    cell = output.cell
    return CellResult(
        id=cell.key,
        kind=cell.kind,
        cell=CellFields(
            dataset=arrays.info.name,
            split_id=arrays.info.split_id,
            split_hash=arrays.split_hash,
            data=identity(cell.dataset.identity),
            task=cell.task.ref.name,
            encoder=cell.encoder_name,
            pretext=cell.pretext,
            weights=cell.identity_fields["weights"],
            protocol=cell.protocol,
            fraction=cell.fraction,
            seed=cell.seed,
            floor=cell.floor,
        ),
        counts={
            **{split: len(rows[split]) for split in EVAL_SPLITS},
            "test_patients": len({arrays.patients[i] for i in rows["test"]}),
            "skipped": len(arrays.skipped),
        },
        primary=cell.task.primary,
        metrics=scores_of(metrics),
        selected=output.selected,
        warnings=result_warnings(cell.task, arrays, rows),
        plugins={role: origin.as_json() for role, origin in cell.origins.items()},
    )


def stored_arrays(
    output: CellOutput, arrays: Arrays, test: np.ndarray, targets: dict[str, np.ndarray],
    metrics: dict[str, Metric],
) -> dict[str, np.ndarray]:  # fmt: skip
    """Pack predictions and truth of the test split, with ids, patients and bootstrap replicates."""
    stored = pack({**targets, **output.predicted})
    stored["ids"] = np.array([arrays.ids[i] for i in test])
    stored["patients"] = np.array([arrays.patients[i] for i in test])
    for name, metric in metrics.items():
        if metric.replicates is not None and "/" not in name:
            stored[f"replicates/{name}"] = metric.replicates
    return stored


def write_gallery(folder: Path, arrays: Arrays) -> None:
    """Store a few test images per data set for the report's pictures; those with truth first."""
    path = folder / f"{arrays.key}.npz"
    if path.exists():
        return
    test = arrays.where("test")
    marked = np.diff(arrays.box_start)[test] + arrays.masks[test].any((2, 3)).sum(1)
    shown = np.sort(test[np.argsort(marked == 0, kind="stable")][:SHOWN])
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        images=np.asarray(arrays.images[shown]),
        ids=np.array([arrays.ids[i] for i in shown]),
        dataset=np.array(arrays.info.name),
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def result_warnings(task: TaskPlugin, arrays: Arrays, rows: dict[str, np.ndarray]) -> list[str]:
    """List what a reader of the number must know: classes absent from train, images left out."""
    splits = arrays.info.split_id
    out = [f"{splits}: {flaw}" for flaw in arrays.info.flaws]
    if task.needs == "labels":
        for k, name in enumerate(arrays.info.labels):
            for split in EVAL_SPLITS:
                if not (arrays.labels[rows[split], k] > 0.5).any():
                    count = f"{len(rows[split])} image{'s' * (len(rows[split]) > 1)}"
                    out.append(f"{splits}: class '{name}' has no positive in {split} ({count})")
    if arrays.skipped:
        out.append(f"{splits}: {len(arrays.skipped)} unreadable images were left out")
    return out
