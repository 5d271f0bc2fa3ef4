"""Segmentation: a head on frozen features, or through the encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ecamp.data.arrays import Arrays
from ecamp.encoders.base import Encoder
from ecamp.metrics.segmentation import score_segmentation
from ecamp.metrics.stats import Metric
from ecamp.plugin.protocols import TaskPlugin
from ecamp.tasks.base import Inputs, TaskSplit
from ecamp.tasks.mask_heads import HEADS
from ecamp.tasks.published.segmentation import mixed_loss
from ecamp.tasks.running import TrainingBatches, in_batches
from ecamp.train.heads import HeadRecipe, Model, train_head

CUTS = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


class Segmentation(TaskPlugin):
    """One mask a class and image."""

    summary = "pixel masks: one of four heads, frozen or fine-tuned; published"
    licence = "Apache-2.0"
    citation = "Shi et al., CVPR 2016 (subpixel); Xiao et al., UPerNet, ECCV 2018 (pyramid)"
    needs = "mask"
    primary = "dice_pos"
    protocols = ("frozen", "finetune", "published")

    class Config(HeadRecipe):
        """Head and recipe."""

        head: Literal["subpixel", "linear", "conv", "pyramid"] = Field(
            default="subpixel", description="subpixel, linear, conv (published), pyramid (UPerNet)"
        )
        loss: Literal["dice", "published"] = Field(
            default="dice", description="cross-entropy + Dice, or the published focal - log Dice"
        )
        batch_size: int = Field(default=24, ge=1, description="images a step")
        width: int = Field(
            default=64, ge=8, multiple_of=8, description="channels of `subpixel` and `pyramid`"
        )

    def targets(self, split: Arrays) -> dict[str, np.ndarray]:
        return {"target": split.masks, "classes": np.array(split.info.mask_classes)}

    def fit(
        self, encoder: Encoder | None, train: TaskSplit, val: TaskSplit, *, protocol: str, seed: int
    ) -> SegmentationPredictor:
        """As the base class; `published`: frozen features, the published decoder and loss (METHOD 6)."""
        published = protocol == "published"
        kind, loss = ("conv", "published") if published else (self.config.head, self.config.loss)
        masks, size = train.targets["target"], train.inputs.images.shape[1]
        batch = TrainingBatches(encoder, train.inputs, self.config.augment, seed)
        head = HEADS[kind](batch.example(), size, masks.shape[1], self.config.width)
        model = Model(head, encoder)
        predictor = SegmentationPredictor(model, np.full(masks.shape[1], 0.5), {})

        def loss_at(index: np.ndarray, step: int) -> Tensor:
            features, warp = batch(index, step)
            truth = torch.from_numpy(masks[index]) if warp is None else warp.masks(masks[index])
            logits = model(features)
            assert isinstance(logits, Tensor)
            return LOSSES[loss](logits, truth.float())

        fit = train_head(
            model,
            loss_at,
            lambda: predictor.choose_cuts(val),
            count=len(train.inputs),
            recipe=self.config,
            lr=head.lr,
            seed=seed,
        )
        predictor.choose_cuts(val)
        predictor.selected["step"] = fit.best_step
        return predictor

    def score(
        self,
        predictions: dict[str, np.ndarray],
        targets: dict[str, np.ndarray],
        replicates: Any,
    ) -> dict[str, Metric]:
        classes = [str(name) for name in targets["classes"]]
        return score_segmentation(
            predictions["mask"], targets["target"], replicates, classes=classes
        )


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy plus soft Dice per class over the batch.

    Dice is taken over the whole batch, so that images without the class still push the
    prediction down and a batch without any positive is no special case.

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
    """Decoder with one threshold a class, chosen on validation."""

    model: Model
    cuts: np.ndarray
    selected: dict[str, object]

    def probabilities(self, inputs: Inputs) -> np.ndarray:
        """float32 (n, classes, size, size)."""
        parts = []
        for _, features in in_batches(self.model.encoder, inputs):
            logits = self.model(features)
            assert isinstance(logits, Tensor)
            parts.append(logits.sigmoid().numpy())
        return np.concatenate(parts)

    def choose_cuts(self, val: TaskSplit) -> float:
        """Set per class the threshold with the best Dice on positives; return their mean."""
        probability = torch.from_numpy(self.probabilities(val.inputs))
        target = torch.from_numpy(val.targets["target"]).float()
        size_t = target.sum((0, 2, 3))
        # Pooled over all images: a cut that floods the negatives must not win.
        pooled = []
        for cut in CUTS:
            guess = (probability >= float(cut)).float()
            both, size_p = (guess * target).sum((0, 2, 3)), guess.sum((0, 2, 3))
            pooled.append((2 * both / (size_p + size_t).clamp(min=1)).numpy())
        table = np.stack(pooled)  # (cuts, classes)
        self.cuts = CUTS[table.argmax(0)]
        known = size_t.numpy() > 0
        best = table.max(0)[known]
        self.selected["thresholds"] = [float(cut) for cut in self.cuts]
        return float(best.mean()) if len(best) else float("nan")

    def predict(self, inputs: Inputs) -> dict[str, np.ndarray]:
        return {"mask": self.probabilities(inputs) >= self.cuts[:, None, None]}

    def state_dict(self) -> dict[str, Tensor]:
        return self.model.state_dict()
