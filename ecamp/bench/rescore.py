"""Metrics of a finished run computed again from its stored predictions; no model is run."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from ecamp.api.origin import Origin
from ecamp.api.plugin_ref import PluginRef
from ecamp.bench.cell_result import CellResult, scores_of
from ecamp.bench.run_folder import RunFolder, pack, read_predictions, read_spec
from ecamp.errors import CorruptFileError, EcampError, MissingError
from ecamp.metrics.stats import resample_counts
from ecamp.plugin.host import make_plugin
from ecamp.storage.files import atomic_path, read_json, write_json

_log = logging.getLogger(__name__)


def rescore(path: Path, bootstrap: int | None) -> tuple[int, int, list[str]]:
    """Recompute metrics, intervals and resamples of all cells.

    A cell is written only where something changed. Interrupted between its two files, it has new
    resamples next to old numbers; rescoring again repairs that.

    Args:
        path: A run folder. bootstrap: Resamples; None keeps the run's own number.

    Returns:
        Cells, cells that changed, and what could not be read.

    Raises:
        MissingError: No run folder, or a task plugin is gone.
    """
    if not (path / "cells").is_dir():
        raise MissingError(
            f"{path}: not a run folder (it has no cells).", "Name the folder of --run."
        )
    spec = read_spec(path)
    resamples = spec.bootstrap if bootstrap is None else bootstrap
    tasks = spec.task_refs()
    run, total, changed, failed = RunFolder(path), 0, 0, []
    for folder in sorted((path / "cells").glob("*")):
        if not (folder / "result.json").exists():
            continue
        try:
            differs = _rescore(run, folder, resamples, tasks)
        except (EcampError, CorruptFileError, KeyError, ValueError) as error:
            failed.append(f"cells/{folder.name}: {error}")
            continue
        total, changed = total + 1, changed + differs
        if differs:
            _log.info("cells/%s: rescored", folder.name)
    if changed:
        run.log_event(event="rescored", cells=changed, bootstrap=resamples)
    return total, changed, failed


def _rescore(run: RunFolder, folder: Path, resamples: int, tasks: dict[str, PluginRef]) -> bool:
    result = CellResult.from_json(read_json(folder / "result.json"))
    arrays = read_predictions(folder / "predictions.npz")
    name = result.cell.task
    ref = tasks.get(name) or PluginRef(name=name)
    recorded = result.plugins.get("task")
    if recorded is not None:
        # The task of the package that made the cell, whatever else has that name now.
        ref = ref.model_copy(update={"dist": recorded["dist"] or None})
    task = make_plugin("ecamp.tasks", ref)
    if recorded is not None and task.origin.as_identity() != Origin(**recorded).as_identity():
        _log.warning(
            "cells/%s: computed with %s, scored with %s; a bench computes it again",
            folder.name, Origin(**recorded), task.origin,
        )  # fmt: skip
    stored = {key: value for key, value in arrays.items() if not key.startswith("replicates/")}
    patients = [str(patient) for patient in stored["patients"]]
    metrics = task.score(stored, stored, resample_counts(patients, resamples))
    fresh = {
        f"replicates/{key}": metric.replicates
        for key, metric in metrics.items()
        if metric.replicates is not None and "/" not in key
    }
    before = {key: value for key, value in arrays.items() if key.startswith("replicates/")}
    same = before.keys() == fresh.keys() and all(
        np.array_equal(before[key], fresh[key], equal_nan=True) for key in fresh
    )
    origin = task.origin.as_json()
    plugins = {**result.plugins, "task": origin} if recorded is not None else result.plugins
    rescored = replace(result, metrics=scores_of(metrics), primary=task.primary, plugins=plugins)
    if same and rescored == result:
        return False
    with atomic_path(folder / "predictions.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **pack({**stored, **fresh}))  # type: ignore[arg-type]
    write_json(folder / "result.json", rescored.as_json())
    return True
