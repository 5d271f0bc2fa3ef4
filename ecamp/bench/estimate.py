"""What a plan may cost, from a few measured steps and batches; nothing is written."""

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

from ecamp.bench.cost import Timings, cell_kind, pretrain_kind
from ecamp.bench.feature_cache import FeatureCache, feature_key, limit_bytes
from ecamp.bench.features import BATCH, Reads, build_encoder, feature_specs, weights_name
from ecamp.bench.plan import EVAL_SPLITS, Cell, Plan
from ecamp.bench.pretraining import (
    Pretraining,
    build_objective,
    cache_folder,
    is_trained,
    pretrain_split,
)
from ecamp.config import PluginRef
from ecamp.data.arrays import Arrays
from ecamp.data.glimpse import Glimpse, glimpse
from ecamp.data.normalise import normaliser
from ecamp.data.store import cache_root
from ecamp.data.tensor_file import total_bytes
from ecamp.encoders.base import Encoder, Features
from ecamp.errors import EcampError
from ecamp.plugin.host import make_plugin
from ecamp.plugin.protocols import Dataset, Record
from ecamp.train.memory import in_parts, keep_heap, out_of_memory
from ecamp.train.pretrain import Trainer
from ecamp.train.source import Part, Source, make_batches

RECORDS = 512  # texts that an objective is built from: real lengths, without reading a million
LONG = 5.0  # seconds; a first step that takes longer is the only one that is measured
# Seconds of a cell where the run folder has none of its kind: one core, 1,000 test images, ViT of 64 px.
ROUGH = {"linear": 1.0, "frozen": 5.0, "floor": 1.0}
ROUGH_OTHER = 3.0


