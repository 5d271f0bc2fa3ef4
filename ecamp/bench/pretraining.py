"""Pre-trainings: planned (or refused) before anything is computed, run once, cached by identity."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ecamp.api.dataset import Dataset, Record
from ecamp.api.encoder import Encoder, EncoderPlugin
from ecamp.api.plugin_ref import PluginRef
from ecamp.api.pretext import Objective, PretextPlugin
from ecamp.config import BenchSpec, identity, typed_options, validate
from ecamp.data.arrays import materialise
from ecamp.encoders.checkpoints import load_encoder
from ecamp.encoders.weights_card import check_encoder, describe_mismatch, make_card, read_card
from ecamp.errors import DataError, UsageError
from ecamp.plugin.host import find_plugin
from ecamp.progress import Progress, no_progress
from ecamp.storage.cache import EntryLease, write_meta
from ecamp.storage.files import atomic_path, cache_root, content_hash, locked, read_json
from ecamp.train.observer import Observer
from ecamp.train.pairs import PairDataset, PairSubset
from ecamp.train.pretrain import pretrain, pretrain_key
from ecamp.train.recipe import PretrainRecipe

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretraining:
    """One pre-training, shared by many cells.

    Attributes:
        init: Weights to start from; None starts from random ones.
        key: Identity; the cache folder's name.
        label: As results name it; without a folder of this machine.
        file: Finished weights: nothing is trained, and recipe and data have no effect.
    """

    encoder: EncoderPlugin
    pretext: PretextPlugin
    data: tuple[Dataset, ...]
    recipe: PretrainRecipe
    init: Path | None
    key: str
    label: str
    file: Path | None = None

    @cached_property
    def adds(self) -> frozenset[str]:
        """Capabilities that the result has beyond the encoder."""
        if self.file is None:
            return self.pretext.adds
        card = read_card(self.file)
        return frozenset() if card is None else frozenset(card.adds)

    def rebuild(self, encoder: Encoder, weights: Path) -> Encoder:
        """Make the module that weights belong to: the encoder, with what the pretext task added.

        Raises:
            MissingError: The pretext task that wrote the file is not installed.
        """
        if not self.adds:
            return encoder
        if self.file is None:
            return self.pretext.rebuild(encoder, read_json(weights.parent / "pretrain.json"))
        card = read_card(self.file)
        assert card is not None  # it has added something
        return request_pretext(PluginRef.parse(card.pretext)).plugin.rebuild(encoder, card.extra)

    @property
    def timing_key(self) -> str:
        """Key of pre-trainings with similar run time."""
        return f"pretrain {self.encoder.ref} {self.label}"


@dataclass(frozen=True)
class PretextRequest:
    """A pretext as the recipe names it: its plugin, and what it sets of the optimisation.

    Attributes:
        ref: As written by the user, options of the optimisation included.
        plugin: Made with its own options.
        recipe: Fields of `PretrainRecipe` that the user set with the pretext.
    """

    ref: PluginRef
    plugin: PretextPlugin
    recipe: dict[str, Any]


def request_pretext(ref: PluginRef) -> PretextRequest:
    """Make a pretext plugin, its options separated from those of the optimisation.

    An option of the plugin's own goes to the plugin, also where the optimisation has one of that
    name; the latter is then set by the recipe's `pretrain`.

    Raises:
        UsageError, MissingError: Unknown pretext or a wrong option.
    """
    loaded = find_plugin("ecamp.pretext", ref)
    fields = loaded.cls.Config.model_fields
    asked = {
        name: value
        for name, value in ref.options.items()
        if name in PretrainRecipe.model_fields and name not in fields
    }
    own = {name: value for name, value in ref.options.items() if name not in asked}
    plugin = loaded.make(ref.model_copy(update={"options": own}))
    asked = typed_options(PretrainRecipe, asked)
    ref = ref.model_copy(update={"options": {**plugin.ref.options, **asked}})
    return PretextRequest(ref, plugin, asked)


def plan_pretraining(
    spec: BenchSpec,
    encoder: EncoderPlugin,
    request: PretextRequest,
    data: tuple[Dataset, ...],
    seed: int,
) -> Pretraining | None:
    """Plan the pre-training of one encoder x pretext x seed; None where nothing is trained.

    Args:
        data: The pre-training data sets of the recipe.

    Raises:
        UsageError, MissingError: A wrong option, or a batch in parts for a pretext that compares all
            of it; names it.
    """
    pretext = request.plugin
    if not pretext.trains:
        return None
    recipe = validate(
        PretrainRecipe,
        {"seed": seed, **pretext.recipe_defaults(), **spec.pretrain, **request.recipe},
        f"pre-training options of {request.ref}",
    )
    if pretext.whole_batch and recipe.accumulate > 1:
        raise UsageError(
            f"pretext '{request.ref}' compares the samples of a whole batch: accumulate="
            f"{recipe.accumulate} would be another loss.",
            "Leave accumulate at 1 and choose a batch_size that fits into memory.",
        )
    file = pretext.weights_file()
    if file is not None:
        digest = content_hash(file)
        label = f"{pretext.ref.name}@{digest[:8]}"
        card = read_card(file)
        # A text side is made again by the code of the pretext task that added it.
        added = (
            request_pretext(PluginRef.parse(card.pretext)).plugin if card and card.adds else None
        )
        key = identity(
            {"weights": 1, "sha256": digest, **({"rebuilt": added.identity} if added else {})}
        )
        return Pretraining(encoder, pretext, data, recipe, None, key, label, file)
    init = None if spec.init_from is None else Path(spec.init_from).expanduser()
    if init is not None:
        check_encoder(init, read_card(init), encoder)
    parts: dict[str, object] = {
        "encoder": encoder.identity,
        "pretext": pretext.identity,
        "data": [dataset.identity for dataset in data],
        "views": [asdict(view) for view in pretext.views()],
        "init": None if init is None else content_hash(init),
    }
    key = pretrain_key(parts, recipe)
    return Pretraining(encoder, pretext, data, recipe, init, key, str(request.ref))


def find_mismatch(
    encoder: EncoderPlugin, request: PretextRequest, data: tuple[Dataset, ...]
) -> str | None:
    """Tell why a pair of encoder and pretext cannot be pre-trained; None where it can.

    The encoder lacks what the pretext requires, finished weights belong to another encoder, or the
    pre-training data lack what the pretext needs.

    Raises:
        MissingError, DataError: No file of weights, or one that cannot be read; names it.
    """
    pretext = request.plugin
    lacking = sorted(pretext.requires - encoder.provides)
    if lacking:
        return (
            f"pretext '{request.ref}' requires '{lacking[0]}', which encoder '{encoder.ref}' lacks"
        )
    file = pretext.weights_file()
    if file is not None:
        return describe_mismatch(file, read_card(file), encoder)
    for dataset in data:
        if "report" in pretext.needs and not dataset.info.has_reports:
            return f"pretext '{request.ref}' needs reports, which data set '{dataset.ref}' lacks"
    return None


def read_source(
    plan: Pretraining,
    size: int,
    on_bad_image: str,
    cache: Path | None,
    progress: Progress = no_progress,
) -> PairDataset:
    """Decode the pairs of all data sets of a pre-training at `size` pixels.

    The split `pretrain` of a data set is used, else `train`: never what is validated or tested on.
    Images without a report are left out where the pretext task needs one.

    Raises:
        DataError: No pair is left; data sets of different channels.
    """
    parts = []
    for data in plan.data:
        split = pretrain_split(data.records())
        arrays = materialise(
            data, size, splits=[split], expected=plan.encoder.input_spec, on_bad_image=on_bad_image,
            cache=cache, progress=progress,
        )  # fmt: skip
        rows = arrays.where(split)
        if "report" in plan.pretext.needs:
            with_report = rows[[bool(arrays.reports[i].strip()) for i in rows]]
            if len(with_report) < len(rows):
                left_out = len(rows) - len(with_report)
                _log.info("%s: %d images without a report are left out", data.ref, left_out)
            rows = with_report
        if not len(rows):
            raise DataError(f"{data.ref}: no image with a report in split '{split}'.")
        parts.append(PairSubset(arrays, rows))
    channels = {part.arrays.channels for part in parts}
    if len(channels) > 1:
        raise DataError(
            "pre-training data: data sets of different numbers of channels do not mix.",
            "Set `colour` in their dataset.yaml to the same value.",
        )
    return PairDataset(parts)


def pretrain_split(records: Sequence[Record]) -> str:
    """Choose the split of a data set that is pre-trained on."""
    return "pretrain" if any(record.split == "pretrain" for record in records) else "train"


def build_objective(plan: Pretraining, source: PairDataset) -> Objective:
    """Build encoder and objective with fresh weights from the recipe's seed, or warm-started ones."""
    torch.manual_seed(plan.recipe.seed)
    channels = source.parts[0].arrays.channels
    encoder = plan.encoder.build(channels)
    if plan.init is not None:
        card = read_card(plan.init)
        if card is not None and card.adds:
            raise UsageError(
                f"{plan.init}: holds an encoder with '{card.adds[0]}', added by '{card.pretext}'; it "
                "cannot be continued.",
                f"Evaluate it: --pretext 'weights?path={plan.init}'.",
            )
        load_encoder(encoder, plan.init, plan.encoder)
        encoder.pretrained = True  # an objective that draws weights anew leaves these alone
    return plan.pretext.build(encoder, source.context(plan.recipe))


