"""What several readers of one film agree upon: findings by their votes, boxes by their overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import fsum

from ecamp.io.boxes import Box


def count_votes(rows: Sequence[Sequence[int]], agree: int) -> tuple[int, ...]:
    """Findings that enough readers named.

    Args:
        rows: Of each reader, one 0 or 1 a finding. agree: How many must name it; all, where fewer read.

    Returns:
        One 0 or 1 a finding.
    """
    needed = min(agree, len(rows))
    return tuple(int(sum(column) >= needed) for column in zip(*rows, strict=True))


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes with an area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inside = max(width, 0.0) * max(height, 0.0)
    return inside / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside)


@dataclass
class _Group:
    """Boxes taken for one finding: at most one of each reader."""

    boxes: list[Box]
    readers: set[str]

    def fits(self, other: _Group, overlap: float) -> bool:
        # Each box with each other one: a chain of boxes must not join two that lie side by side.
        return self.readers.isdisjoint(other.readers) and all(
            iou(a, b) >= overlap for a in self.boxes for b in other.boxes
        )


def merge_boxes(drawn: Iterable[tuple[str, Box]], overlap: float, agree: int) -> tuple[Box, ...]:
    """One box for each finding, from the boxes that several readers drew of one class.

    The two boxes of different readers that overlap most are joined first, then the next two, and so on. A
    group holds one box of a reader at most, and each two of its boxes overlap by `overlap` or more. It
    becomes the mean of its boxes. A box drawn twice by one reader counts once. Nothing depends on the order.

    Args:
        drawn: Reader and box x1, y1, x2, y2, each box with an area. overlap: Smallest IoU, above 0.
        agree: Readers that a group needs; others are left out.

    Returns:
        Sorted boxes, each inside the hull of its group.
    """
    known = sorted(set(drawn))
    groups = [_Group([box], {reader}) for reader, box in known]
    pairs = [(-iou(known[i][1], known[j][1]), i, j) for i, j in combinations(range(len(known)), 2)]
    for negative, i, j in sorted(pairs):
        if -negative < overlap:
            break
        first, second = groups[i], groups[j]
        if first is not second and first.fits(second, overlap):
            joined = _Group(first.boxes + second.boxes, first.readers | second.readers)
            groups = [joined if group is first or group is second else group for group in groups]
    kept = {id(group): group for group in groups if len(group.readers) >= agree}
    return tuple(sorted(_mean(group.boxes) for group in kept.values()))


def _mean(boxes: Sequence[Box]) -> Box:
    x1, y1, x2, y2 = (
        # Rounding must not lead out of the hull.
        min(max(fsum(side) / len(side), min(side)), max(side))
        for side in zip(*boxes, strict=True)
    )
    return x1, y1, x2, y2
