"""Protocol `finetune` of classification: encoder and a linear layer on its pooled feature.

AdamW with layer-wise decay, warm-up, a cosine that ends where training ends, light augmentation,
and the weights that validation likes best (`ecamp.train.heads`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ecamp.encoders.base import Encoder, Features
from ecamp.metrics.classification import best_thresholds
from ecamp.tasks.base import Inputs, TaskSplit
from ecamp.tasks.class_scores import (
    ScorePredictor,
    is_softmax,
    label_loss,
    macro_auroc,
    probabilities,
)
from ecamp.tasks.running import TrainingBatches, in_batches
from ecamp.train.heads import HeadRecipe, Model, train_head


class PooledHead(nn.Module):
    """Linear layer on the pooled feature."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)
        nn.init.zeros_(self.linear.bias)
        nn.init.trunc_normal_(self.linear.weight, std=0.01)

    def forward(self, features: Features) -> Tensor:
        return self.linear(features.pooled)


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


def fit_tuned(
    encoder: Encoder, train: TaskSplit, val: TaskSplit, recipe: HeadRecipe, seed: int
) -> TunedPredictor:
    """Train all weights; keep those of the best look at validation."""
    labels = torch.from_numpy(train.targets["targets"])
    softmax = is_softmax(train)
    model = Model(PooledHead(encoder.width, labels.shape[1]), encoder)
    predictor = TunedPredictor(np.zeros(0), {}, model, softmax)
    batch = TrainingBatches(encoder, train.inputs, recipe.augment, seed)

    def loss_at(index: np.ndarray, step: int) -> Tensor:
        features, _ = batch(index, step)
        logits = model(features)
        assert isinstance(logits, Tensor)
        return label_loss(logits, labels[torch.from_numpy(index)], softmax)

    fit = train_head(
        model,
        loss_at,
        lambda: macro_auroc(predictor.scores(val.inputs), val.targets["targets"]),
        count=len(train.inputs),
        recipe=recipe,
        seed=seed,
    )
    predictor.thresholds = best_thresholds(predictor.scores(val.inputs), val.targets["targets"])
    known = round(fit.best_score, 6) if np.isfinite(fit.best_score) else None
    predictor.selected |= {"step": fit.best_step, "val_auroc": known}
    return predictor
