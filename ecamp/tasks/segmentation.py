"""Segmentation: a light convolutional decoder on frozen features, or through the encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecamp.data.arrays import Arrays
from ecamp.encoders.base import Encoder, Features
from ecamp.metrics.segmentation import score_segmentation
from ecamp.metrics.stats import Metric
from ecamp.plugin.protocols import TaskPlugin
from ecamp.tasks.base import Inputs, TaskSplit
from ecamp.tasks.neck import Neck, conv_block
from ecamp.tasks.running import features_by, in_batches
from ecamp.train.heads import HeadRecipe, Model, train_head

CUTS = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


class Segmentation(TaskPlugin):
    """One mask a class and image."""

    summary = "pixel masks: convolutional decoder on a frozen or fine-tuned encoder"
    licence = "Apache-2.0"
    citation = "decoder after the published recipe, narrower; loss BCE + soft Dice"
    needs = "mask"
    primary = "dice_pos"
    protocols = ("frozen", "finetune")
    Config = HeadRecipe

    def targets(self, split: Arrays) -> dict[str, np.ndarray]:
        return {"target": split.masks, "classes": np.array(split.info.mask_classes)}

    def fit(
        self, encoder: Encoder | None, train: TaskSplit, val: TaskSplit, *, protocol: str, seed: int
    ) -> SegmentationPredictor:
        masks, size = train.targets["target"], train.inputs.images.shape[1]
        features_of = features_by(encoder, train.inputs)
        with torch.no_grad():
            example = features_of(np.zeros(1, np.int64))
        model = Model(Decoder(example, size, masks.shape[1]), encoder)
        predictor = SegmentationPredictor(model, np.full(masks.shape[1], 0.5), {})

        def loss_of(logits: Tensor | tuple[Tensor, ...], index: np.ndarray) -> Tensor:
            assert isinstance(logits, Tensor)
            return mask_loss(logits, torch.from_numpy(masks[index]).float())

        fit = train_head(
            model,
            features_of,
            loss_of,
            lambda: predictor.choose_cuts(val),
            count=len(train.inputs),
            recipe=self.config,
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
        return score_segmentation(predictions["mask"], targets["target"], replicates, classes=classes)


class Decoder(nn.Module):
    """Neck, then two conv-upsample stages, then a linear map and bilinear resizing to the image."""

    def __init__(self, example: Features, image_size: int, classes: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.neck = Neck(example, image_size, 64)
        self.stages = nn.ModuleList([conv_block(64, 48), conv_block(48, 32)])
        self.out = nn.Conv2d(32, classes, 1)
        # Findings are rare: start from about 2 % so that the first steps are not spent on that.
        nn.init.constant_(self.out.bias, -4.0)

    def forward(self, features: Features) -> Tensor:
        """Features -> logits (batch, classes, size, size)."""
        x = self.neck(features.pyramid)
        for stage in self.stages:
            x = F.interpolate(stage(x), scale_factor=2, mode="bilinear", align_corners=False)
        size = (self.image_size, self.image_size)
        return F.interpolate(self.out(x), size, mode="bilinear", align_corners=False)


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy plus soft Dice per class over the batch.

    Dice is taken over the whole batch, so that images without the class still push the
    prediction down and a batch without any positive is no special case.

    Args:
        logits, target: (batch, classes, height, width).
    """
    bce = F.binary_cross_entropy_with_logits(logits, target)
    probability = logits.sigmoid()
    axes = (0, 2, 3)
    overlap = (probability * target).sum(axes)
    dice = (2 * overlap + 1) / (probability.sum(axes) + target.sum(axes) + 1)
    return bce + (1 - dice).mean()


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
        probability, target = self.probabilities(val.inputs), val.targets["target"]
        one = np.ones((1, len(target)), np.float32)
        best = np.full(target.shape[1], -1.0)
        for cut in CUTS:
            for k in range(target.shape[1]):
                pair = probability[:, k : k + 1] >= cut, target[:, k : k + 1]
                # Pooled over all images: a cut that floods the negatives must not win.
                value = score_segmentation(*pair, one, classes=["k"])["dice_pooled"].value
                if value is not None and value > best[k]:
                    best[k], self.cuts[k] = value, cut
        self.selected["thresholds"] = [float(cut) for cut in self.cuts]
        return float(best[best >= 0].mean()) if (best >= 0).any() else float("nan")

    def predict(self, inputs: Inputs) -> dict[str, np.ndarray]:
        return {"mask": self.probabilities(inputs) >= self.cuts[:, None, None]}

    def state_dict(self) -> dict[str, Tensor]:
        return self.model.state_dict()
