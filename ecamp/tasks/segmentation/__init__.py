"""Segmentation: a decoder on frozen features, or through the encoder. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ecamp.api.task import Floor, Overlay, TaskPlugin, TaskSplit
from ecamp.metrics.segmentation import score_segmentation
from ecamp.metrics.stats import Metric
from ecamp.tasks.segmentation.config import SegmentationConfig
from ecamp.tasks.segmentation.floors import all_empty, prior_mask

if TYPE_CHECKING:
    from ecamp.api.encoder import Encoder
    from ecamp.data.arrays import Arrays
    from ecamp.tasks.segmentation.training import SegmentationPredictor


class Segmentation(TaskPlugin[SegmentationConfig]):
    """Task with one mask per class and image."""

    summary = "pixel masks: one of four heads, frozen or fine-tuned; published"
    licence = "Apache-2.0"
    citation = "Shi et al., CVPR 2016 (subpixel); Xiao et al., UPerNet, ECCV 2018 (pyramid)"
    needs = "mask"
    primary = "dice_pos"
    protocols = ("frozen", "finetune", "published")

    def targets(self, split: Arrays) -> dict[str, np.ndarray]:
        return {"target": split.masks, "classes": np.array(split.info.mask_classes)}

    def fit(
        self, encoder: Encoder | None, train: TaskSplit, val: TaskSplit, *, protocol: str, seed: int
    ) -> SegmentationPredictor:
        """Train a decoder; `published`: frozen features, the published decoder and loss."""
        from ecamp.tasks.segmentation.training import fit_segmentation

        return fit_segmentation(encoder, train, val, self.config, protocol, seed)

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

    def floors(self) -> Mapping[str, Floor]:
        return {"all-empty": all_empty, "prior-mask": prior_mask}

    def overlay(
        self, predictions: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray], index: int
    ) -> tuple[Overlay, Overlay]:
        truth, predicted = (
            Overlay(masks=[(k, layer) for k, layer in enumerate(masks[index]) if layer.any()])
            for masks in (targets["target"], predictions["mask"])
        )
        return truth, predicted
