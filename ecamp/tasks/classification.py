"""Image classification, multi-label and multi-class: linear probe by L-BFGS, and fine-tuning."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from ecamp.data.arrays import Arrays
from ecamp.encoders.base import Encoder, Features
from ecamp.metrics.classification import best_thresholds, score_classification
from ecamp.metrics.stats import Metric
from ecamp.plugin.protocols import TaskPlugin
from ecamp.tasks.base import Inputs, TaskSplit
from ecamp.tasks.running import features_by, in_batches
from ecamp.train.heads import HeadRecipe, Model, train_head

PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)


class Classification(TaskPlugin):
    """One score a class and image."""

    summary = "image labels: linear probe (L-BFGS, penalty chosen on validation) or fine-tuning"
    licence = "Apache-2.0"
    citation = "EVALUATION protocols `linear` and `finetune`"
    needs = "labels"
    primary = "auroc"
    protocols = ("linear", "finetune")
    reads = frozenset({"pooled"})

    class Config(HeadRecipe):
        """Recipe of `finetune`; `linear` has no free setting."""

        lr: float = Field(default=1e-3, gt=0, description="peak learning rate of the head")
        checks: int = Field(default=3, ge=1, description="times validation picks the best weights")

    def targets(self, split: Arrays) -> dict[str, np.ndarray]:
        return {
            "targets": split.labels,
            "classes": np.array(split.info.labels),
            "kind": np.array(split.info.label_kind),
        }

    def fit(
        self,
        encoder: Encoder | None,
        train: TaskSplit,
        val: TaskSplit,
        *,
        protocol: str,
        seed: int,
    ) -> LinearPredictor | TunedPredictor:
        if protocol == "linear":
            return _fit_linear(train, val)
        assert encoder is not None
        return _fit_tuned(encoder, train, val, self.config, seed)

    def score(
        self,
        predictions: dict[str, np.ndarray],
        targets: dict[str, np.ndarray],
        replicates: Any,
    ) -> dict[str, Metric]:
        return score_classification(
            predictions["scores"],
            targets["targets"],
            replicates,
            classes=[str(name) for name in targets["classes"]],
            kind=str(targets["kind"]),
            thresholds=predictions["thresholds"],
        )


def macro_auroc(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean AUROC over classes with both kinds of target; NaN if there is none."""
    ones = np.ones((1, len(scores)), np.float32)
    classes = [str(k) for k in range(scores.shape[1])]
    half = np.full(len(classes), 0.5)
    metric = score_classification(
        scores, targets, ones, classes=classes, kind="multilabel", thresholds=half
    )["auroc"]
    return float("nan") if metric.value is None else metric.value


