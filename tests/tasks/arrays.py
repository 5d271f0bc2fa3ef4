"""Planted films as a bench has them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ecamp.data.arrays import Arrays
from tests.tasks.planted import INFO, Planted


def planted_arrays(count: int, seed: int = 0) -> Arrays:
    """Arrays with every kind of truth; half train, a quarter validation, a quarter test."""
    data = Planted(count, seed=seed)
    splits = np.array(["train", "train", "val", "test"])[np.arange(count) % 4]
    starts = np.searchsorted(data.box_image, np.arange(count + 1))
    names = tuple(f"film{i}" for i in range(count))
    return Arrays(
        info=replace(
            INFO, labels=("square", "ground"), mask_classes=("square",), box_classes=("square",)
        ),
        ids=names, patients=names, splits=tuple(splits), reports=("",) * count,
        distilled=("",) * count, images=data.images, labels=data.multilabel, masks=data.masks,
        has_mask=np.ones(count, bool), has_boxes=np.ones(count, bool), boxes=data.boxes,
        box_classes=np.zeros(len(data.boxes), np.int64), box_start=starts.astype(np.int64),
        truths={}, skipped=(), split_hash="planted", key="planted",
    )  # fmt: skip
