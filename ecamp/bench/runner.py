"""Runs a plan cell by cell: resumes, survives failing cells, and writes each result at once."""

from __future__ import annotations

import logging
import os
import time
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from ecamp.api.origin import Origin
from ecamp.api.task import Inputs, TaskSplit, distinct_texts
from ecamp.bench.budget import Budget, OutOfTime, Timings
from ecamp.bench.feature_cache import CachedFeatures, FeatureCache, count_parameters
from ecamp.bench.features import build_encoder, make_inputs, select_rows
from ecamp.bench.plan import EVAL_SPLITS, Cell, FeatureGroup, Plan
from ecamp.bench.pretraining import (
    Pretraining,
    cache_folder,
    copy_pretraining,
    is_trained,
    run_pretraining,
)
from ecamp.bench.results import CellOutput, build_result, stored_arrays, write_gallery
from ecamp.bench.run_folder import RunFolder
from ecamp.data.arrays import Arrays, materialise
from ecamp.data.splits import fraction_index
from ecamp.encoders.checkpoints import inspect
from ecamp.errors import DataError, EcampError, PluginError
from ecamp.metrics.stats import Metric, resample_counts
from ecamp.plugin.blame import blamed, suspects
from ecamp.progress import Progress, no_progress
from ecamp.storage.cache import EntryLease
from ecamp.storage.files import atomic_path, locked, write_json
from ecamp.storage.tensor_file import separate_tensors
from ecamp.train.determinism import deterministic_algorithms
from ecamp.train.observer import Observer
from ecamp.train.oom import keep_freed_memory, on_batch_halved, peak_bytes, reset_peak

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """Counts of a finished run.

    Attributes:
        failed: Message by cell id.
        left: Cells that the budget left to the next time.
    """

    done: int
    reused: int
    failed: dict[str, str]
    left: int = 0