@dataclass(frozen=True)
class Line:
    """One kind of work.

    Attributes:
        count, done: How many there are; how many of them are there already, at no cost.
        each: Seconds of one. seconds: Of all that is left. bytes: Disk that it takes.
        basis: Where the figure comes from.
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
        """Of everything that is left."""
        return sum(line.seconds for line in self.lines)

    @property
    def bytes(self) -> int:
        """Disk that everything takes."""
        return sum(line.bytes for line in self.lines)

    def as_json(self) -> dict[str, Any]:
        """Plain form."""
        lines = [asdict(line) for line in self.lines]
        return {"seconds": self.seconds, "bytes": self.bytes, "lines": lines}


def estimate_cost(plan: Plan, run: Path, cache: Path | None) -> Cost:
    """Measure and add up: decoding, pre-training, features, heads.

    Args:
        run: The run folder, whose finished cells cost nothing and tell what others will take.

    Raises:
        EcampError: Data that cannot be read, or a step that does not fit into memory.
    """
    keep_heap()
    return _Estimator(plan, run, cache).all()


class _Estimator:
    def __init__(self, plan: Plan, run: Path, cache: Path | None) -> None:
        self.plan, self.cache = plan, cache
        self.bad = plan.spec.on_bad_image
        self.todo = [c for c in plan.cells if not (run / "cells" / c.key / "result.json").exists()]
        self.timings = Timings.of_run(run)
        self.store = FeatureCache(cache)
        self.decoding: dict[str, Line] = {}
        self.glimpses: dict[str, Glimpse] = {}
        self.records: dict[str, Sequence[Record]] = {}
        self.speeds: dict[str, float] = {}

    def all(self) -> Cost:
        pretraining = self._pretraining()
        features = self._features()
        heads = self._heads()
        for cell in self.todo:
            self._glimpse(cell)
        return Cost((*self.decoding.values(), *pretraining, *features, *heads))

    def _note_decoding(self, label: str, seen: Glimpse, size: int) -> None:
        done = (cache_root(self.cache) / "arrays" / seen.arrays.key / "meta.json").exists()
        workers = min(os.cpu_count() or 1, -(-seen.count // 64))
        seconds = seen.count * seen.seconds / workers
        self.decoding[seen.arrays.key] = Line(
            f"decode {label}, {seen.count} images of {size} px", 1, int(done), seconds,
            0.0 if done else seconds, 0 if done else seen.bytes, "a few images decoded",
        )  # fmt: skip

    def _dataset(self, ref: PluginRef) -> tuple[Dataset, Sequence[Record]]:
        dataset: Dataset = make_plugin("ecamp.datasets", ref)
        if str(ref) not in self.records:
            self.records[str(ref)] = dataset.records()
        return dataset, self.records[str(ref)]

    def _glimpse(self, cell: Cell) -> Glimpse:
        """Images that a cell is evaluated on."""
        size = make_plugin("ecamp.encoders", cell.encoder or self.plan.spec.encoders[0]).image_size
        return self._look(cell.dataset, size, EVAL_SPLITS, False, None)

    def _look(
        self, ref: PluginRef, size: int, splits: Sequence[str], told: bool, most: int | None
    ) -> Glimpse:
        """A look at each data set, once; `told` wants reports."""
        name = f"{ref}@{size} {splits} {told}"
        if name not in self.glimpses:
            dataset, records = self._dataset(ref)
            self.glimpses[name] = glimpse(
                dataset, records, size, splits=splits, on_bad_image=self.bad, most=most,
                keep=lambda record: not told or bool((record.report or "").strip()),
            )  # fmt: skip
            self._note_decoding(str(ref), self.glimpses[name], size)
        return self.glimpses[name]

    def _pretraining(self) -> list[Line]:
        """A line for each encoder and pretext; one of its seeds is measured."""
        groups: dict[str, dict[str, Pretraining]] = defaultdict(dict)
        for cell in self.todo:
            one = cell.pretraining
            if one is not None and one.file is None:
                groups[pretrain_kind(one)][one.key] = one
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

    def _source(self, plan: Pretraining) -> tuple[Source, int]:
        """A few of the pairs, and how many there are."""
        size = make_plugin("ecamp.encoders", plan.encoder).image_size * plan.recipe.scale
        told = "report" in make_plugin("ecamp.pretext", plan.pretext).needs
        parts, count = [], 0
        for ref in plan.data:
            split = pretrain_split(self._dataset(ref)[1])
            seen = self._look(ref, size, [split], told, RECORDS)
            parts.append(Part(seen.arrays, np.arange(len(seen.arrays))))
            count += seen.count
        return Source(parts), count

    def _steps_done(self, plan: Pretraining) -> int:
        """Steps that an interrupted pre-training need not repeat, about."""
        folder = cache_folder(plan, self.cache)
        if not (folder / "checkpoint.pt").exists():
            return 0
        try:
            # A line at step 0 and at every tenth.
            return max(len((folder / "metrics.jsonl").read_text().splitlines()) - 1, 0) * 10
        except OSError:
            return 0

    def _features(self) -> list[Line]:
        """A line for each data set and encoder."""
        groups: dict[str, dict[str, tuple[Cell, Reads]]] = defaultdict(dict)
        for cell in self.todo:
            task = make_plugin("ecamp.tasks", self.plan.task_ref(cell.task))
            if cell.encoder is None or cell.protocol in task.tunes:
                continue
            group = groups[f"features {cell.encoder} on {cell.dataset}"]
            before = group.get(weights_name(cell), (cell, frozenset()))[1]
            group[weights_name(cell)] = cell, before | task.reads
        lines = []
        for what, group in groups.items():
            done, size, seconds = 0, 0, 0.0
            for cell, reads in group.values():
                arrays = self._glimpse(cell).arrays
                encoder, known = self._encoder(cell, arrays.images.shape[-1])
                assert cell.encoder is not None
                if known and self.store.holds(feature_key(encoder, cell.encoder, arrays), reads):
                    done += 1
                    continue
                seconds = len(arrays) / self._speed(cell, encoder, arrays)
                need = total_bytes(feature_specs(encoder, arrays, reads)[0])
                size += need if need <= limit_bytes() else 0
            left = len(group) - done
            basis = "two batches measured" if left else "done"
            lines.append(Line(what, len(group), done, seconds, left * seconds, size, basis))
        return lines

    def _encoder(self, cell: Cell, channels: int) -> tuple[Encoder, bool]:
        """A cell's encoder, and whether its weights are the ones that it will have."""
        plan = cell.pretraining
        if plan is None or plan.file is not None:
            return build_encoder(cell, channels, None), True
        if not is_trained(plan, self.cache):
            return build_encoder(cell, channels, None), False
        weights = cache_folder(plan, self.cache) / "weights.safetensors"
        return build_encoder(cell, channels, weights), True

    def _speed(self, cell: Cell, encoder: Encoder, arrays: Arrays) -> float:
        if str(cell.encoder) not in self.speeds:
            self.speeds[str(cell.encoder)] = _images_per_second(encoder, arrays)
        return self.speeds[str(cell.encoder)]

    def _heads(self) -> list[Line]:
        """A line for each kind of cell."""
        groups: dict[str, list[Cell]] = defaultdict(list)
        for cell in self.plan.cells:
            groups[cell_kind(cell)].append(cell)
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
        known = self.timings.expected(cell_kind(cell))
        if known is not None:
            return known, "finished cells of this run"
        task = make_plugin("ecamp.tasks", self.plan.task_ref(cell.task))
        if cell.protocol in task.tunes:
            recipe = task.config
            arrays = self._glimpse(cell).arrays
            encoder, _ = self._encoder(cell, arrays.images.shape[-1])
            images = 3 * getattr(recipe, "steps", 150) * getattr(recipe, "batch_size", 64)
            seconds = (images + len(arrays)) / self._speed(cell, encoder, arrays)
            return seconds, "three times the encoder's forward pass"
        kind = "floor" if cell.floor else cell.protocol
        return ROUGH.get(kind, ROUGH_OTHER), "a rough figure, nothing measured"


