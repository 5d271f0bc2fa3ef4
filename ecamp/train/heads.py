"""The one loop that trains every gradient-trained head, on cached features or through the encoder."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ecamp.encoders.base import Encoder, Features
from ecamp.errors import EcampError
from ecamp.plugin.protocols import PluginConfig
from ecamp.train.optim import adamw, set_lr
from ecamp.train.schedule import warmup_cosine


class HeadRecipe(PluginConfig):
    """Optimisation of a head; one recipe for all encoders."""

    steps: int = Field(default=150, ge=1, description="optimiser steps")
    batch_size: int = Field(default=64, ge=1, description="images a step")
    lr: float = Field(default=2e-3, gt=0, description="peak learning rate of the head")
    weight_decay: float = Field(default=0.05, ge=0, description="AdamW weight decay")
    encoder_lr_scale: float = Field(default=0.1, gt=0, description="encoder's rate / head's rate")
    checks: int = Field(
        default=1, ge=1, description="times validation is looked at, the best kept; 1: the last"
    )


class Model(nn.Module):
    """A head, and under `finetune` the encoder below it."""

    def __init__(self, head: nn.Module, encoder: Encoder | None) -> None:
        super().__init__()
        self.head = head
        self.encoder = encoder

    def forward(self, features: Features) -> Tensor | tuple[Tensor, ...]:
        return self.head(features)


@dataclass(frozen=True)
class Fit:
    """What training gave.

    Attributes:
        best_step: Step (counted from 1) whose weights were kept.
        best_score: Its validation score; NaN for one check.
    """

    best_step: int
    best_score: float


def train_head(
    model: Model,
    features_of: Callable[[np.ndarray], Features],
    loss_of: Callable[[Tensor | tuple[Tensor, ...], np.ndarray], Tensor],
    validate: Callable[[], float],
    *,
    count: int,
    recipe: HeadRecipe,
    seed: int,
) -> Fit:
    """Train, and keep the weights with the best validation score (the last ones for one check).

    Args:
        features_of: Features (differentiable under `finetune`) of the training images named.
        loss_of: Loss from the head's output and the indices it was made for.
        validate: Score on validation, higher is better; None-like scores come as NaN.
        count: Number of training images.
        seed: Decides batch order (and dropout), nothing else.

    Raises:
        EcampError: When the loss is not finite.
    """
    optimizer = adamw(
        model,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        betas=(0.9, 0.999),
        scale={"encoder.": recipe.encoder_lr_scale},
    )
    generator = np.random.Generator(np.random.Philox(seed))
    order = np.zeros(0, np.int64)
    check_every = max(1, math.ceil(recipe.steps / recipe.checks))
    best: dict[str, Tensor] = {}
    fit = Fit(0, -math.inf)
    for step in range(recipe.steps):
        while len(order) < min(recipe.batch_size, count):
            order = np.concatenate([order, generator.permutation(count)])
        index, order = order[: recipe.batch_size], order[recipe.batch_size :]
        set_lr(optimizer, recipe.lr * warmup_cosine(step, recipe.steps, max(1, recipe.steps // 10)))
        model.train()
        if model.encoder is not None:
            model.encoder.train()
        loss = loss_of(model(features_of(index)), index)
        if not torch.isfinite(loss):
            raise EcampError(
                f"head training: loss is {loss.item()} at step {step}.",
                "Lower the learning rate: task_options.<task>.lr in the recipe.",
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        # A single check chooses nothing: the rate has fallen to zero, the last weights stand.
        if recipe.checks > 1 and ((step + 1) % check_every == 0 or step + 1 == recipe.steps):
            model.eval()
            with torch.no_grad():
                score = validate()
            # NaN (undefined on this validation set) never wins, but the first weights are kept.
            if not best or score > fit.best_score:
                fit = Fit(step + 1, score if math.isfinite(score) else -math.inf)
                best = copy.deepcopy(model.state_dict())
    model.eval()
    if recipe.checks == 1:
        return Fit(recipe.steps, float("nan"))
    model.load_state_dict(best)
    return Fit(fit.best_step, fit.best_score if math.isfinite(fit.best_score) else float("nan"))
