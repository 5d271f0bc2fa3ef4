"""One pre-training: planned (or refused) before anything is computed, run once, cached by identity."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ecamp.config import BenchSpec, PluginRef, identity, validate
from ecamp.data.arrays import materialise
from ecamp.data.cache import Use, write_meta
from ecamp.data.store import atomic_path, cache_root, content_hash, locked
from ecamp.encoders.checkpoints import load_encoder
from ecamp.errors import DataError, UsageError
from ecamp.plugin.host import make_plugin
from ecamp.plugin.protocols import Dataset, EncoderPlugin, PretextPlugin, Record
from ecamp.pretext.base import Objective
from ecamp.train.pretrain import pretrain, pretrain_key
from ecamp.train.recipe import PretrainRecipe
from ecamp.train.source import Part, Source

Watch = Callable[[Source, Path], Callable[[int, Objective], None]]


@dataclass(frozen=True)
class Pretraining:
    """One pre-training, shared by many cells.

    Attributes:
        init: Weights to start from; None starts from random ones.
        key: Identity; the cache folder's name.
        label: As results name it; without a folder of this machine.
        file: Weights that are there already: nothing is trained, and recipe and data say nothing.
    """

    encoder: PluginRef
    pretext: PluginRef
    data: tuple[PluginRef, ...]
    recipe: PretrainRecipe
    init: Path | None
    key: str
    label: str
    file: Path | None = None


def plan_pretraining(
    spec: BenchSpec,
    encoder_ref: PluginRef,
    encoder: EncoderPlugin,
    pretext_ref: PluginRef,
    seed: int,
) -> Pretraining | None:
    """What one encoder x pretext x seed needs; None where nothing is trained.

    Raises:
        UsageError, MissingError: An impossible pair or a wrong option; names it.
    """
    if pretext_ref.name == "none":
        return None
    own = {k: v for k, v in pretext_ref.options.items() if k not in PretrainRecipe.model_fields}
    asked = {k: v for k, v in pretext_ref.options.items() if k in PretrainRecipe.model_fields}
    recipe = validate(
        PretrainRecipe,
        {"seed": seed, **spec.pretrain, **asked},
        f"pre-training options of {pretext_ref}",
    )
    ref = pretext_ref.model_copy(update={"options": own})
    pretext: PretextPlugin = make_plugin("ecamp.pretext", ref)
    check_pair(encoder_ref, encoder, pretext_ref, pretext)
    data_refs = tuple(spec.pretrain_data)
    file = pretext.weights_file()
    if file is not None:
        digest = content_hash(file)
        label = f"{ref.name}@{digest[:8]}"
        key = identity({"weights": 1, "sha256": digest})
        return Pretraining(encoder_ref, ref, data_refs, recipe, None, key, label, file)
    fingerprints = []
    for data_ref in data_refs:
        data: Dataset = make_plugin("ecamp.datasets", data_ref)
        check_needs(data_ref, data, pretext_ref, pretext)
        fingerprints.append(data.fingerprint())
    init = None if spec.init_from is None else Path(spec.init_from)
    parts: dict[str, object] = {
        "encoder": [encoder_ref.name, encoder_ref.variant, encoder.decisive()],
        "pretext": [ref.name, ref.variant, pretext.decisive()],
        "data": fingerprints,
        "init": None if init is None else content_hash(init),
    }
    key = pretrain_key(parts, recipe)
    return Pretraining(encoder_ref, ref, data_refs, recipe, init, key, str(pretext_ref))


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


def read_source(
    plan: Pretraining, size: int, on_bad_image: str, cache: Path | None, say: Callable[[str], None]
) -> Source:
    """The pairs of all data sets of a pre-training, decoded at `size` pixels.

    A data set's split `pretrain` is used, else `train`: never what is validated or tested on. An
    image without a report is left out where the pretext task needs one.

    Raises:
        DataError: No pair is left; data sets of different channels.
    """
    needs = make_plugin("ecamp.pretext", plan.pretext).needs
    parts = []
    for ref in plan.data:
        data = make_plugin("ecamp.datasets", ref)
        split = pretrain_split(data.records())
        arrays = materialise(
            data, size, splits=[split], on_bad_image=on_bad_image, cache=cache, log=say
        )
        rows = arrays.where(split)
        if "report" in needs:
            told = rows[[bool(arrays.reports[i].strip()) for i in rows]]
            if len(told) < len(rows):
                say(f"{ref}: {len(rows) - len(told)} images without a report are left out")
            rows = told
        if not len(rows):
            raise DataError(f"{ref}: no image with a report in split '{split}'.")
        parts.append(Part(arrays, rows))
    channels = {part.arrays.images.shape[-1] for part in parts}
    if len(channels) > 1:
        raise DataError(
            "pre-training data: grey and colour data sets do not mix.",
            "Set `colour` in their dataset.yaml to the same value.",
        )
    return Source(parts)


def pretrain_split(records: Sequence[Record]) -> str:
    """The split of a data set that is pre-trained on."""
    return "pretrain" if any(record.split == "pretrain" for record in records) else "train"


def build_objective(plan: Pretraining, source: Source) -> Objective:
    """Encoder and objective with fresh weights from the recipe's seed, or warm-started ones."""
    torch.manual_seed(plan.recipe.seed)
    channels = source.parts[0].arrays.images.shape[-1]
    encoder = make_plugin("ecamp.encoders", plan.encoder).build(channels)
    if plan.init is not None:
        load_encoder(encoder, plan.init)
        encoder.pretrained = True  # an objective that draws weights anew leaves these alone
    pretext: PretextPlugin = make_plugin("ecamp.pretext", plan.pretext)
    return pretext.build(encoder, source.context(plan.recipe.scale))


