"""From a recipe to cells: what will be run, refused or warned about, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ecamp.config import BenchSpec, PluginRef, identity, validate
from ecamp.encoders.checkpoint_file import file_hash
from ecamp.errors import UsageError, did_you_mean
from ecamp.plugin.host import make_plugin
from ecamp.plugin.protocols import Dataset, EncoderPlugin, PretextPlugin, TaskPlugin
from ecamp.train.pretrain import PretrainRecipe, pretrain_key

# Bump when a change of code changes results for the same recipe: old cells are then not reused.
RESULTS_VERSION = 1

FLOORS = {
    "cls": ("constant", "pixel-statistics"),
    "seg": ("all-empty", "prior-mask"),
    "det": ("prior-box",),
}


@dataclass(frozen=True)
class Pretraining:
    """One pre-training, shared by many cells.

    Attributes:
        key: Identity; the cache folder's name.
        label: As results name it; without a folder of this machine.
        file: Weights that are there already: nothing is trained, and recipe and data say nothing.
    """

    encoder: PluginRef
    pretext: PluginRef
    data: PluginRef
    recipe: PretrainRecipe
    key: str
    label: str
    file: Path | None = None


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

    def as_json(self) -> dict[str, Any]:
        """Plain form for `plan.json` and `--dry-run`."""
        return {
            "cells": [
                {"id": cell.key, "kind": cell.kind, "task": cell.task, "label": cell.label}
                for cell in self.cells
            ],
            "pretrainings": [
                {"id": p.key, "encoder": str(p.encoder), "pretext": p.label}
                for p in self.pretrainings
            ],
            "notes": list(self.notes),
        }


def resolve_tasks(names: list[str], options: dict[str, dict[str, Any]]) -> dict[str, TaskPlugin]:
    """Make the tasks by name.

    Raises:
        MissingError, UsageError: Unknown task, or options for a task that does not run.
    """
    for name in options:
        if name not in names:
            raise UsageError(
                f"task_options names '{name}', which does not run.", did_you_mean(name, names)
            )
    return {
        name: make_plugin("ecamp.tasks", PluginRef(name=name, options=options.get(name, {})))
        for name in names
    }


def make_plan(spec: BenchSpec) -> Plan:
    """Resolve every plugin, refuse impossible pairs, and list the cells.

    Raises:
        UsageError, MissingError: Names the plugin, option or field and what to do.
    """
    tasks = resolve_tasks(spec.tasks, spec.task_options)
    datasets = [(ref, make_plugin("ecamp.datasets", ref)) for ref in spec.datasets]
    notes: list[str] = []
    pretrainings: dict[str, Pretraining] = {}
    cells: list[Cell] = []
    for encoder_ref in spec.encoders:
        encoder: EncoderPlugin = make_plugin("ecamp.encoders", encoder_ref)
        for pretext_ref in spec.pretext:
            pretraining = _pretraining(spec, encoder_ref, encoder, pretext_ref)
            if pretraining:
                pretrainings[pretraining.key] = pretraining
            for ref, dataset in datasets:
                cells += _cells(
                    spec, tasks, ref, dataset, encoder_ref, pretext_ref, pretraining, notes
                )
    for ref, dataset in datasets:
        cells += _floors(spec, tasks, ref, dataset, {c.protocol for c in cells})
    if not cells:
        raise UsageError("Nothing to run.", " ".join(dict.fromkeys(notes)))
    return Plan(spec, tuple(cells), tuple(pretrainings.values()), tuple(dict.fromkeys(notes)))


def _pretraining(
    spec: BenchSpec, encoder_ref: PluginRef, encoder: EncoderPlugin, pretext_ref: PluginRef
) -> Pretraining | None:
    if pretext_ref.name == "none":
        return None
    own = {k: v for k, v in pretext_ref.options.items() if k not in PretrainRecipe.model_fields}
    recipe = validate(
        PretrainRecipe,
        {
            "seed": spec.pretrain_seed,
            **spec.pretrain,
            **{k: v for k, v in pretext_ref.options.items() if k in PretrainRecipe.model_fields},
        },
        f"pre-training options of {pretext_ref}",
    )
    ref = pretext_ref.model_copy(update={"options": own})
    pretext: PretextPlugin = make_plugin("ecamp.pretext", ref)
    check_pair(encoder_ref, encoder, pretext_ref, pretext)
    file = pretext.weights_file()
    if file is not None:
        sha256 = file_hash(file)
        label = f"{ref.name}?{file.name}@{sha256[:8]}"
        key = identity({"weights": 1, "sha256": sha256})
        return Pretraining(encoder_ref, ref, spec.pretrain_data, recipe, key, label, file)
    data: Dataset = make_plugin("ecamp.datasets", spec.pretrain_data)
    check_needs(spec.pretrain_data, data, pretext_ref, pretext)
    key = pretrain_key(
        {
            "encoder": [encoder_ref.name, encoder_ref.variant, encoder.config.model_dump()],
            "pretext": [ref.name, ref.variant, pretext.config.model_dump()],
            "data": data.fingerprint(),
        },
        recipe,
    )
    return Pretraining(encoder_ref, ref, spec.pretrain_data, recipe, key, str(pretext_ref))


def check_pair(
    encoder_ref: PluginRef, encoder: EncoderPlugin, pretext_ref: PluginRef, pretext: PretextPlugin
) -> None:
    """Refuse an encoder that lacks what the pretext task requires."""
    lacking = sorted(pretext.requires - encoder.provides)
    if lacking:
        raise UsageError(
            f"pretext '{pretext_ref}' requires '{lacking[0]}', which encoder '{encoder_ref}' lacks.",
            "Masked image modelling needs a ViT, e.g. vit-micro or timm/vit_small_patch16_224.",
        )


def check_needs(
    data_ref: PluginRef, data: Dataset, pretext_ref: PluginRef, pretext: PretextPlugin
) -> None:
    """Refuse pre-training data without a field that the pretext task needs."""
    if "report" in pretext.needs and not data.info.has_reports:
        raise UsageError(
            f"pretext '{pretext_ref}' needs the field 'report', which data set '{data_ref}' lacks.",
            "Name one with reports: --pretrain-data phantom.",
        )


def _has(dataset: Dataset, need: str) -> bool:
    info = dataset.info
    return bool({"labels": info.labels, "mask": info.mask_classes, "boxes": info.box_classes}[need])


def _cells(
    spec: BenchSpec,
    tasks: dict[str, TaskPlugin],
    ref: PluginRef,
    dataset: Dataset,
    encoder: PluginRef,
    pretext: PluginRef,
    pretraining: Pretraining | None,
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
        for protocol in protocols:
            for fraction in spec.fractions:
                for seed in spec.seeds:
                    cells.append(
                        _cell(spec, dataset, task, ref, name, encoder, pretext, pretraining,
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
    size = int(make_plugin("ecamp.encoders", encoder or spec.encoders[0]).image_size)
    decisive = {
        "version": RESULTS_VERSION,
        "dataset": dataset.fingerprint(),
        "task": [name, task.config.model_dump()],
        "encoder": str(encoder) if encoder else None,
        "weights": pretraining.key if pretraining else "random",
        "protocol": protocol,
        "fraction": fraction,
        "seed": seed,
        "floor": floor,
        "size": size,
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
