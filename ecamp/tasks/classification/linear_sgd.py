"""Protocol `linear-sgd`: the published linear probe's head and optimiser, on cached features.

Published (ToniChopp/ECAMP, `Classification/train.py`): parameter-free layer norm of the pooled
feature, linear layer that starts near zero, SGD with momentum 0.9, clip at norm 1, warm-up and
cosine. Mended: the encoder is in eval mode (the published loop keeps drop-path on,
docs/published-flaws.md#f20) and keeps its final norm, the cosine ends where training ends (#f17),
and one of the published rates is selected by validation, not by a person for each cell. Not kept:
augmentation, which would need the encoder in every step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecamp.api.task import Inputs, TaskSplit
from ecamp.tasks.classification.selection import (
    ScorePredictor,
    is_softmax,
    label_loss,
    pooled,
    probabilities,
    select_best,
)
from ecamp.train.heads import batches
from ecamp.train.optim import set_lr
from ecamp.train.schedule import warmup_cosine

LEARNING_RATES = (3e-3, 1e-2, 3e-2)  # the published scripts use values in this range
BATCH = 128
WARMUP = 0.1  # fraction of steps


@dataclass
class SGDPredictor(ScorePredictor):
    """Layer norm without parameters, then a linear layer."""

    linear: nn.Linear
    softmax: bool

    def scores(self, inputs: Inputs) -> np.ndarray:
        with torch.no_grad():
            return probabilities(self.linear(_layer_norm(inputs)), self.softmax).numpy()

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.linear.state_dict())


def _layer_norm(inputs: Inputs) -> Tensor:
    features = torch.from_numpy(pooled(inputs))
    return F.layer_norm(features, features.shape[1:])


def fit_sgd(train: TaskSplit, val: TaskSplit, steps: int, seed: int) -> SGDPredictor:
    """Train one head per learning rate; keep the one with the best validation AUROC."""
    features, labels = _layer_norm(train.inputs), torch.from_numpy(train.targets["targets"])
    softmax = is_softmax(train)
    heads = [_train(features, labels, softmax, lr, steps, seed) for lr in LEARNING_RATES]
    predictors = [SGDPredictor(np.zeros(0), {}, head, softmax) for head in heads]
    choice = select_best(
        (
            ({"lr": lr}, predictor.scores(val.inputs))
            for lr, predictor in zip(LEARNING_RATES, predictors, strict=True)
        ),
        val.targets["targets"],
    )
    return SGDPredictor(choice.thresholds, choice.selected, heads[choice.index], softmax)


def _train(
    features: Tensor, labels: Tensor, softmax: bool, lr: float, steps: int, seed: int
) -> nn.Linear:
    head = nn.Linear(features.shape[1], labels.shape[1])
    generator = torch.Generator().manual_seed(seed)
    nn.init.trunc_normal_(head.weight, std=2e-5, generator=generator)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.SGD(head.parameters(), lr=lr, momentum=0.9)
    next_batch = batches(len(features), BATCH, seed)
    for step in range(steps):
        rows = torch.from_numpy(next_batch())
        set_lr(optimizer, lr * warmup_cosine(step, steps, max(1, round(WARMUP * steps))))
        loss = label_loss(head(features[rows]), labels[rows], softmax)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
    return head
