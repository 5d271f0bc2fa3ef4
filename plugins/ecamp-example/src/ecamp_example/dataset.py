"""A procedural data set: a disc, a square, or nothing, on noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from ecamp.api import Dataset, DatasetInfo, PluginConfig, Record, Sample, Truth

SHAPES = ("disc", "square")


class ShapesConfig(PluginConfig):
    """Number of images per split."""

    train: int = Field(default=60, ge=1, description="training images")
    val: int = Field(default=30, ge=1, description="validation images")
    test: int = Field(default=30, ge=1, description="test images")


class Shapes(Dataset[ShapesConfig]):
    """One shape per image, with label, mask and box, and its extent: a truth of this data set's own."""

    summary = "a disc, a square, or nothing, on noise"
    licence = "Apache-2.0"
    citation = "this package"

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo(
            name="shapes",
            version="2",
            labels=SHAPES,
            mask_classes=SHAPES,
            box_classes=SHAPES,
            truths=(Truth("extent", "number", unit="sides of the image"),),
        )

    def records(self) -> Sequence[Record]:
        sizes = (("train", self.config.train), ("val", self.config.val), ("test", self.config.test))
        splits = [split for split, count in sizes for _ in range(count)]
        return [
            Record(
                id=f"shape-{i}",
                patient=f"patient-{i}",
                split=split,
                row=f"number {i}",
                labels=(int(i % 3 == 1), int(i % 3 == 2)),
                has_mask=True,
                has_boxes=True,
                truths={
                    "extent": _extent(i) if i % 3 else None
                },  # an image without a shape has none
                payload=i,
            )
            for i, split in enumerate(splits)
        ]

    def load(self, record: Record, size: int) -> Sample:
        rng = np.random.Generator(np.random.Philox(record.payload))
        image = rng.integers(40, 90, (size, size)).astype(np.uint8)
        mask = np.zeros((len(SHAPES), size, size), bool)
        shape = record.payload % 3 - 1
        boxes = np.zeros((0, 4), np.float32)
        if shape >= 0:
            half = round(_extent(record.payload) * size / 2)
            x, y = (int(v) for v in rng.integers(half, size - half, 2))
            rows, columns = np.mgrid[:size, :size]
            inside = (abs(columns - x) <= half) & (abs(rows - y) <= half)
            if shape == 0:
                inside &= (columns - x) ** 2 + (rows - y) ** 2 <= half**2
            image[inside] += 90
            mask[shape] = inside
            boxes = np.array([[x - half, y - half, x + half + 1, y + half + 1]], np.float32)
        classes = np.full(len(boxes), max(shape, 0), np.int64)
        return Sample(image[..., None], mask, boxes, classes)

    def fingerprint(self) -> str:
        return f"shapes-2-{self.config.train}-{self.config.val}-{self.config.test}"


def _extent(number: int) -> float:
    """Draw the side of a shape as a fraction of the image's, the same for every size."""
    return float(np.random.Generator(np.random.Philox([number, 1])).uniform(0.25, 0.5))
