"""Runs a plan cell by cell: resumes, survives failing cells, and writes each result at once."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from ecamp.bench.cost import Budget, OutOfTime, Timings, cell_kind, feature_kind, pretrain_kind
from ecamp.bench.feature_cache import FeatureCache, Frozen, count_parameters
from ecamp.bench.features import (
    Reads,
    build_encoder,
    inputs_of,
    take,
    weights_label,
    weights_name,
)
from ecamp.bench.floors import floor_prediction
from ecamp.bench.plan import EVAL_SPLITS, Cell, Plan
from ecamp.bench.pretraining import (
    Pretraining,
    Watch,
    cache_folder,
    copy_pretraining,
    is_trained,
    run_pretraining,
)
from ecamp.bench.results import Fitted, result_of, stored_of, write_gallery
from ecamp.bench.store import RunFolder
from ecamp.data.arrays import Arrays, materialise
from ecamp.data.cache import Use
from ecamp.data.splits import fraction_index
from ecamp.data.store import atomic_path, locked, write_json
from ecamp.encoders.checkpoints import inspect
from ecamp.errors import DataError, EcampError
from ecamp.metrics.stats import Metric, resample_counts
from ecamp.plugin.host import make_plugin
from ecamp.plugin.protocols import TaskPlugin
from ecamp.tasks.base import TaskSplit, distinct_texts
from ecamp.train.memory import keep_heap, on_halving, peak_bytes, reset_peak
from ecamp.train.recipe import PretrainRecipe


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        left: Cells that the budget left to the next time.
    """

    done: int
    reused: int
    failed: dict[str, str]
    left: int = 0


