"""Protocol `finetune` of classification: encoder and a linear layer on its pooled feature.

The layer starts as the linear probe. AdamW with layer-wise decay, warm-up, a cosine that ends where
training ends, light augmentation, and the weights with the best validation score
(`ecamp.train.heads`), the start included: where fine-tuning does not help, the linear probe remains.

Why: docs/decisions.md#fine-tuning-starts-from-the-linear-probe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ecamp.api.encoder import Encoder, Features
from ecamp.api.task import Inputs, TaskSplit
from ecamp.data.augmentation import Augmentation
from ecamp.metrics.classification import best_thresholds
from ecamp.tasks.classification.linear_probe import LinearPredictor, fit_linear
from ecamp.tasks.classification.selection import (
    ScorePredictor,
    is_softmax,
    label_loss,
    macro_auroc,
    probabilities,
)
from ecamp.tasks.feature_batches import TrainingBatches, in_batches
from ecamp.train.head_recipe import HeadRecipe
from ecamp.train.heads import Model, train_head

LR = 1e-3


class PooledHead(nn.Module):
    """Linear layer on the standardised pooled feature, started from a linear probe.

    So that training starts where frozen features end (LP-FT, Kumar et al., ICLR 2022): a randomly
    initialised head distorts the encoder early on, which hurts small data sets most.
    """

    def __init__(self, probe: LinearPredictor) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.from_numpy(probe.mean).float())
        self.register_buffer("std", torch.from_numpy(probe.std).float())
        self.linear = nn.Linear(probe.weight.shape[1], probe.weight.shape[0])
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(probe.weight))
            self.linear.bias.copy_(torch.from_numpy(probe.bias))

    def forward(self, features: Features) -> Tensor:
        result: Tensor = self.linear((features.pooled - self.mean) / self.std)
        return result


@dataclass
class TunedPredictor(ScorePredictor):
    """Encoder and linear layer trained together."""

    model: Model
    softmax: bool

    def scores(self, inputs: Inputs) -> np.ndarray:
        parts = []
        for _, features in in_batches(self.model.encoder, inputs):
            logits = self.model(features)
            assert isinstance(logits, Tensor)
            parts.append(probabilities(logits, self.softmax))
        return torch.cat(parts).numpy()

    def state_dict(self) -> dict[str, Tensor]:
        return self.model.state_dict()


def fit_finetuned(
    encoder: Encoder, train: TaskSplit, val: TaskSplit, recipe: HeadRecipe, seed: int
) -> TunedPredictor:
    """Train all weights; keep those of the best validation."""
    probe = fit_linear(_frozen(encoder, train), _frozen(encoder, val))
    model = Model(PooledHead(probe), encoder)
    return fit_scores(
        model, encoder, train, val, recipe, seed, augment=recipe.augment, lr=LR, keep_start=True
    )


def fit_scores(
    model: Model, encoder: Encoder, train: TaskSplit, val: TaskSplit, recipe: HeadRecipe, seed: int,
    *, augment: Augmentation | None, lr: float, keep_start: bool = False,
    optimizer: Optimizer | None = None,
) -> TunedPredictor:  # fmt: skip
    """Train a model of class scores through its encoder, and keep the best validation's weights.

    Args:
        model: Head and encoder. augment: Augmentation of the training images.
        lr, keep_start, optimizer: As in `train_head`.
    """
    labels = torch.from_numpy(train.targets["targets"])
    predictor = TunedPredictor(np.zeros(0), {}, model, is_softmax(train))
    batch = TrainingBatches(encoder, train.inputs, augment, seed)

    def loss_at(index: np.ndarray, step: int) -> Tensor:
        features, _ = batch(index, step)
        logits = model(features)
        assert isinstance(logits, Tensor)
        return label_loss(logits, labels[torch.from_numpy(index)], predictor.softmax)

    fit = train_head(
        model,
        loss_at,
        lambda: macro_auroc(predictor.scores(val.inputs), val.targets["targets"]),
        count=len(train.inputs),
        recipe=recipe,
        lr=lr,
        seed=seed,
        keep_start=keep_start,
        optimizer=optimizer,
    )
    predictor.thresholds = best_thresholds(predictor.scores(val.inputs), val.targets["targets"])
    val_auroc = round(fit.best_score, 6) if np.isfinite(fit.best_score) else None
    predictor.selected |= {"step": fit.best_step, "val_auroc": val_auroc}
    return predictor


def _frozen(encoder: Encoder, split: TaskSplit) -> TaskSplit:
    """Compute the pooled features of a split by the encoder before fine-tuning."""
    encoder.eval()
    parts = [features.pooled for _, features in in_batches(encoder, split.inputs)]
    pooled = torch.cat(parts)
    features = Features(pooled, pooled[:, None, :0], (0, 0), ())
    return TaskSplit(replace(split.inputs, features=features), split.targets)