@dataclass
class CellRecord:
    """Measurements of one cell, written to its `run.json`; results never depend on them.

    Attributes:
        timings: Seconds by timing key.
        halved_batches: Batch size by kind of work, where memory ran out.
        facts: Origin of the features, speed and size of the encoder.
    """

    timings: dict[str, float] = field(default_factory=dict)
    halved_batches: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the plain form; empty parts are left out."""
        halved = {"halved_batches": self.halved_batches} if self.halved_batches else {}
        return {**self.facts, **halved, "timings": self.timings}


class Runner:
    """Executes a plan into a run folder.

    Args:
        progress: Receives images as they are decoded, and steps of pre-trainings.
        observer: Observes each pre-training (draws pictures).
        budget: Time in which cells may be started; by default all of it.
    """

    def __init__(
        self,
        plan: Plan,
        run: RunFolder,
        *,
        cache: Path | None = None,
        budget: Budget | None = None,
        progress: Progress = no_progress,
        observer: Observer | None = None,
    ) -> None:
        self.plan, self.run, self.cache = plan, run, cache
        self.progress, self.observer = progress, observer
        self.budget = budget or Budget()
        self._timings = Timings.of_run(run.path)
        self._arrays: dict[str, Arrays] = {}
        self._feature_cache = FeatureCache(cache)
        self._groups: dict[str, FeatureGroup] = {}
        self._features: tuple[str, CachedFeatures] | None = None
        self._weights: dict[str, Path] = {}
        self._leases: list[EntryLease] = []
        self._broken: dict[str, str] = {}
        self._halved: set[str] = set()

    def execute(self) -> Outcome:
        """Run all cells that are not done.

        Returns:
            Counts, and the failures by cell id.
        """
        keep_freed_memory()
        todo = [cell for cell in self.plan.cells if not self._is_done(cell)]
        reused = len(self.plan.cells) - len(todo)
        if reused:
            _log.info("%d of %d cells are done already", reused, len(self.plan.cells))
        for folder in self.run.damaged:
            _log.warning("%s: damaged; this cell is made again", folder)
        failed: dict[str, str] = {}
        self._groups = self.plan.feature_groups(todo)
        for count, cell in enumerate(self.plan.in_run_order(todo), 1):
            try:
                with blamed():
                    self._run_cell(cell, count, len(todo))
            except OutOfTime as reason:
                _log.info("stopped: %s", reason)
                left = len(todo) - count + 1
                return Outcome(count - 1 - len(failed), reused, failed, left)
            except Exception as error:
                failed[cell.key] = self._note_failure(cell, error)
        return Outcome(len(todo) - len(failed), reused, failed)

    def _is_done(self, cell: Cell) -> bool:
        """Tell whether a cell has a whole result, scored by the code that is installed."""
        result = self.run.finished(cell.key)
        if result is None:
            return False
        recorded = result.plugins.get("task")
        scored = cell.task.origin if recorded is None else Origin(**recorded)
        if scored.as_identity() == cell.task.origin.as_identity():
            return True
        _log.warning("%s: was scored again with %s; it is computed again", cell.label, scored)
        return False

    def _note_failure(self, cell: Cell, error: Exception) -> str:
        known = isinstance(error, EcampError)
        text = str(error) if known else f"{type(error).__name__}: {error}{suspects()}"
        debug = os.environ.get("ECAMP_DEBUG") == "1"
        _log.warning("FAILED %s: %s", cell.label, text, exc_info=error if debug else None)
        # What the user can mend needs no traceback; the author of a plugin does.
        trace = "" if known and not isinstance(error, PluginError) else traceback.format_exc()
        self.run.log_event(event="failed", id=cell.key, label=cell.label, error=text, trace=trace)
        return text

    def _run_cell(self, cell: Cell, count: int, total: int) -> None:
        record = CellRecord()

        def note_halving(work: str, batch: int) -> None:
            if work not in self._halved:
                _log.warning(
                    "%s: out of memory; continuing with smaller batches (see run.json)", work
                )
            self._halved.add(work)
            record.halved_batches[work] = batch

        with on_batch_halved(note_halving):
            weights = self._pretrained(cell)
            arrays = self._arrays_of(cell)
            self.budget.check(self._timings, cell.timing_key)
            began = time.monotonic()
            reset_peak()
            rows = _rows(cell, arrays)
            output = self._predict(cell, arrays, rows, weights, record)
            subset = arrays.subset(rows["test"])
            targets = cell.task.targets(subset)
            counts = resample_counts(subset.patients, self.plan.spec.bootstrap)
            metrics = cell.task.score(output.predicted, targets, counts)
            _check_metrics(cell, metrics, len(counts))
            self._write(output, arrays, rows, targets, metrics, record, began)
        name = cell.task.primary
        value = metrics[name].value
        shown = "undefined" if value is None else f"{value:.3f}"
        _log.info("[%d/%d] %s: %s %s", count, total, cell.label, name, shown)

    def _pretrained(self, cell: Cell) -> Path | None:
        """Return the weights of a cell; a failed pre-training fails its cells, not the others."""
        pretraining = cell.pretraining
        if pretraining is None:
            return None
        if pretraining.key in self._broken:
            raise EcampError(f"its pre-training failed: {self._broken[pretraining.key]}")
        if pretraining.key not in self._weights:
            if pretraining.file is not None:
                weights = self._import_weights(pretraining, pretraining.file)
            else:
                weights = self._pretrain(pretraining)
            self._weights[pretraining.key] = weights
        return self._weights[pretraining.key]

    def _pretrain(self, pretraining: Pretraining) -> Path:
        trained = is_trained(pretraining, self.cache)
        resumed = (cache_folder(pretraining, self.cache) / "checkpoint.pt").exists()
        if not trained:
            self.budget.check(self._timings, pretraining.timing_key)
        began = time.monotonic()
        try:
            with blamed():
                folder = run_pretraining(
                    pretraining, self.plan.spec.on_bad_image, self.cache,
                    progress=self.progress, observer=self.observer,
                )  # fmt: skip
        except Exception as error:
            self._broken[pretraining.key] = str(error)
            raise
        with locked(folder.with_suffix(".lock")):
            self._leases.append(EntryLease(folder))
        copy = self.run.path / "pretrain" / pretraining.key
        copy_pretraining(folder, copy)
        if not trained and not resumed:
            timings = {pretraining.timing_key: round(time.monotonic() - began, 3)}
            self._add_timings(timings)
            write_json(copy / "run.json", {"timings": timings})
        return folder / "weights.safetensors"

    def _add_timings(self, timings: dict[str, float]) -> None:
        for key, seconds in timings.items():
            self._timings.add(key, seconds)

    def _import_weights(self, pretraining: Pretraining, file: Path) -> Path:
        """Use finished weights; the run keeps a description of them, not a copy."""
        description = {"key": pretraining.key, "imported": inspect(file).as_json()}
        write_json(self.run.path / "pretrain" / pretraining.key / "pretrain.json", description)
        return file

    def _arrays_of(self, cell: Cell) -> Arrays:
        name = f"{cell.dataset.ref}@{cell.image_size} {cell.expected_input}"
        if name not in self._arrays:
            self._arrays[name] = materialise(
                cell.dataset,
                cell.image_size,
                splits=EVAL_SPLITS,
                expected=cell.expected_input,
                on_bad_image=self.plan.spec.on_bad_image,
                cache=self.cache,
                progress=self.progress,
            )
        return self._arrays[name]

    def _predict(
        self,
        cell: Cell,
        arrays: Arrays,
        rows: dict[str, np.ndarray],
        weights: Path | None,
        record: CellRecord,
    ) -> CellOutput:
        """Fit the head (or the floor) on train and validation, and predict the test split."""
        task = cell.task
        shared = None
        if cell.uses_frozen_features:
            shared = self._frozen_features(cell, arrays, weights, record)

        def inputs(split: str) -> Inputs:
            part = None if shared is None else select_rows(shared.features, rows[split])
            made = make_inputs(arrays, rows[split], part)
            if not task.text_inputs:
                return made
            texts = arrays.texts(task.text_inputs)
            return replace(made, texts=distinct_texts([texts[i] for i in rows[split]])[0])

        train = TaskSplit(inputs("train"), task.targets(arrays.subset(rows["train"])))
        val = TaskSplit(inputs("val"), task.targets(arrays.subset(rows["val"])))
        if cell.floor:
            return CellOutput(cell, task.floors()[cell.floor](train, val, inputs("test")))
        # Everything random below depends on the cell alone, not on which cells ran before.
        torch.manual_seed(cell.seed)
        needs_encoder = not cell.uses_frozen_features or cell.protocol in task.requires
        encoder = build_encoder(cell, arrays.channels, weights) if needs_encoder else None
        if encoder is not None:
            record.facts["encoder_parameters"] = count_parameters(encoder)
        torch.manual_seed(cell.seed)
        with deterministic_algorithms():
            head = task.fit(encoder, train, val, protocol=cell.protocol, seed=cell.seed)
            predicted = head.predict(inputs("test"))
        return CellOutput(cell, predicted, dict(head.selected), head.state_dict())

    def _frozen_features(
        self, cell: Cell, arrays: Arrays, weights: Path | None, record: CellRecord
    ) -> CachedFeatures:
        assert cell.encoder is not None
        name = f"{cell.feature_group_key}|{arrays.key}"
        origin = "memory"
        if self._features is None or self._features[0] != name:
            self._features = None  # two sets of features at once may not fit
            frozen = self._feature_cache.get(
                build_encoder(cell, arrays.channels, weights),
                cell.encoder,
                arrays,
                self._groups[cell.feature_group_key].reads,
                f"{cell.weights_label} on {arrays.info.split_id}",
                lambda: self.budget.check(self._timings, cell.feature_timing_key),
            )
            self._features, origin = (name, frozen), frozen.origin
            if origin == "computed":
                record.timings[cell.feature_timing_key] = round(frozen.seconds, 3)
                self._add_timings(record.timings)
                self.budget.check(self._timings, cell.timing_key)
        frozen = self._features[1]
        record.facts |= {
            "features": origin,
            "encoder_parameters": frozen.parameters,
            "embed_images_per_second": round(frozen.images_per_second, 2),
        }
        return frozen

    def _write(
        self,
        output: CellOutput,
        arrays: Arrays,
        rows: dict[str, np.ndarray],
        targets: dict[str, np.ndarray],
        metrics: dict[str, Metric],
        record: CellRecord,
        began: float,
    ) -> None:
        cell = output.cell
        if output.head:
            with atomic_path(self.run.cell(cell.key) / "head.safetensors") as temporary:
                save_file(separate_tensors(output.head), temporary)
        seconds = time.monotonic() - began
        own = round(seconds - sum(record.timings.values()), 3)
        self._timings.add(cell.timing_key, own)
        record.timings[cell.timing_key] = own
        self.run.write_cell(
            cell.key,
            build_result(output, arrays, rows, metrics),
            stored_arrays(output, arrays, rows["test"], targets, metrics),
            {
                "seconds": round(seconds, 3),
                "finished": time.time(),
                **record.as_json(),
                **peak_bytes(),
            },
            f"{cell.label}\n{seconds:.1f} s\n",
        )
        write_gallery(self.run.path / "gallery", arrays)
        self.run.log_event(event="done", id=cell.key, seconds=round(seconds, 3))


def _check_metrics(cell: Cell, metrics: Any, resamples: int) -> None:
    """Refuse what a task must not return from `score`.

    Raises:
        DataError: Names the metric.
    """
    name = cell.task.ref.name
    if cell.task.primary not in metrics:
        raise DataError(f"task '{name}': score() gives no '{cell.task.primary}', its main metric.",
                        f"It gives {', '.join(metrics) or 'nothing'}.")  # fmt: skip
    for key, metric in metrics.items():
        if not isinstance(metric, Metric):
            raise DataError(f"task '{name}': score() gives '{key}' as {type(metric).__name__}.",
                            "Give a Metric: Metric.of(value, replicates).")  # fmt: skip
        if metric.replicates is not None and metric.replicates.shape != (resamples,):
            raise DataError(
                f"task '{name}': '{key}' has replicates of shape {metric.replicates.shape}, not "
                f"({resamples},).",
                "One number per row of `replicates`.",
            )


def _rows(cell: Cell, arrays: Arrays) -> dict[str, np.ndarray]:
    """Select the rows of each split that have the task's truth; train cut to the fraction."""
    known = arrays.known(cell.task.needs)
    rows = {}
    for split in EVAL_SPLITS:
        index = arrays.where(split)
        rows[split] = index[known[index]]
        if not len(rows[split]):
            raise DataError(
                f"{cell.dataset.ref}: no image with {cell.task.needs} in split '{split}'.",
                "Every split needs some; look at the split rule of the data set.",
            )
    patients = [arrays.patients[i] for i in rows["train"]]
    rows["train"] = rows["train"][fraction_index(patients, cell.fraction, cell.seed)]
    return rows
