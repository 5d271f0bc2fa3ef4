"""From a recipe to cells: what will be run, refused or warned about, before anything is computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ecamp
from ecamp.api.dataset import Dataset
from ecamp.api.encoder import AS_STORED, EncoderPlugin, InputSpec
from ecamp.api.origin import Origin
from ecamp.api.plugin_ref import PluginRef
from ecamp.api.task import FEATURES, TaskPlugin
from ecamp.bench.pretraining import (
    Pretraining,
    find_mismatch,
    plan_pretraining,
    request_pretext,
)
from ecamp.config import BenchSpec, identity
from ecamp.errors import UsageError, did_you_mean
from ecamp.plugin.host import make_plugin, skip_bad_rows

EVAL_SPLITS = ("train", "val", "test")

P = TypeVar("P")


@dataclass(frozen=True)
class Cell:
    """One evaluation. It carries its plugins, made once for all cells of a plan.

    Attributes:
        key: `id`, the hash of `identity_fields`.
        encoder: None for a floor.
        image_size: Side of the images in pixels: the encoder's, for a floor the first encoder's.
        expected_input: What the encoder expects of its images; for a floor, how the first
            encoder's are fitted to a square.
        pretext: As results name it; `-` for a floor.
        pretraining: None for random weights.
        floor: Name of a trivial predictor of the task; None for a cell with an encoder.
        identity_fields: Everything that determines the result.
    """

    key: str
    dataset: Dataset
    task: TaskPlugin
    encoder: EncoderPlugin | None
    image_size: int
    expected_input: InputSpec
    pretext: str
    pretraining: Pretraining | None
    protocol: str
    fraction: float
    seed: int
    floor: str | None
    identity_fields: dict[str, Any] = field(repr=False)

    @property
    def kind(self) -> str:
        """`floor`, or `cell` for an evaluation of an encoder."""
        return "floor" if self.floor else "cell"

    @property
    def label(self) -> str:
        """Short name for logs."""
        predictor = self.floor or f"{self.encoder_name} {self.pretext}"
        return (
            f"{self.dataset.ref} {self.task.ref.name} {self.protocol} {predictor} "
            f"{self.fraction:g} seed {self.seed}"
        )

    @property
    def encoder_name(self) -> str:
        """The encoder as the user wrote it; `-` for a floor."""
        return "-" if self.encoder is None else str(self.encoder.ref)

    @property
    def timing_key(self) -> str:
        """Key of cells with similar run time, features excluded."""
        name = self.task.ref.name
        if self.floor:
            return f"floor {name} {self.floor} {self.dataset.ref}"
        return f"{name} {self.protocol} {self.dataset.ref} {self.encoder_name}"

    @property
    def feature_timing_key(self) -> str:
        """Key of feature computations with similar run time."""
        return f"features {self.dataset.ref} {self.encoder_name}"

    @property
    def origins(self) -> dict[str, Origin]:
        """Where its plugins come from, by role."""
        origins = {"dataset": self.dataset.origin, "task": self.task.origin}
        if self.encoder is not None:
            origins["encoder"] = self.encoder.origin
        if self.pretraining is not None:
            origins["pretext"] = self.pretraining.pretext.origin
        return origins

    @property
    def uses_frozen_features(self) -> bool:
        """Whether its head reads cached features, so that other cells can share them."""
        return self.encoder is not None and self.protocol not in self.task.tunes

    @property
    def weights_key(self) -> str:
        """Key of the encoder's weights: random ones differ by seed, pre-trained ones do not."""
        if self.encoder is None:
            return "-"
        weights = self.pretraining.key if self.pretraining else f"random-{self.seed}"
        return f"{self.encoder_name}|{weights}"

    @property
    def feature_group_key(self) -> str:
        """Key of the cells that share features: one data set, one encoder, one set of weights."""
        return f"{self.dataset.ref}|{self.weights_key}"

    @property
    def weights_label(self) -> str:
        """The weights for people: encoder, pretext, and the seed that determines them."""
        label, pretraining = f"{self.encoder_name} {self.pretext}", self.pretraining
        if pretraining is not None and pretraining.file is not None:
            return label
        return f"{label} seed {self.seed if pretraining is None else pretraining.recipe.seed}"


@dataclass(frozen=True)
class FeatureGroup:
    """Cells that share the features of one encoder on one data set.

    Attributes:
        reads: Features that any of them reads, of `TaskPlugin.reads`.
    """

    cells: tuple[Cell, ...]
    reads: frozenset[str]


