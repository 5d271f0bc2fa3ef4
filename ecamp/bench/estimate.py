"""Estimates the cost of a plan from a few measured steps and batches; writes nothing."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ecamp.api.dataset import Dataset, Record
from ecamp.api.encoder import Encoder, Features, InputSpec
from ecamp.bench.budget import Timings
from ecamp.bench.feature_cache import FeatureCache, feature_key, limit_bytes
from ecamp.bench.features import BATCH, build_encoder, feature_specs
from ecamp.bench.plan import EVAL_SPLITS, Cell, FeatureGroup, Plan
from ecamp.bench.pretraining import (
    Pretraining,
    build_objective,
    cache_folder,
    is_trained,
    pretrain_split,
)
from ecamp.bench.sampling import DatasetSample, sample_dataset
from ecamp.data.arrays import Arrays
from ecamp.data.normalise import normaliser
from ecamp.errors import EcampError
from ecamp.storage.files import cache_root
from ecamp.storage.tensor_file import total_bytes
from ecamp.train.oom import keep_freed_memory, map_batches, out_of_memory
from ecamp.train.pairs import PairDataset, PairSubset, make_batches
from ecamp.train.pretrain import Trainer

RECORDS = 512  # texts that an objective is built from: real lengths, without reading a million
SLOW_STEP_SECONDS = 5.0  # seconds; a first step that takes longer is the only one that is measured
# Seconds of a cell where the run folder has none of its kind: one core, 1,000 test images, ViT of 64 px.
DEFAULT_CELL_SECONDS = {"linear": 1.0, "frozen": 5.0, "floor": 1.0}
DEFAULT_OTHER_SECONDS = 3.0


@dataclass(frozen=True)
class Line:
    """One kind of work.

    Attributes:
        count: Number of pieces of work.
        done: Number of them that are done already, at no cost.
        each: Seconds per piece.
        seconds: Seconds of all that is left.
        bytes: Disk space that it takes.
        basis: Origin of the figure.
    """

    what: str
    count: int
    done: int
    each: float
    seconds: float
    bytes: int
    basis: str


@dataclass(frozen=True)
class Cost:
    """All lines of a plan."""

    lines: tuple[Line, ...]

    @property
    def seconds(self) -> float:
        """Seconds of everything that is left."""
        return sum(line.seconds for line in self.lines)

    @property
    def bytes(self) -> int:
        """Disk space that everything takes."""
        return sum(line.bytes for line in self.lines)

    def as_json(self) -> dict[str, Any]:
        """Return the plain form."""
        lines = [asdict(line) for line in self.lines]
        return {"seconds": self.seconds, "bytes": self.bytes, "lines": lines}


def estimate_cost(plan: Plan, run: Path, cache: Path | None) -> Cost:
    """Measure and add up: decoding, pre-training, features, heads.

    Args:
        run: The run folder: its finished cells cost nothing, and their times predict those of others.

    Raises:
        EcampError: Data that cannot be read, or a step that does not fit into memory.
    """
    keep_freed_memory()
    return _Estimator(plan, run, cache).all()


class _Estimator:
    def __init__(self, plan: Plan, run: Path, cache: Path | None) -> None:
        self.plan, self.cache = plan, cache
        self.bad = plan.spec.on_bad_image
        self.todo = [c for c in plan.cells if not (run / "cells" / c.key / "result.json").exists()]
        self.timings = Timings.of_run(run)
        self.store = FeatureCache(cache)
        self.decoding: dict[str, Line] = {}
        self.samples: dict[str, DatasetSample] = {}
        self.records: dict[str, Sequence[Record]] = {}
        self.speeds: dict[str, float] = {}

    def all(self) -> Cost:
        pretraining = self._pretraining()
        features = self._features()
        heads = self._heads()
        for cell in self.todo:
            self._evaluated(cell)
        return Cost((*self.decoding.values(), *pretraining, *features, *heads))

    def _note_decoding(self, label: str, sample: DatasetSample, size: int) -> None:
        done = (cache_root(self.cache) / "arrays" / sample.arrays.key / "meta.json").exists()
        workers = min(os.cpu_count() or 1, -(-sample.count // 64))
        seconds = sample.count * sample.seconds / workers
        self.decoding[sample.arrays.key] = Line(
            f"decode {label}, {sample.count} images of {size} px", 1, int(done), seconds,
            0.0 if done else seconds, 0 if done else sample.bytes, "a few images decoded",
        )  # fmt: skip

    def _records(self, dataset: Dataset) -> Sequence[Record]:
        name = str(dataset.ref)
        if name not in self.records:
            self.records[name] = dataset.records()
        return self.records[name]

    def _evaluated(self, cell: Cell) -> DatasetSample:
        """Sample the images that a cell is evaluated on."""
        return self._sample(
            cell.dataset, cell.image_size, EVAL_SPLITS, cell.expected_input, False, None
        )

    def _sample(
        self,
        dataset: Dataset,
        size: int,
        splits: Sequence[str],
        expected: InputSpec,
        needs_report: bool,
        max_records: int | None,
    ) -> DatasetSample:
        """Sample each data set once per size, splits and expected input."""
        name = f"{dataset.ref}@{size} {splits} {expected} {needs_report}"
        if name not in self.samples:
            self.samples[name] = sample_dataset(
                dataset, self._records(dataset), size, splits=splits, expected=expected,
                on_bad_image=self.bad,
                max_records=max_records,
                keep=lambda record: not needs_report or bool((record.report or "").strip()),
            )  # fmt: skip
            self._note_decoding(str(dataset.ref), self.samples[name], size)
        return self.samples[name]

    def _pretraining(self) -> list[Line]:
        """Return one line per encoder and pretext; one of its seeds is measured."""
        groups: dict[str, dict[str, Pretraining]] = defaultdict(dict)
        for cell in self.todo:
            one = cell.pretraining
            if one is not None and one.file is None:
                groups[one.timing_key][one.key] = one
        lines = []
        for what, group in groups.items():
            left = [one for one in group.values() if not is_trained(one, self.cache)]
            if not left:
                lines.append(Line(what, len(group), len(group), 0.0, 0.0, 0, "done"))
                continue
            source, count = self._source(left[0])
            step, size = _step_seconds(left[0], source)
            total = left[0].recipe.total_steps(count)
            steps = sum(total - self._steps_done(one) for one in left)
            basis = f"{total} steps of {step:.2f} s, measured"
            # In the cache, and copied into the run folder.
            lines.append(
                Line(what, len(group), len(group) - len(left), total * step, steps * step,
                     2 * len(left) * size, basis)
            )  # fmt: skip
        return lines

    def _source(self, plan: Pretraining) -> tuple[PairDataset, int]:
        """Read a few of the pairs, and count all of them."""
        size = plan.encoder.image_size * plan.recipe.scale
        needs_report = "report" in plan.pretext.needs
        parts, count = [], 0
        for dataset in plan.data:
            split = pretrain_split(self._records(dataset))
            expected = plan.encoder.input_spec
            sample = self._sample(dataset, size, [split], expected, needs_report, RECORDS)
            parts.append(PairSubset(sample.arrays, np.arange(len(sample.arrays))))
            count += sample.count
        return PairDataset(parts), count

    def _steps_done(self, plan: Pretraining) -> int:
        """Count the steps (about) that an interrupted pre-training need not repeat."""
        folder = cache_folder(plan, self.cache)
        if not (folder / "checkpoint.pt").exists():
            return 0
        try:
            # One line at step 0 and at every tenth.
            return max(len((folder / "metrics.jsonl").read_text().splitlines()) - 1, 0) * 10
        except OSError:
            return 0

    def _features(self) -> list[Line]:
        """Return one line per data set and encoder."""
        groups: dict[str, list[FeatureGroup]] = defaultdict(list)
        for group in self.plan.feature_groups(self.todo).values():
            groups[group.cells[0].feature_timing_key].append(group)
        return [self._feature_line(what, group) for what, group in groups.items()]

    def _feature_line(self, what: str, groups: list[FeatureGroup]) -> Line:
        done, size, seconds = 0, 0, 0.0
        for group in groups:
            cell, reads = group.cells[0], group.reads
            assert cell.encoder is not None
            arrays = self._evaluated(cell).arrays
            encoder, final = self._encoder(cell, arrays.channels)
            if final and self.store.holds(feature_key(encoder, cell.encoder, arrays), reads):
                done += 1
                continue
            seconds = len(arrays) / self._speed(cell, encoder, arrays)
            need = total_bytes(feature_specs(encoder, arrays, reads)[0])
            size += need if need <= limit_bytes() else 0
        left = len(groups) - done
        basis = "two batches measured" if left else "done"
        return Line(what, len(groups), done, seconds, left * seconds, size, basis)

    def _encoder(self, cell: Cell, channels: int) -> tuple[Encoder, bool]:
        """Build a cell's encoder, and tell whether its weights are final."""
        plan = cell.pretraining
        if plan is None or plan.file is not None:
            return build_encoder(cell, channels, None), True
        if not is_trained(plan, self.cache):
            return build_encoder(cell, channels, None), False
        weights = cache_folder(plan, self.cache) / "weights.safetensors"
        return build_encoder(cell, channels, weights), True

    def _speed(self, cell: Cell, encoder: Encoder, arrays: Arrays) -> float:
        if cell.encoder_name not in self.speeds:
            self.speeds[cell.encoder_name] = _images_per_second(encoder, arrays)
        return self.speeds[cell.encoder_name]

    def _heads(self) -> list[Line]:
        """Return one line per timing key of cells."""
        groups: dict[str, list[Cell]] = defaultdict(list)
        for cell in self.plan.cells:
            groups[cell.timing_key].append(cell)
        waiting = {cell.key for cell in self.todo}
        lines = []
        for what, group in groups.items():
            left = [cell for cell in group if cell.key in waiting]
            each, basis = 0.0, "done"
            if left:
                each, basis = self._head_seconds(left[0])
            done = len(group) - len(left)
            lines.append(Line(what, len(group), done, each, len(left) * each, 0, basis))
        return lines

    def _head_seconds(self, cell: Cell) -> tuple[float, str]:
        known = self.timings.expected(cell.timing_key)
        if known is not None:
            return known, "finished cells of this run"
        task = cell.task
        if cell.encoder is not None and not cell.uses_frozen_features:
            recipe = task.config
            arrays = self._evaluated(cell).arrays
            encoder, _ = self._encoder(cell, arrays.channels)
            images = 3 * getattr(recipe, "steps", 150) * getattr(recipe, "batch_size", 64)
            seconds = (images + len(arrays)) / self._speed(cell, encoder, arrays)
            return seconds, "three times the encoder's forward pass"
        kind = "floor" if cell.floor else cell.protocol
        return DEFAULT_CELL_SECONDS.get(
            kind, DEFAULT_OTHER_SECONDS
        ), "a rough figure, nothing measured"


