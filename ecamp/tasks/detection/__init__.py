"""Detection: boxes by a one-stage head on frozen features, or through the encoder. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ecamp.api.task import Floor, Overlay, TaskPlugin, TaskSplit
from ecamp.metrics.boxes import Boxes
from ecamp.metrics.detection import score_detection
from ecamp.metrics.stats import Metric
from ecamp.published.downstream.mean_ap import published_map_metric
from ecamp.tasks.detection.config import DetectionConfig
from ecamp.tasks.detection.floors import prior_box

if TYPE_CHECKING:
    from ecamp.api.encoder import Encoder
    from ecamp.data.arrays import Arrays
    from ecamp.tasks.detection.training import DetectionPredictor

MIN_DRAWN_SCORE = 0.4  # predicted boxes below it are not drawn


class Detection(TaskPlugin[DetectionConfig]):
    """Task with boxes of a class and score."""

    summary = "boxes: anchor-free (dense) or YOLOv3 head, frozen or fine-tuned; published"
    licence = "Apache-2.0"
    citation = "Tian et al., FCOS, ICCV 2019; Redmon and Farhadi, 2018; pycocotools (score)"
    needs = "boxes"
    primary = "map_40_75"
    protocols = ("frozen", "finetune", "published")

    def targets(self, split: Arrays) -> dict[str, np.ndarray]:
        counts = np.diff(split.box_start)
        return {
            "gt_boxes": split.boxes,
            "gt_labels": split.box_classes,
            "gt_image_index": np.repeat(np.arange(len(split)), counts),
            "classes": np.array(split.info.box_classes),
        }

    def fit(
        self, encoder: Encoder | None, train: TaskSplit, val: TaskSplit, *, protocol: str, seed: int
    ) -> DetectionPredictor:
        """Train a box head; `published`: frozen features and the published YOLOv3 head."""
        from ecamp.tasks.detection.training import fit_detection

        def validate(predictor: DetectionPredictor) -> float:
            all_images = np.ones((1, len(val.inputs)), np.float32)
            metric = self.score(predictor.predict(val.inputs), val.targets, all_images)[
                self.primary
            ]
            return float("nan") if metric.value is None else metric.value

        return fit_detection(encoder, train, self.config, protocol, seed, validate)

    def score(
        self,
        predictions: dict[str, np.ndarray],
        targets: dict[str, np.ndarray],
        replicates: Any,
    ) -> dict[str, Metric]:
        p = predictions
        predicted = Boxes(p["boxes"], p["labels"], p["image_index"], p["scores"])
        truth = Boxes(targets["gt_boxes"], targets["gt_labels"], targets["gt_image_index"])
        classes = [str(name) for name in targets["classes"]]
        metrics = score_detection(predicted, truth, replicates, classes=classes)
        # Shown next to COCO's, never instead of it: docs/published-flaws.md#f1
        metrics["published_map"] = published_map_metric(predicted, truth)
        return metrics

    def floors(self) -> Mapping[str, Floor]:
        return {"prior-box": prior_box}

    def overlay(
        self, predictions: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray], index: int
    ) -> tuple[Overlay, Overlay]:
        t, p = targets, predictions
        of_image = t["gt_image_index"] == index
        drawn = (p["image_index"] == index) & (p["scores"] >= MIN_DRAWN_SCORE)
        return (
            Overlay(boxes=_pairs(t["gt_labels"][of_image], t["gt_boxes"][of_image])),
            Overlay(boxes=_pairs(p["labels"][drawn], p["boxes"][drawn])),
        )


def _pairs(labels: np.ndarray, boxes: np.ndarray) -> list[tuple[int, list[float]]]:
    return list(zip(labels.tolist(), boxes.tolist(), strict=True))
