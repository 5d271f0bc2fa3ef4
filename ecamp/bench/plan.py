"""From a recipe to cells: what will be run, refused or warned about, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ecamp.bench.pretraining import Pretraining, plan_pretraining
from ecamp.config import BenchSpec, PluginRef, identity
from ecamp.errors import UsageError, did_you_mean
from ecamp.plugin.host import make_plugin, skip_bad_rows
from ecamp.plugin.protocols import FEATURES, Dataset, EncoderPlugin, TaskPlugin

# Bump when a change of code changes results for the same recipe: old cells are then not reused.
RESULTS_VERSION = 2

EVAL_SPLITS = ("train", "val", "test")

FLOORS = {
    "cls": ("constant", "pixel-statistics"),
    "seg": ("all-empty", "prior-mask"),
    "det": ("prior-box",),
}


@dataclass(frozen=True)
class Cell:
    """One evaluation.

    Attributes:
        key: `id`, the hash of all that decides the result.
        pretraining: None for random weights.
        decisive: What was hashed.
    """

    key: str
    kind: str  # cell | floor
    dataset: PluginRef
    task: str
    encoder: PluginRef | None
    pretext: str
    pretraining: Pretraining | None
    protocol: str
    fraction: float
    seed: int
    floor: str | None
    decisive: dict[str, Any] = field(repr=False)

    @property
    def label(self) -> str:
        """Short name for logs."""
        who = self.floor or f"{self.encoder} {self.pretext}"
        return (
            f"{self.dataset} {self.task} {self.protocol} {who} {self.fraction:g} seed {self.seed}"
        )


@dataclass(frozen=True)
class Plan:
    """All cells of a recipe, in the order they run, and what was left out."""

    spec: BenchSpec
    cells: tuple[Cell, ...]
    pretrainings: tuple[Pretraining, ...]
    notes: tuple[str, ...]

    def task_ref(self, name: str) -> PluginRef:
        """A task with the recipe's options."""
        return PluginRef(name=name, options=self.spec.task_options.get(name, {}))

    def as_json(self) -> dict[str, Any]:
        """Plain form for `plan.json` and `--dry-run`."""
        return {
            "cells": [
                {"id": cell.key, "kind": cell.kind, "task": cell.task, "label": cell.label}
                for cell in self.cells
            ],
            "pretrainings": [
                {
                    "id": p.key,
                    "encoder": str(p.encoder),
                    "pretext": p.label,
                    "seed": p.recipe.seed,
                }
                for p in self.pretrainings
            ],
            "notes": list(self.notes),
        }


def resolve_tasks(names: list[str], options: dict[str, dict[str, Any]]) -> dict[str, TaskPlugin]:
    """Make the tasks by name.

    Raises:
        MissingError, UsageError: Unknown task, options for a task that does not run, or a task that
            reads features which there are not.
    """
    for name in options:
        if name not in names:
            raise UsageError(
                f"task_options names '{name}', which does not run.", did_you_mean(name, names)
            )
    tasks: dict[str, TaskPlugin] = {
        name: make_plugin("ecamp.tasks", PluginRef(name=name, options=options.get(name, {})))
        for name in names
    }
    for name, task in tasks.items():
        if unknown := sorted(task.reads - FEATURES):
            raise UsageError(
                f"task '{name}' reads '{unknown[0]}'.", did_you_mean(unknown[0], FEATURES)
            )
    return tasks