@dataclass(frozen=True)
class Plan:
    """All cells of a recipe, in the order of the recipe, and notes on what was left out.

    Attributes:
        spec: The recipe, options of plugins as their fields read them.
    """

    spec: BenchSpec
    cells: tuple[Cell, ...]
    pretrainings: tuple[Pretraining, ...]
    notes: tuple[str, ...]

    def feature_groups(self, cells: Iterable[Cell] | None = None) -> dict[str, FeatureGroup]:
        """Group the cells with frozen features by what they share.

        Args:
            cells: Those that still have to run; all of the plan by default.
        """
        groups: dict[str, list[Cell]] = defaultdict(list)
        for cell in self.cells if cells is None else cells:
            if cell.uses_frozen_features:
                groups[cell.feature_group_key].append(cell)
        return {
            key: FeatureGroup(tuple(group), frozenset().union(*(c.task.reads for c in group)))
            for key, group in groups.items()
        }

    def in_run_order(self, cells: Iterable[Cell]) -> list[Cell]:
        """Sort cells so that those which share features are neighbours, floors first."""
        return sorted(cells, key=lambda c: (str(c.dataset.ref), c.kind != "floor", c.weights_key))

    def as_json(self) -> dict[str, Any]:
        """Return the plain form for `plan.json` and `--dry-run`."""
        return {
            "cells": [
                {"id": cell.key, "kind": cell.kind, "task": cell.task.ref.name, "label": cell.label}
                for cell in self.cells
            ],
            "pretrainings": [
                {
                    "id": p.key,
                    "encoder": str(p.encoder.ref),
                    "pretext": p.label,
                    "seed": p.recipe.seed,
                }
                for p in self.pretrainings
            ],
            "plugins": [origin.as_json() for origin in self.origins()],
            "notes": list(self.notes),
        }

    def origins(self) -> list[Origin]:
        """List where all plugins of the cells and of their pre-training data come from, each once."""
        found = {origin for cell in self.cells for origin in cell.origins.values()}
        found |= {dataset.origin for item in self.pretrainings for dataset in item.data}
        return sorted(found, key=lambda origin: (origin.group, origin.name, origin.dist))


def resolve_tasks(spec: BenchSpec) -> list[TaskPlugin]:
    """Make the tasks of a recipe.

    Raises:
        MissingError, UsageError: Unknown task, options for a task that does not run, or a task that
            reads features which do not exist.
    """
    tasks: list[TaskPlugin] = [make_plugin("ecamp.tasks", ref) for ref in spec.task_refs().values()]
    for task in tasks:
        if unknown := sorted(task.reads - FEATURES):
            raise UsageError(
                f"task '{task.ref.name}' reads '{unknown[0]}'.", did_you_mean(unknown[0], FEATURES)
            )
    return tasks


def make_plan(spec: BenchSpec) -> Plan:
    """Make every plugin once, note impossible pairs, and list the cells of the others.

    Raises:
        UsageError, MissingError: Names the plugin, option or field and what to do.
    """
    if spec.on_bad_image == "skip":
        refs = {
            name: [skip_bad_rows(ref) for ref in getattr(spec, name)]
            for name in ("datasets", "pretrain_data")
        }
        spec = spec.model_copy(update=refs)
    return _Planner(spec).plan()


