"""The default detection head: anchor-free, one stage (after FCOS, Tian et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from ecamp.api.encoder import Features
from ecamp.tasks.detection.head import BoxHead, Truth
from ecamp.tasks.neck import Neck, conv_block, output_conv

SCALES = (2.0, 1.0, 0.5)  # cells per side, relative to the neck's grid


class DenseHead(BoxHead):
    """Three resolutions; each cell predicts class scores, four distances and centerness."""

    lr = 3e-3

    def __init__(self, example: Features, image_size: int, classes: int, width: int) -> None:
        super().__init__()
        self.classes, self.image_size = classes, image_size
        self.neck = Neck(example, image_size, width)
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.tower = conv_block(width, width)  # shared: two would double the cost of a step
        # Class scores, four sides, centerness. 1 % prior (focal loss, Lin et al. 2017)
        self.out = output_conv(width, classes + 5, 3, bias=-4.6)
        with torch.no_grad():
            torch.as_tensor(self.out.bias)[classes:] = 0
        self.level_scale = nn.Parameter(torch.zeros(len(SCALES)))
        rows, columns = self.neck.grid
        points, strides, size_range = [], [], []
        for level, scale in enumerate(SCALES):
            r, c = math.ceil(rows * scale), math.ceil(columns * scale)  # as `down` rounds
            stride = image_size / r
            y, x = torch.meshgrid(torch.arange(r) + 0.5, torch.arange(c) + 0.5, indexing="ij")
            points.append(torch.stack([x.flatten() * stride, y.flatten() * stride], 1))
            strides.append(torch.full((r * c,), stride))
            # Each resolution takes boxes whose largest distance is in its range; the ends are open.
            low = 0.0 if level == 0 else 2.0 * stride
            high = float("inf") if level == len(SCALES) - 1 else 4.0 * stride
            size_range.append(torch.tensor([[low, high]]).expand(r * c, 2))
        self.points: Tensor
        self.strides: Tensor
        self.size_range: Tensor
        self.register_buffer("points", torch.cat(points), persistent=False)
        self.register_buffer("strides", torch.cat(strides), persistent=False)
        self.register_buffer("size_range", torch.cat(size_range), persistent=False)

    def forward(self, features: Features) -> tuple[Tensor, Tensor, Tensor]:
        """Compute class logits (b, cells, K), distances in pixels (b, cells, 4), centerness logits."""
        base = self.neck(features.pyramid)
        logits, sides, centre_logits = [], [], []
        for level, x in enumerate((self.up(base), base, self.down(base))):
            x = self.tower(x)
            class_logits, box, centre = (
                self.out(x).flatten(2).transpose(1, 2).split([self.classes, 4, 1], dim=2)
            )
            stride = self.image_size / x.shape[2]
            logits.append(class_logits)
            sides.append((box + self.level_scale[level]).clamp(max=6).exp() * stride)
            centre_logits.append(centre.squeeze(2))
        return torch.cat(logits, 1), torch.cat(sides, 1), torch.cat(centre_logits, 1)

    def assign(self, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Assign each cell a box, or none (FCOS section 3, with centre sampling).

        Args:
            boxes: (batch, k, 4); labels: (batch, k), -1 where an image has fewer than k boxes.

        Returns:
            class index (batch, cells), K = background; distances (batch, cells, 4) left, top,
            right, bottom.
        """
        x, y = self.points[None, :, :1], self.points[None, :, 1:]
        x1, y1, x2, y2 = boxes[:, None].unbind(-1)
        sides = torch.stack([x - x1, y - y1, x2 - x, y2 - y], -1)  # (batch, cells, k, 4)
        radius = 1.5 * self.strides[:, None]
        near = ((x - (x1 + x2) / 2).abs() < radius) & ((y - (y1 + y2) / 2).abs() < radius)
        longest = sides.amax(-1)
        fits = (longest >= self.size_range[:, :1]) & (longest <= self.size_range[:, 1:])
        inside = (sides.amin(-1) > 0) & near & fits & (labels >= 0)[:, None]
        area = ((x2 - x1) * (y2 - y1)).expand_as(longest).masked_fill(~inside, float("inf"))
        smallest, box_index = area.min(-1)
        class_id = torch.where(smallest.isfinite(), labels.gather(1, box_index), self.classes)
        return class_id, sides.gather(2, box_index[..., None, None].expand(-1, -1, 1, 4)).squeeze(2)

    def loss(self, outputs: tuple[Tensor, ...], truth: Sequence[Truth]) -> Tensor:
        """Add focal, GIoU and centerness losses, normalised by the number of positive cells."""
        logits, sides, centre_logits = outputs
        # One more empty slot, so that a batch without any box is not a special case.
        boxes = pad_sequence([F.pad(b, (0, 0, 0, 1)) for b, _ in truth], batch_first=True)
        labels = pad_sequence([F.pad(k, (0, 1), value=-1) for _, k in truth], True, -1)
        class_id, true_sides = self.assign(boxes, labels)
        positive = class_id < self.classes
        count = positive.sum().clamp(min=1)
        one_hot = F.one_hot(class_id, self.classes + 1)[..., :-1].float()
        total: Tensor = sigmoid_focal_loss(logits, one_hot, reduction="sum") / count
        if positive.any():
            points = self.points.expand(len(truth), -1, -1)[positive]
            predicted_boxes, true_boxes = (
                _to_xyxy(points, sides[positive]),
                _to_xyxy(points, true_sides[positive]),
            )
            centre_target = centerness(true_sides[positive])
            weight = centre_target.sum().clamp(min=1e-6)
            total = (
                total
                + (generalized_box_iou_loss(predicted_boxes, true_boxes) * centre_target).sum()
                / weight
            )
            total = total + F.binary_cross_entropy_with_logits(
                centre_logits[positive], centre_target
            )
        return total

    def boxes(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        logits, sides, centre_logits = outputs
        scores = (logits.sigmoid() * centre_logits.sigmoid().unsqueeze(-1)).sqrt()
        return _to_xyxy(self.points.expand(len(sides), -1, -1), sides), scores


def centerness(sides: Tensor) -> Tensor:
    """Compute FCOS eq. 3: 1 at the centre of the box, 0 at its edge. (n, 4) -> (n,)."""
    across, down = sides[:, [0, 2]], sides[:, [1, 3]]
    ratio = across.amin(1) / across.amax(1) * down.amin(1) / down.amax(1)
    return ratio.clamp(min=0).sqrt()


def _to_xyxy(points: Tensor, sides: Tensor) -> Tensor:
    return torch.cat([points - sides[..., :2], points + sides[..., 2:]], -1)