def make_plan(spec: BenchSpec) -> Plan:
    """Resolve every plugin, refuse impossible pairs, and list the cells.

    Raises:
        UsageError, MissingError: Names the plugin, option or field and what to do.
    """
    if spec.on_bad_image == "skip":
        refs = {
            name: [skip_bad_rows(ref) for ref in getattr(spec, name)]
            for name in ("datasets", "pretrain_data")
        }
        spec = spec.model_copy(update=refs)
    tasks = resolve_tasks(spec.tasks, spec.task_options)
    datasets = [(ref, make_plugin("ecamp.datasets", ref)) for ref in spec.datasets]
    notes: list[str] = []
    pretrainings: dict[str, Pretraining] = {}
    cells: list[Cell] = []
    for encoder_ref in spec.encoders:
        encoder: EncoderPlugin = make_plugin("ecamp.encoders", encoder_ref)
        for pretext_ref in spec.pretext:
            by_seed = {
                seed: plan_pretraining(
                    spec, encoder_ref, encoder, pretext_ref,
                    seed if spec.pretrain_seed == "cell" else spec.pretrain_seed,
                )
                for seed in spec.seeds
            }  # fmt: skip
            pretrainings |= {p.key: p for p in by_seed.values() if p}
            for ref, dataset in datasets:
                cells += _cells(spec, tasks, ref, dataset, encoder_ref, pretext_ref, by_seed, notes)
    for ref, dataset in datasets:
        cells += _floors(spec, tasks, ref, dataset, {c.protocol for c in cells})
    if not cells:
        raise UsageError("Nothing to run.", " ".join(dict.fromkeys(notes)))
    return Plan(spec, tuple(cells), tuple(pretrainings.values()), tuple(dict.fromkeys(notes)))


def _has(dataset: Dataset, need: str) -> bool:
    info = dataset.info
    has = {"labels": info.labels, "mask": info.mask_classes, "boxes": info.box_classes}
    return bool({**has, "report": info.has_reports}[need])


def _cells(
    spec: BenchSpec,
    tasks: dict[str, TaskPlugin],
    ref: PluginRef,
    dataset: Dataset,
    encoder: PluginRef,
    pretext: PluginRef,
    by_seed: dict[int, Pretraining | None],
    notes: list[str],
) -> list[Cell]:
    cells = []
    for name, task in tasks.items():
        if not _has(dataset, task.needs):
            notes.append(f"{ref} has no {task.needs}: {name} is left out there.")
            continue
        protocols = [p for p in task.protocols if p in spec.protocols]
        if not protocols:
            notes.append(
                f"{name} knows the protocols {', '.join(task.protocols)}; none was asked for."
            )
        provided = make_plugin("ecamp.encoders", encoder).provides
        for protocol in protocols:
            required = task.requires.get(protocol)
            if required and required not in provided:
                notes.append(f"{encoder} has no '{required}': {name} {protocol} is left out there.")
                continue
            # What learns from no label is the same at every share of them: it stands once.
            for fraction in spec.fractions[-1:] if required else spec.fractions:
                for seed in spec.seeds:
                    cells.append(
                        _cell(spec, dataset, task, ref, name, encoder, pretext, by_seed[seed],
                              protocol, fraction, seed, None)
                    )  # fmt: skip
    return cells


def _floors(
    spec: BenchSpec,
    tasks: dict[str, TaskPlugin],
    ref: PluginRef,
    dataset: Dataset,
    protocols: set[str],
) -> list[Cell]:
    cells = []
    for name, task in tasks.items():
        if not _has(dataset, task.needs) or not protocols & set(task.protocols):
            continue
        for floor in FLOORS.get(name, ()):
            for fraction in spec.fractions:
                cells.append(
                    _cell(spec, dataset, task, ref, name, None, None, None, "-", fraction, 0, floor)
                )
    return cells


def _cell(
    spec: BenchSpec,
    dataset: Dataset,
    task: TaskPlugin,
    ref: PluginRef,
    name: str,
    encoder: PluginRef | None,
    pretext: PluginRef | None,
    pretraining: Pretraining | None,
    protocol: str,
    fraction: float,
    seed: int,
    floor: str | None,
) -> Cell:
    made: EncoderPlugin = make_plugin("ecamp.encoders", encoder or spec.encoders[0])
    decisive = {
        "version": RESULTS_VERSION,
        "dataset": dataset.fingerprint(),
        "task": [name, task.decisive()],
        "encoder": [str(encoder), made.decisive()] if encoder else None,
        "weights": pretraining.key if pretraining else "random",
        "protocol": protocol,
        "fraction": fraction,
        "seed": seed,
        "floor": floor,
        "size": int(made.image_size),
        "bootstrap": spec.bootstrap,
        "on_bad_image": spec.on_bad_image,
    }
    return Cell(
        identity(decisive),
        "floor" if floor else "cell",
        ref,
        name,
        encoder,
        pretraining.label if pretraining else str(pretext or "-"),
        pretraining,
        protocol,
        fraction,
        seed,
        floor,
        decisive,
    )