class _Planner:
    """Plugins of a recipe, and the cells made of them."""

    def __init__(self, spec: BenchSpec) -> None:
        self.spec = spec
        self.tasks = resolve_tasks(spec)
        make_dataset = _once(lambda ref: make_plugin("ecamp.datasets", ref))
        self.datasets: list[Dataset] = [make_dataset(ref) for ref in spec.datasets]
        self.encoders: list[EncoderPlugin] = [
            make_plugin("ecamp.encoders", ref) for ref in spec.encoders
        ]
        self.pretexts = [request_pretext(ref) for ref in spec.pretext]
        self.pretrain_data: tuple[Dataset, ...] = tuple(map(make_dataset, spec.pretrain_data))
        # Options as their fields read them: a recipe file and a command line that mean the same agree.
        self.spec = spec.model_copy(
            update={
                "tasks": [task.ref for task in self.tasks],
                "datasets": [dataset.ref for dataset in self.datasets],
                "encoders": [encoder.ref for encoder in self.encoders],
                "pretext": [request.ref for request in self.pretexts],
                "pretrain_data": [dataset.ref for dataset in self.pretrain_data],
                "task_options": {},
            }
        )
        self.notes: dict[str, None] = {}  # in order, each once

    def plan(self) -> Plan:
        pretrainings: dict[str, Pretraining] = {}
        cells: list[Cell] = []
        for encoder in self.encoders:
            for request in self.pretexts:
                if mismatch := find_mismatch(encoder, request, self.pretrain_data):
                    self._note(f"{mismatch}: this pair is left out.")
                    continue
                by_seed = {
                    seed: plan_pretraining(
                        self.spec, encoder, request, self.pretrain_data, self._pretrain_seed(seed)
                    )
                    for seed in self.spec.seeds
                }
                pretrainings |= {p.key: p for p in by_seed.values() if p}
                for dataset in self.datasets:
                    cells += self._cells(dataset, encoder, str(request.ref), by_seed)
        used = {cell.protocol for cell in cells}
        for dataset in self.datasets:
            cells += self._floors(dataset, used)
        cells = self._unique(cells)
        if not cells:
            raise UsageError("Nothing to run.", "\n  ".join(self.notes))
        return Plan(self.spec, tuple(cells), tuple(pretrainings.values()), tuple(self.notes))

    def _unique(self, cells: list[Cell]) -> list[Cell]:
        """Drop cells that another spelling of the same plugin repeats: one result, one row."""
        unique: dict[str, Cell] = {}
        for cell in cells:
            first = unique.setdefault(cell.key, cell)
            if first is not cell:
                self._note(f"{cell.label} is the same as {first.label}: it is evaluated once.")
        return list(unique.values())

    def _pretrain_seed(self, seed: int) -> int:
        return seed if self.spec.pretrain_seed == "cell" else self.spec.pretrain_seed

    def _note(self, text: str) -> None:
        self.notes[text] = None

    def _cells(
        self,
        dataset: Dataset,
        encoder: EncoderPlugin,
        pretext: str,
        by_seed: dict[int, Pretraining | None],
    ) -> list[Cell]:
        cells = []
        for task in self.tasks:
            name = task.ref.name
            if lacking := _lacking(dataset, task):
                self._note(f"{dataset.ref} {lacking}: {name} is left out there.")
                continue
            protocols = [p for p in task.protocols if p in self.spec.protocols]
            if not protocols:
                self._note(
                    f"{name} knows the protocols {', '.join(task.protocols)}; none was asked for."
                )
            for protocol in protocols:
                required = task.requires.get(protocol)
                added = [p.adds for p in by_seed.values() if p is not None]
                if required and required not in encoder.provides.union(*added):
                    self._note(
                        f"{encoder.ref} {pretext} has no '{required}': {name} {protocol} is left out "
                        "there."
                    )
                    continue
                # A protocol that learns from no label is the same at every fraction of them.
                fractions = self.spec.fractions[-1:] if required else self.spec.fractions
                for fraction in fractions:
                    for seed in self.spec.seeds:
                        pretraining = by_seed[seed]
                        label = pretraining.label if pretraining else pretext
                        cells.append(
                            self._cell(dataset, task, encoder, label, pretraining, protocol,
                                       fraction, seed, None)
                        )  # fmt: skip
        return cells

    def _floors(self, dataset: Dataset, protocols: set[str]) -> list[Cell]:
        return [
            self._cell(dataset, task, None, "-", None, "-", fraction, 0, floor)
            for task in self.tasks
            if not _lacking(dataset, task) and protocols & set(task.protocols)
            for floor in task.floors()
            for fraction in self.spec.fractions
        ]

    def _cell(
        self,
        dataset: Dataset,
        task: TaskPlugin,
        encoder: EncoderPlugin | None,
        pretext: str,
        pretraining: Pretraining | None,
        protocol: str,
        fraction: float,
        seed: int,
        floor: str | None,
    ) -> Cell:
        shown = encoder or self.encoders[0]
        size, expected = int(shown.image_size), shown.input_spec
        if encoder is None:
            expected = InputSpec(fit=expected.fit)
        fields = {
            "version": ecamp.__results_version__,
            "dataset": dataset.identity,
            "task": task.identity,
            "encoder": encoder.identity if encoder else None,
            "weights": pretraining.key if pretraining else "random",
            "protocol": protocol,
            "fraction": fraction,
            "seed": seed,
            "floor": floor,
            "size": size,
            "bootstrap": self.spec.bootstrap,
            "on_bad_image": self.spec.on_bad_image,
        }
        if expected != AS_STORED:
            fields["input"] = expected.as_json()
        return Cell(
            identity(fields), dataset, task, encoder, size, expected, pretext, pretraining,
            protocol, fraction, seed, floor, fields,
        )  # fmt: skip


def _lacking(dataset: Dataset, task: TaskPlugin) -> str:
    """Describe why a data set cannot give a task its truth or texts; empty where it can."""
    info = dataset.info
    for need in filter(None, (task.needs, task.text_inputs)):
        if not info.has(need):
            return f"has no {need} (it has {', '.join(info.known_truths) or 'none'})"
    kinds = {truth.name: truth.kind for truth in info.truths}
    expected = {task.needs: task.needs_kind, task.text_inputs: "text"}
    for name, kind in expected.items():
        if kind and kinds.get(name, kind) != kind:
            return f"has {name} as {kinds[name]}, not {kind}"
    return ""


def _once(make: Callable[[PluginRef], P]) -> Callable[[PluginRef], P]:
    """Make each named plugin once: tables of a large data set are then read once."""
    made: dict[str, P] = {}

    def get(ref: PluginRef) -> P:
        if str(ref) not in made:
            made[str(ref)] = make(ref)
        return made[str(ref)]

    return get
