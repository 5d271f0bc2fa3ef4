"""What the classification protocols share: class scores, their loss, and choosing on validation."""

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
    """One score a class and image.

    Attributes:
        thresholds: (classes,) decision thresholds, chosen on validation.
        selected: What validation chose, as results name it.
    """

    thresholds: np.ndarray
    selected: dict[str, object]

    def scores(self, inputs: Inputs) -> np.ndarray:
        """Probabilities float32 (n, classes)."""
        raise NotImplementedError

    def predict(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Scores and thresholds."""
        return {"scores": self.scores(inputs), "thresholds": self.thresholds}

    def state_dict(self) -> dict[str, Tensor]:
        """Weights of the head; empty as here when there are none."""
        return {}


def pooled(inputs: Inputs) -> np.ndarray:
    """Return the cached features, float32 (n, width)."""
    if inputs.features is None:
        raise RuntimeError("pooled: this protocol caches no features")
    return inputs.features.pooled.float().numpy()


def is_softmax(split: TaskSplit) -> bool:
    """Whether exactly one class is right."""
    return str(split.targets["kind"]) == "multiclass"


def macro_auroc(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean AUROC over classes with both kinds of target; NaN if there is none."""
    values = []
    for k in range(scores.shape[1]):
        known = np.isfinite(targets[:, k])
        truth = targets[known, k] > 0.5
        if truth.any() and not truth.all():
            one = np.ones((1, len(truth)))
            values.append(auroc_replicates(scores[known, k], truth, one)[0])
    return float(np.mean(values)) if values else float("nan")


@dataclass(frozen=True)
class Choice:
    """The best of a grid.

    Attributes:
        at: Which candidate.
        thresholds: Its decision thresholds.
        selected: Its settings and its validation AUROC (None: undefined there).
    """

    at: int
    thresholds: np.ndarray
    selected: dict[str, object]


def choose(grid: Iterable[tuple[dict[str, object], np.ndarray]], targets: np.ndarray) -> Choice:
    """Keep the candidate with the best macro AUROC on validation; the first of equals.

    Args:
        grid: Settings and validation scores (n, classes) of each candidate.
        targets: Validation labels (n, classes).
    """
    best: Choice | None = None
    best_score = -np.inf
    for at, (settings, scores) in enumerate(grid):
        score = macro_auroc(scores, targets)
        # NaN (undefined on this validation set) never wins, but the first candidate stands.
        if best is None or score > best_score:
            best_score = score if np.isfinite(score) else -np.inf
            known = round(score, 6) if np.isfinite(score) else None
            best = Choice(at, best_thresholds(scores, targets), {**settings, "val_auroc": known})
    assert best is not None, "choose: an empty grid"
    return best


def probabilities(logits: Tensor, softmax: bool) -> Tensor:
    """Logits (n, classes) -> probabilities."""
    return logits.softmax(1) if softmax else logits.sigmoid()


def label_loss(logits: Tensor, truth: Tensor, softmax: bool) -> Tensor:
    """Cross-entropy over what is known.

    Args:
        logits, truth: (batch, classes); NaN = unknown. A multiclass row counts when it is whole.
    """
    known = torch.isfinite(truth)
    if softmax:
        rows = known.all(1)
        if not rows.any():
            return logits.sum() * 0
        return F.cross_entropy(logits[rows], truth[rows].argmax(1))
    loss = F.binary_cross_entropy_with_logits(logits, truth.nan_to_num(0.0), reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)