@dataclass
class LinearPredictor:
    """Logistic regression on standardised pooled features.

    Attributes:
        weight: float64 (classes, width); bias: float64 (classes,).
        mean, std: float64 (width,) of the training features.
    """

    weight: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    softmax: bool
    thresholds: np.ndarray
    selected: dict[str, object]

    def scores(self, pooled: np.ndarray) -> np.ndarray:
        """Probabilities float32 (n, classes)."""
        logits = ((pooled - self.mean) / self.std) @ self.weight.T + self.bias
        if self.softmax:
            logits = logits - logits.max(1, keepdims=True)
            return (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
        return (1 / (1 + np.exp(-np.clip(logits, -500, 500)))).astype(np.float32)

    def predict(self, inputs: Inputs) -> dict[str, np.ndarray]:
        return {"scores": self.scores(_pooled(inputs)), "thresholds": self.thresholds}

    def state_dict(self) -> dict[str, Tensor]:
        parts = {"weight": self.weight, "bias": self.bias, "mean": self.mean, "std": self.std}
        return {
            name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in parts.items()
        }


def _pooled(inputs: Inputs) -> np.ndarray:
    if inputs.features is None:
        raise RuntimeError("linear probe without cached features")
    return inputs.features.pooled.double().numpy()


def _fit_linear(train: TaskSplit, val: TaskSplit) -> LinearPredictor:
    """Fit one regression a penalty; keep the one with the best validation AUROC."""
    pooled, labels = _pooled(train.inputs), train.targets["targets"]
    mean, std = pooled.mean(0), pooled.std(0) + 1e-6
    scaled = (pooled - mean) / std
    softmax = str(train.targets["kind"]) == "multiclass"
    best: LinearPredictor | None = None
    best_score = -np.inf
    for penalty in PENALTIES:
        weight, bias = _regress(scaled, labels, penalty, softmax)
        predictor = LinearPredictor(
            weight, bias, mean, std, softmax, np.zeros(0), {"inverse_penalty": penalty}
        )
        val_scores = predictor.scores(_pooled(val.inputs))
        score = macro_auroc(val_scores, val.targets["targets"])
        if best is None or score > best_score:
            best, best_score = predictor, (score if np.isfinite(score) else -np.inf)
            best.thresholds = best_thresholds(val_scores, val.targets["targets"])
            best.selected["val_auroc"] = round(score, 6) if np.isfinite(score) else None
    assert best is not None
    return best


def _regress(
    scaled: np.ndarray, labels: np.ndarray, penalty: float, softmax: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression; a class without both kinds of target gets its prior and no weights."""
    width, classes = scaled.shape[1], labels.shape[1]
    weight, bias = np.zeros((classes, width)), np.zeros(classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if softmax:
            known = np.isfinite(labels).all(1)
            truth = labels[known].argmax(1)
            present = np.unique(truth)
            bias[:] = -30.0  # a class never seen in training is never predicted
            if len(present) < 2:
                bias[present] = 0.0
                return weight, bias
            model = LogisticRegression(C=penalty, max_iter=300).fit(scaled[known], truth)
            if len(present) == 2:
                weight[present[1]], bias[present[1]] = model.coef_[0], model.intercept_[0]
                bias[present[0]] = 0.0
            else:
                weight[present], bias[present] = model.coef_, model.intercept_
            return weight, bias
        for k in range(classes):
            known = np.isfinite(labels[:, k])
            truth = labels[known, k] > 0.5
            if not known.any() or truth.all() or not truth.any():
                bias[k] = 30.0 if known.any() and truth.all() else -30.0
                continue
            model = LogisticRegression(C=penalty, max_iter=300).fit(scaled[known], truth)
            weight[k], bias[k] = model.coef_[0], model.intercept_[0]
    return weight, bias


class _PooledHead(nn.Module):
    """Linear layer on the pooled feature."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)
        nn.init.zeros_(self.linear.bias)
        nn.init.trunc_normal_(self.linear.weight, std=0.01)

    def forward(self, features: Features) -> Tensor:
        return self.linear(features.pooled)


@dataclass
class TunedPredictor:
    """Encoder and linear layer trained together."""

    model: Model
    softmax: bool
    thresholds: np.ndarray
    selected: dict[str, object]

    def scores(self, inputs: Inputs) -> np.ndarray:
        """Probabilities float32 (n, classes)."""
        parts = []
        for _, features in in_batches(self.model.encoder, inputs):
            logits = self.model(features)
            assert isinstance(logits, Tensor)
            parts.append(logits.softmax(1) if self.softmax else logits.sigmoid())
        return torch.cat(parts).numpy()

    def predict(self, inputs: Inputs) -> dict[str, np.ndarray]:
        return {"scores": self.scores(inputs), "thresholds": self.thresholds}

    def state_dict(self) -> dict[str, Tensor]:
        return self.model.state_dict()


def _fit_tuned(
    encoder: Encoder, train: TaskSplit, val: TaskSplit, recipe: HeadRecipe, seed: int
) -> TunedPredictor:
    labels = torch.from_numpy(train.targets["targets"])
    softmax = str(train.targets["kind"]) == "multiclass"
    head = _PooledHead(encoder.width, labels.shape[1])
    predictor = TunedPredictor(Model(head, encoder), softmax, np.zeros(0), {})

    def loss_of(logits: Tensor | tuple[Tensor, ...], index: np.ndarray) -> Tensor:
        assert isinstance(logits, Tensor)
        truth = labels[torch.from_numpy(index)]
        known = torch.isfinite(truth)
        if softmax:
            rows = known.all(1)
            return (
                F.cross_entropy(logits[rows], truth[rows].argmax(1))
                if rows.any()
                else logits.sum() * 0
            )
        loss = F.binary_cross_entropy_with_logits(logits, truth.nan_to_num(0.0), reduction="none")
        return (loss * known).sum() / known.sum().clamp(min=1)

    fit = train_head(
        predictor.model,
        features_by(encoder, train.inputs),
        loss_of,
        lambda: macro_auroc(predictor.scores(val.inputs), val.targets["targets"]),
        count=len(train.inputs),
        recipe=recipe,
        seed=seed,
    )
    predictor.thresholds = best_thresholds(predictor.scores(val.inputs), val.targets["targets"])
    predictor.selected["step"] = fit.best_step
    return predictor