def _step_seconds(plan: Pretraining, source: Source) -> tuple[float, int]:
    """Seconds of a step at the planned batch size, and bytes of the encoder's weights."""
    objective = build_objective(plan, source)
    trainer = Trainer(objective, plan.recipe, len(source))
    objective.train()
    seconds: list[float] = []
    try:
        for step in range(3):
            began = time.perf_counter()
            trainer.update(make_batches(source, plan.recipe, step))
            seconds.append(time.perf_counter() - began)
            if step == 0 and seconds[0] > LONG:
                break
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise EcampError(
            f"pretrain {plan.encoder} {plan.label}: memory runs out with "
            f"{plan.recipe.batch_size} pairs a step.",
            "Set pretrain.accumulate in the recipe: a step's batch then passes in parts.",
        ) from error
    weights = sum(value.nbytes for value in trainer.encoder_state().values())
    return float(np.mean(seconds[1:] or seconds)), weights  # the first one also warms up


def _images_per_second(encoder: Encoder, arrays: Arrays) -> float:
    """Two batches, of the planned size where that takes no longer than a second or two."""
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
        for _ in in_parts(encode, count, batch, "features"):
            pass
        return seconds / count

    with torch.no_grad():
        run(2, 2)  # warms up
        batch = int(min(max(1.0 / run(2, 2), 1), BATCH))
        return 1 / run(2 * batch, batch)


def format_cost(cost: Cost) -> list[str]:
    """Lines for a terminal."""
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
    out.append(f"  total {clock(cost.seconds)} (hours:minutes), {cost.bytes / 1e9:.2f} GB of disk")
    return out


def clock(seconds: float) -> str:
    """Hours:minutes, rounded up."""
    minutes = -int(-seconds // 60)
    return f"{minutes // 60}:{minutes % 60:02}"