def _step_seconds(plan: Pretraining, source: PairDataset) -> tuple[float, int]:
    """Measure the seconds of a step at the planned batch size, and the bytes of the weights."""
    objective = build_objective(plan, source)
    trainer = Trainer(objective, plan.recipe, len(source))
    objective.train()
    seconds: list[float] = []
    try:
        for step in range(3):
            began = time.perf_counter()
            trainer.update(make_batches(source, plan.recipe, step, plan.pretext.views()))
            seconds.append(time.perf_counter() - began)
            if step == 0 and seconds[0] > SLOW_STEP_SECONDS:
                break
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise EcampError(
            f"pretrain {plan.encoder.ref} {plan.label}: memory runs out with "
            f"{plan.recipe.batch_size} pairs a step.",
            "Set pretrain.accumulate in the recipe: a step's batch then passes in parts.",
        ) from error
    weights = sum(value.nbytes for value in trainer.encoder_state().values())
    return float(np.mean(seconds[1:] or seconds)), weights  # the first one also warms up


def _images_per_second(encoder: Encoder, arrays: Arrays) -> float:
    """Measure two batches, of the planned size where that takes no longer than a second or two."""
    normalise = normaliser(arrays.info)
    seconds = 0.0

    def encode(index: np.ndarray) -> Features:
        nonlocal seconds
        began = time.perf_counter()
        seen: Features = encoder(normalise(arrays.images[index % len(arrays)]))
        seconds += time.perf_counter() - began
        return seen

    def run(count: int, batch: int) -> float:
        nonlocal seconds
        seconds = 0.0
        for _ in map_batches(encode, count, batch, "features"):
            pass
        return seconds / count

    with torch.no_grad():
        run(2, 2)  # warms up
        batch = int(min(max(1.0 / run(2, 2), 1), BATCH))
        return 1 / run(2 * batch, batch)


def format_cost(cost: Cost) -> list[str]:
    """Format the estimate as lines for a terminal."""
    shown = [line for line in cost.lines if line.seconds or line.done < line.count]
    done = sum(line.done for line in cost.lines)
    width = max([len(line.what) for line in shown], default=0)
    out = ["estimate, measured on this machine now; the run itself may take half or twice of it"]
    for line in shown:
        out.append(
            f"  {line.what:{width}}  {line.count - line.done:4} x {line.each:8.1f} s = "
            f"{line.seconds:8.0f} s  ({line.basis})"
        )
    if done:
        out.append(f"  {done} of {sum(line.count for line in cost.lines)} are there already: 0 s")
    out.append(
        f"  total {format_duration(cost.seconds)} (hours:minutes), {cost.bytes / 1e9:.2f} GB of disk"
    )
    return out


def format_duration(seconds: float) -> str:
    """Write hours:minutes, rounded up."""
    minutes = -int(-seconds // 60)
    return f"{minutes // 60}:{minutes % 60:02}"
