"""Training of segmentation heads, and their prediction with thresholds from validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ecamp.api.encoder import Encoder
from ecamp.api.task import Inputs, TaskSplit
from ecamp.published.downstream.segmentation import mixed_loss
from ecamp.tasks.feature_batches import TrainingBatches, in_batches
from ecamp.tasks.segmentation.config import SegmentationConfig
from ecamp.tasks.segmentation.heads import HEADS
from ecamp.train.heads import Model, train_head

THRESHOLDS = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


def fit_segmentation(
    encoder: Encoder | None,
    train: TaskSplit,
    val: TaskSplit,
    config: SegmentationConfig,
    protocol: str,
    seed: int,
) -> SegmentationPredictor:
    """Train a decoder on frozen features, or with the encoder where one is given."""
    published = protocol == "published"
    head_name, loss_name = ("conv", "published") if published else (config.head, config.loss)
    masks, size = train.targets["target"], train.inputs.images.shape[1]
    batch = TrainingBatches(encoder, train.inputs, config.augment, seed)
    head = HEADS[head_name](batch.example(), size, masks.shape[1], config.width)
    model = Model(head, encoder)
    predictor = SegmentationPredictor(model, np.full(masks.shape[1], 0.5), {})

    def loss_at(index: np.ndarray, step: int) -> Tensor:
        features, warp = batch(index, step)
        truth = torch.from_numpy(masks[index]) if warp is None else warp.masks(masks[index])
        logits = model(features)
        assert isinstance(logits, Tensor)
        return LOSSES[loss_name](logits, truth.float())

    fit = train_head(
        model,
        loss_at,
        lambda: predictor.tune_thresholds(val),
        count=len(train.inputs),
        recipe=config,
        lr=head.lr,
        seed=seed,
    )
    predictor.tune_thresholds(val)
    predictor.selected["step"] = fit.best_step
    return predictor


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Add binary cross-entropy and soft Dice per class over the batch.

    Dice is taken over the whole batch, so that images without the class still push the
    prediction down and a batch without any positive is not a special case.

    Args:
        logits, target: (batch, classes, height, width).
    """
    probability = logits.sigmoid()
    # softplus(x) - x * t is binary cross-entropy; torch's own costs three times as much here.
    bce = (F.softplus(logits) - logits * target).mean()
    axes = (0, 2, 3)
    overlap = (probability * target).sum(axes)
    dice = (2 * overlap + 1) / (probability.sum(axes) + target.sum(axes) + 1)
    return bce + (1 - dice).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "dice": mask_loss,
    "published": mixed_loss,
}


@dataclass
class SegmentationPredictor:
    """Decoder with one threshold per class, chosen on validation."""

    model: Model
    thresholds: np.ndarray
    selected: dict[str, object]

    def probabilities(self, inputs: Inputs) -> np.ndarray:
        """Compute probabilities, float32 (n, classes, size, size)."""
        parts = []
        for _, features in in_batches(self.model.encoder, inputs):
            logits = self.model(features)
            assert isinstance(logits, Tensor)
            parts.append(logits.sigmoid().numpy())
        return np.concatenate(parts)

    def tune_thresholds(self, val: TaskSplit) -> float:
        """Set per class the threshold with the best Dice on positives; return their mean."""
        probability = torch.from_numpy(self.probabilities(val.inputs))
        target = torch.from_numpy(val.targets["target"]).float()
        size_t = target.sum((0, 2, 3))
        # Pooled over all images: a threshold with many false positives must not win.
        pooled = []
        for threshold in THRESHOLDS:
            predicted = (probability >= float(threshold)).float()
            overlap, size_p = (predicted * target).sum((0, 2, 3)), predicted.sum((0, 2, 3))
            pooled.append((2 * overlap / (size_p + size_t).clamp(min=1)).numpy())
        table = np.stack(pooled)  # (thresholds, classes)
        self.thresholds = THRESHOLDS[table.argmax(0)]
        known = size_t.numpy() > 0
        best = table.max(0)[known]
        self.selected["thresholds"] = [float(threshold) for threshold in self.thresholds]
        return float(best.mean()) if len(best) else float("nan")

    def predict(self, inputs: Inputs) -> dict[str, np.ndarray]:
        return {"mask": self.probabilities(inputs) >= self.thresholds[:, None, None]}

    def state_dict(self) -> dict[str, Tensor]:
        return self.model.state_dict()