def run_pretraining(
    plan: Pretraining,
    on_bad_image: str,
    cache: Path | None,
    say: Callable[[str], None],
    progress: Callable[[int, int, dict[str, float]], None] = lambda step, total, losses: None,
    watch: Watch | None = None,
) -> Path:
    """Pre-train once; a later caller gets the cached weights.

    Args:
        watch: Makes the observer of the training from its data and folder (pictures).

    Returns:
        The folder with `weights.safetensors`, `pretrain.json`, `metrics.jsonl`.
    """
    folder = cache_folder(plan, cache)
    with locked(folder.with_suffix(".lock")):
        if is_trained(plan, cache):
            Use(folder).close()
            return folder
        size = make_plugin("ecamp.encoders", plan.encoder).image_size * plan.recipe.scale
        source = read_source(plan, size, on_bad_image, cache, say)
        total = plan.recipe.total_steps(len(source))
        write_meta(folder, _describe(plan), [])
        say(
            f"pre-training {plan.encoder} with {plan.pretext}: {total} steps on {len(source)} pairs"
        )
        extra: dict[str, Any] = {} if watch is None else {"observe": watch(source, folder)}
        pretrain(
            build_objective(plan, source),
            source,
            plan.recipe,
            folder,
            plan.key,
            lambda step, losses: progress(step, total, losses),
            say,
            **extra,
        )
        write_meta(folder, _describe(plan), ["weights.safetensors", "pretrain.json"])
        Use(folder).close()
    return folder


def cache_folder(plan: Pretraining, cache: Path | None) -> Path:
    """Where a pre-training is kept."""
    return cache_root(cache) / "pretrain" / plan.key


def is_trained(plan: Pretraining, cache: Path | None) -> bool:
    """Whether a pre-training is done."""
    folder = cache_folder(plan, cache)
    return (folder / "weights.safetensors").exists() and (folder / "pretrain.json").exists()


def _describe(plan: Pretraining) -> str:
    data = ", ".join(str(ref) for ref in plan.data)
    return f"{plan.encoder} {plan.label} on {data}, seed {plan.recipe.seed}"


def copy_pretraining(folder: Path, out: Path) -> None:
    """Copy weights, identity, losses and pictures from the cache to where the user looks."""
    names = ["weights.safetensors", "pretrain.json", "metrics.jsonl"]
    names += [str(path.relative_to(folder)) for path in sorted(folder.glob("preview/*.png"))]
    for name in names:
        with atomic_path(out / name) as temporary:
            shutil.copyfile(folder / name, temporary)
