"""The published YOLOv3 head as an option of our recipe: its layers and loss, any encoder below it.

Maps, branches, assignment and loss are the published ones (`published/`), defects of the loss
included. Ours are the input (one standardised map at 1/16 of the image) and the output: every
candidate is scored and suppressed as for other heads, where the published code drops boxes of
objectness below 0.5 (docs/published-flaws.md#f1, #f3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ecamp.api.encoder import Features
from ecamp.published.downstream.detection import FeatureMaps, YOLOHead
from ecamp.published.downstream.yolo import decode, published_anchors, total_loss
from ecamp.tasks.detection.head import BoxHead, Truth
from ecamp.tasks.neck import Standardise, nearest_level, resize

EXPANSION = 4  # of the bottlenecks, as published for 100 % of the labels, here for any fraction
STRIDE = 16  # image side over rows of the map that the published ViT-B/16 gives


class YOLOv3(BoxHead):
    """Linear layer on one map of the encoder, three maps of it, YOLOv3's three branches.

    Args:
        example: Features of some training images: for shapes and statistics.
    """

    lr = 1e-3

    def __init__(self, example: Features, image_size: int, classes: int) -> None:
        super().__init__()
        self.image_size, self.classes = image_size, classes
        self.level = nearest_level(example.pyramid, image_size / STRIDE)
        level = example.pyramid[self.level]
        rows, columns = level.shape[2:]
        # The coarse map takes every second cell and is doubled again to join the middle one: even sides.
        self.grid = (rows + rows % 2, columns + columns % 2)
        self.standardise = Standardise([level])
        self.project = nn.Conv2d(level.shape[1], level.shape[1], 1)
        self.maps = FeatureMaps(level.shape[1], EXPANSION)
        self.anchors: Tensor
        anchors = published_anchors() * image_size / 224
        self.register_buffer("anchors", anchors, persistent=False)
        self.head = YOLOHead(anchors.shape[1], classes)

    def forward(self, features: Features) -> tuple[Tensor, ...]:
        """Compute the logits of three scales, coarse to fine, as the published detector."""
        (level,) = self.standardise([features.pyramid[self.level]])
        outputs: tuple[Tensor, ...] = self.head(self.maps(resize(self.project(level), self.grid)))
        return outputs

    def loss(self, outputs: tuple[Tensor, ...], truth: Sequence[Truth]) -> Tensor:
        targets = _as_rows(truth, self.image_size)
        return total_loss(outputs, targets, self.anchors, self.image_size)["total"]

    def boxes(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        scales = [
            decode(logits, anchors, self.image_size)
            for logits, anchors in zip(outputs, self.anchors, strict=True)
        ]
        candidates = torch.cat(scales, 1)
        half = (candidates[..., 2:4] / 2).clamp(max=self.image_size)
        corners = torch.cat([candidates[..., :2] - half, candidates[..., :2] + half], -1)
        return corners, candidates[..., 4:5] * candidates[..., 5:]


def _as_rows(truth: Sequence[Truth], side: int) -> Tensor:
    """Convert boxes for the published loss: class, centre and size as fractions of the image.

    Returns:
        float32 (batch, max boxes, 5); rows of zeros are padding.
    """
    rows = torch.zeros(len(truth), max([len(boxes) for boxes, _ in truth] + [1]), 5)
    for row, (boxes, labels) in zip(rows, truth, strict=True):
        row[: len(boxes), 0] = labels.float()
        # A centre on the far edge lies in no cell.
        row[: len(boxes), 1:3] = ((boxes[:, :2] + boxes[:, 2:]) / 2 / side).clamp(0, 1 - 1e-6)
        row[: len(boxes), 3:] = (boxes[:, 2:] - boxes[:, :2]) / side
    return rows