class Runner:
    """Executes a plan into a run folder.

    Args:
        say: Gets one line per event, for stderr.
        progress: Gets (step, total, losses) while pre-training.
        watch: Makes the observer of a pre-training from its recipe (pictures).
        budget: Time in which cells may be started; by default all of it.
    """

    def __init__(
        self,
        plan: Plan,
        run: RunFolder,
        *,
        cache: Path | None = None,
        budget: Budget | None = None,
        say: Callable[[str], None] = lambda text: None,
        progress: Callable[[int, int, dict[str, float]], None] = lambda step, total, losses: None,
        watch: Callable[[PretrainRecipe], Watch] | None = None,
    ) -> None:
        self.plan, self.run, self.cache = plan, run, cache
        self.say, self.progress, self.watch = say, progress, watch
        self.budget = budget or Budget()
        self._timings = Timings.of_run(run.path)
        self._arrays: dict[str, Arrays] = {}
        self._cache = FeatureCache(cache, say)
        self._reads: dict[str, Reads] = {}
        self._features: tuple[str, Frozen] | None = None
        self._weights: dict[str, Path] = {}
        self._uses: list[Use] = []
        self._broken: dict[str, str] = {}
        self._halved: dict[str, int] = {}
        self._told: dict[str, Any] = {}  # of the current cell, for run.json

    def execute(self) -> Outcome:
        """Run all cells that are not done.

        Returns:
            Counts, and the failures by cell id.
        """
        keep_heap()
        todo = [cell for cell in self.plan.cells if self.run.finished(cell.key) is None]
        reused = len(self.plan.cells) - len(todo)
        if reused:
            self.say(f"{reused} of {len(self.plan.cells)} cells are done already")
        for folder in self.run.damaged:
            self.say(f"{folder}: damaged; this cell is made again")
        failed: dict[str, str] = {}
        for cell in todo:
            if cell.kind != "floor":
                self._note_reads(cell)
        # Cells that share features stand together, so that features are computed once.
        order = sorted(
            range(len(todo)),
            key=lambda i: (str(todo[i].dataset), todo[i].kind != "floor", weights_name(todo[i])),
        )
        for count, index in enumerate(order, 1):
            cell = todo[index]
            try:
                with on_halving(self._note_halving):
                    self._run_cell(cell, count, len(todo))
            except OutOfTime as reason:
                self.say(f"stopped: {reason}")
                left = len(todo) - count + 1
                return Outcome(count - 1 - len(failed), reused, failed, left)
            except Exception as error:
                failed[cell.key] = self._note_failure(cell, error)
        return Outcome(len(todo) - len(failed), reused, failed)

    def _note_reads(self, cell: Cell) -> None:
        """What all cells that share features read of them, so that they are computed once."""
        task: TaskPlugin = make_plugin("ecamp.tasks", self.plan.task_ref(cell.task))
        if cell.protocol in task.tunes:
            return
        name = f"{cell.dataset}|{weights_name(cell)}"
        self._reads[name] = self._reads.get(name, frozenset()) | task.reads

    def _note_halving(self, what: str, batch: int) -> None:
        if what not in self._halved:
            self.say(f"{what}: out of memory; going on with smaller batches (see run.json)")
        self._halved[what] = batch
        self._told.setdefault("halved_batches", {})[what] = batch

    def _note_failure(self, cell: Cell, error: Exception) -> str:
        text = str(error) if isinstance(error, EcampError) else f"{type(error).__name__}: {error}"
        self.say(f"FAILED {cell.label}: {text}")
        trace = "" if isinstance(error, EcampError) else traceback.format_exc()
        self.run.log_event(event="failed", id=cell.key, label=cell.label, error=text, trace=trace)
        return text

    def _run_cell(self, cell: Cell, count: int, total: int) -> None:
        self._told = {}
        weights = self._pretrained(cell)
        arrays = self._arrays_of(cell)
        self.budget.check(self._timings, cell_kind(cell))
        began = time.monotonic()
        reset_peak()
        task: TaskPlugin = make_plugin("ecamp.tasks", self.plan.task_ref(cell.task))
        rows = self._rows(cell, task, arrays)
        if cell.floor:
            fitted = Fitted(
                cell,
                floor_prediction(cell.floor, arrays, rows["train"], rows["val"], rows["test"]),
            )
        else:
            fitted = self._fit(cell, task, arrays, rows, weights)
        subset = arrays.subset(rows["test"])
        targets = task.targets(subset)
        counts = resample_counts(subset.patients, self.plan.spec.bootstrap)
        metrics = task.score(fitted.predicted, targets, counts)
        self._write(fitted, task, arrays, rows, targets, metrics, began)
        primary = metrics[task.primary]
        shown = "undefined" if primary.value is None else f"{primary.value:.3f}"
        self.say(f"[{count}/{total}] {cell.label}: {task.primary} {shown}")

    def _pretrained(self, cell: Cell) -> Path | None:
        """Weights of a cell; a failed pre-training fails its cells, not the others."""
        plan = cell.pretraining
        if plan is None:
            return None
        if plan.key in self._broken:
            raise EcampError(f"its pre-training failed: {self._broken[plan.key]}")
        if plan.file is not None:
            return self._imported(plan, plan.file)
        if plan.key not in self._weights:
            known = is_trained(plan, self.cache)
            begun = (cache_folder(plan, self.cache) / "checkpoint.pt").exists()
            if not known:
                self.budget.check(self._timings, pretrain_kind(plan))
            began = time.monotonic()
            try:
                watch = None if self.watch is None else self.watch(plan.recipe)
                folder = run_pretraining(
                    plan, self.plan.spec.on_bad_image, self.cache, self.say, self.progress, watch
                )
            except Exception as error:
                self._broken[plan.key] = str(error)
                raise
            with locked(folder.with_suffix(".lock")):
                self._uses.append(Use(folder))
            copy = self.run.path / "pretrain" / plan.key
            copy_pretraining(folder, copy)
            if not known and not begun:
                took = {pretrain_kind(plan): round(time.monotonic() - began, 3)}
                self._note_times(took)
                write_json(copy / "run.json", {"timings": took})
            self._weights[plan.key] = folder / "weights.safetensors"
        return self._weights[plan.key]

    def _note_times(self, took: dict[str, float]) -> None:
        for kind, seconds in took.items():
            self._timings.add(kind, seconds)

    def _imported(self, plan: Pretraining, file: Path) -> Path:
        """Weights that are there already; the run keeps what they are, not a copy."""
        if plan.key not in self._weights:
            known = {"key": plan.key, "imported": inspect(file).as_json()}
            write_json(self.run.path / "pretrain" / plan.key / "pretrain.json", known)
            self._weights[plan.key] = file
        return file

    def _arrays_of(self, cell: Cell) -> Arrays:
        encoder = make_plugin("ecamp.encoders", cell.encoder or self.plan.spec.encoders[0])
        name = f"{cell.dataset}@{encoder.image_size}"
        if name not in self._arrays:
            dataset = make_plugin("ecamp.datasets", cell.dataset)
            self._arrays[name] = materialise(
                dataset,
                encoder.image_size,
                splits=EVAL_SPLITS,
                on_bad_image=self.plan.spec.on_bad_image,
                cache=self.cache,
                log=self.say,
            )
        return self._arrays[name]

    def _rows(self, cell: Cell, task: TaskPlugin, arrays: Arrays) -> dict[str, np.ndarray]:
        """Rows of each split that hold the task's truth; train cut to the fraction."""
        known = {
            "labels": np.isfinite(arrays.labels).any(1),
            "mask": arrays.has_mask,
            "boxes": arrays.has_boxes,
            "report": np.array([bool(report.strip()) for report in arrays.reports], bool),
        }[task.needs]
        rows = {}
        for split in EVAL_SPLITS:
            where = arrays.where(split)
            rows[split] = where[known[where]]
            if not len(rows[split]):
                raise DataError(
                    f"{cell.dataset}: no image with {task.needs} in split '{split}'.",
                    "Every split needs some; look at the split rule of the data set.",
                )
        patients = [arrays.patients[i] for i in rows["train"]]
        rows["train"] = rows["train"][fraction_index(patients, cell.fraction, cell.seed)]
        return rows

    def _fit(
        self,
        cell: Cell,
        task: TaskPlugin,
        arrays: Arrays,
        rows: dict[str, np.ndarray],
        weights: Path | None,
    ) -> Fitted:
        assert cell.encoder is not None
        frozen = cell.protocol not in task.tunes
        shared = self._frozen(cell, arrays, weights) if frozen else None

        def inputs(split: str) -> Any:
            part = None if shared is None else take(shared.features, rows[split])
            made = inputs_of(arrays, rows[split], part)
            if task.needs != "report":
                return made
            return replace(made, texts=distinct_texts([arrays.reports[i] for i in rows[split]])[0])

        train = TaskSplit(inputs("train"), task.targets(arrays.subset(rows["train"])))
        val = TaskSplit(inputs("val"), task.targets(arrays.subset(rows["val"])))
        # Everything random below depends on the cell alone, not on which cells ran before.
        torch.manual_seed(cell.seed)
        channels = arrays.images.shape[-1]
        needed = not frozen or cell.protocol in task.requires
        encoder = build_encoder(cell, channels, weights) if needed else None
        if encoder is not None:
            self._told["encoder_parameters"] = count_parameters(encoder)
        torch.manual_seed(cell.seed)
        head = task.fit(encoder, train, val, protocol=cell.protocol, seed=cell.seed)
        return Fitted(cell, head.predict(inputs("test")), dict(head.selected), head.state_dict())

    def _frozen(self, cell: Cell, arrays: Arrays, weights: Path | None) -> Frozen:
        name = f"{cell.dataset}|{arrays.key}|{weights_name(cell)}"
        origin = "memory"
        if self._features is None or self._features[0] != name:
            assert cell.encoder is not None
            self._features = None  # two sets of features at once may not fit
            encoder = build_encoder(cell, arrays.images.shape[-1], weights)
            frozen = self._cache.get(
                encoder,
                cell.encoder,
                arrays,
                self._reads[f"{cell.dataset}|{weights_name(cell)}"],
                f"{weights_label(cell)} on {arrays.info.protocol}",
                lambda: self.budget.check(self._timings, feature_kind(cell)),
            )
            self._features, origin = (name, frozen), frozen.origin
            if origin == "computed":
                self._told["timings"] = {feature_kind(cell): round(frozen.seconds, 3)}
                self._note_times(self._told["timings"])
                self.budget.check(self._timings, cell_kind(cell))
        frozen = self._features[1]
        self._told |= {
            "features": origin,
            "encoder_parameters": frozen.parameters,
            "embed_images_per_second": round(frozen.images_per_second, 2),
        }
        return frozen

    def _write(
        self, fitted: Fitted, task: TaskPlugin, arrays: Arrays, rows: dict[str, np.ndarray],
        targets: dict[str, np.ndarray], metrics: dict[str, Metric], began: float,
    ) -> None:  # fmt: skip
        cell = fitted.cell
        if fitted.head:
            with atomic_path(self.run.cell(cell.key) / "head.safetensors") as temporary:
                save_file({k: v.contiguous() for k, v in fitted.head.items()}, temporary)
        seconds = time.monotonic() - began
        took: dict[str, float] = self._told.pop("timings", {})
        took[cell_kind(cell)] = round(seconds - sum(took.values()), 3)
        self._timings.add(cell_kind(cell), took[cell_kind(cell)])
        cost = {**self._told, **peak_bytes(), "timings": took}
        self.run.write_cell(
            cell.key,
            result_of(fitted, task, arrays, rows, metrics),
            stored_of(fitted, arrays, rows["test"], targets, metrics),
            {"seconds": round(seconds, 3), "finished": time.time(), **cost},
            f"{cell.label}\n{seconds:.1f} s\n",
        )
        write_gallery(self.run.path / "gallery", arrays)
        self.run.log_event(event="done", id=cell.key, seconds=round(seconds, 3))
