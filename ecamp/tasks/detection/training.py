"""Training of box heads, and their prediction with suppression."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from ecamp.api.encoder import Encoder
from ecamp.api.task import Inputs, TaskSplit
from ecamp.data.augment import Warp
from ecamp.tasks.detection.config import DetectionConfig
from ecamp.tasks.detection.fcos_head import DenseHead
from ecamp.tasks.detection.head import BoxHead, Truth
from ecamp.tasks.detection.yolo_head import YOLOv3
from ecamp.tasks.feature_batches import TrainingBatches, in_batches
from ecamp.train.heads import Model, train_head

CANDIDATES = 100  # best boxes of an image that enter suppression


def fit_detection(
    encoder: Encoder | None,
    train: TaskSplit,
    config: DetectionConfig,
    protocol: str,
    seed: int,
    validate: Callable[[DetectionPredictor], float],
) -> DetectionPredictor:
    """Train a box head on frozen features, or with the encoder where one is given.

    Args:
        validate: Scores a predictor on validation; the best weights are kept.
    """
    size, classes = train.inputs.images.shape[1], len(train.targets["classes"])
    batch = TrainingBatches(encoder, train.inputs, config.augment, seed)
    head_name = "yolov3" if protocol == "published" else config.head
    head: BoxHead = (
        YOLOv3(batch.example(), size, classes)
        if head_name == "yolov3"
        else DenseHead(batch.example(), size, classes, config.width)
    )
    model = Model(head, encoder)
    predictor = DetectionPredictor(model, head, config, {})
    truth = _per_image(train.targets, len(train.inputs))

    def loss_at(index: np.ndarray, step: int) -> Tensor:
        features, warp = batch(index, step)
        outputs = model(features)
        assert isinstance(outputs, tuple)
        return head.loss(outputs, _move_truth([truth[i] for i in index], warp, size))

    fit = train_head(
        model,
        loss_at,
        lambda: validate(predictor),
        count=len(train.inputs),
        recipe=config,
        lr=head.lr,
        seed=seed,
    )
    predictor.selected["step"] = fit.best_step
    return predictor


def _per_image(targets: dict[str, np.ndarray], count: int) -> list[Truth]:
    """Split flat truth into (boxes (k, 4), labels (k,)) per image."""
    boxes = torch.from_numpy(np.asarray(targets["gt_boxes"], np.float32))
    labels = torch.from_numpy(np.asarray(targets["gt_labels"], np.int64))
    index = torch.from_numpy(np.asarray(targets["gt_image_index"], np.int64))
    sizes = torch.bincount(index, minlength=count).tolist()
    return list(zip(boxes.split(sizes), labels.split(sizes), strict=True))


def _move_truth(truth: list[Truth], warp: Warp | None, side: int) -> list[Truth]:
    """Move the truth of a batch as its images were moved."""
    if warp is None:
        return truth
    out = []
    for i, (boxes, labels) in enumerate(truth):
        moved, kept = warp.boxes(i, boxes, side)
        out.append((moved, labels[kept]))
    return out


@dataclass
class DetectionPredictor:
    """Predictor of boxes: a head with suppression."""

    model: Model
    head: BoxHead
    config: DetectionConfig
    selected: dict[str, object]

    def predict(self, inputs: Inputs) -> dict[str, np.ndarray]:
        boxes, scores, labels, image = [], [], [], []
        for index, features in in_batches(self.model.encoder, inputs):
            outputs = self.model(features)
            assert isinstance(outputs, tuple)
            xyxy, score = self.head.boxes(outputs)
            xyxy = xyxy.clamp(0, self.head.image_size)
            for i, image_index in enumerate(index):
                candidate_score, candidate = (
                    score[i].flatten().topk(min(CANDIDATES, score[i].numel()))
                )
                box, class_id = (
                    xyxy[i, candidate // self.head.classes],
                    candidate % self.head.classes,
                )
                kept = batched_nms(box, candidate_score, class_id, self.config.nms_iou)[
                    : self.config.keep
                ]
                boxes.append(box[kept])
                scores.append(candidate_score[kept])
                labels.append(class_id[kept])
                image.append(np.full(len(kept), image_index, np.int64))
        return {
            "boxes": torch.cat(boxes).numpy(),
            "scores": torch.cat(scores).numpy(),
            "labels": torch.cat(labels).numpy(),
            "image_index": np.concatenate(image),
        }

    def state_dict(self) -> dict[str, Tensor]:
        return self.model.state_dict()
