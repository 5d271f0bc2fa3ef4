"""Common parts of the classification protocols: class scores, their loss, selection on validation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ecamp.api.task import Inputs, TaskSplit
from ecamp.metrics.classification import best_thresholds
from ecamp.metrics.ranking import auroc_replicates


@dataclass
class ScorePredictor:
    """Predictor with one score per class and image.

    Attributes:
        thresholds: (classes,) decision thresholds, chosen on validation.
        selected: Settings selected on validation, as results name them.
    """

    thresholds: np.ndarray
    selected: dict[str, object]

    def scores(self, inputs: Inputs) -> np.ndarray:
        """Compute probabilities, float32 (n, classes)."""
        raise NotImplementedError

    def predict(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Return scores and thresholds."""
        return {"scores": self.scores(inputs), "thresholds": self.thresholds}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights of the head; empty, as here, without any."""
        return {}


def pooled(inputs: Inputs) -> np.ndarray:
    """Return the cached features, float32 (n, width)."""
    if inputs.features is None:
        raise RuntimeError("pooled: this protocol caches no features")
    return inputs.features.pooled.float().numpy()


def is_softmax(split: TaskSplit) -> bool:
    """Whether exactly one class applies to an image."""
    return str(split.targets["kind"]) == "multiclass"


def macro_auroc(scores: np.ndarray, targets: np.ndarray) -> float:
    """Average the AUROC over classes with both kinds of target; NaN if there is none."""
    values = []
    for k in range(scores.shape[1]):
        known = np.isfinite(targets[:, k])
        truth = targets[known, k] > 0.5
        if truth.any() and not truth.all():
            all_images = np.ones((1, len(truth)))
            values.append(auroc_replicates(scores[known, k], truth, all_images)[0])
    return float(np.mean(values)) if values else float("nan")


@dataclass(frozen=True)
class Choice:
    """The best candidate of a grid.

    Attributes:
        index: Index of the candidate.
        thresholds: Its decision thresholds.
        selected: Its settings and its validation AUROC (None: undefined there).
    """

    index: int
    thresholds: np.ndarray
    selected: dict[str, object]


def select_best(
    grid: Iterable[tuple[dict[str, object], np.ndarray]], targets: np.ndarray
) -> Choice:
    """Keep the candidate with the best macro AUROC on validation; the first of equals.

    Args:
        grid: Settings and validation scores (n, classes) of each candidate.
        targets: Validation labels (n, classes).
    """
    best: Choice | None = None
    best_score = -np.inf
    for index, (settings, scores) in enumerate(grid):
        score = macro_auroc(scores, targets)
        # NaN (undefined on this validation set) never wins, but the first candidate is kept.
        if best is None or score > best_score:
            best_score = score if np.isfinite(score) else -np.inf
            val_auroc = round(score, 6) if np.isfinite(score) else None
            best = Choice(
                index, best_thresholds(scores, targets), {**settings, "val_auroc": val_auroc}
            )
    assert best is not None, "select_best: an empty grid"
    return best


def probabilities(logits: Tensor, softmax: bool) -> Tensor:
    """Turn logits (n, classes) into probabilities."""
    return logits.softmax(1) if softmax else logits.sigmoid()


def label_loss(logits: Tensor, truth: Tensor, softmax: bool) -> Tensor:
    """Compute the cross-entropy over known labels.

    Args:
        logits, truth: (batch, classes); NaN = unknown. A multiclass row counts when all of it is known.
    """
    known = torch.isfinite(truth)
    if softmax:
        rows = known.all(1)
        if not rows.any():
            return logits.sum() * 0
        return F.cross_entropy(logits[rows], truth[rows].argmax(1))
    loss = F.binary_cross_entropy_with_logits(logits, truth.nan_to_num(0.0), reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)
