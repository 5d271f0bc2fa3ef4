"""Consensus of several readers of one film: findings by votes, boxes by IoU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import fsum

from ecamp.io.boxes import Box


def count_votes(rows: Sequence[Sequence[int]], agree: int) -> tuple[int, ...]:
    """Count the readers who name each finding.

    Args:
        rows: One per reader, one 0 or 1 per finding.
        agree: Readers who must name a finding; all of them if fewer read the film.

    Returns:
        One 0 or 1 per finding.
    """
    needed = min(agree, len(rows))
    return tuple(int(sum(column) >= needed) for column in zip(*rows, strict=True))


def iou(a: Box, b: Box) -> float:
    """Compute the intersection over union of two boxes with an area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inside = max(width, 0.0) * max(height, 0.0)
    return inside / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside)


@dataclass
class _Group:
    """Boxes of one finding: at most one per reader."""

    boxes: list[Box]
    readers: set[str]

    def can_merge(self, other: _Group, overlap: float) -> bool:
        # Every pair must overlap: a chain of boxes must not join two that are side by side.
        return self.readers.isdisjoint(other.readers) and all(
            iou(a, b) >= overlap for a in self.boxes for b in other.boxes
        )


def merge_boxes(drawn: Iterable[tuple[str, Box]], overlap: float, agree: int) -> tuple[Box, ...]:
    """Merge the boxes that several readers drew of one class into one box per finding.

    The two boxes of different readers with the highest IoU are grouped first, then the next two, and so
    on. A group has at most one box per reader, and any two of its boxes have an IoU of at least `overlap`.
    The result is the mean of the group. Duplicate boxes of one reader count once; order does not matter.

    Args:
        drawn: Reader and box x1, y1, x2, y2; every box has an area.
        overlap: Smallest IoU, above 0.
        agree: Readers that a group needs; smaller groups are dropped.

    Returns:
        Boxes in sorted order, each inside the hull of its group.
    """
    unique = sorted(set(drawn))
    groups = [_Group([box], {reader}) for reader, box in unique]
    pairs = [
        (-iou(unique[i][1], unique[j][1]), i, j) for i, j in combinations(range(len(unique)), 2)
    ]
    for negative, i, j in sorted(pairs):
        if -negative < overlap:
            break
        first, second = groups[i], groups[j]
        if first is not second and first.can_merge(second, overlap):
            joined = _Group(first.boxes + second.boxes, first.readers | second.readers)
            groups = [joined if group is first or group is second else group for group in groups]
    kept = {id(group): group for group in groups if len(group.readers) >= agree}
    return tuple(sorted(_mean(group.boxes) for group in kept.values()))


def _mean(boxes: Sequence[Box]) -> Box:
    x1, y1, x2, y2 = (
        # Rounding must not move an edge out of the hull.
        min(max(fsum(side) / len(side), min(side)), max(side))
        for side in zip(*boxes, strict=True)
    )
    return x1, y1, x2, y2
