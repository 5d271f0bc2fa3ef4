"""Detection: boxes by a one-stage head on frozen features, or through the encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torchvision.ops import batched_nms

from ecamp.data.arrays import Arrays
from ecamp.data.augment import Warp
from ecamp.encoders.base import Encoder
from ecamp.metrics.detection import Boxes, score_detection
from ecamp.metrics.stats import Metric
from ecamp.plugin.protocols import TaskPlugin
from ecamp.tasks.base import Inputs, TaskSplit
from ecamp.tasks.box_head import BoxHead, Truth
from ecamp.tasks.dense_head import DenseHead
from ecamp.tasks.running import TrainingBatches, in_batches
from ecamp.tasks.yolo_head import YOLOv3
from ecamp.train.heads import HeadRecipe, Model, train_head

CANDIDATES = 100  # best boxes of an image that suppression looks at


class Detection(TaskPlugin):
    """Boxes with class and score."""

    summary = "boxes: anchor-free (dense) or YOLOv3 head, frozen or fine-tuned; published"
    licence = "Apache-2.0"
    citation = "Tian et al., FCOS, ICCV 2019; Redmon and Farhadi, 2018; pycocotools (score)"
    needs = "boxes"
    primary = "map_40_75"
    protocols = ("frozen", "finetune", "published")

    class Config(HeadRecipe):
        """Recipe and suppression."""

        head: Literal["dense", "yolov3"] = Field(
            default="dense", description="dense: anchor-free, light; yolov3: the published one"
        )
        steps: int = Field(default=180, ge=1, description="optimiser steps")
        batch_size: int = Field(default=12, ge=1, description="images a step")
        width: int = Field(default=48, ge=8, multiple_of=8, description="channels of `dense`")
        keep: int = Field(default=20, ge=1, le=100, description="boxes kept an image")
        nms_iou: float = Field(default=0.5, gt=0, lt=1, description="IoU that suppresses")

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
        """As the base class; `published`: frozen features and the published YOLOv3 head (METHOD 6)."""
        size, classes = train.inputs.images.shape[1], len(train.targets["classes"])
        batch = TrainingBatches(encoder, train.inputs, self.config.augment, seed)
        kind = "yolov3" if protocol == "published" else self.config.head
        head: BoxHead = (
            YOLOv3(batch.example(), size, classes)
            if kind == "yolov3"
            else DenseHead(batch.example(), size, classes, self.config.width)
        )
        model = Model(head, encoder)
        predictor = DetectionPredictor(model, head, self.config, {})
        truth = _per_image(train.targets, len(train.inputs))

        def loss_at(index: np.ndarray, step: int) -> Tensor:
            features, warp = batch(index, step)
            outputs = model(features)
            assert isinstance(outputs, tuple)
            return head.loss(outputs, _moved([truth[i] for i in index], warp, size))

        fit = train_head(
            model,
            loss_at,
            lambda: self._validate(predictor, val),
            count=len(train.inputs),
            recipe=self.config,
            lr=head.lr,
            seed=seed,
        )
        predictor.selected["step"] = fit.best_step
        return predictor

    def _validate(self, predictor: DetectionPredictor, val: TaskSplit) -> float:
        one = np.ones((1, len(val.inputs)), np.float32)
        metric = self.score(predictor.predict(val.inputs), val.targets, one)[self.primary]
        return float("nan") if metric.value is None else metric.value

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
        return score_detection(predicted, truth, replicates, classes=classes)


def _per_image(targets: dict[str, np.ndarray], count: int) -> list[Truth]:
    """Split flat truth into (boxes (k, 4), labels (k,)) an image."""
    boxes = torch.from_numpy(np.asarray(targets["gt_boxes"], np.float32))
    labels = torch.from_numpy(np.asarray(targets["gt_labels"], np.int64))
    index = torch.from_numpy(np.asarray(targets["gt_image_index"], np.int64))
    sizes = torch.bincount(index, minlength=count).tolist()
    return list(zip(boxes.split(sizes), labels.split(sizes), strict=True))


def _moved(truth: list[Truth], warp: Warp | None, side: int) -> list[Truth]:
    """Truth of a batch, moved as its images were."""
    if warp is None:
        return truth
    out = []
    for at, (boxes, labels) in enumerate(truth):
        moved, kept = warp.boxes(at, boxes, side)
        out.append((moved, labels[kept]))
    return out


@dataclass
class DetectionPredictor:
    """Head with suppression."""

    model: Model
    head: BoxHead
    config: Any
    selected: dict[str, object]

    def predict(self, inputs: Inputs) -> dict[str, np.ndarray]:
        boxes, scores, labels, image = [], [], [], []
        for index, features in in_batches(self.model.encoder, inputs):
            outputs = self.model(features)
            assert isinstance(outputs, tuple)
            xyxy, score = self.head.boxes(outputs)
            xyxy = xyxy.clamp(0, self.head.image_size)
            for i, where in enumerate(index):
                best, flat = score[i].flatten().topk(min(CANDIDATES, score[i].numel()))
                box, kind = xyxy[i, flat // self.head.classes], flat % self.head.classes
                kept = batched_nms(box, best, kind, self.config.nms_iou)[: self.config.keep]
                boxes.append(box[kept])
                scores.append(best[kept])
                labels.append(kind[kept])
                image.append(np.full(len(kept), where, np.int64))
        return {
            "boxes": torch.cat(boxes).numpy(),
            "scores": torch.cat(scores).numpy(),
            "labels": torch.cat(labels).numpy(),
            "image_index": np.concatenate(image),
        }

    def state_dict(self) -> dict[str, Tensor]:
        return self.model.state_dict()