def run_pretraining(
    plan: Pretraining,
    on_bad_image: str,
    cache: Path | None,
    *,
    progress: Progress = no_progress,
    observer: Observer | None = None,
) -> Path:
    """Pre-train once; a later caller gets the cached weights.

    Args:
        progress: Receives images as they are decoded, then steps.
        observer: Observes the training (draws pictures).

    Returns:
        The folder with `weights.safetensors`, `pretrain.json`, `metrics.jsonl`.
    """
    folder = cache_folder(plan, cache)
    with locked(folder.with_suffix(".lock")):
        if is_trained(plan, cache):
            EntryLease(folder).close()
            return folder
        size = plan.encoder.image_size * plan.recipe.scale
        source = read_source(plan, size, on_bad_image, cache, progress)
        write_meta(folder, _describe(plan), [])
        _log.info(
            "pre-training %s with %s: %d steps on %d pairs",
            plan.encoder.ref, plan.pretext.ref, plan.recipe.total_steps(len(source)), len(source),
        )  # fmt: skip
        objective = build_objective(plan, source)
        _check_result(plan, objective, source.parts[0].arrays.channels)
        pretrain(
            objective,
            source,
            plan.recipe,
            folder,
            plan.key,
            views=plan.pretext.views(),
            metadata=_card(plan, source, objective),
            progress=progress,
            observer=observer,
        )
        write_meta(folder, _describe(plan), ["weights.safetensors", "pretrain.json"])
        EntryLease(folder).close()
    return folder


