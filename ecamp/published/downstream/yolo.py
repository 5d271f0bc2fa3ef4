"""The published YOLOv3 loss, decoding and suppression (after Redmon & Farhadi, 2018, and MGCA).

Flaws kept here: every box is assigned at all three scales, whatever its size; a cell that holds an
object and overlaps its anchor by 0.5 or less is trained towards "no object" too; IoU counts one
more cell (or pixel) per side; losses are means over all cells, so that the few with an object count
little; the class loss is computed in float32 always.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# COCO's anchors (width, height) in pixels at 416, scaled to 224; coarse to fine.
COCO_ANCHORS = (
    ((116, 90), (156, 198), (373, 326)),
    ((30, 61), (62, 45), (59, 119)),
    ((10, 13), (16, 30), (33, 23)),
)
IGNORE_ABOVE = 0.5
WEIGHTS = {"x": 2.5, "y": 2.5, "w": 2.5, "h": 2.5, "conf": 1.0, "cls": 1.0}


def published_anchors() -> Tensor:
    """Return float32 (3 scales, 3 anchors, 2) in pixels of a 224 image."""
    return torch.tensor(COCO_ANCHORS) * 224 / 416


def overlap(box: Tensor, others: Tensor) -> Tensor:
    """Compute IoU in the "+1" form: each side one unit longer, whatever the unit is.

    In pixels that is the old Pascal VOC convention; between a box and an anchor in units of grid
    cells it makes small boxes look alike.

    Args:
        box: (4,) x1, y1, x2, y2.
        others: (n, 4).

    Returns:
        (n,).
    """
    low = torch.maximum(box[:2], others[:, :2])
    high = torch.minimum(box[2:], others[:, 2:])
    shared = (high - low + 1).clamp(min=0).prod(-1)
    area = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
    areas = (others[:, 2] - others[:, 0] + 1) * (others[:, 3] - others[:, 1] + 1)
    return shared / (area + areas - shared + 1e-16)


@dataclass(frozen=True)
class Assignment:
    """Targets of one scale, float32, indexed (batch, anchor, row, column).

    Attributes:
        holds: 1 where a cell is responsible for a box.
        empty: 1 where the no-object loss applies. Not the complement of `holds`: see the module.
        offset: (..., 2) position in the cell.
        size: (..., 2) log of box size over anchor size.
        classes: (..., classes) one-hot; two boxes in one cell leave two ones.
    """

    holds: Tensor
    empty: Tensor
    offset: Tensor
    size: Tensor
    classes: Tensor


def assign(
    targets: Tensor, anchors: Tensor, rows: int, columns: int, class_count: int
) -> Assignment:
    """Assign each box to the anchor of the most similar shape in the cell of its centre.

    A later box overwrites an earlier one in the same cell and anchor, except for its class.

    Args:
        targets: (batch, boxes, 5): class, centre x, centre y, width, height as fractions of the image;
            rows of zeros are padding.
        anchors: float32 (anchors, 2) in cells.
    """
    shape = (len(targets), len(anchors), rows, columns)
    holds, empty = torch.zeros(shape), torch.ones(shape)
    offset, size = torch.zeros(*shape, 2), torch.zeros(*shape, 2)
    classes = torch.zeros(*shape, class_count)
    anchor_boxes = torch.cat([torch.zeros_like(anchors), anchors], 1)
    for b, boxes in enumerate(targets):
        for target in boxes:
            if target.sum() == 0:
                continue
            class_id, *fractions = target.tolist()
            centre_x, centre_y = fractions[0] * columns, fractions[1] * rows
            extent = (fractions[2] * columns, fractions[3] * rows)
            i, j = int(centre_x), int(centre_y)
            similarity = overlap(torch.tensor([0.0, 0.0, *extent]), anchor_boxes)
            best = int(similarity.argmax())
            empty[b, similarity > IGNORE_ABOVE, j, i] = 0
            holds[b, best, j, i] = 1
            offset[b, best, j, i] = torch.tensor([centre_x - i, centre_y - j])
            size[b, best, j, i] = torch.tensor(
                [math.log(e / a + 1e-16) for e, a in zip(extent, anchors[best], strict=True)]
            )
            classes[b, best, j, i, int(class_id)] = 1
    return Assignment(holds, empty, offset, size, classes)


def _split(logits: Tensor, anchors: int) -> Tensor:
    """Split (batch, anchors * (5 + c), rows, columns) to (batch, anchors, rows, columns, 5 + c)."""
    result: Tensor = logits.unflatten(1, (anchors, -1)).permute(0, 1, 3, 4, 2)
    return result


def yolo_loss(
    logits: Tensor, targets: Tensor, anchors: Tensor, image_size: int
) -> dict[str, Tensor]:
    """Compute the loss of one scale.

    Args:
        logits: (batch, anchors * (5 + classes), rows, columns).
        targets: As for `assign`; the published loader gives float64, which makes the loss so.
        anchors: float32 (anchors, 2) in pixels.

    Returns:
        `total` (weighted by `WEIGHTS`), then its parts `x, y, w, h, conf, cls`.
    """
    values = _split(logits, len(anchors))
    rows, columns = logits.shape[2:]
    strides = torch.tensor([image_size / columns, image_size / rows])
    assignment = assign(targets.cpu(), anchors.cpu() / strides, rows, columns, values.shape[-1] - 5)
    holds, empty = assignment.holds.to(targets), assignment.empty.to(targets)
    offset, size, classes = (
        x.to(targets) for x in (assignment.offset, assignment.size, assignment.classes)
    )
    # Cells without an object are set to 0, not left out: 0 against 0 costs nothing, but counts.
    mask = holds.unsqueeze(-1)
    centre, extent = values[..., :2].sigmoid() * mask, values[..., 2:4] * mask
    objectness, probability = values[..., 4].sigmoid(), values[..., 5:].sigmoid() * mask
    bce, mse = F.binary_cross_entropy, F.mse_loss
    parts = {
        "x": bce(centre[..., 0], offset[..., 0]),
        "y": bce(centre[..., 1], offset[..., 1]),
        "w": mse(extent[..., 0], size[..., 0]),
        "h": mse(extent[..., 1], size[..., 1]),
        "conf": bce(objectness * holds, holds)
        + 0.5 * bce(objectness * empty, torch.zeros_like(empty)),
        "cls": bce(probability.float(), classes.float()),
    }
    return {"total": _sum(WEIGHTS[name] * part for name, part in parts.items()), **parts}


def _sum(values: Iterable[Tensor]) -> Tensor:
    first, *others = values
    return sum(others, start=first)


def decode(logits: Tensor, anchors: Tensor, image_size: int) -> Tensor:
    """Turn logits of one scale into boxes; boxes are computed in float32 always.

    Returns:
        (batch, anchors * rows * columns, 5 + classes): centre x, centre y, width, height in pixels,
        objectness, class probabilities.
    """
    values = _split(logits.detach(), len(anchors))
    rows, columns = logits.shape[2:]
    strides = torch.tensor([image_size / columns, image_size / rows], device=logits.device)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    cell = torch.stack([column, row], -1).to(logits.device, torch.float32)
    centre = (values[..., :2].sigmoid() + cell).float()
    size = values[..., 2:4].exp().float() * (anchors.to(strides) / strides)[:, None, None]
    boxes = torch.cat([centre * strides, size * strides], -1)
    return torch.cat([boxes.to(values), values[..., 4:].sigmoid()], -1).flatten(1, 3)


def suppress(
    decoded: Tensor, class_count: int, *, confidence: float = 0.5, overlap_below: float = 0.5
) -> list[Tensor | None]:
    """Drop boxes of low objectness, then suppress class by class (docs/published-flaws.md#f3).

    Sorted and filtered by objectness alone; the class probability only selects the class.

    Args:
        decoded: (batch, boxes, 5 + classes) as from `decode`, scales joined. Not changed (the
            published code overwrites it).

    Returns:
        Per image (kept, 7): x1, y1, x2, y2, objectness, class probability, class; None where no
        box passes (the published evaluation drops such images: docs/published-flaws.md#f1).
    """
    half = decoded[..., 2:4] / 2
    corners = torch.cat([decoded[..., :2] - half, decoded[..., :2] + half], -1)
    results: list[Tensor | None] = []
    for box, scores in zip(corners, decoded[..., 4:], strict=True):
        passes = scores[:, 0] >= confidence
        if not passes.any():
            results.append(None)
            continue
        probability, class_id = scores[passes, 1 : 1 + class_count].max(1, keepdim=True)
        rows = torch.cat([box[passes], scores[passes, :1], probability, class_id.to(box)], 1)
        kept = [_suppress(rows[rows[:, 6] == k], overlap_below) for k in rows[:, 6].unique()]
        results.append(torch.cat(kept))
    return results


def _suppress(rows: Tensor, overlap_below: float) -> Tensor:
    """Suppress, best first: each kept box removes the later boxes that overlap it too much."""
    rows = rows[rows[:, 4].sort(descending=True).indices]
    kept = []
    while len(rows):
        kept.append(rows[0])
        rows = rows[1:][overlap(rows[0, :4], rows[1:, :4]) < overlap_below]
    return torch.stack(kept)


def total_loss(
    logits: Sequence[Tensor], targets: Tensor, anchors: Tensor, image_size: int
) -> dict[str, Tensor]:
    """Sum the loss and its parts over the scales; `anchors` (scales, anchors, 2)."""
    scales = [yolo_loss(x, targets, a, image_size) for x, a in zip(logits, anchors, strict=True)]
    return {name: _sum(scale[name] for scale in scales) for name in scales[0]}


def detect(
    logits: Sequence[Tensor], anchors: Tensor, image_size: int, class_count: int
) -> list[Tensor | None]:
    """Decode all scales and suppress, with the published thresholds."""
    joined = [decode(x, a, image_size) for x, a in zip(logits, anchors, strict=True)]
    return suppress(torch.cat(joined, 1), class_count)


def corner_targets(targets: Tensor, image_size: int) -> Tensor:
    """Convert true boxes as the published evaluation compares them.

    Returns:
        (boxes, 6): image, x1, y1, x2, y2 in pixels, class; rows of zeros are left out.
    """
    centre, half = targets[..., 1:3], targets[..., 3:5] / 2
    corners = torch.cat([centre - half, centre + half], -1) * image_size
    image = torch.arange(len(targets))[:, None, None].expand(*targets.shape[:2], 1).to(targets)
    rows = torch.cat([image, corners, targets[..., :1]], -1)
    return rows[rows[..., 3] > 0]
