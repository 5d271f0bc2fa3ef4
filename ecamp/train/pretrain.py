"""Pre-training: one deterministic loop with checkpoints, exact resume and a metrics file.

Step s of seed n draws all its random numbers from (n, s), so that a run which is killed and
resumed from a checkpoint gives the same weights, bit for bit, as one that was not.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ecamp.api.pretext import Objective, PretextBatch, ViewSpec
from ecamp.config import identity
from ecamp.errors import CorruptFileError, EcampError
from ecamp.progress import Progress, no_progress
from ecamp.storage.files import append_line, atomic_path, write_json
from ecamp.storage.tensor_file import separate_tensors
from ecamp.train.determinism import deterministic_algorithms
from ecamp.train.observer import Observer
from ecamp.train.oom import keep_freed_memory, out_of_memory
from ecamp.train.optim import layer_scales, parameter_groups, set_lr
from ecamp.train.pairs import PairDataset, make_batches
from ecamp.train.recipe import PretrainRecipe
from ecamp.train.schedule import warmup_cosine

_log = logging.getLogger(__name__)

Losses = dict[str, float]
AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """State of a training: objective, optimiser, loss scale, averaged weights, step."""

    def __init__(self, objective: Objective, recipe: PretrainRecipe, count: int) -> None:
        self.objective, self.recipe = objective, recipe
        self.total = recipe.total_steps(count)
        self.warmup = max(1, int(recipe.warmup * self.total))
        self.cosine_length = round(recipe.cosine_length * self.total)
        layers = layer_scales(objective.encoder, recipe.layer_decay, "encoder.")
        groups = parameter_groups(
            objective,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            scale={**layers, **objective.lr_scales()},
        )
        self.optimizer = objective.make_optimizer(groups, recipe.model_dump())
        self.scaler = torch.amp.GradScaler("cpu", enabled=recipe.precision == "fp16")
        self.average = copy.deepcopy(objective.result()) if recipe.ema else None
        self.step = 0

    def lr(self) -> float:
        """Return the learning rate of the next step."""
        return self.recipe.lr * warmup_cosine(self.step, self.cosine_length, self.warmup)

    def update(self, batches: list[PretextBatch]) -> Losses:
        """Take one optimiser step; each part of the batch weighs by its number of samples.

        Returns:
            The losses of the batch. Where one is not finite, no weight has been touched.
        """
        with deterministic_algorithms():
            return self._update(batches)

    def _update(self, batches: list[PretextBatch]) -> Losses:
        set_lr(self.optimizer, self.lr())
        self.optimizer.zero_grad(set_to_none=True)
        size = sum(len(batch.index) for batch in batches)
        losses: Losses = {}
        for batch in batches:
            fraction = len(batch.index) / size
            with torch.autocast(
                "cpu", AUTOCAST[self.recipe.precision], enabled=self.recipe.precision != "fp32"
            ):
                values = self.objective(batch)
            for name, value in values.items():
                losses[name] = losses.get(name, 0.0) + fraction * float(value.detach())
            if not all(map(math.isfinite, losses.values())):
                return losses
            self.scaler.scale(fraction * values["loss"]).backward()
        self.scaler.unscale_(self.optimizer)
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.objective.parameters(), self.recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.objective.after_step()
        if self.average is not None:
            move_average(self.average, self.objective.result(), self.recipe.ema)
        self.step += 1
        return losses

    def encoder_state(self) -> dict[str, Tensor]:
        """Return the encoder's weights as a finished training stores them."""
        encoder = self.objective.result() if self.average is None else self.average
        return separate_tensors(encoder.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state, to be saved."""
        return {
            "step": self.step,
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from `state_dict`."""
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step = int(state["step"])


@torch.no_grad()
def move_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Update the moving average of all parameters and buffers: a <- decay*a + (1-decay)*m."""
    for averaged, value in zip(
        average.state_dict().values(), model.state_dict().values(), strict=True
    ):
        if averaged.is_floating_point():
            averaged.lerp_(value, 1 - decay)
        else:
            averaged.copy_(value)


def pretrain(
    objective: Objective,
    source: PairDataset,
    recipe: PretrainRecipe,
    folder: Path,
    key: str,
    *,
    views: Sequence[ViewSpec] = (),
    metadata: Mapping[str, str] | None = None,
    progress: Progress = no_progress,
    observer: Observer | None = None,
) -> Path:
    """Train to the end, resuming from `folder` when a checkpoint of the same identity is there.

    Args:
        objective: Freshly built under the recipe's seed.
        folder: Gets `checkpoint.pt`, `metrics.jsonl`, `weights.safetensors`, `pretrain.json`.
        key: Identity of this pre-training; a checkpoint of another identity is refused.
        views: Further views of each image (`PretextPlugin.views`).
        metadata: Stored in the file of weights, and says what they belong to.
        progress: Receives each step with its losses.
        observer: Observes the training (draws pictures).

    Returns:
        The file with the encoder's weights.

    Raises:
        EcampError: When the loss is not finite; names the samples and keeps the last good weights.
    """
    keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    weights, info = folder / "weights.safetensors", folder / "pretrain.json"
    if weights.exists() and info.exists():
        return weights
    _check_extra(objective)
    trainer = Trainer(objective, recipe, len(source))
    _resume(trainer, folder, key)
    start = trainer.step
    _trim_metrics(folder / "metrics.jsonl", start)
    objective.train()
    began = saved = time.monotonic()
    losses: Losses = {}
    observer = observer or Observer()
    observer.start(source, recipe, folder)
    observer.on_step(start, objective)
    progress(start, trainer.total, "steps")
    for step in range(start, trainer.total):
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout
        batches = make_batches(source, recipe, step, views)
        lr = trainer.lr()
        losses = _update(trainer, batches, recipe)
        if not all(map(math.isfinite, losses.values())):
            _save(trainer, folder, key)
            raise _not_finite(losses, step, batches, source, folder)
        if step % 10 == 0 or step + 1 == trainer.total:
            append_line(folder / "metrics.jsonl", {"step": step, "lr": lr, **losses})
        progress(step + 1, trainer.total, f"steps, {_shown(losses)}")
        observer.on_step(step + 1, objective)
        if time.monotonic() - saved > recipe.checkpoint_seconds and step + 1 < trainer.total:
            _save(trainer, folder, key)
            saved = time.monotonic()
    with atomic_path(weights) as temporary:
        save_file(trainer.encoder_state(), temporary, dict(metadata) if metadata else None)
    write_json(
        info,
        {"key": key, "steps": trainer.total, "recipe": recipe.identity_fields(), "last": losses,
         **objective.state_extra()},
    )  # fmt: skip
    write_json(folder / "time.json", {"seconds": time.monotonic() - began, "from_step": start})
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return weights


def _check_extra(objective: Objective) -> None:
    """Refuse before the first step what could not be stored after the last.

    Raises:
        EcampError: `state_extra()` is not JSON.
    """
    extra = objective.state_extra()
    try:
        json.dumps(extra, allow_nan=False)
        dict(extra)
    except (TypeError, ValueError) as error:
        raise EcampError(
            f"pre-training: state_extra() of {type(objective).__name__} is not a mapping of JSON: {error}.",
            "Return lists, texts and finite numbers by name.",
        ) from error


def _shown(losses: Losses) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in losses.items())


def _update(trainer: Trainer, batches: list[PretextBatch], recipe: PretrainRecipe) -> Losses:
    """Take a step. Halving a batch silently would change the method, so that is the user's choice."""
    try:
        return trainer.update(batches)
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise EcampError(
            f"pre-training: memory runs out at step {trainer.step} with {recipe.batch_size} pairs "
            f"in {len(batches)} part{'s' * (len(batches) > 1)}.",
            f"accumulate={2 * len(batches)} (--set, or pretrain.accumulate in a recipe) passes a step's "
            "batch in smaller parts.",
        ) from error


def _not_finite(
    losses: Losses, step: int, batches: list[PretextBatch], source: PairDataset, folder: Path
) -> EcampError:
    ids = source.names([i for batch in batches for i in batch.index.tolist()])
    file = folder / "not-finite.json"
    json_losses = {
        name: value if math.isfinite(value) else str(value) for name, value in losses.items()
    }
    write_json(file, {"step": step, "losses": json_losses, "samples": ids})
    bad = ", ".join(f"{name} {value}" for name, value in losses.items() if not math.isfinite(value))
    return EcampError(
        f"pre-training: {bad} at step {step}; samples {', '.join(ids[:8])}"
        + (f" and {len(ids) - 8} more" if len(ids) > 8 else ""),
        f"All samples are in {file}, the last good weights in {folder / 'checkpoint.pt'}. Lower "
        "the learning rate or look at those samples.",
    )


def _save(trainer: Trainer, folder: Path, key: str) -> None:
    with atomic_path(folder / "checkpoint.pt") as temporary:
        torch.save({"key": key, **trainer.state_dict()}, temporary)


def _resume(trainer: Trainer, folder: Path, key: str) -> None:
    """Load the checkpoint if it is intact and ours; a damaged one is set aside and training restarts."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        return
    fresh = copy.deepcopy(trainer.objective.state_dict())
    try:
        state = torch.load(path, weights_only=True)
        if state["key"] != key:
            raise EcampError(f"{path}: belongs to another pre-training.", "Remove that folder.")
        trainer.load_state_dict(state)
    except EcampError:
        raise
    except Exception:  # a torn zip, a wrong pickle: whatever the damage, training can restart
        trainer.objective.load_state_dict(fresh)
        aside = path.with_suffix(".damaged")
        path.replace(aside)
        _log.warning("%s: damaged; kept as %s, training starts again", path, aside.name)


def _trim_metrics(path: Path, start: int) -> None:
    """Drop lines of steps that will run again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] < start:
                kept.append(line)
        except (ValueError, KeyError):
            continue
    with atomic_path(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept))


def load_weights(encoder: nn.Module, path: Path) -> None:
    """Load encoder weights.

    Raises:
        CorruptFileError: When the file is damaged or does not fit; names it.
    """
    try:
        encoder.load_state_dict(load_file(path))
    except Exception as error:
        raise CorruptFileError(
            f"{path}: cannot be loaded: {error}", "Delete its folder; it is trained again."
        ) from error


def pretrain_key(parts: dict[str, object], recipe: PretrainRecipe) -> str:
    """Compute the identity of a pre-training: everything that determines its weights."""
    return identity({"pretrain": 4, "recipe": recipe.identity_fields(), **parts})