def _check_result(plan: Pretraining, objective: Objective, channels: int) -> None:
    """Refuse before the first step a result whose weights could not be loaded after the last.

    Raises:
        DataError: Names the tensors that differ, and the pretext task.
    """
    with torch.random.fork_rng(devices=[]):
        again = plan.pretext.rebuild(plan.encoder.build(channels), objective.state_extra())
    expected, stored = (
        {name: tuple(value.shape) for name, value in module.state_dict().items()}
        for module in (again, objective.result())
    )
    if wrong := sorted(name for name, _ in expected.items() ^ stored.items()):
        raise DataError(
            f"pretext '{plan.pretext.ref}' ({plan.pretext.origin}): the module of result() differs from "
            f"what rebuild() makes, in {', '.join(dict.fromkeys(wrong[:4]))}.",
            "result() returns the encoder, or what `adds` and rebuild() are for.",
        )


def _card(plan: Pretraining, source: PairDataset, objective: Objective) -> dict[str, str]:
    """Describe the weights for the file that holds them."""
    seen = [part.arrays.info for part in source.parts]
    channels = source.parts[0].arrays.channels
    return make_card(
        plan.encoder, channels, seen, plan.label, plan.adds, objective.state_extra()
    ).as_metadata()


def cache_folder(plan: Pretraining, cache: Path | None) -> Path:
    """Return the folder in which a pre-training is kept."""
    return cache_root(cache) / "pretrain" / plan.key


def is_trained(plan: Pretraining, cache: Path | None) -> bool:
    """Tell whether a pre-training is done."""
    folder = cache_folder(plan, cache)
    return (folder / "weights.safetensors").exists() and (folder / "pretrain.json").exists()


def _describe(plan: Pretraining) -> str:
    data = ", ".join(str(dataset.ref) for dataset in plan.data)
    return f"{plan.encoder.ref} {plan.label} on {data}, seed {plan.recipe.seed}"


def copy_pretraining(folder: Path, out: Path) -> None:
    """Copy weights, identity, losses and pictures from the cache to the run folder."""
    names = ["weights.safetensors", "pretrain.json", "metrics.jsonl"]
    names += [str(path.relative_to(folder)) for path in sorted(folder.glob("preview/*.png"))]
    for name in names:
        with atomic_path(out / name) as temporary:
            shutil.copyfile(folder / name, temporary)
