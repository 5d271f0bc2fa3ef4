"""The one loop that trains every gradient-trained head, on cached features or through the encoder."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ecamp.api.encoder import Encoder, Features
from ecamp.errors import EcampError
from ecamp.train.head_recipe import FINETUNE_VALIDATIONS, HeadRecipe
from ecamp.train.oom import out_of_memory, report_halving
from ecamp.train.optim import adamw, layer_scales, set_lr
from ecamp.train.schedule import warmup_cosine


class Model(nn.Module):
    """A head, and under `finetune` the encoder below it."""

    def __init__(self, head: nn.Module, encoder: Encoder | None) -> None:
        super().__init__()
        self.head = head
        self.encoder = encoder

    def forward(self, features: Features) -> Tensor | tuple[Tensor, ...]:
        result: Tensor | tuple[Tensor, ...] = self.head(features)
        return result


@dataclass(frozen=True)
class Fit:
    """Result of training a head.

    Attributes:
        best_step: Step (counted from 1) whose weights were kept.
        best_score: Its validation score; NaN for a single validation.
    """

    best_step: int
    best_score: float


def _optimizer(model: Model, recipe: HeadRecipe, lr: float) -> torch.optim.AdamW:
    scale: dict[str, float] = {}
    if model.encoder is not None:
        layers = layer_scales(model.encoder, recipe.layer_decay, "encoder.")
        scale = {
            prefix: factor * recipe.encoder_lr_scale
            for prefix, factor in {"encoder.": 1.0, **layers}.items()
        }
    return adamw(model, lr=lr, weight_decay=recipe.weight_decay, betas=(0.9, 0.999), scale=scale)


def batches(count: int, size: int, seed: int) -> Callable[[], np.ndarray]:
    """Return a function that gives the next batch: permutation after permutation, no image left out.

    A batch has at least two images, a single one appears twice: batch norm needs them.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    order = np.zeros(0, np.int64)
    size = min(size, max(count, 2))

    def next_batch() -> np.ndarray:
        nonlocal order
        while len(order) < size:
            order = np.concatenate([order, generator.permutation(count)])
        index, order = order[:size], order[size:]
        return index

    return next_batch


def _gradients(
    optimizer: Optimizer,
    loss_at: Callable[[np.ndarray, int], Tensor],
    index: np.ndarray,
    step: int,
    parts: int,
) -> int:
    """Set the gradients of a step's mean loss; where memory runs out, in twice as many parts.

    The parts' means are weighted by their images: for a loss that is a mean over images the same
    gradient up to rounding; batch statistics and pooled Dice are then those of a part.

    Returns:
        The number of parts.

    Raises:
        EcampError: The loss is not finite; memory runs out with parts of one or two images.
    """
    while True:
        optimizer.zero_grad(set_to_none=True)
        try:
            for part in np.array_split(index, parts):
                loss = loss_at(part, step)
                if not torch.isfinite(loss):
                    raise EcampError(
                        f"head training: loss is {loss.item()} at step {step}.",
                        "Lower the learning rate: task_options.<task>.lr in the recipe.",
                    )
                (loss * (len(part) / len(index))).backward()
                del loss
            return parts
        except Exception as error:
            if not out_of_memory(error):
                raise
            # Batch norm needs two images.
            if len(index) < 4 * parts:
                raise EcampError(
                    f"head training: memory runs out even with {-(-len(index) // parts)} images.",
                    "Take a smaller encoder or image size, or end other programs that use the memory.",
                ) from error
        parts *= 2
        report_halving("head training", len(index) // parts)


def train_head(
    model: Model,
    loss_at: Callable[[np.ndarray, int], Tensor],
    validate: Callable[[], float],
    *,
    count: int,
    recipe: HeadRecipe,
    lr: float,
    seed: int,
    keep_start: bool = False,
    optimizer: Optimizer | None = None,
) -> Fit:
    """Train, and keep the weights with the best validation score (the last ones for a single validation).

    A step that runs out of memory is repeated in parts (`_gradients`), and that is recorded.

    Args:
        loss_at: Mean loss of some training images at a step; a function of (images, step) alone.
        validate: Score on validation, higher is better; NaN where undefined.
        count: Number of training images.
        lr: Peak learning rate of the head where the recipe sets none.
        seed: Decides batch order, nothing else.
        keep_start: With several validations, the weights before the first step are a candidate too.
        optimizer: Instead of the recipe's AdamW; its groups' `lr_scale` are kept.

    Raises:
        EcampError: When the loss is not finite, or memory runs out with two images per step.
    """
    lr = recipe.lr or lr
    optimizer = optimizer or _optimizer(model, recipe, lr)
    validations = recipe.validations or (1 if model.encoder is None else FINETUNE_VALIDATIONS)
    next_batch = batches(count, recipe.batch_size, seed)
    validate_every = max(1, math.ceil(recipe.steps / validations))
    warmup = max(1, round(recipe.warmup * recipe.steps))
    best_state: dict[str, Tensor] = {}
    fit, without_improvement, parts = Fit(0, -math.inf), 0, 1

    def validate_at(step: int) -> None:
        nonlocal fit, without_improvement, best_state
        model.eval()
        with torch.no_grad():
            score = validate()
        without_improvement += 1
        # NaN (undefined on this validation set) never wins, but the first weights are kept.
        if not best_state or score > fit.best_score:
            fit = Fit(step, score if math.isfinite(score) else -math.inf)
            best_state, without_improvement = copy.deepcopy(model.state_dict()), 0

    if keep_start and validations > 1:
        validate_at(0)
    for step in range(recipe.steps):
        index = next_batch()
        set_lr(optimizer, lr * warmup_cosine(step, recipe.steps, warmup))
        model.train()
        parts = _gradients(optimizer, loss_at, index, step, parts)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        # A single validation selects nothing: the rate has fallen to zero, the last weights are kept.
        if validations > 1 and ((step + 1) % validate_every == 0 or step + 1 == recipe.steps):
            validate_at(step + 1)
            if recipe.patience and without_improvement >= recipe.patience:
                break
    model.eval()
    if validations == 1:
        return Fit(recipe.steps, float("nan"))
    model.load_state_dict(best_state)
    return Fit(fit.best_step, fit.best_score if math.isfinite(fit.best_score) else float("nan"))
